"""A claim: one row of the table of verdicts, with the runs that it needs and how its number is read from their rows.

A claim either has its value from the base alone, or needs one number of the runs' beginning (a clock, a rate, what the
first stage left behind): then it says which, before the runs, and its value is computed afterwards from that number and
nothing else. Chapters of claims are in ``equilibria``, ``times``, ``methods``, ``distance``,
``sequences`` and ``forecasts``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fstsim.crossings import first_crossing
from fstsim.llm.experiments.plan import Planned
from fstsim.llm.measure.loading import load_checkpoint
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.recorded import read_metrics
from fstsim.llm.validation.prediction import Prediction

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Records:
    """What the runs below ``out`` left, and the base they began from; rows after step ``last`` are left out."""

    out: Path
    seeds: int
    base: Policy
    last: float = math.inf

    def place(self, name: str, seed: int) -> Path:
        """Directory of one run."""
        return self.out / "runs" / name / f"seed-{seed}"

    def rows(self, name: str) -> list[Rows]:
        """Rows of a run, a list a seed."""
        return [
            [row for row in read_metrics(self.place(name, seed)) if row["step"] <= self.last]
            for seed in range(self.seeds)
        ]

    def trained(self, name: str, seed: int) -> Policy:
        """The model at the end of a run, its adapter merged into the base where it trained one."""
        return load_checkpoint(str(self.place(name, seed) / "model"), self.base)

    def finished(self, names: Sequence[str]) -> bool:
        """Whether all seeds of these runs have come to their end."""
        return all((self.place(n, seed) / "summary.json").exists() for n in names for seed in range(self.seeds))


@dataclass(frozen=True)
class Ahead:
    """What is known before the runs: the directory of the validation, and the ``runs`` as they are planned, by name."""

    out: Path
    runs: Mapping[str, Planned]


@dataclass(frozen=True)
class Claim:
    """A prediction, the runs it ``needs``, and the measurement: one number a seed, nan where a seed has none.

    ``calibrated`` gives value and interval of a prediction that names a ``calibration``. ``ahead`` gives them before the runs
    where that is long work (a forecast, kept in the directory): it is done only when the chapter is chosen, when everything
    else is checked and before predictions are written. Until then ``prediction`` has no numbers.
    """

    prediction: Prediction
    needs: tuple[str, ...]
    measured: Callable[[Records], Sequence[float]]
    calibrated: Callable[[Records], Prediction] | None = None
    ahead: Callable[[Ahead], Prediction] | None = None


@dataclass(frozen=True)
class Chapter:
    """Claims and the runs that they need; a run may be needed by several chapters under the same name."""

    claims: tuple[Claim, ...]
    runs: tuple[Planned, ...] = ()


def curve(rows: Rows, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of the rows in which ``column`` was measured."""
    found = [(row["step"], row[column]) for row in rows if row.get(column) is not None]
    return np.array([s for s, _ in found], dtype=float), np.array([v for _, v in found], dtype=float)


def settled(name: str, column: str) -> Callable[[Records], list[float]]:
    """Mean over the last quarter of the measurements of ``column``, a number a seed."""

    def read(records: Records) -> list[float]:
        values = [curve(rows, column)[1] for rows in records.rows(name)]
        return [float(v[-max(1, len(v) // 4) :].mean()) for v in values]

    return read


def steps_to(rows: Rows, level: float) -> float:
    """Slow steps until the held-out reward reaches ``level``; nan if the run ends before."""
    return first_crossing(*curve(rows, "reward"), level, "log-odds")
