"""Figure 3: forward KL on new data with free components, where the old weight survives and the old mode does not.

Functions that compute what is drawn (the tests compare them with the theory), then the one that draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import matplotlib.figure
import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtr

from fstsim import SGD, ForwardKL, TwoModeProblem, TwoModeState
from fstsim.paper.figures.drawing import (
    BLACK,
    BLUE,
    BOUND,
    DASH_DOT,
    GREY,
    LAW,
    ORANGE,
    TIME,
    VERMILLION,
    Drawing,
    Points,
    draw_points,
    key,
    legend_in_rows,
    log_rows,
    panel,
    sgd_runs,
    styled,
    summarise,
)
from fstsim.paper.figures.figure import Figure
from fstsim.paper.figures.forward import BETA0, FLOW_RTOL, RUNS, forgetting_exact
from fstsim.paper.figures.learner_flows import forward_flows
from fstsim.theory.forward_kl import late_collapse_mass

Array = NDArray[np.float64]

JOINT_DELTAS = (2.0, 3.0, 4.0)
JOINT_SERIES = (BLACK, BLUE, ORANGE)
MORE_DELTAS = (1.0, 5.0, 6.0)  # only in the last panel


class Collapse(NamedTuple):
    """Where the joint flow ends: its old mass, what the late invariant [A] said half way, and when half way was."""

    mass: float
    predicted: float
    half_time: float


class Joint(NamedTuple):
    """Joint flow of weight and means: old mass, old mean over delta, old-region mass and its Pinsker bound."""

    mass: Array
    mean_old: Array
    region: Array
    region_bound: Array
    separation: Array


def joint_flows(courses: Mapping[float, Array]) -> dict[float, Joint]:
    """The forward-KL flow in ``(s, m_o, m_n)`` on new data, from right components: of each separation at its own times."""
    last = max(float(times[-1]) for times in courses.values())
    solution = forward_flows(list(courses), BETA0, last, FLOW_RTOL)
    found = {}
    for k, (delta, times) in enumerate(courses.items()):
        s, old, new = solution(times)[:, k].T
        problem = TwoModeProblem.separated(delta)
        mass = expit(s)
        region = mass * ndtr(0.5 * delta - old) + expit(-s) * ndtr(0.5 * delta - new)
        loss = ForwardKL(problem).value(TwoModeState(s, old[:, None], new[:, None]))
        # the loss is 0 up to rounding at the end of the flow
        pinsker = ndtr(-0.5 * delta) + np.sqrt(0.5 * np.maximum(loss, 0.0))
        found[delta] = Joint(mass, old / delta, region, pinsker, new - old)
    return found


def joint_sgd(delta: float, lr: float = 0.1, batch: int = 64, steps: int = 2000) -> dict[str, Points]:
    """The same three curves from SGD runs."""
    problem = TwoModeProblem.separated(delta)
    run = sgd_runs(
        problem, ForwardKL(problem), problem.initial(BETA0), SGD(lr, batch), steps, RUNS, seed=int(10 * delta)
    )
    values = {"mass": run.old_mass, "mean_old": run.mean_old[..., 0] / delta, "region": run.old_region_mass}
    return {name: summarise(log_rows(10, steps, 6), lr, value) for name, value in values.items()}


def collapse(times: Array, flow: Joint) -> Collapse:
    """End of a joint flow that has come near it, and the state in which the old mean is half way to the new data."""
    half = int(np.searchsorted(flow.mean_old, 0.5))
    # the flow nears its end like t^(-1/2): the invariant, exact to the size of beta by then, carries it there
    end, predicted = (float(late_collapse_mass(flow.mass[row], flow.separation[row])) for row in (-1, half))
    return Collapse(end, predicted, float(times[half]))


@styled
def joint_forward_flow() -> Drawing:
    """Weight, old mean and old-region mass of the joint forward flow; where it ends."""
    figure = matplotlib.figure.Figure(figsize=(7.2, 5.8))
    (mass, mean), (region, end) = figure.subplots(2, 2)
    times = np.geomspace(0.1, 1e6, 481)
    courses = dict.fromkeys(JOINT_DELTAS, times)
    courses |= {delta: np.geomspace(0.1, 100.0 * np.exp(0.5 * delta**2), 481) for delta in MORE_DELTAS}
    flows = joint_flows(courses)
    ends = {delta: collapse(courses[delta], flow) for delta, flow in flows.items()}
    for delta, series in zip(JOINT_DELTAS, JOINT_SERIES, strict=True):
        flow, sgd = flows[delta], joint_sgd(delta)
        held = forgetting_exact(delta, smallest=1e-6, points=100)
        mass.loglog(held.time, held.mass, color=series.color, ls=DASH_DOT, lw=1.0)
        mass.loglog(times, flow.mass, color=series.color)
        mean.semilogx(times, flow.mean_old, color=series.color)
        region.loglog(times, flow.region, color=series.color)
        region.loglog(times, flow.region_bound, color=series.color, ls=BOUND, lw=1.0)
        region.axhline(ndtr(-0.5 * delta), color=series.color, lw=4, alpha=0.25, zorder=0)
        for ax, name in ((mass, "mass"), (mean, "mean_old"), (region, "region")):
            draw_points(ax, sgd[name], series)
            ax.set_xlim(0.5, 1e6)
    mass.set_ylim(3e-4, 0.8)
    region.set_ylim(0.018, 0.65)
    region.set_yticks([0.02, 0.05, 0.1, 0.2, 0.5], ["0.02", "0.05", "0.1", "0.2", "0.5"])
    region.minorticks_off()
    x = 0.5 * np.square(list(ends))
    top = 1.06 * x.max()
    end.plot([0.0, top], [0.0, top], color=GREY, ls=LAW, label=r"$\delta^2/2$ [N]")
    late = x >= 4.5  # at smaller separations "half way" is over before the mass falls
    end.plot(
        x[late],
        np.log([e.half_time for e in ends.values()])[late],
        "^",
        color=VERMILLION.color,
        label=r"$\log\,t_{1/2}$, flow",
    )
    end.plot(
        x,
        [-np.log(e.mass) for e in ends.values()],
        "o",
        color="black",
        mfc="white",
        label=r"$-\log\,\beta_\infty$, flow",
    )
    label = "the same from half way [A]"
    end.plot(x, [-np.log(e.predicted) for e in ends.values()], "x", color=BLUE.color, ms=6, zorder=2, label=label)
    end.set(xlim=(0.0, top), ylim=(0.0, top), xticks=range(0, 20, 5), yticks=range(0, 20, 5))
    end.legend(loc="upper left")
    panel(mass, "a", r"old weight: a plateau $\beta_\infty>0$", TIME, r"old mass $\beta$")
    panel(mean, "b", "old mean: dragged onto the new data", TIME, r"old mean $m_o/\delta$")
    panel(region, "c", r"old region: falls to $P_n(A)$", TIME, r"mass of the old region, $Q_t(A)$")
    panel(end, "d", "where and when the flow collapses", r"$\delta^2/2$", "natural log")
    names = [
        key("-", series.marker, series.color, True, rf"$\delta={delta:g}$")
        for delta, series in zip(JOINT_DELTAS, JOINT_SERIES, strict=True)
    ]
    kinds = [
        key(BOUND, label=r"Pinsker bound on $Q_t(A)$ [T]"),
        key(DASH_DOT, label="components held right (figure 1)"),
        key(marker="o", filled=True, label=f"SGD, {RUNS} runs"),
    ]
    legend_in_rows(figure, names, kinds)
    return figure


JOINT_FORWARD_FLOW = Figure(
    "joint-forward-flow",
    "With free components the old weight survives and the old mode does not",
    "Forward KL on new data, weight and both means moving. (a) The weight β stops at β∞ > 0, unlike with components held "
    "right (dash-dotted). (b) The old mean is dragged onto the new data instead. (c) What is forgotten is the mass of the "
    "old region A (the half-space nearer to the old mode): it falls to the new data's own share P_n(A) "
    "(broad lines), below Pinsker's bound (dashed, [T]). (d) Both −log β∞ and the logarithm of the time at which "
    "the old mean is half way approach δ²/2 from below [N]; the invariant of the late flow [A], evaluated half way, "
    "already gives the end. Lines in a-c: ODE solver; filled markers: mean of 32 SGD runs with batches of 64.",
    ("joint-collapse", "old-region-mass", "late-collapse", "old-mean-half-time"),
    joint_forward_flow,
    manuscript=True,
)
