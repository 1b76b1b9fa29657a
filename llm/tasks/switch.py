"""A rule that depends on what the problem shows: rule A where the start list begins in the lower half of its symbols, else rule B.

``strings:rotate~sort`` rotates strings that begin with A to D and sorts the others. No fixed context solves both branches:
the shipped model has no words for a choice, so a router over contexts, or the weights, can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fstsim.errors import InputError
from fstsim.llm.tasks.families import FAMILIES
from fstsim.llm.tasks.rules import RuleTask, parse_rules, parse_start
from fstsim.llm.types import Problem, Score, Split, Task

MARK = "~"


@dataclass(frozen=True)
class SwitchTask:
    """``lower`` and ``upper`` are two tasks of one family, of problems of one size and with one kind of reward.

    Raises InputError where they are not, or are the same.
    """

    lower: RuleTask
    upper: RuleTask

    def __post_init__(self) -> None:
        one, other = self.lower, self.upper
        if (one.family, one.size, one.reward) != (other.family, other.size, other.reward):
            raise InputError(f"the two rules of {self.name} must be of one family, size and reward")
        if one.rules == other.rules:
            raise InputError(
                f"the two rules of {self.name} are the same: give two different ones, as strings:rotate~sort"
            )

    @property
    def name(self) -> str:
        """``family[@size]:rules~rules[/share]``."""
        head, slash, reward = self.lower.name.partition("/")
        return f"{head}{MARK}{'+'.join(self.upper.rules)}{slash}{reward}"

    @property
    def exact(self) -> bool:
        """Whether only the right list is rewarded."""
        return self.lower.exact

    def problems(self, split: Split) -> Sequence[Problem]:
        """Those of the family: both branches."""
        return self.lower.problems(split)

    def branch(self, problem: Problem) -> RuleTask:
        """The task that holds on ``problem``."""
        symbols = FAMILIES[problem.family].symbols
        return self.lower if symbols.index(parse_start(problem)[0]) < len(symbols) // 2 else self.upper

    def answer(self, problem: Problem) -> str:
        """The one right completion, of the branch that holds."""
        return self.branch(problem).answer(problem)

    def old_answer(self, problem: Problem) -> str:
        """The start list itself."""
        return self.lower.old_answer(problem)

    def rule_words(self, template: str) -> str | None:
        """The choice in English; None for a model of the world, which has no words for it."""
        if template == "world":
            return None
        one, other = (task.rule_words(template) for task in (self.lower, self.upper))
        symbols = FAMILIES[self.lower.family].symbols
        half = len(symbols) // 2
        if one is None or other is None:
            return None
        low, high = symbols[:half], symbols[half:]
        return f"if the first symbol is one of {low[0]} to {low[-1]}: {one}. If it is one of {high[0]} to {high[-1]}: {other}"

    def next_task(self, met: Sequence[Task], template: str) -> RuleTask | None:
        """A single rule of the family that no task in ``met`` uses, these two included."""
        return self.lower.next_task([*met, self.lower, self.upper], template)

    def score(self, problem: Problem, completion: str) -> Score:
        """By the branch that holds."""
        return self.branch(problem).score(problem, completion)


def parse_switch(name: str) -> SwitchTask:
    """The task called ``family[@size]:rules~rules[/reward]``; InputError says what is allowed."""
    head, _, rest = name.partition(MARK)
    rules, slash, reward = rest.partition("/")
    family, colon, _ = head.partition(":")
    if not colon or not rules or MARK in rules:
        raise InputError(f"task {name!r} is no switch: give family:rules{MARK}rules, as strings:rotate{MARK}sort")
    return SwitchTask(parse_rules(f"{head}{slash}{reward}"), parse_rules(f"{family}:{rules}{slash}{reward}"))
