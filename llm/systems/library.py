"""A library of skills: programs of rule words, known by what they do, found by what is asked (2305.16291).

A program is run by the world's interpreter (`fstsim.llm.tasks.families.Family.apply`). Two programs that do the same are one skill.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import torch

from fstsim.errors import InputError
from fstsim.llm.contexts.reflection import reflection_prompt
from fstsim.llm.policy.policy import Policy
from fstsim.llm.systems.embedding import embed
from fstsim.llm.systems.plans import Pair
from fstsim.llm.tasks.families import FAMILIES
from fstsim.llm.tasks.rules import RuleTask, parse_start
from fstsim.settings import check_types

Program = tuple[str, ...]
LONGEST_PROGRAM = 12
"""Rules in a program at most."""
_INPUTS = 32
"""Start lists on which behaviour is compared."""


def run_program(family: str, program: Program, start: str) -> str:
    """What ``program`` makes of a start list."""
    return "".join(FAMILIES[family].apply(program, tuple(start)))


@cache
def _starts(family: str) -> tuple[str, ...]:
    return tuple("".join(parse_start(p)) for p in RuleTask(family, ()).problems("validation")[:_INPUTS])


@cache
def behaviour(family: str, program: Program) -> tuple[str, ...]:
    """What the program makes of fixed validation problems: programs with the same are the same skill."""
    return tuple(run_program(family, program, start) for start in _starts(family))


@dataclass(frozen=True)
class Skill:
    """A ``program`` of a ``family``, written for the task ``learned_on``; whether it does that task (``right``) no reader is told."""

    family: str
    program: Program
    learned_on: str
    right: bool

    def __post_init__(self) -> None:
        check_types(self)
        if self.family not in FAMILIES or not set(self.program) <= set(FAMILIES[self.family].rules):
            raise InputError(f"the program {' '.join(self.program)[:60]!r} of {self.family[:20]!r} has unknown rules")
        if len(self.program) > LONGEST_PROGRAM:
            raise InputError(f"a program has at most {LONGEST_PROGRAM} rules, got {len(self.program)}")


@dataclass
class Library:
    """Skills in the order in which they were stored. ``skills`` grows, and a shorter program of the same behaviour takes its place."""

    skills: list[Skill] = field(default_factory=list)

    def store(self, skill: Skill) -> bool:
        """Add a skill; False where there is one that does the same: of the two the shorter program stays."""
        does = behaviour(skill.family, skill.program)
        for k, other in enumerate(self.skills):
            if other.family == skill.family and behaviour(other.family, other.program) == does:
                if len(skill.program) < len(other.program):
                    self.skills[k] = Skill(other.family, skill.program, other.learned_on, other.right)
                return False
        self.skills.append(skill)
        return True

    def near(
        self, policy: Policy, family: str, pairs: Sequence[Pair], count: int, keys: Sequence[int] | None = None
    ) -> list[tuple[Skill, float]]:
        """The ``count`` skills of ``family`` whose behaviour is nearest to ``pairs`` (shown, right), and their cosines.

        The description of a skill is its behaviour: the embedding of the line of examples that it produces on the very
        start lists of the query, so that a skill that does what is asked has cosine 1. Lines on fixed other inputs have embeddings
        of their symbols more than of their rules (they were first in one case of seven to three). ``keys`` names for each skill of the family
        the one whose description it is found by: a permutation breaks the link, for controls.
        """
        own = [skill for skill in self.skills if skill.family == family]
        if not own or not pairs:
            return []
        lines = [[(start, run_program(family, skill.program, start)) for start, _ in pairs] for skill in own]
        described = [lines[k] for k in keys] if keys is not None else lines
        vectors = embed(
            policy, [policy.tokenizer(reflection_prompt(line))["input_ids"] for line in [pairs, *described]]
        )
        # float64 and a fixed number of digits: skills that do the same here must not be ordered by rounding
        cosines = torch.round(vectors[1:].double() @ vectors[0].double(), decimals=6)
        order = cosines.sort(descending=True, stable=True).indices.tolist()[:count]
        return [(own[k], float(cosines[k])) for k in order]


def matched(family: str, program: Program, pairs: Sequence[Pair]) -> float:
    """Share of symbols that ``program`` has right on ``pairs``."""
    wrote = [(run_program(family, program, start), right) for start, right in pairs]
    return sum(a == b for w, r in wrote for a, b in zip(w, r, strict=False)) / max(1, sum(len(r) for _, r in wrote))
