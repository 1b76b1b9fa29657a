"""Figure 10: reverse KL from a rare old mode, what starvation costs and when replayed samples help.

Functions that compute what is drawn (the tests compare them with the theory), then the one that draws.
"""

from __future__ import annotations

from typing import NamedTuple

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from fstsim import (
    SGD,
    ForwardKL,
    GradientDescent,
    GradientFlow,
    ReverseKL,
    TwoModeProblem,
    TwoModeState,
    gradient_flow,
    simulate,
)
from fstsim.optimizers import Geometry
from fstsim.paper.figures.drawing import (
    BLACK,
    BLUE,
    BOUND,
    DASH_DOT,
    GREEN,
    GREY,
    LAW,
    ORANGE,
    VERMILLION,
    Drawing,
    Points,
    Series,
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
from fstsim.replay_objectives import ReverseKLReplay
from fstsim.theory.forward_kl import mass_forgetting_separated
from fstsim.theory.noise import Baseline, gradient_variance, sampled_gradients, separated_gradient_variance
from fstsim.theory.starvation import (
    recovery_time_bounds,
    replay_harm_threshold,
    zero_signal_probability,
)

Array = NDArray[np.float64]

ALPHA = 0.5
LEVEL = 0.1  # the old mass counts as recovered
DELTA = 8.0  # no overlap to speak of
SHARE = 0.2  # replay
RUNS = 32


def objective(share: float, delta: float = DELTA) -> ReverseKL | ReverseKLReplay:
    """Reverse KL, with a share of replayed samples in its batches."""
    problem = TwoModeProblem.separated(delta, ALPHA)
    return ReverseKLReplay(problem, share) if share else ReverseKL(problem)


# (a) and (b): recovery ---------------------------------------------------------------------------------------------------

BATCHES = {2: BLACK, 16: BLUE, 256: ORANGE}
RARE = (2e-3, 7e-3, 2.5e-2)
RATES: dict[Geometry, float] = {"logit": 1.0, "em": 0.1}


def recovery_steps(geometry: Geometry, batch: int, share: float, beta0: float) -> Points:
    """Steps of SGD on the weight until the old mass first reaches `LEVEL`: mean over runs, at ``time`` beta0."""
    runs = 64 if batch < 100 else 16
    rng = np.random.default_rng(batch)
    what = objective(share)
    start = what.problem.initial(beta0)
    state = TwoModeState(np.full(runs, start.log_odds), start.mean_old, start.mean_new)
    optimizer = SGD(RATES[geometry], batch, geometry, "weight")
    chunk = 20 if geometry == "em" and share else 100
    reached, done = np.full(runs, np.nan), 0
    while np.isnan(reached).any():
        run = simulate(what.problem, what, state, optimizer, chunk, rng)
        here = run.old_mass >= LEVEL
        reached = np.fmin(reached, np.where(here.any(axis=0), done + here.argmax(axis=0), np.nan))
        state, done = run.state(), done + chunk
    error = reached.std(ddof=1) / np.sqrt(runs)
    return Points(np.array([beta0]), np.array([reached.mean()]), np.array([error]))


def flow_steps(geometry: Geometry, beta0: Array) -> Array:
    """Steps that the flow takes from each mass to `LEVEL` at the learning rate of the runs; ``beta0`` increases."""
    what = objective(0.0)
    duration = {"logit": 160.0, "em": 3.0}[geometry]
    time = np.linspace(0.0, duration, 4001)
    how = GradientFlow(geometry=geometry, train="weight", rtol=1e-6)
    mass = gradient_flow(what.problem, what, what.problem.initial(float(beta0[0])), duration, how)(time).log_odds
    at = np.interp(logit(np.append(beta0, LEVEL)), mass, time)
    return (at[-1] - at[:-1]) / RATES[geometry]


# (c): old samples that a forgetting learner still draws -------------------------------------------------------------------

FORGET_RATE = 0.5
FORGETTING: dict[Geometry, Series] = {"logit": BLACK, "fisher": ORANGE}


def old_samples(geometry: Geometry, steps: int = 500) -> Array:
    """``sum_{j < k} beta_j``, the old samples drawn by step k for each sample a step, on new data from mass 1/2."""
    problem = TwoModeProblem.separated(DELTA)
    optimizer = GradientDescent(FORGET_RATE, geometry, "weight")
    run = simulate(problem, ForwardKL(problem), problem.initial(0.5), optimizer, steps)
    return np.concatenate([[0.0], run.old_mass[:-1].cumsum()])


def old_samples_drawn(geometry: Geometry, batch: int = 16, steps: int = 500) -> Points:
    """The same in SGD runs that draw ``batch`` samples of their own a step: old samples drawn so far over the batch."""
    problem = TwoModeProblem.separated(DELTA)
    optimizer = SGD(FORGET_RATE, batch, geometry, "weight")
    run = sgd_runs(problem, ForwardKL(problem), problem.initial(0.5), optimizer, steps, RUNS, seed=10)
    drawn = np.random.default_rng(10).binomial(batch, run.old_mass[:-1]).cumsum(axis=0) / batch
    points = summarise(log_rows(2, steps, 7) - 1, 1.0, drawn)
    return points._replace(time=points.time + 1.0)


# (d) to (f): noise -------------------------------------------------------------------------------------------------------

NOISE_BATCH = 16
BASELINES: dict[Baseline, Series] = {"none": VERMILLION, "mean": BLUE, "leave-one-out": BLACK, "optimal": GREEN}
OLD_MASSES = {0.02: BLACK, 0.1: BLUE, 0.3: GREEN, 0.6: ORANGE}


class Spread(NamedTuple):
    """A sampled variance and its standard error."""

    value: float
    error: float


def sampled_variance(share: float, beta: float, batch: int = NOISE_BATCH, replicates: int = 4000) -> Spread:
    """Variance of batch gradients of the weight, leave-one-out baseline."""
    what = objective(share)
    rng = np.random.default_rng(10)
    g = sampled_gradients(what, what.problem.initial(beta), batch, replicates, rng)
    groups = g.reshape(20, -1).var(axis=1, ddof=1)
    return Spread(float(groups.mean()), float(groups.std(ddof=1) / np.sqrt(20.0)))


def sampled_ratio(beta: float, shares: ArrayLike) -> Points:
    """Sampled variance with replay over that without, for each replay share (in ``time``)."""
    x = np.asarray(shares, dtype=np.float64)
    plain, replayed = sampled_variance(0.0, beta), [sampled_variance(share, beta) for share in x]
    mean = np.array([v.value for v in replayed]) / plain.value
    error = [np.hypot(v.error / v.value, plain.error / plain.value) for v in replayed]
    return Points(x, mean, mean * np.array(error))


def variance_ratio(beta: ArrayLike, share: ArrayLike) -> Array:
    """Variance of a batch gradient with replay over that without, leave-one-out baseline, no overlap."""
    plain = separated_gradient_variance(beta, 1.0, 0.0, NOISE_BATCH)
    return separated_gradient_variance(beta, 1.0, 0.0, NOISE_BATCH, "leave-one-out", share) / plain


def overlap_ratio(delta: float, beta: Array, shares: Array) -> Array:
    """The same at a finite separation by quadrature, ``(shares, beta)``."""
    state = TwoModeState(logit(beta), np.zeros((beta.size, 1)), np.full((beta.size, 1), delta))
    plain = gradient_variance(objective(0.0, delta), state, NOISE_BATCH)
    return np.stack([gradient_variance(objective(share, delta), state, NOISE_BATCH) / plain for share in shares])


# The figure --------------------------------------------------------------------------------------------------------------


def _draw_recovery(ax: Axes, geometry: Geometry) -> None:
    masses = np.geomspace(1.4e-3, 5e-2, 60)
    ax.loglog(masses, flow_steps(geometry, masses), color=GREY)
    for k, (batch, series) in enumerate(BATCHES.items()):
        for beta0 in RARE:
            draw_points(ax, recovery_steps(geometry, batch, 0.0, beta0), series)
            found = recovery_steps(geometry, batch, SHARE, beta0)
            # beside each other: with replay they all agree
            ax.errorbar(
                found.time * 1.15 ** (k - 1),
                found.mean,
                found.error,
                fmt=series.marker,
                color=series.color,
                mfc="white",
                ms=4,
            )
        if geometry == "em":
            wait = 1.0 / (1.0 - zero_signal_probability(masses, batch))
            ax.loglog(masses, wait, color=series.color, ls=BOUND)
    if geometry == "logit":
        _, upper = recovery_time_bounds(masses, LEVEL, ALPHA, RATES["logit"], 2)  # the lower bound is the flow
        ax.loglog(masses, upper, color=BLACK.color, ls=BOUND)
    ax.set(xlim=(1.4e-3, 4e-2), ylim=(1.0, 1e3))
    ax.set_xticks([0.002, 0.005, 0.01, 0.02], ["0.002", "0.005", "0.01", "0.02"])
    ax.minorticks_off()
    if geometry == "logit":
        handles = [key("none", s.marker, s.color, True, rf"$N={batch}$") for batch, s in BATCHES.items()]
        ax.legend(handles=[*handles, key(marker="o", label="with replay")], loc="lower left", handlelength=1.0)


def _draw_seen(ax: Axes) -> None:
    steps = np.arange(1, 501)
    for geometry, series in FORGETTING.items():
        ax.semilogx(steps, old_samples(geometry)[1:], color=series.color)
        draw_points(ax, old_samples_drawn(geometry), series)
    done, before = (logit(mass_forgetting_separated(0.5, FORGET_RATE * t)) for t in (steps, steps - 1))
    for bound in (-done / FORGET_RATE, 0.5 - before / FORGET_RATE):
        ax.semilogx(steps, bound, color=BLACK.color, ls=BOUND, lw=1.2)
    ax.set(xlim=(1.0, 500.0), ylim=(0.0, 12.0))
    names = {"logit": "logit", "fisher": "natural gradient"}
    handles = [key("-", s.marker, s.color, True, names[geometry]) for geometry, s in FORGETTING.items()]
    ax.legend(handles=handles, loc="upper left", handlelength=1.8)


def _draw_ratio(ax: Axes) -> None:
    shares = np.geomspace(5e-3, 0.95, 100)
    for beta, series in OLD_MASSES.items():
        ax.loglog(shares, variance_ratio(beta, shares), color=series.color)
        draw_points(ax, sampled_ratio(beta, (0.01, 0.05, 0.2, 0.6)), series)
    ax.axhspan(1.0, 500.0, color="#ececec", zorder=0)
    ax.text(6e-3, 150.0, "replay hurts", color=GREY)
    ax.set(xlim=(5e-3, 1.0), ylim=(2e-3, 500.0))
    handles = [key("-", s.marker, s.color, True, rf"$\beta={beta:g}$") for beta, s in OLD_MASSES.items()]
    ax.legend(handles=handles, loc="lower left", handlelength=1.8)


def _draw_region(ax: Axes) -> None:
    s, shares = np.linspace(-5.0, 3.0, 81), np.linspace(0.0, 0.99, 100)
    beta = expit(s)
    contours = ax.contour(
        s,
        shares,
        variance_ratio(beta, shares[:, None]),
        [0.01, 0.03, 0.1, 0.3, 3.0, 10.0, 30.0],
        colors=GREY,
        linewidths=0.7,
    )
    ax.clabel(contours, fmt="%g", fontsize=6.5)
    threshold = replay_harm_threshold(beta)
    ax.fill_between(s, threshold, 1.0, color="#ececec", zorder=0)
    ax.plot(s, threshold, color="black")
    ax.plot(s, replay_harm_threshold(beta, "mean"), color=BLUE.color, ls=DASH_DOT)
    coarse, few = np.linspace(-4.0, -0.25, 16), np.linspace(0.05, 0.95, 19)
    ax.contour(coarse, few, overlap_ratio(2.0, expit(coarse), few), [1.0], colors=[VERMILLION.color], linestyles=[LAW])
    masses = np.array([0.01, 0.1, 0.5, 0.9])
    ax.set_xticks(logit(masses), [f"{mass:g}" for mass in masses])
    ax.set(xlim=(-5.0, 3.0), ylim=(0.0, 1.0))
    ax.text(1.6, 0.05, "replay\nhurts", color=GREY, ha="center")


def _draw_baselines(ax: Axes) -> None:
    mass = np.linspace(0.005, 0.995, 199)
    gains = np.log(ALPHA / mass), np.log((1.0 - ALPHA) / (1.0 - mass))  # log p/q inside the modes
    for baseline, series in BASELINES.items():
        ax.plot(mass, 2.0 * separated_gradient_variance(mass, *gains, 2, baseline), color=series.color)
    for beta in (0.03, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97):
        found = sampled_variance(0.0, beta, 2, 20_000)
        draw_points(
            ax,
            Points(*(np.array([x]) for x in (beta, 2.0 * found.value, 2.0 * found.error))),
            BASELINES["leave-one-out"],
        )
    state = TwoModeState(logit(mass), np.zeros((mass.size, 1)), np.full((mass.size, 1), 2.0))
    least = 2.0 * gradient_variance(objective(0.0, 2.0), state, 2, "optimal")
    ax.plot(mass, least, color=BASELINES["optimal"].color, ls=DASH_DOT)
    ax.set(xlim=(0.0, 1.0), ylim=(-0.01, 0.5))
    names = {"none": "none", "mean": "mean", "leave-one-out": "leave one out", "optimal": "swapped mean"}
    handles = [key("-", color=s.color, label=names[baseline]) for baseline, s in BASELINES.items()]
    ax.legend(handles=handles, loc="upper center", handlelength=1.8)


@styled
def starvation() -> Drawing:
    """Recovery from a rare old mode with and without replay, old samples still drawn, and the noise of the gradient."""
    figure = matplotlib.figure.Figure(figsize=(7.2, 5.8))
    (slow, fast, seen), (ratio, region, noise) = figure.subplots(2, 3)
    _draw_recovery(slow, "logit")
    _draw_recovery(fast, "em")
    _draw_seen(seen)
    _draw_ratio(ratio)
    _draw_region(region)
    _draw_baselines(noise)
    panel(slow, "a", "recovery, logit", r"old mass at first $\beta_0$", rf"steps to $\beta={LEVEL:g}$")
    panel(fast, "b", "recovery, EM geometry", r"old mass at first $\beta_0$", "")
    panel(seen, "c", "old samples still drawn", "step of forward KL", "old samples drawn / $N$")
    panel(ratio, "d", "noise with replay", r"replay share $\lambda$", "variance with / without replay")
    panel(region, "e", "where replay hurts", r"old mass $\beta$", r"replay share $\lambda$")
    panel(noise, "f", "baselines, no replay, $N=2$", r"old mass $\beta$", r"$N\times$ variance")
    kinds = [
        key("-", label="exact [T]; in a, b the flow"),
        key(BOUND, label="bound; in b, wait for a signal [T]"),
        key(DASH_DOT, label=r"e: oracle mean [T]; f: $\delta=2$"),
        key(LAW, color=VERMILLION.color, label=r"e: $\delta=2$, quadrature"),
        key(marker="o", filled=True, label="SGD, sampled"),
    ]
    legend_below(figure, kinds, 3)
    return figure


STARVATION = Figure(
    "starvation",
    "Starvation delays reverse KL; replay removes the wait, and adds noise where it is not needed",
    "Reverse KL to a target with old mass 1/2 from a rare old mode, components held right, δ = 8 (no overlap), batches of N samples with the "
    "leave-one-out baseline. (a) Steps until the old mass reaches 0.1, learning rate 1: never faster than the flow on average (grey, [T]), and for "
    "N = 2 slower by at most one wait (dashed, [T]); replay (λ = 0.2, importance weights, open markers) leaves the mean at the flow. "
    "(b) In the complete-data (EM) geometry, learning rate 0.1, the flow is fast and the wait for the first batch with both modes "
    "(dashed, [T]) is what recovery costs; replay removes it. (c) Old samples that a learner forgetting under forward KL still draws, for each sample a step: "
    "in the logit their number grows like log k without end (bounds dashed, [T]), with the natural gradient it is finite. "
    "(d) Variance of the weight gradient with replay over that without, N = 16. (e) The same over the plane; replay hurts beyond the "
    "thick line [T], with the oracle mean baseline beyond the dash-dotted one [T], at δ = 2 beyond the dotted one. (f) Variance with different baselines: the mean can be worse than "
    "none, the swapped mean leaves nothing but overlap. Filled markers: 64 SGD runs (16 for N = 256; 32 in c), or 4,000 (f: 20,000) sampled gradients, with standard errors.",
    (
        "replay-reverse-starvation",
        "replay-reverse-old-samples",
        "replay-reverse-recovery",
        "replay-reverse-unbiased",
        "replay-reverse-variance",
        "replay-reverse-variance-overlap",
        "replay-reverse-harm",
        "replay-reverse-leave-one-out",
        "finite-batch-noise-baseline",
        "finite-batch-noise-leave-one-out",
    ),
    starvation,
)
