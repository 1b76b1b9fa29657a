"""Figure 14: what drift costs when the next task conflicts - relearning time, sequences of tasks, many behaviours.

Functions that compute what is drawn (the tests compare them with the theory), then the one that draws.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray
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
    draw_points,
    key,
    legend_below,
    panel,
    styled,
)
from fstsim.paper.figures.figure import Figure
from fstsim.theory.clocks import learning_clock
from fstsim.theory.fast_slow import no_context_kl, time_to_reward
from fstsim.theory.fast_slow_run import FastSlowRun, simulate_fast_slow
from fstsim.theory.group_normalised import group_escape_time
from fstsim.theory.plasticity import (
    Direction,
    relearning_time,
    relearning_time_from_kl,
    softmax_relearning_bounds,
    stage_success,
)
from fstsim.theory.statements.plasticity import EXPONENTIAL, FORWARD_LAW, POLE
from fstsim.theory.statements.plasticity_sequence import SEARCH_STAGE
from fstsim.theory.statements.plasticity_softmax import SOFTMAX

Array = NDArray[np.float64]

TARGET = 2.0  # log-odds at which the next task counts as learned, in panels a to c
BASES = {0.3: BLACK, 0.5: BLUE, 0.7: ORANGE}  # base mass of the behaviour that is trained first
DRIFTS = (1.5, 2.5, 3.5, 4.5, 5.5)  # its log-odds after that, where runs are made
GROUP, GROUPS, REPLICATES = 8, 64, 16

# Relearning ------------------------------------------------------------------------------------------------------------

SEARCH: dict[str, Any] = {"eta_fast": 5.0, "capacity": 4.0, "fast": "search"}  # per unit of slow rate


@functools.cache
def relearning_runs(search: bool = False, lr: float = 0.25) -> Points:
    """Mean time, with standard error, that groups of rollouts need from each of `DRIFTS` to `TARGET`."""
    fast = SEARCH if search else {}
    rate = 0.05 if search else lr
    means, errors = [], []
    for drift in DRIFTS:
        expected = float(time_to_reward(-drift, TARGET, 1.0, **fast))
        channel = {**fast, "eta_fast": rate * fast.get("eta_fast", 0.0)}
        run = simulate_fast_slow(
            -drift,
            (1,),
            int(1.3 * expected / rate) + 10,
            eta_slow=rate,
            group=GROUP,
            groups=GROUPS,
            replicates=REPLICATES,
            rng=np.random.default_rng(14),
            **channel,
        )
        reached = run.reward >= expit(TARGET)
        if not reached.any(axis=0).all():
            raise RuntimeError(f"the runs from log-odds {-drift:g} did not get to {TARGET:g}")
        times = rate * (reached.argmax(axis=0) - 0.5)  # within a step
        means.append(times.mean())
        errors.append(times.std(ddof=1) / np.sqrt(times.size))
    return Points(np.array(DRIFTS), np.array(means), np.array(errors))


def pole_bounds(drift: Array, base: Array) -> tuple[Array, Array]:
    """Bounds on the relearning time from the distance of KL(policy || base) to its pole."""
    lower, upper = (np.asarray(edge, dtype=np.float64) for edge in POLE.bound(drift=drift, base=base))
    return _time_from(np.log(np.maximum(lower - 1.0, 1e-12))), _time_from(np.log(upper - 1.0))


def forward_bounds(drift: Array, base: Array) -> tuple[Array, Array]:
    """Bounds on the relearning time from KL(base || policy)."""
    lower, upper = (np.asarray(edge, dtype=np.float64) for edge in FORWARD_LAW.bound(drift=drift, base=base))
    return _time_from(lower), _time_from(upper)


def _time_from(drift: Array) -> Array:
    return relearning_time(-drift, TARGET, 1.0)


# Sequences -------------------------------------------------------------------------------------------------------------

LEVEL = 0.9  # success rate that ends a stage
STAGES = 6


class Learner(NamedTuple):
    """A learner of conflicting tasks: share of the slow channel in the total rate, whether it stops at `LEVEL`."""

    label: str
    slow_share: float
    stops: bool
    series: Series


LEARNERS = (
    Learner("RL, early stop", 1.0, True, BLACK),
    Learner("RL, no stop", 1.0, False, ORANGE),
    Learner(r"fast-slow, $\varrho=\frac{1}{2}$", 0.5, True, BLUE),
)


def sequence(
    learner: Learner, budget: float, stages: int = STAGES, rate: float = 0.08, groups: int = 32
) -> FastSlowRun:
    """Alternating conflicting tasks; ``budget`` in units of ``F(x*)``, the time from log-odds 0 at unit total rate."""
    end = float(logit(LEVEL))
    steps = int(np.ceil(budget * float(learning_clock(end)) / rate))
    return simulate_fast_slow(
        0.0,
        [(-1) ** k for k in range(stages)],
        steps,
        eta_slow=rate * learner.slow_share,
        eta_fast=rate * (1.0 - learner.slow_share),
        capacity=np.inf if learner.slow_share < 1.0 else 0.0,
        group=GROUP,
        groups=groups,
        target_log_odds=end if learner.stops else np.inf,
        replicates=REPLICATES,
        rng=np.random.default_rng(6),
    )


def critical_budget(slow_share: ArrayLike, level: float = LEVEL) -> Array:
    """Least budget, in units of ``F(x*)``, with which every stage succeeds: `stage_success`, bisected."""
    share = np.asarray(slow_share, dtype=np.float64)
    end = float(logit(level))
    low, high = np.ones(share.shape), np.full(share.shape, 2.5)
    for _ in range(40):
        middle = 0.5 * (low + high)
        good = stage_success(end, middle * learning_clock(end), share, 1.0 - share)
        low, high = np.where(good, low, middle), np.where(good, middle, high)
    return high


def succeeds(slow_share: float, budget: float) -> float:
    """Share of the simulated learners that reach `LEVEL` in each of three stages; the second is the hardest."""
    run = sequence(Learner("", slow_share, True, BLACK), budget, stages=3, rate=0.2, groups=64)
    ends = (run.step.size - 1) // 3 * np.arange(1, 4)
    return float((run.reward[ends] >= LEVEL).all(axis=0).mean())


# Many behaviours ---------------------------------------------------------------------------------------------------------


def rest_of(mass: Array, behaviours: int) -> Array:
    """Policies ``(n, K)``: behaviour 0 is the next to be learned, 1 holds ``mass``, the others are equal to 0."""
    other = (1.0 - mass) / (behaviours - 1.0)
    policies = np.repeat(other[:, None], behaviours, axis=1)
    policies[:, 1] = mass
    return policies


# the figure ------------------------------------------------------------------------------------------------------------


def _to_base(left: Axes, right: Axes) -> None:
    runs = relearning_runs()
    for mass, series in BASES.items():
        s_b = float(logit(mass))
        drift = np.linspace(s_b + 0.02, 9.0, 150)
        base = np.full(drift.shape, s_b)
        shown = runs.time > s_b
        cases: tuple[tuple[Axes, Array, tuple[Array, Array], Direction], ...] = (
            (left, no_context_kl(drift, base), pole_bounds(drift, base), "to_base"),
            (right, no_context_kl(base, drift), forward_bounds(drift, base), "from_base"),
        )
        for ax, kl, bounds, direction in cases:
            inside = kl[kl < 0.999 * np.log(1.0 / mass)] if ax is left else kl
            ax.semilogy(inside, relearning_time_from_kl(inside, s_b, TARGET, 1.0, direction), color=series.color)
            for bound in bounds:
                ax.semilogy(kl, bound, color=series.color, ls=BOUND, lw=0.9)
            own = np.full(runs.time.shape, s_b)
            at = no_context_kl(runs.time, own) if ax is left else no_context_kl(own, runs.time)
            draw_points(ax, Points(at[shown], runs.mean[shown], runs.error[shown]), series)
        left.axvline(np.log(1.0 / mass), color=series.color, lw=4, alpha=0.25, zorder=0)
        late = drift[drift > 2.0]
        law, _ = EXPONENTIAL.bound(drift=late, base=np.full(late.shape, s_b))
        right.semilogy(no_context_kl(np.full(late.shape, s_b), late), law, color=series.color, ls=LAW)
    names = [key("-", s.marker, s.color, True, rf"$p_b={mass:g}$") for mass, s in BASES.items()]
    right.legend(handles=names, loc="lower right")
    left.set(xlim=(0.0, 1.3), ylim=(6.0, 5e3))
    right.set(xlim=(0.0, 5.0), ylim=(6.0, 5e3))
    panel(left, "a", "KL to the base: a pole", "KL(policy‖base) (nats)", "relearning time (1/rate)")
    panel(right, "b", "KL from the base: a line", "KL(base‖policy) (nats)", "")


def _drifted(ax: Axes) -> None:
    drift = np.linspace(0.0, 7.0, 100)
    curves = (
        ("RL", BLACK, relearning_time(-drift, TARGET, 1.0)),
        ("RL, group std", GREEN, group_escape_time(-drift, TARGET, 1.0, GROUP)),
        ("gradient context", BLUE, time_to_reward(-drift, TARGET, 1.0, 2.0, np.inf)),
        (r"search, $\Phi=4$", VERMILLION, time_to_reward(-drift, TARGET, 1.0, **SEARCH)),
    )
    for name, series, time in curves:
        ax.semilogy(drift, time, color=series.color, label=name)
    _, upper = SEARCH_STAGE.bound(
        drift=drift,
        target=np.full(drift.shape, TARGET),
        capacity=np.full(drift.shape, SEARCH["capacity"]),
        search_rate=np.full(drift.shape, SEARCH["eta_fast"]),
    )
    ax.semilogy(drift, upper, color=VERMILLION.color, ls=BOUND, lw=1.0)
    draw_points(ax, relearning_runs(), BLACK)
    draw_points(ax, relearning_runs(search=True), VERMILLION)
    ax.legend(loc="upper left")
    ax.set(xlim=(0.0, 7.0), ylim=(0.5, 3e4))
    panel(ax, "c", "what the drift costs", "drift $S$ (log-odds)", "relearning time (1/rate)")


def _stages(ax: Axes) -> None:
    for learner in LEARNERS:
        run = sequence(learner, 1.5)
        steps = (run.step.size - 1) // STAGES
        ax.plot(run.step / steps, run.flow_reward, color=learner.series.color, lw=1.2)
        ends = steps * np.arange(1, STAGES + 1)
        reward = run.reward[ends]
        error = reward.std(axis=1, ddof=1) / np.sqrt(REPLICATES)
        draw_points(ax, Points(ends / steps, reward.mean(axis=1), error), learner.series)
    ax.axhline(LEVEL, color=GREY, lw=0.8)
    names = [key("-", x.series.marker, x.series.color, True, x.label) for x in LEARNERS]
    ax.legend(handles=names, loc="lower left")
    ax.set(xlim=(0.0, STAGES + 0.1), ylim=(-0.55, 1.0), yticks=(0.0, 0.25, 0.5, 0.75, 1.0), xticks=range(STAGES + 1))
    panel(ax, "d", r"six stages, budget $1.5\,F(x^*)$", "stage", "success rate")


def _budgets(ax: Axes) -> None:
    share = np.linspace(0.0, 1.0, 100)
    for level, style in ((0.6, LAW), (LEVEL, "-"), (0.99, "-.")):
        ax.plot(share, critical_budget(share, level), color="black", ls=style, lw=1.5, label=f"$p^*={level:g}$")
    for x in (0.15, 0.4, 0.65, 0.9):
        for factor in (0.93, 1.07):
            budget = factor * float(critical_budget(x))
            good = succeeds(x, budget) > 0.5
            color, marker = (BLUE.color, "o") if good else (VERMILLION.color, "x")
            ax.plot(x, budget, marker, color=color, mfc="white", ms=4.8, mew=1.5, zorder=4)
    ax.legend(loc="upper left")
    ax.text(0.97, 0.95, "some stages fail", ha="right", fontsize=7)
    ax.set(xlim=(0.0, 1.0), ylim=(0.85, 2.3))
    panel(ax, "e", "every stage succeeds above", r"slow share of the rate $\varrho$", r"budget / $F(x^*)$")


def _behaviours(ax: Axes) -> None:
    mass = 1.0 - np.geomspace(0.5, 0.003, 60)
    target = np.full(mass.shape, LEVEL)
    for count, series in ((2, BLACK), (3, BLUE), (5, VERMILLION), (9, ORANGE)):
        policies = rest_of(mass, count)
        for bound in softmax_relearning_bounds(policies, 0, LEVEL):
            ax.loglog(1.0 - mass, bound, color=series.color, ls=BOUND, lw=0.9)
        ax.loglog(1.0 - mass, SOFTMAX.exact(pi=policies, target=target), color=series.color, label=f"$K={count}$")
    ax.legend(loc="upper left")
    ax.set(xlim=(0.5, 0.003), ylim=(3.0, 4e4))
    panel(ax, "f", "$K$ behaviours", "mass left for the others", "relearning time (1/rate)")


@styled
def plasticity() -> Drawing:
    """Relearning time against two divergences and against drift; task sequences, budgets, many behaviours."""
    figure = matplotlib.figure.Figure(figsize=(7.2, 5.2))
    axes = figure.subplots(2, 3).ravel()
    _to_base(axes[0], axes[1])
    _drifted(axes[2])
    _stages(axes[3])
    _budgets(axes[4])
    _behaviours(axes[5])
    handles = [
        key("-", label="exact [T]"),
        key(BOUND, label="proved bound [T]"),
        key(LAW, label="leading order [A]"),
        key(marker="o", filled=True, label="simulated, groups of rollouts"),
        key(marker="o", color=BLUE.color, label="simulated: all stages succeed"),
        key(marker="x", color=VERMILLION.color, label="simulated: they do not"),
    ]
    legend_below(figure, handles, 3)
    return figure


PLASTICITY = Figure(
    "plasticity",
    "Relearning time is a pole in one divergence and an exponential in the other",
    "Time to learn a conflicting task after the first behaviour (base mass p_b) was trained to log-odds S. (a) Against KL(policy‖base): a pole at log 1/p_b (broad "
    "lines), between bounds [T]. (b) The same times against KL(base‖policy): log T ends on a line of slope 1/(1 − p_b) [A], between bounds [T]. (c) Against the drift itself: "
    "RL, RL with group standard deviation (G = 8), a gradient-like context (η_f = 2 η_s), and a search (5 η_s nats a unit time, capacity Φ = 4), which pays a fixed "
    "price for the first Φ nats (dashed: bound [T]). (d) Six alternating conflicting tasks with budget 1.5 F(x*) each, success rate 0.9 wanted: RL "
    "alternates between 0.9 and 0.80, without early stopping every even stage ends at the base; half of the same total rate in a resettable context "
    "succeeds throughout. (e) Least budget with which every stage succeeds, against the slow share of the rate; markers: simulated at 7 % above and below, "
    "for 0.9. (f) K behaviours: time to raise one of the others to 0.9, exact (Runge-Kutta) between its bounds [T]. Filled markers: simulated, groups of rollouts.",
    (
        "plasticity-relearning-time",
        "plasticity-drift",
        "plasticity-pole",
        "plasticity-forward-kl",
        "plasticity-exponent",
        "plasticity-sequence",
        "plasticity-period-two",
        "plasticity-search-stage",
        "plasticity-softmax",
    ),
    plasticity,
    manuscript=True,
)
