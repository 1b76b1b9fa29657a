r"""Starvation of the old mode under reverse KL, and importance-weighted replay against it (theory 7).

A batch of N on-policy samples says something about the weight only if it holds samples of both modes. Replay draws
from ``b = (1 - lambda) q + lambda p_old`` and weights by ``q / b``; ``b_o = lambda + (1 - lambda) beta`` is the share of old samples.
Source: setting of arXiv 2603.12163, own derivation; statement `replay-reverse` and those after it.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from fstsim.errors import InputError
from fstsim.logits import logit_difference
from fstsim.overlap import validate_separation
from fstsim.replay_objectives import replay_importance_weights, validate_replay_fraction
from fstsim.theory.numerics.collinear import policy_average, right_components, score_moments
from fstsim.theory.reverse_kl import separated_weight_time

__all__ = [
    "effective_sample_fraction",
    "effective_sample_size",
    "expected_batches_to_old",
    "recovery_time_bounds",
    "replay_gradient_variance",
    "replay_harm_threshold",
    "replay_importance_weights",
    "starvation_probability",
    "zero_signal_probability",
]

Array = NDArray[np.float64]
Comparison = Literal["mean", "leave-one-out"]


def _log_share_new(beta: ArrayLike, replay_fraction: ArrayLike) -> tuple[Array, Array, Array]:
    """``(log(1 - b_o), log b_o, b_o)`` of the sampling distribution."""
    b = np.asarray(beta, dtype=np.float64)
    if not ((b >= 0.0) & (b <= 1.0)).all():
        raise InputError(f"beta must lie in [0, 1], got {beta!r}")
    share = validate_replay_fraction(replay_fraction)
    with np.errstate(divide="ignore"):
        log_new = np.log1p(-share) + np.log1p(-b)
        old = share + (1.0 - share) * b
        return log_new, np.log(old), old


def _batch(batch_size: ArrayLike, least: int = 1) -> Array:
    n = np.asarray(batch_size, dtype=np.float64)
    if not ((n >= least) & np.isfinite(n) & (n == np.floor(n))).all():
        raise InputError(f"batch_size must be a whole number of at least {least}, got {batch_size!r}")
    return n


def starvation_probability(beta: ArrayLike, batch_size: ArrayLike, replay_fraction: ArrayLike = 0.0) -> Array:
    r"""Probability that a batch of N holds no old sample, ``((1 - lambda)(1 - beta))^N`` (theory 7.1 and 7.2 [T]).

    ``beta`` in [0, 1], ``replay_fraction`` in [0, 1), N >= 1. Statement `replay-reverse-starvation`.

    >>> round(float(starvation_probability(0.01, 64)), 3), bool(starvation_probability(0.01, 64, 0.2) < 1e-6)
    (0.526, True)
    """
    return np.exp(_batch(batch_size) * _log_share_new(beta, replay_fraction)[0])


def zero_signal_probability(beta: ArrayLike, batch_size: ArrayLike, replay_fraction: ArrayLike = 0.0) -> Array:
    r"""Probability that all N samples come from one mode, ``(1 - b_o)^N + b_o^N``: without overlap every centred
    estimator is then exactly zero (theory 7.1 [T]). Arguments as :func:`starvation_probability`. Statement `replay-reverse-starvation`.
    """
    log_new, log_old, _ = _log_share_new(beta, replay_fraction)
    n = _batch(batch_size)
    return np.minimum(np.exp(n * log_new) + np.exp(n * log_old), 1.0)


def expected_batches_to_old(beta: ArrayLike, batch_size: ArrayLike, replay_fraction: ArrayLike = 0.0) -> Array:
    r"""Expected number of batches up to the first with an old sample, ``1 / (1 - (1 - b_o)^N)``; inf where there is none.

    About ``1 / (N beta)`` for ``N beta << 1``. The first starved batch is expected after ``1 / starvation_probability``.
    """
    with np.errstate(divide="ignore", over="ignore"):
        return -1.0 / np.expm1(_batch(batch_size) * _log_share_new(beta, replay_fraction)[0])


def effective_sample_size(w: ArrayLike) -> Array:
    r"""Kish's effective sample size of weights ``w (..., N)``, ``(sum w)^2 / sum w^2``, in [1, N], shape ``(...)``.

    Raises InputError on negative or non-finite weights, or a row of zeros. Theory 7.2, statement `replay-reverse-ess`.

    >>> float(effective_sample_size([1.0, 1.0, 1.0, 1.0]))
    4.0
    """
    weights = np.atleast_1d(np.asarray(w, dtype=np.float64))
    if not (np.isfinite(weights).all() and (weights >= 0.0).all()):
        raise InputError("weights must be nonnegative and finite")
    if weights.shape[-1] == 0 or not (weights.max(axis=-1) > 0.0).all():
        raise InputError("weights must not all be zero")
    scaled = weights / weights.max(axis=-1, keepdims=True)  # tiny weights would underflow when squared
    return scaled.sum(axis=-1) ** 2 / (scaled * scaled).sum(axis=-1)


def _states(*values: ArrayLike) -> list[Array]:
    arrays = [np.asarray(v, dtype=np.float64) for v in values]
    if not all(np.isfinite(a).all() for a in arrays):
        raise InputError("log_odds must be finite")
    return arrays


def effective_sample_fraction(log_odds: ArrayLike, replay_fraction: ArrayLike, delta: ArrayLike | None = None) -> Array:
    r"""Effective share of a replay batch, ``ESS / N = 1 / E_q[w]``, in ``[1 - lambda, 1]``; components right (theory 7.2 [T]).

    ``delta = None``: no overlap, ``E_q w = beta^2 / b_o + (1 - beta)^2 / (1 - b_o)``. Statement `replay-reverse-ess`.
    """
    (s,) = _states(log_odds)
    share = validate_replay_fraction(replay_fraction)
    if delta is None:
        old = share + (1.0 - share) * expit(s)
        return 1.0 / (expit(s) ** 2 / old + expit(-s) / (1.0 - share))
    s, share, d = np.broadcast_arrays(s, share, validate_separation(delta))
    average = policy_average(right_components(s, s, d), share.ravel(), lambda draw, _: draw.weight[None])[0]
    return (1.0 / average).reshape(s.shape)


def replay_gradient_variance(
    log_odds: ArrayLike, target_log_odds: ArrayLike, replay_fraction: ArrayLike, delta: ArrayLike | None = None
) -> Array:
    r"""Variance per sample of the reverse-KL weight gradient with replay, oracle mean baseline; components right.

    ``Var_b(w (A - E_q A)(r_o - beta))``, ``A = log p_alpha / q``; lambda = 0 is plain on-policy sampling. Without overlap
    (``delta = None``), with ``Delta A = s_alpha - s``,

        (beta (1 - beta) Delta A)^2 (1 - beta - b_o)^2 / (b_o (1 - b_o)),

    which vanishes at ``b_o = 1 - beta``. With ``delta``: one-dimensional quadrature. For the leave-one-out baseline that
    `ReverseKLReplay` uses see `gradient_variance`. Theory 7.2 [T], `replay-reverse-variance`.
    """
    s, s_p = _states(log_odds, target_log_odds)
    share = validate_replay_fraction(replay_fraction)
    if delta is None:
        old = share + (1.0 - share) * expit(s)
        new = (1.0 - share) * expit(-s)
        # beta - (1 - lambda)(1 - beta) = tanh(s / 2) + lambda (1 - beta): of the two the one whose terms are not both near 1
        force = (s_p - s) * np.where(share < 0.5, np.tanh(0.5 * s) + share * expit(-s), expit(s) - new)
        return (expit(s) / old * force) * (expit(-s) * force) * (expit(s) / (1.0 - share))
    s, s_p, share, d = np.broadcast_arrays(s, s_p, share, validate_separation(delta))
    moments = score_moments(right_components(s, s_p, d), share.ravel())
    return (moments.m[2, 2] - moments.gain**2).reshape(s.shape)


def replay_harm_threshold(beta: ArrayLike, baseline: Comparison = "leave-one-out") -> Array:
    r"""Replay share above which replay *increases* the variance of the weight gradient, without overlap.

    Per batch of any size, with the leave-one-out baseline of `ReverseKLReplay`: replay helps exactly while
    ``|logit b_o| < |logit beta|``, so up to ``b_o = 1 - beta``; with the oracle mean baseline while ``logit b_o < -3 logit beta``.
    At ``beta >= 1/2`` any replay hurts: the threshold is 0. ``beta`` in (0, 1). Own derivation [T], statements
    `replay-reverse-harm` and `replay-reverse-leave-one-out`.

    >>> replay_harm_threshold([0.1, 0.45, 0.6]).round(3)
    array([0.889, 0.182, 0.   ])
    """
    b = np.asarray(beta, dtype=np.float64)
    if not ((b > 0.0) & (b < 1.0)).all():
        raise InputError(f"beta must lie strictly between 0 and 1, got {beta!r}")
    if baseline not in get_args(Comparison):
        raise InputError(f"baseline must be one of {', '.join(get_args(Comparison))}; got {baseline!r}")
    # limits of b_o: 1 - beta, and (1 - beta)^3 / ((1 - beta)^3 + beta^3); less beta they have the factor 1 - 2 beta
    square, cube = (1.0 - b) ** 2 + b**2, (1.0 - b) ** 3 + b**3
    shape = 1.0 if baseline == "leave-one-out" else square / cube
    return np.maximum((1.0 - 2.0 * b) / (1.0 - b) * shape, 0.0)


def recovery_time_bounds(
    beta0: ArrayLike, beta1: ArrayLike, alpha: ArrayLike, lr: ArrayLike, batch_size: ArrayLike
) -> tuple[Array, Array]:
    r"""``(lower, upper)`` on the expected steps of reverse-KL SGD from old mass ``beta0`` to ``beta1``, without overlap.

    Leave-one-out baseline, N samples a step, components right. With ``f(s) = beta (1 - beta)(s_alpha - s)`` and ``T`` the time
    of the flow ``ds/dt = f`` (`reverse_kl_weight_time`):

        T / lr <= E[steps] <= T / lr + 1 / (N beta0 (1 - beta0))       (the upper bound for N = 2 and 3, nan otherwise)

    as long as ``(1 - 2 beta1)(s_alpha - s1) >= 1`` and ``lr <= 1``; nan where not. Starvation costs about one wait.

    Proof. Below s_alpha no step points the wrong way, so s never falls, and f increases on ``[s0, s1]``: the flow time to go
    is convex and decreasing in s, with slope ``-1/f``, hence ``flow time to go + lr k`` is a submartingale (Jensen).
    For N = 2, 3 every informative batch moves s by the same ``X = lr (s_alpha - s) / N``, with probability
    ``N beta (1 - beta) = lr f / X``; so ``E[steps] = sum_j X_j / (lr f(s_j))``, a left Riemann sum of ``T / lr`` with
    decreasing steps, which exceeds it by at most its first term. Own derivation [T], `replay-reverse-recovery`.
    """
    b0, b1, a, h, n = np.broadcast_arrays(
        *(np.asarray(x, dtype=np.float64) for x in (beta0, beta1, alpha, lr)), _batch(batch_size, 2)
    )
    if not ((b0 > 0.0) & (b0 < b1) & (b1 < a) & (a < 1.0)).all():
        raise InputError("the masses must satisfy 0 < beta0 < beta1 < alpha < 1")
    if not ((h > 0.0) & (h <= 1.0)).all():
        raise InputError(f"lr must lie in (0, 1], got {lr!r}")
    left = logit_difference(a, b1)
    with np.errstate(over="ignore"):
        flow = separated_weight_time(logit_difference(a, b0), left, logit_difference(b1, b0), logit(b0), logit(b1)) / h
    lower = np.where((1.0 - 2.0 * b1) * left >= 1.0, flow, np.nan)
    return lower, np.where(n <= 3.0, lower + 1.0 / (n * b0 * (1.0 - b0)), np.nan)
