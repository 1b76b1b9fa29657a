"""Figure 12: which hyper-parameters of SDFT, TTT-Discover and OAPL retain the old mode, how, and at what cost in drift.

Functions that compute what is drawn (the tests compare them with the theory), then the one that draws.
"""

from __future__ import annotations

from typing import NamedTuple

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from fstsim import GradientDescent, GradientFlow, TwoModeProblem, simulate
from fstsim.method_loops import Regression, Teacher, simulate_oapl, simulate_sdft
from fstsim.method_objectives import TTTDiscover
from fstsim.paper.figures.drawing import (
    BLACK,
    BLUE,
    BOUND,
    DASH_DOT,
    GREEN,
    GREY,
    LAW,
    ORANGE,
    TIME,
    VERMILLION,
    Drawing,
    draw_exact,
    key,
    legend_below,
    panel,
    styled,
)
from fstsim.paper.figures.figure import Figure
from fstsim.theory.oapl import (
    oapl_old_mass,
    oapl_overlap,
    oapl_overlap_bounds,
    oapl_retention_refreshes,
    sloped_reward_shift,
)
from fstsim.theory.sdft import sdft_fixed_point, sdft_retention_time_bounds
from fstsim.theory.ttt import (
    entropic_drift_bound,
    entropic_optimum,
    entropic_retention_threshold,
    entropic_tilt_log_odds,
)

Array = NDArray[np.float64]

BETA0 = 0.5  # the base; its log-odds are 0
MIN_MASS = 0.1  # the old mass that is to be retained
DELTA = 6.0
NEAR = (0.8, 1.25)  # simulated points: this many times the boundary value

ROOM = float(logit(BETA0) - logit(MIN_MASS))  # log-odds that may be lost
MASSES = (0.02, 0.2)  # contours of the final old mass
OAPL_ANCHOR = 0.8


class Outcomes(NamedTuple):
    """Simulated points of a region: coordinates, and the old mass that each ended with."""

    x: Array
    y: Array
    mass: Array


# the simulations -------------------------------------------------------------------------------------------------------


def _problem() -> TwoModeProblem:
    return TwoModeProblem.separated(DELTA)


def sdft_outcomes(shares: ArrayLike = (0.2, 0.4, 0.6, 0.8), steps: int = 80) -> Outcomes:
    """End of SDFT just inside and just outside the boundary ``h = (1 - a) room``; weight and means move."""
    problem = _problem()
    points = [(factor * share * ROOM, share) for share in np.asarray(shares) for factor in NEAR]
    how = GradientDescent(0.5, "em")
    ends = []
    for tilt, share in points:
        student, _ = simulate_sdft(problem, problem.initial(BETA0), Teacher(tilt, 1.0, anchor=1.0 - share), how, steps)
        ends.append(float(student.old_mass[-1]))
    x, y = np.array(points).T
    return Outcomes(x, y, np.array(ends))


def ttt_outcomes(gaps: ArrayLike = (0.2, 1.0, 5.0, 30.0), steps: int = 60) -> Outcomes:
    """End of TTT-Discover just above and just below its least leash; reward by base responsibility, all moves."""
    problem = _problem()
    base = problem.initial(BETA0)
    thresholds = entropic_retention_threshold(logit(BETA0), gaps, MIN_MASS)
    points = [(g, factor * t) for g, t in zip(np.asarray(gaps), thresholds, strict=True) for factor in NEAR]
    ends = []
    for gap, leash in points:
        how = GradientDescent(min(1.0, 0.5 / leash), "em")  # in the logit the leash pulls back at rate `leash`
        objective = TTTDiscover(problem, base, 0.0, 1.0, gap, leash)
        ends.append(float(simulate(problem, objective, base, how, steps).old_mass[-1]))
    x, y = np.array(points).T
    return Outcomes(x, y, np.array(ends))


def oapl_outcomes(anchor: float, tilts: ArrayLike, refreshes: int = 30, period: int = 8) -> Outcomes:
    """OAPL after 1, 2, ... refreshes at each ``tilt`` (gap over temperature); the two refreshes next to the boundary."""
    problem = _problem()
    how = GradientDescent(0.3, "em")
    rows = []
    for tilt in np.asarray(tilts):
        run = simulate_oapl(
            problem, problem.initial(BETA0), Regression(0.0, float(tilt), 1.0, anchor=anchor), refreshes, period, how
        )
        mass = run.old_mass[::period]
        last = int(np.flatnonzero(mass >= MIN_MASS)[-1])  # the mass only falls
        rows += [(k, tilt, mass[k]) for k in (last, last + 1) if 1 <= k <= refreshes]
    return Outcomes(*np.array(rows, dtype=np.float64).T)


