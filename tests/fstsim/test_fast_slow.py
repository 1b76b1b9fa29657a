"""The interleaving loop and its toy learners: order of the steps, counts, resumption, and exact one-step expectations."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from fstsim.errors import InputError
from fstsim.fast_slow import (
    FastSlowState,
    FrozenFast,
    FrozenSlow,
    GradientFast,
    ModeTask,
    Schedule,
    SearchFast,
    SlowPolicyGradient,
    StepInfo,
    fast_slow,
    group_update,
)

SEED = st.integers(0, 2**32 - 1)


@dataclass
class CountingSlow:
    """Weights are a number; each step adds 1 and costs 10 samples."""

    log: list[tuple[str, str, int, str]] = field(default_factory=list)

    def step(self, weights: int, context: str, task: str, rng: np.random.Generator) -> tuple[int, StepInfo]:
        self.log.append(("slow", task, weights, context))
        return weights + 1, StepInfo(10, {"draw": float(rng.random())})


@dataclass
class CountingFast:
    """The context is a string; each round appends a letter and costs 3 samples."""

    log: list[tuple[str, str, int, str]]

    def step(self, weights: int, context: str, task: str, rng: np.random.Generator) -> tuple[str, StepInfo]:
        self.log.append(("fast", task, weights, context))
        return context + ("x" if rng.random() < 0.5 else "y"), StepInfo(3)


def run(state: FastSlowState[int, str], rng: np.random.Generator, **options: object) -> tuple[list, list]:
    slow = CountingSlow()
    how = {"steps_per_task": [5, 3], "slow_steps_per_round": 2, "fresh_context": lambda task: task[0], **options}
    states = list(fast_slow(["ab", "cd"], slow, CountingFast(slow.log), state, Schedule(**how), rng))
    return slow.log, states


def test_order_counts_and_switch(rng: np.random.Generator) -> None:
    log, states = run(FastSlowState(0, "seed"), rng)
    # a round before slow steps 1, 3, 5 of a task of 5 steps, and 1, 3 of a task of 3; weights carry over
    assert [entry[0] for entry in log] == ["fast", "slow", "slow"] * 2 + ["fast", "slow"] + [
        *("fast", "slow", "slow"),
        *("fast", "slow"),
    ]
    assert [entry[2] for entry in log if entry[0] == "slow"] == list(range(8))
    assert [s.task for s in states] == [0] * 5 + [1] * 3
    assert [s.step for s in states] == list(range(1, 9))
    assert [s.step_in_task for s in states] == [1, 2, 3, 4, 5, 1, 2, 3]
    assert states[-1].slow_samples == 80
    assert states[-1].fast_samples == 15
    assert states[-1].samples == 95
    # the context of the second task starts from its fresh one and keeps what the rounds added
    assert states[4].context.startswith("seed")
    assert states[5].context[0] == "c"
    assert len(states[-1].context) == 3


def test_context_is_kept_without_a_fresh_one(rng: np.random.Generator) -> None:
    _, states = run(FastSlowState(0, "seed"), rng, fresh_context=None)
    assert states[-1].context.startswith(states[4].context)


@given(stop=st.integers(1, 7), seed=SEED)
def test_resumed_run_equals_uninterrupted(stop: int, seed: int) -> None:
    _, whole = run(FastSlowState(0, "seed"), np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    slow = CountingSlow()
    iterator = fast_slow(
        ["ab", "cd"],
        slow,
        CountingFast(slow.log),
        FastSlowState(0, "seed"),
        Schedule([5, 3], 2, fresh_context=lambda task: task[0]),
        rng,
    )
    first = [next(iterator) for _ in range(stop)]
    # a fresh generator in the state that the first had after its last step
    again = np.random.default_rng()
    again.bit_generator.state = rng.bit_generator.state
    _, rest = run(first[-1], again)
    assert first + rest == whole


def test_a_finished_run_yields_nothing(rng: np.random.Generator) -> None:
    _, states = run(FastSlowState(0, "seed"), rng)
    assert run(states[-1], rng)[1] == []


def test_early_stop_goes_on_with_the_next_task(rng: np.random.Generator) -> None:
    _, states = run(FastSlowState(0, "seed"), rng, stage_done=lambda s: s.weights == 2)
    assert [s.task for s in states] == [0, 0, 1, 1, 1]
    assert [s.weights for s in states] == [1, 2, 3, 4, 5]


def test_baselines_are_frozen_channels(rng: np.random.Generator) -> None:
    slow = CountingSlow()
    how = Schedule(4, 2), rng
    alone = list(fast_slow(["a"], slow, FrozenFast(), FastSlowState(0, "seed"), *how))
    assert {s.context for s in alone} == {"seed"}
    assert alone[-1].samples == 40
    fast_only = list(fast_slow(["a"], FrozenSlow(), CountingFast([]), FastSlowState(7, "seed"), *how))
    assert {s.weights for s in fast_only} == {7}
    assert fast_only[-1].samples == fast_only[-1].fast_samples == 6
    nothing = list(fast_slow(["a"], FrozenSlow(), FrozenFast(), FastSlowState(7, "seed"), *how))
    assert nothing[-1].samples == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": []}, "tasks must not be empty"),
        ({"steps_per_task": 0}, "steps_per_task"),
        ({"steps_per_task": [1, 2]}, "steps_per_task"),
        ({"slow_steps_per_round": 0}, "slow_steps_per_round"),
        ({"state": FastSlowState(0, "", task=1)}, "task 1"),
    ],
)
def test_malformed_loop(change: dict, message: str, rng: np.random.Generator) -> None:
    args = {"tasks": ["a"], "slow": FrozenSlow(), "fast": FrozenFast(), "state": FastSlowState(0, "")}
    how = {"steps_per_task": 3, "slow_steps_per_round": 1}
    for name, value in change.items():
        (args if name in args else how)[name] = value
    with pytest.raises(InputError, match=message):
        fast_slow(*args.values(), Schedule(**how), rng)  # before the first state is asked for


# --- the toy learners ------------------------------------------------------------------------------------------------


@given(
    seed=SEED,
    contexts=st.integers(1, 4),
    per_context=st.integers(1, 4),
    normalised=st.booleans(),
)
def test_group_update_is_mean_of_advantage_times_score(
    seed: int, contexts: int, per_context: int, normalised: bool
) -> None:
    """Against a plain loop over rollouts, with the usual formulas for advantages and scores."""
    rng = np.random.default_rng(seed)
    group = contexts * per_context
    if group < 2:
        group, per_context = 2, 2
        contexts = 1
    p = rng.random(contexts)
    rewards = rng.integers(0, 2, (contexts, per_context))
    advantage = rewards - rewards.mean()
    if normalised:
        advantage = advantage / rewards.std() if rewards.std() > 0 else 0.0 * advantage
    else:
        advantage = advantage * group / (group - 1)
    expected = [
        sum(advantage[c, i] * (rewards[c, i] - p[c]) for i in range(per_context)) / group for c in range(contexts)
    ]
    got = group_update(rewards.sum(axis=1)[None], group, p, "normalised" if normalised else "plain")[0]
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-15)
    assert (got >= 0.0).all()  # no context is ever pushed down


@pytest.mark.parametrize("sign", [1, -1])
def test_plain_step_is_unbiased(sign: int, rng: np.random.Generator) -> None:
    """Mean of 200,000 steps against ``lr sigma'(x)``; the step is within [0, lr], so 6 standard errors are a real limit."""
    s, phi, lr = -1.3, 0.4, 0.7
    learner = SlowPolicyGradient(lr, group=6)
    weights = np.full(200_000, s)
    moved, info = learner.step(weights, np.full((1, weights.size), phi), ModeTask(sign), rng)
    step = sign * (moved - weights)
    p = expit(sign * s + phi)
    assert abs(step.mean() - lr * p * (1 - p)) < 6.0 * step.std() / np.sqrt(step.size)
    assert info.samples == 6


