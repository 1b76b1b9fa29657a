"""Fixed-step integrators for thousands of flows at once: the check needs many short flows, not one accurate one.

Classical Runge-Kutta in whitened coordinates. The rates of the two gradient flows are at most about 1, so that steps of
half a time unit err by 1e-4 of the moving quantity; `simulate` with `GradientFlow` solves single flows to any tolerance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Array = NDArray[np.float64]
State = tuple[Array, Array, Array]  # log-odds (n,), old means (n, D), new means (n, D)


def _move(state: State, velocity: State, time: Array) -> State:
    along = time[:, None]
    return state[0] + time * velocity[0], state[1] + along * velocity[1], state[2] + along * velocity[2]


def runge_kutta(
    gradient: Callable[[Array, Array, Array], State], initial: State, duration: Array, steps: int
) -> Iterator[State]:
    """States of the descent flow of ``gradient`` after each of ``steps`` equal steps; ``duration (n,)`` is each flow's own."""
    state = initial
    h = duration / steps

    def velocity(at: State) -> State:
        g = gradient(*at)
        return -g[0], -g[1], -g[2]

    for _ in range(steps):
        k1 = velocity(state)
        k2 = velocity(_move(state, k1, 0.5 * h))
        k3 = velocity(_move(state, k2, 0.5 * h))
        k4 = velocity(_move(state, k3, h))
        mean = tuple((a + 2.0 * b + 2.0 * c + d) / 6.0 for a, b, c, d in zip(k1, k2, k3, k4, strict=True))
        state = _move(state, (mean[0], mean[1], mean[2]), h)
        yield state


def student_teacher_flow(
    gap: Callable[[Array, Array], Array],
    s: Array,
    sbar: Array,
    ema_rate: Array,
    duration: Array,
    steps: int,
) -> tuple[Array, Array]:
    """Log-odds of student and averaged teacher ``duration (n,)`` after ``(s, sbar)``, separated modes (theory 8).

    ``ds/dt = -sigmoid'(s) gap(s, sbar)`` and ``d sbar/dt = ema_rate (s - sbar)``: ``gap`` is the student's log-odds less
    what it is taught.
    """
    h = duration / steps

    def velocity(s: Array, sbar: Array) -> tuple[Array, Array]:
        return -expit(s) * expit(-s) * gap(s, sbar), ema_rate * (s - sbar)

    for _ in range(steps):
        k1 = velocity(s, sbar)
        k2 = velocity(s + 0.5 * h * k1[0], sbar + 0.5 * h * k1[1])
        k3 = velocity(s + 0.5 * h * k2[0], sbar + 0.5 * h * k2[1])
        k4 = velocity(s + h * k3[0], sbar + h * k3[1])
        s = s + h / 6.0 * (k1[0] + 2.0 * k2[0] + 2.0 * k3[0] + k4[0])
        sbar = sbar + h / 6.0 * (k1[1] + 2.0 * k2[1] + 2.0 * k3[1] + k4[1])
    return s, sbar
