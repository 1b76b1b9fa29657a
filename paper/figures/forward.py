"""Figures 1-2: how the old weight falls under forward KL on new data while the components are held right.

For each figure: functions that compute what is drawn (the tests compare them with the theory), then one that draws.
"""

from __future__ import annotations

from typing import NamedTuple

import matplotlib.figure
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from fstsim import SGD, ForwardKL, GradientDescent, GradientFlow, TwoModeProblem, gradient_flow, simulate
from fstsim.optimizers import Geometry
from fstsim.overlap import overlap_gap
from fstsim.paper.figures.drawing import (
    BLACK,
    BLUE,
    BOUND,
    GREEN,
    GREY,
    LAW,
    ORANGE,
    SERIES,
    TIME,
    Drawing,
    Points,
    Series,
    draw_exact,
    draw_points,
    key,
    legend_below,
    legend_in_rows,
    log_rows,
    panel,
    sgd_runs,
    styled,
    summarise,
)
from fstsim.paper.figures.figure import Figure
from fstsim.paper.figures.learner_flows import held_forward_flows
from fstsim.theory.forward_kl import (
    mass_forgetting_separated,
    mass_forgetting_time,
    mass_forgetting_ultimate,
)

Array = NDArray[np.float64]

BETA0 = 0.5  # every run starts from the balanced mixture
RUNS = 32
FLOW_RTOL = 1e-7  # far below what a figure shows

# Figure 1 -----------------------------------------------------------------------------------------------------------

FORGETTING_DELTAS = (1.0, 2.0, 3.0, 4.0, 6.0)


class Forgetting(NamedTuple):
    """Exact old mass against time, and its local exponent ``-d log beta / d log t``."""

    time: Array
    mass: Array
    exponent: Array


def forgetting_exact(delta: float, smallest: float = 1e-13, points: int = 240) -> Forgetting:
    """Old mass of the flow with the components held right, from the integral of theory 1.3c."""
    start = logit(BETA0)
    s = start - np.geomspace(1e-2, start - logit(smallest), points)
    time = mass_forgetting_time(BETA0, expit(s), delta)
    speed = expit(s) * overlap_gap(s, delta)  # -ds/dt
    return Forgetting(time, expit(s), time * expit(-s) * speed)


def forgetting_flows(deltas: ArrayLike, times: Array) -> Array:
    """The same old mass ``(n, T)`` of ``deltas (n,)`` from an ODE solver."""
    return expit(held_forward_flows(deltas, BETA0, float(times[-1]), FLOW_RTOL)(times)[..., 0]).T


def forgetting_sgd(delta: float, lr: float = 0.5, batch: int = 32, steps: int = 800) -> Points:
    """Mean old mass of SGD runs that see ``batch`` new samples a step."""
    problem = TwoModeProblem.separated(delta)
    optimizer = SGD(lr, batch, train="weight")
    run = sgd_runs(problem, ForwardKL(problem), problem.initial(BETA0), optimizer, steps, RUNS, seed=int(10 * delta))
    return summarise(log_rows(2, steps, 7), lr, run.old_mass)


@styled
def mass_forgetting() -> Drawing:
    """Old mass against time for five separations, and its local exponent."""
    figure = matplotlib.figure.Figure(figsize=(7.2, 3.7))
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1.0))
    flow_times = np.geomspace(1e4, 1e10, 5)
    flows = forgetting_flows(FORGETTING_DELTAS, flow_times)
    for delta, series, flow in zip(FORGETTING_DELTAS, SERIES, flows, strict=True):
        exact = forgetting_exact(delta)
        left.loglog(exact.time, exact.mass, color=series.color)
        right.semilogx(exact.time, exact.exponent, color=series.color)
        draw_points(left, forgetting_sgd(delta), series)
        draw_exact(left, flow_times, flow, series)
        crossing = 2.0 * np.expm1(delta**2)  # where 1/t would meet the last law
        late = np.geomspace(crossing, max(1e12, crossing), 2)
        left.loglog(late, mass_forgetting_ultimate(late, delta), color=series.color, ls=LAW)
    time = np.geomspace(0.3, 1e12, 200)
    left.loglog(time, mass_forgetting_separated(BETA0, time), color=GREY, ls=BOUND, zorder=1)
    left.set(xlim=(0.5, 1e12), ylim=(3e-13, 1.0))
    for level, name, above in ((1.0, r"$\beta\propto t^{-1}$", 0.02), (0.5, r"$\beta\propto t^{-1/2}$", -0.07)):
        right.axhline(level, color=GREY, lw=0.8)
        right.text(8e11, level + above, name, color=GREY, ha="right")
    right.set(xlim=(0.5, 1e12), ylim=(0.0, 1.1), xticks=left.get_xticks())
    right.set_xlim(0.5, 1e12)
    panel(left, "a", "old mass, components held right", TIME, r"old mass $\beta$")
    panel(right, "b", "the $1/t$ window widens with $\\delta$", TIME, r"local exponent $-d\log\beta\,/\,d\log t$")
    names = [
        key("-", series.marker, series.color, True, rf"$\delta={delta:g}$")
        for delta, series in zip(FORGETTING_DELTAS, SERIES, strict=True)
    ]
    kinds = [
        key("-", label="exact [T]"),
        key(BOUND, label="no overlap (Lambert W) [T]"),
        key(LAW, label=r"last law, $t^{-1/2}$ [A]"),
        key(marker="o", label="flow (ODE solver)"),
        key(marker="o", filled=True, label=f"SGD, {RUNS} runs"),
    ]
    legend_in_rows(figure, names, kinds)
    return figure


