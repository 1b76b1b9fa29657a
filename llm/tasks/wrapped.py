"""A task in another one's name: what wrappers of tasks share, so that each says only what it changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fstsim.llm.types import Demonstrated, Followed, Problem, Score, Split, Task, rule_words


@dataclass(frozen=True)
class Wrapped:
    """Everything is that of ``task``."""

    task: Task

    @property
    def name(self) -> str:
        """That of the task."""
        return self.task.name

    @property
    def exact(self) -> bool:
        """That of the task."""
        return self.task.exact

    def problems(self, split: Split) -> Sequence[Problem]:
        """Those of the task."""
        return self.task.problems(split)

    def score(self, problem: Problem, completion: str) -> Score:
        """That of the task."""
        return self.task.score(problem, completion)

    def rule_words(self, template: str) -> str | None:
        """Those of the task, None if it has none."""
        return rule_words(self.task, template)

    def next_task(self, met: Sequence[Task], template: str) -> Demonstrated | None:
        """That of the task, None if it knows none; the task sees those that it ``met`` without wrappers."""
        if not isinstance(self.task, Followed):
            return None
        return self.task.next_task([bare(task) for task in met], template)


def bare(task: Task) -> Task:
    """``task`` without its wrappers."""
    while isinstance(task, Wrapped):
        task = task.task
    return task
