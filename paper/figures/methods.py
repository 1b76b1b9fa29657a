"""Figure 11: every method of the classification on one axis, and what the classification leaves out.

Functions that compute what is drawn (the tests compare them with the theory), then the one that draws.
"""

from __future__ import annotations

from typing import NamedTuple

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.special import expit, logit

from fstsim import SGD, ForwardKL, GradientFlow, ReverseKL, TwoModeProblem, TwoModeState
from fstsim.method_loops import Teacher, simulate_sdft
from fstsim.paper.figures.drawing import (
    BLACK,
    BLUE,
    BOUND,
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
    panel,
    sgd_runs,
    styled,
    summarise,
)
from fstsim.paper.figures.figure import Figure
from fstsim.paper.figures.method_runs import BETA0, DELTA, KEPT, LOST, PLANS, RUNS, exact_mass, plateau
from fstsim.theory.noise import LinearNoiseBand, gradient_variance, linear_noise_band
from fstsim.theory.sdft import sdft_path_drift
from fstsim.theory.statements.maps import BASINS

Array = NDArray[np.float64]

# Panel c: without labels ----------------------------------------------------------------------------------------------

# one update q' ~ q^a p^b q_0^c e^(r / tau), whose factors disagree on the weight
EXPONENTS = np.array([0.5, 0.3, 0.2])
FACTOR_LOG_ODDS = np.array([-1.0, 1.0, 0.0])
MAP_DRIFT = 0.5


class BasinError(NamedTuple):
    """Log-odds of the two basins after one update, less what the map says: exact, and its proved bounds."""

    exact: Array
    lower: Array
    upper: Array


def basin_error(deltas: Array) -> BasinError:
    """What is lost when samples carry no mode label, at each separation."""
    n = deltas.size
    arguments = {
        "exponents": np.tile(EXPONENTS, (n, 1)),
        "log_odds": np.tile(FACTOR_LOG_ODDS, (n, 1)),
        "drift": np.full(n, MAP_DRIFT),
        "delta": deltas,
    }
    labelled = float(EXPONENTS @ FACTOR_LOG_ODDS - MAP_DRIFT)
    lower, upper = BASINS.bound(**arguments)
    return BasinError(
        *(np.log(np.asarray(odds, dtype=np.float64)) - labelled for odds in (BASINS.exact(**arguments), lower, upper))
    )


# Panel d: the drift of SDFT --------------------------------------------------------------------------------------------

DRIFT_DELTAS = {4.0: BLACK, 6.0: BLUE}
DRIFT_TILT = 0.5
SDFT_RATES = {1.0: "o", 0.05: "s"}


def sdft_drift(delta: float, ema_rate: float, anchor: float = 1.0) -> tuple[Array, Array]:
    """Old mass and drift of the old mean along the SDFT flow, all parameters free."""
    problem = TwoModeProblem.separated(delta)
    how = GradientFlow(step_time=2.0, growth=1.9, rtol=1e-4)
    student, _ = simulate_sdft(problem, problem.initial(BETA0), Teacher(DRIFT_TILT, ema_rate, anchor=anchor), how, 9)
    return student.old_mass[1:], student.drift[1:]


# Panel e: the spread of SGD runs -----------------------------------------------------------------------------------------

SPREAD_RUNS, SPREAD_LR, SPREAD_STEPS = 400, 0.5, 60
SPREADS = (("replay", 8, BLACK), ("replay", 64, BLUE), ("reverse KL", 8, VERMILLION), ("reverse KL", 64, ORANGE))


def _spread_objective(name: str) -> ForwardKL | ReverseKL:
    problem = TwoModeProblem.separated(DELTA, 0.3)
    return ForwardKL(problem, 0.3) if name == "replay" else ReverseKL(problem)


def predicted_spread(name: str, batch: int) -> LinearNoiseBand:
    """Linear-noise band of the weight, components held right; both objectives rest at old mass 0.3."""
    objective = _spread_objective(name)

    def at(s: float) -> TwoModeState:
        return objective.problem.initial(float(expit(s)))

    return linear_noise_band(
        lambda s: -float(objective.gradient(at(s)).log_odds),
        lambda s: batch * float(gradient_variance(objective, at(s), batch)),
        float(logit(BETA0)),
        SPREAD_LR,
        batch,
        SPREAD_STEPS,
    )


