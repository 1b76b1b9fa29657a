"""The picture of a sweep: what each varied setting does to the old mass, the drift and the KL to the start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
from numpy.typing import NDArray

from fstsim.paper.figures.drawing import BLACK, BLUE, drawing_style, panel, save_png
from fstsim.sweep import AXES

Array = NDArray[np.float64]

_MEASURES = (
    ("old_region_mass", "mass of the old region"),
    ("peak_drift", "peak drift (std. dev.)"),
    ("kl_to_base", "KL(end ‖ start), nats"),
)
_MOST_AXES = 4


def varied(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Axes of the grid with more than one value."""
    return [name for name in AXES if len({row[name] for row in rows}) > 1]


def by_value(rows: Sequence[Mapping[str, Any]], axis: str, measure: str) -> tuple[Array, Array, Array]:
    """Values of ``axis``, and of ``measure`` at each the mean over everything else and the (10 %, 90 %) quantiles ``(2, n)``."""
    place = np.array([row[axis] for row in rows])
    value = np.array([row[measure] for row in rows], dtype=np.float64)
    values = np.unique(place)
    groups = [value[place == v] for v in values]
    return values, np.array([g.mean() for g in groups]), np.array([np.quantile(g, (0.1, 0.9)) for g in groups]).T


def save_sweep_picture(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Draw the table ``rows`` of a sweep and write it to ``path`` (PNG)."""
    done = [row for row in rows if row["status"] == "completed"]
    axes = varied(rows)[:_MOST_AXES] or ["separation"]
    with drawing_style():
        figure = matplotlib.figure.Figure(figsize=(10.5, 2.9 * len(axes)))
        grid = figure.subplots(len(axes), len(_MEASURES), squeeze=False)
        for i, axis in enumerate(axes):
            for j, (measure, title) in enumerate(_MEASURES):
                ax = grid[i][j]
                if done:
                    x, mean, spread = by_value(done, axis, measure)
                    if measure == "peak_drift" and mean.min() > 0.0:
                        ax.set_yscale("log")
                    ax.fill_between(
                        x, *spread, color=BLUE.color, alpha=0.25, linewidth=0, label="10 % to 90 % of the rest"
                    )
                    ax.plot(x, mean, color=BLACK.color, marker=BLACK.marker, label="mean over the rest of the grid")
                panel(ax, chr(ord("a") + i * len(_MEASURES) + j), "", axis.replace("_", " "), title)
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return save_png(figure, path)
