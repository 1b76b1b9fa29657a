"""The picture that every simulation ends with: old mass, drift and KL against time, with the theory's curve beside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from fstsim import Trajectory, simulate
from fstsim.optimizers import GradientFlow
from fstsim.paper.figures.drawing import (
    BLACK,
    BLUE,
    DASH_DOT,
    LAW,
    ORANGE,
    VERMILLION,
    Drawing,
    Series,
    drawing_style,
    legend_below,
    panel,
    save_png,
)
from fstsim.simulation_run import SimulationConfig
from fstsim.theory import mass_forgetting_separated

Array = NDArray[np.float64]

_FLOW_POINTS = 300
_MARKS = 12


def save_run_picture(config: SimulationConfig, trajectory: Trajectory, path: Path) -> Path:
    """Draw ``trajectory``, the run that ``config`` describes, and write it to ``path`` (PNG)."""
    with drawing_style():
        figure = _draw(config, trajectory)
    return save_png(figure, path)


def _flow(config: SimulationConfig, last: int) -> Trajectory | None:
    """The exact flow over the time of ``last`` steps; None where it cannot be solved."""
    problem = config.problem()
    how = GradientFlow(config.lr * last / _FLOW_POINTS, 1.0, config.geometry, config.train, rtol=1e-7)
    try:
        return simulate(problem, config.objective_of(problem), config.initial_of(problem), how, _FLOW_POINTS)
    except RuntimeError:  # a mode that gets very rare in the probability or the Fisher-Rao geometry
        return None


def _line(ax: Axes, x: Array, values: ArrayLike, series: Series, linestyle: object = "-", label: str = "") -> None:
    """A curve with a few markers on it, so that it is told apart without colour; a band of two standard errors."""
    values = np.asarray(values, dtype=np.float64)
    mean = values if values.ndim == 1 else values.mean(axis=1)
    look = {"color": series.color, "marker": series.marker, "markevery": max(1, x.size // _MARKS)}
    ax.plot(x, mean, linestyle=linestyle, label=label, **look)  # type: ignore[arg-type]  # dash tuples, see drawing.py
    if values.ndim > 1:
        error = 2.0 * values.std(axis=1, ddof=1) / np.sqrt(values.shape[1])
        ax.fill_between(x, mean - error, mean + error, color=series.color, alpha=0.25, linewidth=0)


def _theory(ax: Axes, x: Array, values: Array) -> None:
    """The exact flow: broad and pale, so that a run that lies on it leaves it visible."""
    ax.plot(x, values, color=ORANGE.color, linewidth=5.0, alpha=0.5, solid_capstyle="butt", zorder=1)


def _draw(config: SimulationConfig, run: Trajectory) -> Drawing:
    stepping = config.optimizer != "flow"
    finite = np.isfinite(run.log_odds).reshape(run.steps + 1, -1).all(axis=1)
    last = int(np.flatnonzero(finite)[-1])
    rows = slice(0, last + 1)
    # a step of size lr is a time lr of the flow
    time: Array = np.asarray(config.lr * run.step if stepping else run.time, dtype=np.float64)[rows]

    figure = Drawing(figsize=(10.0, 3.2))
    mass, drift, kl = figure.subplots(1, 3)
    _line(mass, time, run.old_mass[rows], BLACK)
    _line(drift, time, run.drift[rows], BLACK)
    _line(kl, time, run.kl_to_base[rows], BLACK, label="KL(now ‖ start)")
    _line(kl, time, run.kl_from_base[rows], BLUE, DASH_DOT, label="KL(start ‖ now)")
    kl.legend()
    what = {
        "flow": "gradient flow",
        "descent": "gradient descent",
        "sgd": f"SGD, batch {config.batch}",
        "adamw": f"AdamW, batch {config.batch}" if config.batch else "AdamW, exact gradients",
    }[config.optimizer]
    if config.replicates > 1:
        what += f", mean of {config.replicates} learners ± 2 standard errors"
    handles = [Line2D([], [], color=BLACK.color, marker=BLACK.marker, label=what)]
    flow = _flow(config, last) if stepping and last > 0 else None
    if flow is not None:
        for ax, values in ((mass, flow.old_mass), (drift, flow.drift), (kl, flow.kl_to_base), (kl, flow.kl_from_base)):
            _theory(ax, flow.time, values)
        handles.append(Line2D([], [], color=ORANGE.color, linewidth=5.0, alpha=0.5, label="exact gradient flow"))
    if _is_separated_law(config):
        mass.plot(time, mass_forgetting_separated(config.beta0, time), color=VERMILLION.color, linestyle=LAW)
        label = "exact law without overlap (a lower bound)"
        handles.append(Line2D([], [], color=VERMILLION.color, linestyle=LAW, label=label))
    panel(mass, "a", "old mass", "", "weight of the old mode β")
    panel(drift, "b", "drift", "", "shift of the old mean (std. deviations)")
    panel(kl, "c", "distance from the start", "", "KL (nats)")
    for ax in (mass, drift, kl):
        ax.set_xlabel("time (learning rate × updates)" if stepping else "time (1/learning rate)")
        if config.growth > 1.0:
            ax.set_xscale("symlog", linthresh=config.lr)
    if float(np.min(run.old_mass[rows])) < 0.02:
        mass.set_yscale("log")
    legend_below(figure, handles, len(handles))
    return figure


def _is_separated_law(config: SimulationConfig) -> bool:
    """Whether `mass_forgetting_separated` speaks about this run: new data only, the components right and fixed."""
    return (
        (config.objective, config.train, config.geometry) == ("forward", "weight", "logit")
        and config.old_fraction == 0.0
        and config.new_error == 0.0
    )