def sdft_path(ema_rate: float, tilt: float, anchor: float, steps: int = 14) -> tuple[Array, Array]:
    """Time and old mass of the SDFT flow, weight and means free, to about 2000 units of time."""
    problem = _problem()
    how = GradientFlow(step_time=1.0, growth=1.7, rtol=1e-4)
    student, _ = simulate_sdft(problem, problem.initial(BETA0), Teacher(tilt, ema_rate, anchor=anchor), how, steps)
    return student.time[1:], student.old_mass[1:]


# the figure ------------------------------------------------------------------------------------------------------------


def _region(ax: Axes, x: Array, y: Array, mass: Array, labels: tuple[tuple[float, float], ...]) -> None:
    """Shade where the final old mass is at least `MIN_MASS`, and contour it at `MASSES` (labelled at ``labels``)."""
    ax.contourf(x, y, mass, levels=(-1.0, MIN_MASS, 2.0), colors=("#f3d9c4", "#dcebf7"))
    lines = ax.contour(x, y, mass, levels=MASSES, colors=GREY, linewidths=0.7)
    ax.clabel(lines, fmt="%g", fontsize=6.5, manual=labels)


def _marks(ax: Axes, outcomes: Outcomes) -> None:
    kept = outcomes.mass >= MIN_MASS
    ax.plot(outcomes.x[kept], outcomes.y[kept], "o", color=BLUE.color, mfc="white", ms=4.2, mew=1.4, zorder=4)
    ax.plot(outcomes.x[~kept], outcomes.y[~kept], "x", color=VERMILLION.color, ms=4.8, mew=1.6, zorder=4)


def _words(ax: Axes, retains: tuple[float, float], loses: tuple[float, float]) -> None:
    for (x, y), word, color in ((retains, "retains", BLUE.color), (loses, "loses", "#8f3900")):
        ax.text(x, y, word, color=color, transform=ax.transAxes, fontweight="bold", fontsize=8)


def _sdft_region(ax: Axes) -> None:
    tilt, share = np.meshgrid(np.linspace(1e-3, 2.5, 80), np.linspace(1e-3, 1.0, 80))
    mass = expit(sdft_fixed_point(logit(BETA0), tilt, 1.0 - share))
    _region(ax, tilt, share, mass, ((2.0, 0.515), (1.18, 0.85)))
    _marks(ax, sdft_outcomes())
    ax.plot([0.0, ROOM], [0.0, 1.0], color="black", lw=2.0)
    ax.set(xlim=(0.0, 2.5), ylim=(0.0, 1.0))
    _words(ax, (0.05, 0.88), (0.64, 0.18))
    panel(ax, "a", "SDFT", "tilt of the demonstration $h$ (nats)", "weight of the anchor $1-a$")


def _ttt_region(ax: Axes) -> None:
    gap, leash = np.meshgrid(np.geomspace(0.1, 100.0, 80), np.geomspace(0.03, 30.0, 80))
    ax.set(xscale="log", yscale="log", xlim=(0.1, 100.0), ylim=(0.03, 30.0))
    mass = expit(entropic_tilt_log_odds(logit(BETA0), gap, leash))
    _region(ax, gap, leash, mass, ((11.0, 0.26), (11.0, 0.9)))
    _marks(ax, ttt_outcomes())
    ax.plot(gap[0], entropic_retention_threshold(logit(BETA0), gap[0], MIN_MASS), color="black", lw=2.0)
    ax.plot(gap[0], gap[0] / ROOM, color="black", ls=LAW)
    ax.text(7.0, 4.6, "expected\nreward", fontsize=6.5, ha="right")
    _words(ax, (0.05, 0.88), (0.64, 0.1))
    panel(ax, "b", "TTT-Discover", "scaled reward gap $g$", r"leash $\lambda$")


