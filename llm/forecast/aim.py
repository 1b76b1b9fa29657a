"""An aim: mean and mean square of the clipped gradients that a run's learner would meet at given weights.

The learner makes its own steps, with an optimizer that records gradients where another would move the weights: data,
rollouts, dead groups, leashes and clipping are those of a run, whatever the method.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer

from fstsim.llm.forecast.start import moving
from fstsim.llm.learners.learner import Learner
from fstsim.llm.learners.weights import Weights
from fstsim.llm.types import Population, Task

Tensors = list[torch.Tensor]
"""One tensor for each parameter of a model, in its order."""


class Recorder(Optimizer):
    """Sums gradients, their squares, and gradients times ``sign``, and leaves the weights where they are.

    ``updates`` counts the steps asked of it.
    """

    def __init__(self, parameters: list[torch.nn.Parameter]) -> None:
        super().__init__(parameters, {})
        self.held = parameters
        self.total = [torch.zeros_like(p) for p in parameters]
        self.square = [torch.zeros_like(p) for p in parameters]
        self.signed = [torch.zeros_like(p) for p in parameters]
        self.sign = 0.0
        self.updates = 0

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Record the gradient that is there."""
        assert closure is None
        self.updates += 1
        for parameter, total, square, signed in zip(self.held, self.total, self.square, self.signed, strict=True):
            if parameter.grad is not None:
                total += parameter.grad
                square.addcmul_(parameter.grad, parameter.grad)
                if self.sign:
                    signed.add_(parameter.grad, alpha=self.sign)
        return None


@dataclass(frozen=True)
class Aim:
    """``g`` and ``q``: mean and mean square of the gradient, by parameter, of ``updates`` optimizer steps in ``batches`` batches.

    A batch without any signal (dead groups alone) makes no optimizer step. ``samples`` are the rollouts that were drawn.
    ``apart`` is a contrast of batches, by parameter: mean 0, and the covariance of what one batch moves the weights by (the sum
    of the gradients of a slow step). Empty of one batch.
    """

    g: Tensors
    q: Tensors
    updates: int
    batches: int
    samples: int = 0
    apart: Tensors = field(default_factory=list)

    @property
    def updates_a_step(self) -> float:
        """Optimizer steps that a slow step of the learner makes, on average."""
        return self.updates / self.batches

    @property
    def noise_share(self) -> float:
        r"""Share of the mean gradient that is noise: \(\sum var(\bar g)/q\) over \(\sum \bar g^2/q\), nan of one update.

        Weighed by 1/q, as Adam weighs gradients. 1 or more: the mean is within its noise.
        """
        if self.updates < 2:
            return math.nan
        noise = size = 0.0
        for g, q in zip(self.g, self.q, strict=True):
            share = (g * g / q.clamp(min=torch.finfo(q.dtype).tiny)).double().sum().item()
            noise += (float((q > 0.0).sum()) - share) / (self.updates - 1)
            size += share
        return noise / size if size > 0.0 else math.nan


def take_aim(
    weights: Weights, learner: Learner, context: Population, task: Task, rng: np.random.Generator, *, batches: int
) -> Aim:
    """The aim at the weights of ``weights`` from ``batches`` steps of ``learner``; raises `weights.Diverged` as a run does."""
    recorder = Recorder(moving(weights.policy))
    held: Any = replace(weights, optimizer=recorder)
    samples = 0
    paired = batches - batches % 2
    for k in range(batches):
        recorder.sign = (-1.0) ** k / math.sqrt(paired) if k < paired else 0.0
        held, info = learner.step(held, context, task, rng)
        samples += info.samples
    for sums in (recorder.total, recorder.square):
        for tensor in sums:
            tensor /= max(recorder.updates, 1)
    apart = recorder.signed if paired else []
    return Aim(recorder.total, recorder.square, recorder.updates, batches, samples, apart)


def joined(one: Aim, more: Aim) -> Aim:
    """The aim of the batches of both, in the memory of the first."""
    total = one.updates + more.updates
    apart = one.apart or more.apart or contrast(one, more)
    if total:
        for mine, theirs in zip((*one.g, *one.q), (*more.g, *more.q), strict=True):
            mine.lerp_(theirs, more.updates / total)
    return Aim(one.g, one.q, total, one.batches + more.batches, one.samples + more.samples, apart)


def contrast(one: Aim, more: Aim) -> Tensors:
    """What `Aim.apart` is, of two aims: it has what changed between them too, if they were taken at different weights."""
    scale = 1.0 / math.sqrt(1.0 / one.batches + 1.0 / more.batches)
    a, b = one.updates_a_step * scale, more.updates_a_step * scale
    return [a * mine - b * theirs for mine, theirs in zip(one.g, more.g, strict=True)]
