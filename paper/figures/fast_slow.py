"""Figure 13: what a fast context buys - less KL at the same reward, sooner on hard prompts, and the limits of both.

Functions that compute what is drawn (the tests compare them with the theory), then the one that draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

from fstsim.paper.figures.drawing import (
    BLACK,
    BLUE,
    BOUND,
    GREEN,
    GREY,
    LAW,
    ORANGE,
    VERMILLION,
    Drawing,
    Points,
    Series,
    draw_exact,
    draw_points,
    key,
    legend_below,
    panel,
    styled,
)
from fstsim.paper.figures.figure import Figure
from fstsim.paper.figures.group_panels import draw_contexts, draw_escapes, draw_waits
from fstsim.theory.fast_slow import (
    kl_reduction,
    largest_slow_share,
    leashed_optimum,
    no_context_kl,
    skill_per_drift_ratio,
    speed_up,
    time_to_reward,
)
from fstsim.theory.fast_slow_run import FastSlowRun, simulate_fast_slow
from fstsim.theory.group_normalised import group_escape_time

Array = NDArray[np.float64]

BASE = 0.1  # base success rate in panels a and d
MATCHED = 0.8  # the reward at which things are compared
SHARES = {1.0: BLACK, 0.75: BLUE, 0.5: VERMILLION, 0.25: ORANGE}
REPLICATES, GROUP = 32, 8

# Panel a ---------------------------------------------------------------------------------------------------------------


class Frontier(NamedTuple):
    """Simulated points of reward against KL: means over runs, and standard errors of either."""

    kl: Array
    reward: Array
    kl_error: Array
    reward_error: Array


def frontier(slow_share: float, rate: float = 0.5, groups: int = 16) -> Frontier:
    """Two-channel runs with gradient-like context and rollouts in groups; ``slow_share`` 1 is RL alone."""
    run = simulate_fast_slow(
        float(logit(BASE)),
        (1,),
        60,
        eta_slow=rate * slow_share,
        eta_fast=rate * (1.0 - slow_share),
        capacity=np.inf,
        group=GROUP,
        groups=groups,
        replicates=REPLICATES,
        rng=np.random.default_rng(13),
    )
    rows = np.array([6, 18, 26, 32, 38, 46, 60])
    kl, reward = run.columns()["kl_to_base"][rows], run.reward[rows]
    root = np.sqrt(REPLICATES)
    return Frontier(
        kl.mean(axis=1), reward.mean(axis=1), kl.std(axis=1, ddof=1) / root, reward.std(axis=1, ddof=1) / root
    )


# Panels c and d --------------------------------------------------------------------------------------------------------


class Channel(NamedTuple):
    """A fast channel per unit of slow rate: its keyword arguments, the learning rate to simulate it with, its look."""

    label: str
    fast: Mapping[str, Any]
    lr: float
    series: Series


RL = Channel("RL alone", {}, 0.2, BLACK)
GRADIENT = Channel("gradient", {"eta_fast": 2.0, "capacity": np.inf}, 0.2, BLUE)
FULL = Channel(r"gradient, $\Phi=2$", {"eta_fast": 2.0, "capacity": 2.0}, 0.2, GREEN)
SEARCH = Channel(r"search, $\Phi=2$", {"eta_fast": 10.0, "capacity": 2.0, "fast": "search"}, 0.05, VERMILLION)
SEARCH_MORE = Channel(r"search, $\Phi=4$", {"eta_fast": 10.0, "capacity": 4.0, "fast": "search"}, 0.05, ORANGE)


def simulated(channel: Channel, base: float, duration: float, advantage: str = "plain", lr: float = 0.0) -> FastSlowRun:
    """Runs of ``channel`` from base success rate ``base`` for ``duration`` units of 1 / slow rate."""
    rate = lr or channel.lr
    fast = dict(channel.fast)
    fast["eta_fast"] = rate * fast.get("eta_fast", 0.0)
    return simulate_fast_slow(
        float(logit(base)),
        (1,),
        int(np.ceil(duration / rate)),
        eta_slow=rate,
        group=GROUP,
        groups=64,
        advantage=advantage,  # type: ignore[arg-type]
        replicates=16,
        rng=np.random.default_rng(31),
        **fast,
    )


def measured_time(channel: Channel, base: float) -> tuple[float, float]:
    """Mean time, and its standard error, until the success rate first reaches `MATCHED`."""
    s0, end = float(logit(base)), float(logit(MATCHED))
    expected = float(time_to_reward(s0, end, 1.0, **channel.fast))
    run = simulated(channel, base, 1.3 * expected + 10.0 * channel.lr)
    reached = run.reward >= MATCHED
    if not reached.any(axis=0).all():
        raise RuntimeError(f"{channel.label} did not reach {MATCHED:g} from {base:g}")
    # half a step early on average: the level is passed within a step
    times = channel.lr * (reached.argmax(axis=0) - 0.5)
    return float(times.mean()), float(times.std(ddof=1) / np.sqrt(times.size))


def measured_speed_ups(channels: Sequence[Channel], bases: ArrayLike) -> list[Points]:
    """RL's time over that of each channel, from simulated runs; ``time`` holds the base success rates."""
    p0 = np.asarray(bases, dtype=np.float64)
    alone, *others = (np.array([measured_time(channel, float(p)) for p in p0]).T for channel in (RL, *channels))
    return [
        Points(p0, alone[0] / own[0], alone[0] / own[0] * np.hypot(own[1] / own[0], alone[1] / alone[0]))
        for own in others
    ]


