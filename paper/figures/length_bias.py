"""The length bias of group-normalised updates: a mean over sequences (GRPO) against a mean over tokens (CISPO).

Functions that compute what is drawn (the tests compare them with the theory), then the one that draws.
"""

from __future__ import annotations

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.special import logit

from fstsim.paper.figures.drawing import (
    BLACK,
    BLUE,
    BOUND,
    GREY,
    LAW,
    ORANGE,
    VERMILLION,
    Drawing,
    Points,
    draw_points,
    key,
    legend_below,
    panel,
    styled,
)
from fstsim.paper.figures.figure import Figure
from fstsim.theory.length_bias import (
    group_advantage_means,
    length_growth,
    sequence_length_bias,
    token_bias_bounds,
    token_length_bias,
)

Array = NDArray[np.float64]

GROUP = 8
SUCCESS = 0.25  # in (a) and (c)
LENGTHS = np.array([20.0, 40.0, 80.0])  # of right and of wrong completions, in equal shares
SHORT, LONG = 20.0, 80.0


# (a) and (b): drawn groups -------------------------------------------------------------------------------------------------


def advantages(rewards: Array) -> Array:
    """Group-normalised, of rewards ``(n, G)``; 0 where a group has no signal."""
    centred = rewards - rewards.mean(axis=1, keepdims=True)
    spread = rewards.std(axis=1, keepdims=True)
    return np.where(spread > 0.0, centred / np.where(spread > 0.0, spread, 1.0), 0.0)


def sampled_weights(right: bool, groups: int = 200_000) -> Points:
    """Mean weight ``A / L`` of rollouts of each length and one reward, times the mean length; lengths in ``time``."""
    rng = np.random.default_rng(16)
    rewards = (rng.random((groups, GROUP)) < SUCCESS).astype(np.float64)
    kinds = rng.integers(len(LENGTHS), size=rewards.shape)
    weight = advantages(rewards) / LENGTHS[kinds] * LENGTHS.mean()
    found = []
    for kind in range(len(LENGTHS)):
        # a group counts once: its rollouts are not independent
        here = (kinds == kind) & (rewards == float(right))
        total, count = np.where(here, weight, 0.0).sum(1), here.sum(1)
        mean = total.sum() / count.sum()
        found.append((mean, np.sqrt(((total - mean * count) ** 2).sum()) / count.sum()))
    mean, error = np.array(found).T
    return Points(LENGTHS, mean, error)


