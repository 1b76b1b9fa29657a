"""The picture that every training run ends with: reward, old mass, KL and old skills against samples or steps, all seeds."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from fstsim.columns import find_column
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.tasks.families import FAMILIES
from fstsim.paper.figures.drawing import (
    BLACK,
    BLUE,
    DASH_DOT,
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
Rows = Sequence[Mapping[str, Any]]
Look = tuple[Series, object, str | None]
"""Colour and marker, line style, label."""


def save_train_picture(config: TrainConfig, runs: Sequence[Rows], path: Path) -> Path:
    """Draw the seeds of one training, ``runs[seed]`` the rows of a run, and write it to ``path`` (PNG)."""
    with drawing_style():
        figure = draw_training(config, runs)
    return save_png(figure, path)


def columns(runs: Sequence[Rows], name: str) -> tuple[Array, Array, Array]:
    """Steps at which ``name`` was measured in all seeds, its mean over seeds and two standard errors of that mean."""
    tables = [{row["step"]: row[name] for row in rows if row.get(name) is not None} for rows in runs]
    steps = sorted(set.intersection(*(set(table) for table in tables)))
    values = np.array([[table[step] for step in steps] for table in tables], dtype=np.float64)
    if not steps:
        return np.empty(0), np.empty(0), np.empty(0)
    error = 2.0 * values.std(axis=0, ddof=1) / np.sqrt(len(runs)) if len(runs) > 1 else np.zeros(len(steps))
    return np.array(steps, dtype=np.float64), values.mean(axis=0), error


def segments(steps: Array, switches: Sequence[int]) -> list[slice]:
    """Parts of increasing ``steps`` between ``switches``, the last steps on each task but the last; only parts that hold a step."""
    bounds = [0, *np.searchsorted(steps, switches, side="right"), len(steps)]
    return [slice(a, b) for a, b in pairwise(bounds) if a < b]


def draw_column(
    ax: Axes,
    runs: Sequence[Rows],
    name: str,
    look: Look,
    every: int = 1,
    switches: Sequence[int] = (),
) -> None:
    """Mean over seeds with a band of two standard errors, in one line between ``switches``; called as `Column.legend` says.

    ``every`` smooths a column of each step by block means.
    """
    series, linestyle, label = look
    steps, mean, error = columns(runs, name)
    column = find_column(name)
    label = label if label is not None else column.legend if column else ""
    mark = max(1, len(steps) // (10 * every))
    for k, part in enumerate(segments(steps, switches)):
        x, y, half = steps[part], mean[part], error[part]
        if every > 1 and len(x) >= 2 * every:
            keep = len(x) // every * every
            x, y, half = (values[:keep].reshape(-1, every).mean(axis=1) for values in (x, y, half))
        ax.plot(
            x,
            y,
            color=series.color,
            marker=series.marker,
            markevery=mark,
            ms=4,
            linestyle=linestyle,
            label="" if k else label,
        )
        ax.fill_between(x, y - half, y + half, color=series.color, alpha=0.2, linewidth=0)


def _mark_switches(axes: Sequence[Axes], switches: Sequence[int]) -> None:
    """A vertical line half a step after the last step on each task but the last."""
    for ax in axes:
        for k, step in enumerate(switches):
            ax.axvline(step + 0.5, color=GREY, linewidth=1.2, linestyle="--", label="" if k else "next task")


def _scale_distance(ax: Axes) -> None:
    """A linear axis up to a nat, where a logarithmic one would have one or two labelled ticks; beyond, linear up to 0.1."""
    _, top = ax.get_ylim()
    if top > 1.0:
        ax.set_yscale("symlog", linthresh=0.1)
    else:
        ax.yaxis.set_major_formatter("{x:g}")  # no common factor where the title is
    ax.set_ylim(-0.01 * min(top, 1.0), max(top, 1e-6))  # rounding is no distance


def draw_training(config: TrainConfig, runs: Sequence[Rows]) -> Drawing:
    """The figure: one line of panels, the exam of old skills only where the model has one."""
    has_exam = any(name.startswith("accuracy_") for row in runs[0] for name in row)  # other worlds' models have none
    count = 4 if has_exam else 3
    figure = Drawing(figsize=(3.125 * count, 3.4))
    axes = figure.subplots(1, count)
    reward, mass, kl = axes[:3]
    switches = [k * config.steps for k in range(1, len(config.tasks))]
    # problems and contexts are those of the present task: its values do not continue those of the last one
    draw = functools.partial(draw_column, runs=runs, switches=switches)
    draw(reward, name="reward", look=(BLACK, "-", None))
    if any("reward_no_context" in row for row in runs[0]):
        draw(reward, name="reward_no_context", look=(BLUE, DASH_DOT, None))
    draw(reward, name="train_reward", look=(GREEN, "--", None), every=5)
    draw(reward, name="dead_share", look=(VERMILLION, ":", None), every=5)
    reward.set_ylim(-0.03, 1.03)
    draw(mass, name="old_mass", look=(BLACK, "-", None))
    mass.set_ylim(0.0, 1.05 * mass.get_ylim()[1])
    draw(kl, name="kl_to_base", look=(BLACK, "-", None))
    draw(kl, name="kl_from_base", look=(BLUE, DASH_DOT, None))
    _scale_distance(kl)
    panel(reward, "a", "new task", "slow step", "reward, share of groups")
    panel(mass, "b", "old behaviour, no context", "slow step", "probability of its answer")
    panel(kl, "c", "distance from the base", "slow step", "KL (nats a sequence)")
    if has_exam:
        _draw_skills(axes[3], runs)
    for ax in (reward, kl, *axes[3:]):
        ax.legend()
    _mark_switches(axes, switches)
    if switches:
        mass.legend()  # the panel with room for it says what the marks are
    seeds = f"{len(runs)} seeds, band: 2 standard errors" if len(runs) > 1 else "1 seed"
    # the name of a task may be that of a file: no formula of matplotlib, which may be none
    figure.suptitle(f"{config.method} on {', '.join(config.tasks)}; {seeds}".replace("$", r"\$"))
    return figure


def _draw_skills(ax: Axes, runs: Sequence[Rows]) -> None:
    """Accuracy on the exam of old skills, which is the same for every task."""
    for family, series in zip(FAMILIES, (BLACK, BLUE, VERMILLION), strict=True):
        draw_column(ax, runs, f"accuracy_{family}_1", (series, "-", family))
        draw_column(ax, runs, f"accuracy_{family}_2", (series, ":", ""))
    ax.set_ylim(-0.03, 1.03)
    panel(ax, "d", "old skills (1 rule solid, 2 dotted)", "slow step", "accuracy with rules in context")
