r"""SDFT with a teacher that is pulled to a demonstrator, and SDFT by forward KL (theory 8.6 and 8.7).

The teacher follows the student at ``ema_rate`` rho and is pulled to a fixed demonstrator of log-odds ``s_d`` at ``strength``
lambda: ``d sbar/dt = rho (s - sbar) + lambda (s_d - sbar)``. The demonstrator carries both modes; its tilt in the student's
target is ``h``, 0 if the target is the teacher itself. Separated modes, time in units of 1 / learning rate.
Source: own derivation on the model of SDFT (arXiv 2601.19897, 2603.12163); statements `sdft-demonstrator-*`, `sdft-forward`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_expit

from fstsim.theory.clocks import learning_clock_between, solve_increasing
from fstsim.theory.numerics.inputs import finite, nonnegative, positive

Array = NDArray[np.float64]


def demonstrator_fixed_point(
    demonstrator_log_odds: ArrayLike, tilt: ArrayLike, ema_rate: ArrayLike, strength: ArrayLike
) -> Array:
    r"""Log-odds at which the student ends, ``s_d - h (1 + rho / lambda)``: the demonstrator's share where ``h = 0``.

    Statement `sdft-demonstrator-anchor` [T]. Raises InputError unless ``strength`` is positive: without it nothing is held.

    >>> demonstrator_fixed_point(0.5, [0.0, 0.2], 0.1, 0.05).round(3).tolist()
    [0.5, -0.1]
    """
    h = finite(tilt, "tilt")
    return finite(demonstrator_log_odds, "demonstrator_log_odds") - h * (
        1.0 + nonnegative(ema_rate, "ema_rate") / positive(strength, "strength")
    )


def demonstrator_rate(
    fixed_log_odds: ArrayLike, ema_rate: ArrayLike, strength: ArrayLike
) -> tuple[Array, Array, Array]:
    r"""``(rate, lower, upper)``: local rate at the fixed point, ``c lambda / (c + rho + lambda)`` and twice that around it.

    ``c = sigma'(s*)``; the smaller root of ``r^2 - (c + rho + lambda) r + c lambda``. Statement `sdft-demonstrator-rate` [T].
    """
    s, rho = finite(fixed_log_odds, "fixed_log_odds"), nonnegative(ema_rate, "ema_rate")
    lam = positive(strength, "strength")
    c = np.exp(log_expit(s) + log_expit(-s))
    total = c + rho + lam
    lower = c / total * lam
    # (c + rho + lambda)^2 - 4 c lambda = (c - lambda)^2 + rho (rho + 2 c + 2 lambda)
    apart = np.hypot(c - lam, np.sqrt(rho) * np.sqrt(total + c + lam))
    rate = 2.0 * c / (total + apart) * lam
    return rate, lower, 2.0 * lower


def demonstrator_drift_bound(force: ArrayLike, ema_rate: ArrayLike, strength: ArrayLike) -> Array:
    r"""Drift that the old mean never passes, ``(1 + rho / lambda) f``, if the overlap's force on it stays below ``f``.

    The demonstrator's means are right, and student and teacher start there. Statement `sdft-demonstrator-drift` [T].
    """
    return nonnegative(force, "force") * (1.0 + nonnegative(ema_rate, "ema_rate") / positive(strength, "strength"))


def undemonstrated_end(log_odds: ArrayLike, teacher_log_odds: ArrayLike, ema_rate: ArrayLike) -> Array:
    r"""Where student and teacher meet without demonstrator and tilt: ``F(s) + s / rho = F(s_0) + sbar_0 / rho``.

    ``F(x) = 2x + 2 sinh x``: a state set by the start alone. Statement `sdft-demonstrator-none` [T].
    """
    s0, t0 = np.broadcast_arrays(finite(log_odds, "log_odds"), finite(teacher_log_odds, "teacher_log_odds"))
    rho = positive(ema_rate, "ema_rate")
    s0, t0, rho = np.broadcast_arrays(s0, t0, rho)

    def excess(x: Array) -> Array:
        return learning_clock_between(s0, x) + (x - t0) / rho

    def slope(x: Array) -> Array:
        with np.errstate(over="ignore"):
            return 2.0 + 2.0 * np.cosh(x) + 1.0 / rho

    return solve_increasing(excess, slope, 0.0, np.minimum(s0, t0), np.maximum(s0, t0))


def forward_speed_ratio(log_odds: ArrayLike, teacher_log_odds: ArrayLike) -> Array:
    r"""Speed of the student's log-odds under forward KL to its teacher over that under reverse KL.

    ``(sigma(s) - sigma(s_T)) / (sigma'(s) (s - s_T))``: positive, so that both rest in the same places. Statement
    `sdft-forward` [T].

    >>> forward_speed_ratio(-3.0, [-4.0, -3.0, -2.0]).round(3).tolist()
    [0.652, 1.0, 1.589]
    """
    s, target = finite(log_odds, "log_odds"), finite(teacher_log_odds, "teacher_log_odds")
    u = np.abs(s - target)
    # even: with both signs changed it is the same, so that the student may be taken to be the upper one
    high = np.where(s >= target, s, -s)
    low = np.where(s >= target, target, -target)
    ratio, _ = _speed_bounds(u)
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(np.log(ratio) + log_expit(-low) - log_expit(-high)))


def forward_speed_bounds(gap: ArrayLike) -> tuple[Array, Array]:
    """``(lower, upper)`` on `forward_speed_ratio` at any mass: ``(1 - e^-|u|) / |u|`` and ``(e^|u| - 1) / |u|``, u = s - s_T."""
    return _speed_bounds(np.abs(finite(gap, "gap")))


def _speed_bounds(u: Array) -> tuple[Array, Array]:
    close = u < 1e-300
    safe = np.where(close, 1.0, u)
    with np.errstate(over="ignore"):
        return np.where(close, 1.0, -np.expm1(-safe) / safe), np.where(close, 1.0, np.expm1(safe) / safe)
