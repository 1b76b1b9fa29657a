"""Tasks of reasoning-gym: its questions and verifiers, three splits of one seed without a question in common."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from fstsim.errors import InputError
from fstsim.llm.tasks.reasoning_gym import load_gym
from fstsim.llm.types import SPLITS, Answered

needed = pytest.mark.skipif(importlib.util.find_spec("reasoning_gym") is None, reason="reasoning-gym is not installed")


@needed
def test_questions_answers_and_rewards_are_its_own() -> None:
    import reasoning_gym

    task = load_gym("reasoning_gym:chain_sum?size=100&seed=7&min_terms=4&max_terms=6")
    own = reasoning_gym.create_dataset("chain_sum", size=100, seed=7, min_terms=4, max_terms=6)
    asked = [entry["question"] for entry in own]
    assert len(set(asked)) == 100
    parts = {split: [p.question for p in task.problems(split)] for split in SPLITS}
    assert parts == {"train": asked[:80], "validation": asked[80:90], "test": asked[90:]}
    assert isinstance(task, Answered)
    assert not task.exact
    for problem, entry in zip(task.problems("test"), list(own)[90:], strict=True):
        assert task.answer(problem) == entry["answer"]
        for text in (entry["answer"], "", "12 apples", f"the answer is {entry['answer']}"):
            assert task.score(problem, text).reward == own.score_answer(text, entry)
    assert task.score(task.problems("test")[0], f" {task.answer(task.problems('test')[0])}\n").reward == 1.0


@needed
def test_a_question_asked_again_is_left_out() -> None:
    task = load_gym("reasoning_gym:chain_sum?size=200&min_terms=2&max_terms=2&min_digits=1&max_digits=1")
    asked = [p.uid for split in SPLITS for p in task.problems(split)]
    assert len(set(asked)) == len(asked) < 200


@needed
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("reasoning_gym:no_such_set", "no_such_set"),
        ("reasoning_gym:chain_sum?length=3", "length"),
        ("reasoning_gym:chain_sum?min_terms=-1", "min_terms must be positive"),
        ("reasoning_gym:chain_sum?size=3", "size must be a whole number in 10..1,000,000, got 3"),
        ("reasoning_gym:chain_sum?size=many", "size must be a whole number"),
        ("reasoning_gym:chain_sum?seed=-1", "seed must be a whole number in 0..1,000,000, got -1"),
        ("reasoning_gym:chain_sum?size", "after ? there must be key=value&key=value, got 'size'"),
    ],
)
def test_mistakes(name: str, says: str) -> None:
    with pytest.raises(InputError) as error:
        load_gym(name)
    assert says in str(error.value)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(InputError, match=r"needs the package reasoning-gym: pip install 'fstsim\[reasoning-gym\]'"):
        load_gym("reasoning_gym:chain_sum")
