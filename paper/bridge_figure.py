"""The bridge: toy, language model and theory on the same axes. ``python -m fstsim.paper.bridge_figure --validation DIR --out DIR``.

In every panel the line is the theory, evaluated with what was measured on the base; open squares are the simulator, filled
circles the language model, with 95 % Student intervals. Nothing is fitted; one clock is set where a panel says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib.patheffects
import numpy as np
import tyro
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter
from numpy.typing import ArrayLike

from fstsim.console import complain, show
from fstsim.errors import InputError
from fstsim.llm.predictions import tilted
from fstsim.paper import bridge_toy as toy
from fstsim.paper.bridge_numbers import (
    LAWS,
    Array,
    Escape,
    Verdict,
    base_masses,
    config_of,
    decisions_of,
    named,
    old_decisions,
    read_escapes,
    read_forgetting,
    read_verdicts,
)
from fstsim.paper.drawing import (
    BLACK,
    BLUE,
    GREY,
    LAW,
    ORANGE,
    VERMILLION,
    Drawing,
    Series,
    drawing_style,
    key,
    legend_below,
    panel,
)
from fstsim.records import prepare_directory, write_atomically

CAPTION = (
    "Toy, language model and theory on the same axes. Lines: theory, from numbers of the base model alone; open squares: the simulator's two-mode "
    "learners; filled circles: the language model, bars: 95 % Student intervals over seeds (toy: 16 runs). (a) Old mass at the end of fine-tuning with a share of old "
    "demonstrations; grey: where it began. (b) Mass of the rewarded and of the old answer under RL with a KL leash: the exponential tilt, for each prompt, then averaged. "
    "(c) Updates of group-normalised RL to success 1/2, over those on the easiest task of the family; lines join the predictions, made from the success of every prompt. (d) Old mass under fine-tuning on new data "
    "alone; each law has one number from the run, its clock, set at the first dotted line; the verdict falls at the second. "
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
)

_MARKS = {
    "confirmed": Series("#000000", "o"),
    "falsified": Series(VERMILLION.color, "X"),
    "undecided": Series(GREY, "D"),
}
_LAW_NAMES = {
    "logit": "logit",
    "fisher": "Fisher",
    "adam": "AdamW",
    "logit-tokens": "logit, by token",
    "adam-tokens": "AdamW, by token",
}
_PERCENT = FuncFormatter(lambda x, _: f"{100 * x:g} %")
_PLAIN = FuncFormatter(lambda x, _: f"{x:g}")
_RECORDED, _IMAGES = (Path(__file__).parent / name for name in ("data/validation", "images"))
_HALO = [matplotlib.patheffects.withStroke(linewidth=2.5, foreground="white")]


@dataclass(frozen=True)
class Config:
    """Draw the bridge figure of a validation."""

    validation: Path = _RECORDED
    """directory of fstsim validate, or a recorded one"""
    out: Path = _IMAGES
    """directory for bridge.png"""


def _theory(ax: Axes, x: ArrayLike, y: ArrayLike, linestyle: str = "-", width: float = 3.5) -> None:
    """Broad and pale: what lies on it leaves it visible."""
    ax.plot(x, y, color=ORANGE.color, linestyle=linestyle, linewidth=width, alpha=0.7, solid_capstyle="butt", zorder=1)


def _theory_key(label: str, linestyle: Literal["solid", "dashed"] = "solid") -> Line2D:
    return Line2D([], [], color=ORANGE.color, linestyle=linestyle, linewidth=3.5, alpha=0.7, label=label)


def _simulated(
    ax: Axes, x: ArrayLike, y: ArrayLike, low: ArrayLike | None = None, high: ArrayLike | None = None
) -> None:
    y = np.asarray(y)
    error = None if low is None or high is None else np.maximum(np.stack([y - low, np.asarray(high) - y]), 0.0)
    ax.errorbar(x, y, error, fmt="s", color=BLUE.color, mfc="white", ms=6.5, mew=1.2, elinewidth=0.9, zorder=3)


def _measured(
    ax: Axes, x: ArrayLike, rows: Sequence[Verdict], transform: Callable[[Array], Array] = np.asarray
) -> None:
    """Filled circles with intervals; no bar where there are too few seeds for one."""
    middle, low, high = (
        transform(np.array([getattr(row, column) for row in rows]))
        for column in ("measured", "measured_low", "measured_high")
    )
    error = np.maximum(np.nan_to_num(np.stack([middle - low, high - middle])), 0.0)
    ax.errorbar(x, middle, error, fmt="o", color=BLACK.color, ms=4.0, elinewidth=1.4, capsize=2.5, zorder=4)


def _label(ax: Axes, x: float, y: float, text: str, **more: Any) -> None:
    ax.text(x, y, text, fontsize=8, path_effects=_HALO, zorder=6, **more)


def _absent(ax: Axes) -> None:
    ax.text(0.5, 0.5, "not recorded", color=GREY, ha="center", va="center", transform=ax.transAxes)
    ax.set_xticks([])
    ax.set_yticks([])


def draw_replay(ax: Axes, directory: Path, rows: Sequence[Verdict]) -> None:
    """Old mass at the end against the share of old demonstrations; theory is the diagonal."""
    panel(ax, "a", "replay keeps its own share", "share of old demonstrations", "old mass at the end")
    chosen = named(rows, "replay-")
    if not chosen:
        return _absent(ax)
    share = np.array([row.parameter for row in chosen])
    base = base_masses(directory, chosen[0].name)
    config = config_of(directory, chosen[0].name)
    start = float(base.old.mean())
    grid = np.geomspace(min(0.015, 0.7 * share.min()), max(0.7, 1.4 * share.max()), 60)
    _theory(ax, grid, np.where(base.same, 1.0, grid[:, None]).mean(axis=1))
    ax.axhline(start, color=GREY, linestyle=LAW, linewidth=1.0)
    _label(ax, float(grid[0]) * 1.1, start * 1.06, "before", color=GREY)
    points = [toy.replay(float(s), start, config["steps"], config["demonstrations"]["problems"]) for s in share]
    _simulated(ax, share, *np.transpose(points))
    _measured(ax, share, chosen)
    ax.set(xscale="log", yscale="log", xlim=(grid[0], grid[-1]), ylim=(grid[0], grid[-1]))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_ticks([t for t in (0.02, 0.05, 0.1, 0.2, 0.5) if grid[0] < t < grid[-1]])
        axis.set_major_formatter(_PERCENT)
        axis.set_minor_formatter(NullFormatter())
        axis.set_tick_params(which="minor", length=0)
    return None


def draw_leash(ax: Axes, directory: Path, rows: Sequence[Verdict]) -> None:
    """New and old mass against the temperature of the KL leash; theory is the tilt of each prompt, averaged."""
    panel(ax, "b", "RL with a KL leash", r"leash $\tau$ (reward a nat of KL)", "mass at the end")
    new, old = named(rows, "tilt-new-"), named(rows, "tilt-old-")
    if not new:
        return _absent(ax)
    tau = np.array([row.parameter for row in new])
    base = base_masses(directory, f"tilt-{new[0].name.rpartition('-')[2]}")
    grid = np.geomspace(min(0.2, 0.8 * tau.min()), max(1.25, 1.25 * tau.max()), 80)
    curves = np.array([[mass.mean() for mass in tilted(base, float(t))] for t in grid])
    simulated = np.array([toy.leash(base, float(t)) for t in tau])
    for column, series in enumerate((new, old)):
        _theory(ax, grid, curves[:, column])
        _simulated(ax, tau, simulated[:, column])
        _measured(ax, tau, series) if series else None
    _label(ax, 0.62, float(np.interp(0.62, grid, curves[:, 0])) + 0.06, "new answer", va="bottom")
    _label(ax, 0.6, float(np.interp(0.6, grid, curves[:, 1])) - 0.09, "old answer", va="top", ha="center")
    ax.set(xscale="log", xlim=(grid[0], grid[-1]), ylim=(-0.03, 1.03))
    ax.set_xticks([t for t in (0.2, 0.25, 0.35, 0.5, 0.7, 1.0) if grid[0] < t < grid[-1]])
    ax.xaxis.set_major_formatter(_PLAIN)
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.tick_params(axis="x", which="minor", length=0)
    return None


def draw_escapes(ax: Axes, directory: Path, rows: Sequence[Verdict]) -> None:
    """Time to success 1/2 over that of the family's easiest task, against base success; theory runs through its predictions."""
    panel(ax, "c", "escape from a rare success", "base success $p_0$", "updates to 1/2 (easiest = 1)")
    families = read_escapes(directory, rows)
    if not families:
        return _absent(ax)
    for family in families:
        easiest = family[0]
        p0 = [e.p0 for e in family]
        for clock, line in (("group", "-"), ("adam", "--")):
            if all(clock in e.rows for e in family[1:]):
                _theory(ax, p0, [1.0, *(e.ratio("value", clock) for e in family[1:])], line)
        points = [toy.escape(e.new, easiest.new, e.group, e.problems) for e in family[1:]]
        _simulated(ax, p0[1:], *np.transpose(points))
        _simulated(ax, p0[:1], [1.0])
        ax.plot(p0[:1], [1.0], "o", color=BLACK.color, ms=4.0, zorder=4)
        _measured(ax, p0[1:], [next(iter(e.rows.values())) for e in family[1:]], np.exp)
    ax.set(xscale="log", yscale="log")
    _decorate_escapes(ax, families)
    return None


