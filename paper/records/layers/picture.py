"""The picture of `fstsim layers`: what comes back of old skills, and what is lost of the new task, against depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from fstsim.llm.measure.restored_runs import forgotten_column, means
from fstsim.paper.figures.drawing import (
    BLUE,
    DASH_DOT,
    GREY,
    VERMILLION,
    Drawing,
    Series,
    drawing_style,
    panel,
    save_png,
)

Row = Mapping[str, Any]
_REWARD, _LOST = BLUE, VERMILLION
_PANELS: Mapping[tuple[str, ...], tuple[str, str, tuple[str, ...]]] = {
    ("layer", "ends"): ("one layer restored", "layer, from the bottom", ()),
    ("attention", "feed-forward"): ("one block restored", "layer, from the bottom", ("attention", "feed-forward")),
    ("from below", "from above"): ("k layers restored", "k (with what lies beyond them)", ("lowest k", "highest k")),
}
"""Kinds of parts in a panel, its title, its axis, and what its two lines are where they are two kinds."""


def save_layers_picture(found: Mapping[str, Any], path: Path) -> Path:
    """Draw what is in ``layers.json`` and write it to ``path`` (PNG)."""
    with drawing_style():
        figure = draw_layers(found)
    return save_png(figure, path)


def draw_layers(found: Mapping[str, Any]) -> Drawing:
    """Each layer alone, its two blocks, and layers from below and from above; bands are 95 % intervals over runs."""
    rows = means(found)
    lost = forgotten_column(rows)
    columns = [(_REWARD, "reward", "reward on the new task")]
    columns += [(_LOST, lost, "reward lost on old skills")] if lost is not None else []
    panels = [kinds for kinds in _PANELS if any(row["kind"] in kinds for row in rows)]
    figure = Drawing(figsize=(1.3 + 3.4 * len(panels), 3.6))
    axes = np.atleast_1d(figure.subplots(1, len(panels), sharey=True))
    for ax, kinds, letter in zip(axes, panels, "abc", strict=False):
        title, axis, entries = _PANELS[kinds]
        for look, column, label in columns:
            _levels(ax, rows, look, column)
            if entries:
                for kind, style, fill in zip(kinds, ("-", DASH_DOT), ("full", "none"), strict=True):
                    _line(ax, [row for row in rows if row["kind"] == kind], look, column, style, label, fill)
            else:
                own = [row for row in rows if row["kind"] in kinds]
                _line(ax, sorted(own, key=lambda row: row["depth"]), look, column, "-", label)
        if entries:
            ax.plot([], [], color=GREY, marker="o", ms=4, label=entries[0])
            ax.plot([], [], color=GREY, marker="o", ms=4, linestyle=DASH_DOT, fillstyle="none", label=entries[1])
            ax.legend(handles=ax.get_lines()[-2:])
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        else:
            _name_layers(ax, [row for row in rows if row["kind"] in kinds])
        panel(ax, letter, title, axis, "" if ax is not axes[0] else "reward")
    axes[0].set_ylim(-0.03, 1.05)  # shared; with few runs an interval is wider than what is possible
    drawn = dict(zip(*axes[0].get_legend_handles_labels()[::-1], strict=True))
    handles, labels = [drawn[label] for *_, label in columns], [label for *_, label in columns]
    levels = [axes[0].plot([], [], color=GREY, linewidth=0.8, linestyle=style)[0] for style in ("--", ":")]
    figure.legend(
        [*handles, *levels],
        [*labels, "as trained", "base"],
        loc="outside lower center",
        ncols=4 if len(panels) > 1 else 2,
    )
    runs = len(found["runs"])
    told = f"{found['method']} on {', '.join(found['tasks'])}, {runs} run{'s' if runs > 1 else ''}"
    figure.suptitle(f"{told}; bands: 95 % intervals over runs".replace("$", r"\$"))
    return figure


def _name_layers(ax: Axes, rows: Sequence[Row]) -> None:
    """At most about ten numbers, and the ends by name."""
    names = {row["depth"]: "embed." if row["depth"] < 0 else "output" for row in rows if row["kind"] == "ends"}
    depths = sorted({row["depth"] for row in rows})
    shown = [d for k, d in enumerate(depths) if d in names or k % max(1, len(depths) // 10) == 0]
    ax.set_xticks(shown, [names.get(d, str(d)) for d in shown])


def _levels(ax: Axes, rows: Sequence[Row], look: Series, column: str) -> None:
    for kind, style in (("none", "--"), ("all", ":")):
        level = next(row[column][0] for row in rows if row["kind"] == kind)
        ax.axhline(level, color=look.color, linewidth=0.8, linestyle=style)


def _line(
    ax: Axes, rows: Sequence[Row], look: Series, column: str, style: object, label: str | None, fill: str = "full"
) -> None:
    x = np.array([row["depth"] for row in rows])
    mean, low, high = (np.array([row[column][k] for row in rows]) for k in range(3))
    marks: dict[str, Any] = {"marker": look.marker, "fillstyle": fill, "ms": 4}
    ax.plot(x, mean, color=look.color, linestyle=style, label=label, **marks)
    ax.fill_between(x, low, high, color=look.color, alpha=0.12, linewidth=0)
