"""Figures 4-6: misassignment, and the drift of the old mean under reverse KL beside that under forward KL.

For each figure: functions that compute what is drawn (the tests compare them with the theory), then one that draws.
"""

from __future__ import annotations

from typing import NamedTuple

import matplotlib.figure
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import cumulative_trapezoid
from scipy.special import logit

from fstsim import (
    SGD,
    ForwardKL,
    GaussianMixture,
    GradientDescent,
    GradientFlow,
    ReverseKL,
    TwoModeProblem,
    TwoModeState,
    gradient_flow,
    simulate,
)
from fstsim.overlap import misassignment_probability
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
from fstsim.paper.figures.learner_flows import forward_flows
from fstsim.theory.drift import drift_certificates
from fstsim.theory.forward_kl import old_mean_drift_forward
from fstsim.theory.overlap import misassignment_bound_table

Array = NDArray[np.float64]

ALPHA = 0.5  # target mass of the old mode
RUNS = 32

# Figure 4 -----------------------------------------------------------------------------------------------------------

OLD_MASSES = (0.05, 0.5, 0.95)
SAMPLES = 100_000


class Look(NamedTuple):
    """Colour, line style and width of one bound."""

    color: str
    linestyle: object
    width: float
    label: str


BOUND_LOOKS = {
    "U1": Look(ORANGE.color, DASH_DOT, 1.2, "U1 Bhattacharyya"),
    "U2": Look(VERMILLION.color, BOUND, 1.4, "U2 clean, recommended"),
    "U3": Look(GREY, LAW, 1.4, "U3 Chernoff"),
    "U4": Look(GREEN.color, (0, (2.0, 1.0)), 1.2, "U4 saddle point"),
    "U5": Look(GREY, (0, (6.0, 1.5, 1.0, 1.5, 1.0, 1.5)), 1.0, "U5 two tails"),
    "U*": Look(BLUE.color, "-", 2.6, "U* best upper, recommended"),
    "L*": Look("#8c6d1f", "-", 2.6, "L* best lower, recommended"),
}


def misassignment_samples(old_mass: float, deltas: ArrayLike) -> Points:
    """Mean responsibility of the new component over samples of the old one, at each separation (in ``time``)."""
    rng = np.random.default_rng(4)
    d = np.asarray(deltas, dtype=np.float64)
    mean, error = np.empty(d.shape), np.empty(d.shape)
    for k, delta in enumerate(d):
        mixture = GaussianMixture([old_mass, 1.0 - old_mass], [[0.0], [delta]], [[1.0]])
        taken = mixture.responsibilities(rng.standard_normal((SAMPLES, 1)))[:, 1]
        mean[k], error[k] = taken.mean(), taken.std(ddof=1) / np.sqrt(SAMPLES)
    return Points(d, mean, error)


@styled
def misassignment_bounds() -> Drawing:
    """Misassignment probability with its bounds, and the ratios bound / actual."""
    figure = matplotlib.figure.Figure(figsize=(7.2, 4.9))
    axes = figure.subplots(2, 3, sharex=True, sharey="row", height_ratios=(1.0, 1.1))
    deltas = np.linspace(0.3, 10.0, 195)
    for column, old_mass in enumerate(OLD_MASSES):
        top, bottom = axes[:, column]
        odds = logit(old_mass)
        actual = misassignment_probability(odds, deltas)
        table = misassignment_bound_table(odds, deltas)
        sampled = misassignment_samples(old_mass, np.arange(1.0, 6.5, 0.5))
        for name in ("U1", "U*", "L*"):
            look = BOUND_LOOKS[name]
            top.semilogy(deltas, table[name], color=look.color, ls=look.linestyle, lw=look.width)
        top.semilogy(deltas, actual, color="black", lw=1.0)
        draw_points(top, sampled, BLACK)
        for name, look in BOUND_LOOKS.items():
            ratio = np.where(np.isfinite(table[name]), table[name] / actual, np.nan)
            bottom.semilogy(deltas, ratio, color=look.color, ls=look.linestyle, lw=look.width)
        bottom.axhline(1.0, color="black", lw=1.0)
        exact = misassignment_probability(odds, sampled.time)
        draw_points(bottom, Points(sampled.time, sampled.mean / exact, sampled.error / exact), BLACK)
        letters = "abc"[column], "def"[column]
        first = column == 0
        panel(top, letters[0], f"old mass $w={old_mass:g}$", "", r"misassignment $\varepsilon$" if first else "")
        panel(bottom, letters[1], "", r"separation $\delta$", "bound / actual" if first else "")
        bottom.set(xlim=(0.0, 10.0), ylim=(0.4, 6.0), xticks=np.arange(0.0, 11.0, 2.0))
        bottom.set_yticks([0.5, 1.0, 2.0, 4.0], ["0.5", "1", "2", "4"])
        bottom.minorticks_off()
        top.set_ylim(1e-7, 3.0)
    handles = [key(look.linestyle, color=look.color, label=look.label) for look in BOUND_LOOKS.values()]
    for handle, look in zip(handles, BOUND_LOOKS.values(), strict=True):
        handle.set_linewidth(look.width)
    handles = [
        key("-", color="black", label=r"actual $\varepsilon$, exact"),
        key(marker="o", color="black", filled=True, label="$10^5$ samples"),
        *handles,
    ]
    legend_below(figure, handles, 3)
    return figure