def measured_spread(name: str, batch: int) -> Points:
    """Standard deviation of the log-odds over SGD runs, with its standard error."""
    objective = _spread_objective(name)
    optimizer = SGD(SPREAD_LR, batch, train="weight")
    start = objective.problem.initial(BETA0)
    run = sgd_runs(objective.problem, objective, start, optimizer, SPREAD_STEPS, SPREAD_RUNS, seed=14)
    rows = np.array([1, 3, 6, 10, 20, 40, 60])
    spread = run.log_odds[rows].std(axis=1, ddof=1)
    return Points(SPREAD_LR * rows, spread, spread / np.sqrt(2.0 * (SPREAD_RUNS - 1)))


# the figure ------------------------------------------------------------------------------------------------------------

TIMES = np.geomspace(0.3, 300.0, 100)
LOST_NOTES = {  # right end of the label, and its angle
    "forward-kl": (2.4, 2.5e-3, 0.0),
    "sdft": (12.8, 1.2e-3, -78.0),
    "oapl": (26.5, 1.2e-3, -78.0),
    "forward-kl-logit": (285.0, 4.2e-3, -38.0),
    "ttt-discover": (285.0, 1.13e-2, -38.0),
    "policy-gradient": (285.0, 3.2e-2, -38.0),
}
FLOW_TIMES = np.geomspace(0.3, 300.0, 15)  # where each value is an ODE solve


