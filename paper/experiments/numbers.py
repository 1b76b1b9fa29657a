"""Numbers of the experiments, read from run directories: speed, KL at matched reward, stages, plasticity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fstsim.crossings import first_crossing
from fstsim.intervals import student_interval
from fstsim.llm.runs.recorded import read_metrics
from fstsim.reading import check_object
from fstsim.records import read_json

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95 % interval; ``count`` seeds."""

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        if not np.isfinite(self.value):
            return "-"
        if not (np.isfinite(self.low) and np.isfinite(self.high)):
            return f"{self.value:.3g}"
        half = (self.high - self.low) / 2.0
        half = 0.0 if half <= 1e-12 * abs(self.value) else half  # equal in every seed, up to rounding
        if abs(self.low + half - self.value) <= 1e-9 * max(abs(self.value), 1.0):
            return f"{self.value:.3g} ± {half:.2g}"
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def estimate(values: Sequence[float] | Array) -> Estimate:
    """Mean and Student interval over seeds; not finite if any value is missing."""
    x = np.asarray(values, dtype=np.float64)
    if len(x) < 2 or not np.isfinite(x).all():
        return Estimate(float(x.mean()) if len(x) else np.nan, np.nan, np.nan, len(x))
    mean, low, high = map(float, student_interval(x))
    return Estimate(mean, low, high, len(x))


@dataclass(frozen=True)
class Curves:
    """One run of every seed: samples and columns where the probes measured, ``(seeds, times)``."""

    name: str
    samples: Array
    columns: Mapping[str, Array]

    def __getitem__(self, column: str) -> Array:
        return self.columns[column]


def read_curves(out: Path, name: str) -> Curves | None:
    """The finished seeds of a run below ``out/runs``; None when there are none."""
    tables = [
        [row for row in read_metrics(path) if row.get("reward") is not None]
        for path in sorted((out / "runs" / name).glob("seed-*"))
        if (path / "summary.json").exists()
    ]
    if not tables:
        return None
    names = sorted(set.intersection(*({key for row in table for key in row} for table in tables)))
    columns = {
        key: np.array(
            [[np.nan if row.get(key) is None else row[key] for row in table] for table in tables], dtype=float
        )
        for key in names
        if all(isinstance(row.get(key), (int, float, type(None))) for table in tables for row in table)
    }
    return Curves(name, columns["samples"], columns)


def totals(out: Path, name: str, column: str) -> Array:
    """Sum of a column over all slow steps, measured or not, of each finished seed of a run.

    0 where it has no such column, nan where it has one and steps are missing: records once kept measured rows alone.
    """
    return np.array(
        [
            _total(read_metrics(path), column)
            for path in sorted((out / "runs" / name).glob("seed-*"))
            if (path / "summary.json").exists()
        ],
        dtype=float,
    )


def _total(rows: Sequence[Mapping[str, Any]], column: str) -> float:
    counts = [row[column] for row in rows if row.get(column)]
    whole = len({row["step"] for row in rows}) > max((row["step"] for row in rows), default=0)
    return float(sum(counts)) if whole or not counts else np.nan


def own_context(curves: Curves, task: int) -> Array | None:
    """Reward on task number ``task`` of a sequence in the best context that the run wrote for it, ``(seeds, times)``.

    While a task is trained on that is its reward; nan before its first round. A run whose context never changes has no
    other context: its reward on the task. None for records from before contexts were kept.
    """
    here, away = curves["task"] == task, curves.columns.get(f"reward_task{task}")
    if away is None:
        return None
    kept = curves.columns.get(f"reward_task{task}_own_context")
    if kept is None and "reward_no_context" in curves.columns:  # contexts were evolved, and not kept
        return None
    return np.where(here, curves["reward"], away if kept is None else kept)


def speed_up(rl: Curves, fst: Curves, share: float = 0.95) -> dict[str, Estimate]:
    """Samples to ``share`` of RL's running peak, seed by seed, and their ratio RL over FST."""
    pairs = []
    for k in range(min(len(rl.samples), len(fst.samples))):
        level = share * float(rl["reward"][k].max())
        pairs.append(
            (
                first_crossing(rl.samples[k], rl["reward"][k], level, never=np.inf),
                first_crossing(fst.samples[k], fst["reward"][k], level, never=np.inf),
                level,
            )
        )
    slow, fast, levels = map(np.array, zip(*pairs, strict=True))
    ratio = slow / np.maximum(fast, 1.0)
    return {
        "level": estimate(levels),
        "rl": estimate(slow),
        "fst": estimate(fast),
        # the ratio's interval is of its logarithm: ratios are not symmetric
        "ratio": _exp(estimate(np.log(np.maximum(ratio, 1e-9)))),
    }


def _exp(e: Estimate) -> Estimate:
    return Estimate(float(np.exp(e.value)), float(np.exp(e.low)), float(np.exp(e.high)), e.count)


def kl_at_reward(curves: Curves, level: float, column: str = "kl_to_base") -> Array:
    """KL to the base at the first time each seed's reward reaches ``level``; nan where it does not."""
    pairs = zip(curves[column], curves["reward"], strict=True)
    return np.array([first_crossing(kl, reward, level) for kl, reward in pairs])


def kl_reduction(rl: Curves, fst: Curves, level: float) -> Estimate:
    """``1 - KL(FST) / KL(RL)`` at one reward level, seed by seed."""
    n = min(len(rl.samples), len(fst.samples))
    return estimate(1.0 - kl_at_reward(fst, level)[:n] / kl_at_reward(rl, level)[:n])


_DECOMPOSED: Mapping[str, type | tuple[type, ...]] = {"context": str} | {
    f"{weights}_{context}{error}": (int, float)
    for weights in ("base", "trained")
    for context in ("empty", "evolved")
    for error in ("", "_se")
}


def read_decompositions(out: Path, name: str) -> list[dict[str, Any]]:
    """The 2 x 2 of every seed of a run."""
    paths = sorted((out / "runs" / name).glob("seed-*/decomposition.json"))
    return [check_object(path, read_json(path), _DECOMPOSED) for path in paths]
