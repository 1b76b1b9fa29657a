r"""Replayed data under forward KL: where the old mass rests, when it gets there, how far the old mean is dragged (theory 6).

Components right unless a function says otherwise. Time is that of the Euclidean gradient flow in ``(s, m_o, m_n)``,
whitened coordinates (units of 1 / learning rate). Everything broadcasts over float64 arrays.
Source: setting of arXiv 2603.12163, own derivation; statement `replay-forward` and those after it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit, wrightomega

from fstsim.errors import InputError
from fstsim.logistic_normal import logistic_normal_slope
from fstsim.logits import logit_difference
from fstsim.overlap import overlap_gap, validate_separation
from fstsim.theory.numerics.inputs import finite, mass, positive
from fstsim.theory.numerics.inputs import share as fraction
from fstsim.theory.overlap import second_moment_constant

Array = NDArray[np.float64]

_GAUSS_NODES, _GAUSS_WEIGHTS = np.polynomial.legendre.leggauss(12)
_MOST_ITERATIONS = 400
_PANEL = 2.0  # panel width in log-odds: 12 nodes resolve poles at distance pi to rounding


# --- forward KL with replayed data (6.1) ----------------------------------------------------------------------------


def replay_equilibrium(replay_fraction: ArrayLike) -> Array:
    r"""Old mass at which forward KL on ``(1 - lambda) p_new + lambda p_old`` comes to rest: ``lambda``, for every overlap.

    ``lambda`` in [0, 1]. With free components ``(lambda, mu_o, mu_n)`` is the global minimum (KL = 0), unique up to
    swapping the labels. Theory 6.1 [T], `replay-forward`.

    >>> float(replay_equilibrium(0.05))
    0.05
    """
    return fraction(replay_fraction, "replay_fraction").copy()


def replay_weight_rate(log_odds: ArrayLike, replay_fraction: ArrayLike, delta: ArrayLike) -> Array:
    r"""``ds/dt = (lambda - beta)(1 - kappa(s))`` of the weight under forward KL with replay (theory 6.1 [T])."""
    s, share, d = np.broadcast_arrays(
        finite(log_odds, "log_odds"), fraction(replay_fraction, "replay_fraction"), validate_separation(delta)
    )
    return (share - expit(s)) * overlap_gap(s, d)


def _half_time(share: Array, ratio: Array, way: Array, left: Array) -> Array:
    """``-log R / share``, ``R = (b1 - lam) b0 / (b1 (b0 - lam)) = 1 + share way``: one half of the time, ``-way`` at share 0.

    ``ratio = b0 / b1``, ``left = (b1 - lam) / (b0 - lam)``; for the other half with ``1 - b`` and ``1 - lam``.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        small = share * way
        log = np.where(np.abs(small) < 0.5, np.log1p(small), np.log(ratio) + np.log(left))
        return np.where(np.abs(small) < 1e-17, -way, -log / share)


