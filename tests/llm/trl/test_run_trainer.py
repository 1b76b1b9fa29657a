"""A step of TRL's engine against the step of our learner on the same batch: columns, and the weights that it leads to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.policy.adapters import own_weights, with_adapter
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.optimizer import OptimizerConfig
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.runs.run import _weights
from fstsim.llm.tasks.parse import parse_task
from fstsim.llm.trl.run import run_training_on_trl
from fstsim.llm.trl.run_trainer import RunTrainer, TaskSequence

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("quiet_trainers")]
LEASHED = {"leash_loss": 0.3, "kl_estimator": "k3", "kl_estimator_ratio": True}


@pytest.mark.parametrize(
    ("settings", "adapter"),
    [
        ({"updates": 2, "ratio_cap": 1.0001}, ""),
        ({**LEASHED, "temperature": 0.8}, ""),
        ({**LEASHED, "updates": 2}, "lora:r=2"),
    ],
)
def test_a_step_is_that_of_our_learner(
    settings: dict[str, Any], adapter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = PolicyGradient(problems=4, rollouts=4, max_new_tokens=6, **settings)
    config = TrainConfig(
        tasks=("strings:reverse/share",),
        learner=learner,
        adapter=adapter,
        steps=1,
        lr=0.1,
        optimizer=OptimizerConfig("sgd"),
        probe=ProbeConfig(every=1, problems=2, exam=1, relearn=0),
        engine="trl",
        trl=("per_device_train_batch_size=8",),  # two passes an update
    )
    seen: list[dict[str, torch.Tensor]] = []
    real = RunTrainer._generate_and_score_completions

    def noting(self: RunTrainer, inputs: Any) -> Any:
        output = real(self, inputs)
        seen.append({key: value.clone() for key, value in output.items()})
        return output

    monkeypatch.setattr(RunTrainer, "_generate_and_score_completions", noting)
    row = run_training_on_trl(config, tmp_path / "run")[-1]
    (batch,) = seen
    prompts = [r[m.bool()].tolist() for r, m in zip(batch["prompt_ids"], batch["prompt_mask"], strict=True)]
    wrote = [r[m.bool()].tolist() for r, m in zip(batch["completion_ids"], batch["completion_mask"], strict=True)]
    policy, (task,) = Policy.load("base"), [parse_task(name) for name in config.tasks]
    known = task.problems("train")
    problem_of = {tuple(p): q for p, q in zip(policy.encode_all([("", q) for q in known]), known, strict=True)}
    texts = [policy.tokenizer.decode(tokens, skip_special_tokens=True) for tokens in wrote]
    rewards = torch.tensor(
        [task.score(problem_of[tuple(p)], text).reward for p, text in zip(prompts, texts, strict=True)]
    )
    groups = torch.arange(len(prompts)) // learner.rollouts
    assert 0.0 < rewards.mean() < 1.0
    base = policy
    if adapter:
        policy, base = with_adapter(policy, adapter, config.seed)
    else:
        base = Policy.load("base")
    weights = _weights(replace(config, engine="own", trl=()), policy, base)
    rollouts = replace(policy.forced(prompts, wrote), temperature=learner.temperature)
    rollouts = replace(rollouts, logprobs=policy.logprobs(rollouts).detach())
    ours = learner.learn(weights, rollouts, rewards, groups, "the batch")
    for name, value in ours.items():
        assert row[name] == pytest.approx(value, rel=2e-4 if name == "grad_norm" else 1e-5, abs=2e-6), name
    assert row["samples"] == 16
    assert row["loss"] != 0.0
    if learner.updates > 1:
        assert row["capped_share"] > 0.0 or learner.ratio_cap > 2.0
    trained = Policy.load("base")
    if adapter:
        from peft import PeftModel

        merged: Any = PeftModel.from_pretrained(trained.model, tmp_path / "run/model")
        theirs = {name.replace(".default.", "."): p for name, p in merged.named_parameters() if "lora" in name}
        theirs = {name.removeprefix("base_model.model."): p for name, p in theirs.items()}
    else:
        theirs = own_weights(Policy.load(str(tmp_path / "run/model")))
    mine = own_weights(weights.policy)
    assert theirs.keys() == mine.keys()
    start = own_weights(Policy.load("base"))
    for name, weight in mine.items():
        torch.testing.assert_close(theirs[name], weight, atol=1e-6, rtol=1e-6)
        assert adapter or not torch.equal(weight, start[name])


def test_problems_of_a_step_are_of_its_task_and_always_the_same() -> None:
    tasks = [parse_task("strings:reverse"), parse_task("digits:negate")]
    plan = TaskSequence(tasks, steps=5, every=2)
    sizes = [len(task.problems("train")) for task in tasks]
    assert len(plan.problems("train")) == sum(sizes)
    assert [plan.number_at(step) for step in range(10)] == [0] * 5 + [1] * 5
    for step in range(10):
        drawn = plan.drawn(step, 12, seed=3)
        assert drawn == plan.drawn(step, 12, seed=3)
        assert len(set(drawn)) == 12
        assert all((k < sizes[0]) == (step < 5) for k in drawn)
    assert plan.drawn(0, 12, seed=3) != plan.drawn(0, 12, seed=4)
    assert len(plan.drawn(0, sizes[0] + 3, seed=0)) == sizes[0] + 3  # more than there are