def sampled_growth(success: Array, groups: int = 60_000) -> Points:
    """Speed of the mean length of wrong answers, from drawn groups: ``Cov(L, w)`` over the wrong kinds; success in ``time``."""
    rng = np.random.default_rng(17)
    found = []
    for p in success:
        parts = []
        for _ in range(10):
            rewards = (rng.random((groups // 10, GROUP)) < p).astype(np.float64)
            kinds = rng.integers(len(LENGTHS), size=rewards.shape)
            weight, wrong = advantages(rewards) / LENGTHS[kinds], rewards == 0.0
            means = np.array([weight[wrong & (kinds == k)].mean() for k in range(len(LENGTHS))])
            parts.append(float(((LENGTHS - LENGTHS.mean()) * means).mean()))
        found.append((np.mean(parts), np.std(parts, ddof=1) / np.sqrt(10.0)))
    mean, error = np.array(found).T
    return Points(success, mean, error)


# (c): batches ---------------------------------------------------------------------------------------------------------------


def exact_ratio(problems: Array) -> Array:
    """Bias of the mean over tokens over that of the mean over sequences, right answers of `SHORT` against `LONG`."""
    both, shares = np.stack((LENGTHS, LENGTHS)), np.full((2, len(LENGTHS)), 1.0 / len(LENGTHS))
    tokens = token_length_bias(logit(SUCCESS), GROUP, both, shares, (SHORT, LONG), 1.0, problems)
    return np.asarray(tokens / sequence_length_bias(logit(SUCCESS), GROUP, SHORT, LONG, 1.0))


def sampled_ratio(problems: Array, batches: int = 20_000) -> Points:
    """The same from batches whose first rollout is right: its own weight with one length less that with the other."""
    rng = np.random.default_rng(18)
    above = float(group_advantage_means(logit(SUCCESS), GROUP)[0])
    found = []
    for many in problems.astype(int):
        rewards = (rng.random((batches, GROUP)) < SUCCESS).astype(np.float64)
        rewards[:, 0] = 1.0
        others = LENGTHS[rng.integers(len(LENGTHS), size=(batches, many * GROUP - 1))].sum(axis=1)
        gap = many * GROUP * advantages(rewards)[:, 0] * (1.0 / (SHORT + others) - 1.0 / (LONG + others))
        scale = above * (1.0 / SHORT - 1.0 / LONG)
        found.append((gap.mean() / scale, gap.std(ddof=1) / np.sqrt(batches) / scale))
    mean, error = np.array(found).T
    return Points(problems * GROUP, mean, error)


# The figure ----------------------------------------------------------------------------------------------------------------


def _draw_weights(ax: Axes) -> None:
    length = np.linspace(15.0, 90.0, 100)
    for right, series, mean in zip(
        (True, False), (BLUE, VERMILLION), group_advantage_means(logit(SUCCESS), GROUP), strict=True
    ):
        ax.plot(length, float(mean) * LENGTHS.mean() / length, color=series.color)
        ax.axhline(float(mean), color=series.color, ls=LAW, lw=1.2)
        draw_points(ax, sampled_weights(right), series)
    ax.axhline(0.0, color=GREY, lw=0.8)
    ax.text(88.0, 2.6, "right: short ones\npulled most", color=BLUE.color, ha="right", va="center")
    ax.text(88.0, -1.05, "wrong: long ones\npushed least", color=VERMILLION.color, ha="right", va="center")
    ax.set(xlim=(15.0, 90.0), ylim=(-1.6, 4.0), yticks=range(-1, 5))


def _draw_growth(ax: Axes) -> None:
    p = np.linspace(0.01, 0.99, 99)
    shares = np.full(len(LENGTHS), 1.0 / len(LENGTHS))
    ax.plot(p, length_growth(logit(p), GROUP, LENGTHS, shares), color=VERMILLION.color)
    rate = -group_advantage_means(logit(p), GROUP)[1]
    apart = (LONG - SHORT) ** 2 / (LONG * SHORT)
    for bound in (rate * apart / 9.0, rate * apart / 4.0):
        ax.plot(p, bound, color=VERMILLION.color, ls=BOUND, lw=1.2)
    draw_points(ax, sampled_growth(np.array([0.1, 0.3, 0.5, 0.7, 0.9])), VERMILLION)
    ax.set(xlim=(0.0, 1.0), ylim=(0.0, None))


def _draw_ratio(ax: Axes) -> None:
    problems = np.unique(np.rint(np.geomspace(1.0, 48.0, 24)))
    rollouts = problems * GROUP
    ax.loglog(rollouts, exact_ratio(problems), color=BLACK.color)
    for bound in token_bias_bounds(SHORT, LONG, LENGTHS.min(), LENGTHS.max(), rollouts):
        ax.loglog(rollouts, bound, color=BLACK.color, ls=BOUND, lw=1.2)
    ax.loglog(rollouts, 1.0 / rollouts, color=ORANGE.color, ls=LAW)
    draw_points(ax, sampled_ratio(np.array([1.0, 3.0, 10.0, 40.0])), BLACK)
    ax.set(xlim=(7.0, 450.0))


@styled
def length_bias_figure() -> Drawing:
    """Weights by length, growth of wrong answers, and what a mean over tokens leaves of the bias."""
    figure = matplotlib.figure.Figure(figsize=(7.2, 3.1))
    weights, growth, ratio = figure.subplots(1, 3)
    _draw_weights(weights)
    _draw_growth(growth)
    _draw_ratio(ratio)
    panel(weights, "a", "mean over sequences", "length, tokens", "weight of a rollout")
    panel(growth, "b", "wrong answers grow", "success rate", "tokens a unit of time")
    panel(ratio, "c", "mean over tokens", "rollouts in a batch", "bias / that of (a)")
    kinds = [
        key("-", label="exact [T]"),
        key(BOUND, label="bound [T]"),
        key(LAW, label="a, no bias; c, one over the rollouts"),
        key(marker="o", filled=True, label="drawn groups"),
    ]
    legend_below(figure, kinds, 4)
    return figure


LENGTH_BIAS = Figure(
    "length-bias",
    "Lengths in group-normalised updates: what a mean over sequences asks for, and a mean over tokens does not",
    "Groups of 8 with advantages over their standard deviation, completions of 20, 40 or 80 tokens in equal shares whatever their reward, success rate 0.25. (a) GRPO's mean over "
    "sequences weighs a rollout by its advantage over its length (times the mean length here): right answers are pulled to be short, wrong ones to be long, though no reward asks for it; "
    "dotted, the same without lengths. (b) Natural gradient makes the mean length of wrong answers grow at every success rate, between two bounds from the ends of the lengths. (c) CISPO's mean over tokens "
    "has the same bias, for 20 against 80 tokens, divided by about the rollouts of the batch: 384 times less at 48 problems of 8. Filled markers: drawn groups with standard errors.",
    ("length-bias-sequences", "length-bias-growth", "length-bias-tokens"),
    length_bias_figure,
)
