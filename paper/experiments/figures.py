"""Figures of the experiments on fast-slow training, from run directories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from fstsim.llm.experiments import CONTINUAL, CORE, PLASTICITY, REUSE, ZERO
from fstsim.llm.experiments.continual import SEQUENCE
from fstsim.llm.experiments.plan import LEARNING_RATES, LR
from fstsim.paper.experiments.numbers import Curves, own_context, read_curves, read_decompositions
from fstsim.paper.experiments.planned import grouped, kind_and_task, task
from fstsim.paper.figures.drawing import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    VERMILLION,
    Drawing,
    Series,
    drawing_style,
    panel,
    save_png,
)

Array = NDArray[np.float64]
METHODS: dict[str, tuple[Series, object, str]] = {
    "rl": (BLACK, "-", "RL"),
    "fst": (BLUE, "--", "FST"),
    "gepa": (GREEN, ":", "GEPA alone"),
}


OWN: tuple[Series, object, str] = (VERMILLION, "-.", "FST, own context")
FRESH = Series(GREY, "^")
REUSING: tuple[Series, object, str] = (VERMILLION, "-.", "FST, reuse")


def band(ax: Axes, x: Array, values: Array, look: tuple[Series, object, str]) -> None:
    """Mean over seeds with two standard errors; ``values (seeds, times)``; ``look`` as in `METHODS`."""
    series, line, label = look
    mean = values.mean(0)
    error = 2.0 * values.std(0, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.zeros_like(mean)
    mark = max(1, len(x) // 8)
    ax.plot(x, mean, linestyle=line, color=series.color, marker=series.marker, markevery=mark, ms=4, label=label)
    ax.fill_between(x, mean - error, mean + error, color=series.color, alpha=0.2, linewidth=0)


def read_core(out: Path) -> list[tuple[str, str, dict[str, Curves]]]:
    """``(kind, task, curves of each method that has been run)`` of the hard tasks, then of the easy ones."""
    return [
        (kind, task, {run.method: c for run in runs if (c := read_curves(out, run.name)) is not None})
        for (kind, task), runs in grouped(CORE, kind_and_task).items()
    ]


def read_core_decompositions(out: Path) -> list[tuple[str, list[dict[str, Any]]]]:
    """``(task, the 2 x 2 of every seed)`` of the tasks that have been taken apart, in the order of `read_core`."""
    runs = [run for run in CORE.runs("small") if run.method == "fst"]
    return [(run.task, seeds) for run in runs if (seeds := read_decompositions(out, run.name))]


def draw_core(out: Path, path: Path) -> Path | None:
    """Held-out reward against samples, and against KL to the base: one column a task."""
    found = [(kind, task, curves) for kind, task, curves in read_core(out) if curves]
    if not found:
        return None
    with drawing_style():
        figure = Drawing(figsize=(max(3.4 * len(found), 5.0), 6.0))
        axes = figure.subplots(2, len(found), squeeze=False)
        for j, (kind, task, curves) in enumerate(found):
            above, below = axes[0, j], axes[1, j]
            for method, c in curves.items():
                band(above, c.samples.mean(0) / 1000.0, c["reward"], METHODS[method])
                series, line, label = METHODS[method]
                if method != "gepa":  # its weights do not move
                    for k, (kl, reward) in enumerate(zip(c["kl_to_base"], c["reward"], strict=True)):
                        below.plot(
                            kl,
                            reward,
                            linestyle=line,
                            color=series.color,
                            marker=series.marker,
                            ms=3,
                            lw=0.9,
                            label=label if k == 0 else "",
                        )
            seeds = min(len(c.samples) for c in curves.values())
            panel(above, chr(97 + j), f"{task} ({kind}; {seeds} seeds)", "samples, both channels (thousands)", "reward")
            panel(below, chr(97 + len(found) + j), "one line a seed", "KL(now ‖ base), nats a sequence", "reward")
            above.set_ylim(-0.03, 1.03)
            below.set_ylim(-0.03, 1.03)
            below.set_xscale("symlog", linthresh=0.1)
            below.set_xlim(left=0.0)
            above.set_xscale("symlog", linthresh=0.5)
            above.set_xlim(left=0.0)
        axes[0, 0].legend()
        return save_png(figure, path)


def draw_continual(out: Path, path: Path) -> Path | None:
    """Reward on every task of a sequence in one uninterrupted run: RL, FST, and FST in the context kept for each task."""
    runs = [run for run in CONTINUAL.runs("small") if run.lr == LR]
    curves = {run.method: c for run in runs if (c := read_curves(out, run.name)) is not None}
    if not curves:
        return None
    with drawing_style():
        figure = Drawing(figsize=(10.0, 3.2))
        axes = figure.subplots(1, len(SEQUENCE))
        for j, (ax, task) in enumerate(zip(axes, SEQUENCE, strict=True)):
            for method, c in curves.items():
                here = c["task"][0] == j
                values = np.where(here, c["reward"], c[f"reward_task{j}"] if f"reward_task{j}" in c.columns else np.nan)
                band(ax, c["step"][0], values, METHODS[method])
                kept = own_context(c, j) if method == "fst" else None
                if kept is not None:
                    band(ax, c["step"][0], np.where(c["task"] >= j, kept, np.nan), OWN)
                for switch in np.flatnonzero(np.diff(c["task"][0])):
                    ax.axvline(c["step"][0][switch], color=GREY, linewidth=0.8, linestyle=":")
            panel(ax, chr(97 + j), task, "slow step", "reward")
            ax.set_ylim(-0.03, 1.03)
        axes[-1].legend(*axes[0].get_legend_handles_labels(), loc="upper left", bbox_to_anchor=(0.0, 0.95))
        return save_png(figure, path)


def draw_reuse(out: Path, path: Path) -> Path | None:
    """Held-out reward against samples, with and without reuse of the fast rounds' rollouts: one panel a task."""
    found = {}
    for name, runs in grouped(REUSE, task).items():
        plain, reusing = (read_curves(out, run.name) for run in runs)
        if plain is not None and reusing is not None:
            found[name] = (plain, reusing)
    if not found:
        return None
    with drawing_style():
        figure = Drawing(figsize=(max(3.4 * len(found), 5.0), 3.2))
        axes = figure.subplots(1, len(found), squeeze=False)[0]
        for j, (ax, (name, pair)) in enumerate(zip(axes, found.items(), strict=True)):
            for c, look in zip(pair, (METHODS["fst"], REUSING), strict=True):
                band(ax, c.samples.mean(0) / 1000.0, c["reward"], look)
            seeds = min(len(c.samples) for c in pair)
            panel(ax, chr(97 + j), f"{name} ({seeds} seeds)", "samples, both channels (thousands)", "reward")
            ax.set_ylim(-0.03, 1.03)
            ax.set_xscale("symlog", linthresh=0.5)
            ax.set_xlim(left=0.0)
        axes[0].legend()
        return save_png(figure, path)


