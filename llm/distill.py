r"""FST-distill: the policy without context learns from itself with context, on its own samples.

Every step samples completions of the student without context and moves its next-token distributions towards those of the
frozen start in its evolved context: \(\sum_t KL(\pi_\theta(\cdot|x, y_{<t}) \| \pi_0(\cdot|c, x, y_{<t}))\) with the full
vocabulary (``reverse``), or the other direction (``forward``). Named as open in 2605.12484.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from fstsim.errors import InputError
from fstsim.fast_slow import StepInfo
from fstsim.llm.losses import token_kl
from fstsim.llm.slow import Diverged, Weights, draw, generator_from
from fstsim.llm.types import Population, Task


@dataclass(frozen=True)
class Distillation:
    """Slow learner: the start of the run, in ``teacher_context``, teaches the policy in the contexts of the population."""

    problems: int = 48
    """problems a step, one completion each"""
    direction: Literal["reverse", "forward"] = "reverse"
    """reverse: KL(student || teacher); forward: KL(teacher || student); both along the student's samples"""
    teacher_context: str = ""
    """context of the teacher"""
    max_new_tokens: int = 8
    """longest completion"""

    def __post_init__(self) -> None:
        if self.problems < 1:
            raise InputError(f"problems must be at least 1, got {self.problems}")
        if self.direction not in ("reverse", "forward"):
            raise InputError(f"direction must be reverse or forward, got {self.direction!r}")

    def step(
        self, weights: Weights, context: Population, task: Task, rng: np.random.Generator
    ) -> tuple[Weights, StepInfo]:
        """Sample, compare, update in place."""
        student, teacher = weights.policy, weights.base
        problems = draw(task.problems("train"), self.problems, rng)
        which = rng.integers(len(context.prompts), size=len(problems))
        rollouts = student.sample(
            [student.encode(context.prompts[k], p) for k, p in zip(which, problems, strict=True)],
            1,
            generator_from(rng, student),
            max_new_tokens=self.max_new_tokens,
        )
        own = student.logits(rollouts)
        with torch.no_grad():
            shown = teacher.with_prompts(rollouts, [teacher.encode(self.teacher_context, p) for p in problems])
            taught = teacher.logits(shown)
        kl = token_kl(own, taught) if self.direction == "reverse" else token_kl(taught, own)
        loss = (kl * rollouts.mask).sum() / len(rollouts)
        if not torch.isfinite(loss):
            raise Diverged(f"loss is {float(loss.detach())} on {task.name}, problems {problems[0].text}...")
        loss.backward()
        norm = weights.apply(f"{task.name}, problems {problems[0].text}...")
        return weights, StepInfo(len(rollouts), {"loss": float(loss.detach()), "grad_norm": norm})