def replay_time(beta0: ArrayLike, beta1: ArrayLike, lam: ArrayLike, delta: ArrayLike | None = None) -> Array:
    r"""Time for the old mass to go from ``beta0`` to ``beta1`` with replay share ``lam``, both on one side of ``lam``.

    Without overlap (``delta = None``) ``t = Gamma(beta1) - Gamma(beta0)`` with
    ``Gamma(b) = log(b)/lam + log(1-b)/(1-lam) - log|lam-b| / (lam (1-lam))``, evaluated in the form
    ``-log|1 - lam/b|/lam - log|1 - (1-lam)/(1-b)|/(1-lam)`` that has the limits ``lam = 0`` (new data only) and 1.
    With ``delta``: ``int ds / ((lam - beta)(1 - kappa))``, Gauss-Legendre to 1e-10. Negative when ``beta1`` is farther from
    ``lam`` than ``beta0``. Raises InputError on masses outside (0, 1) or on different sides of, or at, ``lam``.
    Theory 6.1 [T], `replay-forward-time`.
    """
    b0, b1, share = np.broadcast_arrays(mass(beta0, "beta0"), mass(beta1, "beta1"), fraction(lam, "lam"))
    if not (np.sign(b0 - share) * np.sign(b1 - share) > 0.0).all():
        raise InputError("beta0 and beta1 must lie strictly on the same side of lam")
    if delta is None:
        with np.errstate(over="ignore"):
            way, left = (b1 - b0) / (b0 - share), (b1 - share) / (b0 - share)
            old = _half_time(share, b0 / b1, (b1 - b0) / b1 / (b0 - share), left)
            return old + _half_time(1.0 - share, (1.0 - b0) / (1.0 - b1), way / (1.0 - b1), left)
    if not ((share > 0.0) & (share < 1.0)).all():
        raise InputError("lam must lie strictly between 0 and 1 when delta is given (lam = 0: mass_forgetting_time)")
    b0, b1, share, d = np.broadcast_arrays(b0, b1, share, positive(validate_separation(delta), "delta"))
    return _overlap_time(logit_difference(b0, share), logit_difference(b1, b0), logit(share), d)


def _overlap_time(start: Array, way: Array, target: Array, delta: Array) -> Array:
    """``int ds / ((lam - beta)(1 - kappa))`` over ``w = log x + x``, ``x = |s - target|``: even steps at both ends.

    ``start = s0 - target`` and ``way = s1 - s0``, given apart because masses that nearly agree know them better.
    """
    side, x0 = np.sign(start), np.abs(start)
    way = side * way
    near = np.abs(way) < 0.5 * x0
    ratio = np.log(np.where(near, 1.0, (x0 + way) / x0))
    width = np.where(near, np.log1p(np.where(near, way / x0, 0.0)), ratio) + way
    w0 = np.log(x0) + x0
    panels = max(1, int(np.ceil(np.abs(width).max(initial=0.0) / _PANEL)))
    half = 0.5 * width / panels
    total = np.zeros(x0.shape)
    for panel in range(panels):
        x = wrightomega((w0 + (2 * panel + 1) * half)[..., None] + half[..., None] * _GAUSS_NODES).real
        gap = side[..., None] * x
        s = target[..., None] + gap
        speed = -expit(target)[..., None] * expit(-s) * np.expm1(gap) * overlap_gap(s, delta[..., None])
        total = total + half * ((side[..., None] * x / (1.0 + x) / speed) * _GAUSS_WEIGHTS).sum(axis=-1)
    return total


def replay_old_mean_force(log_odds: ArrayLike, replay_fraction: ArrayLike, delta: ArrayLike) -> Array:
    r"""Force on the old mean toward the new data while the components are right, forward KL with replay.

    ``delta ((1-lambda) E_n[r_o^2] - lambda E_o[r_o r_n]) = delta (beta - lambda) / (1 - beta) E_o[r_o r_n]``: toward the new data
    while the mass is above its equilibrium, away from it below, zero at ``beta = lambda``. Theory 6.1 [T],
    `replay-forward-force`.
    """
    s, share, d = np.broadcast_arrays(
        finite(log_odds, "log_odds"), fraction(replay_fraction, "replay_fraction"), validate_separation(delta)
    )
    # above one half what is not replayed, and what is not old, are known to more digits than their complements
    over = np.where(s > 0.0, (1.0 - share) / expit(-s) - 1.0, (expit(s) - share) / expit(-s))
    return d * over * logistic_normal_slope(-s - 0.5 * d * d, d)


# --- the excursion of the old mean under replay (6.2, delicate point) ------------------------------------------------


class _Guess(NamedTuple):
    """Candidate certificate: largest shift of the old and of the new mean, range of the log-odds."""

    rho: Array
    v: Array
    low: Array
    high: Array


