"""What a frozen reflector changes over a sequence of tasks: a table and a picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from fstsim.llm.experiments import REFLECTORS
from fstsim.llm.experiments.continual import SEQUENCE
from fstsim.paper.experiments.numbers import Curves, Estimate, estimate, read_curves
from fstsim.paper.experiments.tables import plain_table
from fstsim.paper.figures.drawing import BLUE, VERMILLION, Drawing, Series, drawing_style, panel, save_png

Array = NDArray[np.float64]
LABELS = {"self": "policy", "frozen": "frozen base"}
_LOOKS: dict[str, Series] = {"self": BLUE, "frozen": VERMILLION}


def at_once(curves: Curves, stage: int) -> Array:
    """Reward ``(seeds,)`` at the first measurement of a stage after step 0: after its first fast round and one slow step."""
    first: Array = curves["reward"][:, (curves["task"][0] == stage) & (curves["step"][0] > 0)][:, 0]
    return first


def read_pairs(out: Path) -> Iterator[tuple[float, Curves, Curves]]:
    """Learning rate, runs of the policy as its own reflector and of a frozen one, where both are finished."""
    runs = REFLECTORS.runs("small")
    for own, frozen in zip(runs[::2], runs[1::2], strict=True):
        both = read_curves(out, own.name), read_curves(out, frozen.name)
        if both[0] is not None and both[1] is not None:
            yield own.lr, both[0], both[1]


def pooled_difference(out: Path, stage: int) -> Estimate | None:
    """Frozen less own, reward `at_once`: the mean over learning rates of each seed, then over seeds; None without runs."""
    pairs = list(read_pairs(out))
    if not pairs:
        return None
    seeds = min(min(len(a.samples), len(b.samples)) for _, a, b in pairs)
    rows = [at_once(frozen, stage)[:seeds] - at_once(own, stage)[:seeds] for _, own, frozen in pairs]
    return estimate(np.mean(rows, axis=0))


def reflectors_table(out: Path) -> Table:
    """Both reflectors at every learning rate: reward at once and over each stage, and old skills lost at the end."""
    table = plain_table(
        "reflectors: reward at the start of each stage (after one fast round); mean of the last; old skills lost",
        "learning rate", "reflector", *SEQUENCE, "last stage", "drift at end",
    )  # fmt: skip
    for lr, *pair in read_pairs(out):
        for label, c in zip(LABELS.values(), pair, strict=True):
            last = np.nanmean(c["reward"][:, c["task"][0] == len(SEQUENCE) - 1], axis=1)
            firsts = (str(estimate(at_once(c, k))) for k in range(len(SEQUENCE)))
            table.add_row(f"{lr:g}", label, *firsts, str(estimate(last)), str(estimate(c["drift"][:, -1])))
    if table.row_count:
        pooled = (str(pooled_difference(out, k)) for k in range(len(SEQUENCE)))
        table.add_row("all", "difference", *pooled, "", "")
    table.caption = (
        "stages: reward after the first fast round and one slow step; difference: frozen less policy, paired by seed"
    )
    return table


def draw_reflectors(out: Path, path: Path) -> Path | None:
    """Reward at once in each stage: one panel a stage, one point a seed, with both reflectors at every learning rate."""
    pairs = list(read_pairs(out))
    if not pairs:
        return None
    with drawing_style():
        figure = Drawing(figsize=(10.0, 3.2))
        axes = figure.subplots(1, len(SEQUENCE), sharey=True)
        for stage, ax in enumerate(axes):
            for place, (_, *pair) in enumerate(pairs):
                for side, ((kind, label), c) in enumerate(zip(LABELS.items(), pair, strict=True)):
                    values, look = at_once(c, stage), _LOOKS[kind]
                    x = place + (side - 0.5) * 0.36
                    spread = np.linspace(-0.1, 0.1, len(values)) if len(values) > 1 else np.zeros(1)
                    name = label if place == 0 else ""
                    ax.plot(x + spread, values, look.marker, color=look.color, ms=5, label=name, clip_on=False)
                    ax.plot([x - 0.15, x + 0.15], [values.mean()] * 2, color=look.color, linewidth=2)
            ax.set_xticks(range(len(pairs)), [f"{lr:g}" for lr, *_ in pairs])
            ax.set_ylim(-0.03, 1.03)
            title = f"stage {stage + 1}: {SEQUENCE[stage]}"
            panel(ax, chr(97 + stage), title, "learning rate", "reward after the first fast round" if not stage else "")
        axes[0].legend(title="reflector", loc="lower left")
        return save_png(figure, path)
