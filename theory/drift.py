r"""Certificates of the reverse-KL flow: drift bounded for all time, and exponential convergence (theory 4.1 and 5.3).

Start: old component right, old mass ``beta0``, new mean off by the vector ``v0`` (whitened; the first axis points from
the old to the new mean). A certificate is a self-consistent set of numbers: if it exists, its bounds hold at every time;
if none is found the theorem says nothing. Source: own derivation; statements `drift-along-flow`, `local-convergence`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from fstsim.errors import InputError
from fstsim.logistic_normal import expected_softplus, logistic_normal_mean
from fstsim.overlap import overlap_gap, validate_separation

Array = NDArray[np.float64]

_ROOT = np.sqrt(np.pi / 2.0)
_ANGLE = (
    np.sqrt(3.0) / 2.0
)  # two vectors of length <= delta whose gap is below this share of delta are within 60 degrees
_MAX_ITERATIONS = 400


@dataclass(frozen=True)
class DriftCertificates:
    """Vectorised certificates, ``(n,)`` each, nan where there is none.

    For all t: ``|m_o - mu_o| <= rho (1 - exp(-int beta))``, ``|m_n - mu_n| <= V``, ``s in [s_low, s_high]``;
    ``d_minus`` is a lower bound on the learner's separation.
    """

    rho: Array
    V: Array
    s_low: Array
    s_high: Array
    d_minus: Array


def drift_certificates(delta: ArrayLike, alpha: ArrayLike, beta0: ArrayLike, v0: ArrayLike) -> DriftCertificates:
    """Smallest certificates of theory 4.1 by monotone iteration; ``v0 (..., D)``, the others ``(...)``."""
    error = np.atleast_1d(np.asarray(v0, dtype=np.float64))
    arrays = np.broadcast_arrays(
        validate_separation(delta),
        logit(np.asarray(alpha, dtype=np.float64)),
        logit(np.asarray(beta0, dtype=np.float64)),
        error[..., 0],
        np.linalg.norm(error, axis=-1),
    )
    shape = arrays[0].shape
    start = _Start(*(x.ravel() for x in arrays))
    guess = _Guess(
        np.zeros(start.d.size),
        np.zeros(start.d.size),
        np.minimum(start.s_0, start.s_a),
        np.maximum(start.s_0, start.s_a),
    )
    active = np.arange(start.d.size)
    # monotone from 0: it climbs to the smallest solution or leaves the domain. The theorem needs numbers that satisfy the
    # inequalities: the solution of a system that is a little too large does, while one that is only widened afterwards need
    # not, since each number moves the others
    for _ in range(_MAX_ITERATIONS):
        now = guess.at(active)
        new = _enlarged(_iterate(start.at(active), now))
        for whole, part in zip(guess, new, strict=True):
            whole[active] = part
        settled = np.isnan(new.rho) | (
            (new.rho <= now.rho * (1.0 + 1e-12))
            & (new.g <= now.g * (1.0 + 1e-12))
            & (new.low >= now.low - 1e-12)
            & (new.high <= now.high + 1e-12)
        )
        active = active[~settled]
        if active.size == 0:
            break
    back = _iterate(start, guess)
    with np.errstate(invalid="ignore"):
        holds = (back.rho <= guess.rho) & (back.g <= guess.g) & (back.low >= guess.low) & (back.high <= guess.high)
    values = (guess.rho, np.maximum(start.size, guess.g), guess.low, guess.high, start.closest() - guess.g - guess.rho)
    return DriftCertificates(*(np.where(holds, x, np.nan).reshape(shape) for x in values))


class _Start(NamedTuple):
    """What a certificate is about: separation, target and initial log-odds, error along the axis and in size."""

    d: Array
    s_a: Array
    s_0: Array
    along: Array
    size: Array

    def at(self, index: NDArray[np.intp]) -> _Start:
        return _Start(*(x[index] for x in self))

    def closest(self) -> Array:
        """Closest approach ``min_c |delta u + c v0|``, c in [0, 1]."""
        with np.errstate(invalid="ignore", divide="ignore"):
            c = np.where(self.size > 0.0, np.clip(-self.d * self.along / self.size**2, 0.0, 1.0), 0.0)
        return np.sqrt(np.maximum(self.d**2 + 2.0 * c * self.d * self.along + (c * self.size) ** 2, 0.0))


class _Guess(NamedTuple):
    """Candidate certificate: drift, disturbance of the new mean, range of the log-odds."""

    rho: Array
    g: Array
    low: Array
    high: Array

    def at(self, index: NDArray[np.intp]) -> _Guess:
        return _Guess(*(x[index] for x in self))


def _enlarged(guess: _Guess) -> _Guess:
    return _Guess(guess.rho * (1.0 + 1e-6), guess.g * (1.0 + 1e-6), guess.low - 1e-6, guess.high + 1e-6)


def _iterate(start: _Start, guess: _Guess) -> _Guess:
    """Right-hand sides of the inequalities of theory 4.1; nan where ``guess`` leaves their domain."""
    d, s_a = start.d, start.s_a
    toward = np.maximum(0.0, -start.along)
    reach = np.maximum(start.size, guess.g)
    closest = start.closest() - guess.g - guess.rho
    with np.errstate(invalid="ignore"):
        fine = (closest > 0.0) & (reach + guess.rho <= _ANGLE * d) & np.isfinite(guess.low) & np.isfinite(guess.high)
    m = np.where(fine, closest, 1.0)
    rho, g, low, high = (np.where(fine, x, 0.0) for x in guess)
    span = np.where(fine, reach, 0.0)
    new_rho = _ROOT * np.maximum(np.exp(-0.5 * low - 0.125 * m * m), np.exp(-0.5 * s_a - 0.125 * d * d + 0.5 * d * rho))
    own = np.minimum(
        _ROOT * np.exp(0.5 * high - 0.125 * m * m), (d + span + rho) * logistic_normal_mean(high - 0.5 * m * m, m)
    )
    new_g = np.maximum(own, d * logistic_normal_mean(s_a - 0.5 * d * d + d * (toward + g), d))
    sp_q_old = expected_softplus(-low - 0.5 * m * m, m)
    sp_q_new = expected_softplus(high - 0.5 * m * m, m)
    sp_p_old = expected_softplus(-s_a - 0.5 * d * d + d * rho, d)
    sp_p_new = expected_softplus(s_a - 0.5 * d * d + d * (toward + g), d)
    omega = np.maximum(sp_q_old + sp_p_new, sp_p_old + sp_q_new)
    new_low = np.minimum(start.s_0, s_a - 0.5 * rho * rho - omega)
    new_high = np.maximum(start.s_0, s_a + 0.5 * span * span + omega)
    return _Guess(*(np.where(fine, x, np.nan) for x in (new_rho, new_g, new_low, new_high)))


def _scalar_certificate(delta: float, alpha: float, beta0: float, v0: ArrayLike) -> DriftCertificates | None:
    for name, value in (("alpha", alpha), ("beta0", beta0)):
        if not 0.0 < value < 1.0:
            raise InputError(f"{name} must lie strictly between 0 and 1, got {value!r}")
    certificate = drift_certificates(delta, alpha, beta0, v0)
    return certificate if np.isfinite(certificate.rho) else None


def reverse_drift_certificate(
    delta: float, alpha: float, beta0: float, v0: ArrayLike
) -> dict[str, float | tuple[float, float]] | None:
    r"""Bound on the old mean's drift for *all* time along the reverse-KL flow (theory 4.1 [T]).

    Returns ``{"rho": ..., "V": ..., "log_odds_range": (s_low, s_high)}`` with ``sup_t |m_o - mu_o| <= rho`` (Mahalanobis),
    ``sup_t |m_n - mu_n| <= V`` and ``s(t)`` in the range; None where no certificate exists. To leading order ``rho`` is
    ``sqrt(pi/2) max(sqrt((1-b)/b) e^(-d^2/8), sqrt((1-alpha)/alpha) e^(-delta^2/8))``: exponentially small in the separation,
    uniform in time. ``v0`` is the initial error of the new mean, (D,) or a scalar along the axis (positive = away
    from the old mean). Statement `drift-along-flow`.
    """
    found = _scalar_certificate(delta, alpha, beta0, v0)
    if found is None:
        return None
    return {"rho": float(found.rho), "V": float(found.V), "log_odds_range": (float(found.s_low), float(found.s_high))}


def convergence_rates(
    delta: ArrayLike, alpha: ArrayLike, beta0: ArrayLike, v0: ArrayLike, scale: ArrayLike = 4.0
) -> tuple[Array, Array]:
    r"""``(rate, W0)`` of theory 5.3, vectorised: ``W(t) <= W0 e^(-rate t)`` with ``W = max(|e|, |v|, |s - s_alpha| / scale)``.

    nan where the certificate fails (no drift certificate, learner separation below 2, or a rate that is not positive).
    """
    error = np.atleast_1d(np.asarray(v0, dtype=np.float64))
    found = drift_certificates(delta, alpha, beta0, error)
    d, s_a, s_0, gamma, size = np.broadcast_arrays(
        validate_separation(delta),
        logit(np.asarray(alpha, dtype=np.float64)),
        logit(np.asarray(beta0, dtype=np.float64)),
        np.asarray(scale, dtype=np.float64),
        np.linalg.norm(error, axis=-1),
    )
    d_m = np.minimum(found.d_minus, d - found.rho)
    fine = np.isfinite(found.rho) & (d_m >= 2.0)
    d_m, rho, reach = (np.where(fine, x, y) for x, y in ((d_m, 2.0), (found.rho, 0.0), (found.V, 0.0)))
    low = np.where(fine, np.minimum(found.s_low, s_a), 0.0)
    high = np.where(fine, np.maximum(found.s_high, s_a), 0.0)
    half = np.sqrt(np.pi / 8.0)
    l_old = half * np.exp(-0.5 * low - 0.125 * d_m * d_m)
    l_new = half * np.exp(0.5 * high - 0.125 * d_m * d_m)
    l_p = half * np.exp(-0.5 * s_a - 0.125 * d * d + 0.5 * d * rho)
    l_p_new = half * np.exp(0.5 * s_a - 0.125 * d * d + 0.5 * d * reach)
    k = gamma + 4.0 * d_m + 4.0 / d_m
    a_s = 4.0 * (l_old + l_new) + 2.0 * (l_p + l_p_new)
    widest = np.maximum(np.abs(low), np.abs(high))
    w_0 = np.maximum(size, np.abs(s_0 - s_a) / gamma)
    rate = np.minimum(
        np.minimum(expit(low) * (1.0 - l_old * k - l_p * d), expit(-high) * (1.0 - l_new * k - l_p_new * d)),
        expit(widest) * expit(-widest) * (overlap_gap(widest, d_m) - w_0 / (2.0 * gamma) - a_s / gamma),
    )
    return np.where(fine & (rate > 0.0), rate, np.nan), w_0


def convergence_certificate(
    delta: float, alpha: float, beta0: float, v0: ArrayLike, scale: float | None = None
) -> dict[str, float] | None:
    r"""Certified exponential convergence of the reverse-KL flow from a basin that is not infinitesimal (theory 5.3 [T]).

    Returns ``{"rate", "initial_distance", "scale"}`` with ``W(t) <= initial_distance e^(-rate t)``,
    ``W = max(|e|, |v|, |s - s_alpha| / scale)``, or None. ``scale`` (gamma) is free: by default the best of a grid. The
    exact asymptotic rate is the smallest eigenvalue of `fisher_information`. Statement `local-convergence`.
    """
    if _scalar_certificate(delta, alpha, beta0, v0) is None:
        return None
    grid = np.geomspace(0.5, 64.0, 29) if scale is None else np.array([float(scale)])
    if not (np.isfinite(grid) & (grid > 0.0)).all():
        raise InputError(f"scale must be positive, got {scale!r}")
    error = np.atleast_1d(np.asarray(v0, dtype=np.float64))
    rates, distances = convergence_rates(delta, alpha, beta0, np.broadcast_to(error, (grid.size, error.size)), grid)
    if np.isnan(rates).all():
        return None
    best = int(np.nanargmax(rates))
    return {"rate": float(rates[best]), "initial_distance": float(distances[best]), "scale": float(grid[best])}
