r"""Replay of the policy's own right answers: where the old mass rests when old demonstrations must first be sampled (theory 6.5).

A share ``lambda`` of a batch asks for old demonstrations. Each gets N tries of the policy as it is, and shows the first that
is the old answer; if none is, nothing is shown. One decision, old mass ``beta = sigma(s)``; time in units of 1 / learning rate.
Source: the method is On-Policy Replay, arXiv 2605.29495; own derivation; statement `replay-forward-own`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_expit

from fstsim.errors import InputError
from fstsim.theory.numerics.inputs import finite
from fstsim.theory.numerics.inputs import share as fraction

Array = NDArray[np.float64]

MAX_TRIES = 1_000_000


def _tries(value: ArrayLike) -> Array:
    """``value`` as whole float64 numbers; InputError unless every one lies in 1..1000000."""
    n = np.asarray(value, dtype=np.float64)
    if not ((n >= 1.0) & (n <= MAX_TRIES) & (n == np.floor(n))).all():
        raise InputError(f"tries must be a whole number in 1..{MAX_TRIES}, got {value!r}")
    return n


def own_replay_rate(log_odds: ArrayLike, replay_fraction: ArrayLike, tries: ArrayLike) -> Array:
    r"""``ds/dt = lambda a (1 - beta) - (1 - lambda) beta`` with ``a = 1 - (1 - beta)^N`` the prompts that get an own right answer.

    ``log_odds`` s finite, ``replay_fraction`` lambda in [0, 1], ``tries`` N at least 1. Theory 6.5 [T], `replay-forward-own`.
    """
    s, share, n = np.broadcast_arrays(
        finite(log_odds, "log_odds"), fraction(replay_fraction, "replay_fraction"), _tries(tries)
    )
    old, new = np.exp(log_expit(s)), np.exp(log_expit(-s))
    return share * -np.expm1(n * log_expit(-s)) * new - (1.0 - share) * old


def own_replay_bounds(replay_fraction: ArrayLike, tries: ArrayLike) -> tuple[Array, Array]:
    r"""``(lower, upper)`` on :func:`own_replay_equilibrium`: ``2 (M - 1/lambda)_+ / (M (M - 1))`` and ``lambda (1 - (1 - lambda)^M)``.

    ``M = N + 1``; both are 0 where ``lambda M <= 1``. *Lower*: ``1 - (1 - b)^M >= M b - M (M - 1) b^2 / 2``, an equality for one try. *Upper*: the rest lies below lambda,
    and ``1 - (1 - b)^M`` increases. Theory 6.5 [T], `replay-forward-own`.
    """
    share, n = np.broadcast_arrays(fraction(replay_fraction, "replay_fraction"), _tries(tries))
    paid = _paid(share, n)
    with np.errstate(divide="ignore", invalid="ignore"):
        lower = np.where(paid > 0.0, 2.0 * paid / share / (n * (n + 1.0)), 0.0)
        upper = share * -np.expm1((n + 1.0) * np.log1p(-share))
    return lower, np.where(paid > 0.0, upper, 0.0)


def _paid(share: Array, tries: Array) -> Array:
    """``max(lambda (N + 1) - 1, 0)``, to all digits where the product is next to 1."""
    first = share.astype(np.float32).astype(np.float64)  # 24 bits: its product with the tries is exact
    return np.maximum((first * (tries + 1.0) - 1.0) + (share - first) * (tries + 1.0), 0.0)


def _unmet(mass: Array, tries: Array) -> Array:
    r"""``sum_j (1 - (1 - b)^j)``, j = 0..N: what own answers of the old mass b lack of ``N + 1``, without cancellation.

    ``M - (1 - (1 - b)^M) / b``, ``M = N + 1``; where ``M b`` is small its series, of which each term is at most a third of ``M b``
    times the one before.
    """
    m = tries + 1.0
    with np.errstate(divide="ignore"):
        plain = m + np.expm1(m * np.log1p(-mass)) / mass
    term = 0.5 * m * tries * mass
    series = term.copy()
    for k in range(3, 30):
        term = -term * mass * (m - k + 1.0) / k
        series = series + term
    return np.where(m * mass < 0.5, series, plain)


def own_replay_equilibrium(replay_fraction: ArrayLike, tries: ArrayLike) -> Array:
    r"""Old mass at rest: the root of ``beta = lambda (1 - (1 - beta)^(N + 1))`` above 0, and 0 where ``lambda (N + 1) <= 1``.

    So the share must pay for its tries: with one the rest is ``2 - 1/lambda``, nothing below one half; as N grows it is the share
    of ordinary replay, lambda. It attracts every old mass inside (0, 1). Raises InputError on a share outside [0, 1] or tries
    below 1. Theory 6.5 [T], `replay-forward-own`.

    >>> [round(float(own_replay_equilibrium(0.3, n)), 4) for n in (1, 4, 64)]
    [0.0, 0.2043, 0.3]
    """
    share, n = np.broadcast_arrays(fraction(replay_fraction, "replay_fraction"), _tries(tries))
    lower, upper = own_replay_bounds(share, n)
    paid = _paid(share, n)
    inside = (paid > 0.0) & (share < 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = np.log(np.where(inside, lower, 0.5)), np.log(np.where(inside, upper, 0.5))
        for _ in range(60):
            middle = 0.5 * (low + high)
            # lambda (1 + u + ... + u^N) = 1, u = 1 - beta: the left side falls in beta
            above = share * _unmet(np.exp(middle), n) < paid
            low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.where(inside, np.exp(0.5 * (low + high)), np.where(share == 1.0, 1.0, 0.0))
