"""What the experiment on systems shows: one table a task, and reward against behaviour's KL, old skills and cost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from rich import box
from rich.table import Table

from fstsim.llm.experiments import SYSTEMS
from fstsim.llm.experiments.plan import Planned
from fstsim.paper.experiments.numbers import Curves, estimate, read_curves, totals
from fstsim.paper.experiments.planned import grouped, task
from fstsim.paper.figures.drawing import GREY, SERIES, Drawing, drawing_style, panel, save_png

Array = NDArray[np.float64]
_COST_FROM = 10.0
_MARKERS = "os^DvP*<>hXdp8"


def read_systems(out: Path) -> Iterator[tuple[str, list[tuple[Planned, Curves]]]]:
    """Each task with the arms that have been run on it."""
    for name, runs in grouped(SYSTEMS, task).items():
        found = [(run, c) for run in runs if (c := read_curves(out, run.name)) is not None]
        if found:
            yield name, found


def _last(c: Curves, column: str, otherwise: str | None = None) -> Array:
    """A column at the end, seed by seed; of ``otherwise`` where the run has no such column, nan where it has neither."""
    for name in (column, otherwise):
        if name is not None and name in c.columns:
            return c[name][:, -1]
    return np.full(len(c.samples), np.nan)


def _weights_kl(c: Curves) -> Array:
    """KL of the bare weights without context."""
    return _last(c, "kl_to_base_no_context", "kl_to_base")


def _lost_on(c: Curves) -> Array:
    """Accuracy lost on old skills as the system is deployed; a policy has nothing to leave on but its context, which an exam has its own of."""
    return _last(c, "drift_deployed", "drift")


def cost(out: Path, run: Planned) -> Array:
    """Rollouts of both channels and new demonstrations, seed by seed."""
    c = read_curves(out, run.name)
    assert c is not None
    return c.samples[:, -1] + totals(out, run.name, "shown")


def systems_table(out: Path) -> Table:
    """Every arm on every task that has been run, with 95 % intervals over seeds."""
    names = (
        "task, arm", "reward", "KL of weights", "KL deployed", "excess", "lost, off", "lost, on", "old mass, off", "old mass, on", "rollouts + shown", "trained", "bytes",
    )  # fmt: skip
    table = Table(
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, title_justify="left", caption_justify="left",
        title="nats from the base, old skills and old mass with the state off and on, cost",
    )  # fmt: skip
    for k, column in enumerate(names):
        table.add_column(column, justify="left" if k == 0 else "right", no_wrap=k == 0)
    for name, found in read_systems(out):
        for run, c in found:
            values = (
                c["reward"][:, -1], _weights_kl(c), _last(c, "kl_deployed"), _last(c, "kl_excess"), _last(c, "drift"), _lost_on(c),
                _last(c, "old_mass"), _last(c, "old_mass_deployed", "old_mass"), cost(out, run),
                _last(c, "numbers_trained"), _last(c, "bytes_stored"),
            )  # fmt: skip
            table.add_row(f"{name}, {run.kind}", *(str(estimate(v)) for v in values))
    return table


def _point(ax: Axes, x: Array, y: Array, k: int, label: str) -> None:
    """A mean with two standard errors in both directions."""
    color, marker, fill = _look(k)
    errors = [2.0 * v.std(ddof=1) / np.sqrt(len(v)) if len(v) > 1 else 0.0 for v in (x, y)]
    ax.errorbar(
        x.mean(), y.mean(), yerr=errors[1], xerr=errors[0], marker=marker, color=color, ms=6, lw=0.8, mfc=fill, label=label, linestyle=""
    )  # fmt: skip


def _look(k: int) -> tuple[str, str, str]:
    """Colour, marker and filling of arm number ``k``: a marker of its own, filled in the first round of colours."""
    color = SERIES[k % len(SERIES)].color
    return color, _MARKERS[k % len(_MARKERS)], color if k < len(SERIES) else "white"


def draw_systems(out: Path, path: Path) -> Path | None:
    """Reward against KL deployed, against old skills with the state off (filled) and on (joined by a line), and against cost."""
    found = list(read_systems(out))
    if not found:
        return None
    with drawing_style():
        figure = Drawing(figsize=(11.0, 3.4 * len(found) + 0.6))
        axes = figure.subplots(len(found), 3, squeeze=False)
        for row, (name, arms) in enumerate(found):
            kl, skills, price = axes[row]
            for k, (run, c) in enumerate(arms):
                reward = c["reward"][:, -1]
                _point(kl, _last(c, "kl_deployed"), reward, k, run.kind)
                off, on = 1.0 - _last(c, "drift"), 1.0 - _lost_on(c)
                skills.plot([off.mean(), on.mean()], [reward.mean()] * 2, color=GREY, lw=0.8)
                _point(skills, off, reward, k, run.kind)
                if not np.array_equal(off, on):
                    skills.plot(on.mean(), reward.mean(), "x", color=_look(k)[0], ms=7)
                _point(price, np.maximum(cost(out, run), _COST_FROM), reward, k, run.kind)
            kl.set_xscale("symlog", linthresh=0.1)
            kl.set_xlim(left=0.0)
            price.set_xscale("log")
            first = 3 * row
            panel(kl, chr(97 + first), name, "KL(deployed ‖ base), nats a sequence", "reward")
            panel(skills, chr(98 + first), "old skills kept: state off; on (×)", "1 - accuracy lost", "reward")
            panel(price, chr(99 + first), "cost", "rollouts and new demonstrations", "reward")
            for ax in axes[row]:
                ax.set_ylim(-0.03, 1.05)
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
        return save_png(figure, path)