# Panel e ---------------------------------------------------------------------------------------------------------------


def best_slow_log_odds(base_log_odds: float, leash: float, capacity: float) -> float:
    """Maximiser of reward with context less ``leash`` times the no-context KL, found by search on the objective."""
    found = minimize_scalar(
        lambda s: leash * float(no_context_kl(s, base_log_odds)) - float(expit(s + capacity)),
        bounds=(base_log_odds, base_log_odds + 20.0),  # farther out the objective is flat to rounding
        method="bounded",
        options={"xatol": 1e-8},
    )
    return float(found.x)


# the figure ------------------------------------------------------------------------------------------------------------


def _frontiers(ax: Axes) -> None:
    s0 = float(logit(BASE))
    x = np.linspace(s0, 5.0, 120)
    for share, series in SHARES.items():
        ax.plot(no_context_kl(s0 + share * (x - s0), s0), expit(x), color=series.color)
        points = frontier(share)
        ax.errorbar(
            points.kl,
            points.reward,
            points.reward_error,
            points.kl_error,
            fmt=series.marker,
            color=series.color,
            ms=4,
            elinewidth=0.9,
            zorder=4,
        )
    ax.axhline(MATCHED, color=GREY, lw=0.8)
    ax.axvline(-np.log(BASE), color=GREY, ls=BOUND, lw=1.0)
    ax.text(2.27, 0.5, r"$\log\,1/p_0$", color=GREY, ha="right")
    names = [
        key("-", s.marker, s.color, True, "RL alone" if share == 1.0 else rf"$\vartheta={share:g}$")
        for share, s in SHARES.items()
    ]
    ax.legend(handles=names, loc="lower right")
    ax.set(xlim=(-0.04, 2.4), ylim=(0.0, 1.0))
    panel(ax, "a", "less KL at the same reward", "KL(no context‖base) (nats)", "success rate")


P0_TICKS, END_TICKS = (0.01, 0.03, 0.1, 0.3), (0.1, 0.3, 0.5, 0.8, 0.95, 0.99)


def _reductions(ax: Axes, drawing: Drawing) -> None:
    base, end = np.meshgrid(np.linspace(logit(0.01), logit(0.5), 70), np.linspace(logit(0.05), logit(0.99), 70))
    above = end > base + 0.05
    reduction = np.full(base.shape, np.nan)
    reduction[above] = kl_reduction(base[above], end[above], 0.5)
    mesh = ax.pcolormesh(base, end, reduction, cmap="Greys", vmin=0.4, vmax=1.0, shading="gouraud", rasterized=True)
    share = np.full(base.shape, np.nan)
    share[above] = largest_slow_share(base[above], end[above], 0.7)
    thin = ax.contour(base, end, share, levels=(0.4, 0.45, 0.55, 0.6, 0.65), colors=BLUE.color, linewidths=0.8)
    bold = ax.contour(base, end, share, levels=(0.5,), colors=VERMILLION.color, linewidths=2.0)
    ax.clabel(thin, fmt="%g", fontsize=6.5)
    ax.clabel(bold, fmt="%g", fontsize=7)
    bar = drawing.colorbar(mesh, ax=ax, pad=0.02, aspect=25)
    bar.set_label(r"KL saved at $\vartheta=\frac{1}{2}$", fontsize=7.5, labelpad=2)
    ax.set_xticks(logit(P0_TICKS), [f"{p:g}" for p in P0_TICKS])
    ax.set_yticks(logit(END_TICKS), [f"{p:g}" for p in END_TICKS])
    ax.grid(False)
    ax.text(logit(0.46), logit(0.08), "$p^*<p_0$", ha="right", color=GREY)
    panel(ax, "b", r"largest $\vartheta$ that saves 70 %", "base success rate $p_0$", "matched reward $p^*$")


