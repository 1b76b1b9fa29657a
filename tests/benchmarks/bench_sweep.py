"""What 100,000 different trajectories of 500 exact reverse-KL updates would take on one core, from short chunks of that grid.

Reported, never asserted: CPU seconds, and how many times one division and one multiply-add a node of the plain sums they are.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fstsim.logistic_normal import _CORRECTED, _PLAIN
from fstsim.sweep import CHUNK, SweepConfig, _run_settings

numba = pytest.importorskip("numba", reason="the floor is that of a compiled loop")
TRAJECTORIES, STEPS, SHORT = 100_000, 500, 10


def _spread(first: float, last: float, count: int) -> tuple[float, ...]:
    return tuple(np.linspace(first, last, count).tolist())


GRID = SweepConfig(
    separation=(2.0, 4.0, 6.0),
    alpha=_spread(0.1, 0.9, 25),
    beta0=_spread(0.1, 0.9, 27),
    new_error=_spread(-1.0, 1.0, 10),
    lr=_spread(0.05, 0.3, 5),
    steps=SHORT,
)


@numba.njit(fastmath=True)
def _floor(points: np.ndarray, weights: np.ndarray) -> float:
    total = 0.0
    for x in points:
        for w in weights:
            total += w / (1.0 + x * w)
    return total


def _fastest(call: Any, calls: int = 15) -> float:
    best = np.inf
    for _ in range(calls):
        start = time.process_time()
        call()
        best = min(best, time.process_time() - start)
    return float(best)


def _nodes(scale: float) -> int:
    """Nodes of the plain sums in one update: mean and softplus, of learner and target, at both of the learner's modes."""
    level = round(4.0 * np.log2(scale))
    return 4 * (_CORRECTED[level].weights.size + _PLAIN[level].weights.size)


def test_exact_updates_of_a_sweep(benchmark: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def seconds() -> float:
        """Of one update, over a few chunks; what comes before the first and after the last is taken off."""
        found = []
        for number in (2, 12, 20, 25, 30, 40, 48):
            grid = GRID.settings(number * CHUNK, (number + 1) * CHUNK)
            long, short = (
                _fastest(lambda steps=steps, grid=grid: _run_settings(replace(GRID, steps=steps), grid, 0))
                for steps in (SHORT + 2, 2)
            )
            found.append((long - short) / (SHORT * CHUNK))
        return float(np.mean(found))

    update = benchmark.pedantic(seconds, rounds=1, iterations=1, warmup_rounds=0)
    points, weights = np.full(2000, 0.5), np.random.default_rng(0).random(256)
    _floor(points, weights)
    node = _fastest(lambda: _floor(points, weights)) / (points.size * weights.size)
    floor = float(np.mean([_nodes(separation) for separation in GRID.separation])) * node
    total = update * TRAJECTORIES * STEPS
    benchmark.extra_info.update(cpu_seconds=total, over_floor=update / floor)
    with capsys.disabled():
        print(
            f"\n100,000 x 500 exact updates: {total:.0f} CPU s ({1e9 * update:.0f} ns each), {update / floor:.2f} floors"
        )
