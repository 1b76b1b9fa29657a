r"""What a batch of groups does beyond the mean flow: several capped updates of one batch, and waiting for the first success.

**CISPO.** The gradient of ``sg(min(rho, cap)) A log pi`` on one batch, ``rho = pi / pi_batch``. With one update rho is 1
and the cap inert. **Waiting.** On the plateau groups are dead but for rare lone successes, each of which moves the
logit by one jump; the escape time is then a sum of geometric waits, not the deterministic time of the mean flow.
Own derivation; statements `group-normalised-cap` and `group-normalised-wait*`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from fstsim.errors import InputError
from fstsim.theory.clocks import finite, positive
from fstsim.theory.group_normalised import check_group, check_probability, log_dead_group_probability

Array = NDArray[np.float64]

_LARGEST_WAIT = 10_000_000  # jumps x instances that are added up one by one


def _cap(ratio_cap: ArrayLike) -> Array:
    c = positive(ratio_cap, "ratio_cap", infinite=True)
    if not (c > 1.0).all():
        raise InputError(f"ratio_cap must be above 1, got {ratio_cap!r}")
    return c


def capped_displacement(
    log_odds: ArrayLike, group_update: ArrayLike, lr: ArrayLike, updates: int, ratio_cap: ArrayLike
) -> Array:
    r"""How far ``updates`` CISPO updates on one batch move the success logit from ``log_odds`` (exact iteration).

    ``x <- x + lr u [min(p/p0, cap)(1 - p) + (1 - p)/(1 - p0) p]``, u = ``group_update`` the on-policy update
    ``mean sqrt(X (1 - X))`` of the batch, ``p0`` the success probability when it was drawn. Raises InputError unless
    u is in [0, 1/2], lr is nonnegative, ``updates >= 1`` and the cap is above 1.
    """
    x0, u, h, c = np.broadcast_arrays(
        finite(log_odds, "log_odds"),
        positive(group_update, "group_update", zero=True),
        positive(lr, "lr", zero=True),
        _cap(ratio_cap),
    )
    if not (u <= 0.5).all():
        raise InputError(f"group_update must be at most 1/2, got {group_update!r}")
    if updates < 1:
        raise InputError(f"updates must be at least 1, got {updates}")
    x = x0.copy()
    for _ in range(updates):
        p, q = expit(x), expit(-x)
        x = x + h * u * (np.minimum(p / expit(x0), c) * q + q / expit(-x0) * p)
    return x - x0


def capped_displacement_bounds(on_policy: ArrayLike, ratio_cap: ArrayLike) -> tuple[Array, Array]:
    r"""``(lower, upper)`` on :func:`capped_displacement` from the on-policy displacement ``a = updates lr u`` alone.

    ``log(1 + a) <= x - x0 <= min(cap a, -log(1 - a))`` if ``lr u <= 1`` (no upper logarithm for ``a >= 1``); so the deviation
    is ``a^2/2 + O(a^3)``, and the cap is inert for ``a <= 1 - 1/cap``. *Proof*. With ``D = x - x0 >= 0``:
    ``1 <= p/p0 <= e^D`` and ``e^-D <= q/q0 <= 1``, so the bracket lies between ``q + p e^-D >= e^-D`` and ``min(e^D, cap)``.
    Euler steps of ``y' = e^y`` (convex) stay below the solution ``-log(1 - a)``, those of ``y' = e^-y`` above ``log(1 + a)``,
    and both step maps are increasing for ``lr u <= 1``. Sharp for ``p0 -> 0`` and ``p0 -> 1``.
    """
    a, c = np.broadcast_arrays(positive(on_policy, "on_policy", zero=True), _cap(ratio_cap))
    with np.errstate(divide="ignore", invalid="ignore"):
        free = np.where(a < 1.0, -np.log1p(-a), np.inf)
        return np.log1p(a), np.fmin(c * a, free)


# --- waiting for the first success -----------------------------------------------------------------------------------


def first_signal_wait(
    success_probability: ArrayLike, group_size: ArrayLike, groups: ArrayLike = 1
) -> tuple[Array, Array]:
    r"""``(mean, variance)`` of the number of batches up to and including the first that is not dead, at fixed p.

    Geometric, ``l = 1 - dead^groups``: pgf ``l z / (1 - (1 - l) z)``, mean ``1/l``, variance ``(1 - l)/l^2``; so the
    coefficient of variation is ``sqrt(1 - l)``, near 1 on the plateau. Raises InputError on p = 0 or 1 (no signal ever).
    """
    p, g, b = np.broadcast_arrays(check_probability(success_probability), check_group(group_size), _batch(groups))
    if not ((p > 0.0) & (p < 1.0)).all():
        raise InputError("success_probability must lie strictly between 0 and 1: no group is ever informative")
    log_dead = b * log_dead_group_probability(p, g)
    live = -np.expm1(log_dead)
    with np.errstate(over="ignore"):
        return 1.0 / live, np.exp(log_dead) / live / live


def _batch(groups: ArrayLike) -> Array:
    b = np.asarray(groups, dtype=np.float64)
    if not ((b >= 1.0) & np.isfinite(b) & (b == np.floor(b))).all():
        raise InputError(f"groups must be a whole number of at least 1, got {groups!r}")
    return b


def lone_success_jump(rate: ArrayLike, group_size: ArrayLike, groups: ArrayLike = 1) -> Array:
    r"""``j = rate sqrt(G - 1) / (G groups)``: how far one lone success in a batch moves the logit (population std)."""
    g = check_group(group_size)
    return positive(rate, "rate") * np.sqrt(g - 1.0) / (g * _batch(groups))


def escape_wait(
    log_odds: ArrayLike, target_log_odds: ArrayLike, rate: ArrayLike, group_size: ArrayLike
) -> tuple[Array, Array]:
    r"""``(mean, variance)`` of the batches of one group each until the logit has passed the target, as a sum of waits.

    ``T = sum_k Geometric(l(x0 + k j))``, ``k < ceil((x* - x0)/j)``. Exact for G = 2 and 3, where every live group moves the
    logit by exactly j. For larger G an upper bound on the mean (in fact T is stochastically larger) if the target is at
    most 0: a live group moves it by at least j, and live groups only get more frequent up to p = 1/2.
    Raises InputError unless the target lies above, or when more than 1e7 jumps would have to be added.
    """
    x0, x1, g, j = np.broadcast_arrays(
        finite(log_odds, "log_odds"),
        finite(target_log_odds, "target_log_odds"),
        check_group(group_size),
        lone_success_jump(rate, group_size),
    )
    if not (x1 > x0).all():
        raise InputError("target_log_odds must lie above log_odds")
    jumps = np.ceil((x1 - x0) / j * (1.0 - 1e-12))
    most = int(jumps.max(initial=1.0))
    if most * jumps.size > _LARGEST_WAIT:
        raise InputError(f"at most {_LARGEST_WAIT:,} jumps are added up, got {most * jumps.size:,}: raise rate")
    mean, variance = np.zeros(jumps.shape), np.zeros(jumps.shape)
    for k in range(most):
        at = np.minimum(x0 + k * j, x1)
        log_dead = log_dead_group_probability(expit(-np.abs(at)), g)  # even in the log-odds
        live = -np.expm1(log_dead)
        with np.errstate(over="ignore", divide="ignore"):
            mean = mean + np.where(k < jumps, 1.0 / live, 0.0)
            variance = variance + np.where(k < jumps, np.exp(log_dead) / live / live, 0.0)
    return mean, variance


def rare_escape_wait(
    success_probability: ArrayLike, rate: ArrayLike, group_size: ArrayLike, groups: ArrayLike = 1
) -> tuple[Array, Array]:
    r"""[A] ``(mean, coefficient of variation)`` of the number of batches to escape, for ``G groups p0 -> 0``.

    ``mean = 1 / (G groups p0 (1 - e^-j))`` and ``CV = sqrt(tanh(j/2))`` with j = `lone_success_jump`: waits are exponential
    with rates ``G groups p0 e^(k j)``, so ``T G groups p0 -> sum_k e^(-k j) E_k``, mean ``1/(1 - e^-j)``, variance
    ``1/(1 - e^-2j)``, Laplace transform ``prod_k 1/(1 + z e^(-k j))``. Small jumps: the mean flow's
    ``1/(rate p0 sqrt(G-1))`` with ``CV = sqrt(j/2)``; the mean exceeds it by ``j/(1 - e^-j)``. Large jumps: the first
    success decides, T is exponential and CV = 1. (The limit is that of T itself: the share of live groups with more than
    one success among the first n goes to 0 with p0, and `escape_wait` dominates the rest.)
    """
    p = check_probability(success_probability)
    if not (p > 0.0).all():
        raise InputError("success_probability must be positive")
    j = lone_success_jump(rate, group_size, groups)
    return -1.0 / (check_group(group_size) * _batch(groups) * p * np.expm1(-j)), np.sqrt(np.tanh(0.5 * j))


def mean_flow_wait(success_probability: ArrayLike, rate: ArrayLike, group_size: ArrayLike) -> Array:
    """[A] Plateau ``1 / (rate p0 sqrt(G - 1))`` of the deterministic mean flow, updates (theory 16.3)."""
    p, g = check_probability(success_probability), check_group(group_size)
    with np.errstate(divide="ignore"):
        return 1.0 / (positive(rate, "rate") * p * np.sqrt(g - 1.0))
