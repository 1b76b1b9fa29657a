"""Statements that section 16 left open: several contexts under one baseline, contexts at random, neutral logits."""

from __future__ import annotations

import itertools

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import binom

from fstsim.theory.group_contexts import (
    advantage_gap_range,
    random_context_drift,
    shared_dead_group_probability,
    shared_group_drift,
    shared_group_weights,
)
from fstsim.theory.group_normalised import Normaliser
from fstsim.theory.statements.instances import same
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import nothing, numeric, symbolic, vanishes_at

Array = NDArray[np.float64]
_TEST = "tests/theory/test_group_normalised.py"
_SOURCE = "rollout groups of arXiv 2605.12484, CISPO; own derivation"
_ROLLOUTS = 6  # of the enumerated groups: 64 outcomes
_OUTCOMES = np.array(list(itertools.product([0.0, 1.0], repeat=_ROLLOUTS)))


def _derive_contexts() -> Derivation:
    n, g, y = sp.symbols("n G y", positive=True)
    z = (n + 1) * (g - n)
    square = (g - 1 - n) / (n + 1) + n / (g - n) + 2 * sp.sqrt(n * (g - 1 - n) / z)
    a, r, m = sp.symbols("a r m")
    points = [{n: 2, g: 7}, {n: 1, g: 12}, {n: sp.Rational(7, 2), g: 9}]
    in_y = (g - 1 + 2 * y - (g + 1) * y**2).subs(y, sp.sqrt(1 - g / z))
    return numeric(
        (
            "A(r) = A(0) + r (A(1) - A(0)) for r in {0, 1}",
            "w(n)^2 = G - 1 + 2 y - (G + 1) y^2 with y = sqrt(1 - G / ((n + 1)(G - n)))",
        ),
        [
            sp.expand((a + r * (m - a)).subs(r, 0) - a) == 0 and sp.expand((a + r * (m - a)).subs(r, 1) - m) == 0,
            vanishes_at(square - in_y, points),
        ],
    )


def _sample_rollouts(rng: np.random.Generator, n: int) -> Sample:
    center = rng.uniform(-6.0, 4.0, (n, 1))
    return {"p": expit(center + rng.uniform(0.0, 4.0, (n, 1)) * rng.standard_normal((n, _ROLLOUTS)))}


def _enumerate(p: Array, normaliser: Normaliser = "population") -> tuple[Array, Array, Array]:
    """Probability, advantages and scores ``r - p`` of all 2^G outcomes, ``(n, 64, ...)``."""
    chance = np.where(_OUTCOMES == 1.0, p[:, None], 1.0 - p[:, None]).prod(axis=2)
    mean, spread = _OUTCOMES.mean(axis=1, keepdims=True), _OUTCOMES.std(axis=1, keepdims=True)
    advantage = _OUTCOMES - mean
    if normaliser == "population":
        advantage = np.where(spread > 0.0, advantage / np.where(spread > 0.0, spread, 1.0), 0.0)
    return chance, advantage[None], _OUTCOMES - p[:, None]


def _first_rollout(p: Array, normaliser: Normaliser = "population") -> Array:
    chance, advantage, score = _enumerate(p, normaliser)
    return (chance * (advantage * score)[:, :, 0]).sum(axis=1) / _ROLLOUTS


CONTEXTS = Statement(
    slug="group-normalised-contexts",
    title="One baseline for several contexts reweights their gradients; it never pushes a context down",
    status="T",
    kind="identity",
    hypotheses="any on-policy policy and parameter, binary reward; checked on the context's own logit, 64 outcomes enumerated",
    latex=r"\mathbb E[A_i\nabla\log\pi(y_i)]=m_i\nabla p_i,\quad m_i=\mathbb E\,w(N_{-i})>0,\quad "
    r"w(n)=\sqrt{\tfrac{G-1-n}{n+1}}+\sqrt{\tfrac n{G-n}}",
    derive=_derive_contexts,
    sample=_sample_rollouts,
    exact=_first_rollout,
    bound=lambda p: same(shared_group_drift(p)[:, 0]),
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-9,
)

CONTEXTS_PLAIN = Statement(
    slug="group-normalised-contexts-plain",
    title="Without the standard deviation contexts in one group do not see each other",
    status="T",
    kind="identity",
    hypotheses="as before, advantages r - X",
    latex=r"\mathbb E[A_i\nabla\log\pi(y_i)]=(1-\tfrac1G)\nabla p_i",
    derive=_derive_contexts,
    sample=_sample_rollouts,
    exact=lambda p: _first_rollout(p, "none"),
    bound=lambda p: same((1.0 - 1.0 / _ROLLOUTS) * (p * (1.0 - p))[:, 0] / _ROLLOUTS),
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-9,
)


