"""The picture of `fstsim faithful`: what is written after cut, filled, rephrased and corrupted chains, before and after a training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fstsim.paper.figures.drawing import (
    BLUE,
    DASH_DOT,
    GREY,
    ORANGE,
    VERMILLION,
    Drawing,
    drawing_style,
    panel,
    save_png,
)

_CUTS = ((BLUE, "early_same", "cut"), (VERMILLION, "filler_same", "filler"), (ORANGE, "paraphrase_same", "paraphrase"))
_CAUSES = ((BLUE, "followed", "corrupted list followed"), (VERMILLION, "resisted", "old answer kept"))


def save_faithful_picture(found: Mapping[str, Any], path: Path) -> Path | None:
    """Draw what is in ``faithful.json`` and write it to ``path`` (PNG); None if nothing in it is measurable."""
    shown = [task for task in found["tasks"] if task["asked"] and _measured(task)]
    if not shown:
        return None
    with drawing_style():
        figure = draw_faithful(found, shown[:3])
    return save_png(figure, path)


def _measured(task: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [row for row in task["models"] if not row["not_measurable"] and row["curves"] is not None]


def draw_faithful(found: Mapping[str, Any], shown: list[Mapping[str, Any]]) -> Drawing:
    """A row of two panels a task: the own answer against kept steps, and what follows a corrupted step.

    Lines are the base, dash-dotted ones the mean of the trained models that can be measured.
    """
    figure = Drawing(figsize=(9.0, 0.4 + 2.7 * len(shown)))
    axes = np.atleast_2d(figure.subplots(len(shown), 2, sharey=True))
    for k, (task, (left, right)) in enumerate(zip(shown, axes, strict=True)):
        rows, n = _measured(task), task["steps"]
        groups: list[tuple[Any, str, list[Mapping[str, Any]]]] = [
            ("-", "full", [row for row in rows if row["name"] == "base"])
        ]
        groups.append((DASH_DOT, "none", [row for row in rows if row["name"] != "base"]))
        for ax, looks, first in ((left, _CUTS, 0), (right, _CAUSES, 1)):
            for look, column, label in looks:
                for style, fill, members in groups:
                    if not members:
                        continue
                    y = np.mean([np.array(row["curves"][column], float) for row in members], 0)
                    x = first + np.arange(len(y))
                    named = label if style == "-" or not groups[0][2] else None
                    ax.plot(
                        x, y, color=look.color, marker=look.marker, linestyle=style, fillstyle=fill, ms=4, label=named
                    )
            ax.set_ylim(-0.03, 1.05)
            ax.set_xticks(range(first, n + 1))
        name = task["task"].removeprefix("scratch:")
        panel(left, "abc"[k] + "1", f"{name}: own answer", "steps kept (rest replaced)", "share of problems")
        panel(right, "abc"[k] + "2", f"{name}: one step corrupted", "corrupted step", "")
    for ax in axes[0]:
        if len(found["models"]) > 1:
            ax.plot([], [], color=GREY, label="base")
            ax.plot([], [], color=GREY, linestyle=DASH_DOT, label="trained")
        ax.legend()
    return figure
