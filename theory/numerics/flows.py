"""Fixed-step integrators for thousands of flows at once: the check needs many short flows, not one accurate one.

Classical Runge-Kutta in whitened coordinates. The rates of the two gradient flows are at most about 1, so that steps of
half a time unit err by 1e-4 of the moving quantity; `simulate` with `GradientFlow` solves single flows to any tolerance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

Array = NDArray[np.float64]
State = tuple[Array, Array, Array]  # log-odds (n,), old means (n, D), new means (n, D)
Parts = tuple[Array, ...]
"""Parts of a state that move together, each with the flows on its first axes."""


def _move(state: Parts, velocity: Parts, time: ArrayLike) -> Parts:
    """``state + time velocity``, where ``time`` has the first axes of every part."""
    t = np.asarray(time, dtype=np.float64)
    return tuple(y + t.reshape(*t.shape, *(1,) * (y.ndim - t.ndim)) * v for y, v in zip(state, velocity, strict=True))


def _slopes(velocity: Callable[..., Parts], state: Parts, h: ArrayLike) -> Parts:
    """Six times the mean velocity over a step ``h`` from ``state``, by the classical Runge-Kutta rule of order 4."""
    h = np.asarray(h, dtype=np.float64)
    k1 = velocity(*state)
    k2 = velocity(*_move(state, k1, 0.5 * h))
    k3 = velocity(*_move(state, k2, 0.5 * h))
    k4 = velocity(*_move(state, k3, h))
    return tuple(a + 2.0 * b + 2.0 * c + d for a, b, c, d in zip(k1, k2, k3, k4, strict=True))


def flow_end(velocity: Callable[..., Parts], initial: Parts, duration: ArrayLike, steps: int) -> Parts:
    """The state ``duration`` after ``initial`` under ``d parts/dt = velocity(*parts)``, in ``steps`` equal Runge-Kutta steps.

    ``duration`` may differ from flow to flow: its axes are the first ones of every part. The error is of order ``steps^-4``.
    """
    state, h = initial, np.asarray(duration, dtype=np.float64) / steps
    for _ in range(steps):
        state = _move(state, _slopes(velocity, state, h), h / 6.0)
    return state


def runge_kutta(
    gradient: Callable[[Array, Array, Array], State], initial: State, duration: Array, steps: int
) -> Iterator[State]:
    """States of the descent flow of ``gradient`` after each of ``steps`` equal steps; ``duration (n,)`` is each flow's own."""
    state = initial
    h = duration / steps

    def velocity(*at: Array) -> State:
        g = gradient(*at)
        return -g[0], -g[1], -g[2]

    for _ in range(steps):
        s, m_o, m_n = _move(state, tuple(k / 6.0 for k in _slopes(velocity, state, h)), h)
        state = s, m_o, m_n
        yield state


def flow_to_rest(
    velocity: Callable[..., Parts], initial: Parts, constants: Parts, duration: float, steps: int
) -> Parts:
    """`flow_end` under ``velocity(*parts, *constants)``, where most flows come to rest long before the end: the same numbers.

    A flow that a step leaves where it was, to the last digit, is not followed further. ``constants`` have the flows on their first
    axis.
    """
    end, state, h = tuple(part.copy() for part in initial), initial, duration / steps
    rows = np.arange(len(initial[0]))
    for _ in range(steps):
        new = _move(state, _slopes(lambda *parts: velocity(*parts, *constants), state, h), h / 6.0)  # noqa: B023
        moving = np.any([a != b for a, b in zip(new, state, strict=True)], axis=0)
        state = new
        if moving.sum() < 0.9 * rows.size:  # copying at every step would cost more than it saves
            for whole, part in zip(end, state, strict=True):
                whole[rows] = part
            rows = rows[moving]
            state, constants = (tuple(part[moving] for part in parts) for parts in (state, constants))
        if rows.size == 0:
            break
    for whole, part in zip(end, state, strict=True):
        whole[rows] = part
    return end


def student_teacher_velocity(s: Array, sbar: Array, gap: Array, ema_rate: Array) -> tuple[Array, Array]:
    """``ds/dt = -sigmoid'(s) gap`` and ``d sbar/dt = ema_rate (s - sbar)`` of student and averaged teacher, separated modes (theory 8).

    ``gap`` is the student's log-odds less what it is taught.
    """
    return -expit(s) * expit(-s) * gap, ema_rate * (s - sbar)


def student_teacher_flow(
    gap: Callable[[Array, Array], Array],
    s: Array,
    sbar: Array,
    ema_rate: Array,
    duration: Array,
    steps: int,
) -> tuple[Array, Array]:
    """Log-odds of student and averaged teacher ``duration (n,)`` after ``(s, sbar)`` by `student_teacher_velocity`."""

    def velocity(s: Array, sbar: Array) -> tuple[Array, Array]:
        return student_teacher_velocity(s, sbar, gap(s, sbar), ema_rate)

    s, sbar = flow_end(velocity, (s, sbar), duration, steps)
    return s, sbar
