"""Replay of own answers: which completions are shown, the gradient that they leave, and what is said of bad settings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.optim import AdamW

from fstsim.errors import InputError
from fstsim.llm.learners.own_replay import own_answers
from fstsim.llm.learners.sft import SupervisedFineTuning
from fstsim.llm.learners.weights import Weights
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.behaviour import answer_logprobs
from fstsim.llm.tasks.rules import parse_rules
from fstsim.llm.types import Population

TASK = parse_rules("digits:plus")


@pytest.fixture(scope="module")
def base() -> Policy:
    return Policy.load("base")


def test_answers_are_right_and_as_frequent_as_they_are_likely(base: Policy) -> None:
    """The part of prompts that get one is that of the exact probabilities of the old answers, within 4.5 standard errors."""
    problems, tries = TASK.problems("train")[:200], 3
    old = [TASK.old_answer(p) for p in problems]
    prompts = [base.encode("", p) for p in problems]
    given = own_answers(base, prompts, old, tries, np.random.default_rng(0))
    assert all(tokens is None or tokens == base.encode_answer(o) for tokens, o in zip(given, old, strict=True))
    likely = 1.0 - (1.0 - np.exp(answer_logprobs(base, ("",), problems, old)[0])) ** tries
    spread = np.sqrt((likely * (1.0 - likely)).sum())
    assert abs(sum(tokens is not None for tokens in given) - likely.sum()) <= 4.5 * spread
    assert 0.2 < likely.mean() < 0.8, "a test of both cases"


def test_nothing_asked_nothing_sampled(base: Policy) -> None:
    assert own_answers(base, [], [], 4, np.random.default_rng(0)) == []


def loaded() -> Weights:
    policy = Policy.load("base")
    return Weights(policy, policy, AdamW(policy.model.parameters(), lr=1e-4))


def test_a_step_shows_own_answers_and_counts_what_it_sampled() -> None:
    learner = SupervisedFineTuning(problems=12, replay_share=0.5, replay="own", replay_tries=6)
    weights = loaded()
    before = [p.detach().clone() for p in weights.policy.model.parameters()]
    weights, info = learner.step(weights, Population(), TASK, np.random.default_rng(1))
    shown, right, asked = info.metrics["shown"], info.metrics["own_right"], info.samples // 6
    assert asked == 12 - shown
    assert info.samples == 6 * asked > 0
    assert 0.0 < right < 1.0, "some prompts are left out"
    assert info.metrics["old_share"] == pytest.approx(right * asked / (right * asked + shown))
    assert any(not torch.equal(p, q) for p, q in zip(weights.policy.model.parameters(), before, strict=True))


def test_a_batch_in_which_nothing_is_right_moves_nothing() -> None:
    """An old answer that the policy never writes: the loss is 0 and no weight moves."""

    class Never:
        name, exact = "never", True
        problems, answer, score = TASK.problems, TASK.answer, TASK.score

        def old_answer(self, problem: object) -> str:  # noqa: ARG002
            return "9"

    weights = loaded()
    before = [p.detach().clone() for p in weights.policy.model.parameters()]
    learner = SupervisedFineTuning(problems=4, replay_share=1.0, replay="own", replay_tries=2)
    weights, info = learner.step(weights, Population(), Never(), np.random.default_rng(2))  # type: ignore[arg-type]
    assert info.metrics == {"loss": 0.0, "grad_norm": 0.0, "old_share": 0.0, "shown": 0, "own_right": 0.0}
    assert info.samples == 8
    assert all(torch.equal(p, q) for p, q in zip(weights.policy.model.parameters(), before, strict=True))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"replay": "mine", "replay_share": 0.1}, "replay must be one of old, own; got 'mine'"),
        ({"replay": "own"}, "replay own needs a replay_share above 0"),
        ({"replay": "own", "replay_share": 0.1, "replay_tries": 0}, "replay_tries must be at least 1, got 0"),
        (
            {"replay": "own", "replay_share": 0.1, "problems": 1000, "replay_tries": 2000},
            "problems x rollouts must be at most 1,000,000",
        ),
    ],
)
def test_bad_settings(settings: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        SupervisedFineTuning(**settings)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