def _method(ax: Axes, name: str, series: Series, floor: float) -> None:
    """Closed-form line over the middle 80 % of the SGD runs, with their mean at a few times."""
    runs, step = PLANS[name].runs(), PLANS[name].round_steps
    mass = expit(runs.log_odds)
    shown = (
        np.unique(
            np.searchsorted(runs.time[::step], np.geomspace(0.5, runs.time[-1], 60)).clip(max=(len(mass) - 1) // step)
        )
        * step
    )
    low, high = np.quantile(mass[shown], (0.1, 0.9), axis=1)
    ax.fill_between(runs.time[shown], low, high, color=series.color, alpha=0.3, lw=0)
    is_flow = PLANS[name].per_time == 1.0 and step == 1
    times = FLOW_TIMES if is_flow else TIMES
    exact = exact_mass(name, times)
    ax.plot(times[exact > 0.3 * floor], exact[exact > 0.3 * floor], color=series.color, lw=1.2)
    marked = shown[np.linspace(len(shown) // 6, len(shown) - 1, 5).astype(int)]
    draw_points(ax, summarise(marked, float(runs.time[1]), mass), series)


def _note(ax: Axes, x: float, y: float, text: str, color: str, rotation: float = 0.0) -> None:
    ax.text(x, y, text, color=color, rotation=rotation, rotation_mode="anchor", ha="right", va="bottom", fontsize=6.8)


def _without_labels(ax: Axes) -> None:
    deltas = np.linspace(1.0, 10.0, 46)
    error = basin_error(deltas)
    ax.semilogy(deltas, error.exact, color="black")
    for bound, color in ((error.upper, VERMILLION.color), (-error.lower, BLUE.color)):
        ax.semilogy(deltas, bound, color=color, ls=BOUND)
    ax.semilogy(deltas, np.exp(-(deltas**2) / 8.0), color=GREY, lw=0.8)
    ax.text(9.9, 3e-5, "BC", color=GREY, ha="right")
    ax.text(1.3, 2e-6, "dashed: largest\nincrease, decrease", fontsize=6.8)
    ax.set(xlim=(1.0, 10.0), ylim=(1e-7, 2.0), xticks=range(2, 11, 2))
    panel(ax, "c", "without mode labels", r"separation $\delta$", "error of the map (log-odds)")


def _sdft_drifts(ax: Axes) -> None:
    masses = expit(np.linspace(-0.02, -5.5, 60))
    for delta, series in DRIFT_DELTAS.items():
        ax.loglog(masses, sdft_path_drift(BETA0, masses, DRIFT_TILT, delta), color=series.color, ls=LAW)
        for rate, marker in SDFT_RATES.items():
            draw_exact(ax, *sdft_drift(delta, rate), Series(series.color, marker))
        at = 1.5 * float(sdft_path_drift(BETA0, 0.03, DRIFT_TILT, delta))
        ax.text(0.03, at, rf"$\delta={delta:g}$", color=series.color, ha="right")
    ax.set(xlim=(0.55, 4e-3), ylim=(3e-4, 10.0))
    rates = [key(marker=marker, label=rf"$\rho={rate:g}$") for rate, marker in SDFT_RATES.items()]
    ax.legend(handles=rates, loc="lower right")
    panel(ax, "d", "SDFT: the path sets the drift", r"old mass $\beta$ left", "drift of the old mean (s.d.)")


def _spreads(ax: Axes) -> None:
    for name, batch, series in SPREADS:
        band = predicted_spread(name, batch)
        ax.semilogy(SPREAD_LR * np.arange(1, SPREAD_STEPS + 1), np.sqrt(band.variance[1:]), color=series.color, ls=LAW)
        draw_points(ax, measured_spread(name, batch), series)
    names = [key(LAW, s.marker, s.color, True, f"{name}, $N={batch}$") for name, batch, s in SPREADS]
    ax.legend(handles=names, loc="lower left")
    ax.set(xlim=(0.0, 31.0), ylim=(2e-6, 0.6))
    panel(ax, "e", "spread of SGD runs", TIME, "s.d. of the log-odds")


@styled
def methods() -> Drawing:
    """Old mass under every method, lost on the left and retained on the right; overlap, drift and noise below."""
    figure = matplotlib.figure.Figure(figsize=(7.2, 5.6))
    axes = figure.subplot_mosaic("aaabbb;ccddee", height_ratios=(1.2, 1.0))
    markers = "osD^v<>P"
    for letter, names, color, floor in (("a", LOST, VERMILLION.color, 1e-3), ("b", KEPT, BLUE.color, 0.025)):
        for marker, name in zip(markers, names, strict=False):
            _method(axes[letter], name, Series(color, marker), floor)
            if letter == "b":
                _note(axes[letter], 290.0, 1.03 * plateau(name), PLANS[name].label, color)
        axes[letter].set(xscale="log", yscale="log", xlim=(0.3, 300.0), ylim=(floor, 0.6))
    for name, (x, y, rotation) in LOST_NOTES.items():
        _note(axes["a"], x, y, PLANS[name].label, VERMILLION.color, rotation)
    axes["b"].set_yticks([0.03, 0.05, 0.1, 0.2, 0.5], ["0.03", "0.05", "0.1", "0.2", "0.5"])
    axes["b"].minorticks_off()
    time = "time $t$ (1/learning rate, or rounds)"
    panel(axes["a"], "a", "no anchor: lost", time, r"old mass $\beta$")
    panel(axes["b"], "b", "contraction to an anchor: retained", time, "")
    _without_labels(axes["c"])
    _sdft_drifts(axes["d"])
    _spreads(axes["e"])
    handles = [
        key("-", label="closed form or exact [T]"),
        key("-", label=f"middle 80 % of {RUNS} SGD runs"),
        key(marker="o", filled=True, label="SGD, with standard errors"),
        key(BOUND, label="proved bound [T]"),
        key(LAW, label="leading order [A]"),
        key(marker="o", label="flow (ODE solver)"),
    ]
    handles[1].set(linewidth=6.0, alpha=0.3)
    legend_below(figure, handles, 3)
    return figure


METHODS = Figure(
    "methods",
    "Every method on one axis: an anchor retains, its absence loses",
    "Old mass under every method of the classification, from 1/2 at log-odds 0, far-apart modes (δ = 8). (a) Without a fixed "
    "anchor all lose it: exponentially (natural gradient, or a constant step in log-odds per round of SDFT and OAPL) or like "
    "1/t (gradient in the logit). (b) With a contraction to a fixed anchor all retain it, at the closed-form fixed point. "
    "Lines: closed forms [T]; filled markers and bands: mean and middle 80 % of 32 SGD runs with batches of 64. Time is in units "
    "of 1 / learning rate; a round of SDFT (teacher replaced) or OAPL (refresh) counts one. (c) Log-odds of the two "
    "half-spaces after one update without mode labels, less what the map says: exact, between its bounds [T], below the Bhattacharyya "
    "coefficient BC. (d) SDFT without an anchor drags the old mean: whatever the teacher's rate ρ, the drift stays below a function "
    "of the old mass left [A]; open markers: ODE solver. (e) Standard deviation over 400 SGD runs, components held right: "
    "linear-noise theory [A] and measured; replay stays noisy, reverse KL is noiseless at its target.",
    (
        "exp-family-unification",
        "exp-family-unification-fixed-point",
        "exp-family-unification-overlap",
        "reverse-kl-prox",
        "sdft-series-resistance",
        "sdft-ultimate",
        "sdft-drift",
        "sdft-path-drift",
        "ttt-discover",
        "ttt-discover-no-leash",
        "oapl",
        "oapl-within-period",
        "oapl-lagged-pull",
        "finite-batch-noise-band",
    ),
    methods,
    manuscript=True,
)
