"""What a library practises beside its task: the next one of the family's small tasks, by novelty, by depth, or at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal

import numpy as np

from fstsim.llm.policy.policy import Policy
from fstsim.llm.systems.library import Library, behaviour, matched
from fstsim.llm.systems.plans import Pair
from fstsim.llm.tasks.families import FAMILIES
from fstsim.llm.tasks.rules import RuleTask, parse_start

Curriculum = Literal["novelty", "random", "depth", "none"]
_LOOKED_AT = 8
"""Tasks of the pool that novelty is asked of in a step."""
_WINDOW = (0.1, 0.9)
"""Predicted success of what is neither known nor out of reach."""


@cache
def pool(family: str, words: tuple[str, ...]) -> tuple[RuleTask, ...]:
    """Tasks of one rule and of two, of those with equal behaviour the first, without the identity."""
    known = [word for word in FAMILIES[family].rules if word in words]
    programs: list[tuple[str, ...]] = [(a,) for a in known] + [(a, b) for a in known for b in known]
    met: dict[Any, tuple[str, ...] | None] = {behaviour(family, ()): None}
    return tuple(RuleTask(family, p) for p in programs if met.setdefault(behaviour(family, p), p) is p)


def pairs_of(task: RuleTask, rng: np.random.Generator, count: int) -> list[Pair]:
    """``count`` train problems of ``task`` as start list and right answer."""
    problems = task.problems("train")
    chosen = [problems[i] for i in rng.choice(len(problems), size=min(count, len(problems)), replace=False)]
    return [("".join(parse_start(p)), task.answer(p)) for p in chosen]


def next_practice(
    kind: Curriculum,
    policy: Policy,
    library: Library,
    counts: Mapping[str, tuple[int, int]],
    family: str,
    rng: np.random.Generator,
) -> RuleTask | None:
    r"""The task of the pool to be tried next, None where all are solved.

    ``random``: any that is unsolved. ``depth``: of those with the fewest rules the one tried least. ``novelty``: of a few the
    one farthest from every stored skill, among those whose predicted success lies in (.1, .9); the prediction is the
    mean of (s+1)/(a+2) over a attempts and of the share of symbols that the nearest skill has right.
    """
    open_tasks: Sequence[RuleTask] = [t for t in pool(family, policy.words) if counts.get(t.name, (0, 0))[1] == 0]
    if kind == "none" or not open_tasks:
        return None
    if kind == "depth":
        return min(open_tasks, key=lambda t: (len(t.rules), counts.get(t.name, (0, 0))[0]))
    drawn = [open_tasks[i] for i in rng.permutation(len(open_tasks))[:_LOOKED_AT]]
    if kind == "random":
        return drawn[0]
    rated = []
    for task in drawn:
        pairs = pairs_of(task, rng, 4)
        near = library.near(policy, family, pairs, 5)
        tried, solved = counts.get(task.name, (0, 0))
        partial = max((matched(family, skill.program, pairs) for skill, _ in near), default=matched(family, (), pairs))
        predicted = 0.5 * ((solved + 1) / (tried + 2) + partial)
        novelty = 1.0 - max((cosine for _, cosine in near), default=0.0)
        rated.append((_WINDOW[0] < predicted < _WINDOW[1], novelty, task))
    return max(rated, key=lambda entry: entry[:2])[2]