def draw_zero(out: Path, path: Path) -> Path | None:
    """Held-out reward against samples from next to no reward: one panel a method, one line a learning rate."""
    looks = dict(zip(LEARNING_RATES, ((BLACK, "-"), (BLUE, "--"), (VERMILLION, "-.")), strict=True))
    declared = grouped(ZERO, lambda run: run.method)
    found = {
        method: {run.lr: c for run in runs if (c := read_curves(out, run.name)) is not None}
        for method, runs in declared.items()
    }
    if not any(found.values()):
        return None
    with drawing_style():
        figure = Drawing(figsize=(8.0, 3.4))
        axes = figure.subplots(1, 2, sharey=True)
        for j, (ax, (method, curves)) in enumerate(zip(axes, found.items(), strict=True)):
            for lr, c in curves.items():
                series, line = looks[lr]
                band(ax, c.samples.mean(0) / 1000.0, c["reward"], (series, line, f"learning rate {lr:g}"))
            seeds = min((len(c.samples) for c in curves.values()), default=0)
            title = f"{METHODS[method][2]} on {declared[method][0].task} ({seeds} seeds)"
            panel(ax, chr(97 + j), title, "samples, both channels (thousands)", "reward" if j == 0 else "")
            ax.set_xscale("symlog", linthresh=0.5)
            ax.set_xlim(left=0.0)
            ax.set_ylim(bottom=0.0)
        axes[0].legend()
        return save_png(figure, path)


def draw_plasticity(out: Path, path: Path) -> Path | None:
    """Fresh RL on a second task from the base and from the ends of RL and FST on a first: one panel a second task."""
    looks = {"base": (FRESH, "-.", "from base"), "rl": (BLACK, "-", "from RL"), "fst": (BLUE, "--", "from FST")}
    found = {}
    for name, runs in grouped(PLASTICITY, task).items():
        curves = {run.kind: c for run in runs if (c := read_curves(out, run.name)) is not None}
        if curves:
            found[name] = curves
    if not found:
        return None
    with drawing_style():
        figure = Drawing(figsize=(4.0 * len(found), 3.4))
        axes = figure.subplots(1, len(found), squeeze=False)[0]
        for j, (ax, (name, curves)) in enumerate(zip(axes, found.items(), strict=True)):
            for start, c in curves.items():
                band(ax, c["step"][0], c["reward"], looks[start])
            panel(ax, chr(97 + j), f"fresh RL on {name}", "slow step", "reward")
            ax.set_ylim(-0.03, 1.03)
        axes[0].legend()
        return save_png(figure, path)


def draw_decomposition(out: Path, path: Path) -> Path | None:
    """{base, trained weights} x {empty, evolved context} of every FST run."""
    found = read_core_decompositions(out)
    if not found:
        return None
    cells = (
        ("base_empty", "neither"),
        ("trained_empty", "weights only"),
        ("base_evolved", "context only"),
        ("trained_evolved", "both"),
    )
    shades = ("#FFFFFF", "#BBBBBB", "#005A9E", "#000000")
    with drawing_style():
        figure = Drawing(figsize=(max(2.2 * len(found), 5.0), 3.2))
        ax = figure.subplots()
        for j, (_, seeds) in enumerate(found):
            for k, ((key, label), shade) in enumerate(zip(cells, shades, strict=True)):
                values = np.array([s[key] for s in seeds])
                error = 2.0 * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
                ax.bar(
                    j + 0.2 * (k - 1.5), values.mean(), 0.18, yerr=error, color=shade, edgecolor="black",
                    ecolor=GREY, label=label if j == 0 else "",
                )  # fmt: skip
        panel(ax, "a", "what weights and context carry", "", "reward")
        ax.set_xticks(range(len(found)), [task.replace(":", "\n") for task, _ in found])
        ax.set_ylim(0.0, 1.05)
        ax.legend(ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.22))
        return save_png(figure, path)
