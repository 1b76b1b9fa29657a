"""What the bridge figure shows of a forecast: old mass along it, and at how many steps the runs come within its margin."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fstsim.llm.validation.forecasts.foretold import NATS, SHARE
from fstsim.paper.bridge.numbers import Array, Forgetting
from fstsim.records import read_json


@dataclass(frozen=True)
class Course:
    """Old mass along a forecast of a run: ``step (T,)``, ``mass``, ``low``, ``high (T,)``."""

    step: Array
    mass: Array
    low: Array
    high: Array

    def met(self, found: Forgetting) -> tuple[int, int]:
        """At how many of its steps the runs' interval over seeds meets what was forecast, within the margin of the chapter `forecasts`, and how many there are."""
        there = [
            (k, int(np.flatnonzero(found.step == step)[0]))
            for k, step in enumerate(self.step)
            if k and step in found.step
        ]
        inside = []
        for k, j in there:
            value, low, high = np.log(self.mass[k]), np.log(found.low[j]), np.log(found.high[j])
            margin = max(NATS, SHARE * abs(value))
            inside.append(low <= value + margin and high >= value - margin)
        return sum(inside), len(inside)


def read_course(directory: Path, name: str) -> Course | None:
    """The forecast of run ``name`` from its configuration alone, as `fstsim.paper.records.forecast_recorded` wrote it; None without."""
    place = directory / "forecast" / f"{name}.json"
    if not place.exists():
        return None
    found = read_json(place)
    rows = [(row["step"], row["log_old_mass"]) for row in found["rows"]]
    start = [found["start"]["log_old_mass"]]
    columns = (np.exp([*start, *(row[key] for _, row in rows)]) for key in ("value", "low", "high"))
    return Course(np.array([0.0, *(float(step) for step, _ in rows)]), *columns)