def _oapl_region(ax: Axes) -> None:
    k, tilt = np.meshgrid(np.geomspace(1.0, 40.0, 80), np.geomspace(0.03, 3.0, 80))
    ax.set(xscale="log", yscale="log", xlim=(1.0, 40.0), ylim=(0.03, 3.0))
    _region(ax, k, tilt, oapl_old_mass(BETA0, tilt, 1.0, k), ((22.0, 0.177), (9.0, 0.154)))
    tilts = np.geomspace(0.03, ROOM, 100)
    ax.plot(oapl_retention_refreshes(BETA0, tilts, 1.0, MIN_MASS), tilts, color="black", lw=2.0)
    tilts = np.geomspace((1.0 - OAPL_ANCHOR) * ROOM * (1.0 + 1e-4), ROOM, 100)
    held = oapl_retention_refreshes(BETA0, tilts, 1.0, MIN_MASS, OAPL_ANCHOR)
    ax.plot(held, tilts, color="black", ls=DASH_DOT)
    _marks(ax, oapl_outcomes(1.0, (0.08, 0.16, 0.35, 0.85)))
    _marks(ax, oapl_outcomes(OAPL_ANCHOR, (0.46, 0.62)))
    ax.text(38.0, 0.66, f"anchored, $a={OAPL_ANCHOR:g}$", ha="right", fontsize=6.5)
    ax.set_xticks((1, 2, 5, 10, 20, 40), ("1", "2", "5", "10", "20", "40"))
    ax.minorticks_off()
    _words(ax, (0.05, 0.08), (0.66, 0.88))
    panel(ax, "c", "OAPL", "refreshes $k$", r"gap over temperature $\Delta r/\tau$")


PATH_TILT, PATH_ANCHOR = 0.5, 0.8
EMA_RATES = {1.0: BLACK, 0.1: BLUE, 0.01: ORANGE}


def _sdft_times(ax: Axes) -> None:
    masses = expit(np.linspace(-0.02, -8.0, 120))
    names = []
    for rate, series in EMA_RATES.items():
        for edge in sdft_retention_time_bounds(logit(BETA0), PATH_TILT, rate, masses):
            ax.loglog(edge, masses, color=series.color, ls=BOUND, lw=1.0)
        draw_exact(ax, *sdft_path(rate, PATH_TILT, 1.0), series)
        names.append(key(marker=series.marker, color=series.color, label=rf"$a=1$, $\rho={rate:g}$"))
    draw_exact(ax, *sdft_path(0.1, PATH_TILT, PATH_ANCHOR), GREEN)
    ax.axhline(float(expit(sdft_fixed_point(logit(BETA0), PATH_TILT, PATH_ANCHOR))), color=GREEN.color)
    names.append(key("-", GREEN.marker, GREEN.color, label=rf"$a={PATH_ANCHOR:g}$, $\rho=0.1$"))
    ax.legend(handles=names, loc="lower left")
    ax.set(xlim=(0.7, 2e3), ylim=(1e-3, 0.7))
    panel(ax, "d", "SDFT: an anchor stops the loss", TIME, r"old mass $\beta$")


LEASHES = {0.5: BLACK, 1.0: BLUE, 2.0: ORANGE}
OVERLAP_DELTA = 3.0  # of the open markers in panel e


def _ttt_loss(ax: Axes) -> None:
    gap = np.geomspace(0.05, 100.0, 200)
    base = float(logit(BETA0))
    for leash, series in LEASHES.items():
        ax.loglog(gap, base - entropic_tilt_log_odds(base, gap, leash), color=series.color)
        ax.axhline(1.0 / (leash * (1.0 - BETA0)), color=series.color, ls=BOUND, lw=1.0)
        ax.loglog(gap, gap / leash, color=series.color, ls=LAW)
        shown = np.geomspace(0.1, 10.0, 5)
        draw_exact(ax, shown, base - logit(entropic_optimum(base, shown, leash, OVERLAP_DELTA).old_mass), series)
    names = [key("-", s.marker, s.color, label=rf"$\lambda={leash:g}$") for leash, s in LEASHES.items()]
    ax.legend(handles=names, loc="lower right")
    ax.set(xlim=(0.05, 100.0), ylim=(0.02, 30.0))
    panel(ax, "e", "TTT-Discover limits itself", "scaled reward gap $g$", "log-odds lost $s_0-s^*$")


SLOPE = 0.05  # of a reward that varies inside the old mode, per standard deviation, over temperature