# Figure 5 -----------------------------------------------------------------------------------------------------------


class Start(NamedTuple):
    """An initial error: old mass, error of the new mean (first axis: from old to new), and how it is drawn."""

    label: str
    beta0: float
    new_error: tuple[float, float]
    series: Series


TOWARD = Start("new mean off by 1 toward the old", 0.5, (-1.0, 0.0), BLACK)
ORTHOGONAL = Start("new mean off by 1 at right angles", 0.5, (0.0, 1.0), BLUE)
WEIGHT = Start(r"weight only, $\beta_0=0.2$", 0.2, (0.0, 0.0), ORANGE)
STARTS = (TOWARD, ORTHOGONAL, WEIGHT)
DRIFT_DELTAS = (4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0)
HORIZONS = {10.0: BLACK, 1e2: BLUE, 1e4: ORANGE}


def reverse_certificate(deltas: ArrayLike, start: Start) -> Array:
    """Certificate ``rho`` of theory 4.1, nan where there is none."""
    d = np.asarray(deltas, dtype=np.float64)
    return drift_certificates(d, ALPHA, start.beta0, np.broadcast_to(start.new_error, (d.size, 2))).rho


def reverse_peaks(delta: float, lr: float = 0.1, steps: int = 80) -> Array:
    """Largest drift on the way to the target for each of `STARTS`, by exact descent of all three at once."""
    problem = TwoModeProblem.separated(delta, ALPHA, dimension=2)
    initial = TwoModeState(
        logit([start.beta0 for start in STARTS]),
        problem.mean_old,
        problem.mean_new + np.array([start.new_error for start in STARTS]),
    )
    return simulate(problem, ReverseKL(problem), initial, GradientDescent(lr), steps).drift.max(axis=0)


def forward_drift(delta: float, times: Array) -> Array:
    """Drift of the old mean along the forward-KL flow on new data, from right components and mass 1/2."""
    problem = TwoModeProblem.separated(delta)
    how = GradientFlow(rtol=1e-8)
    states = gradient_flow(problem, ForwardKL(problem), problem.initial(0.5), float(times[-1]), how)(times)
    return np.abs(states.mean_old[:, 0])


def forward_drifts(deltas: ArrayLike, times: Array) -> Array:
    """The same of several separations at once, ``(n, T)``."""
    return np.abs(forward_flows(deltas, 0.5, float(times[-1]), 1e-8)(times)[..., 1]).T


