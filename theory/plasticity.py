r"""Plasticity: the time to relearn after drift, as a function of drift or of KL to the base, and task sequences (theory 13).

One logit under a policy gradient, ``ds/dt = rate M(s)``, ``rate`` = learning rate x reward gap; F is the `learning_clock`.
``base_log_odds`` s_b is the base's log-odds of the *previously trained* mode, S its drifted value; the next, conflicting
task then starts at -S. Log-odds and KL in nats, time in units of 1 / rate. Own derivation; statements `plasticity-*`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr, expit

from fstsim.errors import InputError
from fstsim.logits import bernoulli_kl_gap
from fstsim.theory.clocks import (
    Mobility,
    check_mobility,
    finite,
    inverse_learning_clock,
    learning_clock,
    learning_clock_between,
    mobility_of,
    positive,
    solve_increasing,
)
from fstsim.theory.fast_slow import LEAST_RATE, no_context_kl, search_log_odds, search_time, slow_rate_share

Array = NDArray[np.float64]
Direction = Literal["to_base", "from_base"]
SequenceMethod = Literal["rl", "rl-no-stop", "fst-gradient", "fst-search"]

_FARTHEST = 700.0  # log-odds; exp overflows beyond


def relearning_time(
    log_odds: ArrayLike, target_log_odds: ArrayLike, rate: ArrayLike, mobility: Mobility = "plain"
) -> Array:
    r"""``T = (F(s*) - F(s0)) / rate``: time of the policy gradient between two log-odds (theory 13.1).

    From a drifted start ``s0 = -S``: ``(F(s*) + F(S)) / rate`` with ``2 S + e^S - 1 <= F(S) <= 2 S + e^S``, exponential in
    the drift (``e^(S/2)`` if normalised). Additive; negative when the target lies below. InputError unless rate > 0.

    >>> round(float(relearning_time(-8.0, 2.0, 1.0)))
    3008
    """
    eta = positive(rate, "rate")
    start, end = finite(log_odds, "log_odds"), finite(target_log_odds, "target_log_odds")
    with np.errstate(over="ignore"):
        return learning_clock_between(start, end, mobility) / eta


def drift_from_kl(kl: ArrayLike, base_log_odds: ArrayLike, direction: Direction) -> Array:
    r"""Drifted log-odds ``S >= s_b`` at which KL(policy || base) (``to_base``) or KL(base || policy) (``from_base``) is ``kl``.

    ``to_base`` saturates at ``log 1/p_b``: near it, kl determines S badly, and `drift_from_kl_gap` takes the gap instead.
    Raises InputError on a negative kl, one that no S attains (below log-odds 700), or an unknown direction.
    """
    if direction not in get_args(Direction):
        raise InputError(f"direction must be one of {', '.join(get_args(Direction))}; got {direction!r}")
    k, s_b = np.broadcast_arrays(positive(kl, "kl", zero=True), finite(base_log_odds, "base_log_odds"))
    ceiling = np.logaddexp(0.0, -s_b) if direction == "to_base" else no_context_kl(s_b, _FARTHEST)
    if not (k < ceiling).all():
        limit = float(np.min(np.where(k < ceiling, np.inf, ceiling)))
        raise InputError(f"kl must be below {limit:g} for this base and direction, got {kl!r}")
    p_b = expit(s_b)
    if direction == "to_base":
        top = _gap_ceiling(np.maximum(ceiling - k, 1e-300), s_b)
    else:
        top = np.minimum((k + entr(p_b) + entr(expit(-s_b))) / expit(-s_b) + np.maximum(s_b, 0.0), _FARTHEST)

    def root_kl(s: Array) -> Array:  # linear in S - s_b near the base
        value = no_context_kl(s, s_b) if direction == "to_base" else no_context_kl(s_b, s)
        return np.sqrt(np.maximum(value, 0.0))

    def slope(s: Array) -> Array:
        change = (s - s_b) * mobility_of(s) if direction == "to_base" else expit(s) - p_b
        return change / (2.0 * np.maximum(root_kl(s), 1e-150))

    return solve_increasing(root_kl, slope, np.sqrt(k), s_b, np.maximum(top, s_b))


def kl_gap(log_odds: ArrayLike, base_log_odds: ArrayLike) -> Array:
    r"""``log 1/p_b - KL(policy || base) = log(1 + e^-S) + (S - s_b) sigma(-S)``, without cancellation (theory 13.2)."""
    s, s_b = finite(log_odds, "log_odds"), finite(base_log_odds, "base_log_odds")
    return bernoulli_kl_gap(s, s_b)


def drift_from_kl_gap(gap: ArrayLike, base_log_odds: ArrayLike) -> Array:
    r"""Drifted log-odds ``S >= s_b`` at which the gap ``log 1/p_b - KL(policy || base)`` is ``gap``: `kl_gap` inverted.

    Solved in the logarithm of the gap, between ``(S - s_b)/gap - 1 <= e^S <= (S - s_b + 1)/gap``. Raises InputError unless
    0 < gap <= log 1/p_b.
    """
    left, s_b = np.broadcast_arrays(positive(gap, "gap"), finite(base_log_odds, "base_log_odds"))
    if not (left <= np.logaddexp(0.0, -s_b) * (1.0 + 1e-12)).all():
        raise InputError(f"gap must be at most log 1/p_b = softplus(-base_log_odds), got {gap!r}")
    with np.errstate(divide="ignore"):
        return solve_increasing(
            lambda s: -np.log(kl_gap(s, s_b)),
            lambda s: (s - s_b) * mobility_of(s) / kl_gap(s, s_b),
            -np.log(left),
            s_b,
            _gap_ceiling(left, s_b),
        )


def _gap_ceiling(gap: Array, s_b: Array) -> Array:
    """Upper bound on the S with this gap, from ``S <= log(1 + S - s_b) - log gap`` iterated from above."""
    top = 0.4 - s_b - 2.0 * np.log(gap)  # as log(1 + y) <= y/2 + log 2 - 1/2
    for _ in range(6):
        top = np.log1p(np.maximum(top - s_b, 0.0)) - np.log(gap)
    return np.maximum(top, s_b) + 1e-9


def relearning_time_from_kl(
    kl: ArrayLike,
    base_log_odds: ArrayLike,
    target_log_odds: ArrayLike,
    rate: ArrayLike,
    direction: Direction,
    mobility: Mobility = "plain",
) -> Array:
    r"""Time to learn a conflicting task after drifting until the KL is ``kl``: ``(F(s*) + F(S(kl))) / rate`` (theory 13.2).

    ``to_base``, KL(policy || base): a pole ``T ~ (S - s_b) / (rate (log 1/p_b - kl))`` at saturation. ``from_base``,
    KL(base || policy): exponential, ``log T ~ kl / (1 - p_b)``; the better predictor of plasticity. InputError as in
    `drift_from_kl`.
    """
    return relearning_time(-drift_from_kl(kl, base_log_odds, direction), target_log_odds, rate, mobility)


# --- sequences of tasks (13.3) -------------------------------------------------------------------------------------


def stage_success(
    target_log_odds: ArrayLike,
    budget: ArrayLike,
    eta_slow: ArrayLike = 1.0,
    eta_fast: ArrayLike = 0.0,
    mobility: Mobility = "plain",
) -> NDArray[np.bool_]:
    r"""Whether *every* stage of an endlessly alternating pair of conflicting tasks reaches the target (theory 13.3).

    Time ``budget`` a stage, base log-odds 0, early stop at ``x* > 0``, context reset at a switch, gradient-like fast
    channel that never fills: iff ``(eta_s + eta_f) budget >= F(x*) + F(rho x*)``. RL (``eta_fast = 0``): ``2 F(x*)``.
    """
    x = positive(target_log_odds, "target_log_odds")
    share, time = slow_rate_share(eta_slow, eta_fast), positive(budget, "budget", zero=True)
    total = np.asarray(eta_slow, dtype=np.float64) + np.asarray(eta_fast, dtype=np.float64)
    return total * time >= learning_clock(x, mobility) + learning_clock(share * x, mobility)


@dataclass(frozen=True, eq=False)
class TaskSequence:
    """Stages of a task sequence, arrays ``(stages, ...)``: log-odds with context at the start and the end, slow log-odds
    at the end (all in the frame of the stage's own task), and whether the target was reached."""

    start: Array
    end: Array
    slow: Array
    success: NDArray[np.bool_]

    @property
    def reward(self) -> Array:
        """Success probability at the end of each stage, ``sigma(end)``."""
        return expit(self.end)


def task_sequence(
    method: SequenceMethod,
    budgets: ArrayLike,
    conflicts: ArrayLike = -1.0,
    *,
    target_log_odds: ArrayLike,
    eta_slow: ArrayLike = 1.0,
    eta_fast: ArrayLike = 0.0,
    capacity: ArrayLike = np.inf,
    base_log_odds: ArrayLike = 0.0,
    mobility: Mobility = "plain",
) -> TaskSequence:
    r"""Exact stages of a sequence of tasks, ``budgets (stages, ...)`` units of time each (theory 13.3).

    Stage k starts at ``conflicts[k]`` times the slow log-odds that stage k - 1 left (the base's for the first), conflicts
    in [-1, 1]: -1 flips the right mode, 0 is unrelated, 1 is the same. ``rl``: slow channel alone, early stop at the
    target; ``rl-no-stop``: uses up every budget; ``fst-gradient``, ``fst-search``: context reset at each switch, early stop
    (`time_to_reward` has the channels). Without a stop conflicting stages obey ``F(x') = tau - F(x)``: period 2, every
    even one ends at the base. Raises InputError on an unknown method, negative budgets or conflicts outside [-1, 1].
    """
    if method not in get_args(SequenceMethod):
        raise InputError(f"method must be one of {', '.join(get_args(SequenceMethod))}; got {method!r}")
    check_mobility(mobility)
    time = np.atleast_1d(positive(budgets, "budgets", zero=True))
    turn = np.asarray(conflicts, dtype=np.float64)
    if not ((turn >= -1.0) & (turn <= 1.0)).all():
        raise InputError(f"conflicts must lie in [-1, 1], got {conflicts!r}")
    if turn.ndim and turn.shape[0] != time.shape[0]:
        raise InputError(f"conflicts must be one number, or one for each of the {time.shape[0]} stages")
    turn = np.broadcast_to(turn.reshape(turn.shape + (1,) * (time.ndim - turn.ndim)) if turn.ndim else turn, time.shape)
    target = finite(target_log_odds, "target_log_odds")
    slow_rate = positive(eta_slow, "eta_slow", zero=True)
    fast_rate = positive(eta_fast, "eta_fast", zero=True)
    room = positive(capacity, "capacity", zero=True, infinite=True)
    if method.startswith("rl"):
        fast_rate, room = np.zeros(()), np.zeros(())
    shape = np.broadcast_shapes(time.shape[1:], target.shape, slow_rate.shape, fast_rate.shape, room.shape)
    target, slow_rate, fast_rate, room, slow = (
        np.broadcast_to(v, shape) for v in (target, slow_rate, fast_rate, room, finite(base_log_odds, "base_log_odds"))
    )
    ceiling = np.full(shape, np.inf) if method == "rl-no-stop" else target
    rows: list[tuple[Array, Array, Array]] = []
    for k in range(time.shape[0]):
        start = turn[k] * slow
        stage = _search_stage if method == "fst-search" else _gradient_stage
        end, slow = stage(start, np.broadcast_to(time[k], shape), ceiling, slow_rate, fast_rate, room, mobility)
        rows.append((start, end, slow))
    starts, ends, slows = (np.stack(column) for column in zip(*rows, strict=True))
    return TaskSequence(starts, ends, slows, ends >= target - 1e-9 * (1.0 + np.abs(target)))


def _slow_only(start: Array, time: Array, ceiling: Array, eta: Array, mobility: Mobility) -> Array:
    """Log-odds after ``time`` of the slow channel alone, at most ``ceiling`` (never below the start)."""
    clock = learning_clock(start, mobility) + eta * time
    return np.maximum(start, np.minimum(inverse_learning_clock(clock, mobility), ceiling))


def _gradient_stage(
    start: Array, time: Array, ceiling: Array, slow: Array, fast: Array, room: Array, mobility: Mobility
) -> tuple[Array, Array]:
    """``(end, slow end)`` of one stage with a gradient-like fast channel that starts empty."""
    with np.errstate(divide="ignore", invalid="ignore"):
        both = slow + fast
        share = np.where(fast > 0.0, slow / both, 1.0)
        full = np.where(fast > 0.0, start + room / (1.0 - share), np.inf)  # log-odds at which the context is full
        first = np.maximum(start, np.minimum(full, ceiling))
        need = np.where(
            first > start, learning_clock_between(start, np.minimum(first, _FARTHEST), mobility) / both, 0.0
        )
    inside = _slow_only(start, np.minimum(time, need), first, both, mobility)
    end = np.where(time > need, _slow_only(first, np.maximum(time - need, 0.0), ceiling, slow, mobility), inside)
    return end, np.maximum(end - room, start + share * (end - start))  # theory 12a, in the frame of the stage


def _search_stage(
    start: Array, time: Array, ceiling: Array, slow: Array, fast: Array, room: Array, mobility: Mobility
) -> tuple[Array, Array]:
    """``(end, slow end)`` of one stage with a searching fast channel that starts empty."""
    used = (fast > LEAST_RATE) & (room > 0.0)
    nu = np.where(used, fast, 1.0)
    goal = np.maximum(ceiling, start)
    need = search_time(start, goal, slow, nu, mobility)
    phase = np.where(used, np.minimum(np.minimum(room / nu, need), time), 0.0)
    x1 = np.where(used & (phase >= need), goal, search_log_odds(start, phase, goal, slow, nu, mobility))
    end = _slow_only(x1, time - phase, goal, slow, mobility)
    return end, end - nu * phase


# --- more than two behaviours (13.4) ---------------------------------------------------------------------------------


def softmax_relearning_bounds(pi: ArrayLike, k: int, target: ArrayLike) -> tuple[Array, Array]:
    r"""``(lower, upper)`` on the time to raise behaviour ``k`` of a softmax policy to probability ``target`` (theory 13.4).

    ``pi (..., K)``; time in units of 1 / (learning rate x reward gap). With ``l = logit pi_k``:
    ``dl/dt = pi_k (1 - pi_k)(1 + C)``, ``C = sum_{j != k} (pi_j / (1 - pi_k))^2`` nonincreasing and at least ``1/(K-1)``, so
    ``(F(l*) - F(l0)) / (1 + C_0) <= T <= (K-1)/K (F(l*) - F(l0))``. Raises InputError unless the rows of ``pi`` are
    positive with sum 1, K >= 2, and ``pi_k <= target < 1``.
    """
    p, start, concentration, end = softmax_start(pi, k, target)
    way = learning_clock_between(start, end)
    return way / (1.0 + concentration), way * (p.shape[-1] - 1.0) / p.shape[-1]


def softmax_start(pi: ArrayLike, k: int, target: ArrayLike) -> tuple[Array, Array, Array, Array]:
    """``(pi, logit pi_k, C_0, logit target)``, checked."""
    p = positive(pi, "pi")
    if p.ndim < 1 or p.shape[-1] < 2 or not (np.abs(p.sum(axis=-1) - 1.0) < 1e-9).all():
        raise InputError("pi must have at least 2 probabilities along its last axis, with sum 1")
    if not -p.shape[-1] <= k < p.shape[-1]:
        raise InputError(f"k must be one of the {p.shape[-1]} behaviours, got {k}")
    rest = np.delete(p, k % p.shape[-1], axis=-1)
    total = rest.sum(axis=-1)
    goal = np.asarray(target, dtype=np.float64)
    if not ((goal < 1.0) & (goal >= p[..., k])).all():
        raise InputError(f"target must be a probability between pi_k and 1, got {target!r}")
    start = np.log(p[..., k]) - np.log(total)
    return p, start, ((rest / total[..., None]) ** 2).sum(axis=-1), np.log(goal) - np.log1p(-goal)