def _drifts(ax: Axes) -> None:
    d = np.linspace(2.0, 12.0, 101)
    base = np.full(d.shape, logit(BETA0))
    curves = (
        ("OAPL, tilt 3", BLUE, oapl_overlap(base, 3.0, d)[1], oapl_overlap_bounds(base, 3.0, d)[2]),
        ("OAPL, tilt 1", BLACK, oapl_overlap(base, 1.0, d)[1], oapl_overlap_bounds(base, 1.0, d)[2]),
        ("the same, sloped", ORANGE, *sloped_reward_shift(base, 1.0, SLOPE, d)),
        (
            r"TTT, $g=\lambda=1$",
            GREEN,
            entropic_optimum(base, 1.0, 1.0, d).old_shift,
            entropic_drift_bound(base, 1.0, 1.0, d),
        ),
    )
    for name, series, shift, bound in curves:
        ax.semilogy(d, shift, color=series.color, label=name)
        ax.semilogy(d, bound, color=series.color, ls=BOUND, lw=1.0)
    ax.legend(loc="lower left")
    ax.set(xlim=(2.0, 12.0), ylim=(1e-9, 20.0), xticks=range(2, 13, 2))
    panel(ax, "f", "drift: gated, or not", r"separation $\delta$", "shift of the old mean (s.d.)")


@styled
def retention_regions() -> Drawing:
    """Regions of hyper-parameters that retain the old mode, and below them why, and what the old mean pays."""
    figure = matplotlib.figure.Figure(figsize=(7.2, 5.4))
    (sdft, ttt, oapl), (times, loss, drifts) = figure.subplots(2, 3)
    _sdft_region(sdft)
    _ttt_region(ttt)
    _oapl_region(oapl)
    _sdft_times(times)
    _ttt_loss(loss)
    _drifts(drifts)
    handles = [
        key("-", color="black", label=rf"boundary, $\beta={MIN_MASS:g}$ [T]"),
        key(marker="o", color=BLUE.color, label=rf"simulated, ends with $\beta\geq{MIN_MASS:g}$"),
        key(marker="x", color=VERMILLION.color, label=rf"simulated, ends with $\beta<{MIN_MASS:g}$"),
        key(BOUND, label="proved bound [T]"),
        key(LAW, label="expected reward: weak exponent [A]"),
        key(marker="s", label="d: flow; e: optimum with overlap"),
    ]
    legend_below(figure, handles, 3)
    return figure


RETENTION_REGIONS = Figure(
    "retention-regions",
    "Which hyper-parameters retain the old mode",
    "Base old mass 1/2, at least 0.1 wanted. (a-c) Closed-form boundary (thick) and the final old mass (thin contours) [T]; markers: "
    "simulated at δ = 6, weight and means free (a, b: overlap included; c: labelled modes). SDFT: the tilt of the demonstration against the weight of the anchor; "
    "the top edge is a frozen teacher, the bottom edge a = 1 loses for every tilt, and mixing new demonstrations into the "
    "teacher's probabilities is such a tilt. TTT-Discover: the leash needed saturates with the reward gap, that of expected reward (dotted) "
    "does not. OAPL: retention ends after so many refreshes, unless the reference is anchored (dash-dotted). "
    "(d) Old mass of SDFT with tilt 1/2 for three rates ρ of the teacher: between the bounds [T] without an anchor, at the plateau [T] with one. "
    "(e) Log-odds lost by TTT-Discover: exact, below its ceiling for every gap [T]; dotted: weak exponent [A]; markers: the optimum with overlap, δ = 3. "
    "(f) Shift of the old mean by the accumulated tilt, exact with bound [T]: gated by overlap, unless the reward has a slope inside the old mode "
    "(0.05 per standard deviation, over temperature).",
    (
        "sdft",
        "sdft-frozen-teacher",
        "sdft-retention-horizon",
        "sdft-anchored-stability",
        "sdft-anchored-rate",
        "sdft-probability-mixing",
        "ttt-discover-retention",
        "ttt-discover-threshold",
        "ttt-discover-overlap",
        "ttt-discover-drift",
        "ttt-discover-small-b",
        "oapl-anchored",
        "oapl-overlap",
        "oapl-drift",
        "reward-slope-drift",
    ),
    retention_regions,
)
