"""Third row of figure 13: what dividing by the standard deviation of a group does to a success probability.

Functions that compute what is drawn (the tests compare them with the theory), then one for each panel.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray
from scipy.special import logit

from fstsim.fast_slow import Advantage, ModeTask, SlowPolicyGradient, group_update
from fstsim.paper.figures.drawing import (
    BLACK,
    BLUE,
    BOUND,
    GREY,
    LAW,
    ORANGE,
    VERMILLION,
    Points,
    Series,
    draw_points,
    key,
    panel,
)
from fstsim.theory.clocks import learning_clock_between
from fstsim.theory.group_batches import escape_wait, lone_success_jump, mean_flow_wait, rare_escape_wait
from fstsim.theory.group_contexts import advantage_gap_range, shared_group_weights
from fstsim.theory.group_normalised import group_escape_bounds, group_escape_time

Array = NDArray[np.float64]

SIZES = {4: BLUE, 16: VERMILLION, 64: ORANGE}
GROUP = 8  # in panels h and i
HARD = 0.01  # success rate of the hard context
RARE = 1e-3  # base success rate of panel i: G p0 is small


def escapes(
    base: float, group: int, lr: float, replicates: int, groups: int = 1, advantage: Advantage = "normalised"
) -> Array:
    """Updates ``(replicates,)`` until the success rate first reaches 1/2, by drawing the rollouts of every group."""
    rng = np.random.default_rng(int(1e3 * lr) + group)
    learner = SlowPolicyGradient(lr, group, groups, advantage)
    weights, empty, task = np.full(replicates, logit(base)), np.zeros((1, replicates)), ModeTask()
    out = np.zeros(replicates)
    step = 0
    while not out.all():
        step += 1
        if step > 100_000:
            raise RuntimeError(f"no escape from success rate {base:g} in {step - 1:,} updates")
        weights, _ = learner.step(weights, empty, task, rng)
        out[(out == 0.0) & (weights >= 0.0)] = step
        weights = np.minimum(weights, 1.0)  # the others are waited for
    return out


def escape_points(group: int, bases: ArrayLike, lr: float = 0.25, groups: int = 32) -> Points:
    """Mean escape time (1/rate) over runs with many groups a batch; ``time`` holds the base success rates."""
    p0 = np.asarray(bases, dtype=np.float64)
    times = np.array([lr * (escapes(float(p), group, lr, 16, groups) - 0.5) for p in p0])
    return Points(p0, times.mean(axis=1), times.std(axis=1, ddof=1) / 4.0)


def sampled_weight(companion: float, hard: bool, groups: int = 40_000) -> tuple[float, float]:
    """Weight of the hard context (or of its companion) in mixed groups, measured, with its standard error."""
    p = np.array([[HARD], [companion]])
    rng = np.random.default_rng(8)
    successes = rng.binomial(GROUP // 2, p, size=(groups, *p.shape))
    own = group_update(successes, GROUP, p, "normalised")[:, 0 if hard else 1, 0]
    # half of the rollouts are its own
    scale = 2.0 / float(p[0 if hard else 1, 0] * (1.0 - p[0 if hard else 1, 0]))
    return scale * float(own.mean()), scale * float(own.std(ddof=1)) / np.sqrt(groups)


def mixed_weights(companions: Array) -> Array:
    """Exact weights ``(n, 2)`` of the hard context and of its companion, half of the group each."""
    half = GROUP // 2
    rollouts = np.concatenate(
        [np.full((companions.size, half), HARD), np.repeat(companions[:, None], half, axis=1)], axis=1
    )
    return shared_group_weights(rollouts)[:, [0, -1]]


def wait_spread(jump: float, replicates: int = 400) -> tuple[float, float]:
    """Coefficient of variation of the escape time over seeds, one group a batch, with its standard error."""
    lr = jump / float(lone_success_jump(1.0, GROUP))
    times = escapes(RARE, GROUP, lr, replicates)
    cv = float(times.std(ddof=1) / times.mean())
    z = (times - times.mean()) / times.mean()
    # delta method for the ratio of standard deviation and mean
    influence = (z**2 - cv**2) / (2.0 * cv) - cv * z
    return cv, float(influence.std(ddof=1) / np.sqrt(replicates))


# the panels --------------------------------------------------------------------------------------------------------------


def draw_escapes(ax: Axes) -> None:
    """Escape time against base success rate: 1/p0, and its square root from G p0 = 1 on."""
    p0 = np.geomspace(1e-4, 0.4, 60)
    ax.loglog(p0, learning_clock_between(logit(p0), 0.0), color="black")
    for size, series in SIZES.items():
        ax.loglog(p0, group_escape_time(logit(p0), 0.0, 1.0, size), color=series.color)
        for bound in group_escape_bounds(logit(p0), 0.0, 1.0, size):
            ax.loglog(p0, bound, color=series.color, ls=BOUND, lw=0.9)
        rare = p0[p0 < 0.3 / size]
        ax.loglog(rare, mean_flow_wait(rare, 1.0, size), color=series.color, ls=LAW)
        draw_points(ax, escape_points(size, (0.005, 0.03, 0.15)), series)
    ax.loglog(p0, learning_clock_between(logit(p0), 0.0, "normalised"), color=GREY, lw=0.9)
    ax.text(1.2e-4, 30.0, r"$G\to\infty$", color=GREY, fontsize=7)
    names = [key("-", color="black", label="no std")]
    names += [key("-", s.marker, s.color, True, f"$G={size}$") for size, s in SIZES.items()]
    ax.legend(handles=names, loc="upper right")
    ax.set(xlim=(1e-4, 0.4), ylim=(0.5, 3e4))
    panel(ax, "g", "group std: the plateau", "base success rate $p_0$", "time to 1/2 (1/rate)")


def draw_contexts(ax: Axes) -> None:
    """Weight of a hard context and of its companion in groups that share a baseline."""
    companion = np.linspace(0.002, 0.998, 80)
    weights = mixed_weights(companion)
    for column, name, series in ((0, rf"hard one, $p={HARD:g}$", BLACK), (1, "companion", BLUE)):
        ax.plot(companion, weights[:, column], color=series.color)
        sampled = np.array([(c, *sampled_weight(c, column == 0)) for c in (0.05, 0.25, 0.5, 0.75, 0.95)])
        draw_points(ax, Points(*sampled.T), series)
        ax.plot([], [], series.marker, ls="-", color=series.color, label=name)
    for level in advantage_gap_range(GROUP):
        ax.axhline(float(level), color=GREY, ls=BOUND, lw=1.0)
    ax.axhline(1.0 - 1.0 / GROUP, color=GREY, lw=1.0)
    ax.text(0.98, 0.95, "no std", color=GREY, ha="right", fontsize=7)
    ax.legend(loc="center right", bbox_to_anchor=(1.0, 0.38))
    ax.set(xlim=(0.0, 1.0), ylim=(0.6, 2.85))
    panel(
        ax, "h", f"two contexts in a group, $G={GROUP}$", "success rate of the companion", r"weight $m$ of $\nabla p$"
    )


def draw_waits(ax: Axes) -> None:
    """Spread of the escape time over seeds against the jump of a lone success."""
    jump = np.geomspace(0.05, 6.0, 80)
    ax.semilogx(jump, rare_escape_wait(RARE, jump / lone_success_jump(1.0, GROUP), GROUP)[1], color="black", ls=LAW)
    pairs = np.geomspace(0.1, 6.0, 24)
    mean, variance = escape_wait(logit(RARE), 0.0, pairs / lone_success_jump(1.0, 2), 2)
    ax.semilogx(pairs, np.sqrt(variance) / mean, color=ORANGE.color, lw=1.2)
    measured = np.array([(j, *wait_spread(j)) for j in (0.3, 0.7, 1.5, 4.0)])
    draw_points(ax, Points(*measured.T), Series(BLACK.color, "o"))
    names = [
        key(LAW, "o", "black", True, rf"$G={GROUP}$, $\sqrt{{\tanh(j/2)}}$"),
        key("-", color=ORANGE.color, label="$G=2$, exact"),
    ]
    ax.legend(handles=names, loc="lower right")
    ax.set(xlim=(0.05, 6.0), ylim=(0.0, 1.1))
    ax.set_xticks((0.1, 0.3, 1.0, 3.0), ("0.1", "0.3", "1", "3"))
    ax.minorticks_off()
    panel(ax, "i", "spread over seeds", "jump $j$ of one lone success", "spread of the wait, s.d. / mean")
