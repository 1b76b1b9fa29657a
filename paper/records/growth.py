"""How time and memory grow: ``python -m fstsim.paper.records.growth`` measures it and writes ``paper/data/benchmarks/growth.json``.

Every point is a process of its own with one thread: CPU seconds of the fastest of a few calls, and by how much the calls
raised the process's largest memory. The documentation's table is written from the record by ``make readme``.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from fstsim.front.console import Progress, show
from fstsim.front.entry import run_module
from fstsim.paper import DATA
from fstsim.records import environment, plain, write_json

Call = Callable[[], object]
UPDATES = 20
"""Updates of every learner in a timed simulation."""
_CALLS = 3


@dataclass(frozen=True)
class Axis:
    """What grows: ``make(value)`` prepares one point, and returns the call that is timed and how many units it makes."""

    name: str
    unit: str
    """what the seconds are of"""
    values: tuple[float, ...]
    make: Callable[[float], tuple[Call, int]]


def _simulation(learners: int, dimension: int) -> tuple[Call, int]:
    from fstsim import GradientDescent, ReverseKL, TwoModeProblem, TwoModeState, simulate

    rng = np.random.default_rng(0)
    problem = TwoModeProblem.separated(4.0, dimension=dimension)
    old, new = (
        m + rng.normal(scale=0.5 / np.sqrt(dimension), size=(learners, dimension))
        for m in (problem.mean_old, problem.mean_new)
    )
    state = TwoModeState(rng.uniform(-3.0, 3.0, learners), old, new)
    objective = ReverseKL(problem)
    return lambda: simulate(problem, objective, state, GradientDescent(lr=0.05), UPDATES), UPDATES


def learners(count: float) -> tuple[Call, int]:
    """Exact reverse-KL updates of so many learners in one dimension."""
    return _simulation(int(count), 1)


def dimensions(count: float) -> tuple[Call, int]:
    """Exact reverse-KL updates of a thousand learners in so many dimensions."""
    return _simulation(1000, int(count))


def modes(count: float) -> tuple[Call, int]:
    """KL of two mixtures of so many modes on a line, by quadrature."""
    from fstsim.general import kl_divergence
    from fstsim.mixtures import GaussianMixture

    k = int(count)
    p, q = (
        GaussianMixture(np.full(k, 1.0 / k), 4.0 * np.arange(k)[:, None] + shift, np.ones((k, 1, 1)))
        for shift in (0.0, 0.5)
    )
    return lambda: kl_divergence(p, q), 1


def _reinforcement(
    model: str, task: str, problems: int, rollouts: int, contexts: int = 1, tokens: int = 8
) -> tuple[Call, int]:
    import torch

    from fstsim.llm.learners.policy_gradient import PolicyGradient
    from fstsim.llm.learners.weights import Weights
    from fstsim.llm.policy.policy import Policy
    from fstsim.llm.tasks.parse import parse_task
    from fstsim.llm.types import Population

    torch.set_num_threads(1)
    policy, base = Policy.load(model), Policy.load(model)
    policy.model.requires_grad_(True)
    weights = Weights(policy, base, torch.optim.AdamW(policy.model.parameters(), lr=1e-6))
    learner = PolicyGradient(problems=problems, rollouts=rollouts, max_new_tokens=tokens, leash_loss=1e-3)
    words = ("plus", "plus plus", "plus flip", "flip", "shift", "negate", "triple", "plus shift")[:contexts]
    population = Population(words if contexts > 1 else ("",), (0.0,) * max(contexts, 1))
    asked, rng = parse_task(task), np.random.default_rng(0)
    # the leash gives every group a gradient, so that each call makes a whole step
    return lambda: learner.step(weights, population, asked, rng), 1


def prompts(count: float) -> tuple[Call, int]:
    """A CISPO step of so many problems with 8 rollouts each, shipped model."""
    return _reinforcement("base", "digits:plus", int(count), 8)


def populations(count: float) -> tuple[Call, int]:
    """A CISPO step of 24 problems with 8 rollouts shared out over so many contexts, shipped model."""
    return _reinforcement("base", "digits:plus", 24, 8, int(count))


def sizes(million: float) -> tuple[Call, int]:
    """A CISPO step of 4 problems with 6 rollouts of up to 16 tokens, of the model that has so many million weights."""
    model = MODELS[million]
    return _reinforcement(model, "language:plural:form" if model == "smollm2" else "digits:plus", 4, 6, tokens=16)


MODELS = {0.11: "tiny", 0.86: "base", 134.5: "smollm2"}
"""Models by their number of weights in millions."""

AXES = (
    Axis("learners of the mixture, one dimension", "update of all", (1e2, 1e3, 1e4, 1e5), learners),
    Axis("dimension of the mixture, 1,000 learners", "update of all", (1, 4, 16, 64, 256), dimensions),
    Axis("modes of two general mixtures", "KL by quadrature", (2, 4, 8, 16, 32), modes),
    Axis("problems a step, 8 rollouts each, shipped model", "CISPO step", (6, 12, 24, 48, 96), prompts),
    Axis("contexts of the population, 24 x 8 rollouts", "CISPO step", (1, 2, 4, 8), populations),
    Axis("million weights, 4 x 6 rollouts", "CISPO step", tuple(MODELS), sizes),
)


@dataclass(frozen=True)
class Point:
    """One measurement: the axis by name, the value, CPU seconds a unit, and megabytes."""

    axis: str
    value: float
    seconds: float
    megabytes: float


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def measure(axis: int, value: float) -> tuple[float, float]:
    """CPU seconds a unit and megabytes of one point, in this process."""
    call, units = AXES[axis].make(value)
    before = _peak()
    seconds = []
    for _ in range(_CALLS):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return min(seconds) / units, _peak() - before


@dataclass(frozen=True)
class Config:
    """Measure how time and memory grow with everything that can be made larger; a quarter of an hour on an idle core."""

    out: Path = DATA / "benchmarks" / "growth.json"
    """file to write"""


def rewrite(config: Config) -> int:
    """Measure every point in a process of its own, and write the record."""
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    pieces = [(k, value) for k, axis in enumerate(AXES) for value in axis.values]
    progress = Progress("growth", len(pieces), "points")
    points = []
    for k, value in pieces:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            seconds, megabytes = pool.apply(measure, (k, value))
        points.append(asdict(Point(AXES[k].name, value, seconds, megabytes)))
        progress.add(1, AXES[k].name)
    progress.close()
    write_json(config.out, plain({"environment": environment(), "points": points}))
    show(f"{len(points)} points: {config.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_module("fstsim.paper.records.growth", Config, rewrite))
