r"""Bounds on overlap integrals (theory 0.3-0.5 and 3.4): what gates every force between the modes.

All functions are vectorised over float64 arrays; separations are Mahalanobis distances, log-odds are natural.
Source: own derivation in the setting of arXiv 2603.12163; statements `logistic-normal`, `mismatch-overlap`,
`weight-identities`, `misassignment`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr, erf, expit, log_ndtr, ndtr

from fstsim.errors import InputError
from fstsim.overlap import bhattacharyya_coefficient, validate_separation

Array = NDArray[np.float64]

C1 = 3.0 * np.sqrt(3.0) / 16.0  # max of sigmoid'(z) exp(-z/2), and of sigmoid(z)^2 exp(-z/2)
_ROOT_2PI = np.sqrt(2.0 * np.pi)


def second_moment_constant(delta: ArrayLike) -> Array:
    r"""``C(D) = min(3 sqrt(3) / 16, sqrt(pi / 8) / D)``: the half-tilt constant of ``E[r_o r_n]`` and ``E[r_o^2]``."""
    d = np.asarray(delta, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return np.minimum(C1, np.sqrt(np.pi / 8.0) / d)


def _tails(a: Array, d: Array) -> Array:
    """``G = Phi(a/d) + exp(a + d^2/2) Phi(-a/d - d)``, so that ``G/2 <= LN(a, d) <= G``."""
    return ndtr(a / d) + np.exp(a + 0.5 * d * d + log_ndtr(-a / d - d))


def logistic_normal_bounds(loc: ArrayLike, scale: ArrayLike) -> tuple[Array, Array]:
    r"""``(lower, upper)`` on ``LN(a, d)`` for ``a < 0``, ``d > 0`` (theory 0.3).

    Two tails, ``G/2 <= LN <= G``; and for ``t = -a/d^2`` in (0, 1) the saddle-point bounds
    ``LN <= exp(-a^2/2d^2) min(t^t (1-t)^(1-t), sqrt(pi/2) / (d sin pi t))`` and
    ``LN >= exp(-a^2/2d^2) sqrt(pi/2) / (d sin pi t) exp(-pi^2 (1 + cos^2 pi t) / (2 d^2 sin^2 pi t))``.
    Raises InputError unless ``loc < 0`` and ``scale > 0``. Statement `logistic-normal`.
    """
    a, d = np.broadcast_arrays(np.asarray(loc, dtype=np.float64), np.asarray(scale, dtype=np.float64))
    if not ((a < 0.0).all() and (d > 0.0).all()):
        raise InputError("loc must be negative and scale positive")
    tails = _tails(a, d)
    t = -a / (d * d)
    inside = t < 1.0
    safe = np.where(inside, t, 0.5)
    sin, cos = np.sin(np.pi * safe), np.cos(np.pi * safe)
    peak = np.exp(-0.5 * (a / d) ** 2)
    saddle = np.sqrt(np.pi / 2.0) / (d * sin)
    upper = peak * np.minimum(np.exp(-entr(safe) - entr(1.0 - safe)), saddle)
    lower = peak * saddle * np.exp(-(np.pi**2) * (1.0 + cos * cos) / (2.0 * (d * sin) ** 2))
    return (
        np.where(inside, np.maximum(0.5 * tails, lower), 0.5 * tails),
        np.where(inside, np.minimum(tails, upper), tails),
    )


def mismatch_overlap_bounds(
    log_odds: ArrayLike, center: ArrayLike, mean_old: ArrayLike, mean_new: ArrayLike
) -> tuple[Array, Array]:
    r"""Upper bounds on ``E_c[r_o]`` and on both ``E_c[r_o r_n]``, ``E_c[r_o^2]`` under ``N(c, I)`` (theory 0.4).

    With ``B = exp(-|m_o + m_n - 2c|^2 / 8 + |m_n - c|^2 / 2)``: ``E[r_o] <= e^(s/2) B min(1, sqrt(2 pi)/D) / 2`` and
    ``E[r_o r_n], E[r_o^2] <= C(D) e^(s/2) B``. Means ``(..., D)`` whitened. Statement `mismatch-overlap`.
    """
    c, m_o, m_n = (np.atleast_1d(np.asarray(x, dtype=np.float64)) for x in (center, mean_old, mean_new))
    s = np.asarray(log_odds, dtype=np.float64)
    d = np.linalg.norm(m_o - m_n, axis=-1)
    exponent = 0.5 * s - ((m_o + m_n - 2.0 * c) ** 2).sum(axis=-1) / 8.0 + 0.5 * ((m_n - c) ** 2).sum(axis=-1)
    gate = np.exp(exponent)
    with np.errstate(divide="ignore"):
        return 0.5 * gate * np.minimum(1.0, _ROOT_2PI / d), second_moment_constant(d) * gate


def weight_information_bounds(log_odds: ArrayLike, delta: ArrayLike) -> tuple[Array, Array]:
    r"""``4 TV^2 <= D <= min(1 / (beta (1 - beta)), chi^2)``, ``TV = 2 Phi(delta/2) - 1``, ``chi^2 = e^(delta^2) - 1``.

    Bounds on the Fisher information of the weight (theory 0.5 vi). Statement `weight-information`.
    """
    s, d = np.broadcast_arrays(np.asarray(log_odds, dtype=np.float64), validate_separation(delta))
    tv = total_variation(d)
    with np.errstate(over="ignore"):
        return 4.0 * tv * tv, np.minimum(1.0 / (expit(s) * expit(-s)), np.expm1(d * d))


def total_variation(delta: ArrayLike) -> Array:
    """Total variation distance of the two components, ``2 Phi(delta/2) - 1``."""
    d = validate_separation(delta)
    return erf(d / np.sqrt(8.0))


def sech_mean_bounds(log_odds: ArrayLike, delta: ArrayLike) -> tuple[Array, Array]:
    r"""Bounds on ``S = E sech((delta U - lambda) / 2)`` (theory 3.4), the factor that the Bhattacharyya bound leaves out.

    ``sqrt(2 pi)/delta exp(-(pi^2 + lambda^2) / (2 delta^2)) <= S <= min(1, sqrt(2 pi)/delta)``.
    """
    s, d = np.broadcast_arrays(np.asarray(log_odds, dtype=np.float64), validate_separation(delta))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        saddle = np.where(d > 0.0, _ROOT_2PI / d, np.inf)
        lower = np.where(d > 0.0, saddle * np.exp(-(np.pi**2 + s * s) / (2.0 * d * d)), 0.0)
    return np.minimum(lower, 1.0), np.minimum(1.0, saddle)


def misassignment_bound_table(log_odds: ArrayLike, delta: ArrayLike) -> dict[str, Array]:
    r"""Every bound of theory 3.4 on ``eps = E_old[r_new]``, by name (old log-odds ``lambda``, ``delta > 0``).

    Upper: ``U1`` Bhattacharyya, ``U2`` with the prefactor, ``U3`` Chernoff at the saddle, ``U4`` saddle point,
    ``U5`` two tails, ``U*`` their minimum. Lower: ``L*``. U3 and U4 need the saddle ``t = 1/2 + lambda/delta^2`` inside
    (0, 1) and are inf elsewhere. Statement `misassignment`.
    """
    s, d = np.broadcast_arrays(np.asarray(log_odds, dtype=np.float64), validate_separation(delta))
    if not (d > 0.0).all():
        raise InputError("delta must be positive for the misassignment bounds")
    half_tilt = 0.5 * np.exp(-0.5 * s) * bhattacharyya_coefficient(d)  # sqrt((1-w)/w) BC / 2
    sech_low, sech_high = sech_mean_bounds(s, d)
    t = 0.5 + s / (d * d)
    inside = (t > 0.0) & (t < 1.0)
    safe = np.where(inside, t, 0.5)
    peak = np.exp(-0.5 * (0.5 * d + s / d) ** 2)
    sin, cos = np.sin(np.pi * safe), np.cos(np.pi * safe)
    saddle = peak * np.sqrt(np.pi / 2.0) / (d * sin)
    tails = ndtr(-0.5 * d - s / d) + np.exp(-s + log_ndtr(-0.5 * d + s / d))
    table = {
        "U1": half_tilt,
        "U2": half_tilt * sech_high,
        "U3": np.where(inside, peak * np.exp(-entr(safe) - entr(1.0 - safe)), np.inf),
        "U4": np.where(inside, saddle, np.inf),
        "U5": tails,
    }
    table["U*"] = np.minimum(np.minimum(table["U2"], table["U4"]), np.minimum(table["U3"], tails))
    jensen = np.where(inside, saddle * np.exp(-(np.pi**2) * (1.0 + cos * cos) / (2.0 * (d * sin) ** 2)), 0.0)
    table["L*"] = np.maximum(np.maximum(0.5 * tails, half_tilt * sech_low), jensen)
    return table


def misassignment_bounds(log_odds: ArrayLike, delta: ArrayLike) -> tuple[Array, Array]:
    r"""Best ``(lower, upper)`` bounds on :func:`fstsim.theory.misassignment_probability` (theory 3.4).

    The upper one is at most 1.4 times the value everywhere it was looked at; the clean one to quote is U2,
    ``eps <= sqrt((1-w)/w) BC min(1, sqrt(2 pi)/delta) / 2``. Statement `misassignment`.
    """
    table = misassignment_bound_table(log_odds, delta)
    return table["L*"], table["U*"]
