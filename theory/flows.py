"""A fixed-step integrator for thousands of flows at once: the check needs many short flows, not one accurate one.

Classical Runge-Kutta in whitened coordinates. The rates of both flows are at most about 1, so that steps of half a
time unit err by 1e-4 of the moving quantity; `simulate` with `GradientFlow` solves single flows to any tolerance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

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
