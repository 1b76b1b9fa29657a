"""``python -m fstsim.paper.records.faithful.evidence``: the recorded arms as one picture, ``paper/images/faithful.png``.

Left, the log-odds of writing a chain against steps of SFT and RL, beside where theory 6.4 lets them rest; right, by how much the
scores of chains of 3 rules have changed, over three seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from scipy.special import logit

from fstsim.errors import InputError
from fstsim.front.console import show
from fstsim.front.entry import run_module
from fstsim.llm.validation.faithful import arms
from fstsim.paper import IMAGES
from fstsim.paper.figures.drawing import DASH_DOT, GREY, SERIES, Drawing, drawing_style, panel, save_png
from fstsim.paper.pages.faithful import recorded_arms

_SCORES = {
    "early": "early termination",
    "filler": "filler",
    "paraphrase_agreement": "paraphrase",
    "corruption_followed": "corruption followed",
}


@dataclass(frozen=True)
class Config:
    """Draw the recorded arms of faithfulness."""

    out: Path = IMAGES / "faithful.png"
    """picture"""


def draw(records: Sequence[dict[str, Any]]) -> Drawing:
    """Three panels: SFT, RL, changes of scores."""
    figure = Drawing(figsize=(11.5, 3.8))
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.3))
    rests = {arm.name: arm.rest for arm in arms()}
    for ax, method in ((left, "sft"), (middle, "rl")):
        chosen = [arm for arm in records if arm["config"]["method"] == method]
        for k, arm in enumerate(chosen):
            _path(ax, arm, k)
            rest = rests.get(arm["name"])
            if rest is not None and 0.0 < rest < 1.0:
                ax.axhline(float(logit(rest)), color=GREY, linestyle=DASH_DOT, linewidth=0.8)
    panel(left, "a", "SFT", "step", "log-odds of writing a chain (nats)")
    panel(middle, "b", "RL on the answer", "step", "")
    _changes(right, records)
    panel(right, "c", "change of scores, 3 rules", "", "change")
    handles = [pair for ax in (left, middle) for pair in zip(*ax.get_legend_handles_labels(), strict=True)]
    if handles:
        figure.legend(*zip(*handles, strict=True), loc="outside lower center", ncols=4, fontsize=7)
    return figure


def _path(ax: Axes, arm: dict[str, Any], k: int) -> None:
    look = SERIES[k % len(SERIES)]
    values = logit(np.clip(np.array(arm["chain_mass"], float), 1e-300, 1.0 - 1e-15))
    steps = np.array(arm["steps"])
    style = "-" if k < len(SERIES) else DASH_DOT
    ax.plot(steps, values.mean(0), color=look.color, marker=look.marker, ms=4, linestyle=style, label=arm["about"])
    ax.fill_between(steps, values.min(0), values.max(0), color=look.color, alpha=0.15, linewidth=0)


def _changes(ax: Axes, records: Sequence[dict[str, Any]]) -> None:
    names = []
    for place, arm in enumerate(records):
        task = next(t for t in arm["faithful"]["tasks"] if t["rules"] == 3)
        names.append(arm["name"])
        if task["change_not_measurable"]:
            ax.text(place, 0.02, "not measurable", rotation=90, ha="center", va="bottom", fontsize=6, color=GREY)
            continue
        for k, name in enumerate(_SCORES):
            held = task["change"].get(name)
            if held is None or held["mean"] is None:
                continue
            look, x = SERIES[k], place + 0.16 * (k - 1.5)
            bars = np.array([[held["mean"] - held["low"]], [held["high"] - held["mean"]]])
            ax.errorbar(x, held["mean"], bars, fmt=look.marker, color=look.color, ms=4, capsize=2)
    for k, name in enumerate(_SCORES):
        ax.plot([], [], SERIES[k].marker, color=SERIES[k].color, ms=4, label=_SCORES[name])
    ax.axhline(0.0, color=GREY, linewidth=0.6)
    ax.set_xticks(range(len(names)), names, rotation=30, ha="right")
    ax.set_xlim(-0.6, len(names) - 0.4)
    ax.legend(fontsize=6)


def run(config: Config) -> int:
    """Draw it; InputError where no arm is recorded."""
    records = recorded_arms()
    if not records:
        raise InputError("no arm is recorded: make them with python -m fstsim.paper.records.faithful.runs")
    with drawing_style():
        figure = draw(records)
    show(f"picture: {save_png(figure, config.out)}")
    return 0


def main() -> int:
    """Command line; returns the exit code."""
    return run_module("fstsim.paper.records.faithful.evidence", Config, run)


if __name__ == "__main__":
    raise SystemExit(main())
