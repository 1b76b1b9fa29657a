"""What the experiment on forgetting shows: accuracy lost on old skills against seven numbers that are said to predict it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.table import Table

from fstsim.association import over_groups, quadratic_r2, spearman
from fstsim.intervals import Interval
from fstsim.llm.experiments import FORGETTING
from fstsim.paper.experiments.numbers import Curves, Estimate, read_curves
from fstsim.paper.experiments.planned import grouped
from fstsim.paper.figures.drawing import SERIES, Drawing, drawing_style, panel, save_png

Array = NDArray[np.float64]


def _bare(c: Curves, column: str) -> Array:
    """A column of the weights without context, ``(seeds, times)``; nan where the run has none."""
    name = next((name for name in (f"{column}_no_context", column) if name in c.columns), None)
    return np.full(c.samples.shape, np.nan) if name is None else c[name]


def _lost_share(c: Curves) -> Array:
    """Share of the old behaviour's mass at the start that is gone."""
    mass = _bare(c, "old_mass")
    return np.asarray(1.0 - mass / mass[:, :1])


def _lost_entropy(c: Curves) -> Array:
    entropy = _bare(c, "entropy")
    return np.asarray(entropy[:, :1] - entropy)


@dataclass(frozen=True)
class Predictor:
    """A number that forgetting may follow: what it is called, its unit, and how it is read."""

    name: str
    unit: str
    read: Callable[[Curves], Array]


PREDICTORS = (
    Predictor("KL(now ‖ base), new prompts", "nats a sequence", lambda c: _bare(c, "kl_to_base")),
    Predictor("KL(base ‖ now), new prompts", "nats a sequence", lambda c: _bare(c, "kl_from_base")),
    Predictor("KL(now ‖ base), old prompts", "nats a sequence", lambda c: _bare(c, "old_kl_to_base")),
    Predictor("KL(base ‖ now), old prompts", "nats a sequence", lambda c: _bare(c, "old_kl_from_base")),
    Predictor("distance of the weights", "of the base's norm", lambda c: _bare(c, "weight_distance")),
    Predictor("old behaviour lost", "share of its mass", _lost_share),
    Predictor("entropy lost", "nats a sequence", _lost_entropy),
)


@dataclass(frozen=True)
class Points:
    """Every measurement after the start of every seed: ``lost (n,)`` of old skills, ``by[predictor] (n,)``; run and way of each."""

    lost: Array
    by: dict[str, Array]
    run: list[str]
    way: list[str]

    def of(self, name: str, way: str | None = None) -> tuple[Array, Array, list[str]]:
        """A predictor, what was lost, and the run of each point, where both were measured, of one way to train or of all."""
        chosen = np.isfinite(self.by[name]) & np.isfinite(self.lost)
        if way is not None:
            chosen &= np.array(self.way) == way
        return self.by[name][chosen], self.lost[chosen], [r for r, c in zip(self.run, chosen, strict=True) if c]


def read_points(out: Path) -> Points | None:
    """The points of every finished run below ``out``; None where there is none."""
    lost, run, way = [], [], []
    by: dict[str, list[Array]] = {p.name: [] for p in PREDICTORS}
    for label, planned in grouped(FORGETTING, lambda each: each.kind).items():
        for each in planned:
            c = read_curves(out, each.name)
            if c is None:
                continue
            later = c.samples.shape[1] - 1
            lost.append(c["drift"][:, 1:].ravel())
            for p in PREDICTORS:
                by[p.name].append(p.read(c)[:, 1:].ravel())
            run += [f"{each.name}/{seed}" for seed in range(len(c.samples)) for _ in range(later)]
            way += [label] * (len(c.samples) * later)
    if not lost:
        return None
    return Points(np.concatenate(lost), {name: np.concatenate(parts) for name, parts in by.items()}, run, way)


def _shown(interval: Interval, runs: int) -> str:
    value, low, high = map(float, interval)
    return "–" if not np.isfinite(value) else str(Estimate(value, low, high, runs))


def forgetting_table(out: Path) -> Table:
    """R² of a quadratic and rank correlation with 95 % intervals over runs; rank correlation within each way to train."""
    points = read_points(out)
    labels = list(grouped(FORGETTING, lambda each: each.kind))
    table = Table(
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, title_justify="left", caption_justify="left",
        title="what accuracy lost on old skills follows: all runs, then rank correlation within each way to train",
    )  # fmt: skip
    for k, column in enumerate(("predictor", "R², all", "rank, all", *labels)):
        table.add_column(column, justify="left" if k == 0 else "right", no_wrap=k == 0)
    if points is None:
        return table
    for p in PREDICTORS:
        x, y, runs = points.of(p.name)
        pooled = [_shown(over_groups(measure, x, y, runs), len(set(runs))) for measure in (quadratic_r2, spearman)]
        within = [spearman(*points.of(p.name, label)[:2]) for label in labels]
        table.add_row(p.name, *pooled, *("–" if not np.isfinite(v) else f"{v:.2f}" for v in within))
    return table


def draw_forgetting(out: Path, path: Path) -> Path | None:
    """Accuracy lost against every predictor, a point a measurement, a colour and a marker a way to train."""
    points = read_points(out)
    if points is None:
        return None
    labels = [label for label in grouped(FORGETTING, lambda each: each.kind) if label in points.way]
    with drawing_style():
        figure = Drawing(figsize=(11.0, 5.8))
        axes = figure.subplots(2, 4, sharey=True).ravel()
        for k, (ax, p) in enumerate(zip(axes, PREDICTORS, strict=False)):
            for n, label in enumerate(labels):
                x, y, _ = points.of(p.name, label)
                look = SERIES[n % len(SERIES)]
                ax.plot(x, y, "os^DvP"[n % 6], color=look.color, ms=2.5, mfc="none", mew=0.7, label=label)
            x, y, _ = points.of(p.name)
            said = f"rank {spearman(x, y):.2f}, R² {quadratic_r2(x, y):.2f}"
            panel(ax, chr(97 + k), p.name, f"{p.unit} ({said})", "accuracy lost" if k % 4 == 0 else "")
            if x.size and x.max() > 2.0:
                ax.set_xscale("symlog", linthresh=0.1)
        axes[-1].axis("off")
        axes[-1].legend(*axes[0].get_legend_handles_labels(), loc="center", markerscale=2.0)
        return save_png(figure, path)
