"""What the claims are held against: recorded runs by name, judged predictions by kind, and the ends of all runs."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fstsim.association import over_groups, spearman
from fstsim.errors import InputError
from fstsim.llm.runs.recorded import read_metrics
from fstsim.paper import DATA
from fstsim.paper.bridge.numbers import Verdict, read_verdicts
from fstsim.paper.experiments.numbers import Curves, Estimate, estimate, read_curves
from fstsim.records import read_json

Array = NDArray[np.float64]


@dataclass(frozen=True)
class End:
    """A recorded run of one seed: its method, tasks, learning rate and leash, and its first and last row."""

    run: str
    method: str
    tasks: tuple[str, ...]
    lr: float
    leash: float
    first: Mapping[str, Any]
    last: Mapping[str, Any]

    def bare(self, column: str) -> float:
        """The last value of a column with no context, where the run has contexts."""
        return float(self.last.get(f"{column}_no_context", self.last[column]))


class Evidence:
    """Records below ``data``, each read once."""

    def __init__(self, data: Path = DATA) -> None:
        self.data = data

    def curves(self, name: str, where: str = "experiments") -> Curves:
        """Every seed of a recorded run. Raises InputError if it is not recorded."""
        found = _curves(self.data / where, name)
        if found is None:
            raise InputError(f"{self.data / where} holds no finished run {name}")
        return found

    def has(self, names: Sequence[str], where: str) -> bool:
        """Whether a finished run of each name is recorded."""
        return all(_curves(self.data / where, name) is not None for name in names)

    def end(self, name: str, column: str, where: str = "experiments") -> Estimate:
        """A column at the end of a run, over seeds."""
        return estimate(self.curves(name, where)[column][:, -1])

    def rate(self, name: str, where: str = "experiments") -> float:
        """Learning rate of a run."""
        paths = sorted((self.data / where / "runs" / name).glob("seed-*/config.json"))
        if not paths:
            raise InputError(f"{self.data / where} holds no run {name}")
        return float(read_json(paths[0])["lr"])

    @functools.cached_property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The judged predictions."""
        return read_verdicts(self.data / "validation")

    def judged(self, *kinds: str) -> list[Verdict]:
        """Those of these kinds."""
        return [row for row in self.verdicts if row.label.kind in kinds]

    @functools.cached_property
    def ends(self) -> tuple[End, ...]:
        """The end of every recorded run of experiments and validation, seed by seed."""
        paths = [
            p for where in ("experiments", "validation") for p in sorted((self.data / where).glob("runs/*/seed-*"))
        ]
        return tuple(_end(path) for path in paths if (path / "summary.json").exists())


@functools.lru_cache(maxsize=512)
def _curves(out: Path, name: str) -> Curves | None:
    return read_curves(out, name)


def _end(path: Path) -> End:
    config = read_json(path / "config.json")
    rows = [row for row in read_metrics(path) if row.get("reward") is not None]
    learner = config.get("learner") or {}
    leash = sum(float(learner.get(name) or 0.0) for name in ("leash_reward", "leash_loss"))
    return End(
        path.parent.name, config["method"], tuple(config["tasks"]), float(config["lr"]), leash, rows[0], rows[-1]
    )


def counted(rows: Sequence[Verdict]) -> str:
    """How many of some judged predictions are confirmed, falsified and undecided."""
    found = [row.verdict for row in rows]
    parts = [f"{found.count(name)} {name}" for name in ("confirmed", "falsified", "undecided") if name in found]
    return f"{len(rows)} predictions: {', '.join(parts)}"


def rank_correlation(x: Sequence[float], y: Sequence[float], groups: Sequence[str]) -> Estimate:
    """Spearman's correlation with a 95 % bootstrap interval over ``groups`` (runs whose seeds belong together)."""
    value, low, high = map(float, over_groups(spearman, x, y, groups))
    return Estimate(value, low, high, len(set(groups)))
