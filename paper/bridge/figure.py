"""The bridge: toy, language model and theory on the same axes. ``python -m fstsim.paper.bridge.figure --validation DIR --out DIR``.

In every panel the line is the theory, evaluated with what was measured on the base; open squares are the simulator, filled
circles the language model, with 95 % Student intervals. Nothing is fitted; one clock is set where a panel says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from fstsim.front.console import show
from fstsim.front.entry import run_module
from fstsim.llm.validation.kinds import KINDS
from fstsim.paper import DATA, IMAGES, check_recorded, checkout
from fstsim.paper.bridge.marks import MARKS, draw_absent, theory_key
from fstsim.paper.bridge.numbers import Verdict, read_verdicts
from fstsim.paper.bridge.panels import draw_escapes, draw_forgetting, draw_leash, draw_replay
from fstsim.paper.figures.drawing import BLACK, BLUE, Drawing, drawing_style, key, legend_below, panel, save_png
from fstsim.records import prepare_directory

CAPTION = (
    "Toy, language model and theory on the same axes. Lines: theory, from numbers of the base model alone; open squares: the simulator's two-mode "
    "learners; filled circles: the language model, bars: 95 % Student intervals over seeds (toy: 16 runs). (a) Old mass at the end of fine-tuning with a share of old "
    "demonstrations; grey: where it began. (b) Mass of the rewarded and of the old answer under RL with a KL leash: the exponential tilt, for each prompt, then averaged. "
    "(c) Updates of group-normalised RL to success 1/2, over those on the easiest task of the family; lines join the predictions, made from the success of every prompt. (d) Old mass under fine-tuning on new data "
    "alone; each law has one number from the run, its clock, set at the first dotted line; the verdict falls at the second; green: coarse Adam's forecast, from the base and the run's settings alone, with its interval. "
    "(e, f) Every judged number: predicted interval across, measured interval upwards; on the diagonal theory is right."
)
SLUGS = (
    "replay-forward",
    "exp-family-unification",
    "group-normalised-escape",
    "mass-forgetting",
    "mass-forgetting-geometry",
    "adam-clock",
    "sequence-logit",
    "sequence-adam",
    "coarse-adam-order",
)


@dataclass(frozen=True)
class Config:
    """Draw the bridge figure of a validation."""

    validation: Path = DATA / "validation"
    """directory of fstsim validate, or a recorded one"""
    out: Path = IMAGES
    """directory for bridge.png; without this flag it replaces the picture in the checkout's README"""


def draw_verdicts(ax: Axes, rows: Sequence[Verdict]) -> None:
    """Predicted against measured with both intervals; the mark tells the verdict."""
    if not rows:
        return draw_absent(ax)
    for verdict, mark in MARKS.items():
        chosen = [row for row in rows if row.verdict == verdict]
        if not chosen:
            continue
        x, low, high, y, y_low, y_high = np.array(
            [[r.value, r.low, r.high, r.measured, r.measured_low, r.measured_high] for r in chosen]
        ).T
        across = np.maximum(np.stack([x - low, high - x]), 0.0)
        upwards = np.nan_to_num(np.maximum(np.stack([y - y_low, y_high - y]), 0.0))
        ax.errorbar(
            x, y, upwards, across, fmt=mark.marker, color=mark.color, mfc="white" if verdict == "undecided" else mark.color,
            mec="white" if verdict == "falsified" else mark.color, mew=0.6 if verdict == "falsified" else 1.0,
            ms=7.5 if verdict == "falsified" else 4.5, elinewidth=0.8, capsize=0, zorder=5 if verdict == "falsified" else 4,
        )  # fmt: skip
    ends = np.array([[r.value, r.measured] for r in rows])
    room = 0.08 * (np.ptp(ends) or 1.0)
    low, high = float(ends.min() - room), float(ends.max() + room)
    ax.plot([low, high], [low, high], color="black", linewidth=0.9, zorder=1)
    ax.set(xlim=(low, high), ylim=(low, high))
    return None


def _compress(ax: Axes, rows: Sequence[Verdict]) -> None:
    """Equal axes, linear up to 4 and logarithmic beyond: a few masses are e^-50, most numbers are near 0."""
    ax.set_xscale("symlog", linthresh=4.0)
    ax.set_yscale("symlog", linthresh=4.0)
    ends = [x for row in rows for x in (row.value, row.measured)]
    low, high = min(ends) - 0.3 * abs(min(ends)), max(ends) + 0.7
    shown = [t for t in (-50, -20, -8, -4, -2, 0, 2, 4, 8) if low <= t <= high]
    labels = [str(t).replace("-", "\N{MINUS SIGN}") for t in shown]
    ax.set_xticks(shown, labels)
    ax.set_yticks(shown, labels)
    ax.minorticks_off()
    ax.set(xlim=(low, high), ylim=(low, high))


def draw_bridge(directory: Path) -> Drawing:
    """The whole figure, from ``validation.json`` and the runs below ``directory``.

    Raises InputError where there is no ``validation.json``, it lacks a column, or names a run that is not there.
    """
    rows = read_verdicts(directory)
    judged = [row for row in rows if np.isfinite((row.value, row.measured)).all()]
    shares = [
        row
        for row in judged
        if not KINDS[row.label.kind].log and 0.0 <= row.value <= 1.0 and 0.0 <= row.measured <= 1.0
    ]
    others = [row for row in judged if row not in shares]
    with drawing_style():
        figure = Drawing(figsize=(8.4, 5.7))
        axes = figure.subplots(2, 3)
        figure.get_layout_engine().set(w_pad=0.07, h_pad=0.06)  # type: ignore[union-attr, call-arg]  # constrained, by the style
        draw_replay(axes[0, 0], directory, rows)
        draw_leash(axes[0, 1], directory, rows)
        draw_escapes(axes[0, 2], directory, rows)
        draw_forgetting(axes[1, 0], directory, rows)
        panel(axes[1, 1], "e", f"all {len(shares)} masses and shares", "predicted", "measured")
        draw_verdicts(axes[1, 1], shares)
        panel(axes[1, 2], "f", f"all {len(others)} other numbers", "predicted (logs: nats)", "measured (logs: nats)")
        draw_verdicts(axes[1, 2], others)
        if others:
            _compress(axes[1, 2], others)
        handles = [
            theory_key("theory"),
            key(marker="s", color=BLUE.color, label="toy (simulator)"),
            key(marker="o", color=BLACK.color, filled=True, label="language model"),
        ]
        for verdict, mark in MARKS.items():
            count = sum(row.verdict == verdict for row in judged)
            handles.append(
                key(marker=mark.marker, color=mark.color, filled=verdict != "undecided", label=f"{verdict} ({count})")
            )
        legend_below(figure, handles, len(handles))
    return figure


def save_bridge(directory: Path, path: Path) -> Path:
    """Draw the figure of the validation in ``directory`` and write it to ``path`` (PNG, whole or not at all)."""
    return save_png(draw_bridge(directory), path, "Toy, language model and theory")


def save_and_show(config: Config) -> int:
    """Draw, write and say where."""
    check_recorded(config.validation, "--validation")
    if config.out == IMAGES:
        checkout("--out")
    prepare_directory(config.out)
    show(f"picture: {save_bridge(config.validation, config.out / 'bridge.png')}")
    return 0


def main() -> int:
    """Command line; returns the exit code."""
    return run_module("fstsim.paper.bridge.figure", Config, save_and_show)


if __name__ == "__main__":
    raise SystemExit(main())