# Figure 2 -----------------------------------------------------------------------------------------------------------

GEOMETRY_DELTA = 2.0
FISHER_DELTAS = (1.0, 2.0, 4.0)


class GeometryPlan(NamedTuple):
    """How one geometry is shown: its look, the time its curve is followed to, and the runs behind its points."""

    name: str
    series: Series
    until: float
    lr: float
    steps: int


# The exponential ones are followed down to a mass near 1e-6, where nothing new happens. `prob` moves
# 1/(beta (1 - beta))^2 times as fast as `logit`, and so needs the smaller learning rate.
GEOMETRIES: dict[Geometry, GeometryPlan] = {
    "logit": GeometryPlan("logit", BLACK, 1e4, 0.1, 80),
    "em": GeometryPlan("complete data (EM)", GREEN, 1e4, 0.02, 400),
    "fisher": GeometryPlan("Fisher-Rao", ORANGE, 13.0, 0.01, 760),
    "prob": GeometryPlan("probability", BLUE, 1.1, 0.002, 360),
}


def geometry_flow(geometry: Geometry, delta: float, times: ArrayLike) -> Array:
    """Old mass along the weight flow in ``geometry``, components held right."""
    t = np.asarray(times, dtype=np.float64)
    problem = TwoModeProblem.separated(delta)
    how = GradientFlow(geometry=geometry, train="weight", rtol=FLOW_RTOL)
    return gradient_flow(problem, ForwardKL(problem), problem.initial(BETA0), float(t.max()), how)(t).old_mass


def geometry_separated(geometry: Geometry, times: ArrayLike) -> Array:
    """The limit of no overlap (theory 1.3a, 1.4): in ``prob`` the mass hits 0 at ``beta0 - beta0^2 / 2``."""
    t = np.asarray(times, dtype=np.float64)
    if geometry == "logit":
        return mass_forgetting_separated(BETA0, t)
    if geometry == "prob":
        return np.maximum(1.0 - np.sqrt((1.0 - BETA0) ** 2 + 2.0 * t), 0.0)
    return BETA0 * np.exp(-t)


def geometry_sgd(geometry: Geometry, delta: float, phase: float = 0.0, batch: int = 256) -> Points:
    """Mean old mass of SGD runs that descend in ``geometry``; ``phase`` in [0, 1) shifts the six times shown."""
    problem = TwoModeProblem.separated(delta)
    plan = GEOMETRIES[geometry]
    optimizer = SGD(plan.lr, batch, geometry, train="weight")
    run = sgd_runs(problem, ForwardKL(problem), problem.initial(BETA0), optimizer, plan.steps, RUNS, seed=2)
    rows = (plan.steps * (np.arange(1, 7) - phase) / 6.0).astype(np.int64)
    return summarise(rows, plan.lr, run.old_mass)


def fisher_descent(delta: float, phase: float) -> tuple[Array, Array]:
    """Time and old mass of exact descent with the natural gradient.

    Not SGD: where the mass is small, the natural gradient of a batch of N has noise of size 1 / sqrt(N D) however
    small the mass is, and the runs would show that floor instead of the law.
    """
    problem = TwoModeProblem.separated(delta)
    plan = GEOMETRIES["fisher"]
    optimizer = GradientDescent(plan.lr, "fisher", train="weight")
    run = simulate(problem, ForwardKL(problem), problem.initial(BETA0), optimizer, plan.steps)
    rows = (plan.steps * (np.arange(1, 7) - phase) / 6.0).astype(np.int64)
    return run.time[rows] * plan.lr, run.old_mass[rows]


