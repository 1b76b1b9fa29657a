r"""OAPL: squared regression of ``tau log(pi / pi_lag)`` onto ``r - V*``, refreshed every period (theory 10).

``gap`` is ``r_new - r_old``, ``tau`` the temperature, log-odds are of the old mode. A solved period multiplies the odds
by ``e^(-gap / tau)``; nothing holds them, unless the reference is anchored at the base, ``pi_lag^a pi_0^(1-a)``.
Source: own derivation on the model of OAPL (arXiv 2602.19362); statements `oapl-*`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from fstsim.errors import InputError
from fstsim.logits import log_expit_difference, logit_difference
from fstsim.overlap import harmonic_overlap, validate_separation
from fstsim.theory.numerics.inputs import finite, mass, positive, share
from fstsim.theory.ttt import responsibility_drift_bound
from fstsim.tilts import MAX_GAIN, log_entropic_mean, tilt_grid

Array = NDArray[np.float64]

_ROWS = 64  # base mixtures integrated together


def oapl_log_odds(
    base_log_odds: ArrayLike, gap: ArrayLike, tau: ArrayLike, refreshes: ArrayLike, anchor: ArrayLike = 1.0
) -> Array:
    r"""Log-odds after ``refreshes`` solved periods: ``s_0 - (gap/tau) (1 - a^k) / (1 - a)``, ``k`` for a = 1 (theory 10.1 [T]).

    ``refreshes`` may be inf: the limit ``s_0 - gap / (tau (1 - a))``, which is infinite for a = 1 and a gap. Periods
    solved only to a fraction omega (of the log-odds step) act like ``omega gap`` when a = 1.
    Raises InputError on a temperature that is not positive, negative refreshes or an anchor outside [0, 1].
    """
    s, r, t, k, a = np.broadcast_arrays(
        finite(base_log_odds, "base_log_odds"),
        finite(gap, "gap"),
        positive(tau, "tau"),
        np.asarray(refreshes, dtype=np.float64),
        share(anchor, "anchor"),
    )
    if not (k >= 0.0).all():
        raise InputError(f"refreshes must be nonnegative, got {refreshes!r}")
    with np.errstate(divide="ignore", invalid="ignore"):
        # 1 - a^k without cancellation near a = 1
        series = np.where(a < 1.0, -np.expm1(k * np.log(a)) / (1.0 - a), k)
        series = np.where(k == 0.0, 0.0, series)
        return np.where(r == 0.0, s, s - r / t * series)


def oapl_old_mass(
    beta0: ArrayLike, gap: ArrayLike, tau: ArrayLike, refreshes: ArrayLike, anchor: ArrayLike = 1.0
) -> Array:
    r"""Old mass after ``refreshes`` solved periods, ``beta_0 / (beta_0 + (1 - beta_0) e^(k gap / tau))`` at a = 1 (theory 10.1 [T]).

    Arguments and errors as :func:`oapl_log_odds`; ``beta0`` in (0, 1).

    >>> round(float(oapl_old_mass(0.5, 1.0, 1.0, 3)), 6)
    0.047426
    """
    return expit(oapl_log_odds(logit(mass(beta0, "beta0")), gap, tau, refreshes, anchor))


def oapl_retention_refreshes(
    beta0: ArrayLike, gap: ArrayLike, tau: ArrayLike, min_mass: ArrayLike, anchor: ArrayLike = 1.0
) -> Array:
    r"""Largest real number of solved periods after which the old mass is still ``min_mass`` (theory 10.1 [T]).

    ``(tau / gap) (s_0 - logit(min_mass))`` without an anchor; with one, ``log(1 - (1 - a) that) / log a``, or inf where the
    fixed point itself retains. inf for ``gap <= 0``; nan where the base already is below ``min_mass``.
    """
    room = logit_difference(mass(beta0, "beta0"), mass(min_mass, "min_mass"))
    x, r, t, a = np.broadcast_arrays(room, finite(gap, "gap"), positive(tau, "tau"), share(anchor, "anchor"))
    with np.errstate(divide="ignore", invalid="ignore"):
        plain = t * x / r
        used = (1.0 - a) * plain
        anchored = np.where(used < 1.0, np.log1p(-used) / np.log(a), np.inf)
        k = np.where(a < 1.0, anchored, plain)
    return np.where(x < 0.0, np.nan, np.where(r <= 0.0, np.inf, k))


def oapl_loss_gradient(
    log_odds: ArrayLike, lag_log_odds: ArrayLike, tau: ArrayLike, r_old: ArrayLike, r_new: ArrayLike
) -> Array:
    r"""``L'(s)`` of the regression within a period, units of reward squared (theory 10.2 [T]).

    ``2 tau^2 [beta_l (1 - beta) log(beta / beta*) - (1 - beta_l) beta log((1 - beta) / (1 - beta*))]``, ``s* = s_l - gap/tau``.
    It has the sign of ``s - s*``; as the mass vanishes it stays of order ``beta_l``: the lagged sampler keeps pulling the
    old mode back until the next refresh.
    """
    s, lag, t = finite(log_odds, "log_odds"), finite(lag_log_odds, "lag_log_odds"), positive(tau, "tau")
    fall = (finite(r_new, "r_new") - finite(r_old, "r_old")) / t
    goal, gap = lag - fall, s - lag + fall
    old = expit(lag) * expit(-s) * log_expit_difference(s, goal, gap)
    new = expit(-lag) * expit(s) * log_expit_difference(-s, -goal, -gap)
    return 2.0 * t * t * (old - new)


def oapl_gradient_bounds(
    log_odds: ArrayLike, lag_log_odds: ArrayLike, tau: ArrayLike, r_old: ArrayLike, r_new: ArrayLike
) -> tuple[Array, Array]:
    r"""``(lower, upper)`` on ``L'(s) / (s - s*)``, both positive: one minimiser, monotone flow (sharpens theory 10.2 [T]).

    Proof: ``log(beta/beta*) = int_{s*}^s (1 - sigmoid)`` and ``log((1-beta)/(1-beta*)) = -int_{s*}^s sigmoid``, so ``L'`` is the
    integral of ``2 tau^2 [beta_l (1-beta) (1 - sigmoid(x)) + (1 - beta_l) beta sigmoid(x)]``; both terms are monotone in x.
    At ``s = s*`` the two meet in the curvature ``2 tau^2 [beta_l (1 - beta*)^2 + (1 - beta_l) beta*^2]``.
    """
    s, lag, t = finite(log_odds, "log_odds"), finite(lag_log_odds, "lag_log_odds"), positive(tau, "tau")
    goal = lag - (finite(r_new, "r_new") - finite(r_old, "r_old")) / t
    low, high = np.minimum(s, goal), np.maximum(s, goal)
    old, new = expit(lag) * expit(-s), expit(-lag) * expit(s)
    scale = 2.0 * t * t
    return scale * (old * expit(-high) + new * expit(low)), scale * (old * expit(-low) + new * expit(high))


def oapl_overlap(base_log_odds: ArrayLike, tilt: ArrayLike, delta: ArrayLike) -> tuple[Array, Array]:
    r"""``(old mass, shift of the old component)`` of ``pi_0 e^(c rho_n)``, ``c = k gap / tau >= 0``, exact (theory 10.3).

    What ``k`` solved periods reach over all densities when the reward goes by base responsibility: mass
    ``E[rho_o]`` and the shift of the tilted old component toward the new mean (Mahalanobis), by one-dimensional sums.
    Raises InputError unless ``tilt`` lies in [0, 500] and ``delta`` in (0, 64].
    """
    s, c, d = np.broadcast_arrays(finite(base_log_odds, "base_log_odds"), _tilt(tilt), validate_separation(delta))
    flat = [x.ravel() for x in (s, c, d)]
    out = np.empty((2, s.size))
    order = np.argsort(flat[2] * (36.0 + flat[1]))
    for start in range(0, s.size, _ROWS):
        i = order[start : start + _ROWS]
        s_i, c_i, d_i = (x[i] for x in flat)
        grid = tilt_grid(s_i, d_i, float(c_i.max(initial=0.0)))
        exponent = c_i[:, None] * grid.new_share
        out[0, i] = grid.old_mass(s_i, exponent)
        out[1, i] = grid.old_shift(d_i, exponent, c_i[:, None])
    return out[0].reshape(s.shape), out[1].reshape(s.shape)


def _tilt(value: ArrayLike) -> Array:
    c = np.asarray(value, dtype=np.float64)
    if not ((c >= 0.0) & (c <= MAX_GAIN)).all():
        raise InputError(f"tilt must lie in [0, {MAX_GAIN:g}], got {value!r}")
    return c


def oapl_overlap_bounds(base_log_odds: ArrayLike, tilt: ArrayLike, delta: ArrayLike) -> tuple[Array, Array, Array]:
    r"""``(lower, upper)`` on the old mass and a bound on the shift of :func:`oapl_overlap` (theory 10.3 [T]).

    ``beta_0 / (beta_0 + (1 - beta_0) e^c) <= M <= (beta_0 + (e^c - 1) h) / (beta_0 + (1 - beta_0) e^c - K_c h)``,
    ``h = beta_0 (1 - beta_0) kappa``, ``K_c = c e^c - e^c + 1`` (and M <= beta_0): overlap can only protect the old mass.
    """
    s, c, d = np.broadcast_arrays(finite(base_log_odds, "base_log_odds"), _tilt(tilt), validate_separation(delta))
    beta, rest = expit(s), expit(-s)
    both = beta * rest * harmonic_overlap(s, d)
    # all divided by e^c, which may overflow
    shrink = np.exp(-c)
    below = beta * shrink + rest - (c - 1.0 + shrink) * both
    above = beta * shrink - np.expm1(-c) * both
    with np.errstate(divide="ignore", invalid="ignore"):
        upper = np.where(below > 0.0, above / below, np.inf)
    with np.errstate(over="ignore"):
        shift = responsibility_drift_bound(s, d, c, c * np.exp(c))
    return expit(s - c), np.minimum(upper, beta), shift


def sloped_reward_shift(
    base_log_odds: ArrayLike, tilt: ArrayLike, slope: ArrayLike, delta: ArrayLike
) -> tuple[Array, Array]:
    r"""``(exact, upper)`` shift of the old component when the reward also varies inside the mode (theory 10.3, delicate 11 [T]).

    Tilt ``exp(c rho_n(x) + v y)``, ``y`` the coordinate toward the new mean (Mahalanobis), ``v = k |w| / tau``. The shift is
    ``v + delta E[c rho_o rho_n e^(c rho_n)] / E[e^(c rho_n)]`` under the old component moved by v: never below ``v``,
    however far the modes are, and above it by at most ``e^(delta v / 2)`` times the gated bound of
    :func:`oapl_overlap_bounds`. A slope across the axis adds its own shift and changes nothing else.
    """
    s, c, v, d = np.broadcast_arrays(
        finite(base_log_odds, "base_log_odds"), _tilt(tilt), finite(slope, "slope"), validate_separation(delta)
    )
    _, gain = log_entropic_mean(d * (v - 0.5 * d) - s, d, c)
    with np.errstate(over="ignore"):
        gated = responsibility_drift_bound(s, d, c, c * np.exp(c)) * np.exp(0.5 * d * v)
    return v + d * gain, v + gated
