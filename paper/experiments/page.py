"""Figures of the experiments at the width of a page: the same curves as on the screen, in rows of three tasks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from fstsim.paper.experiments.figures import METHODS, band, read_core, read_core_decompositions
from fstsim.paper.experiments.numbers import Curves
from fstsim.paper.figures.drawing import GREY, Drawing, drawing_style, panel, save_pdf

_WIDTH = 7.4  # inches; printed at seven eighths of that
_CELLS = (
    ("base_empty", "neither", "#FFFFFF"),
    ("trained_empty", "weights only", "#BBBBBB"),
    ("base_evolved", "context only", "#005A9E"),
    ("trained_evolved", "both", "#000000"),
)


def _from_zero(ax: Axes, linear: float) -> None:
    """A logarithmic axis that begins at zero, with the labels that fit side by side."""
    ax.set_xscale("symlog", linthresh=linear)
    ax.set_xlim(left=0.0)
    ax.set_xticks([0.0, 1.0, 10.0], ["0", "1", "10"])


def _against_distance(ax: Axes, curves: Mapping[str, Curves]) -> None:
    """Reward against KL(now || base), one line a seed; GEPA alone does not move the weights."""
    for method in ("rl", "fst"):
        if method not in curves:
            continue
        series, line, _ = METHODS[method]
        for kl, reward in zip(curves[method]["kl_to_base"], curves[method]["reward"], strict=True):
            ax.plot(kl, reward, linestyle=line, color=series.color, marker=series.marker, ms=3, lw=0.9)
    _from_zero(ax, 0.1)


def draw_core(out: Path, path: Path) -> Path | None:
    """Reward against samples and against the distance of the weights: two rows for hard tasks, two for easy ones."""
    found = read_core(out)
    if not any(curves for _, _, curves in found):
        return None
    with drawing_style():
        figure = Drawing(figsize=(_WIDTH, 7.4))
        axes = figure.subplots(4, 3)
        for k, (kind, task, curves) in enumerate(found):
            row, column = 2 * (k // 3), k % 3
            above, below = axes[row, column], axes[row + 1, column]
            for method, c in curves.items():
                band(above, c.samples.mean(0) / 1000.0, c["reward"], METHODS[method])
            _from_zero(above, 0.5)
            _against_distance(below, curves)
            panel(above, chr(97 + 3 * row + column), f"{task} ({kind})", "samples (thousands)", "reward")
            panel(below, chr(100 + 3 * row + column), "against distance", "KL(now ‖ base), nats", "reward")
            for ax in (above, below):
                ax.set_ylim(-0.03, 1.03)
        axes[0, 1].legend()
        save_pdf(figure, path)
    return path


def draw_decomposition(out: Path, path: Path) -> Path | None:
    """{base, trained weights} x {empty, evolved context} of every task, with two standard errors."""
    found = read_core_decompositions(out)
    if not found:
        return None
    with drawing_style():
        figure = Drawing(figsize=(_WIDTH, 2.5))
        ax = figure.subplots()
        for j, (_, seeds) in enumerate(found):
            for k, (key, label, shade) in enumerate(_CELLS):
                values = np.array([seed[key] for seed in seeds])
                error = 2.0 * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
                ax.bar(
                    j + 0.2 * (k - 1.5), values.mean(), 0.18, yerr=error, color=shade, edgecolor="black", ecolor=GREY,
                    label=label if j == 0 else "",
                )  # fmt: skip
        ax.set_xticks(range(len(found)), [task.replace(":", "\n") for task, _ in found])
        ax.set_ylabel("reward")
        ax.set_ylim(0.0, 1.05)
        figure.legend(loc="outside upper center", ncols=len(_CELLS))
        save_pdf(figure, path)
    return path
