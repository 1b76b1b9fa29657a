r"""Exact KL divergences and gradients of two-mode mixtures with one covariance, in any dimension.

Everything here is in *whitened* coordinates (identity covariance). A mixture is the triple ``(s, m_o, m_n)``:
log-odds ``s (...)`` of the old weight and means ``(..., D)``; all arguments broadcast over leading batch axes.
For a Gaussian ``N(c, I)`` the log-odds of the two components at a sample is Gaussian again, with

    loc  a = s + (m_o - m_n) . (c - (m_o + m_n) / 2),    scale  D = |m_o - m_n|,

so that every expectation is a logistic-normal integral (theory: `logistic-normal`, `reverse-kl-target`).
Directions: ``forward_kl = KL(target || policy)``, ``reverse_kl = KL(policy || target)``, in nats.
Source: arXiv 2603.12163.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_expit

from fstsim.errors import InputError
from fstsim.logistic_normal import (
    expected_softplus,
    log_logistic_normal_slope,
    logistic_normal_mean,
    logistic_normal_slope,
    misassigned,
    responsibility_moments,
)
from fstsim.overlap import overlap_gap
from fstsim.whitened import Whitened

Array = NDArray[np.float64]

_CLOSE = 1e-3  # a difference this much smaller than its terms has lost too many digits
_CANCELS = 0.1  # a difference this much smaller than its terms costs a digit
_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(6)


def _means(*means: ArrayLike) -> list[Array]:
    arrays = [np.atleast_1d(np.asarray(m, dtype=np.float64)) for m in means]
    if len({m.shape[-1] for m in arrays}) != 1:
        raise InputError(f"means must share their last axis, got shapes {[m.shape for m in arrays]}")
    return arrays


def _log_odds_at(center: Array, s: Array, m_o: Array, m_n: Array) -> tuple[Array, Array]:
    """Location and scale of the log-odds (old against new) of a sample of ``N(center, I)``."""
    gap = m_o - m_n
    return s + (gap * (center - 0.5 * (m_o + m_n))).sum(axis=-1), np.sqrt((gap * gap).sum(axis=-1))


def _nearest_log_weight(center: Array, is_old: Array, s: Array, m_o: Array, m_n: Array) -> Array:
    """``log w_k - |c - m_k|^2 / 2`` of the component k that the center belongs to."""
    own = np.where(is_old[..., None], m_o, m_n)
    return log_expit(np.where(is_old, s, -s)) - 0.5 * ((center - own) ** 2).sum(axis=-1)


def expected_log_density(center: ArrayLike, log_odds: ArrayLike, mean_old: ArrayLike, mean_new: ArrayLike) -> Array:
    r"""``E_{N(c, I)}[log q]`` for a two-mode ``q``, up to the constant ``-(D/2)(log 2 pi + 1)``, nats.

    ``log w_k - |c - m_k|^2 / 2 + SP(-|a|, D)`` with ``k`` the component that ``c`` belongs to: the softplus is the
    small one of the two equal expressions, so nothing cancels. Shapes: means ``(..., D)``, result ``(...)``.
    ``log_odds = -inf`` or ``inf`` stand for a mixture that has lost a mode.
    """
    c, m_o, m_n = _means(center, mean_old, mean_new)
    s = np.asarray(log_odds, dtype=np.float64)
    if np.isnan(s).any():
        raise InputError("log_odds must not be nan")
    finite = np.where(np.isfinite(s), s, 0.0)
    a, d = _log_odds_at(c, finite, m_o, m_n)
    is_old = np.where(np.isfinite(s), a >= 0.0, s > 0.0)
    base = _nearest_log_weight(c, is_old, s, m_o, m_n)
    return base + np.where(np.isfinite(s), expected_softplus(-np.abs(a), d), 0.0)


def two_mode_kl(p: Whitened, q: Whitened) -> Array:
    r"""``KL(p || q)`` of two two-mode mixtures with unit covariance, in nats; exact in any dimension.

    ``sum_k w_k (E_{N(c_k)}[log p] - E_{N(c_k)}[log q])`` over the components ``(w_k, c_k)`` of ``p``.
    The log-odds of ``p`` may be infinite (one mode), those of ``q`` may not. Statement `reverse-kl-target`.
    """
    s_p = np.asarray(p.log_odds, dtype=np.float64)
    total = np.zeros(())
    for weight, center in ((expit(s_p), p.old), (expit(-s_p), p.new)):
        gain = expected_log_density(center, s_p, p.old, p.new) - expected_log_density(center, *q)
        total = total + np.where(weight > 0.0, weight * gain, 0.0)
    return total


def _mean_difference(a: Array, shift: Array, d: Array) -> Array:
    """``LN(a + shift, d) - LN(a, d)``, relative error 1e-12 however small the shift is."""
    half = 0.5 * shift
    inside = (a + half)[..., None] + half[..., None] * _NODES
    near = half * (_NODE_WEIGHTS * logistic_normal_slope(inside, d[..., None])).sum(axis=-1)
    sign = np.where(a > 0.0, -1.0, 1.0)  # above 0 the difference of the complements is the accurate one
    far = sign * (logistic_normal_mean(sign * (a + shift), d) - logistic_normal_mean(sign * a, d))
    return np.where(np.abs(half) < 0.25, near, far)


def _weight_gradient(s: Array, d: Array, w: Array, old: Array, new: Array, shifts: tuple[Array, Array]) -> Array:
    r"""``beta - sum_k w_k E_k[r_o]`` without cancellation, from the weighted means ``w_k E_k[r]`` (..., C).

    Where the terms cancel (a rare mode and data near one component: the result is ``O(beta^2)``), it is put together
    from ``beta - E_{m_n}[r_o] = beta (1 - kappa)``, ``beta - E_{m_o}[r_o] = -(1 - beta) (1 - kappa)`` and what is left
    between the data's center and that component: ``shifts`` of the log-odds from the old and the new one (..., C).
    """
    spare = np.broadcast_to(1.0 - w.sum(axis=-1), s.shape)
    spare = np.where(np.abs(spare) < 1e-14, 0.0, spare)  # rounding of weights that sum to one
    out = np.asarray(np.where(s < 0.0, expit(s) - old.sum(axis=-1), new.sum(axis=-1) - expit(-s) + spare))
    close = np.abs(out) < _CLOSE * np.minimum(expit(s), expit(-s))
    if not close.any():
        return out
    s, d, w, to_old, to_new = (np.broadcast_to(x, old.shape)[close] for x in (s[..., None], d, w, *shifts))
    at_new = np.abs(to_new) < np.abs(to_old)
    near = s + np.where(at_new, -0.5, 0.5) * d * d
    own = np.where(at_new, expit(s), -expit(-s)) * overlap_gap(s, d)
    exact = own - _mean_difference(near, np.where(at_new, to_new, to_old), d)
    out[close] = (w * exact).sum(axis=-1) + expit(s[:, 0]) * spare[close]
    return out


def _square(mean: Array, both: Array, w: Array, p: Array, d: Array) -> Array:
    r"""``w E[r^2]`` of ``r = sigmoid(z)``, ``z ~ N(p - d^2 / 2, d^2)``, from ``w E[r]`` and ``w E[r (1 - r)]``.

    It is their difference; where that cancels, ``r^2 = e^z r (1 - r)`` tilts the Gaussian: ``e^p LP(p + d^2 / 2, d)``.
    """
    out = np.asarray(mean - both)
    close = out < _CANCELS * mean
    if close.any():
        p, d, w = (np.broadcast_to(x, out.shape)[close] for x in (p, d, w))
        out[close] = w * np.exp(p + log_logistic_normal_slope(p + 0.5 * d * d, d))
    return out


def forward_kl_gradient(
    log_odds: ArrayLike, mean_old: ArrayLike, mean_new: ArrayLike, weights: ArrayLike, centers: ArrayLike
) -> Whitened:
    r"""Gradient of the cross-entropy ``L = -sum_k w_k E_{N(c_k, I)}[log q]`` in ``(s, m_o, m_n)``.

        dL/ds   = beta - sum_k w_k E_k[r_o]
        dL/dm_o = -sum_k w_k (E_k[r_o^2] (c_k - m_o) + E_k[r_o r_n] (c_k - m_n))
        dL/dm_n = -sum_k w_k (E_k[r_n^2] (c_k - m_n) + E_k[r_o r_n] (c_k - m_o))

    (it is the gradient of ``KL(train || q)``; the flow is its negative). With ``E[r_o] = E[r_o^2] + E[r_o r_n]`` this is
    ``E[r_o] (c - m_o) + E[r_o r_n] (m_o - m_n)``, whose two terms cancel where data of one mode meet a rare other one. ``weights (..., C)`` and
    ``centers (..., C, D)`` are the training mixture. Returns arrays ``(...)``, ``(..., D)``, ``(..., D)``.
    Source: arXiv 2603.12163, statement `mass-forgetting` (theory 1.1).
    """
    m_o, m_n = _means(mean_old, mean_new)
    s = np.asarray(log_odds, dtype=np.float64)
    w = np.atleast_1d(np.asarray(weights, dtype=np.float64))
    c = np.asarray(centers, dtype=np.float64)
    if c.ndim < 2:
        c = c.reshape(-1, 1)
    if c.shape[-1] != m_o.shape[-1] or c.shape[-2] != w.shape[-1]:
        raise InputError(f"centers must be (..., C, D) with C = {w.shape[-1]}, D = {m_o.shape[-1]}; got {c.shape}")
    a, d = _log_odds_at(c, s[..., None], m_o[..., None, :], m_n[..., None, :])
    old, new, both = (w * moment for moment in responsibility_moments(a, d))  # (..., C)
    gap = m_o - m_n
    shifts = tuple(((c - m[..., None, :]) * gap[..., None, :]).sum(axis=-1) for m in (m_o, m_n))
    g_s = _weight_gradient(np.broadcast_to(s, old.shape[:-1]), d, w, old, new, (shifts[0], shifts[1]))
    old_square = _square(old, both, w, s[..., None] + shifts[1], d)
    new_square = _square(new, both, w, -s[..., None] - shifts[0], d)
    from_old, from_new = c - m_o[..., None, :], c - m_n[..., None, :]
    pull_old = (old_square[..., None] * from_old + both[..., None] * from_new).sum(axis=-2)
    pull_new = (new_square[..., None] * from_new + both[..., None] * from_old).sum(axis=-2)
    return Whitened(g_s, -pull_old, -pull_new)


def reverse_kl(
    log_odds: ArrayLike,
    mean_old: ArrayLike,
    mean_new: ArrayLike,
    target_log_odds: ArrayLike,
    target_old: ArrayLike,
    target_new: ArrayLike,
) -> Array:
    r"""``R = KL(q || p_alpha)`` in nats, exact in any dimension (whitened coordinates); `reverse-kl-target` 3.1."""
    policy, target = (log_odds, mean_old, mean_new), (target_log_odds, target_old, target_new)
    p, q = (Whitened(*(np.asarray(part, dtype=np.float64) for part in parts)) for parts in (policy, target))
    return two_mode_kl(p, q)


def reverse_kl_gradient(
    log_odds: ArrayLike,
    mean_old: ArrayLike,
    mean_new: ArrayLike,
    target_log_odds: ArrayLike,
    target_old: ArrayLike,
    target_new: ArrayLike,
) -> Whitened:
    r"""Gradient of ``R = KL(q || p_alpha)`` in ``(s, m_o, m_n)``, whitened coordinates.

        dR/ds   = beta (1 - beta) (E_{m_o}[log q/p] - E_{m_n}[log q/p])
        dR/dm_o = beta (e + eps_q (m_n - m_o) - eps_p (mu_n - mu_o)),        e = m_o - mu_o
        dR/dm_n = (1 - beta) (v + eta_q (m_o - m_n) - eta_p (mu_o - mu_n)),  v = m_n - mu_n

    ``eps = E_{m_o}[r_new]`` and ``eta = E_{m_n}[r_old]`` are misassignment probabilities of the learner (q) and the
    target (p). Returns arrays ``(...)``, ``(..., D)``, ``(..., D)``. Source: arXiv 2603.12163, `reverse-kl-target`.
    """
    m_o, m_n, mu_o, mu_n = _means(mean_old, mean_new, target_old, target_new)
    s, s_p = np.asarray(log_odds, dtype=np.float64), np.asarray(target_log_odds, dtype=np.float64)

    # one call for all four responsibilities (learner and target at each learner mean): fuller vectors
    learner, target = (s, m_o, m_n), (s_p, mu_o, mu_n)
    cases = [(m_o, learner), (m_n, learner), (m_o, target), (m_n, target)]
    pairs = [_log_odds_at(center, *mixture) for center, mixture in cases]
    shape = np.broadcast_shapes(*(a.shape for a, _ in pairs))
    loc = np.stack([np.broadcast_to(a, shape) for a, _ in pairs])
    scale = np.stack([np.broadcast_to(d, shape) for _, d in pairs])
    lower, correction = misassigned(loc, scale, own=True)
    home = np.array([1.0, -1.0, 1.0, -1.0]).reshape(4, *(1,) * len(shape)) * loc > 0.0
    eps_q, eta_q, eps_p, eta_p = np.where(home, lower, 1.0 - lower)[..., None]
    q_old, q_new, p_old, p_new = (
        _nearest_log_weight(center, loc[k] >= 0.0, *mixture) + correction[k]
        for k, (center, mixture) in enumerate(cases)
    )
    beta, rest = expit(s), expit(-s)
    force_old = (m_o - mu_o) + eps_q * (m_n - m_o) - eps_p * (mu_n - mu_o)
    force_new = (m_n - mu_n) + eta_q * (m_o - m_n) - eta_p * (mu_o - mu_n)
    return Whitened(
        beta * rest * ((q_old - p_old) - (q_new - p_new)),
        beta[..., None] * force_old,
        rest[..., None] * force_new,
    )
