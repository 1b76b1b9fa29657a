r"""Is there a drift beyond which models stop to learn? Steps to relearn at the end of every recorded run, against four drifts.

``python -m fstsim.paper.experiments.drift``. A note says that models lose plasticity beyond "30 % drift"; which drift it does
not say. Four are in use: KL(now || base) over the base's entropy, distance of the weights over their norm, share of the old
behaviour's mass that is lost, share of the base's entropy that is lost. Relearning is that of the runs' own probe: supervised
steps of a copy until another task has probability 1/2. For each task and drift: the rank correlation, what a straight line in
the logarithm explains (`plasticity-drift`: time is exponential in drift, no threshold), and what the best cut into two levels
explains, wherever it is; a threshold would need the second to be the better of the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, NullFormatter
from numpy.typing import NDArray
from rich import box
from rich.table import Table

from fstsim.association import over_groups, spearman
from fstsim.errors import InputError
from fstsim.front.console import show
from fstsim.front.entry import run_module
from fstsim.paper import DATA, IMAGES
from fstsim.paper.claims.evidence import End, Evidence
from fstsim.paper.figures.drawing import SERIES, Drawing, drawing_style, panel, save_png

Array = NDArray[np.float64]
TASKS = ("digits:plus", "strings:rotate", "star_graph:forward")
"""Tasks of which some forty runs and more are recorded, each with a next task of its own."""
CUT = 0.3
_FEWEST = 5  # points on either side of a cut


def _bare(row: Mapping[str, Any], column: str) -> float:
    value = row.get(f"{column}_no_context", row.get(column))
    return np.nan if value is None else float(value)


def _lost(end: End, column: str) -> float:
    start = _bare(end.first, column)
    return 1.0 - _bare(end.last, column) / start if start else np.nan


DRIFTS: Mapping[str, Callable[[End], float]] = {
    "KL / entropy": lambda e: _bare(e.last, "kl_to_base") / _bare(e.first, "entropy"),
    "weights": lambda e: _bare(e.last, "weight_distance"),
    "old mass lost": lambda e: _lost(e, "old_mass"),
    "entropy lost": lambda e: _lost(e, "entropy"),
}
"""The four definitions."""


@dataclass(frozen=True)
class Points:
    """Ends of runs on one task: ``drift (n,)``, ``steps (n,)`` to relearn (one more than the most that were made, where they did not do), run and method of each."""

    drift: Array
    steps: Array
    run: Sequence[str]
    method: Sequence[str]


def points(ends: Sequence[End], task: str, drift: Callable[[End], float]) -> Points:
    """Every end of a run on ``task`` alone in which both were measured."""
    chosen = [e for e in ends if e.tasks == (task,) and e.last.get("relearn") is not None and np.isfinite(drift(e))]
    return Points(
        np.array([drift(e) for e in chosen]),
        np.array([float(e.last["relearn"]) for e in chosen]),
        [e.run for e in chosen],
        [e.method for e in chosen],
    )


def line_r2(x: Array, y: Array) -> float:
    """What a straight line in ``x`` explains of the variance of log ``y``, whose least value counts as half a step."""
    log = np.log(np.maximum(y, 0.5))
    if np.ptp(x) == 0.0 or np.ptp(log) == 0.0:
        return float("nan")
    return float(np.corrcoef(x, log)[0, 1] ** 2)


def best_cut(x: Array, y: Array) -> tuple[float, float]:
    """Where two levels of log ``y``, below and above a cut in ``x``, explain most of its variance, and how much; at least 5 points a side."""
    order = np.argsort(x, kind="stable")
    xs, log = x[order], np.log(np.maximum(y[order], 0.5))
    whole, best = log.var(), (float("nan"), float("nan"))
    for k in range(_FEWEST, len(xs) - _FEWEST + 1):
        if xs[k] > xs[k - 1] and whole > 0.0:
            left = (k * log[:k].var() + (len(xs) - k) * log[k:].var()) / len(xs)
            if not 1.0 - left / whole <= best[1]:
                best = float((xs[k - 1] + xs[k]) / 2.0), float(1.0 - left / whole)
    return best


def across(p: Points, low: float, high: float) -> str:
    """Median steps of the runs whose drift lies between the two, and how many they are."""
    inside = p.steps[(p.drift >= low) & (p.drift < high)]
    return f"{np.median(inside):.0f} ({len(inside)})" if inside.size else "–"


def drift_table(evidence: Evidence) -> Table:
    """A row a task and definition: rank, R² of line and of best cut, where that is, and medians left and right of 30 %, near it and far."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, title_justify="left")
    table.title = "supervised steps to relearn at the end of recorded runs, against four drifts"
    heads = ("drift", "rank, 95 %", "line R²", "cut R², at", ".2 to .3, to .4", "below .3, from .3")
    for k, head in enumerate(heads):
        table.add_column(head, justify="left" if k < 1 else "right", no_wrap=True)
    for task in TASKS:
        table.add_section()
        table.add_row(task)
        for name, drift in DRIFTS.items():
            p = points(evidence.ends, task, drift)
            if len(p.steps) < 4 * _FEWEST:
                table.add_row(f"  {name}", *["–"] * (len(heads) - 1))
                continue
            rank, low, high = map(float, over_groups(spearman, p.drift, p.steps, p.run))
            cut, explained = best_cut(p.drift, p.steps)
            table.add_row(
                f"  {name}", f"{rank:.2f} [{low:.2f}, {high:.2f}]", f"{line_r2(p.drift, p.steps):.2f}",
                f"{explained:.2f}, {cut:.2g}", f"{across(p, 0.2, CUT)}, {across(p, CUT, 0.4)}",
                f"{across(p, -np.inf, CUT)}, {across(p, CUT, np.inf)}",
            )  # fmt: skip
    return table


