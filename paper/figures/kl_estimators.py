"""Figure 15: estimators of KL as values, as leashes in the loss and inside the reward.

Functions that compute what is drawn (the tests compare them with the theory), then the one that draws.
"""

from __future__ import annotations

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.special import expit, logit

from fstsim.paper.figures.drawing import (
    BLACK,
    BLUE,
    BOUND,
    GREY,
    ORANGE,
    VERMILLION,
    Drawing,
    Points,
    draw_exact,
    draw_points,
    key,
    legend_below,
    panel,
    styled,
)
from fstsim.paper.figures.figure import Figure
from fstsim.theory.fast_slow import no_context_kl
from fstsim.theory.kl_estimators import (
    k3_loss_bounds,
    k3_loss_log_odds,
    k3_reward_drift,
    k3_reward_drift_bounds,
    kl_estimators,
    mode_estimates,
    tilt_mass,
)

Array = NDArray[np.float64]

NAMES = ("k1", "k2", "k3")
SERIES = dict(zip(NAMES, (BLACK, ORANGE, BLUE), strict=True))
QUIETER = 0.6282  # nats below which k3 varies less than k1: e^(2K) - 1 = 4K
RARE = 0.01  # base mass of the right answer in (b)
BASE = 0.2  # base mass in (c)


# (a): values -------------------------------------------------------------------------------------------------------------


def relative_spread(kl: Array) -> Array:
    """Standard deviation of one sample over the KL, ``(3, n)``, of a mode that has drifted by ``sqrt(2 kl)``."""
    ones = np.ones((kl.size, 1))
    return np.sqrt(mode_estimates(ones, ones, np.sqrt(2.0 * kl)[:, None]).variance) / kl


