r"""Two channels for one decision: slow weights that stay, fast context that is task-specific (theory 12).

Model: log-odds of the right mode on a task ``x = s + phi``. The slow part s is shared, stays, and *is* the policy
without context; the fast part ``phi <= capacity`` is reset at a task switch. Policy gradient on s:
``ds/dt = eta_slow M(x)``. Fast channel, two kinds:

    gradient (F1)   d phi/dt = eta_fast M(x)   until phi = capacity: gated by the same mobility
    search   (F2)   d phi/dt = eta_fast        until phi = capacity: reads failures, needs no success (GEPA-type)

Rates are per unit of sample cost: charge the rollouts of the fast channel. Log-odds and KL in nats; all broadcast.
``mobility``: see `clocks`. RL-only is ``eta_fast = 0`` or ``capacity = 0``; fast-only is ``eta_slow = 0``.
Source: own derivation; statements `fast-slow-*`.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from fstsim.errors import InputError
from fstsim.theory.clocks import (
    Mobility,
    check_mobility,
    finite,
    integrate,
    learning_clock_between,
    mobility_of,
    positive,
    solve_increasing,
)

Array = NDArray[np.float64]
LEAST_RATE = 1e-300
"""A smaller rate does nothing in any finite time, and its inverse overflows."""
FastChannel = Literal["gradient", "search"]


def check_fast(fast: str) -> None:
    """InputError unless ``fast`` is ``gradient`` or ``search``."""
    if fast not in get_args(FastChannel):
        raise InputError(f"fast must be one of {', '.join(get_args(FastChannel))}; got {fast!r}")


def slow_rate_share(eta_slow: ArrayLike, eta_fast: ArrayLike) -> Array:
    """``rho = eta_slow / (eta_slow + eta_fast)``; InputError unless both are nonnegative, finite and not both 0."""
    slow, fast = positive(eta_slow, "eta_slow", zero=True), positive(eta_fast, "eta_fast", zero=True)
    if not (slow + fast > 0.0).all():
        raise InputError("eta_slow and eta_fast must not both be 0")
    return slow / (slow + fast)


def fast_slow_allocation(eta_slow: ArrayLike, eta_fast: ArrayLike, capacity: ArrayLike, gain: ArrayLike) -> Array:
    r"""Slow share ``vartheta = max(rho, 1 - capacity / gain)`` of a gain in log-odds, ``rho = eta_slow / (eta_slow + eta_fast)``.

    When the success rate first reaches the level ``gain`` nats above the base, the slow weights have moved by
    ``vartheta gain`` and the context by the rest, whatever the mobility, the skill and the path (theory 12a, F1).
    Raises InputError on negative rates, two zero rates, a negative capacity or a gain that is not positive.

    >>> float(fast_slow_allocation(1.0, 1.0, 10.0, 4.0))
    0.5
    """
    room = positive(capacity, "capacity", zero=True, infinite=True)
    return np.maximum(slow_rate_share(eta_slow, eta_fast), 1.0 - room / positive(gain, "gain"))


def no_context_kl(log_odds: ArrayLike, base_log_odds: ArrayLike) -> Array:
    r"""``k(s, s0) = KL(Bern sigma(s) || Bern sigma(s0)) = int_0^(s - s0) y sigma'(s0 + y) dy``, nats.

    The divergence of the *decision* without context from the base (theory 12b). Relative accuracy 1e-13 also for
    ``s -> s0``. ``k(s0, s)`` is the other direction, KL(base || policy).

    >>> float(no_context_kl(0.3, 0.3))
    0.0
    """
    s, s0 = np.broadcast_arrays(finite(log_odds, "log_odds"), finite(base_log_odds, "base_log_odds"))
    gap = s - s0
    # sigma(s)(s - s0) - softplus(s) + softplus(s0), from the side on which the softplus of the base is the smaller
    sign = np.where(s0 > 0.0, -1.0, 1.0)
    far = expit(sign * s) * sign * gap - np.logaddexp(0.0, sign * s) + np.logaddexp(0.0, sign * s0)
    near = np.where(np.abs(gap) < 1.0, gap, 0.0)
    small = integrate(lambda y: y * mobility_of(s0[..., None] + y), 0.0, near)
    return np.where(np.abs(gap) < 1.0, small, far)


def kl_reduction(base_log_odds: ArrayLike, target_log_odds: ArrayLike, slow_share: ArrayLike) -> Array:
    r"""Relative saving of KL(no context || base) at matched reward, ``1 - k(s0 + vartheta G, s0) / k(s0 + G, s0)``.

    ``1 - vartheta^2 + O(G)`` for small gains; *less* where k saturates (high target), where even ``1 - vartheta``
    may fail (theory 12b). Raises InputError unless the target lies above the base and 0 <= slow_share <= 1.
    """
    s0, gain, share = _gain(base_log_odds, target_log_odds, slow_share)
    if not ((share >= 0.0) & (share <= 1.0)).all():
        raise InputError(f"slow_share must lie in [0, 1], got {slow_share!r}")
    return 1.0 - no_context_kl(s0 + share * gain, s0) / no_context_kl(s0 + gain, s0)


def largest_slow_share(base_log_odds: ArrayLike, target_log_odds: ArrayLike, reduction: ArrayLike = 0.7) -> Array:
    """The slow share with exactly this ``reduction`` of the KL at matched reward: a smaller one saves more (theory 12b)."""
    s0, gain, wanted = _gain(base_log_odds, target_log_odds, reduction)
    if not ((wanted > 0.0) & (wanted < 1.0)).all():
        raise InputError(f"reduction must lie strictly between 0 and 1, got {reduction!r}")
    left = (1.0 - wanted) * no_context_kl(s0 + gain, s0)
    return solve_increasing(
        lambda v: no_context_kl(s0 + v * gain, s0), lambda v: v * gain**2 * mobility_of(s0 + v * gain), left, 0.0, 1.0
    )


def _gain(base: ArrayLike, target: ArrayLike, other: ArrayLike) -> tuple[Array, Array, Array]:
    s0, end = finite(base, "base_log_odds"), finite(target, "target_log_odds")
    s0, end, third = np.broadcast_arrays(s0, end, np.asarray(other, dtype=np.float64))
    if not (end > s0).all():
        raise InputError("target_log_odds must lie above base_log_odds")
    return s0, end - s0, third


# --- time to a reward level (12c) ----------------------------------------------------------------------------------


def search_phase_time(
    base_log_odds: ArrayLike,
    log_odds: ArrayLike,
    eta_slow: ArrayLike,
    search_rate: ArrayLike,
    mobility: Mobility = "plain",
) -> Array:
    r"""``t_F2(x) = int_{s0}^x dy / (nu + eta M(y))`` in closed form: time while a searching fast channel is not yet full.

    Plain: ``(x - s0)/nu - (eta/nu) 2/sqrt(eta^2 + 4 nu eta) [artanh(sqrt(eta/(eta + 4 nu)) tanh(y/2))]``; normalised:
    ``(x - s0)/nu - (eta/nu) I``, ``I = int dy / (eta + 2 nu cosh(y/2))`` (an arctan for ``eta < 2 nu``). It loses
    digits for ``nu << eta``: `time_to_reward` integrates instead. Theory 12c; InputError unless both rates are positive.
    """
    check_mobility(mobility)
    eta, nu = positive(eta_slow, "eta_slow"), positive(search_rate, "search_rate")
    s0, x, eta, nu = np.broadcast_arrays(finite(base_log_odds, "base_log_odds"), finite(log_odds, "log_odds"), eta, nu)
    if mobility == "plain":
        root = np.sqrt(eta / (eta + 4.0 * nu))
        gate = 2.0 / np.sqrt(eta * (eta + 4.0 * nu)) * (_artanh(root, 0.5 * x) - _artanh(root, 0.5 * s0))
    else:
        # int dy / (eta + 2 nu cosh(y/2)) with y = 2 u: 2 int du / (eta + 2 nu cosh u)
        apart = np.sqrt(np.abs(eta - 2.0 * nu) * (eta + 2.0 * nu))
        root = np.sqrt(np.abs(eta - 2.0 * nu) / (eta + 2.0 * nu))
        with np.errstate(divide="ignore", invalid="ignore"):
            above = 4.0 / apart * (_artanh(root, 0.25 * x) - _artanh(root, 0.25 * s0))
            below = 4.0 / apart * (np.arctan(root * np.tanh(0.25 * x)) - np.arctan(root * np.tanh(0.25 * s0)))
            level = (np.tanh(0.25 * x) - np.tanh(0.25 * s0)) / nu
        gate = np.where(eta == 2.0 * nu, level, np.where(eta > 2.0 * nu, above, below))
    return (x - s0) / nu - eta / nu * gate


def _artanh(root: Array, half: Array) -> Array:
    return np.arctanh(root * np.tanh(half))


def search_time(base: Array, log_odds: Array, eta_slow: Array, search_rate: Array, mobility: Mobility) -> Array:
    """:func:`search_phase_time` by quadrature: a positive integrand, good for any rates (``search_rate > 0``)."""
    eta, nu = eta_slow[..., None], search_rate[..., None]
    return integrate(lambda y: 1.0 / (nu + eta * mobility_of(y, mobility)), base, log_odds)


def search_log_odds(
    base: Array, time: Array, ceiling: Array, eta_slow: Array, search_rate: Array, mobility: Mobility
) -> Array:
    """Log-odds after ``time`` of the search phase, at most ``ceiling``: the inverse of :func:`search_time`."""
    fastest = np.minimum(ceiling, base + (search_rate + 0.5 * eta_slow) * time)  # both mobilities are at most 1/2
    return solve_increasing(
        lambda x: search_time(base, x, eta_slow, search_rate, mobility),
        lambda x: 1.0 / (search_rate + eta_slow * mobility_of(x, mobility)),
        time,
        np.minimum(base + search_rate * time, fastest),
        fastest,
    )


def time_to_reward(
    base_log_odds: ArrayLike,
    target_log_odds: ArrayLike,
    eta_slow: ArrayLike,
    eta_fast: ArrayLike = 0.0,
    capacity: ArrayLike = 0.0,
    fast: FastChannel = "gradient",
    mobility: Mobility = "plain",
) -> Array:
    r"""Time until the success rate reaches ``sigma(target_log_odds)``, exactly (theory 12c, 12c').

    gradient: ``(F(x1) - F(s0)) / (eta_s + eta_f) + (F(x*) - F(x1)) / eta_s``, ``x1 = min(x*, s0 + Phi (1 + eta_s/eta_f))``:
    a speed-up of at most ``1 + eta_f/eta_s``, reached iff the context never fills. search (``eta_fast`` = nu, nats a
    unit time): ``t_F2(x*)`` if that is at most ``Phi/nu``, else ``Phi/nu + (F(x*) - F(x1)) / eta_s`` with
    ``t_F2(x1) = Phi/nu``: the plateau ``1 / (eta p0)`` shrinks by up to ``e^Phi``. inf where the target is out of
    reach (``eta_slow = 0`` and a small capacity). Raises InputError on negative rates or a target below the base.

    >>> round(float(time_to_reward(0.0, 2.0, eta_slow=1.0)), 4)
    11.2537
    """
    check_fast(fast)
    check_mobility(mobility)
    slow, quick = positive(eta_slow, "eta_slow", zero=True), positive(eta_fast, "eta_fast", zero=True)
    room = positive(capacity, "capacity", zero=True, infinite=True)
    s0, end = finite(base_log_odds, "base_log_odds"), finite(target_log_odds, "target_log_odds")
    if not (end >= s0).all():
        raise InputError("target_log_odds must not lie below base_log_odds")
    s0, end, slow, quick, room = np.broadcast_arrays(s0, end, slow, quick, room)
    used = (quick > LEAST_RATE) & (room > 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        nu = np.where(used, quick, 1.0)
        if fast == "gradient":
            full = np.where(used, s0 + room * (1.0 + slow / nu), s0)
            x1 = np.minimum(end, full)
            first = learning_clock_between(s0, x1, mobility) / (slow + quick)
        else:
            need = search_time(s0, end, slow, nu, mobility)
            phase = np.where(used, np.minimum(need, room / nu), 0.0)
            x1 = np.where(used & (need <= room / nu), end, search_log_odds(s0, phase, end, slow, nu, mobility))
            first = phase
        rest = learning_clock_between(x1, end, mobility)
        return np.where(x1 > s0, first, 0.0) + np.where(rest > 0.0, rest / slow, 0.0)


def speed_up(
    base_log_odds: ArrayLike,
    target_log_odds: ArrayLike,
    eta_slow: ArrayLike,
    eta_fast: ArrayLike,
    capacity: ArrayLike,
    fast: FastChannel = "gradient",
    mobility: Mobility = "plain",
) -> Array:
    """How many times sooner than RL alone the target is reached, ``T_RL / T`` of `time_to_reward`."""
    alone = time_to_reward(base_log_odds, target_log_odds, eta_slow, mobility=mobility)
    return alone / time_to_reward(base_log_odds, target_log_odds, eta_slow, eta_fast, capacity, fast, mobility)


def search_time_bound(
    base_log_odds: ArrayLike,
    target_log_odds: ArrayLike,
    eta_slow: ArrayLike,
    search_rate: ArrayLike,
    capacity: ArrayLike,
    mobility: Mobility = "plain",
) -> Array:
    """Upper bound on the search time, ``Phi/nu + (F(x*) - F(s0 + Phi)) / eta_s``; nan unless ``s0 + Phi <= x*`` (theory 12c)."""
    nu, eta = positive(search_rate, "search_rate"), positive(eta_slow, "eta_slow")
    room = positive(capacity, "capacity", zero=True)
    s0, end = finite(base_log_odds, "base_log_odds"), finite(target_log_odds, "target_log_odds")
    rest = learning_clock_between(s0 + room, end, mobility)
    return np.where(rest >= 0.0, room / nu + rest / eta, np.nan)


# --- what can be said of the asymptote (12d) -----------------------------------------------------------------------


def leashed_optimum(
    base_log_odds: ArrayLike, leash: ArrayLike, capacity: ArrayLike = 0.0, skill: ArrayLike = 1.0
) -> Array:
    r"""Slow log-odds that maximise ``sigma(s + Phi) g - leash k(s, s0)``, with ``g`` the skill (theory 12d ii).

    Without context ``s0 + g/leash``; with it the only root of ``g sigma'(s + Phi)/sigma'(s) = leash (s - s0)``: the ratio
    falls from ``e^Phi`` to ``e^-Phi``. The slow drift is smaller than without context iff ``s0 + g/leash > -Phi/2``:
    on very hard tasks a context makes the weights drift *more*. Raises InputError unless leash and skill are positive.
    """
    s0, pull, room, g = np.broadcast_arrays(
        finite(base_log_odds, "base_log_odds"),
        positive(leash, "leash"),
        positive(capacity, "capacity", zero=True),
        positive(skill, "skill"),
    )
    reach = g / pull

    def excess(drift: Array) -> Array:
        return np.log(drift / reach) - _log_mobility_ratio(s0 + drift, room)

    return s0 + solve_increasing(
        excess,
        lambda drift: 1.0 / drift + expit(s0 + drift + room) * 2.0 - 2.0 * expit(s0 + drift),
        0.0,
        reach * np.exp(-room),
        reach * np.exp(room),
    )


def _log_mobility_ratio(s: Array, room: Array) -> Array:
    """``log sigma'(s + Phi) / sigma'(s) = Phi + 2 softplus(s) - 2 softplus(s + Phi)``."""
    return room + 2.0 * np.logaddexp(0.0, s) - 2.0 * np.logaddexp(0.0, s + room)


def skill_per_drift_ratio(log_odds: ArrayLike, capacity: ArrayLike) -> Array:
    r"""Skill gained per unit of slow drift, with context over without: ``(1 + e^(s + Phi)) / (1 + e^s)``, in ``[1, e^Phi)``.

    Holds if skill grows like ``sigma(x) sigma'(s)`` (exploration from the no-context entropy); then, and with a stop at
    a given slow drift, the context raises the asymptote (theory 12d iii).
    """
    s, room = finite(log_odds, "log_odds"), positive(capacity, "capacity", zero=True)
    return np.exp(np.logaddexp(0.0, s + room) - np.logaddexp(0.0, s))
