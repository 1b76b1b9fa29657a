"""The leash of fine-tuning: its gradient against that of the KL of sequences by enumeration, and where it rests against the theory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch.optim import SGD, AdamW

from fstsim.errors import InputError
from fstsim.llm.learners.method_losses import Direction
from fstsim.llm.learners.sequence_leash import pull
from fstsim.llm.learners.sft import SupervisedFineTuning
from fstsim.llm.learners.weights import Weights
from fstsim.llm.policy.policy import Policy
from fstsim.llm.tasks.rules import RuleTask
from fstsim.llm.types import Population
from fstsim.llm.validation.prediction import BaseMasses
from fstsim.llm.validation.sequence_leashes import rests

MakePolicy = Callable[..., Policy]
DIRECTIONS: tuple[Direction, ...] = ("reverse", "forward")


def moved(policy: Policy) -> Policy:
    """A policy that differs from its base."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in policy.model.parameters():
            p += 0.15 * torch.randn(p.shape, generator=generator) * p.std()
    return policy


def sequences(policy: Policy, base: Policy, prompt: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of all completions of at most two tokens, under both."""
    ends = set(policy.end_tokens)
    words = range(policy.vocabulary)
    every = [[a] for a in words if a in ends] + [[a, b] for a, b in itertools.product(words, words) if a not in ends]
    shown = policy.forced([prompt], [every[0]])
    rows = policy.forced([prompt] * len(every), every)
    assert len(shown) == 1
    return policy.logprobs(rows).sum(-1), base.logprobs(rows).sum(-1).detach()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_gradient_is_that_of_the_kl_of_sequences(direction: Direction, make_policy: MakePolicy) -> None:
    """Mean over many samples against the gradient of the enumerated KL, prefixes included, along three directions of weights."""
    base, policy = make_policy(), moved(make_policy())
    problem = RuleTask("strings", ("next",), size=3).problems("train")[0]
    prompt = policy.encode("", problem)
    logp, logq = sequences(policy, base, prompt)
    kl = (logp.exp() * (logp - logq)).sum() if direction == "reverse" else (logq.exp() * (logq - logp)).sum()
    assert float(logp.detach().exp().sum()) == pytest.approx(1.0, abs=1e-4)
    kl.backward()
    parameters = list(policy.model.parameters())
    exact = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    weights = Weights(policy, base, SGD(parameters, lr=0.0))
    found, values = [], []
    rng = np.random.default_rng(0)
    for _ in range(40):
        policy.model.zero_grad(set_to_none=True)
        values.append(pull(weights, [prompt] * 200, (1.0, direction), 2, rng))
        found.append(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]))
    grads = torch.stack(found)
    along = torch.stack([exact, torch.randn(exact.shape, generator=torch.Generator().manual_seed(1))])
    projected = grads @ along.T
    error = projected.std(0) / math.sqrt(len(found))
    assert ((projected.mean(0) - along @ exact).abs() <= 4.5 * error + 1e-6).all()
    assert float(error[0]) < 0.1 * float(exact @ exact), "precise enough to say so"
    spread = np.std(values) / math.sqrt(len(values))
    assert np.mean(values) == pytest.approx(float(kl.detach()), abs=4.5 * spread + 1e-6)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_at_the_base_there_is_no_pull_and_strength_is_linear(direction: Direction, make_policy: MakePolicy) -> None:
    base, policy = make_policy(), make_policy()
    prompt = policy.encode("", RuleTask("strings", ("next",), size=3).problems("train")[0])
    parameters = list(policy.model.parameters())
    weights = Weights(policy, base, SGD(parameters, lr=0.0))
    assert pull(weights, [prompt] * 4, (1.0, direction), 3, np.random.default_rng(0)) == pytest.approx(0.0, abs=1e-5)
    assert all(p.grad is None or float(p.grad.abs().max()) < 1e-4 for p in parameters)
    moved(policy)
    norms = []
    for strength in (0.5, 1.0):
        policy.model.zero_grad(set_to_none=True)
        pull(weights, [prompt] * 4, (strength, direction), 3, np.random.default_rng(0))
        norms.append(math.sqrt(sum(float((p.grad**2).sum()) for p in parameters if p.grad is not None)))
    assert norms[1] == pytest.approx(2.0 * norms[0], rel=1e-4)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("eta", [0.25, 1.0, 3.0])
def test_prediction_is_the_minimum_over_distributions(direction: Direction, eta: float) -> None:
    """Over four answers, the loss of the demonstrations and the KL written out."""
    base = np.array([0.1, 0.35, 0.5, 0.05])  # new, old, two others

    def loss(z: np.ndarray) -> float:
        q = np.exp(z - np.logaddexp.reduce(z))
        kl = (q * np.log(q / base)).sum() if direction == "reverse" else (base * np.log(base / q)).sum()
        return float(-np.log(q[0]) + eta * kl)

    best = minimize(loss, np.log(base), method="BFGS", options={"gtol": 1e-9}).x
    q = np.exp(best - np.logaddexp.reduce(best))
    new, old = rests(BaseMasses(base[:1], base[1:2], np.array([False])), eta, direction)
    assert (float(new[0]), float(old[0])) == pytest.approx((q[0], q[1]), abs=1e-5)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_strong_leash_holds_what_fine_tuning_alone_loses(direction: Direction, make_policy: MakePolicy) -> None:
    task = RuleTask("strings", ("next",), size=3)
    kls = []
    for leash in ({}, {"leash_loss": 5.0, "leash_direction": direction}):
        policy, base = make_policy(), make_policy()
        weights = Weights(policy, base, AdamW(policy.model.parameters(), lr=3e-3))
        learner: Any = SupervisedFineTuning(problems=16, **leash)  # type: ignore[arg-type]
        rng = np.random.default_rng(3)
        for _ in range(12):
            weights, info = learner.step(weights, Population(), task, rng)
        assert info.samples == (16 if leash else 0)
        assert ("leash_kl" in info.metrics) == bool(leash)
        prompts = [policy.encode("", p) for p in task.problems("test")[:40]]
        rollouts = policy.sample(prompts, 4, torch.Generator().manual_seed(0), max_new_tokens=4)
        with torch.no_grad():
            kls.append(float((policy.logprobs(rollouts) - base.logprobs(rollouts)).sum(-1).mean()))
    assert kls[1] < 0.4 * kls[0]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"leash_loss": -1.0}, "leash_loss must be nonnegative and finite, got -1.0"),
        ({"leash_loss": math.inf}, "leash_loss must be nonnegative and finite"),
        ({"leash_direction": "forward"}, "leash_direction forward needs a leash_loss above 0"),
        ({"leash_loss": 1.0, "leash_direction": "both"}, "leash_direction must be one of reverse, forward; got 'both'"),
    ],
)
def test_bad_settings(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        SupervisedFineTuning(**settings)