def _speed_ups(ax: Axes) -> None:
    end = float(logit(MATCHED))
    p0 = np.geomspace(1e-4, 0.6, 120)
    for channel in (GRADIENT, FULL, SEARCH, SEARCH_MORE):
        ax.loglog(p0, speed_up(logit(p0), end, 1.0, **channel.fast), color=channel.series.color)
    drawn = (GRADIENT, FULL, SEARCH)
    for channel, points in zip(drawn, measured_speed_ups(drawn, (0.005, 0.02, 0.1, 0.4)), strict=True):
        draw_points(ax, points, channel.series)
    for level, series in ((3.0, BLUE), (np.exp(2.0), VERMILLION), (np.exp(4.0), ORANGE)):
        ax.axhline(level, color=series.color, ls=BOUND if series is BLUE else LAW, lw=1.0)
    names = [key("-", c.series.marker, c.series.color, True, c.label) for c in (SEARCH_MORE, SEARCH, GRADIENT, FULL)]
    ax.legend(handles=names, loc="upper right")
    ax.set(xlim=(1e-4, 0.6), ylim=(0.9, 3e3))
    panel(ax, "c", "hard prompts: search", "base success rate $p_0$", "speed-up over RL alone")


def _horizons(ax: Axes) -> None:
    s0 = float(logit(BASE))
    x = np.linspace(s0, 4.5, 200)
    for channel in (RL, GRADIENT, SEARCH):
        ax.plot(time_to_reward(s0, x, 1.0, **channel.fast), expit(x), color=channel.series.color)
        run = simulated(channel, BASE, 30.0)
        rows = np.rint(np.array([1.0, 3.0, 6.0, 10.0, 15.0, 20.0, 25.0]) / channel.lr).astype(int)
        _reward_points(ax, run, rows, channel)
    normalised = Channel("RL, group std", {}, 0.1, ORANGE)
    ax.plot(group_escape_time(s0, x[1:], 1.0, GROUP), expit(x[1:]), color=ORANGE.color)
    run = simulated(normalised, BASE, 15.0, "normalised")
    _reward_points(ax, run, np.array([10, 30, 50, 80, 120]), normalised)
    names = [key("-", c.series.marker, c.series.color, True, c.label) for c in (RL, normalised, GRADIENT, SEARCH)]
    ax.legend(handles=names, loc="lower right", handlelength=1.6, borderaxespad=0.0)
    ax.set(xlim=(0.0, 32.0), ylim=(0.0, 1.0))
    panel(ax, "d", "ahead of RL at every horizon", r"time $t$ (1/slow rate)", "success rate")


def _reward_points(ax: Axes, run: FastSlowRun, rows: Array, channel: Channel) -> None:
    reward = run.reward[rows]
    error = reward.std(axis=1, ddof=1) / np.sqrt(reward.shape[1])
    draw_points(ax, Points(channel.lr * rows, reward.mean(axis=1), error), channel.series)


LEASH = 0.25


def _leashed(ax: Axes) -> None:
    base = np.linspace(-9.0, 1.0, 200)
    shown = np.linspace(-8.5, 0.5, 6)
    for capacity, series in ((0.0, BLACK), (2.0, BLUE), (4.0, ORANGE)):
        ax.plot(base, leashed_optimum(base, LEASH, capacity) - base, color=series.color, label=rf"$\Phi={capacity:g}$")
        found = [best_slow_log_odds(s, LEASH, capacity) - s for s in shown]
        draw_exact(ax, shown, found, series)
        if capacity:
            ax.plot(-0.5 * capacity - 1.0 / LEASH, 1.0 / LEASH, "|", color=series.color, ms=12, mew=1.5)
    ax.legend(loc="upper right")
    ax.set_xticks(logit((0.001, 0.01, 0.1, 0.5)), ["0.001", "0.01", "0.1", "0.5"])
    ax.set(xlim=(-9.0, 1.0), ylim=(0.0, 12.0))
    panel(ax, "e", rf"KL leash, $\lambda={LEASH:g}$", "base success rate $p_0$", "slow drift (nats)")


