"""Statements that section 16 left open: CISPO's cap over several updates, waiting for the first success."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import binom

from fstsim.theory.group_batches import (
    capped_displacement,
    capped_displacement_bounds,
    escape_wait,
    first_signal_wait,
    rare_escape_wait,
)
from fstsim.theory.statements.instances import log_uniform, same
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import nothing, symbolic

Array = NDArray[np.float64]
_TEST = "tests/theory/test_group_normalised.py"
_SOURCE = "rollout groups of arXiv 2605.12484, CISPO; own derivation"
_BATCHES = 2500  # followed one by one


# --- several capped updates of one batch --------------------------------------------------------------------------------


def _derive_cap() -> Derivation:
    p, p0, t = sp.symbols("p p0 t", positive=True)
    x, x0 = sp.symbols("x x0", real=True)
    sig, sig0 = 1 / (1 + sp.exp(-x)), 1 / (1 + sp.exp(-x0))
    up, down = -sp.log(1 - t), sp.log(1 + t)
    return symbolic(
        (
            "at p = p0 the update is the on-policy one: the cap is inert for one update a batch",
            "without a cap it is sigma'(x)/sigma'(x0) times the on-policy update",
            "-log(1 - t) solves y' = e^y, log(1 + t) solves y' = e^-y",
            "p/p0 <= e^(x - x0): e^(x - x0) p0 - p = p0 (1 - p) e^(x-x0) - p (1 - p0) + p0 p (e^(x-x0) - 1)",
        ),
        [
            (p / p0 * (1 - p) + (1 - p) / (1 - p0) * p).subs(p, p0) - 1,
            p / p0 * (1 - p) + (1 - p) / (1 - p0) * p - p * (1 - p) / (p0 * (1 - p0)),
            sp.diff(up, t) - sp.exp(up),
            sp.diff(down, t) - sp.exp(-down),
            sp.exp(x - x0) * sig0 - sig - (sig0 * sig * (sp.exp(x - x0) - 1)),
        ],
    )


def _sample_cap(rng: np.random.Generator, n: int) -> Sample:
    updates = rng.choice([1.0, 2.0, 4.0, 16.0], n)
    return {
        "log_odds": rng.uniform(-9.0, 9.0, n),
        "update": rng.uniform(0.01, 0.5, n),
        "lr": log_uniform(rng, 0.01, 2.0, n) / np.where(rng.random(n) < 0.5, updates, 1.0),
        "updates": updates,
        "cap": 1.0 + np.exp(rng.uniform(-3.0, 2.0, n)),
    }


def _capped(log_odds: Array, update: Array, lr: Array, updates: Array, cap: Array) -> Array:
    out = np.empty(log_odds.shape)
    for number in np.unique(updates):
        i = updates == number
        out[i] = capped_displacement(log_odds[i], update[i], lr[i], int(number), cap[i])
    return out


CAP = Statement(
    slug="group-normalised-cap",
    title="CISPO with several updates of one batch: how far it can leave the on-policy step",
    status="T",
    kind="bound",
    hypotheses="a = updates x lr x u the on-policy displacement, lr u <= 1, cap c > 1; the cap is inert if a <= 1 - 1/c",
    latex=r"\log(1+a)\le x-x_0\le\min\{c\,a,\ -\log(1-a)\}",
    derive=_derive_cap,
    sample=_sample_cap,
    exact=_capped,
    bound=lambda log_odds, update, lr, updates, cap: capped_displacement_bounds(  # noqa: ARG005
        updates * lr * update, cap
    ),
    source=_SOURCE,
    test=_TEST,
)


# --- waiting for the first success ---------------------------------------------------------------------------------------


def _derive_wait() -> Derivation:
    z, live = sp.symbols("z l", positive=True)
    pgf = live * z / (1 - (1 - live) * z)
    mean = sp.diff(pgf, z).subs(z, 1)
    second = sp.diff(pgf, z, 2).subs(z, 1)
    return symbolic(
        ("mean 1/l and variance (1 - l)/l^2 from the generating function",),
        [mean - 1 / live, second + mean - mean**2 - (1 - live) / live**2],
    )


def _sample_wait(rng: np.random.Generator, n: int) -> Sample:
    groups = np.floor(log_uniform(rng, 1.0, 9.0, n))
    group = np.floor(log_uniform(rng, 2.0, 33.0, n))
    return {"p": log_uniform(rng, 0.03, 0.5, n) / (group * groups), "group": group, "groups": groups}


def _second_moment_by_series(p: Array, group: Array, groups: Array) -> Array:
    """``E T^2 = sum_t (2 t + 1) P(T > t)``, with the probability of a dead batch from the binomial law."""
    dead = (binom.pmf(0, group, p) + binom.pmf(group, group, p)) ** groups
    total, left = np.zeros(p.shape), np.ones(p.shape)
    for t in range(2500):
        total += (2.0 * t + 1.0) * left
        left = left * dead
    return total


def _second_moment(p: Array, group: Array, groups: Array) -> Bounds:
    mean, variance = first_signal_wait(p, group, groups)
    return same(variance + mean**2)


WAIT = Statement(
    slug="group-normalised-wait",
    title="Waiting for the first informative batch",
    status="T",
    kind="identity",
    hypotheses="B groups of G in a batch, success probability p; second moment of the number of batches",
    latex=r"\mathbb E z^T=\frac{\ell z}{1-(1-\ell)z},\quad\ell=1-[(1-p)^G+p^G]^B,\quad\mathrm{CV}=\sqrt{1-\ell}",
    derive=_derive_wait,
    sample=_sample_wait,
    exact=_second_moment_by_series,
    bound=_second_moment,
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-9,
)


def _sample_small_groups(rng: np.random.Generator, n: int) -> Sample:
    start = -rng.uniform(0.5, 4.0, n)
    return {
        "log_odds": start,
        "target": start + rng.uniform(0.2, 4.0, n),
        "rate": rng.uniform(0.6, 8.0, n),
        "group": rng.integers(2, 4, n).astype(np.float64),
    }


def _escape_by_occupation(log_odds: Array, target: Array, rate: Array, group: Array) -> Array:
    """``E T^2`` from the law of the logit after every batch, each live group moving it by its realised ``sqrt(v)``."""
    jump = rate * np.where(group == 2.0, 0.5, np.sqrt(2.0) / 3.0)
    levels = int(np.ceil((target - log_odds) / jump).max()) + 1
    x = log_odds[:, None] + jump[:, None] * np.arange(levels)
    p = expit(x)
    below = x < target[:, None] - 1e-12 * np.abs(target - log_odds)[:, None]
    live = np.where(below, 1.0 - binom.pmf(0, group[:, None], p) - binom.pmf(group[:, None], group[:, None], p), 0.0)
    law, total = np.zeros(x.shape), np.zeros(log_odds.shape)
    law[:, 0] = 1.0
    rows = np.arange(total.size)  # those with a part of the law still on its way
    for t in range(_BATCHES):
        left = (law * below).sum(axis=1)
        total[rows] += (2.0 * t + 1.0) * left
        moved = law * live
        law = law - moved
        law[:, 1:] += moved[:, :-1]
        # all that is still to come is at most what is left at every batch, and is lost in rounding
        on = left * _BATCHES**2 > 1e-17 * total[rows]
        if on.sum() < 0.9 * rows.size:
            rows, law, live, below = rows[on], law[on], live[on], below[on]
        if rows.size == 0:
            break
    return total


def _escape_second_moment(log_odds: Array, target: Array, rate: Array, group: Array) -> Bounds:
    mean, variance = escape_wait(log_odds, target, rate, group)
    return same(variance + mean**2)


ESCAPE_WAIT = Statement(
    slug="group-normalised-wait-escape",
    title="Escape time of groups of two or three: a sum of geometric waits, exactly",
    status="T",
    kind="identity",
    hypotheses="G = 2 or 3, one group a batch; every live group moves the logit by j; second moment of the number of batches",
    latex=r"T=\sum_{k<\lceil(x^*-x_0)/j\rceil}\mathrm{Geom}\big(\ell(x_0+kj)\big),\qquad j=\tfrac{\eta\sqrt{G-1}}G",
    derive=_derive_wait,
    sample=_sample_small_groups,
    exact=_escape_by_occupation,
    bound=_escape_second_moment,
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-7,
    max_examples=20_000,
)


def _sample_two_jumps(rng: np.random.Generator, n: int) -> Sample:
    start = -rng.uniform(0.5, 9.0, n)
    return {
        "log_odds": start,
        "target": start * rng.uniform(0.0, 0.9, n),
        "rate": rng.uniform(1.0, 8.0, n),
        "group": rng.integers(4, 6, n).astype(np.float64),
    }


def _mean_of_two_jumps(log_odds: Array, target: Array, rate: Array, group: Array) -> Array:
    """Exact mean number of batches for G = 4, 5, where a live group moves by one of two jumps: backward recursion."""
    small, large = rate * np.sqrt(group - 1.0) / group, rate * np.sqrt(2.0 * (group - 2.0)) / group
    most = int(np.ceil((target - log_odds) / small).max()) + 1
    mean = np.zeros((most + 1, most + 1, log_odds.size))  # [small jumps, large jumps]
    for total in range(most - 1, -1, -1):
        for a in range(total + 1):
            x = log_odds + a * small + (total - a) * large
            p = expit(x)
            one = binom.pmf(1, group, p) + binom.pmf(group - 1.0, group, p)
            live = 1.0 - binom.pmf(0, group, p) - binom.pmf(group, group, p)
            onward = one * mean[a + 1, total - a] + (live - one) * mean[a, total - a + 1]
            with np.errstate(divide="ignore", invalid="ignore"):
                mean[a, total - a] = np.where(x < target, (1.0 + onward) / live, 0.0)
    return mean[0, 0]


ESCAPE_WAIT_BOUND = Statement(
    slug="group-normalised-wait-bound",
    title="For any group the mean escape time is at most that of lone successes",
    status="T",
    kind="bound",
    hypotheses="target at most 0 (p <= 1/2), one group a batch; exact means by recursion for G = 4 and 5",
    latex=r"\mathbb ET\le\sum_k\frac1{\ell(x_0+kj)}",
    derive=lambda: nothing(
        "coupling: a live group moves by at least j, and live groups get more frequent up to p = 1/2"
    ),
    sample=_sample_two_jumps,
    exact=_mean_of_two_jumps,
    bound=lambda log_odds, target, rate, group: (None, escape_wait(log_odds, target, rate, group)[0]),
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-8,  # 1 - dead cancels for small p
    max_examples=20_000,
)


def _derive_spread() -> Derivation:
    j = sp.symbols("j", positive=True)
    mean, variance = 1 / (1 - sp.exp(-j)), 1 / (1 - sp.exp(-2 * j))
    return symbolic(
        (
            "CV^2 = (1 - e^-j)^2 / (1 - e^-2j) = tanh(j/2)",
            "mean over the mean flow's: j / (1 - e^-j) = 1 + j/2 + O(j^2)",
        ),
        [
            variance / mean**2 - sp.tanh(j / 2),
            sp.series(j * mean, j, 0, 2).removeO() - 1 - j / 2,
        ],
    )


def _sample_spread(rng: np.random.Generator, n: int) -> Sample:
    return {
        "log_odds": -rng.uniform(9.0, 14.0, n),
        "rate": log_uniform(rng, 0.1, 20.0, n),
        "group": rng.integers(2, 4, n).astype(np.float64),
    }


def _spread_exact(log_odds: Array, rate: Array, group: Array) -> Array:
    mean, variance = escape_wait(log_odds, 0.0, rate, group)
    return np.sqrt(variance) / mean


SPREAD = Statement(
    slug="group-normalised-wait-spread",
    title="Spread of the escape time over seeds, from the jump of one lone success alone",
    status="A",
    kind="approximation",
    hypotheses="G p_0 -> 0 (here p_0 below 1.2e-4, exact sums for G = 2 and 3, target p = 1/2)",
    latex=r"\mathrm{CV}(T)\to\sqrt{\tanh\tfrac j2},\qquad\mathbb ET\to\frac1{G\,p_0\,(1-e^{-j})},\qquad j=\tfrac{\eta\sqrt{G-1}}G",
    derive=_derive_spread,
    sample=_sample_spread,
    exact=_spread_exact,
    bound=lambda log_odds, rate, group: same(rare_escape_wait(expit(log_odds), rate, group)[1]),
    source=_SOURCE,
    test=_TEST,
)

STATEMENTS = (CAP, WAIT, ESCAPE_WAIT, ESCAPE_WAIT_BOUND, SPREAD)
