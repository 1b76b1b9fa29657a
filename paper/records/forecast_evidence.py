"""``python -m fstsim.paper.records.forecast_evidence``: the recorded forecasts as one picture, ``paper/images/forecast.png``.

Left, the forecast of every old prompt's change of log p against the change in the runs; right, the same changes against what
the overlap of old and new outputs says, on the best line: a point is a prompt at a step, mean over the seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from fstsim.errors import InputError
from fstsim.front.console import show
from fstsim.front.entry import run_module
from fstsim.llm.forecast.agreement import r_squared
from fstsim.llm.forecast.league import best_fit
from fstsim.llm.forecast.reading import OLD
from fstsim.paper import DATA, IMAGES
from fstsim.paper.figures.drawing import GREY, SERIES, Drawing, drawing_style, panel, save_png
from fstsim.paper.pages.forecast import recorded_forecasts, title_of

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Config:
    """Draw the recorded forecasts against their runs."""

    data: Path = DATA
    """directory with forecast/, as record_forecasts wrote it"""
    out: Path = IMAGES / "forecast.png"
    """picture to write"""


@dataclass(frozen=True)
class Points:
    """Of one run: by skill, ``(steps, prompts)`` of the forecast, of overlap on the best line through this run, and of the runs."""

    title: str
    forecast: dict[str, Array]
    overlap: dict[str, Array]
    run: dict[str, Array]

    def r2(self, which: dict[str, Array]) -> float:
        """Over all skills, prompts and steps."""
        whole = [np.concatenate([v.ravel() for v in held.values()]) for held in (which, self.run)]
        return r_squared(*whole)


def points(found: dict[str, Any]) -> Points:
    """Everything of a recorded forecast that has runs and a league."""
    steps = [str(row["step"]) for row in found["rows"]]
    at = np.array([float(step) for step in steps])
    run = {
        skill: np.array([np.mean(found["runs"]["steps"][step]["changes"][skill], axis=0) for step in steps])
        for skill in found["changes"][steps[0]]
    }
    forecast = {skill: np.array([found["changes"][step][skill] for step in steps]) for skill in run}
    # learning rates are constant in these runs: summed rates are in proportion to steps
    raw = {s: -at[:, None] * np.array(found["league"]["at_base"]["overlap"][s]) for s in run}
    x, y = (np.concatenate([v.ravel() for v in held.values()]) for held in (raw, run))
    line = best_fit(x, y, 1)
    cuts = np.cumsum([v.size for v in raw.values()])[:-1]
    overlap = {s: part.reshape(raw[s].shape) for s, part in zip(raw, np.split(np.asarray(line), cuts), strict=True)}
    return Points(title_of(found), forecast, overlap, run)


def draw(recorded: list[dict[str, Any]]) -> Drawing:
    """Two rows of panels, a column a run: forecast above, overlap below."""
    all_points = [points(found) for found in recorded]
    figure = Drawing(figsize=(3.3 * len(all_points) + 0.4, 6.6))
    axes = figure.subplots(2, len(all_points), squeeze=False)
    for k, each in enumerate(all_points):
        for row, (held, what) in enumerate(((each.forecast, "forecast"), (each.overlap, "overlap, best line"))):
            ax = axes[row][k]
            _scatter(ax, each.run, held)
            letter = "abcdefghijkl"[row * len(all_points) + k]
            title = each.title.replace(", ", "\n", 1) if row == 0 else ""
            panel(ax, letter, title, "measured change of log p (nats)", f"{what} (nats)" if k == 0 else "")
            ax.text(0.04, 0.95, f"$R^2$ = {each.r2(held):.3f}", transform=ax.transAxes, va="top")
            ax.legend(fontsize=5.5, loc="lower right")
    figure.suptitle(
        "Forecast before the run, and overlap of outputs:\nevery old prompt at each step, mean of the seeds"
    )
    return figure


def _scatter(ax: Axes, run: dict[str, Array], held: dict[str, Array]) -> None:
    ends = [*(v.min() for v in run.values()), *(v.max() for v in run.values())]
    for k, skill in enumerate(run):
        look = SERIES[k % len(SERIES)]
        name = "old answers, no context" if skill == OLD else skill
        face = look.color if k < len(SERIES) else "none"
        ax.scatter(run[skill], held[skill], s=8, marker=look.marker, facecolors=face, edgecolors=look.color,
                   linewidths=0.5, alpha=0.7, label=name)  # fmt: skip
    ax.plot([min(ends), max(ends)], [min(ends), max(ends)], color=GREY, linewidth=0.8, zorder=0)


def draw_and_show(config: Config) -> int:
    """Draw, and say where."""
    recorded = [found for found in recorded_forecasts(config.data) if "league" in found]
    if not recorded:
        raise InputError(f"{config.data / 'forecast'} has no runs with a league: record them with --league")
    with drawing_style():
        figure = draw(recorded)
    show(f"picture: {save_png(figure, config.out)}")
    return 0


def main() -> int:
    """Command line; returns the exit code."""
    return run_module("fstsim.paper.records.forecast_evidence", Config, draw_and_show)


if __name__ == "__main__":
    raise SystemExit(main())
