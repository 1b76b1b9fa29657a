"""Exact forward-KL updates a second on one core, their error, and what a Monte-Carlo update costs instead.

10,000 learners with their own weights and means take 200 exact descent steps; then the same gradient is estimated
from 1000 samples. Reported, never asserted: times. Asserted: the error of the gradients that were followed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from fstsim import ForwardKL, GradientDescent, TwoModeProblem, TwoModeState, simulate

LEARNERS, STEPS, SAMPLES = 10_000, 200, 1000
PROBLEM = TwoModeProblem.separated(4.0)
OBJECTIVE = ForwardKL(PROBLEM)


@pytest.fixture(autouse=True)
def one_core() -> Iterator[None]:
    """The process stays on one core; `make bench` also gives linear algebra one thread."""
    if sys.platform != "linux":
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    yield
    os.sched_setaffinity(0, cores)


def learners(count: int, rng: np.random.Generator) -> TwoModeState:
    old, new = (m + rng.normal(scale=0.5, size=(count, 1)) for m in (PROBLEM.mean_old, PROBLEM.mean_new))
    return TwoModeState(rng.uniform(-3.0, 3.0, count), old, new)


def integrated_gradient(state: TwoModeState) -> np.ndarray:
    """``(..., 3)``: the definition ``-E_new[grad log q]`` on a grid of 4000 nodes, ten times finer than it has to be."""
    u, step = np.linspace(-10.0, 10.0, 4001, retstep=True)
    density = step * np.exp(-0.5 * u * u) / np.sqrt(2.0 * np.pi)
    x = PROBLEM.mean_new + u
    s, old, new = state.log_odds[:, None], state.mean_old, state.mean_new
    r = expit(s + (old - new) * (x - 0.5 * (old + new)))
    return -np.stack([(r - expit(s)) @ density, (r * (x - old)) @ density, ((1.0 - r) * (x - new)) @ density], axis=-1)


def report(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with capsys.disabled():
        print(f"\n{text}")


def test_exact_updates(benchmark: Any, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]) -> None:
    initial, optimizer = learners(LEARNERS, rng), GradientDescent(lr=0.05)
    run = benchmark.pedantic(
        simulate, args=(PROBLEM, OBJECTIVE, initial, optimizer, STEPS), rounds=3, iterations=1, warmup_rounds=1
    )
    rows, columns = rng.integers(0, STEPS + 1, 1000), rng.integers(0, LEARNERS, 1000)
    met = TwoModeState(run.log_odds[rows, columns], run.mean_old[rows, columns], run.mean_new[rows, columns])
    g = OBJECTIVE.gradient(met)
    exact = np.concatenate([g.log_odds[:, None], g.mean_old, g.mean_new], axis=-1)
    error = float(np.abs(exact - integrated_gradient(met)).max())
    assert error <= 1e-10

    seconds = benchmark.stats.stats.min / (LEARNERS * STEPS)
    benchmark.extra_info.update(updates_per_second=1.0 / seconds, largest_gradient_error=error)
    report(capsys, f"exact: {1.0 / seconds:,.0f} updates/s ({1e6 * seconds:.2f} us each), gradient error {error:.1e}")


def test_monte_carlo_updates(benchmark: Any, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]) -> None:
    count = 200
    state = learners(count, rng)
    estimate = benchmark.pedantic(
        OBJECTIVE.estimate, args=(state, rng, SAMPLES), rounds=10, iterations=1, warmup_rounds=1
    )
    error = float(np.sqrt(np.mean((estimate.log_odds - OBJECTIVE.gradient(state).log_odds) ** 2)))
    seconds = benchmark.stats.stats.min / count
    benchmark.extra_info.update(updates_per_second=1.0 / seconds, root_mean_square_error=error)
    report(
        capsys,
        f"{SAMPLES} samples: {1.0 / seconds:,.0f} updates/s ({1e6 * seconds:.1f} us each), rms error {error:.1e}",
    )
