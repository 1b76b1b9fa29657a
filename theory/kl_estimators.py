r"""Estimators of KL(q || p) from samples of q: what they are as values, as gradients, and where they hold a policy (theory 18).

With ``u = log p/q`` at a sample of the policy q, p the reference:

    k1 = -u,    k2 = u^2 / 2,    k3 = e^u - 1 - u.

As values k1 and k3 are unbiased and k2 is not. As gradients they differ: differentiated along samples that are drawn and
then held, k1 has none, k2 that of KL(q || p), k3 that of KL(p || q). As a penalty inside the reward k1 alone is a leash.
Distributions are arrays ``(..., S)``, all logarithms natural. Estimators are k1, k2, k3 on the first axis of what is
returned. Source: the names are of J. Schulman, "Approximating KL divergence" (2020); own derivation; statements
`kl-estimators-*`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_expit, logit

from fstsim.errors import InputError
from fstsim.theory.fast_slow import no_context_kl
from fstsim.theory.leash_loss import rest_from_last_token
from fstsim.theory.numerics.inputs import finite, mass, positive

Array = NDArray[np.float64]

_SERIES = 0.1  # of |u|, below which e^u - 1 - u is a sum of its series
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(40)
_NEWTON = 60
_ROUNDING = 1e-14


class Estimates(NamedTuple):
    """``mean`` and ``variance`` of one sample of k1, k2 and k3, each ``(3, ...)``; nats and nats squared."""

    mean: Array
    variance: Array


def _second_order(u: Array) -> Array:
    """``phi(u) = 2 (e^u - 1 - u) / u^2``, increasing from 0 to infinity, 1 at 0."""
    small = np.where(np.abs(u) < _SERIES, u, 0.0)
    series = np.zeros(u.shape)
    for k in range(12, 1, -1):  # 1 + u/3 (1 + u/4 (1 + ...))
        series = 1.0 + series * small / (k + 1.0)
    large = np.where(np.abs(u) < _SERIES, 1.0, u)
    return np.where(np.abs(u) < _SERIES, series, 2.0 * (np.expm1(large) - large) / large**2)


def kl_estimators(log_ratio: ArrayLike) -> Array:
    """k1, k2 and k3 ``(3, ...)`` at ``log_ratio (...)``, the reference's log-probability less the policy's, nats.

    >>> kl_estimators([0.5, -0.5]).round(3).tolist()
    [[-0.5, 0.5], [0.125, 0.125], [0.149, 0.107]]
    """
    u = finite(log_ratio, "log_ratio")
    half = 0.5 * u * u
    return np.stack((-u, half, half * _second_order(u)))


def _pair(policy: ArrayLike, base: ArrayLike) -> tuple[Array, Array]:
    q, p = (np.asarray(x, dtype=np.float64) for x in (policy, base))
    for name, x in (("policy", q), ("base", p)):
        if x.ndim < 1 or not ((x > 0.0).all() and np.allclose(x.sum(axis=-1), 1.0, rtol=0.0, atol=1e-9)):
            raise InputError(f"{name} must hold positive probabilities that sum to 1 on the last axis")
    q, p = np.broadcast_arrays(q, p)
    return q, p


def kl_estimates(policy: ArrayLike, base: ArrayLike) -> Estimates:
    r"""Mean and variance of k1, k2, k3 over a finite distribution: ``policy`` and ``base (..., S)``, of full support.

    The variance of k3 is that of k1 plus ``chi2(p || q) - 2 [KL(p || q) + KL(q || p)]``. Statement
    `kl-estimators-variance` [T]. Raises InputError on what is no distribution of full support.

    >>> kl_estimates([0.5, 0.5], [0.2, 0.8]).mean.round(3).tolist()
    [0.223, 0.265, 0.223]
    """
    q, p = _pair(policy, base)
    k = kl_estimators(np.log(p) - np.log(q))
    mean = (q * k).sum(axis=-1)
    mean[0] = mean[2]  # the same number, and a sum of positive terms
    return Estimates(mean, (q * (k - mean[..., None]) ** 2).sum(axis=-1))


def k2_mean_bounds(kl: ArrayLike, lowest: ArrayLike, highest: ArrayLike) -> tuple[Array, Array]:
    r"""``(lower, upper)`` on ``E k2``: ``kl / phi(highest)`` and ``kl / phi(lowest)`` where ``lowest <= log p/q <= highest``.

    ``phi(u) = 2 (e^u - 1 - u) / u^2`` is 1 at 0. Statement `kl-estimators-bias` [T].

    >>> [round(float(x), 3) for x in k2_mean_bounds(0.223, -0.916, 0.47)]
    [0.189, 0.296]
    """
    value, low, high = finite(kl, "kl"), finite(lowest, "lowest"), finite(highest, "highest")
    if not ((low <= 0.0) & (high >= 0.0)).all():
        raise InputError("lowest must be at most 0 and highest at least 0: both distributions sum to 1")
    return value / _second_order(high), value / _second_order(low)


def mode_estimates(policy_weights: ArrayLike, base_weights: ArrayLike, drifts: ArrayLike) -> Estimates:
    r"""Mean and variance of k1, k2, k3 in a mixture of K modes that do not overlap (or are labelled), exactly.

    In mode z the policy is ``N(m_z, I)``, the base ``N(mu_z, I)``, ``d_z = |m_z - mu_z|`` its drift: ``u`` is normal with mean
    ``log p_z/q_z - d_z^2 / 2`` and variance ``d_z^2``. Weights ``(..., K)``, ``drifts (..., K)`` in units of the modes' width.
    One mode with ``K = d^2 / 2``: means ``K, K + K^2 / 2, K``, variances ``2K, 2K^2 + 2K^3, e^(2K) - 1 - 2K``. Statement
    `kl-estimators-modes` [T].

    >>> mode_estimates([1.0], [1.0], [2.0]).mean.tolist()
    [2.0, 4.0, 2.0]
    """
    q, p = _pair(policy_weights, base_weights)
    d2 = finite(drifts, "drifts") ** 2
    shift = np.log(p) - np.log(q)
    at = shift - 0.5 * d2
    kl, forward = (q * (0.5 * d2 - shift)).sum(axis=-1), (p * (0.5 * d2 + shift)).sum(axis=-1)
    second = (q * (at * at + d2)).sum(axis=-1)
    fourth = (q * (at**4 + 6.0 * at * at * d2 + 3.0 * d2 * d2)).sum(axis=-1)
    # e^(2u) of a normal has mean e^(2 shift + d2)
    chi2 = (q * np.expm1(2.0 * shift + d2)).sum(axis=-1)
    plain = second - kl * kl
    return Estimates(
        np.stack((kl, 0.5 * second, kl)),
        np.stack((plain, 0.25 * (fourth - second * second), plain + chi2 - 2.0 * (kl + forward))),
    )


def least_control(policy: ArrayLike, base: ArrayLike) -> tuple[Array, Array]:
    r"""The weight at which ``k1 + weight (p/q - 1)`` varies least, and that variance; weight 0 is k1, weight 1 is k3.

    ``[KL(q || p) + KL(p || q)] / chi2(p || q)``: 1 for close distributions, towards 0 where the reference has mass that the
    policy hardly samples. Statement `kl-estimators-control` [T].

    >>> [round(float(x), 3) for x in least_control([0.5, 0.5], [0.2, 0.8])]
    [1.155, 0.0]
    """
    q, p = _pair(policy, base)
    u = np.log(p) - np.log(q)
    ratio = np.expm1(u)
    kl = (q * kl_estimators(u)[2]).sum(axis=-1)
    both, chi2 = ((p - q) * u).sum(axis=-1), (q * ratio * ratio).sum(axis=-1)
    weight = np.where(chi2 > 0.0, both / np.where(chi2 > 0.0, chi2, 1.0), 1.0)
    left = -u + weight[..., None] * ratio - kl[..., None]
    return weight, (q * left * left).sum(axis=-1)


def _k3_decision(given: Array, value: Array, strength: Array) -> Array:
    """Next-token probabilities at which a leash of k3 rests, its samples held."""
    # the sum over tokens falls and is convex in V: from below, Newton's steps never go too far
    least = np.where(given > 0.0, value - strength * (1.0 - given), -np.inf).max(axis=-1, keepdims=True)
    shares = given
    for _ in range(_NEWTON):
        room = np.where(given > 0.0, strength + least - value, 1.0)
        shares = strength * given / room
        step = (shares.sum(axis=-1, keepdims=True) - 1.0) / (shares / room).sum(axis=-1, keepdims=True)
        least = least + step
        if (np.abs(step) <= _ROUNDING * strength).all():
            break
    return np.asarray(shares / shares.sum(axis=-1, keepdims=True))


def k3_loss_policy(base: ArrayLike, reward: ArrayLike, tau: ArrayLike, tokens: int = 2) -> Array:
    r"""Sequence probabilities ``(..., A^L)`` at which a leash of k3 as a loss rests, its samples drawn and held.

    Its expected gradient is that of ``KL(p_t || q_t)`` at every prefix, so from the last token to the first
    ``q_t(a) = tau p_t(a) / (tau + V_t - V_(t+1)(a))``, ``V_t = sum_a q_t(a) V_(t+1)(a)``. A tree of tokens as in
    `leash_loss_policy`, which is where k2 rests. Statement `kl-estimators-rest` [T].

    >>> k3_loss_policy([0.9, 0.05, 0.025, 0.025], [0, 0, 0, 1], 0.25).round(3).tolist()
    [0.248, 0.014, 0.081, 0.657]
    """
    return rest_from_last_token(base, reward, tau, tokens, _k3_decision)


def k3_loss_log_odds(base_log_odds: ArrayLike, gap: ArrayLike) -> Array:
    r"""Log-odds at which k3 as a loss holds one decision whose rewards differ by ``gap`` strengths of the leash.

    ``x = x_0 / 2 + arsinh((gap - (1 - 2p)) / (2 sqrt(p (1 - p))))``, the root of ``q (1 - q) gap = q - p``. A tilt would hold
    ``x_0 + gap``: this grows like ``log gap``. Statement `kl-estimators-answer` [T].

    >>> k3_loss_log_odds([0.0, -4.6], 2.0).round(2).tolist()
    [1.44, 0.04]
    """
    x0, g = finite(base_log_odds, "base_log_odds"), finite(gap, "gap")
    return 0.5 * x0 + np.arcsinh(g * np.cosh(0.5 * x0) + np.sinh(0.5 * x0))


def k3_loss_answer(token_masses: ArrayLike, tau: ArrayLike) -> Array:
    r"""Success at rest under k3 as a loss where one answer of L tokens is right: `k3_loss_policy` along that answer.

    ``V_t = q_t V_(t+1)`` with q_t the root of ``q_t (1 - q_t) V_(t+1) = tau (q_t - p_t)``: after a wrong token nothing is to be
    won, and what is wrong counts as one token. ``token_masses (..., L)`` in (0, 1], 1 is no decision; ``tau (...)``. Statement
    `kl-estimators-rest`.

    >>> k3_loss_answer([0.5, 0.2], [0.25, 1e9]).round(3).tolist()
    [0.705, 0.1]
    """
    p, strength = np.asarray(token_masses, dtype=np.float64), positive(tau, "tau")
    if p.ndim < 1 or not ((p > 0.0) & (p <= 1.0)).all():
        raise InputError("token_masses must lie in (0, 1] and have tokens on the last axis; 1 marks no decision")
    value = np.ones(np.broadcast_shapes(p.shape[:-1], strength.shape))
    for t in range(p.shape[-1] - 1, -1, -1):
        sure = p[..., t] == 1.0
        q = expit(k3_loss_log_odds(logit(np.where(sure, 0.5, p[..., t])), value / strength))
        value = np.where(sure, 1.0, q) * value
    return value


def k3_loss_bounds(base_mass: ArrayLike, tau: ArrayLike) -> tuple[Array, Array]:
    r"""``(lower, upper)`` on the mass of the one right answer at rest under k3 as a loss of strength ``tau``.

    ``max(p, 1 - tau (1 - p)) =: l <= q <= min(p + 1 / (4 tau), 1 - tau (1 - p / l))``: however rare the answer was, at least
    ``1 - tau``. Statement `kl-estimators-answer` [T].
    """
    p, strength = mass(base_mass, "base_mass"), positive(tau, "tau")
    lower = np.maximum(p, 1.0 - strength * (1.0 - p))
    return lower, np.minimum(p + 0.25 / strength, 1.0 - strength * (1.0 - p / lower))


def k3_reward_drift(base_log_odds: ArrayLike, log_odds: ArrayLike) -> Array:
    r"""Speed of the log-odds of one decision when k3 is subtracted from the reward, a unit of its strength, no other reward.

    ``(q - p) - q (1 - q) (x - x_0) = -int_{x_0}^x (y - x_0) sigma'(y) (1 - 2 sigma(y)) dy``: towards the nearer sure
    decision, not towards the base. Statement `kl-estimators-reward-run` [T].

    >>> k3_reward_drift(-2.0, [-3.0, -1.0]).round(4).tolist()
    [-0.0266, -0.0469]
    """
    x0, x = finite(base_log_odds, "base_log_odds"), finite(log_odds, "log_odds")
    q, move = expit(x), x - x0
    plain = q - expit(x0) - np.exp(log_expit(x) + log_expit(-x)) * move
    # where the difference cancels, the integral
    share = 0.5 * (_NODES + 1.0)
    y = x0[..., None] + share * np.clip(move, -2.0, 2.0)[..., None]
    inside = share * np.exp(log_expit(y) + log_expit(-y)) * -np.tanh(0.5 * y)
    close = -0.5 * move * move * (inside * _WEIGHTS).sum(axis=-1)
    return np.where(np.abs(move) < 2.0, close, plain)


def k3_reward_drift_bounds(base_log_odds: ArrayLike, log_odds: ArrayLike) -> tuple[Array, Array]:
    r"""``(lower, upper)`` on minus `k3_reward_drift`: ``KL(q || p)`` times ``1 - 2q`` and ``1 - 2p``, the smaller first."""
    x0, x = finite(base_log_odds, "base_log_odds"), finite(log_odds, "log_odds")
    kl = no_context_kl(x, x0)
    ends = np.stack((-np.tanh(0.5 * x) * kl, -np.tanh(0.5 * x0) * kl))
    return ends.min(axis=0), ends.max(axis=0)


def tilt_mass(base_mass: ArrayLike, tau: ArrayLike) -> Array:
    """Mass of the one right answer under the exact leash (k1 in the reward, k2 as a loss): ``sigmoid(logit p + 1 / tau)``."""
    return expit(logit(mass(base_mass, "base_mass")) + 1.0 / positive(tau, "tau"))
