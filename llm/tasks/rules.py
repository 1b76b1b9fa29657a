"""The world as tasks: hidden rules, disjoint splits, an exact verifier, feedback in words.

A task is named ``family@size:rule+rule/reward``, for example ``strings:reverse``, ``digits:negate+plus``,
``star_graph:forward+up/share`` or ``strings@12:reverse+next``, on strings of 12 letters. Without ``@size`` problems have the
size of the shipped base model's world; ``strings:unnamed`` has a rule that no word describes, and a family alone means
its default task. The hidden rules are never shown: they are in the verifier and in the feedback's right answers only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import numpy as np

from fstsim.errors import InputError
from fstsim.llm.tasks.families import FAMILIES, LONGEST_WALK, UNNAMED, Family, Symbols
from fstsim.llm.tasks.splits import split_of
from fstsim.llm.types import SPLITS, Problem, Score, Split, Task

Reward = Literal["exact", "share"]

SIZES: Mapping[str, int] = {"strings": 5, "digits": 5, "star_graph": 4}
"""Symbols of a start list in the world of the shipped base model."""

_DEFAULT = {"strings": "reverse+next", "digits": "negate+shift", "star_graph": "forward"}
_COUNTS: Mapping[Split, int] = {"train": 4096, "validation": 512, "test": 512}
_MOST_RULES = 6
_TOO_SLOW = {"forward", "inner"}
"""rules that the shipped model does not learn in the 60 steps of the relearning probe: they would say nothing"""
LARGEST: Mapping[str, int] = {"strings": 64, "digits": 64, "star_graph": LONGEST_WALK}
"""Most symbols of a start list; the least is 2."""


def check_size(family: str, size: int) -> None:
    """InputError unless problems of ``family`` can have ``size`` symbols in their start list."""
    if not 2 <= size <= LARGEST[family]:
        raise InputError(f"task size of {family} must lie in 2..{LARGEST[family]}, got {size}")


def make_problem(family: Family, text: str) -> Problem:
    """The problem that ``text`` states."""
    return Problem(family.name, text, family.question.format(text=text))


def draw_problem(family: Family, rng: np.random.Generator, split: Split, size: int) -> tuple[Problem, Symbols]:
    """A random problem of ``split`` and its start list."""
    while True:
        text, start = family.draw(rng, size)
        problem = make_problem(family, text)
        if split_of(problem) == split:
            return problem, start


@cache
def _drawn(family: str, split: Split, size: int) -> tuple[tuple[Problem, Symbols], ...]:
    """The problems of a split, without repetition: the same for every task of a family."""
    rng = np.random.default_rng([SPLITS.index(split), *family.encode()])
    found: dict[str, tuple[Problem, Symbols]] = {}
    tries = 0
    while len(found) < _COUNTS[split] and tries < 4 * _COUNTS[split]:  # a small world may have fewer
        problem, start = draw_problem(FAMILIES[family], rng, split, size)
        found.setdefault(problem.text, (problem, start))
        tries += 1
    return tuple(found.values())


@dataclass(frozen=True)
class RuleTask:
    """Apply the hidden ``rules`` to the start list of each problem.

    ``reward`` is ``exact`` (1 for the right list, else 0) or ``share`` (share of places with the right symbol, 0 for
    a list of another length). ``size`` is the number of symbols of a start list, None that of `SIZES` (which becomes
    None: a task has one name). Errors: InputError for a rule or a size that the family does not have.
    """

    family: str
    rules: tuple[str, ...]
    reward: Reward = "exact"
    size: int | None = None

    def __post_init__(self) -> None:
        known = FAMILIES.get(self.family)
        if known is None:
            raise InputError(f"task family {self.family!r} is unknown; allowed: {', '.join(FAMILIES)}")
        for word in self.rules:
            if word not in known.rules and word != UNNAMED:
                raise InputError(
                    f"{self.family} has no rule {word!r}; allowed: {', '.join(known.rules)}, {UNNAMED}, joined by +"
                )
        if len(self.rules) > _MOST_RULES:
            raise InputError(f"a task has at most {_MOST_RULES} rules, got {len(self.rules)}")
        if self.reward not in get_args(Reward):
            raise InputError(f"task reward {self.reward!r} is unknown; allowed: {', '.join(get_args(Reward))}")
        if self.size is not None:
            check_size(self.family, self.size)
            if self.size == SIZES[self.family]:
                object.__setattr__(self, "size", None)

    @property
    def name(self) -> str:
        """``family:rule+rule``, with ``@size`` where problems are of another size, ``/share`` where symbols are rewarded one by one."""
        size = "" if self.size is None else f"@{self.size}"
        tail = "" if self.reward == "exact" else f"/{self.reward}"
        return f"{self.family}{size}:{'+'.join(self.rules)}{tail}"

    @property
    def exact(self) -> bool:
        """Whether only the right list is rewarded."""
        return self.reward == "exact"

    @property
    def symbols(self) -> int:
        """Symbols of a start list, and of every answer."""
        return self.size or SIZES[self.family]

    def _pairs(self, split: Split) -> tuple[tuple[Problem, Symbols], ...]:
        return _drawn(self.family, split, self.symbols)

    def problems(self, split: Split) -> Sequence[Problem]:
        """The problems of a split: 4096 to train on, 512 to validate, 512 to test; without repetition."""
        return [problem for problem, _ in self._pairs(split)]

    def answer(self, problem: Problem) -> str:
        """The one right completion, without spaces."""
        return "".join(FAMILIES[self.family].apply(self.rules, parse_start(problem)))

    def old_answer(self, problem: Problem) -> str:
        """What the base model's main behaviour without context writes: the start list itself."""
        return "".join(parse_start(problem))

    def rule_words(self, template: str) -> str | None:
        """The rules in words: those of the world, or English for a model that reads it; None if a rule has no word."""
        if UNNAMED in self.rules:
            return None
        if template == "world":
            return " ".join(self.rules)
        return "; then ".join(FAMILIES[self.family].explained[word] for word in self.rules)

    def next_task(self, met: Sequence[Task], template: str) -> RuleTask | None:
        """The first single rule of the family that no task in ``met`` uses, if there is one; the world's models alone know any.

        Rules that take longer than the relearning probe lasts, from the base already, are left out.
        """
        if template != "world":
            return None
        used = {word for task in met if isinstance(task, RuleTask) for word in task.rules} | _TOO_SLOW
        free = [word for word in FAMILIES[self.family].rules if word not in used]
        return RuleTask(self.family, (free[0],), size=self.size) if free else None

    def score(self, problem: Problem, completion: str) -> Score:
        """Reward of a completion (spaces do not matter), and what the environment says about it."""
        wrote, right = re.sub(r"\s+", "", completion), self.answer(problem)
        if self.reward == "exact" or len(wrote) != len(right):
            reward = float(wrote == right)
        else:
            reward = sum(a == b for a, b in zip(wrote, right, strict=True)) / len(right)
        start = "".join(parse_start(problem))
        verdict = "correct" if wrote == right else "wrong"
        return Score(reward, f"{verdict}. start: {start} wrote: {wrote[:64]} right: {right}")


