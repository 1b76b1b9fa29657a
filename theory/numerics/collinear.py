r"""One-dimensional quadrature for learners whose means lie on one line with the target's.

Everything that a score-function estimate is made of then depends on one coordinate ``x``: the trapezoid rule around
each component of the learner is exact to rounding, because the poles of a responsibility are ``pi / separation`` away
from the real axis (theory 0.2). Source: own derivation; used by statements `replay-reverse` and `finite-batch-noise`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit

from fstsim.errors import InputError
from fstsim.replay_objectives import replay_importance_weights
from fstsim.two_mode import TwoModeProblem, TwoModeState

Array = NDArray[np.float64]

_RADIUS = 9.5
_BLOCK = 1 << 18  # points evaluated together


class Line(NamedTuple):
    """Learners and targets on one line, ``(n,)`` each: log-odds and whitened positions of the means."""

    log_odds: Array
    old: Array
    new: Array
    target_log_odds: Array
    target_old: Array
    target_new: Array

    def at(self, index: slice) -> Line:
        return Line(*(x[index] for x in self))


def right_components(log_odds: Array, target_log_odds: Array, delta: Array) -> Line:
    """Learners whose components are right: only the weight may differ from the target's."""
    s, s_p, d = (x.ravel() for x in np.broadcast_arrays(log_odds, target_log_odds, delta))
    zero = np.zeros_like(d)
    return Line(s, zero, d, s_p, zero, d)


def on_the_line(problem: TwoModeProblem, state: TwoModeState) -> Line:
    """The states of a batch as positions on the target's axis; InputError if a mean lies off it."""
    if state.dimension != problem.dimension:
        raise InputError(f"state has dimension {state.dimension}, the problem {problem.dimension}")
    origin, axis = problem.whiten(problem.mean_old), problem.whiten(problem.mean_new - problem.mean_old)
    delta = problem.separation

    def position(mean: Array) -> Array:
        shift = problem.whiten(mean) - origin
        along = shift @ axis / delta
        off = np.linalg.norm(shift - along[..., None] * axis / delta, axis=-1)
        if (off > 1e-9 * (1.0 + np.abs(along))).any():
            raise InputError(
                "the learner's means must lie on the line through the target's: sample objective.estimate instead"
            )
        return np.asarray(along.ravel(), dtype=np.float64)

    s = state.log_odds.ravel()
    one = np.ones(s.size)
    return Line(s, position(state.mean_old), position(state.mean_new), problem.log_odds * one, 0.0 * one, delta * one)


def gaussian_nodes(sharpness: float) -> tuple[Array, Array]:
    """Nodes and weights ``(K,)`` of the trapezoid rule for ``E f(U)``, f with poles ``pi / sharpness`` off the real axis."""
    step = 0.4 / max(1.0, sharpness)
    u = np.arange(-_RADIUS, _RADIUS + step, step)
    return u, step * np.exp(-0.5 * u * u) / np.sqrt(2.0 * np.pi)


def _log_mixture(s: Array, old: Array, new: Array, x: Array) -> Array:
    """``log (beta phi(x - old) + (1 - beta) phi(x - new))`` up to the Gaussian constant, ``(n, K)``."""
    return np.logaddexp(
        log_expit(s)[:, None] - 0.5 * (x - old[:, None]) ** 2, log_expit(-s)[:, None] - 0.5 * (x - new[:, None]) ** 2
    )


class Draw(NamedTuple):
    """What one sample at ``x`` brings, ``(n, K)``: reward ``A = log p / q``, score ``r_o - beta``, weight ``q / b``."""

    reward: Array
    score: Array
    weight: Array


class Samples(NamedTuple):
    """A slice ``rows`` of the learners with what samples of each component bring: its mass ``(rows,)`` and a `Draw` at the nodes."""

    rows: slice
    parts: list[tuple[Array, Draw]]
    weights: Array  # (K,), of the nodes

    def average(self, function: Callable[[Draw, slice], Array]) -> Array:
        """``E_q[function]``, ``(M, rows)``; ``function(draw, rows)`` returns ``(M, rows, K)``."""
        total: Array = np.zeros(())
        for mass, draw in self.parts:
            total = total + mass * (function(draw, self.rows) @ self.weights)
        return total


def samples(line: Line, replay_fraction: Array) -> Iterator[Samples]:
    """Slices of the ``n`` learners, small enough for the memory, with the nodes of every average over a learner's samples."""
    spread = np.stack([line.old, line.new, line.target_old, line.target_new])
    u, weights = gaussian_nodes(float(np.ptp(spread, axis=0).max(initial=1.0)))
    step = max(1, _BLOCK // u.size)
    for start in range(0, line.log_odds.size, step):
        rows = slice(start, start + step)
        here, share = line.at(rows), replay_fraction[rows, None]
        parts = []
        for mass, center in ((expit(here.log_odds), here.old), (expit(-here.log_odds), here.new)):
            x = center[:, None] + u
            log_q = _log_mixture(*here[:3], x)
            log_old = -0.5 * (x - here.target_old[:, None]) ** 2
            z = here.log_odds[:, None] + (here.old - here.new)[:, None] * (x - 0.5 * (here.old + here.new)[:, None])
            draw = Draw(
                _log_mixture(*here[3:], x) - log_q,
                expit(z) - expit(here.log_odds)[:, None],
                replay_importance_weights(log_q, log_old, share),
            )
            parts.append((mass, draw))
        yield Samples(rows, parts, weights)


def policy_average(line: Line, replay_fraction: Array, function: Callable[[Draw, slice], Array]) -> Array:
    """``E_q[function]``, ``(M, n)``; ``function(draw, rows)`` returns ``(M, rows, K)`` for a slice of the ``n`` learners."""
    return np.concatenate([some.average(function) for some in samples(line, replay_fraction)], axis=-1)


class Moments(NamedTuple):
    """``mean = E_q A``, ``gain = E_q[A psi] = -dR/ds``; ``m[j][k] = E_q[w (A - mean)^j psi^k]``, ``(n,)`` each."""

    mean: Array
    gain: Array
    m: Array  # (3, 3, n)


def score_moments(line: Line, replay_fraction: Array) -> Moments:
    """All moments that the variance of a score-function estimate needs."""
    means, moments = [], []
    for some in samples(line, replay_fraction):
        (mean,) = some.average(lambda draw, _: draw.reward[None])

        def powers(draw: Draw, _: slice, mean: Array = mean) -> Array:
            reward = draw.reward - mean[:, None]
            one = np.ones_like(reward)
            by_reward = (draw.weight, draw.weight * reward, draw.weight * reward * reward)
            by_score = (one, draw.score, draw.score * draw.score)
            return np.stack([*(a * b for a in by_reward for b in by_score), reward * draw.score])

        means.append(mean)
        moments.append(some.average(powers))
    both = np.concatenate(moments, axis=-1)
    return Moments(np.concatenate(means), both[9], both[:9].reshape(3, 3, -1))
