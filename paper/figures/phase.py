"""Figure 7: how reverse KL travels, the detour by way of a starved new mode and the long stay in a merged state.

Functions that compute what is drawn (the tests compare them with the theory), then the one that draws.
"""

from __future__ import annotations

from typing import NamedTuple

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import solve_ivp
from scipy.special import expit, logit

from fstsim import SGD, GradientFlow, ReverseKL, TwoModeProblem, TwoModeState, gradient_flow
from fstsim.divergences import reverse_kl_gradient
from fstsim.paper.figures.drawing import (
    BLACK,
    BLUE,
    DASH_DOT,
    GREEN,
    GREY,
    LAW,
    ORANGE,
    TIME,
    VERMILLION,
    Drawing,
    Points,
    draw_exact,
    draw_points,
    key,
    legend_below,
    log_rows,
    panel,
    sgd_runs,
    styled,
    summarise,
)
from fstsim.paper.figures.figure import Figure
from fstsim.theory.numerics.flows import runge_kutta
from fstsim.theory.reverse_kl import (
    merged_escape_time,
    merged_saddle_growth,
    merged_state,
    skeleton_kl_gradient,
)

Array = NDArray[np.float64]

ALPHA = 0.5  # target mass of the old mode
DELTA = 6.0
RUNS = 32

# (a) and (b): weight and error of the new mean -------------------------------------------------------------------------

# (beta, v) on the way in; v is the error of the new mean along the axis, positive away from the old mode
AWAY = ((0.02, 4.5), (0.1, 4.5), (0.3, 4.5), (0.55, 4.5), (0.8, 4.5), (0.97, 4.5))
TOWARD = ((0.02, -2.8), (0.2, -2.8), (0.5, -2.8), (0.8, -2.8), (0.98, -1.5))
MERGING = ((0.06, -3.7), (0.2, -3.7), (0.4, -3.9), (0.65, -4.3), (0.85, -4.8))
FIRST_ERRORS = {2.0: (BLACK, 30.0), 4.0: (BLUE, 40.0), 6.0: (ORANGE, 120.0)}  # and how long each is followed


def portrait(starts: ArrayLike, duration: float = 40.0, steps: int = 80, skeleton: bool = False) -> tuple[Array, Array]:
    """``(beta, v)`` along the flow from each start ``(beta, v)``, old component right at first: ``(steps + 1, n)`` each."""
    beta, error = np.asarray(starts, dtype=np.float64).T
    old, new = np.zeros(1), np.array([DELTA])
    gradient = skeleton_kl_gradient if skeleton else reverse_kl_gradient
    states = [(logit(beta), np.zeros((beta.size, 1)), new + error[:, None])]
    states += runge_kutta(
        lambda s, m_o, m_n: gradient(s, m_o, m_n, logit(ALPHA), old, new),
        states[0],
        np.full(beta.size, duration),
        steps,
    )
    return expit([s for s, _, _ in states]), np.array([m_n[:, 0] - DELTA for _, _, m_n in states])


def transient(error: float, times: Array) -> Array:
    """Old mass along the exact flow from right components but for ``error`` in the new mean."""
    problem = TwoModeProblem.separated(DELTA, ALPHA)
    how = GradientFlow(rtol=1e-5)
    return gradient_flow(problem, ReverseKL(problem), problem.initial(0.5, error), float(times[-1]), how)(
        times
    ).old_mass


def transient_sgd(error: float, lr: float = 0.05, batch: int = 256, steps: int = 400) -> Points:
    """The same from SGD runs."""
    problem = TwoModeProblem.separated(DELTA, ALPHA)
    run = sgd_runs(problem, ReverseKL(problem), problem.initial(0.5, error), SGD(lr, batch), steps, RUNS, seed=7)
    return summarise(log_rows(8, steps, 6), lr, run.old_mass)


# (c) and (d): leaving a merged state -----------------------------------------------------------------------------------

SPLIT = 1e-3  # distance of the two components at time 0
SPLIT_DELTAS = {4.0: BLACK, 5.0: BLUE, 6.0: VERMILLION, 7.0: GREEN, 8.0: ORANGE}


class Escape(NamedTuple):
    """The flow away from a merged state: reverse KL against time, time for the split to grow e-fold, time of the escape."""

    time: Array
    divergence: Array
    e_fold: float
    escape: float