@cache
def _parse(family: str, text: str) -> Symbols:
    if family != "star_graph":
        return tuple(text)
    edges, _, goal = text.partition(":")
    parent = {edge[0]: edge[1] for edge in edges.split(";")}
    walk = [goal]
    while walk[-1] in parent:
        walk.append(parent[walk[-1]])
    return tuple(walk)


def parse_start(problem: Problem) -> Symbols:
    """The start list of a problem: its symbols, or the walk from the goal to the centre of its star graph."""
    return _parse(problem.family, problem.text)


def names_rules(name: str) -> bool:
    """Whether ``name`` begins like the name of a task of this world, right or not."""
    return re.split("[/:@~]", name, maxsplit=1)[0] in FAMILIES


def parse_rules(name: str, reward: str | None = None) -> RuleTask:
    """The task of this world called ``family[@size][:rule[+rule ...]][/reward]``; InputError says what is allowed."""
    rest, slash, last = name.partition("/")
    head, colon, words = rest.partition(":")
    family, at, size = head.partition("@")
    if family not in FAMILIES:
        raise InputError(
            f"task {name!r} is unknown; a task is family:rule+rule, family@size:rule+rule, or either with /share, "
            f"with family one of {', '.join(FAMILIES)}"
        )
    if at and not (size.isascii() and size.isdecimal() and len(size) < 4):
        raise InputError(f"task {name!r}: size must be a whole number in 2..{LARGEST[family]}, got {size!r}")
    rules = tuple((words if colon else _DEFAULT[family]).split("+"))
    said = last if slash else reward or "exact"
    return RuleTask(family, rules, said, int(size) if at else None)  # type: ignore[arg-type]  # checked there