@styled
def drift_vs_separation() -> Drawing:
    """Peak drift under reverse KL and drift by a horizon under forward KL, against the squared separation."""
    figure = matplotlib.figure.Figure(figsize=(7.2, 4.3))
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    deltas = np.linspace(3.5, 12.5, 91)
    squared = np.square(DRIFT_DELTAS)
    peaks = np.array([reverse_peaks(delta) for delta in DRIFT_DELTAS])
    for column, start in enumerate(STARTS):
        left.semilogy(deltas**2, reverse_certificate(deltas, start), color=start.series.color, ls=BOUND)
        draw_exact(left, squared, peaks[:, column], start.series)
    horizons = np.array(list(HORIZONS))
    drifts = forward_drifts(DRIFT_DELTAS, horizons)
    for column, (horizon, series) in enumerate(HORIZONS.items()):
        bound, leading = old_mean_drift_forward(deltas, 0.5, horizon)
        right.semilogy(deltas**2, leading, color=series.color, ls=LAW)
        right.semilogy(deltas**2, bound, color=series.color, ls=BOUND)
        draw_exact(right, squared, drifts[:, column], series)
    for ax in (left, right):
        ax.semilogy(deltas**2, np.exp(-0.125 * deltas**2), color=GREY, lw=0.8)
        ax.set(xlim=(12.0, 150.0), ylim=(1e-10, 20.0))
        top = ax.secondary_xaxis("top", functions=(_square_root, np.square))
        top.set_xticks((4, 6, 8, 10, 12))
        top.set_xlabel(r"separation $\delta$", labelpad=3)
    panel(left, "a", "reverse KL: peak over all time", r"$\delta^2$", "drift of the old mean (standard deviations)")
    panel(right, "b", "forward KL: drift by time $T$", r"$\delta^2$", "")
    left.legend(
        handles=[key(marker=s.series.marker, color=s.series.color, label=s.label) for s in STARTS], loc="upper right"
    )
    names = {10.0: "10", 1e2: "10^2", 1e4: "10^4"}
    right.legend(
        handles=[key(marker=s.marker, color=s.color, label=f"$T={names[t]}$") for t, s in HORIZONS.items()],
        loc="upper right",
    )
    kinds = [
        key(marker="o", label="simulated"),
        key(BOUND, label="certificate, where one exists [T]"),
        key(LAW, label="leading order [A]"),
        key("-", label=r"slope $-1/8$"),
    ]
    legend_below(figure, kinds, 4)
    return figure


def _square_root(x: ArrayLike) -> Array:
    # matplotlib asks for the transform of axis limits, which may be negative while it lays the figure out
    return np.sqrt(np.maximum(x, 0.0))


# Figure 6 -----------------------------------------------------------------------------------------------------------

TIME_DELTA = 6.0  # every error here is along the axis between the modes: one dimension is enough


def drift_sgd(objective: ForwardKL | ReverseKL, start: Start, lr: float, steps: int, batch: int = 256) -> Points:
    """Size of the mean shift of the old mean along the axis between the modes, over SGD runs."""
    problem = objective.problem
    initial = problem.initial(start.beta0, start.new_error[:1])
    run = sgd_runs(problem, objective, initial, SGD(lr, batch), steps, RUNS, seed=6)
    # the mean of the signed shift: the mean of its size would be biased by the noise
    points = summarise(log_rows(10, steps, 8), lr, run.mean_old[..., 0])
    return points._replace(mean=np.abs(points.mean))


def reverse_flow(start: Start, times: Array) -> tuple[Array, Array]:
    """Drift along the reverse-KL flow and its certificate ``rho (1 - exp(-int beta))``."""
    problem = TwoModeProblem.separated(TIME_DELTA, ALPHA)
    initial = problem.initial(start.beta0, start.new_error[:1])
    states = gradient_flow(problem, ReverseKL(problem), initial, float(times[-1]))(times)
    drift = np.abs(states.mean_old[:, 0])
    spent = cumulative_trapezoid(states.old_mass, times, initial=0)
    return drift, -reverse_certificate([TIME_DELTA], start) * np.expm1(-spent)


