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
from fstsim.logistic_normal import expected_softplus, logistic_normal_mean, responsibility_moments

Array = NDArray[np.float64]


def _means(*means: ArrayLike) -> list[Array]:
    arrays = [np.atleast_1d(np.asarray(m, dtype=np.float64)) for m in means]
    if len({m.shape[-1] for m in arrays}) != 1:
        raise InputError(f"means must share their last axis, got shapes {[m.shape for m in arrays]}")
    return arrays


def _log_odds_at(center: Array, s: Array, m_o: Array, m_n: Array) -> tuple[Array, Array]:
    """Location and scale of the log-odds (old against new) of a sample of ``N(center, I)``."""
    gap = m_o - m_n
    return s + (gap * (center - 0.5 * (m_o + m_n))).sum(axis=-1), np.sqrt((gap * gap).sum(axis=-1))


def expected_log_density(center: ArrayLike, log_odds: ArrayLike, mean_old: ArrayLike, mean_new: ArrayLike) -> Array:
    r"""``E_{N(c, I)}[log q]`` for a two-mode ``q``, up to the constant ``-(D/2)(log 2 pi + 1)``, nats.

    ``log w_k - |c - m_k|^2 / 2 + SP(-|a|, D)`` with ``k`` the component that ``c`` belongs to: the softplus is the
    small one of the two equal expressions, so nothing cancels. Shapes: means ``(..., D)``, result ``(...)``.
    ``log_odds = -inf`` or ``inf`` stand for a mixture that has lost a mode.
    """
    c, m_o, m_n = _means(center, mean_old, mean_new)
    s = np.asarray(log_odds, dtype=np.float64)
    finite = np.where(np.isfinite(s), s, 0.0)
    a, d = _log_odds_at(c, finite, m_o, m_n)
    is_old = np.where(np.isfinite(s), a >= 0.0, s > 0.0)
    own = np.where(is_old[..., None], m_o, m_n)
    base = log_expit(np.where(is_old, s, -s)) - 0.5 * ((c - own) ** 2).sum(axis=-1)
    return base + np.where(np.isfinite(s), expected_softplus(-np.abs(a), d), 0.0)


def two_mode_kl(
    log_odds_p: ArrayLike,
    old_p: ArrayLike,
    new_p: ArrayLike,
    log_odds_q: ArrayLike,
    old_q: ArrayLike,
    new_q: ArrayLike,
) -> Array:
    r"""``KL(p || q)`` of two two-mode mixtures with unit covariance, in nats; exact in any dimension.

    ``sum_k w_k (E_{N(c_k)}[log p] - E_{N(c_k)}[log q])`` over the components ``(w_k, c_k)`` of ``p``.
    ``log_odds_p`` may be infinite (a one-mode ``p``); ``log_odds_q`` may not. Statement `reverse-kl-target`.
    """
    s_p = np.asarray(log_odds_p, dtype=np.float64)
    total = np.zeros(())
    for weight, center in ((expit(s_p), old_p), (expit(-s_p), new_p)):
        gain = expected_log_density(center, s_p, old_p, new_p) - expected_log_density(center, log_odds_q, old_q, new_q)
        total = total + np.where(weight > 0.0, weight * gain, 0.0)
    return total


def forward_kl_gradient(
    log_odds: ArrayLike, mean_old: ArrayLike, mean_new: ArrayLike, weights: ArrayLike, centers: ArrayLike
) -> tuple[Array, Array, Array]:
    r"""Gradient of the cross-entropy ``L = -sum_k w_k E_{N(c_k, I)}[log q]`` in ``(s, m_o, m_n)``.

        dL/ds   = beta - sum_k w_k E_k[r_o]
        dL/dm_o = -sum_k w_k (E_k[r_o] (c_k - m_o) + E_k[r_o r_n] (m_o - m_n))
        dL/dm_n = -sum_k w_k (E_k[r_n] (c_k - m_n) + E_k[r_o r_n] (m_n - m_o))

    (it is the gradient of ``KL(train || q)``; the flow is its negative). ``weights (..., C)`` and
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
    both_total = both.sum(axis=-1)[..., None]
    pull_old = (old[..., None] * (c - m_o[..., None, :])).sum(axis=-2) + both_total * gap
    pull_new = (new[..., None] * (c - m_n[..., None, :])).sum(axis=-2) - both_total * gap
    return expit(s) - old.sum(axis=-1), -pull_old, -pull_new


def reverse_kl(
    log_odds: ArrayLike,
    mean_old: ArrayLike,
    mean_new: ArrayLike,
    target_log_odds: ArrayLike,
    target_old: ArrayLike,
    target_new: ArrayLike,
) -> Array:
    r"""``R = KL(q || p_alpha)`` in nats, exact in any dimension (whitened coordinates); `reverse-kl-target` 3.1."""
    return two_mode_kl(log_odds, mean_old, mean_new, target_log_odds, target_old, target_new)


def reverse_kl_gradient(
    log_odds: ArrayLike,
    mean_old: ArrayLike,
    mean_new: ArrayLike,
    target_log_odds: ArrayLike,
    target_old: ArrayLike,
    target_new: ArrayLike,
) -> tuple[Array, Array, Array]:
    r"""Gradient of ``R = KL(q || p_alpha)`` in ``(s, m_o, m_n)``, whitened coordinates.

        dR/ds   = beta (1 - beta) (E_{m_o}[log q/p] - E_{m_n}[log q/p])
        dR/dm_o = beta (e + eps_q (m_n - m_o) - eps_p (mu_n - mu_o)),        e = m_o - mu_o
        dR/dm_n = (1 - beta) (v + eta_q (m_o - m_n) - eta_p (mu_o - mu_n)),  v = m_n - mu_n

    ``eps = E_{m_o}[r_new]`` and ``eta = E_{m_n}[r_old]`` are misassignment probabilities of the learner (q) and the
    target (p). Returns arrays ``(...)``, ``(..., D)``, ``(..., D)``. Source: arXiv 2603.12163, `reverse-kl-target`.
    """
    m_o, m_n, mu_o, mu_n = _means(mean_old, mean_new, target_old, target_new)
    s, s_p = np.asarray(log_odds, dtype=np.float64), np.asarray(target_log_odds, dtype=np.float64)

    def log_ratio(center: Array) -> Array:
        return expected_log_density(center, s, m_o, m_n) - expected_log_density(center, s_p, mu_o, mu_n)

    def misassigned(center: Array, own: int) -> tuple[Array, Array]:
        a_q, d_q = _log_odds_at(center, s, m_o, m_n)
        a_p, d_p = _log_odds_at(center, s_p, mu_o, mu_n)
        return logistic_normal_mean(own * a_q, d_q), logistic_normal_mean(own * a_p, d_p)

    eps_q, eps_p = misassigned(m_o, -1)
    eta_q, eta_p = misassigned(m_n, 1)
    beta, rest = expit(s), expit(-s)
    force_old = (m_o - mu_o) + eps_q[..., None] * (m_n - m_o) - eps_p[..., None] * (mu_n - mu_o)
    force_new = (m_n - mu_n) + eta_q[..., None] * (m_o - m_n) - eta_p[..., None] * (mu_o - mu_n)
    return (
        beta * rest * (log_ratio(m_o) - log_ratio(m_n)),
        beta[..., None] * force_old,
        rest[..., None] * force_new,
    )
