r"""KL leashes to the base instead of replayed data, under forward KL on new data (theory 6.2).

Components right. The base holds the old mass ``beta_b = sigmoid(base_log_odds)``, the leash has strength ``eta`` per unit of
new-data loss. Everything broadcasts over float64 arrays. Source: setting of arXiv 2603.12163, own derivation;
statements `replay-forward-leash` and those after it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_expit, wrightomega

from fstsim.divergences import expected_log_density
from fstsim.errors import InputError
from fstsim.overlap import overlap_gap, validate_separation
from fstsim.replay_objectives import Direction
from fstsim.theory.clocks import integrate
from fstsim.theory.numerics.collinear import gaussian_nodes
from fstsim.theory.numerics.inputs import finite, positive

Array = NDArray[np.float64]

_MAX_ITERATIONS = 12
_CLOSE = 0.1  # separation
_LOWEST = -690.0  # log-odds whose mass is still a normal number


def _separated_leash(base: Array, eta: Array) -> Array:
    """Root of ``1 + e^s + eta (s - base) = 0``: ``base - 1/eta - W(e^(base - 1/eta) / eta)``."""
    with np.errstate(over="ignore"):
        return base - 1.0 / eta - wrightomega(base - 1.0 / eta - np.log(eta)).real


def _log_odds_ratio(log_odds: Array, delta: Array) -> Array:
    """``E_o[log q] - E_n[log q] = int (1 - kappa) ds`` up to a constant; components right, ``delta`` apart."""
    zero, new = np.zeros((1,)), delta[..., None]
    return expected_log_density(zero, log_odds, zero, new) - expected_log_density(new, log_odds, zero, new)


def _lost_information(base: Array, delta: Array) -> Array:
    """``K = int_0^beta_b D db = E_o[f] - E_n[f]``, ``f = log base / p_n = log(1 + beta_b (rho - 1))``, ``rho = p_o / p_n``."""
    u, weights = gaussian_nodes(float(delta.max(initial=1.0)))
    total = np.zeros(base.shape)
    for side in (1.0, -1.0):
        z = side * 0.5 * delta[..., None] ** 2 + delta[..., None] * u  # log rho under the old, the new component
        with np.errstate(divide="ignore"):
            rise = log_expit(base)[..., None] + np.maximum(z, 0.0) + np.log(-np.expm1(-np.abs(z)))
        fall = np.log1p(np.where(z < 0.0, expit(base)[..., None] * np.expm1(np.minimum(z, 0.0)), 0.0))
        total = total + side * (np.where(z < 0.0, fall, np.logaddexp(0.0, rise)) @ weights)
    # E_n[(rho - 1) f], a positive integrand: where the modes nearly agree the two means above do too
    close = delta < 1.0
    z = np.where(close, delta, 0.0)[..., None] * (u - 0.5 * delta[..., None])
    ratio = np.expm1(z)
    return np.where(close, (ratio * np.log1p(expit(base)[..., None] * ratio)) @ weights, total)


def _leash_root(base: Array, eta: Array, delta: Array) -> Array:
    """Root of ``(1 - kappa)(1 + e^s) = eta int_s^base (1 - kappa)`` below ``base``, bracketed secant in logarithms."""
    at_base = _log_odds_ratio(base, delta)
    close = delta < _CLOSE  # there the two ratios agree to delta^2

    def lost(s: Array) -> Array:
        """``int_s^base (1 - kappa)``."""
        out = np.asarray(at_base - _log_odds_ratio(s, delta))
        if close.any():
            d = delta[close][:, None]
            out[close] = integrate(lambda x: overlap_gap(x, d), s[close], base[close])
        return np.maximum(out, 0.0)

    def excess(s: Array) -> Array:  # increasing in s, from minus to plus infinity
        with np.errstate(divide="ignore"):
            pull = np.log(overlap_gap(s, delta)) + np.logaddexp(0.0, s)
            return pull - np.log(eta) - np.log(lost(s))

    high, low = base, base - 1.0
    f_low = excess(low)
    while (f_low > 0.0).any():
        low = np.where(f_low > 0.0, base - 2.0 * (base - low), low)
        if (low < _LOWEST).any():
            raise InputError("eta is too small for this delta: the retained mass would be below 1e-290")
        f_low = excess(low)
    f_high = np.full(base.shape, np.inf)
    for step in range(200):
        with np.errstate(invalid="ignore"):
            secant = low + (high - low) * f_low / (f_low - f_high)
        # every third step bisects: the secant alone may creep along one side
        inside = np.isfinite(secant) & (secant > low) & (secant < high) & (step % 3 < 2)
        s = np.where(inside, secant, 0.5 * (low + high))
        f = excess(s)
        low, f_low = np.where(f <= 0.0, s, low), np.where(f <= 0.0, f, f_low)
        high, f_high = np.where(f > 0.0, s, high), np.where(f > 0.0, f, f_high)
        done = (high - low <= 4e-15 * (1.0 + np.abs(low))) | (np.abs(f) <= 1e-14)
        if done.all():
            return s
    return 0.5 * (low + high)


def _leash_arguments(base_log_odds: ArrayLike, eta: ArrayLike, delta: ArrayLike) -> tuple[Array, Array, Array]:
    base, strength, d = np.broadcast_arrays(
        finite(base_log_odds, "base_log_odds"), positive(eta, "eta"), positive(validate_separation(delta), "delta")
    )
    return base, strength, d


def kl_leash_log_odds(
    base_log_odds: ArrayLike, eta: ArrayLike, delta: ArrayLike | None = None, direction: Direction = "forward"
) -> Array:
    r"""Logit of :func:`kl_leash_equilibrium`: finite where the mass itself underflows."""
    if direction == "forward":
        base, strength = np.broadcast_arrays(finite(base_log_odds, "base_log_odds"), positive(eta, "eta"))
        if delta is not None:
            base, strength, _ = np.broadcast_arrays(base, strength, validate_separation(delta))
        with np.errstate(over="ignore"):  # eta beta / (1 + eta (1 - beta))
            return np.log(strength) + log_expit(base) - np.log1p(strength * expit(-base))
    if direction != "reverse":
        raise InputError(f"direction must be 'forward' or 'reverse', got {direction!r}")
    if delta is None:
        return _separated_leash(*np.broadcast_arrays(finite(base_log_odds, "base_log_odds"), positive(eta, "eta")))
    return _leash_root(*_leash_arguments(base_log_odds, eta, delta))


def kl_leash_equilibrium(
    base_log_odds: ArrayLike, eta: ArrayLike, delta: ArrayLike | None = None, direction: Direction = "forward"
) -> Array:
    r"""Old mass at rest of ``KL(p_new || q) + eta * leash``, components right, base weight ``sigmoid(base_log_odds)``.

    - ``forward``, leash ``KL(base || q)``: ``eta beta_b / (1 + eta)`` for every overlap; it *is* replay at that share.
    - ``reverse``, leash ``KL(q || base)``: the one root of ``(1 - kappa)/(1 - beta) + eta int_{s_b}^s (1 - kappa) = 0``.
      Without overlap (``delta = None``) ``s_b - 1/eta - W(e^(s_b - 1/eta) / eta)``, a mass of order ``e^(-1/eta)``.

    Raises InputError unless ``eta > 0``, ``delta`` in (0, 64], ``direction`` one of the two. Theory 6.2 [T], statements
    `replay-forward-leash`, `replay-forward-reverse-leash`.

    >>> [round(float(kl_leash_equilibrium(0.0, 0.2, None, way)), 5) for way in ("forward", "reverse")]
    [0.08333, 0.00648]
    """
    return expit(kl_leash_log_odds(base_log_odds, eta, delta, direction))


def kl_leash_bounds(base_log_odds: ArrayLike, eta: ArrayLike, delta: ArrayLike) -> tuple[Array, Array]:
    r"""``(lower, upper)`` on the log-odds at rest under the reverse leash ``KL(q || base)``, components right.

    With ``L(x)`` the separated root at strength x, ``chi^2 = e^(delta^2) - 1`` and ``K = int_0^beta_b D db`` (closed form):

    - *linear floor*: ``beta* >= eta K / ((1 + eta) chi^2)``, since ``beta* chi^2 >= beta* D = eta (K - int_0^beta* D) >=
      eta (K - beta* chi^2)``. So ``e^(-1/eta)`` is the intermediate law, for ``1/eta`` below about ``delta^2/2``: with overlap
      the retained mass ends linear in eta;
    - *two-sided*: ``low <= s* <= L(eta / (1 - k))`` with ``k = kappa(max(|low|, |s_b|))``, the largest on the way, for
      any ``low <= L(eta (1 - k))``: at ``low`` the slope of the loss is at most ``1 + e^low - eta (1 - k)(s_b - low) <= 0``;
      and ``L(eta) <= s*`` if ``L(eta) < 0`` and ``|L(eta)| >= |s_b|``, because ``1 - kappa`` is then smallest at ``L(eta)``.

    Theory 6.2 [T] and beyond, `replay-forward-reverse-leash`.
    """
    base, strength, d = _leash_arguments(base_log_odds, eta, delta)
    log_chi2 = d * d + np.log(-np.expm1(-d * d))
    floor = np.log(strength) - np.log1p(strength) + np.log(_lost_information(base, d)) - log_chi2
    floor = floor - np.log1p(-np.exp(floor))
    separated = _separated_leash(base, strength)
    valid = (separated < 0.0) & (np.abs(separated) >= np.abs(base))
    lower = np.where(valid, np.maximum(floor, separated), floor)

    def slowest(s: Array) -> Array:  # 0 says nothing: there the exact value would overflow on its way
        reach = np.maximum(np.abs(s), np.abs(base))
        return np.where(reach < -_LOWEST, overlap_gap(np.minimum(reach, -_LOWEST), d), 0.0)

    with np.errstate(divide="ignore", invalid="ignore"):
        low = separated
        for _ in range(_MAX_ITERATIONS):  # falls to the largest fixed point; only what passes the test below is used
            low = np.fmax(_separated_leash(base, strength * slowest(low)), -1e6)
        low = low - 1e-9 * (1.0 + np.abs(low))
        lower = np.where(low <= _separated_leash(base, strength * slowest(low)), np.maximum(lower, low), lower)
        upper = _separated_leash(base, strength / slowest(lower))
    return lower, np.where(np.isnan(upper), base, np.minimum(base, upper))


def kl_leash_small_strength(base_log_odds: ArrayLike, eta: ArrayLike, delta: ArrayLike) -> Array:
    r"""[A] Old mass at rest under a weak reverse leash, ``eta K / chi^2`` as ``eta -> 0`` at fixed separation.

    ``K = int_0^beta_b D db``, ``chi^2 = e^(delta^2) - 1``: linear in eta, unlike the ``e^(-1/eta)`` of the separated law,
    because the base divergence of a learner without the old mode is finite. Statement `replay-forward-weak-leash`.
    """
    base, strength, d = _leash_arguments(base_log_odds, eta, delta)
    return strength * _lost_information(base, d) * np.exp(-d * d) / -np.expm1(-d * d)