@styled
def drift_vs_time() -> Drawing:
    """Drift of the old mean against time: forward KL grows like sqrt(t), reverse KL comes back."""
    figure = matplotlib.figure.Figure(figsize=(7.2, 3.9))
    axes = left, right = figure.subplots(1, 2)
    looks = {TOWARD: BLUE, WEIGHT: ORANGE}
    # dense both for the logarithmic and for the linear panel
    times = np.union1d(np.geomspace(1e-2, 1e8, 300), np.linspace(0.0, 20.0, 101))
    early = times[times <= 50.0]
    drift = forward_drift(TIME_DELTA, times)
    bound, leading = old_mean_drift_forward(TIME_DELTA, 0.5, times)
    reverse = {start: reverse_flow(start, early) for start in looks}
    for ax in axes:
        ax.plot(times, leading, color=BLACK.color, ls=LAW)
        ax.plot(times, bound, color=BLACK.color, ls=BOUND)
        ax.plot(times, drift, color=BLACK.color)
        for start, series in looks.items():
            ax.plot(early, reverse[start][1], color=series.color, ls=BOUND)
            ax.plot(early, reverse[start][0], color=series.color)
    problem = TwoModeProblem.separated(TIME_DELTA, ALPHA)
    points = {
        BLACK: drift_sgd(ForwardKL(problem), Start("", 0.5, (0.0, 0.0), BLACK), 0.05, 800),
        BLUE: drift_sgd(ReverseKL(problem), TOWARD, 0.04, 360),
        ORANGE: drift_sgd(ReverseKL(problem), WEIGHT, 0.04, 360),
    }
    for series, sampled in points.items():
        for ax in axes:
            draw_points(ax, sampled, series)
    left.axhline(TIME_DELTA, color=GREY, lw=0.8)
    left.text(0.08, 1.1 * TIME_DELTA, f"the new data, $\\delta={TIME_DELTA:g}$", color=GREY, va="bottom")
    left.set(xscale="log", yscale="log", xlim=(0.05, 1e8), ylim=(1e-5, 20.0))
    right.set(xlim=(0.0, 20.0), ylim=(0.0, 0.07), xticks=range(0, 21, 5))
    panel(left, "a", "nine decades", TIME, "drift of the old mean (standard deviations)")
    panel(right, "b", "the first 20 time units", TIME, "")
    names = [
        key("-", BLACK.marker, BLACK.color, True, "forward KL, new data"),
        key("-", BLUE.marker, BLUE.color, True, "reverse KL, new mean off by 1"),
        key("-", ORANGE.marker, ORANGE.color, True, r"reverse KL, $\beta_0=0.2$"),
    ]
    kinds = [
        key("-", label="exact flow"),
        key(BOUND, label="certificate [T]"),
        key(LAW, label=r"leading order, $\propto\sqrt{t}$ [A]"),
        key(marker="o", filled=True, label=f"SGD, {RUNS} runs"),
    ]
    legend_in_rows(figure, names, kinds)
    return figure


MISASSIGNMENT_BOUNDS = Figure(
    "misassignment-bounds",
    "How often a mixture assigns an old sample to the new mode",
    "Misassignment probability ε of the old component, with every bound [T], for three old masses w. (a-c) ε "
    "(black) between the best lower and upper bound; the Bhattacharyya bound U1 misses a factor that grows like δ. "
    "(d-f) Ratios bound / actual: the clean bound U2 is within a factor 2.3 everywhere shown and tends to 1, U* is "
    "within 1.4. Filled markers: mean responsibility over 100,000 samples, with standard errors. U3 and U4 exist only "
    "where the saddle point lies inside.",
    ("misassignment", "logistic-normal"),
    misassignment_bounds,
)


DRIFT_VS_SEPARATION = Figure(
    "drift-vs-separation",
    "Drift of the old mean is gated by overlap, with exponent δ²/8",
    "Shift of the old mean in standard deviations against δ². (a) Reverse KL to the target with old mass 1/2: the largest "
    "shift at any time, for three initial errors (open markers: exact descent); dashed: certificate [T], drawn where one "
    "exists. An error of the new mean toward the old one shortens the gap, hence the larger shift. (b) Forward KL "
    "on new data: the shift by time T (open markers: ODE solver) grows almost like √T; dashed: certificate [T]; dotted: leading "
    "order [A]. Grey: exp(−δ²/8).",
    (
        "drift-along-flow",
        "drift-under-forward-KL",
        "forward-drift-force",
        "old-mean-force",
        "old-mean-force-general",
    ),
    drift_vs_separation,
    manuscript=True,
)


DRIFT_VS_TIME = Figure(
    "drift-vs-time",
    "Forward KL never gives the old mean back; reverse KL does",
    "Shift of the old mean at δ = 6. Forward KL on new data (black): grows over five decades, a little slower than the "
    "leading order √t [A] (the more so the larger log t / δ [N]), until the old mean nears the new data. Reverse KL to the target (blue: new mean off by 1 toward the old; orange: old mass 0.2 instead "
    "of 1/2): rises, peaks, and returns to 0. Dashed: certificates [T]; that of forward KL ends where its overlap "
    "condition fails, those of reverse KL hold for all time. Lines: ODE solver; filled markers: mean of 32 SGD runs "
    "with batches of 256, with standard errors.",
    (
        "forward-drift-leading-order",
        "forward-drift-saddle",
        "drift-under-forward-KL",
        "reverse-kl-target",
        "drift-along-flow",
    ),
    drift_vs_time,
    manuscript=True,
)
