r"""AdamW on an objective of the mixture in pieces of many steps: the path that `fstsim.simulate` takes step by step.

A piece of n steps is predicted with the gradient at its beginning and corrected with one that goes over to the gradient at
the predicted end (`fstsim.theory.coarse_adam`). Every piece is made once whole and once in two halves; a third of their
distance is taken for the error, the halves are kept, and the next length follows from it. Gradients are exact, so that the
mean square of a step's gradient is its square. Learning that needs thousands of steps needs a few hundred gradients.
Coordinates are those of the simulator's AdamW: the log-odds, then both whitened means.
Source: own derivation; step doubling is classical (Richardson). Statements `coarse-adam-*`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fstsim.errors import InputError
from fstsim.objectives import Objective
from fstsim.optimizers import AdamW
from fstsim.theory import coarse_adam
from fstsim.theory.coarse_adam import Moments, adam_piece, between
from fstsim.theory.numerics.inputs import positive
from fstsim.two_mode import TwoModeProblem, TwoModeState, rows_times

Array = NDArray[np.float64]

_PARTS = 16  # of a corrected piece, in each of which the gradient is constant
_CLIP_GUARD = 1e-6  # as torch.nn.utils.clip_grad_norm_ and the simulator have it
_SAFETY, _SHRINK, _GROW = 0.9, 0.2, 3.0
_EXACT_BELOW = 4  # pieces this short are made step by step, which costs no more


@dataclass(frozen=True)
class MacroRun:
    """A path of pieces: ``steps (K + 1,)`` at which it stands, its state there, and what it took.

    ``state`` has batch axis K + 1, ``gradients`` counts gradients, ``error`` sums the estimated errors of all pieces, in the
    largest coordinate.
    """

    steps: NDArray[np.int64]
    state: TwoModeState
    gradients: int
    error: float


@dataclass
class _Walker:
    """Where a path stands, and how it looks at gradients."""

    problem: TwoModeProblem
    objective: Objective
    how: AdamW
    gradients: int = 0

    def state(self, y: Array) -> TwoModeState:
        d = self.problem.dimension
        return TwoModeState(y[..., 0], self.problem.unwhiten(y[..., 1 : d + 1]), self.problem.unwhiten(y[..., d + 1 :]))

    def gradient(self, y: Array, held: tuple[Array, Array]) -> Array:
        """Clipped, in whitened coordinates; ``held`` are the means as they were given, for ``train = "weight"``."""
        d = self.problem.dimension
        state = self.state(y) if self.how.train == "all" else TwoModeState(y[0], *held)
        found = self.objective.gradient(state)
        self.gradients += 1
        g = np.zeros(y.shape)
        g[0] = found.log_odds
        if self.how.train == "all":
            g[1 : d + 1] = rows_times(self.problem._root.T, found.mean_old)
            g[d + 1 :] = rows_times(self.problem._root.T, found.mean_new)
        if self.how.clip is not None:
            g = g * min(1.0, self.how.clip / (float(np.linalg.norm(g)) + _CLIP_GUARD))
        return g

    def piece(self, y: Array, moments: Moments, start: Array, end: Array | None, steps: int) -> tuple[Array, Moments]:
        """``steps`` steps from gradient ``start``, constant or on its way to ``end``."""
        adam = coarse_adam.AdamW(self.how.beta1, self.how.beta2, self.how.eps, self.how.weight_decay)
        if end is None:
            return adam_piece(y, moments, start, start * start, np.full(steps, self.how.lr), adam)
        cuts = np.unique(np.linspace(0, steps, min(steps, _PARTS) + 1).round().astype(int))
        for a, b in itertools.pairwise(cuts):
            share = (a + (b - 1 - a) / 2.0) / steps  # step j (from 0) has the gradient after j steps
            g, q = between((start, start * start), (end, end * end), float(share))
            y, moments = adam_piece(y, moments, g, q, np.full(b - a, self.how.lr), adam)
        return y, moments


def macro_adamw(
    problem: TwoModeProblem,
    objective: Objective,
    initial: TwoModeState,
    optimizer: AdamW,
    steps: int,
    tolerance: float = 1e-4,
) -> MacroRun:
    """What `fstsim.simulate` does with AdamW in ``steps`` steps, in pieces whose estimated error is below ``tolerance``.

    ``tolerance`` is a piece's, in its largest coordinate: log-odds, or units of the modes' width. One learner, exact
    gradients (``optimizer.batch = None``). Raises InputError for batch axes or batches, negative ``steps`` or a tolerance
    that is not positive, and RuntimeError if the path leaves the finite numbers.
    """
    positive(tolerance, "tolerance")
    if initial.batch_shape or optimizer.batch is not None:
        raise InputError("macro steps follow one learner with exact gradients: no batch axes, and batch None")
    if steps < 0:
        raise InputError(f"steps must be nonnegative, got {steps}")
    d, walker = problem.dimension, _Walker(problem, objective, optimizer)
    held = (initial.mean_old, initial.mean_new)
    y = np.zeros(1 + 2 * d)
    y[0] = initial.log_odds
    if optimizer.train == "all":  # fixed means have no gradient and do not decay
        y[1 : d + 1], y[d + 1 :] = problem.whiten(held[0]), problem.whiten(held[1])
    moments = Moments(np.zeros(y.shape), np.zeros(y.shape))
    stations, at, done, length, error = [0], [y], 0, 1, 0.0
    g = walker.gradient(y, held) if steps else y
    while done < steps:
        length = min(length, steps - done)
        if length < _EXACT_BELOW:
            for _ in range(length):
                y, moments = walker.piece(y, moments, g, None, 1)
                g = walker.gradient(y, held)
            distance, growth = 0.0, 2.0
        else:
            half = length // 2
            middle, memory = _corrected(walker, y, moments, (g, held), half)
            between_them = walker.gradient(middle, held)
            fine, kept = _corrected(walker, middle, memory, (between_them, held), length - half)
            whole, _ = _corrected(walker, y, moments, (g, held), length)
            distance = float(np.abs(fine - whole).max()) / 3.0
            if not np.isfinite(distance):
                raise RuntimeError(f"the path leaves the finite numbers after step {done}")
            growth = _SAFETY * (tolerance / max(distance, 1e-300)) ** (1.0 / 3.0)
            if distance > tolerance:
                length = max(1, int(length * np.clip(growth, _SHRINK, 0.8)))
                continue
            y, moments = fine, kept
            g = walker.gradient(y, held)
        done, error = done + length, error + distance
        stations.append(done)
        at.append(y)
        length = max(1, round(length * float(np.clip(growth, _SHRINK, _GROW))))
    state = walker.state(np.array(at))
    if optimizer.train == "weight":
        state = replace(state, mean_old=np.tile(held[0], (len(at), 1)), mean_new=np.tile(held[1], (len(at), 1)))
    return MacroRun(np.array(stations), state, walker.gradients, error)


def _corrected(
    walker: _Walker, y: Array, moments: Moments, start: tuple[Array, tuple[Array, Array]], steps: int
) -> tuple[Array, Moments]:
    """A piece from ``y``, predicted and corrected; ``start`` is its gradient there and the means that are held."""
    g, held = start
    ahead, _ = walker.piece(y, moments, g, None, steps)
    return walker.piece(y, moments, g, walker.gradient(ahead, held), steps)
