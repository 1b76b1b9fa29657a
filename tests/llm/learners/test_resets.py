"""A leash that is tied anew: without resets, and before the first one, it is the leash to the base; after one it is slack."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fstsim.errors import InputError
from fstsim.llm.forecast.config import ForecastConfig
from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.learners.shadow import ShadowedWeights
from fstsim.llm.learners.weights import Weights
from fstsim.llm.policy.adapters import own_weights
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.checkpoint import read_checkpoint
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.runs.run import run_training
from fstsim.llm.tasks.rules import parse_rules
from fstsim.llm.types import Population

MakePolicy = Callable[..., Policy]
TASK = parse_rules("strings:next/share")


def held(make_policy: MakePolicy, learner: PolicyGradient) -> Weights:
    policy, base = make_policy(seed=1), make_policy(seed=1)
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=3e-3, weight_decay=0.0)
    return learner.hold(Weights(policy, base, optimizer))


def steps(weights: Weights, learner: PolicyGradient, count: int) -> tuple[Weights, list[dict[str, Any]]]:
    rng, rows = np.random.default_rng(0), []
    for _ in range(count):
        weights, info = learner.step(weights, Population(), TASK, rng)
        rows.append(dict(info.metrics))
    return weights, rows


def learner(**changes: Any) -> PolicyGradient:
    return PolicyGradient(**{"problems": 3, "rollouts": 4, "max_new_tokens": 4, "leash_loss": 0.5, **changes})


@pytest.mark.parametrize("leash", [{"leash_loss_prefix": True}, {"leash_loss": 0.0, "leash_reward": 0.3}])
def test_before_the_first_reset_it_is_the_leash_to_the_base(make_policy: MakePolicy, leash: dict[str, Any]) -> None:
    """The reset at step 0 changes nothing: the same weights, to the bit, as without resets."""
    plain, reset = learner(**leash), learner(reset_every=4, **leash)
    assert type(held(make_policy, plain)) is Weights
    one, rows = steps(held(make_policy, plain), plain, 4)
    other, again = steps(held(make_policy, reset), reset, 4)
    for name, value in own_weights(one.policy).items():
        assert torch.equal(value, own_weights(other.policy)[name]), name
    assert [{k: v for k, v in row.items() if k != "leash_kl"} for row in again] == rows


def test_right_after_a_reset_the_leash_is_slack(make_policy: MakePolicy) -> None:
    reset = learner(reset_every=3)
    weights, rows = steps(held(make_policy, reset), reset, 7)
    assert [row["leash_kl"] == 0.0 for row in rows] == [True, False, False, True, False, False, True]
    assert isinstance(weights, ShadowedWeights)
    assert weights.age == 7
    assert all(not p.requires_grad and p.grad is None for p in own_weights(weights.shadow).values())
    # seven steps: three with the moments of the third reset gone
    assert {int(state["step"]) for state in weights.optimizer.state.values()} == {1}
    start = own_weights(held(make_policy, reset).policy)
    assert any(not torch.equal(own_weights(weights.shadow)[name], value) for name, value in start.items())
    assert all(torch.equal(own_weights(weights.base)[name], value) for name, value in start.items())


def test_the_leash_pulls_to_what_it_is_tied_to(make_policy: MakePolicy) -> None:
    """With no reward to be had the gradient is that of the KL to the reference: by hand, to a reference that is not the base."""
    reset = learner(reset_every=100, loss="reinforce", leash_loss=1.0)
    weights = held(make_policy, reset)
    assert isinstance(weights, ShadowedWeights)
    weights.shadow.model.load_state_dict(make_policy(seed=2).model.state_dict())
    policy, rng = weights.policy, np.random.default_rng(0)
    rollouts, groups = reset.roll_out(policy, Population(), TASK.problems("train")[:3], rng)
    logp, logq = (torch.log_softmax(p.logits(rollouts), -1) for p in (policy, weights.shadow))
    wanted = ((logp.exp() * (logp - logq)).sum(-1) * rollouts.mask).sum() / len(rollouts)
    wanted.backward()
    gradient = {name: p.grad.clone() for name, p in own_weights(policy).items() if p.grad is not None}
    norm = float(torch.cat([g.flatten() for g in gradient.values()]).norm())
    weights.optimizer.zero_grad()
    said = reset.learn(weights, rollouts, torch.zeros(len(rollouts)), groups, "three problems")
    assert said["leash_kl"] == pytest.approx(float(wanted.detach()), rel=1e-5)
    assert said["grad_norm"] == pytest.approx(norm, rel=1e-4)


def test_a_killed_run_knows_its_reference(make_policy: MakePolicy, tmp_path: Path) -> None:
    policy = make_policy(seed=3, num_hidden_layers=1)
    policy.model.save_pretrained(tmp_path / "model")
    policy.tokenizer.save_pretrained(tmp_path / "model")
    config = TrainConfig(
        "rl",
        ("strings:next/share",),
        model=str(tmp_path / "model"),
        steps=5,
        lr=3e-3,
        learner=learner(reset_every=2, max_new_tokens=6),
        probe=ProbeConfig(every=1, problems=2, exam=1, relearn=0, max_new_tokens=6),
    )
    run_training(config, tmp_path / "one", write_model=False)

    def killed(step: int, _: str) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(config, tmp_path / "two", killed, write_model=False)
    run_training(config, tmp_path / "two", write_model=False)
    assert (tmp_path / "one/metrics.jsonl").read_bytes() == (tmp_path / "two/metrics.jsonl").read_bytes()
    (tensors, meta), (wanted, _) = (read_checkpoint(tmp_path / n / "checkpoint.safetensors") for n in ("two", "one"))
    assert meta["age"] == 5
    assert all(torch.equal(value, wanted[name]) for name, value in tensors.items())
    assert any(name.startswith("shadow.model.") for name in tensors)


def test_bad_settings() -> None:
    with pytest.raises(InputError, match="reset_every must be at least 0"):
        learner(reset_every=-1)
    with pytest.raises(InputError, match="reset_every needs a leash"):
        PolicyGradient(reset_every=5)
    with pytest.raises(InputError, match="cannot be forecast"):
        ForecastConfig(TrainConfig("rl", learner=learner(reset_every=5)))