def _decorate_escapes(ax: Axes, families: Sequence[Sequence[Escape]]) -> None:
    """Names of families and clocks, ticks as plain numbers."""
    bases = [e.p0 for family in families for e in family]
    ax.set_xlim(0.6 * min(bases), 1.6 * max(bases))
    ax.set_ylim(0.6, max(3.0, 2.0 * ax.get_ylim()[1]))
    for family in families:
        _label(ax, family[0].p0, 0.83, family[0].family, ha="center", va="top", color=GREY)
    if any("adam" in e.rows for family in families for e in family):
        handles = [_theory_key("group law"), _theory_key("constant speed", "dashed")]
        ax.legend(handles=handles, loc="upper right")
    for axis, ticks in (
        (ax.xaxis, (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)),
        (ax.yaxis, (1, 1.5, 2, 3, 5, 10, 20, 50)),
    ):
        first, last = axis.get_view_interval()
        axis.set_ticks([t for t in ticks if first < t < last])
        axis.set_major_formatter(_PLAIN)
        axis.set_minor_formatter(NullFormatter())
        axis.set_tick_params(which="minor", length=0)


def draw_forgetting(ax: Axes, directory: Path, rows: Sequence[Verdict]) -> None:
    """Old mass under fine-tuning on new data alone, and every law that was judged; what is falsified is called so."""
    panel(ax, "d", "fine-tuning on new data alone", "update", "old mass")
    if not (directory / "runs" / "sft-new-only").is_dir():
        return _absent(ax)
    tokens = old_decisions(directory, "sft-new-only")
    found = read_forgetting(directory, tokens)
    if found is None:
        return _absent(ax)
    marks = np.unique(np.linspace(0, len(found.grid) - 1, 5).astype(int)[1:])
    verdicts = {
        row.name.removeprefix(start): row.verdict
        for row in rows
        for start in ("sft-new-only-", "sft-curve-")
        if row.name.startswith(start)
    }
    drawn = [law for law in found.theory if law in verdicts]
    # named in the order in which the lines end, from above
    for place, law in enumerate(sorted(drawn, key=lambda law: -found.theory[law][-1])):
        _theory(ax, found.grid, found.theory[law], width=2.0)
        decisions = decisions_of(law, tokens)
        # on the clock of Fisher and Rao, time counts for every decision
        simulated = toy.forgetting(decisions, found.clock[law] * found.grid, LAWS[law], found.clip)
        _simulated(ax, found.grid[marks], found.theory[law][0] * simulated[marks])
        verdict = verdicts[law]
        color = _MARKS[verdict].color
        _label(
            ax,
            0.98,
            0.985 - 0.07 * place,
            f"{_LAW_NAMES[law]}: {verdict}",
            ha="right",
            va="top",
            color=color,
            transform=ax.transAxes,
        )
    lowest = min(
        1.0, float(np.nanmin(found.low, initial=found.mass.min())), *(float(found.theory[law][-1]) for law in drawn)
    )
    ax.set(yscale="log", ylim=(0.3 * lowest, 10.0 ** (1 + 0.7 * len(drawn))))
    ax.set_yticks([t for t in (1e0, 1e-2, 1e-4, 1e-6, 1e-8, 1e-10) if t > 0.3 * lowest])
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.tick_params(axis="y", which="minor", length=0)
    for at, text in ((found.calibrated, "clock set"), (3.0 * found.calibrated, "judged")):
        ax.axvline(at, color=GREY, linestyle=LAW, linewidth=1.0)
        _label(ax, at, 1.4 * ax.get_ylim()[0], text, rotation=90, ha="right", va="bottom", color=GREY)
    every = np.unique(np.linspace(0, len(found.step) - 1, 12).astype(int))
    error = np.nan_to_num(np.stack([found.mass - found.low, found.high - found.mass]))[:, every]
    ax.errorbar(
        found.step[every], found.mass[every], error, fmt="o-", color=BLACK.color, ms=4.0, lw=0.8, elinewidth=1.4, capsize=2.5, zorder=4
    )  # fmt: skip
    return None


