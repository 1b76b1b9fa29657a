"""The declared runs of an experiment, as tables and figures ask for them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

from fstsim.llm.experiments.experiment import Experiment
from fstsim.llm.experiments.plan import Planned

K = TypeVar("K", bound=Hashable)


def grouped(experiment: Experiment, key: Callable[[Planned], K]) -> dict[K, list[Planned]]:
    """The runs of an experiment by what they have in common, in the order in which they are declared."""
    found: dict[K, list[Planned]] = {}
    for run in experiment.runs("small"):  # has the runs of every scale
        found.setdefault(key(run), []).append(run)
    return found


def kind_and_task(run: Planned) -> tuple[str, str]:
    """What the runs of core are compared within: hard or easy, and the task."""
    return run.kind, run.task


def task(run: Planned) -> str:
    """What other runs are compared within."""
    return run.task
