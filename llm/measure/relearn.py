"""Plasticity of given checkpoints: supervised steps until a task is learned, from the base and from each checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fstsim.errors import InputError
from fstsim.llm.measure.config import RELEARN_LEVEL, RELEARN_MOST, MeasureSettings
from fstsim.llm.measure.quantities import ProblemSet
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.relearning import relearn_steps
from fstsim.llm.runs.run_input import check_splits
from fstsim.llm.tasks.parse import parse_task
from fstsim.llm.types import Answered, Task


@dataclass(frozen=True)
class Relearning:
    """A ``task`` that copies learn, without context, with a fresh AdamW at ``lr``."""

    task: Answered
    lr: float

    def steps(self, policy: Policy) -> int:
        """Steps until right answers of held-out problems have probability `RELEARN_LEVEL`; one above `RELEARN_MOST` if not within it."""
        task: Any = self.task  # right answers are all that the probe asks for
        policy.model.requires_grad_(True)  # those who only measure have switched it off, and a copy has what it copies
        try:
            return relearn_steps(policy, task, level=RELEARN_LEVEL, most=RELEARN_MOST, lr=self.lr)
        finally:
            policy.model.requires_grad_(False)


def relearning(name: str, lr: float, base: Policy, settings: MeasureSettings) -> Relearning:
    """The task called ``name``. InputError if it has no answers or problems to learn from, or they do not fit ``base``."""
    task: Task = parse_task(name)
    if not isinstance(task, Answered):
        raise InputError(f"--relearn learns from right answers, but {task.name} has none: choose another task")
    check_splits(task, ("train", "test"))
    for split in ("train", "test"):
        ProblemSet("relearn", task, tuple(task.problems(split))).check_fit(base, settings.max_new_tokens)
    return Relearning(task, lr)