def test_search_needs_no_success_and_gradient_does(rng: np.random.Generator) -> None:
    hopeless, empty = np.array([-60.0]), np.zeros((2, 1))
    search, _ = SearchFast(0.5, 1.2, 8).step(hopeless, empty, ModeTask(), rng)
    gradient, info = GradientFast(0.5, 1.2, group=8).step(hopeless, empty, ModeTask(), rng)
    assert (search == 0.5).all()
    assert (gradient == 0.0).all()
    assert info.samples == 16  # a group for each context
    for _ in range(3):
        search, _ = SearchFast(0.5, 1.2, 8).step(hopeless, search, ModeTask(), rng)
    assert (search == 1.2).all()


def test_stop_freezes_a_learner_that_is_done(rng: np.random.Generator) -> None:
    weights, empty = np.array([0.0, 3.0]), np.zeros((1, 2))
    moved = weights
    for _ in range(20):
        moved, _ = SlowPolicyGradient(0.2, stop=2.0).step(moved, empty, ModeTask(), rng)
    assert moved[1] == 3.0
    assert moved[0] > 0.0
    done, _ = SearchFast(0.1, 5.0, 1, stop=2.0).step(weights, empty, ModeTask(), rng)
    assert done.ravel().tolist() == [0.1, 0.0]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ModeTask(2), "sign must be 1 or -1"),
        (lambda: SlowPolicyGradient(-0.1), "lr must be nonnegative"),
        (lambda: SlowPolicyGradient(0.1, group=1), "group must be at least 2"),
        (lambda: SlowPolicyGradient(0.1, groups=0), "groups must be at least 1"),
        (lambda: SlowPolicyGradient(0.1, advantage="std"), "advantage must be one of"),
        (lambda: GradientFast(0.1, -1.0), "capacity must be nonnegative"),
        (lambda: GradientFast(0.1, float("nan")), "capacity must be nonnegative"),
        (lambda: SearchFast(float("inf"), 1.0, 1), "gain must be nonnegative and finite"),
        (lambda: SearchFast(0.1, 1.0, -1), "samples must be nonnegative"),
    ],
)
def test_malformed_learners(build: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()


def test_group_must_divide_over_the_contexts(rng: np.random.Generator) -> None:
    with pytest.raises(InputError, match="multiple of the number of contexts"):
        SlowPolicyGradient(0.1, group=8).step(np.zeros(1), np.zeros((3, 1)), ModeTask(), rng)


def test_states_are_values() -> None:
    state = FastSlowState(0, "a", slow_samples=3, fast_samples=4)
    assert replace(state, step=1) != state
    assert state.samples == 7