@styled
def geometry() -> Drawing:
    """Old mass against time in four geometries of the weight: early, and over six decades."""
    figure = matplotlib.figure.Figure(figsize=(7.2, 3.7))
    left, right = figure.subplots(1, 2)
    for name, plan in GEOMETRIES.items():
        short = np.linspace(0.0, min(8.0, plan.until), 121)
        long = np.geomspace(1e-2, plan.until, 161)
        left.semilogy(short, geometry_flow(name, GEOMETRY_DELTA, short), color=plan.series.color)
        right.loglog(long, geometry_flow(name, GEOMETRY_DELTA, long), color=plan.series.color)
        if name != "fisher":
            draw_points(left, geometry_sgd(name, GEOMETRY_DELTA), plan.series)
    # one straight line at every overlap: three separations, three markers, at different times to keep them apart
    fisher = {delta: Series(ORANGE.color, marker) for delta, marker in zip(FISHER_DELTAS, "<v>", strict=True)}
    for k, (delta, series) in enumerate(fisher.items()):
        draw_exact(left, *fisher_descent(delta, k / 3.0), series)
    # without overlap Fisher-Rao and EM are the same law
    no_overlap: tuple[tuple[Geometry, Series, float], ...] = (("logit", BLACK, 1e4), ("em", GREEN, 20.0))
    for name, series, until in no_overlap:
        for ax, time in ((left, np.linspace(0.0, 8.0, 200)), (right, np.geomspace(1e-2, until, 200))):
            ax.plot(time, geometry_separated(name, time), color=series.color, ls=BOUND, lw=1.2)
    hit = BETA0 - BETA0**2 / 2.0
    time = hit - np.geomspace(hit, 1e-8, 300)  # dense where the mass runs into 0
    for ax in (left, right):
        ax.plot(time, geometry_separated("prob", time), color=BLUE.color, ls=BOUND, lw=1.2)
    left.set(xlim=(-0.15, 8.2), ylim=(1e-4, 0.8))
    right.set(xlim=(1e-2, 1e4), ylim=(1e-6, 0.8))
    notes = (
        (2.2e2, 4.5e-2, r"$\to t^{-1/2}$", BLACK),
        (2.0e2, 3.2e-4, r"$\to t^{-1}$", GREEN),
        (1.5e1, 2.0e-6, r"$e^{-t}$", ORANGE),
        (2.0e-2, 2.0e-6, "hits 0\nat $t=3/8$", BLUE),
    )
    for x, y, text, series in notes:
        right.text(x, y, text, color="#a06e00" if series is ORANGE else series.color)
    panel(left, "a", f"early, $\\delta={GEOMETRY_DELTA:g}$", TIME, r"old mass $\beta$")
    panel(right, "b", "late: overlap slows all but Fisher-Rao", TIME, r"old mass $\beta$")
    names = [key("-", p.series.marker, p.series.color, True, p.name) for n, p in GEOMETRIES.items() if n != "fisher"]
    names += [key("-", s.marker, s.color, False, rf"Fisher-Rao, $\delta={delta:g}$") for delta, s in fisher.items()]
    kinds = [
        key("-", label="exact flow [T]"),
        key(BOUND, label="no overlap [T]"),
        key(marker="o", filled=True, label=f"SGD, {RUNS} runs (open: exact descent)"),
    ]
    legend_below(figure, names + kinds, 3)
    return figure


MASS_FORGETTING = Figure(
    "mass-forgetting",
    "Forgetting by supervised fine-tuning is algebraic",
    "Old mass β under forward KL on new data only, components held right, from β = 1/2. (a) All separations δ share "
    "the early curve of the no-overlap law (Lambert W, a lower bound [T]), decay like 1/t, and bend to the last "
    "law (2(exp(δ²) − 1)t)^(−1/2) [A], the later the larger δ. Lines: exact time integral [T]; open markers: ODE "
    "solver; filled markers: mean of 32 SGD runs with batches of 32, learning rate 1/2 (standard errors are "
    "smaller than the markers). (b) Local exponent of the exact curve: the window in which 1/t is a fair description "
    "widens with δ, but every curve ends at 1/2.",
    (
        "mass-forgetting",
        "mass-forgetting-rate",
        "mass-forgetting-ultimate",
        "mass-forgetting-sgd",
    ),
    mass_forgetting,
    manuscript=True,
)


GEOMETRY = Figure(
    "geometry",
    "How fast the old mass goes depends on the geometry of the weight",
    "The same objective descended in four geometries, components held right, δ = 2. (a) Fisher-Rao (natural "
    "gradient) gives exp(−t) exactly, one straight line for δ = 1, 2, 4 [T]. (b) Without overlap (dashed, "
    "[T]) the logit decays like 1/t, complete data (EM) like exp(−t), and the probability reaches 0 at t = 3/8; overlap "
    "slows all of them (logit toward t^(−1/2), EM toward 1/t, probability to an exponential) except Fisher-Rao. Lines: ODE "
    "solver; filled markers: mean of 32 SGD runs with batches of 256; open markers: exact descent.",
    ("mass-forgetting-geometry", "k-mode-natural-gradient"),
    geometry,
)
