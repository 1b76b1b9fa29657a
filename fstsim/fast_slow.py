r"""Fast-slow training: one interleaving loop for the mixture and for language models, and the toy learners that fill it.

Slow weights stay; the fast context is task-specific. `fast_slow` runs a sequence of tasks in one go: a fast round
before the first and then before every T-th slow step of a task. RL alone is a frozen fast channel, prompt
evolution alone a frozen slow one, and supervised fine-tuning another slow learner: baselines are not branches.

The toy: log-odds of the right behaviour ``x = sign * s + phi``, s the slow log-odds of one of two behaviours
(sign says whether it is the right one on the task), phi of each of K contexts. Source: theory 12, 13 and 16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, Protocol, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from fstsim.errors import InputError

Array = NDArray[np.float64]
Advantage = Literal["plain", "normalised"]

W = TypeVar("W")  # slow weights
C = TypeVar("C")  # fast context
K = TypeVar("K")  # task
W_contra = TypeVar("W_contra", contravariant=True)
C_contra = TypeVar("C_contra", contravariant=True)
K_contra = TypeVar("K_contra", contravariant=True)


@dataclass(frozen=True)
class StepInfo:
    """What a step cost and saw: ``samples`` drawn from the policy, and any ``metrics`` worth a row."""

    samples: int = 0
    metrics: Mapping[str, Any] = field(default_factory=dict)


class SlowLearner(Protocol[W, C_contra, K_contra]):
    """Improves the weights, given the context."""

    def step(self, weights: W, context: C_contra, task: K_contra, rng: np.random.Generator) -> tuple[W, StepInfo]:
        """One update of the weights on ``task``.

        It may change ``weights`` in place and return the same object; it must leave ``context`` alone. All
        randomness comes from ``rng``. A rollout that fails scores 0: it never raises.
        """
        ...


class FastLearner(Protocol[W_contra, C, K_contra]):
    """Improves the context, given the weights."""

    def step(self, weights: W_contra, context: C, task: K_contra, rng: np.random.Generator) -> tuple[C, StepInfo]:
        """One round of the context on ``task``.

        It must leave ``weights`` alone, and return a context rather than change the one it was given. Scores that it
        remembers from older weights are stale: score again. ``samples`` counts every rollout it asked for.
        """
        ...


class FrozenSlow(Generic[W]):
    """Slow weights that stay as they are: prompt evolution alone."""

    def step(self, weights: W, context: Any, task: Any, rng: np.random.Generator) -> tuple[W, StepInfo]:  # noqa: ARG002
        """Return ``weights`` unchanged, at no cost."""
        return weights, StepInfo()


class FrozenFast(Generic[C]):
    """A context that stays as it is: reinforcement learning (or fine-tuning) alone."""

    def step(self, weights: Any, context: C, task: Any, rng: np.random.Generator) -> tuple[C, StepInfo]:  # noqa: ARG002
        """Return ``context`` unchanged, at no cost."""
        return context, StepInfo()


@dataclass(frozen=True)
class FastSlowState(Generic[W, C]):
    """Where a run stands: all that is needed to continue it, together with the state of its generator.

    ``step`` counts slow steps over all tasks, ``step_in_task`` those on task number ``task``. ``samples`` are those
    of both channels. ``slow`` and ``fast`` are the infos of the last slow step and the last fast round.
    """

    weights: W
    context: C
    step: int = 0
    task: int = 0
    step_in_task: int = 0
    slow_samples: int = 0
    fast_samples: int = 0
    slow: StepInfo = field(default_factory=StepInfo)
    fast: StepInfo = field(default_factory=StepInfo)

    @property
    def samples(self) -> int:
        """Samples drawn so far by the slow and the fast channel together."""
        return self.slow_samples + self.fast_samples


@dataclass(frozen=True)
class Schedule(Generic[W, C, K]):
    """When the channels move, and what happens where one task ends and the next begins."""

    steps_per_task: int | Sequence[int]
    """slow steps on each task, or one number for each"""
    slow_steps_per_round: int
    """T: a fast round before slow steps 1, T + 1, 2 T + 1, ... of a task"""
    fresh_context: Callable[[K], C] | None = None
    """the context that a later task starts with; without it the old one is kept"""
    stage_done: Callable[[FastSlowState[W, C]], bool] | None = None
    """asked after every step: ends a task before its steps are used up"""


def fast_slow(
    tasks: Sequence[K],
    slow: SlowLearner[W, C, K],
    fast: FastLearner[W, C, K],
    state: FastSlowState[W, C],
    schedule: Schedule[W, C, K],
    rng: np.random.Generator,
) -> Iterator[FastSlowState[W, C]]:
    """Train on ``tasks`` one after the other, without interruption; yields the state after every slow step.

    The two channels take turns as ``schedule`` says; weights are carried over from the task before.
    To continue a run, pass the last state it yielded and a generator in the state it had then. Weights that a learner
    changes in place are the same object in every state: measure before asking for the next one.
    Raises InputError, before any work, on no tasks, step numbers below 1 or a state beyond the last task.
    """
    each, every = schedule.steps_per_task, schedule.slow_steps_per_round
    budgets = [each] * len(tasks) if isinstance(each, int) else list(each)
    if not tasks:
        raise InputError("tasks must not be empty")
    if len(budgets) != len(tasks) or any(b < 1 for b in budgets):
        raise InputError(f"steps_per_task must be one number of at least 1, or one for each task; got {each!r}")
    if every < 1:
        raise InputError(f"slow_steps_per_round must be at least 1, got {every}")
    if not 0 <= state.task < len(tasks):
        raise InputError(f"state is at task {state.task}, but there are {len(tasks)} tasks (counted from 0)")
    return _run(tasks, slow, fast, state, replace(schedule, steps_per_task=budgets), rng)


def _run(
    tasks: Sequence[K],
    slow: SlowLearner[W, C, K],
    fast: FastLearner[W, C, K],
    state: FastSlowState[W, C],
    schedule: Schedule[W, C, K],
    rng: np.random.Generator,
) -> Iterator[FastSlowState[W, C]]:
    budgets, fresh_context, stage_done = schedule.steps_per_task, schedule.fresh_context, schedule.stage_done
    assert not isinstance(budgets, int)  # one for each task by now
    while True:
        over = state.step_in_task >= budgets[state.task]
        if over or (state.step_in_task > 0 and stage_done is not None and stage_done(state)):
            if state.task + 1 == len(tasks):
                return
            state = replace(state, task=state.task + 1, step_in_task=0)
            if fresh_context is not None:
                state = replace(state, context=fresh_context(tasks[state.task]))
        task = tasks[state.task]
        if state.step_in_task % schedule.slow_steps_per_round == 0:
            context, info = fast.step(state.weights, state.context, task, rng)
            state = replace(state, context=context, fast=info, fast_samples=state.fast_samples + info.samples)
        weights, info = slow.step(state.weights, state.context, task, rng)
        state = replace(
            state,
            weights=weights,
            slow=info,
            slow_samples=state.slow_samples + info.samples,
            step=state.step + 1,
            step_in_task=state.step_in_task + 1,
        )
        yield state


# --- the toy learners ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModeTask:
    """A task on which the behaviour with log-odds ``sign * s`` is the right one: +1 or -1, so that -1 conflicts with +1."""

    sign: int = 1

    def __post_init__(self) -> None:
        if self.sign not in (1, -1):
            raise InputError(f"sign must be 1 or -1, got {self.sign!r}")

    def log_odds(self, weights: Array, context: Array) -> Array:
        """Log-odds of success in each context, ``(*replicates)`` and ``(K, *replicates)`` to ``(K, *replicates)``."""
        return self.sign * weights + context


def group_update(successes: NDArray[np.int64], group: int, probability: Array, advantage: Advantage) -> Array:
    r"""Realised policy-gradient update of each context's own logit, ``(..., K, *replicates)``, before the mean over rollouts.

    ``successes`` of ``group / K`` rollouts in each of the K contexts (axis -1 - replicate axes of ``probability``);
    one baseline X, and one standard deviation D if ``normalised``, for the whole group. Each rollout contributes
    ``(r - X)(r - p) / (G D)``, never negative. Their sum over K is the update of the shared logit. ``plain`` is the
    leave-one-out baseline, factor G / (G - 1), whose expectation is the exact gradient.
    """
    axis = successes.ndim - probability.ndim
    rollouts = group // probability.shape[0]
    mean = successes.sum(axis=axis, keepdims=True) / group
    gains = successes * (1.0 - mean) * (1.0 - probability) + (rollouts - successes) * mean * probability
    if advantage == "plain":
        return gains / (group - 1)
    spread = np.sqrt(mean * (1.0 - mean))
    return np.divide(gains, group * spread, out=np.zeros(gains.shape), where=spread > 0.0)


def _check_sampling(lr: float, group: int, groups: int, advantage: str) -> None:
    if not (np.isfinite(lr) and lr >= 0.0):
        raise InputError(f"lr must be nonnegative and finite, got {lr!r}")
    if group < 2:
        raise InputError(f"group must be at least 2, got {group}")
    if groups < 1:
        raise InputError(f"groups must be at least 1, got {groups}")
    if advantage not in get_args(Advantage):
        raise InputError(f"advantage must be one of {', '.join(get_args(Advantage))}; got {advantage!r}")


def _check_capacity(capacity: float) -> None:
    if not capacity >= 0.0:
        raise InputError(f"capacity must be nonnegative (inf for no limit), got {capacity!r}")


def _draw(
    probability: Array, group: int, groups: int, advantage: Advantage, rng: np.random.Generator
) -> tuple[Array, float]:
    """Mean over ``groups`` groups of each context's own update, and the mean reward."""
    if group % probability.shape[0]:
        raise InputError(f"group must be a multiple of the number of contexts, got {group} for {probability.shape[0]}")
    k = rng.binomial(group // probability.shape[0], probability, size=(groups, *probability.shape))
    update = group_update(k, group, probability, advantage).mean(axis=0)
    return update, float(k.sum(axis=1).mean() / group)


@dataclass(frozen=True)
class SlowPolicyGradient:
    """Policy gradient on the slow log-odds: ``groups`` groups of ``group`` rollouts, shared out over the contexts.

    ``normalised`` divides a group's advantages by its standard deviation (GRPO, CISPO), ``plain`` does not. A learner
    whose success rate is at ``sigma(stop)`` or above is left as it is (early stopping; rollouts are still counted).
    """

    lr: float
    group: int = 8
    groups: int = 1
    advantage: Advantage = "plain"
    stop: float = np.inf

    def __post_init__(self) -> None:
        _check_sampling(self.lr, self.group, self.groups, self.advantage)

    def step(self, weights: Array, context: Array, task: ModeTask, rng: np.random.Generator) -> tuple[Array, StepInfo]:
        """``weights (*replicates)``, ``context (K, *replicates)``."""
        p = expit(task.log_odds(weights, context))
        update, reward = _draw(p, self.group, self.groups, self.advantage, rng)
        moved = weights + task.sign * self.lr * np.where(p.mean(axis=0) < expit(self.stop), update.sum(axis=0), 0.0)
        return moved, StepInfo(self.group * self.groups, {"reward": reward})


@dataclass(frozen=True)
class GradientFast:
    """Fast channel F1: policy gradient on each context's own logit, from groups of its own, up to ``capacity``.

    Gated by the same mobility as the weights: without successes it does not move. Samples: K x group x groups.
    """

    lr: float
    capacity: float
    group: int = 8
    groups: int = 1
    advantage: Advantage = "plain"
    stop: float = np.inf

    def __post_init__(self) -> None:
        _check_sampling(self.lr, self.group, self.groups, self.advantage)
        _check_capacity(self.capacity)

    def step(self, weights: Array, context: Array, task: ModeTask, rng: np.random.Generator) -> tuple[Array, StepInfo]:
        """``weights (*replicates)``, ``context (K, *replicates)``."""
        p = expit(task.log_odds(weights, context))
        drawn = [_draw(each[None], self.group, self.groups, self.advantage, rng) for each in p]
        update = np.concatenate([own for own, _ in drawn])
        moved = np.minimum(context + self.lr * np.where(p < expit(self.stop), update, 0.0), self.capacity)
        reward = float(np.mean([mean for _, mean in drawn]))
        return moved, StepInfo(p.shape[0] * self.group * self.groups, {"reward": reward})


@dataclass(frozen=True)
class SearchFast:
    """Fast channel F2: every round adds ``gain`` nats to each context, up to ``capacity``, at ``samples`` rollouts.

    It reads failures, so that it moves before the first success (reflective prompt evolution).
    """

    gain: float
    capacity: float
    samples: int
    stop: float = np.inf

    def __post_init__(self) -> None:
        if not (np.isfinite(self.gain) and self.gain >= 0.0):
            raise InputError(f"gain must be nonnegative and finite, got {self.gain!r}")
        if self.samples < 0:
            raise InputError(f"samples must be nonnegative, got {self.samples}")
        _check_capacity(self.capacity)

    def step(
        self,
        weights: Array,
        context: Array,
        task: ModeTask,
        rng: np.random.Generator,  # noqa: ARG002 -- its gain is not random
    ) -> tuple[Array, StepInfo]:
        """``weights (*replicates)``, ``context (K, *replicates)``."""
        gain = np.where(task.log_odds(weights, context) < self.stop, self.gain, 0.0)
        return np.minimum(context + gain, self.capacity), StepInfo(self.samples)