def escape(delta: float, beta: float = 0.5) -> Escape:
    """Follow the reverse-KL flow from both components merged near the new mode until the old one is half way home."""
    problem = TwoModeProblem.separated(delta, ALPHA)
    objective = ReverseKL(problem)
    merged = merged_state(ALPHA, delta)

    def velocity(_: float, y: Array) -> Array:
        g = objective.gradient(TwoModeState(y[0], y[1:2], y[2:]))
        return -np.array([g.log_odds, g.mean_old[0], g.mean_new[0]])

    def half_way(_: float, y: Array) -> float:
        return float(y[2] - y[1]) - 0.5 * delta

    half_way.terminal = True  # type: ignore[attr-defined]  # that is how solve_ivp is told to stop
    start = [logit(beta), merged - (1.0 - beta) * SPLIT, merged + beta * SPLIT]
    solution = solve_ivp(
        velocity, (0.0, 1e12), start, "LSODA", events=half_way, dense_output=True, rtol=1e-6, atol=1e-9
    )
    end = float(solution.t[-1])
    assert solution.sol is not None
    time = np.concatenate([np.geomspace(1.0, 0.9 * end, 150), end - np.geomspace(0.1 * end, 1e-3, 100)])
    states = solution.sol(time)
    grown = np.interp(np.log([1.5 * SPLIT, 3.0 * SPLIT]), np.log(states[2] - states[1])[:120], time[:120])
    last = TwoModeState(solution.y[0, -1], solution.y[1, -1:], solution.y[2, -1:])
    # the old component is rare by now, and its mean moves at the rate of its mass
    after = np.geomspace(0.1, 30.0 + 1.5 / float(last.old_mass), 80)
    home = gradient_flow(problem, objective, last, float(after[-1]), GradientFlow(rtol=1e-4))(after)
    away = TwoModeState(states[0], states[1, :, None], states[2, :, None])
    divergence = np.concatenate([objective.value(away), objective.value(home)])
    return Escape(np.concatenate([time, end + after]), divergence, float(np.diff(grown)[0] / np.log(2.0)), end)


# The figure --------------------------------------------------------------------------------------------------------------


def _arrow(ax: Axes, x: Array, y: Array, color: str) -> None:
    """An arrowhead on a path, a third of its length in (lengths as they look: the plane is 1 by 11)."""
    length = np.hypot(np.diff(x), 0.09 * np.diff(y)).cumsum()
    k = int(np.searchsorted(length, 0.35 * length[-1]))
    look = {"arrowstyle": "-|>", "color": color, "lw": 0.8, "mutation_scale": 8}
    ax.annotate("", (x[k + 1], y[k + 1]), (x[k], y[k]), arrowprops=look)


def _draw_plane(ax: Axes) -> None:
    mass, error = portrait(AWAY + TOWARD + MERGING)
    ax.plot(mass[0], error[0], ".", color="black", ms=3.5)
    for column in range(mass.shape[1]):
        color = VERMILLION.color if column >= len(AWAY + TOWARD) else "black"
        ax.plot(mass[:, column], error[:, column], color=color, lw=1.1)
        _arrow(ax, mass[:, column], error[:, column], color)
    mass, error = portrait(AWAY, skeleton=True)
    ax.plot(mass, error, color=ORANGE.color, ls=LAW, lw=2.0, zorder=3)
    error = np.linspace(-3.2, 4.7, 100)
    ax.plot(expit(logit(ALPHA) + 0.5 * error**2), error, color=BLUE.color, ls=DASH_DOT)
    merged = merged_state(1.0 - ALPHA, DELTA)  # as far from the new mean as the one beside it is from the old mean
    ax.axhline(-merged, color=VERMILLION.color, lw=4, alpha=0.3, zorder=0)
    ax.plot([ALPHA], [0.0], "*", color="black", ms=11, mec="white", zorder=5)
    ax.text(0.99, -merged, "merged states: saddles", color=VERMILLION.color, fontsize=7.5, ha="right", va="center")
    ax.set(xlim=(0.0, 1.0), ylim=(-6.5, 4.8), yticks=range(-6, 5, 2))


