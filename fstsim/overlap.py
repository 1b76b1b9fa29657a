r"""Overlap of two components: Bhattacharyya and Chernoff coefficients, misassignment, harmonic overlap.

Conventions: ``delta`` is the Mahalanobis distance of two equal-covariance Gaussian components, ``log_odds``
is ``s = logit(beta)`` with ``beta`` the weight of the old one. Everything broadcasts and returns float64.

    BC = exp(-delta^2 / 8)                          Bhattacharyya coefficient
    eps(s, delta) = E_old[r_new]                    misassignment probability
    kappa(s, delta) = int f_old f_new / q           harmonic overlap, q = beta f_old + (1 - beta) f_new
    D(s, delta) = int (f_old - f_new)^2 / q         Fisher information of the weight

with ``kappa = eps / (1 - beta)`` and ``D = (1 - kappa) / (beta (1 - beta))``.
Source: arXiv 2603.12163, statement `weight-identities`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_expit

from fstsim.errors import InputError
from fstsim.logistic_normal import MAX_SCALE, log_logistic_normal_mean, logistic_normal_mean
from fstsim.mixtures import cholesky

Array = NDArray[np.float64]
_FAR = 300.0  # log-odds beyond which beta (1 - beta) is e^-|log-odds| to all digits


def validate_separation(delta: ArrayLike) -> Array:
    """``delta`` as float64; raises InputError unless every entry lies in [0, 64]."""
    d = np.asarray(delta, dtype=np.float64)
    if not ((d >= 0.0) & (d <= MAX_SCALE)).all():
        raise InputError(f"delta must lie in [0, {MAX_SCALE:g}] (Mahalanobis units), got {delta!r}")
    return d


def bhattacharyya_coefficient(delta: ArrayLike) -> Array:
    r"""Bhattacharyya coefficient of two equal-covariance Gaussians, ``BC = int sqrt(f_o f_n) = exp(-delta^2 / 8)``.

    >>> float(bhattacharyya_coefficient(0.0))
    1.0
    """
    d = validate_separation(delta)
    return np.exp(-0.125 * d * d)


def chernoff_coefficient(
    mean_i: ArrayLike, cov_i: ArrayLike, mean_j: ArrayLike, cov_j: ArrayLike, t: ArrayLike = 0.5
) -> Array:
    r"""Chernoff coefficient ``C_t = int f_i^(1-t) f_j^t`` of two Gaussians.

    ``C_t = |S_i|^(t/2) |S_j|^((1-t)/2) |S_t|^(-1/2) exp(-t (1-t) / 2 * D' S_t^-1 D)`` with ``S_t = t S_i + (1-t) S_j``
    and ``D = mean_i - mean_j``. Means ``(d,)``, covariances ``(d, d)``, ``t`` any shape with values in [0, 1];
    returns the shape of ``t``. At ``t = 1/2`` it is the Bhattacharyya coefficient. Raises InputError on t outside
    [0, 1] or a covariance that is not positive definite. Source: arXiv 2603.12163, `beyond-equal-covariance`.
    """
    return np.exp(log_chernoff_coefficient(mean_i, cov_i, mean_j, cov_j, t))


def log_chernoff_coefficient(
    mean_i: ArrayLike, cov_i: ArrayLike, mean_j: ArrayLike, cov_j: ArrayLike, t: ArrayLike = 0.5
) -> Array:
    """Natural log of :func:`chernoff_coefficient`, finite however far the two are apart."""
    s_i, s_j = np.atleast_2d(np.asarray(cov_i, float)), np.atleast_2d(np.asarray(cov_j, float))
    m_i, m_j = np.atleast_1d(np.asarray(mean_i, float)), np.atleast_1d(np.asarray(mean_j, float))
    if m_i.ndim != 1 or m_i.shape != m_j.shape:
        raise InputError(f"means must have one shape (d,), got {m_i.shape} and {m_j.shape}")
    gap = m_i - m_j
    share = np.asarray(t, dtype=np.float64)
    if not ((share >= 0.0) & (share <= 1.0)).all():
        raise InputError(f"t must lie in [0, 1], got {t!r}")
    if not s_i.shape == s_j.shape == (gap.size, gap.size):
        raise InputError(
            f"covariances must be ({gap.size}, {gap.size}) like the means, got {s_i.shape} and {s_j.shape}"
        )
    mixed = share[..., None, None] * s_i + (1.0 - share[..., None, None]) * s_j
    roots = [cholesky(s_i, "cov_i"), cholesky(s_j, "cov_j"), np.linalg.cholesky(mixed)]
    half_log_det = [np.log(np.diagonal(r, axis1=-2, axis2=-1)).sum(axis=-1) for r in roots]
    y = np.linalg.solve(roots[2], np.broadcast_to(gap[:, None], (*share.shape, gap.size, 1)))[..., 0]
    log_c = share * half_log_det[0] + (1.0 - share) * half_log_det[1] - half_log_det[2]
    return np.asarray(log_c - 0.5 * share * (1.0 - share) * (y * y).sum(axis=-1))


def misassignment_probability(log_odds: ArrayLike, delta: ArrayLike) -> Array:
    r"""Probability that the mixture assigns a sample of the *old* component to the new one.

    ``eps(s, delta) = E_old[r_new] = LN(-s - delta^2/2, delta)``; that of the new component is
    ``eps(-s, delta)``. Relative error 1e-12. Source: arXiv 2603.12163, statement `misassignment`.
    """
    s, d = np.broadcast_arrays(np.asarray(log_odds, dtype=np.float64), validate_separation(delta))
    return logistic_normal_mean(-s - 0.5 * d * d, d)


def log_misassignment_probability(log_odds: ArrayLike, delta: ArrayLike) -> Array:
    """Natural log of :func:`misassignment_probability`, finite at any separation."""
    s, d = np.broadcast_arrays(np.asarray(log_odds, dtype=np.float64), validate_separation(delta))
    return log_logistic_normal_mean(-s - 0.5 * d * d, d)


def harmonic_overlap(log_odds: ArrayLike, delta: ArrayLike) -> Array:
    r"""Harmonic overlap ``kappa = int f_o f_n / q``, in (0, 1]; even and nondecreasing in ``|log_odds|``.

    ``kappa = E_old[r_new] / (1 - beta)``, evaluated in the log domain on the side where it keeps its relative
    accuracy. Statement `weight-identities`.
    """
    s, d = np.broadcast_arrays(np.asarray(log_odds, dtype=np.float64), validate_separation(delta))
    s = -np.abs(s)  # even in s
    return np.minimum(np.exp(log_logistic_normal_mean(-s - 0.5 * d * d, d) - log_expit(-s)), 1.0)


def weight_fisher_information(log_odds: ArrayLike, delta: ArrayLike) -> Array:
    r"""Fisher information of the mixture weight, ``D = int (f_o - f_n)^2 / q`` (per unit weight squared).

    Integrated in its positive form, so that it keeps its relative accuracy where ``kappa -> 1``:
    with ``rho = f_o / f_n`` and ``s <= 0``, ``D = E_new[(rho - 1)^2 / (1 + e^s rho)] / (1 - beta)``.
    ``4 TV^2 <= D <= min(1 / (beta (1 - beta)), exp(delta^2) - 1)``; inf where it exceeds 1e308. Statement `weight-identities`.
    """
    s, d = np.broadcast_arrays(np.asarray(log_odds, dtype=np.float64), validate_separation(delta))
    out = _scaled_fisher_information(s.ravel(), d.ravel(), np.zeros(s.size))
    return (out / expit(np.abs(s.ravel()))).reshape(s.shape)


def _scaled_fisher_information(s: Array, d_flat: Array, log_scale: Array) -> Array:
    """``e^log_scale D (1 - beta)``, flat: D itself may overflow where its product with a small mass does not."""
    s_flat = -np.abs(s)
    out = np.empty(s_flat.size)
    # a node table for each octave of separation bounds the work of a point by twice its own need
    octave = np.ceil(np.log2(np.maximum(d_flat, 1.0))).astype(int)
    for k in np.unique(octave):
        top = 2.0**k
        step = 0.5 / top
        nodes = step * np.arange(np.floor(-9.5 / step), np.ceil((9.5 + 2.0 * top) / step) + 1)
        index = np.flatnonzero(octave == k)
        block = max(1, (1 << 16) // nodes.size)
        for start in range(0, index.size, block):
            i = index[start : start + block]
            z = d_flat[i, None] * nodes - 0.5 * d_flat[i, None] ** 2  # log rho under the new component
            w = z + s_flat[i, None]
            # (rho - 1)^2 / (1 + e^s rho) with the exponentials that could overflow taken out
            peak = -0.5 * nodes * nodes + 2.0 * np.maximum(z, 0.0) - np.maximum(w, 0.0) + log_scale[i, None]
            with np.errstate(over="ignore"):  # D itself passes 1e308 at |s| > 700 and delta > 27: inf
                terms = np.exp(peak) * np.expm1(-np.abs(z)) ** 2 / (1.0 + np.exp(-np.abs(w)))
            out[i] = terms.sum(axis=1) * step / np.sqrt(2.0 * np.pi)
    return out


def overlap_gap(log_odds: ArrayLike, delta: ArrayLike) -> Array:
    r"""``1 - kappa`` without cancellation: the factor by which overlap slows the weight, in [0, 1)."""
    s, d = np.broadcast_arrays(np.asarray(log_odds, dtype=np.float64), validate_separation(delta))
    out = np.asarray(1.0 - harmonic_overlap(s, d))
    close = out < 0.5
    if close.any():
        sc, dc = s[close], d[close]
        # beta (1 - beta) D: far out the mass goes into the exponent, because D overflows there
        far = np.abs(sc) > _FAR
        scale = np.where(far, -np.abs(sc), 0.0)
        product = _scaled_fisher_information(sc, dc, scale) / expit(np.abs(sc))
        out[close] = np.where(far, 1.0, expit(sc) * expit(-sc)) * product
    return out