def _excursion_step(d: Array, s0: Array, share: Array, guess: _Guess) -> _Guess:
    """Right-hand sides of the certificate of `replay_excursion`; nan where ``guess`` leaves their domain."""
    rho, v, low, high = guess
    reach, closest = d + rho + v, d - rho - v
    with np.errstate(all="ignore"):
        gate = second_moment_constant(closest)
        b_new = np.exp(-0.125 * closest**2 + 0.5 * v * v)  # overlap seen from the new data, from the old data
        b_old = np.exp(-0.125 * closest**2 + 0.5 * rho * rho)
        kappa = (1.0 - share) * b_new * np.cosh(0.5 * np.maximum(np.abs(high), np.abs(logit(share))))
        rest = share / (1.0 - kappa)
        lost_old, lost_new = 0.5 * np.exp(-0.5 * low) * b_old, 0.5 * np.exp(0.5 * high) * b_new
        fine = (closest > 0.0) & (kappa < 1.0) & (rest < 1.0) & (lost_old < 1.0) & (lost_new < 1.0)
        y, x0 = np.exp(0.5 * logit(rest)), np.exp(0.5 * high)
        path = np.log(2.0 * x0 / (x0 + y)) / y + (x0 - y) - y * np.log((x0 + y) / (2.0 * y))
        held = y / (share * (1.0 - lost_old)) + 2.0 * (1.0 + y * y) * path / (1.0 - kappa)
        pull, push = (1.0 - share) * gate * b_new, gate * b_old * np.exp(-0.5 * low)
        pushed = push / (1.0 - lost_old)
        new_rho = np.maximum(pull * held * reach, pull * held * v + pushed * reach)
        new_v = np.maximum(pull * np.exp(0.5 * high) * reach + share * push * rho, share * push * (reach + rho))
        new = (
            new_rho,
            new_v / ((1.0 - share) * (1.0 - lost_new)),
            np.minimum(s0, logit(share * (1.0 - lost_old))),
            np.maximum(s0, logit(rest)),
        )
        return _Guess(*(np.where(fine, x, np.nan) for x in new))


def _excursion_bound(d: Array, s0: Array, share: Array) -> Array:
    """Smallest certificate by monotone iteration, nan where there is none (flat arrays)."""
    target = logit(share)
    guess = _Guess(np.zeros(d.size), np.zeros(d.size), np.minimum(s0, target), np.maximum(s0, target))

    def holds(new: _Guess, old: _Guess, grow: float, widen: float) -> NDArray[np.bool_]:
        with np.errstate(invalid="ignore"):
            larger = (new.rho <= old.rho * grow) & (new.v <= old.v * grow)
            return larger & (new.low >= old.low - widen) & (new.high <= old.high + widen)

    # the theorem needs numbers that satisfy the inequalities: a fixed point of the map that is a little too large does, while
    # one that is only widened afterwards need not, since each number moves the others
    for _ in range(_MOST_ITERATIONS):
        step = _excursion_step(d, s0, share, guess)
        new = _Guess(step.rho * (1.0 + 1e-9), step.v * (1.0 + 1e-9), step.low - 1e-9, step.high + 1e-9)
        settled = np.isnan(new.rho) | holds(new, guess, 1.0 + 1e-12, 1e-12)
        guess = new
        if settled.all():
            break
    return np.where(holds(_excursion_step(d, s0, share, guess), guess, 1.0, 0.0), guess.rho, np.nan)


