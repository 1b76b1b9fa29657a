"""Marks of the bridge figure: theory broad and pale, the simulator open squares, the language model filled circles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import matplotlib.patheffects
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from fstsim.paper.bridge.numbers import Array, Verdict
from fstsim.paper.figures.drawing import BLACK, BLUE, GREY, ORANGE, VERMILLION, Series

MARKS = {
    "confirmed": Series("#000000", "o"),
    "falsified": Series(VERMILLION.color, "X"),
    "undecided": Series(GREY, "D"),
}
_HALO = [matplotlib.patheffects.withStroke(linewidth=2.5, foreground="white")]


def draw_theory(ax: Axes, x: ArrayLike, y: ArrayLike, linestyle: str = "-", width: float = 3.5) -> None:
    """Broad and pale: what lies on it leaves it visible."""
    ax.plot(x, y, color=ORANGE.color, linestyle=linestyle, linewidth=width, alpha=0.7, solid_capstyle="butt", zorder=1)


def theory_key(label: str, linestyle: Literal["solid", "dashed"] = "solid") -> Line2D:
    """The legend entry of `draw_theory`."""
    return Line2D([], [], color=ORANGE.color, linestyle=linestyle, linewidth=3.5, alpha=0.7, label=label)


def draw_simulated(
    ax: Axes, x: ArrayLike, y: ArrayLike, low: ArrayLike | None = None, high: ArrayLike | None = None
) -> None:
    """Open squares, with intervals where they are given."""
    y = np.asarray(y)
    error = None if low is None or high is None else np.maximum(np.stack([y - low, np.asarray(high) - y]), 0.0)
    ax.errorbar(x, y, error, fmt="s", color=BLUE.color, mfc="white", ms=6.5, mew=1.2, elinewidth=0.9, zorder=3)


def draw_measured(
    ax: Axes, x: ArrayLike, rows: Sequence[Verdict], transform: Callable[[Array], Array] = np.asarray
) -> None:
    """Filled circles with intervals; no bar where there are too few seeds for one."""
    middle, low, high = (
        transform(np.array([getattr(row, column) for row in rows]))
        for column in ("measured", "measured_low", "measured_high")
    )
    error = np.maximum(np.nan_to_num(np.stack([middle - low, high - middle])), 0.0)
    ax.errorbar(x, middle, error, fmt="o", color=BLACK.color, ms=4.0, elinewidth=1.4, capsize=2.5, zorder=4)


def note(ax: Axes, x: float, y: float, text: str, **more: Any) -> None:
    """A word in the panel, readable on top of lines."""
    ax.text(x, y, text, fontsize=8, path_effects=_HALO, zorder=6, **more)


def draw_absent(ax: Axes) -> None:
    """An empty panel that says why it is empty."""
    ax.text(0.5, 0.5, "not recorded", color=GREY, ha="center", va="center", transform=ax.transAxes)
    ax.set_xticks([])
    ax.set_yticks([])
