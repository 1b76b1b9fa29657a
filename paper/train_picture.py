"""The picture that every training run ends with: reward, old mass, KL and old skills against samples or steps, all seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from fstsim.llm.families import FAMILIES
from fstsim.llm.train_config import TrainConfig
from fstsim.paper.drawing import (
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
)
from fstsim.records import write_atomically

Array = NDArray[np.float64]
Rows = Sequence[Mapping[str, Any]]


def save_train_picture(config: TrainConfig, runs: Sequence[Rows], path: Path) -> Path:
    """Draw the seeds of one training, ``runs[seed]`` the rows of a run, and write it to ``path`` (PNG)."""
    with drawing_style():
        figure = _draw(config, runs)
        write_atomically(path, lambda file: figure.savefig(file, format="png", metadata={"Software": None}))
    return path


def columns(runs: Sequence[Rows], name: str) -> tuple[Array, Array, Array]:
    """Steps at which ``name`` was measured in all seeds, its mean over seeds and two standard errors of that mean."""
    tables = [{row["step"]: row[name] for row in rows if row.get(name) is not None} for rows in runs]
    steps = sorted(set.intersection(*(set(table) for table in tables)))
    values = np.array([[table[step] for step in steps] for table in tables], dtype=np.float64)
    if not steps:
        return np.empty(0), np.empty(0), np.empty(0)
    error = 2.0 * values.std(axis=0, ddof=1) / np.sqrt(len(runs)) if len(runs) > 1 else np.zeros(len(steps))
    return np.array(steps, dtype=np.float64), values.mean(axis=0), error


def draw_column(
    ax: Axes, runs: Sequence[Rows], name: str, series: Series, label: str, linestyle: object = "-", every: int = 1
) -> None:
    """Mean over seeds with a band of two standard errors; ``every`` smooths a column of each step by block means."""
    steps, mean, error = columns(runs, name)
    if every > 1 and len(steps) >= 2 * every:
        keep = len(steps) // every * every
        steps, mean, error = (part[:keep].reshape(-1, every).mean(axis=1) for part in (steps, mean, error))
    if not len(steps):
        return
    mark = max(1, len(steps) // 10)
    ax.plot(
        steps,
        mean,
        color=series.color,
        marker=series.marker,
        markevery=mark,
        ms=4,
        linestyle=linestyle,
        label=label,
    )
    ax.fill_between(steps, mean - error, mean + error, color=series.color, alpha=0.2, linewidth=0)


def _switches(axes: Sequence[Axes], config: TrainConfig) -> None:
    for ax in axes:
        for k in range(1, len(config.tasks)):
            ax.axvline(k * config.steps, color=GREY, linewidth=0.8, linestyle=":")


def _draw(config: TrainConfig, runs: Sequence[Rows]) -> Drawing:
    figure = Drawing(figsize=(12.5, 3.4))
    reward, mass, kl, skills = figure.subplots(1, 4)
    has_context = any("reward_no_context" in row for row in runs[0])
    draw_column(reward, runs, "reward", BLACK, "held-out problems")
    if has_context:
        draw_column(reward, runs, "reward_no_context", BLUE, "without context", DASH_DOT)
    draw_column(reward, runs, "train_reward", GREEN, "rollouts", "--", every=5)
    draw_column(reward, runs, "dead_share", VERMILLION, "groups without signal", ":", every=5)
    reward.set_ylim(-0.03, 1.03)
    draw_column(mass, runs, "old_mass", BLACK, "old behaviour")
    mass.set_ylim(bottom=0.0)
    draw_column(kl, runs, "kl_to_base", BLACK, "KL(now ‖ base)")
    draw_column(kl, runs, "kl_from_base", BLUE, "KL(base ‖ now)", DASH_DOT)
    kl.set_yscale("symlog", linthresh=0.1)
    for family, series in zip(FAMILIES, (BLACK, BLUE, VERMILLION), strict=True):
        draw_column(skills, runs, f"accuracy_{family}_1", series, family)
        draw_column(skills, runs, f"accuracy_{family}_2", series, "", ":")
    skills.set_ylim(-0.03, 1.03)
    panel(reward, "a", "new task", "slow step", "reward, share of groups")
    panel(mass, "b", "old behaviour, no context", "slow step", "probability of its answer")
    panel(kl, "c", "distance from the base", "slow step", "KL (nats a sequence)")
    panel(skills, "d", "old skills (1 rule solid, 2 dotted)", "slow step", "accuracy with rules in context")
    for ax in (reward, kl, skills):
        if ax.get_legend_handles_labels()[0]:  # a model of another world has no exam
            ax.legend()
    _switches((reward, mass, kl, skills), config)
    seeds = f"{len(runs)} seeds, band: 2 standard errors" if len(runs) > 1 else "1 seed"
    figure.suptitle(f"{config.method} on {', '.join(config.tasks)}; {seeds}")
    return figure
