"""The picture of all recorded restorings of layers, a panel a training."""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fstsim.intervals import student_interval
from fstsim.paper.claims.layers import Restored
from fstsim.paper.figures.drawing import BLUE, GREY, VERMILLION, Drawing, drawing_style, panel, save_png

PICTURE = "layers.png"
"""Its name below paper/images."""


def save_layers_overview(sets: Sequence[Restored], path: Path) -> Path:
    """One panel a training: shares against depth, one layer restored at a time; bands are 95 % intervals over runs."""
    with drawing_style():
        figure = Drawing(figsize=(11.5, 2.9 * -(-len(sets) // 3)))
        axes = np.atleast_1d(figure.subplots(-(-len(sets) // 3), 3, sharey=True)).ravel()
        for ax, found, letter in zip(axes, sets, string.ascii_lowercase, strict=False):
            for look, values, label in (
                (VERMILLION, found.back, "of what was lost on old skills, comes back"),
                (BLUE, found.kept, "of what was learned, stays"),
            ):
                mean, low, high = (np.array(part) for part in zip(*map(student_interval, values.T), strict=True))
                depth = np.arange(len(mean))
                ax.plot(depth, mean, color=look.color, marker=look.marker, ms=4, label=label)
                ax.fill_between(depth, low, high, color=look.color, alpha=0.15, linewidth=0)
            for level in (0.0, 1.0):
                ax.axhline(level, color=GREY, linewidth=0.6)
            step = max(1, values.shape[1] // 8)
            ax.set_xticks(range(0, values.shape[1], step))
            panel(
                ax,
                letter,
                found.about.replace(" (old", "\n(old"),
                "layer put back to the base, from the bottom",
                "share",
            )
        for ax in axes[len(sets) :]:
            ax.set_axis_off()
        axes[0].set_ylim(-0.4, 1.2)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return save_png(figure, path)