def _excursion_leading(d: Array, s0: Array, share: Array) -> Array:
    """Peak of the separated law, on a grid of log-odds that is geometric in the distance from the equilibrium."""
    target = logit(share)
    shift, peak = np.zeros(d.size), np.zeros(d.size)
    start, odds = np.abs(s0 - target), np.exp(target)
    x, force = start, np.zeros(d.size)
    for k, left in enumerate(np.exp(-np.linspace(0.0, 9.0, 901))):
        last_x, last_force = x, force
        x = start * left
        # (beta - lambda) / sqrt(beta (1 - beta)) dt = -2 cosh(s/2) ds
        force = 2.0 * np.cosh(0.5 * (target + np.sign(s0 - target) * x))
        if k > 0:
            step = last_x - x
            with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
                # lambda dt: log(expm1(x') / expm1(x)) and the same less the step, over lambda and 1 - lambda
                fall = np.log1p(-np.expm1(-step) / np.expm1(x))
                both = fall + odds * (fall + step), fall + step + odds * fall
                decay = np.where(start == 0.0, 1.0, np.exp(-np.where(s0 > target, *both)))
            shift = shift * decay + 0.5 * step * (last_force * decay + force)
            peak = np.maximum(peak, np.abs(shift))
    return np.sqrt(np.pi / 8.0) * np.exp(-0.125 * d * d) * peak


def replay_excursion(delta: ArrayLike, beta0: ArrayLike, replay_fraction: ArrayLike) -> tuple[Array, Array]:
    r"""``(bound, leading_order)`` on the excursion ``sup_t |m_o(t) - mu_o|`` of the joint forward flow with replay.

    Start: components right, old mass ``beta0``. Replay fixes where the old mean ends, not how far it is dragged on the
    way; but unlike training without replay (`old_mean_drift_forward`) the drag is bounded for all time.

    The bound [T] is the smallest self-consistent ``rho`` of the certificate below, nan where there is none (too much
    overlap for so little replay). The leading order [A] is the peak of
    ``de/dt = sqrt(pi/8) BC (beta - lambda)/sqrt(beta (1-beta)) - lambda e`` along the separated flow of beta; for
    ``BC << sqrt(lambda)`` and ``lambda << beta0`` it is ``0.8955 sqrt(pi/8) BC / sqrt(lambda)``, reached at ``t = 0.544 / lambda``.

    Certificate: ``C = C(d_-)``, ``R = delta + rho + v``, ``d_- = delta - rho - v``, ``B_n = e^(-d_-^2/8 + v^2/2)``,
    ``B_o = e^(-d_-^2/8 + rho^2/2)``. By 0.4 ``E_n[r_o] <= e^(s/2) B_n / 2``, ``E_n[r_o^2], E_n[r_o r_n] <= C e^(s/2) B_n`` and
    the same for the old data with ``-s`` and ``B_o``. Hence ``ds/dt <= -(1 - k)(beta - lambda')`` with ``k = (1-lambda) B_n
    cosh(s/2)`` at its largest and ``lambda' = lambda / (1 - k)``; ``ds/dt >= lambda (1 - eps_o) - beta`` with ``eps_o = e^(-s_-/2) B_o / 2``,
    so that s >= s_-. In ``de/dt = -lambda E_o[r_o] e + (pull of the new data) - (push of the old data)`` the damping is at
    least ``lambda (1 - eps_o)``; the pull is at most ``(1-lambda) C B_n R e^(s/2)`` and at least ``-(1-lambda) C B_n v e^(s/2)``,
    the push between 0 and ``lambda C B_o R e^(-s_-/2)``. With ``e^(s/2) <= y + (x - y)_+``, ``y^2 = lambda'/(1-lambda')``, x on
    the comparison flow, the damped integral of ``e^(s/2)`` is at most ``y / (lambda (1 - eps_o)) + int_y^x0 2 (1+x^2)(1+y^2)
    / (x (x+y)) dx / (1 - k)``. The new mean obeys the same with damping ``(1-lambda)(1 - eps_n)``. All is collinear, and
    continuity closes the loop. Statement `replay-forward-excursion`.
    """
    d, b0, share = np.broadcast_arrays(
        positive(validate_separation(delta), "delta"),
        mass(beta0, "beta0"),
        mass(replay_fraction, "replay_fraction"),
    )
    flat = (d.ravel(), logit(b0).ravel(), share.ravel())
    return _excursion_bound(*flat).reshape(d.shape), _excursion_leading(*flat).reshape(d.shape)
