"""The table of the page on growth: time and memory of every recorded point, and slopes between neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np

from fstsim.number_text import short_number
from fstsim.paper import DATA
from fstsim.paper.pages.blocks import table
from fstsim.paper.records.growth import AXES
from fstsim.records import read_json


def slopes(values: Sequence[float], seconds: Sequence[float]) -> list[float]:
    r"""\(\Delta \log t / \Delta \log v\) from each value to the next: 1 is linear, 0 does not grow."""
    return [float(s) for s in np.diff(np.log(seconds)) / np.diff(np.log(values))]


def growth_table() -> str:
    """A row a point, with what the record says of the machine; InputError without a record."""
    record = read_json(DATA / "benchmarks" / "growth.json")
    units = {axis.name: axis.unit for axis in AXES}
    rows = []
    for name, group in groupby(record["points"], key=lambda point: str(point["axis"])):
        points = list(group)
        rows += _rows(f"{name}: {units.get(name, '')}", points)
    made = record["environment"]
    return table(("what grows: seconds of", "value", "CPU seconds", "slope", "memory, MB"), rows) + (
        f"\nOne thread; torch {made['versions'].get('torch', '–')}, numpy {made['versions'].get('numpy', '–')}, commit {made['commit'][:12]}.\n"
    )


def _rows(name: str, points: Sequence[dict[str, Any]]) -> list[list[str]]:
    grown = slopes([p["value"] for p in points], [p["seconds"] for p in points])
    return [
        [
            name if k == 0 else "",
            f"{point['value']:g}",
            short_number(point["seconds"]),
            "" if k == 0 else f"{grown[k - 1]:.2f}",
            f"{point['megabytes']:.0f}",
        ]
        for k, point in enumerate(points)
    ]
