"""When flows first arrive somewhere: thousands at once, each with its own adaptive steps.

`flows` takes steps of equal length, which needs an end that is known. Here each flow has the step that its own error allows, so that
one solver call does what `scipy.integrate.solve_ivp` with an event does for one flow; not for stiff flows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import DOP853

Array = NDArray[np.float64]
Rows = NDArray[np.intp]

_MOST_STEPS = 10_000
_LOCATE = 60  # halvings at worst: regula falsi takes fewer than ten
_SAFETY, _LEAST, _MOST = 0.9, 0.2, 10.0  # of a change of the step, as in scipy


class Arrival(NamedTuple):
    """``time (n,)`` of the first arrival and ``state (n, k)`` there."""

    time: Array
    state: Array


def _step(
    velocity: Callable[[Array, Rows], Array], y: Array, first: Array, h: Array, rows: Rows
) -> tuple[Array, Array]:
    """End ``(n, k)`` of a step ``h (n,)`` of order 8 from ``y (n, k)``, and its slopes ``(13, n, k)``."""
    slopes = np.empty((DOP853.n_stages + 1, *y.shape))
    slopes[0] = first
    for stage in range(1, DOP853.n_stages):
        move = np.tensordot(DOP853.A[stage, :stage], slopes[:stage], axes=1)
        slopes[stage] = velocity(y + h[:, None] * move, rows)
    end = y + h[:, None] * np.tensordot(DOP853.B, slopes[:-1], axes=1)
    slopes[-1] = velocity(end, rows)
    return end, slopes


def _error(slopes: Array, h: Array, scale: Array) -> Array:
    """Estimated error of a step over what is allowed, ``(n,)``: Hairer's combination of orders 5 and 3."""
    fifth, third = (np.tensordot(weights, slopes, axes=1) / scale for weights in (DOP853.E5, DOP853.E3))
    fifth, third = (fifth**2).sum(axis=1), (third**2).sum(axis=1)
    both = np.sqrt((fifth + 0.01 * third) * scale.shape[1])
    return np.abs(h) * np.divide(fifth, both, out=np.zeros_like(fifth), where=both > 0.0)


def _meet(
    step: Callable[[Array], Array], past: Callable[[Array], Array], longest: Array, before: Array, after: Array
) -> Array:
    """Lengths of steps at whose ends ``past`` is 0, between 0 (``before`` < 0) and ``longest`` (``after`` >= 0): Illinois rule."""
    low, high, g_low, g_high = np.zeros_like(longest), longest, before, after
    side, h = np.zeros(longest.shape), longest
    for _ in range(_LOCATE):
        h = np.where(g_high > g_low, high - g_high * (high - low) / (g_high - g_low), high)
        g = past(step(h))
        above = g >= 0.0
        # an end that stays twice counts half, so that both ends close in
        g_low, g_high = (
            np.where(above, np.where(side > 0.0, 0.5 * g_low, g_low), g),
            np.where(above, g, np.where(side < 0.0, 0.5 * g_high, g_high)),
        )
        low, high, side = np.where(above, low, h), np.where(above, h, high), np.where(above, 1.0, -1.0)
        if ((np.abs(g) <= 1e-15) | (high - low <= 4e-16 * high)).all():
            break
    return h


def first_arrivals(
    velocity: Callable[[Array, Rows], Array],
    initial: Array,
    past: Callable[[Array, Rows], Array],
    rtol: float = 1e-10,
    atol: float = 1e-12,
) -> Arrival:
    """Where each flow ``dy/dt = velocity(y, rows)`` from ``initial (n, k)`` first has ``past(y, rows) >= 0``, and when.

    ``rows`` says which of the n flows the rows of y are. Dormand and Prince's rule of order 8, steps by its error estimate; the last
    step is shortened until ``past`` is 0. Flows that start there stay. Raises RuntimeError where a flow does not arrive.
    """
    time, state = np.zeros(len(initial)), np.array(initial, dtype=np.float64)
    rows = np.flatnonzero(past(state, np.arange(len(state))) < 0.0)
    slope = velocity(state[rows], rows)
    speed = (np.abs(slope) / (atol + rtol * np.abs(state[rows]))).max(axis=1, initial=0.0)
    h = np.divide(rtol**-0.875, speed, out=np.ones_like(speed), where=speed > 0.0)
    for _ in range(_MOST_STEPS):
        if rows.size == 0:
            return Arrival(time, state)
        y = state[rows]
        end, slopes = _step(velocity, y, slope, h, rows)
        error = _error(slopes, h, atol + rtol * np.maximum(np.abs(y), np.abs(end)))
        good = error <= 1.0
        g = past(end, rows)
        there = good & (g >= 0.0)
        if there.any():
            at, start, first = rows[there], y[there], slope[there]
            length = _meet(
                lambda h: _step(velocity, start, first, h, at)[0],  # noqa: B023
                lambda x: past(x, at),  # noqa: B023
                h[there],
                past(start, at),
                g[there],
            )
            time[at] += length
            state[at] = _step(velocity, start, first, length, at)[0]
        on = good & ~there
        time[rows[on]] += h[on]
        state[rows[on]] = end[on]
        slope = np.where(on[:, None], slopes[-1], slope)
        with np.errstate(divide="ignore"):
            h = h * np.clip(_SAFETY * error ** (-1.0 / 8.0), _LEAST, np.where(good, _MOST, 1.0))
        rows, slope, h = rows[~there], slope[~there], h[~there]
    raise RuntimeError(f"{rows.size} flows did not arrive within {_MOST_STEPS:,} steps")