def _sample_many(rng: np.random.Generator, n: int) -> Sample:
    group = int(rng.integers(2, 33))
    center = rng.uniform(-9.0, 6.0, (n, 1))
    return {"p": expit(center + rng.uniform(0.0, 4.0, (n, 1)) * rng.standard_normal((n, group)))}


def _weight_range(p: Array) -> Bounds:
    low, high = advantage_gap_range(np.full(p.shape[0], p.shape[1]))
    return low, high


CONTEXTS_WEIGHT = Statement(
    slug="group-normalised-contexts-weight",
    title="A context weighs at most sqrt(G - 1), as in a group of its own kind: no company shortens its 1/p_0 plateau",
    status="T",
    kind="bound",
    hypotheses="as before, G from 2 to 32",
    latex=r"w_{\min}(G)\le m_i\le\sqrt{G-1},\qquad w_{\min}=2\sqrt{\tfrac{G-1}{G+1}}\ (G\text{ odd}),\ \to2",
    derive=_derive_contexts,
    sample=_sample_many,
    exact=lambda p: shared_group_weights(p)[:, 0],
    bound=_weight_range,
    source=_SOURCE,
    test=_TEST,
)


def _sample_random(rng: np.random.Generator, n: int) -> Sample:
    return {"p": expit(rng.uniform(-6.0, 5.0, (n, 2))), "share": rng.uniform(0.05, 0.95, n)}


def _random_by_allocation(p: Array, share: Array) -> Array:
    """Own update of the first of two contexts, averaged over all numbers of rollouts that it can be given."""
    total = np.zeros(share.shape)
    for first in range(1, _ROLLOUTS + 1):
        rollouts = np.concatenate(
            [np.repeat(p[:, :1], first, axis=1), np.repeat(p[:, 1:], _ROLLOUTS - first, axis=1)], axis=1
        )
        total = total + binom.pmf(first, _ROLLOUTS, share) * first * _first_rollout(rollouts)
    return total


def _random_law(p: Array, share: Array) -> Bounds:
    value = np.empty(share.shape)
    for i in range(share.size):
        value[i] = random_context_drift(p[i], [share[i], 1.0 - share[i]], _ROLLOUTS)[0]
    return same(value)


def _derive_random() -> Derivation:
    w, a, b, d = sp.symbols("w a b d", positive=True)
    mean = w * a + (1 - w) * b
    within = w * a * (1 - a) + (1 - w) * b * (1 - b)
    between = w * a**2 + (1 - w) * b**2 - mean**2
    return symbolic(
        (
            "the shared logit's update is the drift times the share of the reward variance within contexts",
            "each rollout succeeds with probability P: own updates are w_c p_c (1 - p_c) / (P (1 - P)) of the drift",
        ),
        [
            mean * (1 - mean) - within - between,
            (w * a * (1 - a) + (1 - w) * b * (1 - b)) / (mean * (1 - mean)) * d - within / (mean * (1 - mean)) * d,
        ],
    )


CONTEXTS_RANDOM = Statement(
    slug="group-normalised-contexts-random",
    title="Contexts drawn at random: the signal is the share of the reward variance that lies within contexts",
    status="T",
    kind="identity",
    hypotheses="every rollout draws its context independently; P the mean success probability",
    latex=r"\dot x_c=\eta\,\frac{w_cp_c(1-p_c)}{P(1-P)}\,\mathbb E\sqrt{X(1-X)},\qquad X\sim\mathrm{Bin}(G,P)/G",
    derive=_derive_random,
    sample=_sample_random,
    exact=_random_by_allocation,
    bound=_random_law,
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-9,
    max_examples=5000,
)


def _neutral_variance(p: Array) -> Array:
    chance, advantage, _ = _enumerate(p)
    return (chance * (advantage**2).sum(axis=2)).sum(axis=1) / _ROLLOUTS**2


NEUTRAL = Statement(
    slug="group-normalised-neutral",
    title="A live group moves what the reward does not concern, with or without signal",
    status="T",
    kind="identity",
    hypotheses="a logit whose scores are independent of the reward, with mean 0 and unit variance",
    latex=r"\mathrm{Var}=\frac{1-P(\text{dead})}G",
    derive=lambda: nothing("advantages of a live group have mean 0 and mean square 1"),
    sample=_sample_rollouts,
    exact=_neutral_variance,
    bound=lambda p: same((1.0 - shared_dead_group_probability(p)) / _ROLLOUTS),
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-7,  # 1 - dead cancels on hopeless groups
)

STATEMENTS = (CONTEXTS, CONTEXTS_PLAIN, CONTEXTS_WEIGHT, CONTEXTS_RANDOM, NEUTRAL)
