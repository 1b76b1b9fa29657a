r"""Distillation on the student's own samples, and FST-distill: the policy without context learns from itself with context.

Every step samples completions of the student and moves its next-token distributions towards those of a teacher:
\(\sum_t KL(\pi_\theta(\cdot|x, y_{<t}) \| \pi_T(\cdot|y_{<t}))\) with the full vocabulary (``reverse``), or the other direction
(``forward``). `Distillation`, `fstsim.llm.learners.sdft.SDFT` and `fstsim.llm.learners.mixture.MixtureDistillation` differ in the teacher
alone. That of `Distillation` is the frozen start in its evolved context, named as open in 2605.12484.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol

import numpy as np
import torch

from fstsim.errors import InputError
from fstsim.fast_slow import StepInfo
from fstsim.llm.learners.learner import NO_FLAG, Learner
from fstsim.llm.learners.method_losses import Direction, check_direction, distillation_loss
from fstsim.llm.learners.weights import Diverged, Weights, chunks, generator_from, sample_problems
from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.rollouts import Rollouts, check_batch, check_sizes
from fstsim.llm.types import Population, Problem, Task
from fstsim.settings import check_types

Teacher = Callable[[Rollouts, Sequence[Problem], Sequence[str]], torch.Tensor]
"""Rollouts of the student, one a problem, their problems and contexts to next-token logits ``(B, T, V)``."""


class Asked(Protocol):
    """The fields of a learner that say how much it samples and which KL it lowers."""

    @property
    def problems(self) -> int:
        """Problems a step."""
        ...

    @property
    def direction(self) -> Direction:
        """Which KL."""
        ...

    @property
    def max_new_tokens(self) -> int:
        """Longest completion."""
        ...


def learn_from_teacher(
    weights: Weights,
    context: Population,
    task: Task,
    rng: np.random.Generator,
    teacher: Teacher,
    ask: Asked,
) -> StepInfo:
    """One step on ``ask.problems`` problems, one completion each: sample, compare, update in place. Raises `weights.Diverged`."""
    student = weights.policy
    sampled = sample_problems(task.problems("train"), ask.problems, rng)
    which = rng.integers(len(context.prompts), size=len(sampled))
    contexts = [context.prompts[k] for k in which]
    rollouts = student.sample(
        student.encode_all(list(zip(contexts, sampled, strict=True))),
        1,
        generator_from(rng, student),
        max_new_tokens=ask.max_new_tokens,
    )
    what = f"{task.name}, problems {sampled[0].text}..."
    value, every = 0.0, torch.arange(len(rollouts), device=student.device)
    # student and teacher: twice the logits
    for rows in chunks(rollouts, every, 2 * student.vocabulary):
        part = rollouts if len(rows) == len(rollouts) else rollouts.take(rows)
        of = rows.tolist()
        own = student.logits(part)
        with torch.no_grad():
            taught = teacher(part, [sampled[i] for i in of], [contexts[i] for i in of])
        loss = distillation_loss(own, taught, part.mask, ask.direction) * (len(part) / len(rollouts))
        if not torch.isfinite(loss):
            weights.optimizer.zero_grad(set_to_none=True)
            raise Diverged(f"loss is {float(loss.detach())} on {what}")
        loss.backward()
        value += float(loss.detach())
    norm = weights.apply(what)
    length = float(rollouts.mask.sum()) / len(rollouts)
    return StepInfo(len(rollouts), {"loss": value, "grad_norm": norm, "length": length})


@dataclass(frozen=True)
class Distillation(Learner):
    """Slow learner: the start of the run, in ``teacher_context``, teaches the policy in the contexts of the population."""

    about: ClassVar[str] = "the policy without context learns from its start in --context"

    problems: int = 48
    """problems a step, one completion each"""
    direction: Direction = "reverse"
    """reverse: KL(student || teacher); forward: KL(teacher || student); both along the student's samples"""
    teacher_context: str = field(default="", metadata=NO_FLAG)
    """context of the teacher, that of the run"""
    max_new_tokens: int = 8
    """longest completion"""

    def __post_init__(self) -> None:
        check_types(self)
        check_sizes(self.problems, self.max_new_tokens)
        check_batch(self.problems)
        check_direction(self.direction)

    def check(self, policy: Policy, context: str, task: Task) -> None:  # noqa: ARG002
        """InputError unless the teacher is told something that the student is not."""
        if not context:
            raise InputError("method distill needs --context: the teacher sees it, the policy that learns does not")

    def begin(self, context: str) -> tuple[Learner, str]:
        """The run's context is the teacher's; the student starts without one."""
        return replace(self, teacher_context=context), ""

    def step(
        self, weights: Weights, context: Population, task: Task, rng: np.random.Generator
    ) -> tuple[Weights, StepInfo]:
        """Sample, compare, update in place."""
        base = weights.base

        def teacher(rollouts: Rollouts, problems: Sequence[Problem], _: Sequence[str]) -> torch.Tensor:
            return base.logits(base.with_prompts(rollouts, [base.encode(self.teacher_context, p) for p in problems]))

        info = learn_from_teacher(
            weights,
            context,
            task,
            rng,
            teacher,
            self,
        )
        return weights, info
