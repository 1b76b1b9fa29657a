"""Learners that train a system beside a frozen model by the step of another learner, through a policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from fstsim.errors import InputError
from fstsim.llm.learners.learner import Learner
from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.learners.sft import SupervisedFineTuning
from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.rollouts import check_batch, check_sizes
from fstsim.llm.types import Answered, Task
from fstsim.settings import check_types

By = Literal["sft", "rl"]


@dataclass(frozen=True)
class Through(Learner):
    """Settings of the step that such learners share; what it moves is the parameters of their system."""

    by: By = "sft"
    """sft: forward KL on demonstrations; rl: policy gradient (CISPO) on verified rewards"""
    problems: int = 48
    """problems a step"""
    rollouts: int = 8
    """completions of a problem: one group"""
    max_new_tokens: int = 8
    """longest completion"""

    def __post_init__(self) -> None:
        check_types(self)
        if self.by not in get_args(By):
            raise InputError(f"by must be one of {', '.join(get_args(By))}; got {self.by!r}")
        check_sizes(self.problems, self.max_new_tokens)
        check_batch(self.problems, self.rollouts if self.by == "rl" else None)
        self.inner()

    def inner(self) -> SupervisedFineTuning | PolicyGradient:
        """The learner whose step it is."""
        if self.by == "sft":
            return SupervisedFineTuning(self.problems)
        return PolicyGradient(problems=self.problems, rollouts=self.rollouts, max_new_tokens=self.max_new_tokens)

    def check(self, policy: Policy, context: str, task: Task) -> None:  # noqa: ARG002
        """InputError unless ``task`` has what the step shows."""
        if self.by == "sft" and not isinstance(task, Answered):
            raise InputError(f"--by sft shows right answers, but {task.name} has none; choose --by rl")