def draw_drift(evidence: Evidence, path: Path) -> Path:
    """Steps to relearn against each drift, a row of panels a task, a colour a method; the dashed line is 30 %."""
    with drawing_style():
        figure = Drawing(figsize=(11.0, 6.6))
        axes = figure.subplots(len(TASKS), len(DRIFTS))
        methods = sorted({m for task in TASKS for m in points(evidence.ends, task, lambda _: 0.0).method})
        for i, task in enumerate(TASKS):
            for j, (name, drift) in enumerate(DRIFTS.items()):
                ax, p = axes[i, j], points(evidence.ends, task, drift)
                panel(ax, chr(97 + 4 * i + j), task, name, "steps to relearn" if j == 0 else "")
                if not p.steps.size:
                    ax.text(0.5, 0.5, "not recorded", ha="center", va="center", transform=ax.transAxes)
                    continue
                for n, method in enumerate(methods):
                    own = np.array(p.method) == method
                    if own.any():
                        ax.plot(
                            p.drift[own], p.steps[own], "os^DvP*h"[n % 8], color=SERIES[n % len(SERIES)].color, ms=3.0,
                            mfc="none", mew=0.8, label=method,
                        )  # fmt: skip
                ax.set_yscale("log")
                ax.set_yticks([t for t in (1, 2, 5, 10, 20, 50) if p.steps.min() / 1.2 < t < p.steps.max() * 1.2])
                ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
                ax.yaxis.set_minor_formatter(NullFormatter())
                if p.drift.max() > CUT:
                    ax.axvline(CUT, color="black", linestyle=(0, (4, 3)), linewidth=0.9)
        found: dict[str, Any] = {}
        for ax in axes.ravel():
            found |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
        figure.legend(found.values(), found.keys(), loc="outside lower center", ncol=len(found), frameon=False)
        return save_png(figure, path, "Steps to relearn against four drifts")


@dataclass(frozen=True)
class Config:
    """Is there a drift beyond which models stop to learn? Every recorded run, four definitions."""

    data: Path = DATA
    """directory of records, with experiments/ and validation/"""
    out: Path = IMAGES / "drift.png"
    """picture to write"""


def table_and_picture(config: Config) -> int:
    """Show the table, draw the picture."""
    evidence = Evidence(config.data)
    if not evidence.ends:
        raise InputError(f"{config.data} holds no finished runs in experiments/ or validation/")
    show(drift_table(evidence), f"picture: {draw_drift(evidence, config.out)}")
    return 0


def main() -> int:
    """Command line; returns the exit code."""
    return run_module("fstsim.paper.experiments.drift", Config, table_and_picture)


if __name__ == "__main__":
    raise SystemExit(main())