def sampled_spread(name: str, kl: Array, samples: int = 400_000) -> Points:
    """The same from samples, with standard errors from 20 parts; the KL in ``time``."""
    rng = np.random.default_rng(15)
    found = []
    for k in kl:
        u = rng.normal(-k, np.sqrt(2.0 * k), (20, samples // 20))
        found.append(kl_estimators(u)[NAMES.index(name)].std(axis=1) / k)
    parts = np.array(found)
    return Points(kl, parts.mean(axis=1), parts.std(axis=1, ddof=1) / np.sqrt(20.0))


# (b): where leashes in the loss rest -------------------------------------------------------------------------------------


def ascended(name: str, tau: float, base: float = RARE, rate: float = 0.5) -> float:
    """Mass of the right answer where ascent ends: expected gradient of the reward less the estimator, samples held."""
    x0 = x = float(logit(base))
    for _ in range(20_000):
        q = expit(x)
        u = np.array([np.log(base / q), np.log((1.0 - base) / (1.0 - q))])
        score = np.array([1.0 - q, -q])
        pull = {"k1": score, "k2": -u * score, "k3": -np.expm1(u) * score}[name]
        slope = q * (1.0 - q) - tau * float(np.array([q, 1.0 - q]) @ pull)
        # over the curvature, so that rare answers move too; nothing is held further than 40 log-odds off
        x = float(np.clip(x + rate * slope / (q * (1.0 - q) * max(1.0, tau)), x0 - 40.0, x0 + 40.0))
    return float(expit(x))


# The figure --------------------------------------------------------------------------------------------------------------


def _draw_values(ax: Axes) -> None:
    kl = np.geomspace(0.01, 5.0, 100)
    for name, row in zip(NAMES, relative_spread(kl), strict=True):
        ax.loglog(kl, row, color=SERIES[name].color)
        draw_points(ax, sampled_spread(name, np.array([0.02, 0.1, 0.5, 1.2])), SERIES[name])
    ax.axvline(QUIETER, color=GREY, lw=0.8)
    ax.text(QUIETER * 0.9, 0.55, "k3\nquieter", color=GREY, ha="right", va="bottom")
    ax.text(QUIETER * 1.1, 80.0, "k1\nquieter", color=GREY, ha="left", va="top")
    ax.set(xlim=(0.01, 5.0), ylim=(0.5, 100.0))
    handles = [key("-", s.marker, s.color, True, name) for name, s in SERIES.items()]
    ax.legend(handles=handles, loc="upper left", handlelength=1.8)


def _draw_rests(ax: Axes) -> None:
    strength = np.geomspace(0.03, 10.0, 200)
    ax.semilogx(strength, tilt_mass(RARE, strength), color=ORANGE.color)
    ax.semilogx(strength, expit(k3_loss_log_odds(logit(RARE), 1.0 / strength)), color=BLUE.color)
    for bound in k3_loss_bounds(RARE, strength):
        ax.semilogx(strength, bound, color=BLUE.color, ls=BOUND, lw=1.2)
    ax.axhline(1.0, color=BLACK.color, lw=1.2)
    ax.axhline(RARE, color=GREY, lw=0.8)
    few = np.array([0.05, 0.12, 0.3, 0.7, 2.0])
    for name, series in SERIES.items():
        draw_exact(ax, few, [ascended(name, tau) for tau in few], series)
    ax.set(xlim=(0.03, 10.0), ylim=(-0.02, 1.05))
    ax.text(8.5, 0.93, "k1: no leash", ha="right", va="top")
    ax.text(0.034, 0.03, f"base {RARE:g}", color=GREY)


def _draw_reward(ax: Axes) -> None:
    x0, x = float(logit(BASE)), np.linspace(-5.0, 5.0, 401)
    q = expit(x)
    k1 = -q * (1.0 - q) * (x - x0)
    ax.plot(q, k1, color=BLACK.color)
    ax.plot(q, k3_reward_drift(x0, x), color=BLUE.color)
    same_side = x < 0.0
    for bound in k3_reward_drift_bounds(x0, x[same_side]):
        ax.plot(q[same_side], -bound, color=BLUE.color, ls=BOUND, lw=1.2)
    few = logit(np.array([0.03, 0.1, 0.35, 0.6, 0.8, 0.93]))
    draw_exact(ax, expit(few), _enumerated_reward_drift(x0, few), BLUE)
    ax.axhline(0.0, color=GREY, lw=0.8)
    ax.axvline(BASE, color=VERMILLION.color, lw=0.8)
    ax.text(BASE + 0.02, 0.17, "base", color=VERMILLION.color)
    ax.text(0.62, -0.4, "k1")
    ax.text(0.55, 0.02, "k3", color=BLUE.color)
    ax.set(xlim=(0.0, 1.0), ylim=(-0.5, 0.25))


def _enumerated_reward_drift(x0: float, x: Array) -> Array:
    """Minus ``E_q[k3 d log q / dx]``, both outcomes in turn."""
    q, p = expit(x), expit(x0)
    good = kl_estimators(np.log(p) - np.log(q))[2]
    bad = kl_estimators(np.log1p(-p) - np.log1p(-q))[2]
    return -q * (1.0 - q) * (good - bad)


def reward_divergence(x: Array) -> Array:
    """``KL(p || q) - KL(q || p)`` of the decision in (c): what k3 inside the reward ascends."""
    x0 = float(logit(BASE))
    return no_context_kl(x0, x) - no_context_kl(x, x0)


@styled
def kl_estimators_figure() -> Drawing:
    """k1, k2 and k3: spread as values, rests as losses, and the pull of k3 inside the reward."""
    figure = matplotlib.figure.Figure(figsize=(7.2, 3.1))
    values, rests, reward = figure.subplots(1, 3)
    _draw_values(values)
    _draw_rests(rests)
    _draw_reward(reward)
    panel(values, "a", "as values", r"KL$(q\Vert p)$ of a drifted mode, nats", "sd of a sample / KL")
    panel(rests, "b", "as losses: where they rest", r"strength $\tau$", "mass of the right answer")
    panel(reward, "c", "inside the reward", r"mass $q$ of one decision", r"$\dot x$ from the penalty alone")
    kinds = [
        key("-", label="exact [T]"),
        key(BOUND, label="bound [T]"),
        key(marker="o", label="every outcome enumerated; in b, ascent"),
        key(marker="o", filled=True, label="sampled"),
    ]
    legend_below(figure, kinds, 4)
    return figure


KL_ESTIMATORS = Figure(
    "kl-estimators",
    "Estimators of KL: what is right for a value is not right for a gradient",
    "k1 = -log(p/q), k2 = log(p/q)²/2 and k3 = p/q - 1 - log(p/q) at samples of q. (a) Standard deviation of one sample over KL(q‖p), for a mode that has "
    "drifted: k3 varies less than k1 up to 0.628 nats and exponentially more beyond [T]; k2 is biased by half the square of the KL. (b) Differentiated as a loss along samples that are held, one "
    "decision whose right answer has base mass 0.01: k2 rests at the exponential tilt, as the exact KL does, k3 (the term of GRPO) far above it at strengths at which the tilt "
    "leaves the answer rare, and below certainty where the tilt is certain (bounds dashed); k1 does not hold at all. (c) Inside the reward, "
    "one decision of base mass 0.2, no other reward: k1 (black) pulls to the base from both sides; k3 (blue) pulls to the nearer sure decision from both sides, away from the base if the policy lies "
    "below it. Filled markers: 400,000 samples with standard errors.",
    (
        "kl-estimators-bias",
        "kl-estimators-variance",
        "kl-estimators-modes",
        "kl-estimators-loss",
        "kl-estimators-reward",
        "kl-estimators-answer",
        "kl-estimators-reward-run",
    ),
    kl_estimators_figure,
)
