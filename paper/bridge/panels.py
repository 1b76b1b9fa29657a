"""Panels a to d of the bridge figure: where training ends under replay and a leash, how long an escape takes, what is forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from fstsim.llm.validation.prediction import tilted
from fstsim.llm.validation.times import NEW_ONLY
from fstsim.paper.bridge import toy
from fstsim.paper.bridge.course import read_course
from fstsim.paper.bridge.marks import MARKS, draw_absent, draw_measured, draw_simulated, draw_theory, note, theory_key
from fstsim.paper.bridge.numbers import (
    FORGETTING,
    Escape,
    Verdict,
    base_masses,
    config_of,
    decisions_of,
    of_kind,
    old_decisions,
    read_escapes,
    read_forgetting,
)
from fstsim.paper.figures.drawing import BLACK, GREEN, GREY, LAW, panel

_PERCENT = FuncFormatter(lambda x, _: f"{100 * x:g} %")
_PLAIN = FuncFormatter(lambda x, _: f"{x:g}")


def draw_replay(ax: Axes, directory: Path, rows: Sequence[Verdict]) -> None:
    """Old mass at the end against the share of old demonstrations; theory is the diagonal."""
    panel(ax, "a", "replay keeps its own share", "share of old demonstrations", "old mass at the end")
    share, chosen = of_kind(rows, "replay")
    if not chosen:
        return draw_absent(ax)
    base = base_masses(directory, chosen[0].label.run)
    config = config_of(directory, chosen[0].label.run)
    start = float(base.old.mean())
    grid = np.geomspace(min(0.015, 0.7 * share.min()), max(0.7, 1.4 * share.max()), 60)
    draw_theory(ax, grid, np.where(base.same, 1.0, grid[:, None]).mean(axis=1))
    ax.axhline(start, color=GREY, linestyle=LAW, linewidth=1.0)
    note(ax, float(grid[0]) * 1.1, start * 1.06, "before", color=GREY)
    points = [toy.replay(float(s), start, config["steps"], config["learner"]["problems"]) for s in share]
    draw_simulated(ax, share, *np.transpose(points))
    draw_measured(ax, share, chosen)
    ax.set(xscale="log", yscale="log", xlim=(grid[0], grid[-1]), ylim=(grid[0], grid[-1]))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_ticks([t for t in (0.02, 0.05, 0.1, 0.2, 0.5) if grid[0] < t < grid[-1]])
        axis.set_major_formatter(_PERCENT)
        axis.set_minor_formatter(NullFormatter())
        axis.set_tick_params(which="minor", length=0)
    return None


def draw_leash(ax: Axes, directory: Path, rows: Sequence[Verdict]) -> None:
    """New and old mass against the strength of the KL leash; theory is the tilt of each prompt, averaged."""
    panel(ax, "b", "RL with a KL leash", r"leash $\tau$ (reward a nat of KL)", "mass at the end")
    (tau, new), (_, old) = of_kind(rows, "tilt-new"), of_kind(rows, "tilt-old")
    if not new:
        return draw_absent(ax)
    base = base_masses(directory, new[0].label.run)
    grid = np.geomspace(min(0.2, 0.8 * tau.min()), max(1.25, 1.25 * tau.max()), 80)
    curves = np.array([[mass.mean() for mass in tilted(base, float(t))] for t in grid])
    simulated = np.array([toy.leash(base, float(t)) for t in tau])
    for column, series in enumerate((new, old)):
        draw_theory(ax, grid, curves[:, column])
        draw_simulated(ax, tau, simulated[:, column])
        draw_measured(ax, tau, series) if series else None
    note(ax, 0.62, float(np.interp(0.62, grid, curves[:, 0])) + 0.06, "new answer", va="bottom")
    note(ax, 0.6, float(np.interp(0.6, grid, curves[:, 1])) - 0.09, "old answer", va="top", ha="center")
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
        return draw_absent(ax)
    for family in families:
        easiest = family[0]
        p0 = [e.p0 for e in family]
        for clock, line in (("group", "-"), ("adam", "--")):
            if all(clock in e.rows for e in family[1:]):
                draw_theory(ax, p0, [1.0, *(e.ratio("value", clock) for e in family[1:])], line)
        points = [toy.escape(e.new, easiest.new, e.group, e.problems) for e in family[1:]]
        draw_simulated(ax, p0[1:], *np.transpose(points))
        draw_simulated(ax, p0[:1], [1.0])
        ax.plot(p0[:1], [1.0], "o", color=BLACK.color, ms=4.0, zorder=4)
        draw_measured(ax, p0[1:], [next(iter(e.rows.values())) for e in family[1:]], np.exp)
    ax.set(xscale="log", yscale="log")
    _decorate_escapes(ax, families)
    return None


def _decorate_escapes(ax: Axes, families: Sequence[Sequence[Escape]]) -> None:
    """Names of families and clocks, ticks as plain numbers."""
    bases = [e.p0 for family in families for e in family]
    ax.set_xlim(0.6 * min(bases), 1.6 * max(bases))
    ax.set_ylim(0.6, max(3.0, 2.0 * ax.get_ylim()[1]))
    for family in families:
        note(ax, family[0].p0, 0.83, family[0].family, ha="center", va="top", color=GREY)
    if any("adam" in e.rows for family in families for e in family):
        handles = [theory_key("group law"), theory_key("constant speed", "dashed")]
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
    """Old mass under fine-tuning on new data alone, every law that was judged, and the forecast, which has no clock."""
    panel(ax, "d", "fine-tuning on new data alone", "update", "old mass")
    if not (directory / "runs" / NEW_ONLY).is_dir():
        return draw_absent(ax)
    tokens = old_decisions(directory, NEW_ONLY)
    found = read_forgetting(directory, tokens)
    if found is None:
        return draw_absent(ax)
    marks = np.unique(np.linspace(0, len(found.grid) - 1, 5).astype(int)[1:])
    verdicts = {row.label.law: row.verdict for row in rows if row.label.run == NEW_ONLY}
    drawn = [law for law in found.theory if law in verdicts]
    # named in the order in which the lines end, from above
    for place, law in enumerate(sorted(drawn, key=lambda law: -found.theory[law][-1])):
        draw_theory(ax, found.grid, found.theory[law], width=2.0)
        decisions = decisions_of(FORGETTING[law], tokens)
        # on the clock of Fisher and Rao, time counts for every decision
        simulated = toy.forgetting(decisions, found.clock[law] * found.grid, FORGETTING[law].clock, found.clip)
        draw_simulated(ax, found.grid[marks], found.theory[law][0] * simulated[marks])
        verdict = verdicts[law]
        color = MARKS[verdict].color
        note(
            ax,
            0.98,
            0.985 - 0.07 * place,
            f"{FORGETTING[law].title}: {verdict}",
            ha="right",
            va="top",
            color=color,
            transform=ax.transAxes,
        )
    course = read_course(directory, NEW_ONLY)
    if course is not None:
        ax.fill_between(course.step, course.low, course.high, color=GREEN.color, alpha=0.25, linewidth=0.0, zorder=2)
        ax.plot(course.step, course.mass, color=GREEN.color, linewidth=1.8, zorder=3)
        met, steps = course.met(found)
        said, top = f"forecast, no clock: {met} of {steps} steps met", 0.985 - 0.07 * len(drawn)
        note(ax, 0.98, top, said, ha="right", va="top", color=GREEN.color, transform=ax.transAxes)
    lowest = min(
        1.0, float(np.nanmin(found.low, initial=found.mass.min())), *(float(found.theory[law][-1]) for law in drawn)
    )
    ax.set(yscale="log", ylim=(0.3 * lowest, 10.0 ** (1 + 0.7 * (len(drawn) + (course is not None)))))
    ax.set_yticks([t for t in (1e0, 1e-2, 1e-4, 1e-6, 1e-8, 1e-10) if t > 0.3 * lowest])
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.tick_params(axis="y", which="minor", length=0)
    for at, text in ((found.calibrated, "clock set"), (3.0 * found.calibrated, "judged")):
        ax.axvline(at, color=GREY, linestyle=LAW, linewidth=1.0)
        note(ax, at, 1.4 * ax.get_ylim()[0], text, rotation=90, ha="right", va="bottom", color=GREY)
    every = np.unique(np.linspace(0, len(found.step) - 1, 12).astype(int))
    error = np.nan_to_num(np.stack([found.mass - found.low, found.high - found.mass]))[:, every]
    ax.errorbar(
        found.step[every], found.mass[every], error, fmt="o-", color=BLACK.color, ms=4.0, lw=0.8, elinewidth=1.4, capsize=2.5, zorder=4
    )  # fmt: skip
    return None
