"""The picture of `fstsim measure`: drift on both sets, success, pass@k and the distance of weights by layer, with error bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from fstsim.paper.figures.drawing import DASH_DOT, GREY, SERIES, Drawing, Series, drawing_style, panel, save_png
from fstsim.places import published

_MOST = 24  # characters of a checkpoint's name
_LINES = {"new": "-", "old": DASH_DOT}
_FILLS = {"new": "full", "old": "none"}


def save_measure_picture(measured: Mapping[str, Any], path: Path) -> Path:
    """Draw what is in ``measure.json`` and write it to ``path`` (PNG)."""
    with drawing_style():
        figure = draw_measure(measured)
    return save_png(figure, path)


def short_names(checkpoints: Sequence[Mapping[str, Any]]) -> list[str]:
    """The ends of the checkpoints' names, as long as the picture has room for."""
    names = [str(row["checkpoint"]) for row in checkpoints]
    short = [name if len(name) <= _MOST else f"…{name[1 - _MOST :]}" for name in names]
    return [name.replace("$", r"\$") for name in short]


def draw_measure(measured: Mapping[str, Any]) -> Drawing:
    """Four panels; checkpoints by colour, sets by line style and by filled (new) and open (old) markers."""
    measured = published(measured)
    checkpoints, sets = measured["checkpoints"], list(measured["sets"])
    figure = Drawing(figsize=(12.5, 3.4 + 0.16 * len(checkpoints)))
    kl, reward, fan, layers = figure.subplots(1, 4)
    _draw_kl(kl, checkpoints, sets)
    _draw_reward(reward, measured, sets)
    _draw_fan(fan, measured, sets)
    _draw_layers(layers, checkpoints)
    panel(kl, "a", "distance from the base", "", "KL (nats a sequence)")
    panel(reward, "b", "success", "", "held-out reward")
    panel(fan, "c", "pass@k", "k completions", "a right one among them")
    panel(layers, "d", "weights", "", "relative distance $L_2$")
    base, _ = reward.get_legend_handles_labels()
    handles, labels = layers.get_legend_handles_labels()
    handles, labels = [*base, *handles], ["base", *labels]
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    told = "; ".join(f"{name}: {held['task']}" for name, held in measured["sets"].items())
    figure.suptitle(f"{told}; bars, bands: 2 standard errors".replace("$", r"\$"))
    return figure


def _series(k: int) -> Series:
    return SERIES[k % len(SERIES)]


def _bar(ax: Axes, x: float, values: Mapping[str, Any], name: str, look: Series, fill: str, label: str = "") -> None:
    error = values.get(f"{name}_se") or 0.0
    ax.errorbar(
        x, values[name], 2.0 * error, fmt=look.marker, color=look.color, fillstyle=fill, ms=6, capsize=3, label=label
    )


def _draw_kl(ax: Axes, checkpoints: Sequence[Mapping[str, Any]], sets: Sequence[str]) -> None:
    places = [(name, column) for name in sets for column in ("kl_to_base", "kl_from_base")]
    step = 0.6 / max(len(checkpoints), 1)
    for k, row in enumerate(checkpoints):
        for at, (name, column) in enumerate(places):
            _bar(ax, at + (k - (len(checkpoints) - 1) / 2) * step, row["sets"][name], column, _series(k), _FILLS[name])
    signs = {"kl_to_base": "now ‖ base", "kl_from_base": "base ‖ now"}
    ax.set_xticks(range(len(places)), [f"{name}\n{signs[column]}" for name, column in places], fontsize=6)
    ax.set_xlim(-0.6, len(places) - 0.4)
    ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))


def _draw_reward(ax: Axes, measured: Mapping[str, Any], sets: Sequence[str]) -> None:
    checkpoints = measured["checkpoints"]
    step = 0.6 / (len(checkpoints) + 1)
    for at, name in enumerate(sets):
        base = Series(GREY, "x")
        _bar(ax, at - 0.3, measured["sets"][name]["base"], "reward", base, "full", "" if at else "base")
        for k, row in enumerate(checkpoints):
            _bar(ax, at - 0.3 + (k + 1) * step, row["sets"][name], "reward", _series(k), _FILLS[name])
    ax.set_xticks(range(len(sets)), [f"{name} set" for name in sets])
    ax.set_xlim(-0.6, len(sets) - 0.4)
    ax.set_ylim(-0.03, 1.03)


def _draw_fan(ax: Axes, measured: Mapping[str, Any], sets: Sequence[str]) -> None:
    for name in sets:
        rows = [(Series(GREY, "x"), measured["sets"][name]["base"])]
        rows += [(_series(k), row["sets"][name]) for k, row in enumerate(measured["checkpoints"])]
        for look, values in rows:
            ks = [int(k) for k in values["pass_at"]]
            mean, error = (
                np.array([held[key] or 0.0 for held in values["pass_at"].values()]) for key in ("mean", "se")
            )
            order = np.argsort(ks)
            x, mean, error = np.array(ks)[order], mean[order], error[order]
            marks: dict[str, Any] = {"marker": look.marker, "fillstyle": _FILLS[name], "ms": 4}
            ax.plot(x, mean, color=look.color, linestyle=_LINES[name], **marks)
            ax.fill_between(x, mean - 2 * error, mean + 2 * error, color=look.color, alpha=0.12, linewidth=0)
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set_ylim(-0.03, 1.03)
    for name in sets:
        ax.plot([], [], color=GREY, linestyle=_LINES[name], label=f"{name} set")
    ax.legend()


def _draw_layers(ax: Axes, checkpoints: Sequence[Mapping[str, Any]]) -> None:
    layers: list[str] = []
    for k, (row, label) in enumerate(zip(checkpoints, short_names(checkpoints), strict=True)):
        layers = [name for name in row["weights_order"] if name != "all"]
        values = [row["weights"][name] for name in layers]
        look = _series(k)
        ax.plot(range(len(layers)), values, marker=look.marker, color=look.color, ms=4, label=label)
    shown = range(0, len(layers), max(1, len(layers) // 8))
    ax.set_xticks(shown, [layers[k].replace("embed_tokens", "embed") for k in shown], rotation=60, fontsize=7)
    ax.set_ylim(bottom=0.0)
