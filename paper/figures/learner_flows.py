"""Gradient flows of several learners solved as one system: what a figure compares costs little more than its slowest.

`fstsim.gradient_flow` solves one learner of any problem and objective. Here all take the steps that the stiffest needs,
and one vectorised gradient serves them all; each coordinate keeps the tolerance, as the solver's error norm is the maximum.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import solve_ivp
from scipy.special import logit

from fstsim.divergences import forward_kl_gradient, reverse_kl_gradient
from fstsim.optimizers import weight_velocity
from fstsim.replay_objectives import Direction

Array = NDArray[np.float64]
Solution = Callable[[ArrayLike], Array]

_MOST_EVALUATIONS = 20_000  # of one solve: flows that need more would not come to an end


def solve_together(velocity: Callable[[Array], Array], initial: Array, duration: float, rtol: float) -> Solution:
    """States ``(T, n, k)`` at times ``(T,)`` in ``[0, duration]`` of n autonomous systems of k unknowns, by LSODA.

    ``velocity`` takes and returns ``(n, k)``; no system may depend on another. RuntimeError if the solver gives up
    or does not come to an end.
    """
    n, k = initial.shape
    evaluations = 0

    def flat_velocity(t: float, y: Array) -> Array:
        nonlocal evaluations
        evaluations += 1
        if evaluations > _MOST_EVALUATIONS or not np.isfinite(y).all():
            raise RuntimeError(f"the flows could not be solved to rtol {rtol:g} beyond time {t:g} of {duration:g}")
        return velocity(y.reshape(n, k)).ravel()

    solution = solve_ivp(
        flat_velocity,
        (0.0, duration),
        initial.ravel(),
        method="LSODA",
        dense_output=True,
        rtol=rtol,
        atol=1e-3 * rtol,
        lband=k - 1,  # the Jacobian has a block a system
        uband=k - 1,
    )
    dense = solution.sol
    if not solution.success or dense is None:
        raise RuntimeError(f"the flows could not be solved to rtol {rtol:g}: {solution.message}")
    return lambda t: np.moveaxis(dense(np.ravel(t)), 0, -1).reshape(-1, n, k)


def _new_data(deltas: ArrayLike) -> tuple[Array, Array, Array, Array]:
    """Right means ``(n, 1)``, weights ``(1, 1)`` and centers ``(n, 1, 1)`` of training on new data, one separation a learner."""
    new = np.asarray(deltas, dtype=np.float64)[:, None]
    return np.zeros_like(new), new, np.ones((1, 1)), new[:, None, :]


def forward_flows(deltas: ArrayLike, old_mass: float, duration: float, rtol: float) -> Solution:
    """Forward-KL flow on new data from right components: ``(s, m_o, m_n)`` of a learner for each of ``deltas (n,)``."""
    old, new, weights, centers = _new_data(deltas)

    def velocity(y: Array) -> Array:
        g_s, g_o, g_n = forward_kl_gradient(y[:, 0], y[:, 1:2], y[:, 2:], weights, centers)
        return -np.concatenate([g_s[:, None], g_o, g_n], axis=1)

    initial = np.concatenate([np.full_like(new, logit(old_mass)), old, new], axis=1)
    return solve_together(velocity, initial, duration, rtol)


def held_forward_flows(deltas: ArrayLike, old_mass: float, duration: float, rtol: float) -> Solution:
    """The same with the components held: the log-odds ``(T, n, 1)`` alone move."""
    old, new, weights, centers = _new_data(deltas)

    def velocity(y: Array) -> Array:
        return -forward_kl_gradient(y[:, 0], old, new, weights, centers)[0][:, None]

    return solve_together(velocity, np.full_like(new, logit(old_mass)), duration, rtol)


def leashed_flows(
    strengths: ArrayLike, deltas: ArrayLike, base: float, direction: Direction, duration: float, rtol: float
) -> Solution:
    """Log-odds ``(T, n, 1)`` under forward KL on new data and a leash of ``strengths (n,)`` to a base of that old mass.

    EM geometry, components held, from the base: `fstsim.replay_objectives.KLLeash` with a strength a learner.
    """
    old, new, weights, centers = _new_data(deltas)
    eta, start = np.asarray(strengths, dtype=np.float64), np.full(len(new), logit(base))
    masses, modes = np.array([[base, 1.0 - base]]), np.stack([old, new], axis=1)

    def velocity(y: Array) -> Array:
        s = y[:, 0]
        if direction == "forward":
            leash = forward_kl_gradient(s, old, new, masses, modes)[0]
        else:
            leash = reverse_kl_gradient(s, old, new, start, old, new)[0]
        data = forward_kl_gradient(s, old, new, weights, centers)[0]
        return weight_velocity(s, data + eta * leash, new[:, 0], "em")[:, None]

    return solve_together(velocity, start[:, None], duration, rtol)
