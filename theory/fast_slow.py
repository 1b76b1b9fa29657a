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
from fstsim.logits import bernoulli_kl, bernoulli_kl_gap, expit_difference, log_expit_difference
from fstsim.theory.clocks import (
    Mobility,
    check_mobility,
    finite,
    integrate,
    learning_clock_between,
    learning_clock_over,
    mobility_of,
    positive,
    solve_increasing,
)

Array = NDArray[np.float64]
_GAUSS_NODES, _GAUSS_WEIGHTS = np.polynomial.legendre.leggauss(16)
_UNIT_NODES, _UNIT_WEIGHTS = 0.5 * (1.0 + _GAUSS_NODES), 0.5 * _GAUSS_WEIGHTS
_TAIL = 40.0  # log-odds beyond which a sigmoid is an exponential to rounding
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
    return bernoulli_kl(s, s0)


def kl_reduction(base_log_odds: ArrayLike, target_log_odds: ArrayLike, slow_share: ArrayLike) -> Array:
    r"""Relative saving of KL(no context || base) at matched reward, ``1 - k(s0 + vartheta G, s0) / k(s0 + G, s0)``.

    ``1 - vartheta^2 + O(G)`` for small gains; *less* where k saturates (high target), where even ``1 - vartheta``
    may fail (theory 12b). Raises InputError unless the target lies above the base and 0 <= slow_share <= 1.
    """
    s0, gain, share = _gain(base_log_odds, target_log_odds, slow_share)
    if not ((share >= 0.0) & (share <= 1.0)).all():
        raise InputError(f"slow_share must lie in [0, 1], got {slow_share!r}")
    # k goes like e^s below -40 and like e^-s above 40, so that places farther out may be moved there: nothing underflows
    base = s0 + np.where(s0 + gain < -_TAIL, -_TAIL - s0 - gain, np.where(s0 > _TAIL, _TAIL - s0, 0.0))
    used, end = base + share * gain, base + gain
    # what is saved, k(end) - k(used): an integral of one sign where it is short, far up the difference of what each lacks
    step = np.minimum(gain, 1.0)[..., None]
    saved, whole = (
        (_UNIT_WEIGHTS * (y * mobility_of(base[..., None] + step * y))).sum(axis=-1)
        for y in (1.0 - (1.0 - share)[..., None] * _UNIT_NODES, _UNIT_NODES)
    )
    small = (1.0 - share) * saved / whole
    left = np.where(gain < 1.0, 0.0, np.minimum((1.0 - share) * gain, 1.0))
    top = gain[..., None] - left[..., None] * _UNIT_NODES
    near = left * (_UNIT_WEIGHTS * (top * mobility_of(base[..., None] + top))).sum(axis=-1)
    below = no_context_kl(end, base) - no_context_kl(used, base)
    above = bernoulli_kl_gap(used, base) - bernoulli_kl_gap(end, base)
    far = np.where(left < 1.0, near, np.where(used > 0.0, above, below))
    return np.where(gain < 1.0, small, far / no_context_kl(np.where(gain < 1.0, base + 1.0, end), base))


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
    ``(x - s0)/nu - (eta/nu) I``, ``I = int dy / (eta + 2 nu cosh(y/2))`` (an arctan for ``eta < 2 nu``). The two terms
    cancel for ``nu << eta`` and for ``x`` near ``s0``, so that the positive integrand is summed instead, exact to rounding.
    Theory 12c; InputError unless both rates are positive.
    """
    check_mobility(mobility)
    eta, nu = positive(eta_slow, "eta_slow"), positive(search_rate, "search_rate")
    s0, x, eta, nu = np.broadcast_arrays(finite(base_log_odds, "base_log_odds"), finite(log_odds, "log_odds"), eta, nu)
    return search_time(s0, x, eta, nu, mobility)


def search_time(base: Array, log_odds: Array, eta_slow: Array, search_rate: Array, mobility: Mobility) -> Array:
    """:func:`search_phase_time` of checked arrays."""
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
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        nu = np.where(used, quick, 1.0)
        if fast == "gradient":
            # gains, not places: a small context moves a large log-odds by less than its rounding
            gain = np.minimum(end - s0, np.where(used, room * (1.0 + slow / nu), 0.0))
            rest = learning_clock_over(end, gain - (end - s0), mobility)
            first = learning_clock_over(s0, gain, mobility) / (slow + quick)
            return np.where(gain > 0.0, first, 0.0) + np.where(rest < 0.0, -rest / slow, 0.0)
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
    rest = -learning_clock_over(end, room - (end - s0), mobility)
    with np.errstate(over="ignore"):
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

    def slope(drift: Array) -> Array:
        return 1.0 / drift + 2.0 * expit_difference(s0 + drift + room, s0 + drift, room)

    with np.errstate(divide="ignore", over="ignore"):
        # from log-odds 0 on the ratio is at most 1, and the drift at most the reach
        highest = np.minimum(reach * np.exp(room), np.maximum(reach, -s0))
        return s0 + solve_increasing(excess, slope, 0.0, reach * np.exp(-room), highest)


def _log_mobility_ratio(s: Array, room: Array) -> Array:
    """``log sigma'(s + Phi) / sigma'(s)``, one log-sigmoid for either sign."""
    return log_expit_difference(s + room, s, room) + log_expit_difference(-s - room, -s, -room)


def skill_per_drift_ratio(log_odds: ArrayLike, capacity: ArrayLike) -> Array:
    r"""Skill gained per unit of slow drift, with context over without: ``(1 + e^(s + Phi)) / (1 + e^s)``, in ``[1, e^Phi)``.

    Holds if skill grows like ``sigma(x) sigma'(s)`` (exploration from the no-context entropy); then, and with a stop at
    a given slow drift, the context raises the asymptote (theory 12d iii).
    """
    s, room = finite(log_odds, "log_odds"), positive(capacity, "capacity", zero=True)
    # (1 + e^s e^Phi) / (1 + e^s) = 1 + sigma(s) (e^Phi - 1), where e^Phi does not overflow
    small = 1.0 + expit(s) * np.expm1(np.minimum(room, 1.0))
    with np.errstate(over="ignore"):
        return np.where(room < 1.0, small, np.exp(np.logaddexp(0.0, s + room) - np.logaddexp(0.0, s)))