def draw_verdicts(ax: Axes, rows: Sequence[Verdict]) -> None:
    """Predicted against measured with both intervals; the mark tells the verdict."""
    if not rows:
        return _absent(ax)
    for verdict, mark in _MARKS.items():
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


def draw_bridge(directory: Path) -> Drawing:
    """The whole figure, from ``validation.json`` and the runs below ``directory``.

    Raises InputError where there is no ``validation.json``, it lacks a column, or names a run that is not there.
    """
    rows = read_verdicts(directory)
    judged = [row for row in rows if np.isfinite((row.value, row.measured)).all()]
    shares = [
        row
        for row in judged
        if not row.quantity.startswith("log") and 0.0 <= row.value <= 1.0 and 0.0 <= row.measured <= 1.0
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
        handles = [
            _theory_key("theory"),
            key(marker="s", color=BLUE.color, label="toy (simulator)"),
            key(marker="o", color=BLACK.color, filled=True, label="language model"),
        ]
        for verdict, mark in _MARKS.items():
            count = sum(row.verdict == verdict for row in judged)
            handles.append(
                key(marker=mark.marker, color=mark.color, filled=verdict != "undecided", label=f"{verdict} ({count})")
            )
        legend_below(figure, handles, len(handles))
    return figure


def save_bridge(directory: Path, path: Path) -> Path:
    """Draw the figure of the validation in ``directory`` and write it to ``path`` (PNG, whole or not at all)."""
    figure = draw_bridge(directory)
    metadata: dict[str, str | None] = {"Software": None, "Title": "Toy, language model and theory"}
    with drawing_style():
        write_atomically(path, lambda file: figure.savefig(file, format="png", metadata=metadata))
    return path


def main() -> int:
    """Command line: 2 and one line on bad input."""
    config = tyro.cli(Config)
    try:
        prepare_directory(config.out)
        path = save_bridge(config.validation, config.out / "bridge.png")
    except InputError as error:
        complain(f"error: {error}")
        return 2
    show(f"picture: {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
