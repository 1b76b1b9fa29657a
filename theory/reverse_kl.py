r"""Reverse KL to the target: weight flow, merged saddles, old-mean force (theory 3).

Time is that of the Euclidean gradient flow in ``(s, m_o, m_n)``, whitened coordinates. Everything broadcasts.
Source: setting of arXiv 2603.12163; statements `reverse-kl-target`, `reverse-weight-flow`, `old-mean-force`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import exp1, expi, expit, logit

from fstsim.divergences import reverse_kl, reverse_kl_gradient
from fstsim.errors import InputError
from fstsim.logistic_normal import logistic_normal_mean, logistic_normal_slope
from fstsim.logits import bernoulli_kl
from fstsim.objectives import ReverseKL
from fstsim.optimizers import SGD, Geometry, GradientFlow, Trained
from fstsim.overlap import overlap_gap, validate_separation
from fstsim.simulate import simulate
from fstsim.theory.clocks import integrate, solve_increasing
from fstsim.theory.overlap import second_moment_constant
from fstsim.trajectory import Trajectory
from fstsim.two_mode import TwoModeProblem

__all__ = [
    "merged_escape_time",
    "merged_saddle_growth",
    "merged_state",
    "old_mean_force",
    "old_mean_force_bounds",
    "reverse_kl",
    "reverse_kl_gradient",
    "reverse_kl_weight_time",
    "simulate_reverse_kl",
    "skeleton_kl",
    "skeleton_kl_gradient",
    "weight_flow_rate",
]

Array = NDArray[np.float64]

_GAUSS_NODES, _GAUSS_WEIGHTS = np.polynomial.legendre.leggauss(20)
_ASYMPTOTIC = 50.0
_WIDEST = 64.0  # separation


def skeleton_kl(
    log_odds: ArrayLike,
    mean_old: ArrayLike,
    mean_new: ArrayLike,
    target_log_odds: ArrayLike,
    target_old: ArrayLike,
    target_new: ArrayLike,
) -> Array:
    r"""Reverse KL of the labelled mixtures, ``R_sk = KL(beta || alpha) + beta |e|^2 / 2 + (1 - beta) |v|^2 / 2 >= R``, nats.

    What the reverse KL would be if every sample carried its mode label (chain rule; theory 3.2). Statement
    `reverse-kl-target`.
    """
    s, s_p = np.asarray(log_odds, dtype=np.float64), np.asarray(target_log_odds, dtype=np.float64)
    e, v = np.subtract(mean_old, target_old), np.subtract(mean_new, target_new)
    old, new = (0.5 * (np.atleast_1d(x) ** 2).sum(axis=-1) for x in (e, v))
    return bernoulli_kl(s, s_p) + expit(s) * old + expit(-s) * new


def skeleton_kl_gradient(
    log_odds: ArrayLike,
    mean_old: ArrayLike,
    mean_new: ArrayLike,
    target_log_odds: ArrayLike,
    target_old: ArrayLike,
    target_new: ArrayLike,
) -> tuple[Array, Array, Array]:
    r"""Gradient of :func:`skeleton_kl`, whose descent is the skeleton of the reverse-KL flow (theory 4.2 [A]).

    ``beta (1 - beta) [s - s_alpha + (|e|^2 - |v|^2) / 2]``, ``beta e`` and ``(1 - beta) v``: without overlap the weight follows
    ``s_alpha + |v|^2 / 2``. Statement `skeleton-dynamics`.
    """
    s, s_p = np.asarray(log_odds, dtype=np.float64), np.asarray(target_log_odds, dtype=np.float64)
    e, v = (np.atleast_1d(np.subtract(m, mu)) for m, mu in ((mean_old, target_old), (mean_new, target_new)))
    pull = s - s_p + 0.5 * ((e * e).sum(axis=-1) - (v * v).sum(axis=-1))
    return expit(s) * expit(-s) * pull, expit(s)[..., None] * e, expit(-s)[..., None] * v


def weight_flow_rate(log_odds: ArrayLike, target_log_odds: ArrayLike, delta: ArrayLike) -> Array:
    r"""``ds/dt = -sigmoid'(s) int_{s_alpha}^s (1 - kappa(x)) dx`` of the reverse-KL flow, components right (theory 3.3 [T]).

    The integral keeps its accuracy next to the target, where the gradient is a difference of near-equal numbers.
    """
    s, s_p, d = np.broadcast_arrays(
        np.asarray(log_odds, dtype=np.float64),
        np.asarray(target_log_odds, dtype=np.float64),
        validate_separation(delta),
    )
    return -expit(s) * expit(-s) * integrate(overlap_gap, s_p, s, d)


def reverse_kl_weight_time(s0: ArrayLike, s1: ArrayLike, s_alpha: ArrayLike) -> Array:
    r"""Time of the separated reverse-KL weight flow from log-odds ``s0`` to ``s1`` on the same side of ``s_alpha``.

    ``ds/dt = -sigmoid'(s) (s - s_alpha)`` gives ``t = Q(|s0 - s_alpha|) - Q(|s1 - s_alpha|)`` with
    ``Q(x) = 2 log x + 2 cosh(s_alpha) Chi(x) - 2 sgn(s_alpha - s0) sinh(s_alpha) Shi(x)``; escape from a small mass
    takes ``~ 1 / (beta0 log(alpha / beta0))`` (theory 3.3 [T]). Negative when s1 is farther from s_alpha than s0; evaluated
    as in `separated_weight_time`, where ``Q`` would be a difference of numbers of the size ``e^|s_alpha|``.
    Raises InputError if s0 and s1 lie on different sides of, or on, ``s_alpha``.
    """
    a, b, c = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (s0, s1, s_alpha)))
    if not (np.sign(a - c) * np.sign(b - c) > 0.0).all():
        raise InputError("s0 and s1 must lie strictly on the same side of s_alpha")
    side = np.sign(c - a)
    return separated_weight_time(np.abs(a - c), np.abs(b - c), side * (b - a), side * a, side * b)


def separated_weight_time(start: Array, end: Array, gain: Array, log_odds_start: Array, log_odds_end: Array) -> Array:
    r"""``int_end^start (2 + e^s + e^-s) / x dx`` over the distance ``x`` to the target, ``s`` the log-odds there.

    Below the target; above it with the signs of all log-odds changed. ``gain = start - end``, given apart because the caller
    knows it to all digits. Three positive terms, ``2 log x`` and the exponential integrals ``E1`` and ``Ei``; by
    Gauss-Legendre where the ends nearly agree.
    """
    low, high, width = np.minimum(start, end), np.maximum(start, end), np.abs(gain)
    forward = gain >= 0.0
    s_low, s_high = np.where(forward, log_odds_end, log_odds_start), np.where(forward, log_odds_start, log_odds_end)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        ratio = np.where(width < 1e10 * low, np.log1p(width / low), np.log(high) - np.log(low))
        fall = np.exp(s_low) * (_scaled_exp1(low) - np.exp(-width) * _scaled_exp1(high))
        rise = np.exp(-s_high) * (_scaled_expi(high) - np.exp(-width) * _scaled_expi(low))
        step = 0.5 * width[..., None] * (1.0 + _GAUSS_NODES)
        values = 4.0 * np.cosh(0.5 * (s_low[..., None] - step)) ** 2 / (low[..., None] + step)
        near = 0.5 * width * (values * _GAUSS_WEIGHTS).sum(axis=-1)
        time = np.where(width < np.minimum(low, 1.0), near, 2.0 * ratio + fall + rise)
    return np.where(forward, time, -time)


def _scaled_exp1(x: Array) -> Array:
    """``e^x E1(x)``."""
    inside = np.minimum(x, _ASYMPTOTIC)
    return np.where(x < _ASYMPTOTIC, np.exp(inside) * exp1(inside), _asymptotic(-x))


def _scaled_expi(x: Array) -> Array:
    """``e^-x Ei(x)``."""
    inside = np.minimum(x, _ASYMPTOTIC)
    return np.where(x < _ASYMPTOTIC, np.exp(-inside) * expi(inside), _asymptotic(x))


def _asymptotic(x: Array) -> Array:
    """``sum_k k! / x^k / |x|`` up to the 30th term: below 1e-19 from ``|x| = 50`` on."""
    large = np.copysign(np.maximum(np.abs(x), _ASYMPTOTIC), x)
    term, total = np.ones_like(large), np.ones_like(large)
    for k in range(1, 31):
        term = term * k / large
        total = total + term
    return total / np.abs(large)


def old_mean_force(log_odds: ArrayLike, target_log_odds: ArrayLike, delta: ArrayLike) -> Array:
    r"""``|grad_{m_o} R|`` when only the weight is wrong: ``beta delta |int_{s_alpha}^s xi(x) dx|`` (theory 3.5 [T]).

    ``xi(x) = E_old[r_o r_n] = LP(-x - delta^2/2, delta)``. It vanishes linearly at the optimum.
    """
    s, s_p, d = np.broadcast_arrays(
        np.asarray(log_odds, dtype=np.float64),
        np.asarray(target_log_odds, dtype=np.float64),
        validate_separation(delta),
    )
    wide = d[..., None]
    path = integrate(lambda x: logistic_normal_slope(-x - 0.5 * wide**2, wide), s_p, s)
    return expit(s) * d * np.abs(path)


def old_mean_force_bounds(log_odds: ArrayLike, target_log_odds: ArrayLike, delta: ArrayLike) -> tuple[Array, Array]:
    r"""``(lower, upper)`` on :func:`old_mean_force`: exponent exactly ``delta^2 / 8`` (theory 3.5 [T]).

    ``sqrt(pi/8)/delta e^(-x/2 - delta^2/8) e^(-((x-2)^2 + pi^2 - 4) / (2 delta^2)) <= xi(x) <= C(delta) e^(-x/2 - delta^2/8)``,
    integrated over the path.
    """
    s, s_p, d = np.broadcast_arrays(
        np.asarray(log_odds, dtype=np.float64),
        np.asarray(target_log_odds, dtype=np.float64),
        validate_separation(delta),
    )
    if not (d > 0.0).all():
        raise InputError("delta must be positive for the old-mean force bounds")
    wide = d[..., None]

    def gate(x: Array) -> Array:
        return np.exp(-0.5 * x - 0.125 * wide**2)

    def narrow(x: Array) -> Array:
        return gate(x) * np.exp(-((x - 2.0) ** 2 + np.pi**2 - 4.0) / (2.0 * wide**2))

    lower = expit(s) * np.sqrt(np.pi / 8.0) * np.abs(integrate(narrow, s_p, s))
    return lower, expit(s) * d * second_moment_constant(d) * np.abs(integrate(gate, s_p, s))


def merged_state(alpha: float, delta: float) -> float:
    r"""Position ``m*`` (distance from the old mean along the axis) of the merged stationary state near the new mean.

        ``m* - delta + delta eta_p(m*) = 0`` with ``eta_p(m) = E_{N(m)}[r^p_o]``: both learner components sit there, for every
    weight (theory 3.2). It is a strict saddle. Raises InputError on alpha outside (0, 1), delta outside (0, 64], or when
        the target modes overlap so much that there is no such state.
    """
    return float(merged_states(alpha, delta))


def merged_states(alpha: ArrayLike, delta: ArrayLike) -> Array:
    """:func:`merged_state` of many targets at once; ``alpha`` and ``delta`` broadcast. Errors as there."""
    a, d = np.broadcast_arrays(np.asarray(alpha, dtype=np.float64), np.asarray(delta, dtype=np.float64))
    if not ((a > 0.0) & (a < 1.0)).all():
        raise InputError(f"alpha must lie strictly between 0 and 1, got {alpha!r}")
    if not ((d > 0.0) & (d <= _WIDEST)).all():
        raise InputError(f"delta must lie in (0, 64], got {delta!r}")
    s = logit(a)

    # log-odds (old against new) of a sample of N(m, 1): s + delta^2/2 - delta m
    def force(m: Array, s: Array, d: Array) -> Array:
        return m - d + d * logistic_normal_mean(s + 0.5 * d * d - d * m, d)

    # the force is positive beyond the new mean; walk inward to the first place where it pulls outward
    grid = np.linspace(d, 0.5 * d, 257, axis=-1)
    outward = force(grid, s[..., None], d[..., None]) < 0.0
    if not (found := outward.any(axis=-1)).all():
        none = f"alpha = {a[~found][0]:g}, delta = {d[~found][0]:g}"
        raise InputError(f"no merged state near the new mean at {none}: the modes overlap")
    first = outward.argmax(axis=-1)[..., None]
    low, high = (np.take_along_axis(grid, i, axis=-1)[..., 0] for i in (first, first - 1))
    return solve_increasing(
        lambda m: force(m, s, d),
        lambda m: 1.0 - d * d * logistic_normal_slope(s + 0.5 * d * d - d * m, d),
        np.zeros_like(d),
        low,
        high,
    )


def merged_saddle_growth(beta: ArrayLike, alpha: float, delta: float) -> Array:
    r"""Growth rate ``2 beta (1 - beta) delta^2 E_{N(m*)}[r^p_o r^p_n]`` of the splitting mode of a merged state.

    Of order ``e^(-delta^2/8)``: mode collapse is metastable under reverse KL (theory 3.2). It is the rate of a split with the
    barycentre at rest; the unstable eigenvalue is the same at ``beta = 1/2`` and down to half of it elsewhere.
    ``beta`` in (0, 1), any shape.
    """
    b = np.asarray(beta, dtype=np.float64)
    loc = float(logit(alpha)) + 0.5 * delta * delta - delta * merged_state(alpha, delta)
    return 2.0 * b * (1.0 - b) * delta * delta * logistic_normal_slope(loc, delta)


def merged_escape_time(beta: ArrayLike, alpha: float, delta: float) -> Array:
    r"""[A] Time to leave the merged state near the new mean, ``48 arcsin(sqrt(beta)) / (delta A^(5/2))``: order ``exp(5 delta^2 / 16)``.

    ``A = delta^2 E_{N(m*)}[r^p_o r^p_n]``, of order ``delta e^(-delta^2/8)``. Leading order for ``delta sqrt(A) -> 0``; at delta = 6, 8, 10
    (alpha = beta = 1/2) the flow takes 0.32, 0.62, 0.91 of it. ``beta`` in (0, 1), any shape.

    The split grows at the rate ``2 beta (1 - beta) A`` of :func:`merged_saddle_growth` only until it is small but finite. With
    ``w = beta (1 - beta)`` and a split D, q is a unit Gaussian smeared by a two-point law of variance ``k2 = w D^2`` and third
    moment ``-w (1 - 2 beta) D^3``: to leading order ``R = k2^2/4 - A k2/2 - (delta A/12)(1 - 2 beta) w D^3`` (the entropy of the
    smeared Gaussian falls short of that of its variance; each derivative of ``E log(1 + p_old/p_new)`` brings ``-delta/2``). So k2
    settles at A, the bottom of a valley, along which R falls by ``(delta A^(5/2) / 12)(1 - 2 beta)/sqrt(w)`` only. Hence
    ``ds/dt = -delta A^(5/2) / (24 sqrt(w))``: the old component grows rarer and farther out, until it reaches the old mode.
    """
    b = np.asarray(beta, dtype=np.float64)
    if not ((b > 0.0) & (b < 1.0)).all():
        raise InputError(f"beta must lie strictly between 0 and 1, got {beta!r}")
    a = float(merged_saddle_growth(0.5, alpha, delta)) / 0.5
    return 48.0 * np.arcsin(np.sqrt(b)) / (delta * a**2.5)


def weight_flow_bounds(log_odds: ArrayLike, target_log_odds: ArrayLike, delta: ArrayLike) -> tuple[Array, Array]:
    r"""``(1 - kappa_max, 1)``: bounds on ``|ds/dt| / (sigmoid'(s) |s - s_alpha|)`` (theory 3.3 [T])."""
    s, s_p = np.asarray(log_odds, dtype=np.float64), np.asarray(target_log_odds, dtype=np.float64)
    lower = overlap_gap(np.maximum(np.abs(s), np.abs(s_p)), delta)
    return lower, np.ones_like(lower)


def polyak_lojasiewicz_constant(log_odds: ArrayLike, target_log_odds: ArrayLike, delta: ArrayLike) -> Array:
    r"""``mu = 2 min(sigmoid')^2 (1 - kappa_max)`` on the interval, with ``|dR/ds|^2 >= 2 mu R`` (theory 3.3 [T])."""
    s, s_p = np.asarray(log_odds, dtype=np.float64), np.asarray(target_log_odds, dtype=np.float64)
    reach = np.maximum(np.abs(s), np.abs(s_p))
    return 2.0 * (expit(reach) * expit(-reach)) ** 2 * overlap_gap(reach, delta)


def simulate_reverse_kl(
    delta: float,
    alpha: float,
    beta0: float,
    v0: ArrayLike,
    steps: int,
    step: float = 0.1,
    *,
    geometry: Geometry = "logit",
    train: Trained = "all",
    batch: int | None = None,
    rng: np.random.Generator | None = None,
) -> Trajectory:
    """Reverse-KL training from a right old component, mass ``beta0``, and a new mean off by the vector ``v0`` (D,).

    The first axis points from the old to the new mean; a scalar ``v0`` is a one-dimensional problem. The exact flow
    with ``steps`` rows ``step`` apart, or SGD with learning rate ``step`` when ``batch`` is given (then ``rng`` too).
    """
    error = np.atleast_1d(np.asarray(v0, dtype=np.float64))
    problem = TwoModeProblem.separated(delta, alpha, error.size)
    how = (
        GradientFlow(step, geometry=geometry, train=train)
        if batch is None
        else SGD(step, batch, geometry=geometry, train=train)
    )
    return simulate(problem, ReverseKL(problem), problem.initial(beta0, error), how, steps, rng)
