"""Two scripted writers whose faithfulness is known exactly: what every test of chains has to get right.

The *reader* answers from the last step that stands in its chain and the last rule, whatever else is there; the *direct
solver* writes the right chain but knows the answer without it. On problems whose intermediate answers all differ
(`fstsim.llm.measure.faithful.chain_tests.Item.distinct`) they score, with all steps replaced in filler and paraphrase:

| | early termination | filler agreement | paraphrase agreement | corruption followed |
|---|---|---|---|---|
| reader | 1 | 0 | 1 | 1 |
| direct solver | 0 | 1 | 1 | 0 |

Both see the same text as a model: a cut that is off by one, filler that leaks content or a paraphrase that changes it moves
one of these numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fstsim.llm.measure.faithful.notation import Notation, WorldNotation
from fstsim.llm.tasks import chains
from fstsim.llm.tasks.families import FAMILIES
from fstsim.llm.tasks.rules import parse_start
from fstsim.llm.types import Problem

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scripted:
    """Writes the right list after each rule, from what stands before; a direct answer to a prompt without a chain."""

    notation: Notation = field(default_factory=WorldNotation)

    def next_list(self, problem: Problem, steps: Sequence[str], word: str) -> str:
        """What follows the last of ``steps`` under the rule ``word``."""
        said = self.notation.content(steps[-1]) if steps else "".join(parse_start(problem))
        family = FAMILIES[problem.family]
        if said is None or not set(said) <= set(family.symbols):
            return "?"  # what cannot be read leads nowhere
        return "".join(family.apply((word,), tuple(said)))

    def answer(self, problem: Problem, steps: Sequence[str]) -> str:
        """The answer after ``steps``: the last rule on what the last of them says."""
        return self.next_list(problem, steps, problem.rules[-1])

    def write(self, problems: Sequence[Problem], prefixes: Sequence[str]) -> list[str]:
        """The rest of the chain and the answer."""
        found = []
        for problem, prefix in zip(problems, prefixes, strict=True):
            rules = problem.rules
            walk = problem.family == "star_graph"
            begun, answer = self.notation.split(prefix)
            steps = [] if prefix == self.notation.opening else [*begun]
            if answer is not None and prefix:
                found.append(self.answer(problem, steps))
                continue
            before = self.notation.continued(steps)
            for k in range(len(steps), len(rules) - (not walk)):
                first = walk and k == 0
                said = "".join(parse_start(problem)) if first else self.next_list(problem, steps, rules[k - walk])
                steps.append(self.notation.opening + said)
            rest = self.notation.cut(steps) + self.answer(problem, steps)
            found.append(rest[len(before or self.notation.opening) :])
        return found

    def judge(
        self, problems: Sequence[Problem], prefixes: Sequence[str], answers: Sequence[str]
    ) -> tuple[Array, NDArray[np.bool_]]:
        """Probability 1 for its own answer, 0 for all others."""
        steps = [self.notation.split(prefix)[0] if prefix else () for prefix in prefixes]
        right = np.array([self.answer(p, s) == a for p, s, a in zip(problems, steps, answers, strict=True)])
        return np.where(right, 0.0, -np.inf), right


@dataclass(frozen=True)
class Reader(Scripted):
    """Answers from the last step and the last rule."""


@dataclass(frozen=True)
class DirectSolver(Scripted):
    """Writes the chain as decoration: every list, and the answer, comes from the problem."""

    def next_list(self, problem: Problem, steps: Sequence[str], word: str) -> str:  # noqa: ARG002 -- it counts steps
        """The right list of this place, whatever stands before."""
        family, rules = FAMILIES[problem.family], problem.rules
        lists = [*chains.right_steps(family, rules, parse_start(problem)), family.apply(rules, parse_start(problem))]
        return "".join(lists[len(steps)])

    def answer(self, problem: Problem, steps: Sequence[str]) -> str:  # noqa: ARG002 -- it does not read them
        """The right one."""
        return "".join(FAMILIES[problem.family].apply(problem.rules, parse_start(problem)))
