"""Pictures of `fstsim forecast`: predicted curves with bands, forgetting by skill; and a forecast against a run, prompt by prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from fstsim.paper.figures.drawing import DASH_DOT, GREY, SERIES, Drawing, drawing_style, panel, save_png

_MOST = 28  # characters of a skill's name


def _plain(text: str) -> str:
    return text.replace("$", r"\$")


def _short(name: str) -> str:
    return _plain(name if len(name) <= _MOST else f"…{name[1 - _MOST :]}")


def save_forecast_picture(found: Mapping[str, Any], title: str, path: Path) -> Path:
    """Draw what is in ``forecast.json`` and write it to ``path`` (PNG)."""
    with drawing_style():
        figure = draw_forecast(found, title)
    return save_png(figure, path)


def draw_forecast(found: Mapping[str, Any], title: str) -> Drawing:
    """Four panels over the steps: reward, log old mass, KL in both directions, and what is lost on each old skill."""
    figure = Drawing(figsize=(12.5, 3.6))
    reward, mass, kl, skills = figure.subplots(1, 4)
    steps, rows = [0, *(row["step"] for row in found["rows"])], found["rows"]

    def band(ax: Axes, key: str, k: int, label: str = "", start: float | None = None) -> None:
        first = found["start"][key] if start is None else start
        value, low, high = (
            np.array([first, *(np.nan if row[key][end] is None else row[key][end] for row in rows)], dtype=float)
            for end in ("value", "low", "high")
        )
        look, line = SERIES[k % len(SERIES)], ("-", "--", DASH_DOT)[k // len(SERIES) % 3]
        ax.plot(steps, value, marker=look.marker, ms=4, color=look.color, linestyle=line, label=label)
        ax.fill_between(steps, low, high, color=look.color, alpha=0.15, linewidth=0)

    band(reward, "reward", 0)
    reward.set_ylim(-0.03, 1.03)
    if "log_old_mass" in found["start"]:
        band(mass, "log_old_mass", 0)
    else:
        mass.text(0.5, 0.5, "the task names\nno old answers", ha="center", va="center", transform=mass.transAxes)
    band(kl, "kl_to_base", 0, "now ‖ base")
    band(kl, "kl_from_base", 1, "base ‖ now")
    kl.set_ylim(bottom=0.0)
    kl.legend()
    lost = [key for key in found["start"] if key.startswith("forgotten ")]
    for k, key in enumerate(lost):
        band(skills, key, k, _short(key.removeprefix("forgotten ")), 0.0)
    skills.axhline(0.0, color=GREY, linewidth=0.6)
    if lost:
        skills.legend(fontsize=6)
    else:
        skills.text(0.5, 0.5, "no old skills given\n(--old)", ha="center", va="center", transform=skills.transAxes)
    panel(reward, "a", "learned", "step", "held-out reward")
    panel(mass, "b", "old behaviour", "step", "log mass (nats)")
    panel(kl, "c", "distance from the base", "step", "KL (nats a sequence)")
    panel(skills, "d", "old skills", "step", "reward lost")
    for ax in (reward, mass, kl, skills):
        ax.set_xlim(left=0)
        if found["lost"] is not None:
            ax.axvspan(found["lost"], max(steps[-1], found["lost"] + 1), color=GREY, alpha=0.2, linewidth=0)
    figure.suptitle(
        _plain(
            f"forecast: {title}; bands: intervals" + ("; grey: nothing claimed" if found["lost"] is not None else "")
        )
    )
    return figure


def save_check_picture(held: Mapping[str, Any], title: str, path: Path) -> Path:
    """Draw what is in ``check.json`` and write it to ``path`` (PNG)."""
    with drawing_style():
        figure = draw_check(held, title)
    return save_png(figure, path)


def draw_check(held: Mapping[str, Any], title: str) -> Drawing:
    """Means against steps on the left; then, for up to three steps, every old prompt: predicted against measured change."""
    told = [row for row in held["rows"] if "changes" in row]
    told = [told[k] for k in sorted({0, len(told) // 2, len(told) - 1})] if told else []
    figure = Drawing(figsize=(4.0 + 3.2 * max(len(told), 1), 3.8))
    axes = figure.subplots(1, 1 + len(told), squeeze=False)[0]
    _draw_means(axes[0], held["rows"])
    panel(axes[0], "a", "means", "step", "reward")
    for k, (ax, row) in enumerate(zip(axes[1:], told, strict=True)):
        _draw_prompts(ax, row["changes"])
        r2 = row["prompts"]["all"]["r2"]
        what = f"step {row['step']:,}" + ("" if r2 is None else f", $R^2$ = {r2:.2f}")
        panel(ax, "bcd"[k], what, "measured change of log p (nats)", "forecast" if k == 0 else "")
    if told:
        handles, labels = axes[1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=6)
    figure.suptitle(_plain(title))
    return figure


def _draw_means(ax: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    for k, (key, name) in enumerate((("reward", "reward"), ("log_old_mass", "log old mass"))):
        there = [row for row in rows if key in row["means"] and row["means"][key]["value"] is not None]
        if not there:
            continue
        target = ax if k == 0 else ax.twinx()
        steps = [row["step"] for row in there]
        means = [row["means"][key] for row in there]
        value = np.array([m["value"] for m in means], dtype=float)
        bars = np.abs(np.array([[m["value"] - m["low"], m["high"] - m["value"]] for m in means], dtype=float)).T
        look = SERIES[k]
        target.errorbar(
            steps, value, bars, fmt=look.marker, ms=4, capsize=2, color=look.color, label=f"{name}, forecast"
        )
        target.plot(steps, [m["run"] for m in means], "x", color=look.color, ms=6, label=f"{name}, run")
        if k == 1:
            target.set_ylabel("log old mass (nats)", color=look.color)
    ax.set_ylim(-0.03, 1.03)


def _draw_prompts(ax: Axes, changes: Mapping[str, Any]) -> None:
    ends = []
    for k, (skill, held) in enumerate(changes.items()):
        look = SERIES[k % len(SERIES)]
        fill = look.color if k < len(SERIES) else "none"
        x, y = (np.array(held[name], dtype=float) for name in ("run", "forecast"))
        ax.scatter(
            x, y, s=9, marker=look.marker, facecolors=fill, edgecolors=look.color, linewidths=0.6, label=_short(skill)
        )
        ends += [x.min(), x.max(), y.min(), y.max()]
    ax.plot([min(ends), max(ends)], [min(ends), max(ends)], color=GREY, linewidth=0.8, zorder=0)