def _skills(ax: Axes) -> None:
    s = np.linspace(-6.0, 4.0, 200)
    for capacity, series in ((1.0, BLACK), (2.0, BLUE), (4.0, ORANGE)):
        ax.semilogy(s, skill_per_drift_ratio(s, capacity), color=series.color, label=rf"$\Phi={capacity:g}$")
        ax.axhline(np.exp(capacity), color=series.color, ls=BOUND, lw=1.0)
    ax.legend(loc=(0.01, 0.56))
    ax.set_xticks(logit((0.01, 0.1, 0.5, 0.9)), ["0.01", "0.1", "0.5", "0.9"])
    ax.set(xlim=(-6.0, 4.0), ylim=(0.8, 90.0))
    panel(ax, "f", "skill per slow drift", "no-context success rate", "with context / without")


@styled
def fast_slow() -> Drawing:
    """KL at matched reward and speed-ups of a two-channel learner; finite horizons, leashes and skill below."""
    figure = matplotlib.figure.Figure(figsize=(7.2, 7.4))
    axes = figure.subplots(3, 3).ravel()
    _frontiers(axes[0])
    _reductions(axes[1], figure)
    _speed_ups(axes[2])
    _horizons(axes[3])
    _leashed(axes[4])
    _skills(axes[5])
    draw_escapes(axes[6])
    draw_contexts(axes[7])
    draw_waits(axes[8])
    handles = [
        key("-", label="exact [T]"),
        key(BOUND, label="proved bound [T]"),
        key(LAW, label="leading order [A]"),
        key(marker="o", filled=True, label="simulated, groups of rollouts"),
        key(marker="o", label="direct maximisation"),
    ]
    legend_below(figure, handles, 3)
    return figure


FAST_SLOW = Figure(
    "fast-slow",
    "What a fast context buys, and what it does not",
    "Two channels for one decision: slow weights and a task-specific context. (a) Success rate against KL(no context‖base) from base success "
    "rate 0.1, for slow shares ϑ of the gain. (b) KL saved at matched reward with ϑ = 1/2 (grey); contours: the largest slow share that "
    "saves 70 %. (c) Speed-up to success rate 0.8. A context that learns by gradient (η_f = 2 η_s; with unlimited capacity or Φ = 2) gains at most "
    "1 + η_f/η_s; one that searches (10 η_s nats a unit time, capacity Φ) divides the plateau of hard prompts by exp(Φ) [A]. (d) Success rate against time: ahead of "
    "RL at every horizon; RL with advantages divided by the group's standard deviation for comparison. (e) Slow drift at the optimum "
    "of reward less λ KL: a context lowers it, except on very hard prompts (ticks: s_0 + 1/λ = −Φ/2). (f) Skill gained per unit of slow drift, "
    "if exploration comes from the no-context entropy; dashed: exp(Φ). (g) Time to success rate 1/2 with advantages divided by the standard deviation of a "
    "group of G: the 1/p0 plateau shrinks by √(G − 1) [A], within bounds [T]. (h) Weight of a hard context's gradient, and of its companion's, "
    "in groups that share one baseline: never negative, between the bounds [T]. (i) Spread of the time to escape from 0.001 over seeds, one group "
    "a batch, set by the jump of one lone success [A]. Filled markers: simulated, groups of rollouts, with standard errors.",
    (
        "fast-slow-allocation",
        "fast-slow-kl",
        "fast-slow-quadratic-law",
        "fast-slow-reduction",
        "fast-slow-time",
        "fast-slow-time-normalised",
        "fast-slow-speed-up",
        "fast-slow-search-time",
        "fast-slow-search-bound",
        "fast-slow-search-plateau",
        "fast-slow-finite-horizon",
        "fast-slow-leash",
        "fast-slow-leash-optimum",
        "fast-slow-skill",
        "group-normalised",
        "group-normalised-plain",
        "group-normalised-dead",
        "group-normalised-bounds",
        "group-normalised-epsilon",
        "group-normalised-escape",
        "group-normalised-plateau",
        "group-normalised-root-plateau",
        "group-normalised-contexts",
        "group-normalised-contexts-plain",
        "group-normalised-contexts-weight",
        "group-normalised-contexts-random",
        "group-normalised-neutral",
        "group-normalised-cap",
        "group-normalised-wait",
        "group-normalised-wait-escape",
        "group-normalised-wait-bound",
        "group-normalised-wait-spread",
    ),
    fast_slow,
    manuscript=True,
)