def _draw_escape(times_of: Axes, course_of: Axes) -> None:
    deltas = np.linspace(3.8, 8.4, 47)
    e_fold = [1.0 / float(merged_saddle_growth(0.5, ALPHA, delta)) for delta in deltas]
    leave = [float(merged_escape_time(0.5, ALPHA, delta)) for delta in deltas]
    times_of.semilogy(deltas**2, e_fold, color=BLACK.color)
    times_of.semilogy(deltas**2, leave, color=VERMILLION.color, ls=LAW)
    for delta, series in SPLIT_DELTAS.items():
        found = escape(delta)
        draw_exact(times_of, delta**2, found.e_fold, BLACK)
        draw_exact(times_of, delta**2, found.escape, VERMILLION)
        course_of.semilogx(found.time, found.divergence, color=series.color)
        side, where = ("right", 0.75) if delta == 4.0 else ("left", 1.25)
        label = rf"$\delta={delta:g}$"
        course_of.text(where * found.escape, 0.3, label, color=series.color, fontsize=7.5, ha=side)
    times_of.text(70.0, 9.0, r"split, e-fold: $\sim e^{\delta^2/8}$", ha="right")
    times_of.text(50.0, 3e7, r"escape: $\sim e^{5\delta^2/16}$", color=VERMILLION.color, ha="right")
    times_of.set(xlim=(13.0, 72.0), ylim=(2.0, 1e9))
    times_of.set_xticks([delta**2 for delta in SPLIT_DELTAS], [f"${delta:g}^2$" for delta in SPLIT_DELTAS])
    course_of.axhline(-np.log1p(-ALPHA), color=GREY, lw=0.8)
    course_of.text(3e8, 0.71, r"new mode only: $\log\frac{1}{1-\alpha}$", color=GREY, ha="right", va="bottom")
    course_of.set(xlim=(1.0, 5e8), ylim=(-0.02, 0.85))


@styled
def phase_portrait() -> Drawing:
    """Paths of reverse KL in the plane of weight and new-mean error, and the escape from a merged state."""
    figure = matplotlib.figure.Figure(figsize=(7.2, 6.4))
    (plane, course), (times_of, course_of) = figure.subplots(2, 2)
    _draw_plane(plane)
    for error, (series, until) in FIRST_ERRORS.items():
        times = np.geomspace(0.1, until, 200)
        course.semilogx(times, transient(error, times), color=series.color)
        mass, _ = portrait([(0.5, error)], until, int(10 * until), skeleton=True)
        course.semilogx(np.linspace(0.0, until, mass.size)[1:], mass[1:, 0], color=series.color, ls=LAW, lw=2.2)
        draw_points(course, transient_sgd(error), series)
    course.axhline(ALPHA, color=GREY, lw=0.8)
    course.set(xlim=(0.1, 120.0), ylim=(0.45, 1.02))
    handles = [key("-", s.marker, s.color, True, rf"$v_0={v:g}$") for v, (s, _) in FIRST_ERRORS.items()]
    course.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.0, 0.97))
    _draw_escape(times_of, course_of)
    panel(
        plane,
        "a",
        rf"paths, $\delta={DELTA:g}$, $\alpha={ALPHA:g}$",
        r"old mass $\beta$",
        r"new-mean error $v$ (away $>0$)",
    )
    panel(course, "b", "a bad new mode is first starved", TIME, r"old mass $\beta$")
    panel(times_of, "c", "leaving a merged state", r"$\delta^2$", TIME)
    panel(course_of, "d", "mode collapse is metastable", TIME, "reverse KL (nats)")
    kinds = [
        key("-", label="exact flow; in c, exact rate [T]"),
        key(LAW, label="skeleton; in c, leading order [A]"),
        key(DASH_DOT, color=BLUE.color, label=r"weight drawn to $s_\alpha+v^2/2$ [A]"),
        key(marker="*", color="black", filled=True, label="target"),
        key(marker="o", label="measured on the flow"),
        key(marker="o", filled=True, label=f"SGD, {RUNS} runs"),
    ]
    legend_below(figure, kinds, 3)
    return figure


PHASE_PORTRAIT = Figure(
    "phase-portrait",
    "Reverse KL starves a bad new mode first, and parts merged modes late",
    "Reverse KL to a target with old mass 1/2. (a) Paths of the exact flow at δ = 6 in the plane of the old mass and the "
    "error v of the new mean along the axis (positive: away from the old mode), followed for 40 time units from the dots, old "
    "component right at first. Orange: the skeleton, the flow without overlap [A]. While v is large, the weight is drawn "
    "to s = s_α + v²/2 (dash-dotted), away from the new mode. A new component that starts nearer to the old mode "
    "merges with the old component. (b) Old mass against time for three initial errors. (c) Both components merged near the new mode, "
    "β = 1/2, split by 0.001. The split grows e-fold in a time of order exp(δ²/8) [T]. But it stalls while still small, and the weight "
    "creeps along a valley: until the old component is half way back takes a time of order exp(5δ²/16) [A]; the flow takes "
    "0.32 of the leading order at δ = 6 and 0.62 at δ = 8. (d) Meanwhile reverse KL stays near log 1/(1 − α). Filled markers: mean of "
    "32 SGD runs with batches of 256 (standard errors are smaller than the markers).",
    ("skeleton-dynamics", "merged-saddle"),
    phase_portrait,
)
