r"""Distillation to a given mixture of the old and the new behaviour (theory 3, prediction P3).

The teacher of problem x is the *sequence* distribution
\(\pi_T = (1 - \epsilon)\,[\alpha\,\delta_{old(x)} + (1 - \alpha)\,\delta_{right(x)}] + \epsilon\,\pi_0(\cdot|x)\): the old behaviour's
answer, the right answer, and a share of the base so that no completion is impossible. Its next-token probabilities are
exact: on the way of an answer the posterior of the component decides, off both ways the teacher is the base. Its old
mass is \((1-\epsilon)\alpha + \epsilon\beta_0\), which is where a reverse-KL student is predicted to end from any start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from fstsim.errors import InputError
from fstsim.fast_slow import StepInfo
from fstsim.llm.learners.distill import learn_from_teacher
from fstsim.llm.learners.learner import Learner
from fstsim.llm.learners.method_losses import Direction, check_direction, mixture_logprobs, point_logprobs
from fstsim.llm.learners.weights import Weights
from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.rollouts import Rollouts, check_batch, check_sizes
from fstsim.llm.types import Demonstrated, Population, Problem, Task
from fstsim.settings import check_types


@dataclass(frozen=True)
class MixtureDistillation(Learner):
    """Slow learner: KL to the mixture ``alpha`` old behaviour, ``1 - alpha`` right answer, smoothed by the base."""

    about: ClassVar[str] = "distillation to old and new behaviour in given shares"

    problems: int = 48
    """problems a step, one completion each"""
    alpha: float = 0.2
    """share of the old behaviour in the teacher, 0 to 1"""
    smoothing: float = 0.05
    """share of the base in the teacher, above 0 and below 1"""
    direction: Direction = "reverse"
    """reverse: KL(student || teacher); forward: KL(teacher || student); both along the student's samples"""
    max_new_tokens: int = 8
    """longest completion"""

    def __post_init__(self) -> None:
        check_types(self)
        check_sizes(self.problems, self.max_new_tokens)
        check_batch(self.problems)
        if not 0.0 <= self.alpha <= 1.0:
            raise InputError(f"alpha must lie in [0, 1], got {self.alpha}")
        if not 0.0 < self.smoothing < 1.0:
            raise InputError(f"smoothing must lie above 0 and below 1, got {self.smoothing}")
        check_direction(self.direction)

    @property
    def shows_old(self) -> bool:
        """In every teacher."""
        return True

    def check(self, policy: Policy, context: str, task: Task) -> None:  # noqa: ARG002 -- what is taught depends on the task
        """InputError unless ``task`` has answers and old answers to mix."""
        if not isinstance(task, Demonstrated):
            raise InputError(f"method mixture needs a task with answers and old answers; {task.name} lacks them")

    def teacher_logprobs(
        self, base: Policy, rollouts: Rollouts, problems: Sequence[Problem], task: Demonstrated
    ) -> torch.Tensor:
        """Next-token log-probabilities ``(B, T, V)`` of the teacher along ``rollouts``, one a problem."""
        own = torch.log_softmax(base.logits(rollouts), -1)
        length, vocabulary = own.shape[1:]
        points = []
        for answer in (task.old_answer, task.answer):
            tokens = [base.encode_answer(answer(p)) for p in problems]
            longest = max(map(len, tokens))
            padded = torch.tensor([row + row[-1:] * (longest - len(row)) for row in tokens], device=own.device)
            points.append(point_logprobs(padded, length, vocabulary).to(own))
        rest = 1.0 - self.smoothing
        shares = torch.tensor([rest * self.alpha, rest * (1.0 - self.alpha), self.smoothing], device=own.device)
        return mixture_logprobs(torch.stack([*points, own]), rollouts.completions, rollouts.mask, shares)

    def step(
        self, weights: Weights, context: Population, task: Demonstrated, rng: np.random.Generator
    ) -> tuple[Weights, StepInfo]:
        """Sample, compare, update in place."""

        def teacher(rollouts: Rollouts, problems: Sequence[Problem], _: Sequence[str]) -> torch.Tensor:
            return self.teacher_logprobs(weights.base, rollouts, problems, task)

        info = learn_from_teacher(
            weights,
            context,
            task,
            rng,
            teacher,
            self,
        )
        return weights, info
