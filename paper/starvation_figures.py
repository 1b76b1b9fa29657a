"""Figure 10: reverse KL from a rare old mode: what starvation costs, and when replayed samples help.

Functions that compute what is drawn (the tests compare them with the theory), then the one that draws.
"""

from __future__ import annotations

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from fstsim import SGD, ForwardKL, GradientDescent, ReverseKL, TwoModeProblem, TwoModeState, simulate
from fstsim.objectives import Objective
from fstsim.optimizers import Geometry
from fstsim.paper.drawing import (
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
    draw_points,
    key,
    legend_below,
    log_rows,
    panel,
    styled,
)
from fstsim.replay_objectives import ReverseKLReplay
from fstsim.theory.forward_kl import mass_forgetting_separated
from fstsim.theory.noise import gradient_variance, sampled_gradients, separated_gradient_variance
from fstsim.theory.reverse_kl import reverse_kl_weight_time
from fstsim.theory.starvation import (
    replay_gradient_variance,
    replay_harm_threshold,
    zero_signal_probability,
)

Array = NDArray[np.float64]

ALPHA = 0.5
LEVEL = 0.1
DELTA = 8.0
RUNS = 32
SHARE = 0.2
MASSES = (1e-3, 3e-3, 1e-2, 3e-2)
BATCHES = {4: BLACK, 32: BLUE, 256: ORANGE}


def objective_of(problem: TwoModeProblem, share: float) -> Objective:
    return ReverseKLReplay(problem, share) if share else ReverseKL(problem)


def recovery(geometry: Geometry, lr: float, batch: int, share: float, beta0: float, runs: int = RUNS) -> Array:
    """Steps of SGD on the weight until the old mass first reaches `LEVEL`."""
    problem = TwoModeProblem.separated(DELTA, ALPHA)
    rng = np.random.default_rng(batch)
    start = problem.initial(beta0)
    state = TwoModeState(np.full(runs, start.log_odds), start.mean_old, start.mean_new)
    reached = np.full(runs, np.nan)
    done = 0
    while np.isnan(reached).any() and done < 20000:
        run = simulate(problem, objective_of(problem, share), state, SGD(lr, batch, geometry, "weight"), 50, rng)
        here = run.old_mass >= LEVEL
        first = np.where(here.any(axis=0), done + here.argmax(axis=0), np.nan)
        reached = np.fmin(reached, first)
        state = run.state()
        done += 50
    return reached


@styled
def starvation() -> Drawing:
    figure = matplotlib.figure.Figure(figsize=(7.2, 5.6))
    axes = figure.subplots(2, 3)
    for ax, geometry, lr in ((axes[0, 0], "logit", 1.0), (axes[0, 1], "em", 0.1)):
        for batch, series in BATCHES.items():
            for share in (0.0, SHARE):
                found = [recovery(geometry, lr, batch, share, b, 64 if batch < 100 else 16) for b in MASSES]
                ax.errorbar(MASSES, [f.mean() for f in found], [f.std(ddof=1) / np.sqrt(f.size) for f in found], marker=series.marker, color=series.color, mfc=series.color if not share else "white", ls="none")
                print(geometry, batch, share, [(round(f.mean(), 1), round(f.std(), 1)) for f in found])
            m = np.geomspace(1e-3, 5e-2, 40)
            ax.loglog(m, 1 / (1 - zero_signal_probability(m, batch)), color=series.color, ls=BOUND)
            ax.loglog(m, 1 / (1 - zero_signal_probability(m, batch, SHARE)), color=series.color, ls=LAW)
        if geometry == "logit":
            ax.loglog(m, reverse_kl_weight_time(logit(m), logit(LEVEL), logit(ALPHA)), color=GREY)
    return figure
