"""The picture of a training that was measured while it ran: drift, success, forgetting and weights against steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from fstsim.paper.figures.drawing import (
    BLACK,
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

Rows = Sequence[Mapping[str, Any]]
_MOST = 5  # columns of a card
_LINES = {"new": "-", "old": DASH_DOT}
_FILLS = {"new": "full", "old": "none"}


def few_of(rows: Rows, most: int = _MOST) -> list[Mapping[str, Any]]:
    """At most ``most`` rows, evenly spread, the first and the last among them."""
    places = np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int))
    return [rows[place] for place in places]


def save_measure_curve(measured: Mapping[str, Any], path: Path) -> Path:
    """Draw what is in the ``measure.json`` of a training and write it to ``path`` (PNG)."""
    with drawing_style():
        figure = draw_measure_curve(measured)
    return save_png(figure, path)


def draw_measure_curve(measured: Mapping[str, Any]) -> Drawing:
    """Four panels against optimizer steps; sets by line style and by filled (new) and open (old) markers."""
    rows, sets = measured["checkpoints"], list(measured["sets"])
    figure = Drawing(figsize=(12.5, 3.4))
    kl, reward, changed, weights = figure.subplots(1, 4)
    for name in sets:
        draw_column(kl, rows, name, "kl_to_base", BLACK, f"now ‖ base, {name} set")
        draw_column(kl, rows, name, "kl_from_base", BLUE, f"base ‖ now, {name} set")
        draw_column(reward, rows, name, "reward", BLACK, f"reward, {name} set")
        draw_column(reward, rows, name, "old_mass", VERMILLION, f"old answers, {name} set")
        draw_column(changed, rows, name, "lost", VERMILLION, f"lost, {name} set")
        draw_column(changed, rows, name, "gained", BLUE, f"gained, {name} set")
        reward.axhline(measured["sets"][name]["base"]["reward"], color=GREY, linestyle=_LINES[name], linewidth=0.8)
    steps = [row["step"] for row in rows]
    weights.plot(steps, [row["weights"]["all"] for row in rows], marker="o", ms=4, color=BLACK.color)
    panel(kl, "a", "distance from the base", "step", "KL (nats a sequence)")
    panel(reward, "b", "success (base: grey)", "step", "probability")
    panel(changed, "c", "greedy answers that flipped", "step", "problems")
    panel(weights, "d", "weights", "step", "relative distance $L_2$")
    reward.set_ylim(-0.03, 1.03)
    for ax in (kl, reward, changed):
        ax.legend(fontsize=6)
    for ax in (kl, changed, weights):
        ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
    told = "; ".join(f"{name}: {held['task']}" for name, held in measured["sets"].items())
    figure.suptitle(f"{told}; bands: 2 standard errors".replace("$", r"\$"))
    return figure


def draw_column(ax: Axes, rows: Rows, name: str, column: str, look: Series, label: str) -> None:
    """One column of set ``name`` with its band; nothing if it was not measured."""
    held = [(row["step"], row["sets"][name]) for row in rows if row["sets"][name].get(column) is not None]
    if not held:
        return
    steps = [step for step, _ in held]
    mean = np.array([values[column] for _, values in held], dtype=np.float64)
    error = np.array([values.get(f"{column}_se") or 0.0 for _, values in held])
    marks: dict[str, Any] = {"marker": look.marker, "fillstyle": _FILLS[name], "ms": 4}
    ax.plot(steps, mean, color=look.color, linestyle=_LINES[name], label=label, **marks)
    ax.fill_between(steps, mean - 2 * error, mean + 2 * error, color=look.color, alpha=0.12, linewidth=0)
