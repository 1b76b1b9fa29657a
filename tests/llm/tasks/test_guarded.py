"""A guarded task is the task, but for a verifier that fails."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from fstsim.llm.tasks.guarded import VerifierErrors, guarded
from fstsim.llm.tasks.rules import parse_rules
from fstsim.llm.types import Answered, Demonstrated, Problem, Score, Split, rule_words


@dataclass(frozen=True)
class Fragile:
    """Gives back what the completion says, as Python reads it."""

    name: str = "fragile"
    exact: bool = False

    def problems(self, split: Split) -> list[Problem]:
        return [Problem("fragile", split, "")]

    def score(self, problem: Problem, completion: str) -> Any:  # noqa: ARG002 -- a protocol
        return Score(float(completion), "fine") if completion != "none" else None


def test_a_task_of_the_world_is_the_same() -> None:
    task, errors = parse_rules("strings:reverse/share"), VerifierErrors()
    inside = guarded(task, errors)
    assert isinstance(inside, Demonstrated)
    assert (inside.name, inside.exact) == (task.name, False)
    for split in ("train", "validation", "test"):
        assert inside.problems(split) == task.problems(split)
    for problem in task.problems("test")[:20]:
        assert inside.score(problem, problem.text) == task.score(problem, problem.text)
        assert (inside.answer(problem), inside.old_answer(problem)) == (task.answer(problem), task.old_answer(problem))
    assert rule_words(inside, "world") == "reverse"
    assert inside.next_task([inside], "world") == task.next_task([task], "world")  # type: ignore[attr-defined]
    assert errors.take() == {}


@pytest.mark.parametrize(
    ("completion", "says"),
    [
        ("x", "ValueError: could not convert string to float: 'x'"),
        ("none", "AttributeError"),
        ("2", "the reward 2.0 does not lie in [0, 1]"),
        ("nan", "the reward nan does not lie in [0, 1]"),
    ],
)
def test_what_fails_scores_0_and_is_counted(completion: str, says: str) -> None:
    errors = VerifierErrors()
    task = guarded(Fragile(), errors)
    (problem,) = task.problems("test")
    assert task.score(problem, "0.5").reward == 0.5
    assert [task.score(problem, completion).reward for _ in range(3)] == [0.0] * 3
    task.score(problem, "-inf")
    assert errors.take() == {"verifier_errors": 4}
    assert errors.take() == {}
    (first,) = errors.first
    assert first.startswith("fragile, problem 'test': ")
    assert says in first


def test_it_can_do_no_more_than_the_task() -> None:
    task = guarded(Fragile(), VerifierErrors())
    assert not isinstance(task, Answered)
    assert rule_words(task, "world") is None
    assert task.next_task([], "world") is None  # type: ignore[attr-defined]
    assert not math.isnan(task.score(task.problems("train")[0], "nan").reward)


@dataclass(frozen=True)
class Given(Fragile):
    """Scores what it was made with."""

    reward: Any = 1
    feedback: Any = "fine"

    def score(self, problem: Problem, completion: str) -> Any:  # noqa: ARG002 -- a protocol
        if self.reward is SystemExit:
            raise SystemExit(3)
        return Score(self.reward, self.feedback)


@pytest.mark.parametrize("reward", [1, True, np.float32(1.0), Fraction(1), Decimal(1)])
def test_a_reward_of_another_type_is_a_number(reward: Any) -> None:
    score = guarded(Given(reward=reward, feedback=None), VerifierErrors()).score(Problem("fragile", "a", ""), "")
    assert (type(score.reward), score.reward, score.feedback) == (float, 1.0, "None")


def test_a_verifier_that_ends_the_program_fails_as_others_do() -> None:
    errors = VerifierErrors()
    assert guarded(Given(reward=SystemExit), errors).score(Problem("fragile", "a", ""), "").reward == 0.0
    assert errors.count == 1
