r"""The two-channel toy on a sequence of tasks: simulated with the loop of language models, and the exact flow beside it.

The simulation runs `fstsim.fast_slow.fast_slow` with finite groups; the flow is its limit of small rates, solved per
task with the *exact expected* update of a group of that size (theory 12, 16.1). Time is counted in slow steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr, expit

from fstsim.errors import InputError
from fstsim.fast_slow import (
    Advantage,
    FastLearner,
    FastSlowState,
    FrozenFast,
    FrozenSlow,
    GradientFast,
    ModeTask,
    Schedule,
    SearchFast,
    SlowLearner,
    SlowPolicyGradient,
    fast_slow,
)
from fstsim.theory.clocks import mobility_of
from fstsim.theory.fast_slow import FastChannel, check_fast, no_context_kl
from fstsim.theory.group_normalised import drift_at

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FastSlowRun:
    r"""One simulated run of R replicates with K contexts; every array has one row a slow step, the start included.

    ``step``, ``task`` (index) and ``samples`` (both channels, one replicate) are ``(T+1,)``; ``slow (T+1, R)`` is the slow
    log-odds, ``fast (T+1, K, R)`` the contexts'; ``flow_slow``, ``flow_fast (T+1,)`` are the exact flow. ``sign`` says on
    which tasks the behaviour with log-odds ``slow`` is the right one. The first row after a switch is the first
    slow step on the new task, with a fresh context.
    """

    base_log_odds: float
    sign: NDArray[np.int64]
    step: NDArray[np.int64]
    task: NDArray[np.int64]
    samples: NDArray[np.int64]
    slow: Array
    fast: Array
    flow_slow: Array
    flow_fast: Array

    @property
    def reward(self) -> Array:
        """Success probability on the current task, mean over contexts, ``(T+1, R)``."""
        return expit(self.sign[self.task][:, None, None] * self.slow[:, None] + self.fast).mean(axis=1)

    @property
    def flow_reward(self) -> Array:
        """Success probability of the exact flow, ``(T+1,)``."""
        return expit(self.sign[self.task] * self.flow_slow + self.flow_fast)

    def columns(self) -> dict[str, Array]:
        """Measurements of a run as a table; KL in nats, without context but for ``kl_in_context`` (mean over contexts)."""
        base = np.full(self.slow.shape, self.base_log_odds)
        sign = self.sign[self.task][:, None, None]
        inside = sign * self.slow[:, None] + self.fast
        return {
            "step": self.step.astype(np.float64),
            "task": self.task.astype(np.float64),
            "samples": self.samples.astype(np.float64),
            "reward": self.reward,
            "kl_to_base": no_context_kl(self.slow, base),
            "kl_from_base": no_context_kl(base, self.slow),
            "kl_in_context": no_context_kl(inside, sign * base[:, None]).mean(axis=1),
            "entropy": entr(expit(self.slow)) + entr(expit(-self.slow)),
        }


def simulate_fast_slow(
    base_log_odds: float,
    signs: Sequence[int] = (1,),
    steps_per_task: int = 100,
    *,
    eta_slow: float,
    eta_fast: float = 0.0,
    capacity: float = 0.0,
    fast: FastChannel = "gradient",
    slow_steps_per_round: int = 1,
    group: int = 8,
    groups: int = 1,
    contexts: int = 1,
    advantage: Advantage = "plain",
    target_log_odds: float = np.inf,
    replicates: int = 1,
    rng: np.random.Generator,
) -> FastSlowRun:
    r"""Train R two-channel learners on tasks of the given ``signs``, ``steps_per_task`` slow steps each (theory 12, 13.3).

    Rates are per slow step: a fast round every T = ``slow_steps_per_round`` steps moves by T ``eta_fast``. RL alone is
    ``eta_fast = 0`` (a frozen fast channel), fast alone ``eta_slow = 0``. A learner stops at ``target_log_odds`` until the
    task is over. ``group`` rollouts share a baseline and are shared out over ``contexts``; a search round costs as many
    rollouts as a slow step. Raises InputError on rates, sizes or signs out of range, before any work.
    """
    check_fast(fast)
    if not np.isfinite(base_log_odds):
        raise InputError(f"base_log_odds must be finite, got {base_log_odds!r}")
    for name, value in (("contexts", contexts), ("replicates", replicates)):
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    if group % contexts:
        raise InputError(f"group must be a multiple of contexts, got {group} for {contexts}")
    tasks = [ModeTask(sign) for sign in signs]
    sampling = {"group": group, "groups": groups, "advantage": advantage, "stop": target_log_odds}
    # built even if frozen: they check their fields
    learner = SlowPolicyGradient(eta_slow, **sampling)  # type: ignore[arg-type]
    gain = eta_fast * slow_steps_per_round
    channel: FastLearner[Array, Array, ModeTask] = (
        GradientFast(gain, capacity, **sampling)  # type: ignore[arg-type]
        if fast == "gradient"
        else SearchFast(gain, capacity, group * groups, target_log_odds)
    )
    slow: SlowLearner[Array, Array, ModeTask] = learner if eta_slow > 0.0 else FrozenSlow()
    if eta_fast == 0.0 or capacity == 0.0:
        channel = FrozenFast()
    empty = np.zeros((contexts, replicates))
    state = FastSlowState(np.full(replicates, float(base_log_odds)), empty)
    states = [state]
    states += fast_slow(
        tasks,
        slow,
        channel,
        state,
        Schedule(steps_per_task, slow_steps_per_round, fresh_context=lambda _: empty),
        rng,
    )
    flow = [(float(base_log_odds), 0.0)]
    for task in tasks:
        start = task.sign * flow[-1][0]
        x, phi = _flow_stage(
            start, steps_per_task, eta_slow, eta_fast, capacity, fast, advantage, group, target_log_odds
        )
        flow += list(zip(task.sign * (x - phi), phi, strict=True))
    flow_slow, flow_fast = np.array(flow).T
    return FastSlowRun(
        float(base_log_odds),
        np.array([task.sign for task in tasks]),
        np.array([s.step for s in states]),
        np.array([s.task for s in states]),
        np.array([s.samples for s in states]),
        np.stack([s.weights for s in states]),
        np.stack([s.context for s in states]),
        flow_slow,
        flow_fast,
    )


def _flow_stage(
    start: float,
    steps: int,
    eta_slow: float,
    eta_fast: float,
    capacity: float,
    fast: FastChannel,
    advantage: Advantage,
    group: int,
    target: float,
) -> tuple[Array, Array]:
    """``(x, phi)`` of the exact flow at times 1..steps on one task, context empty at the start."""
    size = np.asarray(float(group))

    def mobility(x: float) -> float:
        at = np.asarray(x, dtype=np.float64)
        return float(mobility_of(at) if advantage == "plain" else drift_at(at, size))

    def velocity(_: float, y: Array, quick: float) -> tuple[float, float]:
        m = mobility(float(y[0]))
        gain = quick * (m if fast == "gradient" else 1.0)
        return eta_slow * m + gain, gain

    def full(_: float, y: Array) -> float:
        return capacity - float(y[1])

    def reached(_: float, y: Array) -> float:
        return target - float(y[0]) if np.isfinite(target) else 1.0

    full.terminal = reached.terminal = True  # type: ignore[attr-defined]
    from scipy.integrate import solve_ivp

    out = np.empty((2, steps))
    now, y, done = 0.0, np.array([start, 0.0]), 0
    filling = eta_fast > 0.0 and capacity > 0.0
    while done < steps and now < steps and y[0] < target:
        sol = solve_ivp(
            partial(velocity, quick=eta_fast if filling else 0.0),
            (now, float(steps)),
            y,
            method="DOP853",
            dense_output=True,
            events=[full, reached] if filling else [reached],
            rtol=1e-10,
            atol=1e-12,
        )
        if sol.status < 0:
            raise RuntimeError(f"the fast-slow flow could not be solved: {sol.message}")
        assert sol.sol is not None
        until = int(np.floor(sol.t[-1]))
        if until > done:
            out[:, done:until] = sol.sol(np.arange(done + 1, until + 1, dtype=np.float64))
            done = until
        if sol.status == 0:
            break
        assert sol.t_events is not None
        assert sol.y_events is not None
        # an event ended the phase: the context is full, or the target reached
        hit = 0 if filling and sol.t_events[0].size else -1
        now, y = float(sol.t_events[hit][0]), sol.y_events[hit][0]
        filling = False
        if hit == -1:
            break
    out[:, done:] = y[:, None]
    return out[0], out[1]
