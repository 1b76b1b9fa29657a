"""Groups in which nothing succeeds: asked again in contexts, learned without them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fstsim.errors import InputError
from fstsim.llm.contexts.prompt_evolution import PromptEvolution
from fstsim.llm.learners.dead_groups import note, rewards_of, unsolved_groups, without_context
from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.learners.weights import Weights
from fstsim.llm.policy.adapters import own_weights
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.behaviour import answer_logprobs
from fstsim.llm.runs.checkpoint import read_checkpoint
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.runs.run import run_training
from fstsim.llm.tasks.rules import parse_rules
from fstsim.llm.types import Population

MakePolicy = Callable[..., Policy]
TASK = parse_rules("strings:rotate+mirror")
PROBLEMS = list(TASK.problems("train"))[:6]


def shipped(lr: float = 3e-4) -> Weights:
    policy, base = Policy.load(), Policy.load()
    return Weights(policy, base, torch.optim.AdamW(policy.model.parameters(), lr=lr, weight_decay=0.0))


def test_rewards_and_groups() -> None:
    policy, learner = Policy.load(), PolicyGradient(rollouts=4)
    rollouts, groups = learner.roll_out(policy, Population(("", "rotate mirror")), PROBLEMS, np.random.default_rng(0))
    rewards = rewards_of(policy, TASK, PROBLEMS, rollouts, groups)
    texts = policy.decode(rollouts)
    wanted = [TASK.score(PROBLEMS[g], text).reward for g, text in zip(groups.tolist(), texts, strict=True)]
    assert rewards.tolist() == wanted
    assert 0.0 < rewards.mean() < 1.0
    assert unsolved_groups(torch.tensor([0.0, 0.2, 0.0, 0.0]), torch.tensor([0, 0, 1, 2])) == [1, 2]


def test_a_right_answer_earns_its_reward_whatever_ends_it(make_policy: MakePolicy) -> None:
    """An end that is not flagged special has a text; the reference is the answer itself."""
    policy = make_policy()
    answer = policy.encode_answer(TASK.answer(PROBLEMS[0]))[:-1]
    other = policy.tokenizer.convert_tokens_to_ids("Z") if "Z" in policy.tokenizer.get_vocab() else answer[0]
    plain = next(
        t for t in range(len(policy.tokenizer)) if t not in (*answer, *policy.tokenizer.all_special_ids, other)
    )
    ends = replace(policy, end_tokens=(*policy.end_tokens, plain))
    wrote = [[*answer, end] for end in ends.end_tokens]
    rollouts = ends.forced([ends.encode("", PROBLEMS[0])] * len(wrote), wrote)
    assert rewards_of(ends, TASK, PROBLEMS[:1] * len(wrote), rollouts, torch.arange(len(wrote))).tolist() == [
        1.0
    ] * len(wrote)
    assert policy.tokenizer.decode(wrote[-1], skip_special_tokens=True) != TASK.answer(PROBLEMS[0])


def test_what_is_unsolved_is_noted_once_and_forgotten_when_solved(make_policy: MakePolicy) -> None:
    policy = make_policy()
    weights = Weights(policy, policy, torch.optim.SGD(policy.model.parameters(), lr=0.1))
    a, b, c, *_ = PROBLEMS
    note(weights, [a, b], [a, b])
    note(weights, [b, c], [b, c])
    assert weights.unsolved == [a.uid, b.uid, c.uid]
    note(weights, [a, c, c], [c, c])
    assert weights.unsolved == [b.uid, c.uid]
    tensors, meta = weights.extras()
    assert (tensors, meta) == ({}, {"unsolved": [b.uid, c.uid]})


def test_the_same_completions_after_their_problems_alone() -> None:
    policy, learner = Policy.load(), PolicyGradient(rollouts=4)
    rollouts, groups = learner.roll_out(
        policy, Population(("rotate mirror", "next")), PROBLEMS, np.random.default_rng(1)
    )
    bare = without_context(policy, rollouts, PROBLEMS, groups)
    assert torch.equal(bare.completions, rollouts.completions)
    for row, group in enumerate(groups.tolist()):
        k = int(bare.prompt_of[row])
        assert bare.prompts[k][bare.prompt_mask[k]].tolist() == policy.encode("", PROBLEMS[group])
        written = rollouts.completions[row][rollouts.mask[row]].tolist()
        forced = policy.logprobs(policy.forced([policy.encode("", PROBLEMS[group])], [written]))
        assert float(forced.detach().sum()) == pytest.approx(float(bare.logprobs[row].sum()), abs=1e-3)


def test_without_contexts_it_is_the_plain_learner(make_policy: MakePolicy) -> None:
    ends = []
    for dead in ("skip", "context"):
        policy, base = make_policy(seed=1), make_policy(seed=1)
        weights = Weights(policy, base, torch.optim.AdamW(policy.model.parameters(), lr=3e-3))
        learner = PolicyGradient(problems=3, rollouts=4, max_new_tokens=4, dead_groups=dead)  # type: ignore[arg-type]
        rng = np.random.default_rng(0)
        for _ in range(3):
            learner.step(weights, Population(), parse_rules("strings:next/share"), rng)
        ends.append(own_weights(policy))
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_what_a_context_can_do_is_learned_without_it() -> None:
    """Eight steps on a task that the base without context solves once in five thousand: it learns from itself in context."""
    weights, rng = shipped(), np.random.default_rng(0)
    learner = PolicyGradient(problems=12, rollouts=4, dead_groups="context")
    problems = list(TASK.problems("test"))[:16]
    answers = [TASK.answer(p) for p in problems]
    rows = []
    for _ in range(10):
        _, info = learner.step(weights, Population(("rotate mirror",)), TASK, rng)
        rows.append(info)
    unsolved = rows[0].metrics["unsolved_share"]
    assert unsolved > 0.8
    assert rows[0].metrics["rescued_share"] == 1.0
    assert rows[0].samples == (1.0 + unsolved) * 12 * 4
    assert rows[0].metrics["dead_share"] == 0.0
    now, before = (answer_logprobs(p, ("",), problems, answers).mean() for p in (weights.policy, weights.base))
    assert now > before + 4.0


def test_a_killed_run_knows_what_is_unsolved(tmp_path: Path) -> None:
    config = TrainConfig(
        "fst",
        (TASK.name,),
        steps=4,
        slow_steps_per_round=2,
        learner=PolicyGradient(problems=6, rollouts=2, dead_groups="context"),
        fast=PromptEvolution(contexts=1, rollout_budget=24, validation=4, shown=4, dead_only=True),
        probe=ProbeConfig(every=1, problems=2, exam=1, relearn=0),
    )
    rows = run_training(config, tmp_path / "one", write_model=False)
    assert "fast_best" not in rows[1]  # nothing is known to be unsolved before the first step
    assert rows[3]["fast_rollouts"] <= 24

    def killed(step: int, _: str) -> None:
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(config, tmp_path / "two", killed, write_model=False)
    _, meta = read_checkpoint(tmp_path / "two" / "checkpoint.safetensors")
    assert meta["unsolved"]
    run_training(config, tmp_path / "two", write_model=False)
    for name in ("metrics.jsonl", "prompts.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize(
    ("method", "changes", "match"),
    [
        ("fst", {"fast": PromptEvolution(dead_only=True)}, "needs --dead-groups context"),
        ("gepa", {"fast": PromptEvolution(dead_only=True)}, "method fst only"),
        (
            "fst",
            {"fast": PromptEvolution(reuse=True), "learner": PolicyGradient(dead_groups="context")},
            "--reuse goes without",
        ),
    ],
)
def test_settings_that_do_not_go_together(method: str, changes: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        TrainConfig(method, **changes)
    with pytest.raises(InputError, match="dead_groups must be"):
        PolicyGradient(dead_groups="leave")  # type: ignore[arg-type]
