"""Bounded edits: never further than L words, never worse on the selection, never scored twice; on the shipped model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fstsim.errors import InputError
from fstsim.llm.contexts.policy_adapter import PolicyAdapter
from fstsim.llm.contexts.prompt_evolution import PromptEvolution
from fstsim.llm.contexts.skill_edits import SkillEdits, applied, cut, edits_between
from fstsim.llm.learners.weights import Weights
from fstsim.llm.policy.policy import Policy
from fstsim.llm.tasks.rules import parse_rules
from fstsim.llm.types import Population, Problem

TASK = parse_rules("strings:reverse+next")
WORDS = st.lists(st.sampled_from("abc"), max_size=6)


@pytest.fixture(scope="module")
def weights() -> Weights:
    """The shipped model; nothing here trains it."""
    policy = Policy.load()
    return Weights(policy, policy, torch.optim.SGD(policy.model.parameters(), lr=0.0))


@dataclass
class Scripted:
    """Proposes ``texts`` in turn, at no cost."""

    texts: Sequence[str]
    asked: int = 0
    before: list[str] = field(default_factory=list)

    def propose(
        self, policy: Policy, context: str, records: Sequence[Mapping[str, str]], rng: np.random.Generator
    ) -> tuple[str, int]:
        assert isinstance(policy, Policy)
        assert isinstance(rng, np.random.Generator)
        assert records[0]["Feedback"]
        self.asked += 1
        self.before.append(context)
        return self.texts[(self.asked - 1) % len(self.texts)], 0


def evolution(*texts: str, edits: int, **changes: Any) -> PromptEvolution:
    settings: dict[str, Any] = {"rollout_budget": 90, "validation": 16, "shown": 4, "edits": edits, **changes}
    return PromptEvolution(reflector=Scripted(texts), **settings)


def levenshtein(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    @cache
    def d(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return i + j
        return min(d(i - 1, j) + 1, d(i, j - 1) + 1, d(i - 1, j - 1) + (a[i - 1] != b[j - 1]))

    return d(len(a), len(b))


@given(old=WORDS, new=WORDS, most=st.integers(0, 7), seed=st.integers(0, 99))
def test_a_cut_is_never_further_than_allowed(old: list[str], new: list[str], most: int, seed: int) -> None:
    edits, distance = edits_between(old, new), levenshtein(tuple(old), tuple(new))
    assert len(edits) == distance
    assert applied(old, edits) == new
    found = tuple(cut(" ".join(old), " ".join(new), most, np.random.default_rng(seed)).split())
    assert levenshtein(tuple(old), found) <= most
    assert levenshtein(found, tuple(new)) == max(0, distance - most)
    if most >= distance:
        assert found == tuple(new)


def test_the_bound_falls_along_a_cosine() -> None:
    how = SkillEdits(first=6, last=2, rounds=10)
    bounds = [how.most(k) for k in range(14)]
    assert bounds[0] == 6
    assert bounds[10:] == [2, 2, 2, 2]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[5] == 4
    assert {SkillEdits(first=3).most(k) for k in range(50)} == {3}


def test_one_word_at_a_time_stalls_where_half_of_a_rule_earns_nothing(weights: Weights) -> None:
    """The strict gate refuses the first right word where rewards are exact; two words, or shares of right symbols, pass.

    And so does a task on which half of the rule is right by chance: two of the selection's words are palindromes.
    """

    def last(task: str, edits: int) -> str:
        population, rng = Population(), np.random.default_rng(0)
        words = parse_rules(task).rule_words("world")
        assert words is not None
        evolve = evolution(words, edits=edits)
        for _ in range(3):
            population, _ = evolve.step(weights, population, parse_rules(task), rng)
        return population.prompts[0]

    assert last("strings:rotate+mirror", 1) == ""
    assert last("strings:rotate+mirror", 2) == "rotate mirror"
    assert last("strings:rotate+mirror/share", 1) == "rotate mirror"
    assert last("strings:reverse+next", 1) == "reverse next"


def test_what_is_taken_is_better_and_what_was_refused_is_not_scored_again(
    weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores, asked = PolicyAdapter.scores, []

    def watched(self: PolicyAdapter, context: str, problems: Sequence[Problem]) -> Any:
        if self.temperature == 0.0:
            asked.append(context)
        return scores(self, context, problems)

    monkeypatch.setattr(PolicyAdapter, "scores", watched)
    task, rng = parse_rules("strings:reverse+next/share"), np.random.default_rng(2)
    evolve = evolution("sort", "next", "mirror next", "reverse sort", "reverse next", edits=1, rollout_budget=120)
    population, values, documents = Population(), [], [""]
    for number in range(8):
        before, asked[:] = population, []
        population, info = evolve.step(weights, population, task, rng)
        assert info.samples == info.metrics["fast_rollouts"] <= 120
        refused = {text for _, text in before.rejected}
        assert asked[0] == before.prompts[0]  # once again: the weights may have moved
        assert not refused & set(asked[1:])
        assert len(set(asked)) == len(asked)
        values.append(population.scores[0])
        documents.append(population.prompts[0])
        assert population.rounds == number + 1
        assert len(population.rejected) - len(before.rejected) == info.metrics["edits_rejected"]
        if info.metrics["edits_accepted"]:
            assert before.scores == () or population.scores > before.scores
        else:
            assert population.prompts == before.prompts
    assert values == sorted(values)
    assert documents[-1] == "reverse next"
    assert population.archive == ((task.name, "reverse next"),)
    read = Population.from_dict(json.loads(json.dumps(population.to_dict())))
    assert read == population


def test_a_population_without_edits_is_recorded_as_ever() -> None:
    held = Population(("next",), (0.5,)).to_dict()
    assert set(held) == {"prompts", "scores", "lineage", "archive"}


def test_another_task_has_refused_nothing(weights: Weights) -> None:
    population = Population(rejected=((TASK.name, "reverse"),))
    evolve = evolution("reverse", edits=1)
    other = parse_rules("strings:reverse")
    assert evolve.step(weights, population, TASK, np.random.default_rng(0))[0].prompts == ("",)
    assert evolve.step(weights, population, other, np.random.default_rng(0))[0].prompts == ("reverse",)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"edits": -1}, "edits and edit_rounds"),
        ({"edits": 0, "edit_rounds": 3}, "edit_rounds needs edits"),
        ({"edits": 2, "edits_end": 3, "edit_rounds": 4}, "edits_end must be at most edits"),
        ({"edits": 2, "rollout_budget": 36}, "rollout_budget must be at least 37"),
        ({"edits": 2, "reuse": True}, "without reuse"),
    ],
)
def test_bad_settings(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        replace(PromptEvolution(validation=16, shown=4), **changes)
