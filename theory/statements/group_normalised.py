"""Statements of section 16: expected update of a group, its variants, and the time to escape from a plateau."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import binom

from fstsim.theory.clocks import learning_clock_between
from fstsim.theory.group_normalised import (
    Baseline,
    Normaliser,
    dead_group_probability,
    epsilon_slowdown_bounds,
    group_drift_bounds,
    group_escape_bounds,
    group_escape_time,
    group_normalised_drift,
)
from fstsim.theory.statements.instances import log_uniform, same, sometimes
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import nothing, symbolic

Array = NDArray[np.float64]
_TEST = "tests/theory/test_group_normalised.py"
_SOURCE = "group-normalised advantages of GRPO and CISPO; own derivation"


def _group_sizes(rng: np.random.Generator, n: int, largest: int = 64) -> Array:
    return np.floor(log_uniform(rng, 2.0, largest + 1.0, n))


def _sample_group(rng: np.random.Generator, n: int) -> Sample:
    return {
        "p": expit(sometimes(rng, rng.uniform(-600.0, 30.0, n), rng.uniform(-9.0, 9.0, n))),
        "group": _group_sizes(rng, n),
    }


def enumerated_drift(
    p: Array, group: Array, baseline: Baseline = "mean", normaliser: Normaliser = "population"
) -> Array:
    """Expected update from its definition: mean of advantage x score over the group, summed over the number of successes."""
    k = np.arange(0.0, group.max() + 1.0)
    g, x = group[:, None], np.minimum(k / group[:, None], 1.0)
    win, lose = 1.0 - x, -x
    if baseline == "leave-one-out":  # r_i minus the mean of the other G - 1 rewards
        win, lose = 1.0 - (k - 1.0) / (g - 1.0), -k / (g - 1.0)
    spread = np.sqrt(x * (1.0 - x)) if normaliser == "population" else np.ones(x.shape)
    live = (k > 0.0) & (k < g)
    score_win, score_lose = 1.0 - p[:, None], -p[:, None]
    update = (k * win * score_win + (g - k) * lose * score_lose) / (g * np.where(live, spread, 1.0))
    return (binom.pmf(k, g, p[:, None]) * np.where(live, update, 0.0)).sum(axis=1)


def _derive_drift() -> Derivation:
    x, p, g = sp.symbols("X p G", positive=True)
    v = x * (1 - x)
    win, lose = sp.sqrt((1 - x) / x), -sp.sqrt(x / (1 - x))
    return symbolic(
        (
            "X A_s (1 - p) + (1 - X) A_f (-p) = sqrt(X (1 - X)): p drops out",
            "X (1 - X)(1 - p) + (1 - X)(-X)(-p) = X (1 - X) without the std",
            "r_i minus the mean of the others is G/(G - 1) times r_i - X",
            "baseline b from elsewhere: X (1 - b)(1 - p) + (1 - X)(-b)(-p) = X (1 - b - p) + b p",
        ),
        [
            ((x * win * (1 - p) + (1 - x) * lose * (-p)) ** 2 - v).subs(x, 1 / (1 + g)),
            x * (1 - x) * (1 - p) + (1 - x) * (-x) * (-p) - v,
            1 - (g * x - 1) / (g - 1) - g / (g - 1) * (1 - x),
            x * (1 - sp.Symbol("b")) * (1 - p)
            + (1 - x) * sp.Symbol("b") * p
            - x * (1 - sp.Symbol("b") - p)
            - sp.Symbol("b") * p,
        ],
    )


DRIFT = Statement(
    slug="group-normalised",
    title="Expected update of a success logit by a group whose advantages are divided by their standard deviation",
    status="T",
    kind="identity",
    hypotheses="binary reward, G on-policy rollouts, one update, A = 0 in a dead group",
    latex=r"\dot x=\eta\,\mathbb E\sqrt{X(1-X)}=\eta\sum_k\tbinom Gkp^k(1-p)^{G-k}\sqrt{\tfrac kG(1-\tfrac kG)}",
    derive=_derive_drift,
    sample=_sample_group,
    exact=enumerated_drift,
    bound=lambda p, group: same(group_normalised_drift(p, group)),
    source=_SOURCE,
    test=_TEST,
)


def _sample_plain(rng: np.random.Generator, n: int) -> Sample:
    return {**_sample_group(rng, n), "leave_one_out": rng.integers(0, 2, n).astype(np.float64)}


def _enumerated_plain(p: Array, group: Array, leave_one_out: Array) -> Array:
    return np.where(
        leave_one_out > 0.0,
        enumerated_drift(p, group, "leave-one-out", "none"),
        enumerated_drift(p, group, "mean", "none"),
    )


PLAIN = Statement(
    slug="group-normalised-plain",
    title="Without the standard deviation a group follows the plain policy gradient",
    status="T",
    kind="identity",
    hypotheses="as before, advantages r - mean of the group (factor 1 - 1/G) or r - mean of the others (factor 1)",
    latex=r"\dot x=\eta\,(1-\tfrac1G)\,p(1-p)\quad\text{or}\quad\dot x=\eta\,p(1-p)\ \text{(leave-one-out)}",
    derive=_derive_drift,
    sample=_sample_plain,
    exact=_enumerated_plain,
    bound=lambda p, group, leave_one_out: same(p * (1.0 - p) * np.where(leave_one_out > 0.0, 1.0, 1.0 - 1.0 / group)),
    source=_SOURCE,
    test=_TEST,
)


DEAD = Statement(
    slug="group-normalised-dead",
    title="Groups without signal",
    status="T",
    kind="identity",
    hypotheses="binary reward; the same for every baseline from the group itself and every normaliser",
    latex=r"P(\text{dead})=(1-p)^G+p^G",
    derive=lambda: nothing("independence of the rollouts"),
    sample=_sample_group,
    exact=lambda p, group: np.asarray(binom.pmf(0, group, p) + binom.pmf(group, group, p)),
    bound=lambda p, group: same(dead_group_probability(p, group)),
    source=_SOURCE,
    test=_TEST,
)


def _derive_sandwich() -> Derivation:
    p, t = sp.symbols("p t", positive=True)
    g = sp.symbols("G", positive=True)
    y = p * (1 - p)
    # moments of k (G - k) from the generating function (p t + 1 - p)^G, by factorial moments
    f = (p * t + 1 - p) ** g

    def factorial(j: int) -> sp.Expr:
        return sp.diff(f, t, j).subs(t, 1)

    k1, k2, k3, k4 = (factorial(j) for j in (1, 2, 3, 4))
    first = g * k1 - (k2 + k1)  # E k (G - k)
    square, cube, fourth = k2 + k1, k3 + 3 * k2 + k1, k4 + 6 * k3 + 7 * k2 + k1
    second = g**2 * square - 2 * g * cube + fourth
    return symbolic(
        (
            "E v = (1 - 1/G) y",
            "G^3 E v^2 = (G-1)^2 y + (G-1)(G-2)(G-3) y^2",
            "(E v)^3 / E v^2 is the square of the lower bound",
        ),
        [
            first / g**2 - (1 - 1 / g) * y,
            second / g - (g - 1) ** 2 * y - (g - 1) * (g - 2) * (g - 3) * y**2,
            ((1 - 1 / g) * t) ** 3 * g**3 / ((g - 1) ** 2 * t + (g - 1) * (g - 2) * (g - 3) * t**2)
            - ((g - 1) * t) ** 2 / (g - 1 + (g - 2) * (g - 3) * t),
        ],
    )


def _drift_bounds(p: Array, group: Array) -> Bounds:
    return group_drift_bounds(p, group)


SANDWICH = Statement(
    slug="group-normalised-bounds",
    title="Both regimes of a finite group in closed form, within a factor of sqrt 2",
    status="T",
    kind="bound",
    hypotheses="population std; y = p (1 - p)",
    latex=r"\frac{(G-1)\,y}{\sqrt{G-1+(G-2)(G-3)\,y}}\le\mathbb E\sqrt{X(1-X)}\le\min\Big\{\sqrt{G-1}\;y,\ \sqrt{(1-\tfrac1G)\,y}\Big\}",
    derive=_derive_sandwich,
    sample=_sample_group,
    exact=enumerated_drift,
    bound=_drift_bounds,
    source=_SOURCE,
    test=_TEST,
)


def _derive_epsilon() -> Derivation:
    u, e, g = sp.symbols("u epsilon G", positive=True)
    shrink = u / (u**2 / (u + e))  # sqrt(v) against v / (sqrt(v) + eps)
    return symbolic(
        (
            "the update shrinks by 1 + eps/sqrt(v)",
            "sqrt(v) = sqrt(G-1)/G for a lone success, 1/2 at most",
        ),
        [
            shrink - (1 + e / u),
            (1 + e / u).subs(u, sp.sqrt(g - 1) / g) - (1 + e * g / sp.sqrt(g - 1)),
        ],
    )


def _sample_epsilon(rng: np.random.Generator, n: int) -> Sample:
    eps = rng.choice([1e-4, 1e-2, 0.1, 1.0, 10.0], n)
    return {**_sample_group(rng, n), "epsilon": eps}


def _epsilon_slowdown(p: Array, group: Array, epsilon: Array) -> Array:
    out = np.empty(p.shape)
    for eps in np.unique(epsilon):
        i = epsilon == eps
        out[i] = group_normalised_drift(p[i], group[i]) / group_normalised_drift(p[i], group[i], epsilon=float(eps))
    return out


EPSILON = Statement(
    slug="group-normalised-epsilon",
    title="An epsilon in the denominator slows the logit by at most 1 + eps G / sqrt(G - 1), most on the plateau",
    status="T",
    kind="bound",
    hypotheses="advantages (r - X) / (std + eps), population std",
    latex=r"1+2\epsilon\le\frac{\mathbb E\,u_0}{\mathbb E\,u_\epsilon}\le1+\frac{\epsilon\,G}{\sqrt{G-1}}",
    derive=_derive_epsilon,
    sample=_sample_epsilon,
    exact=_epsilon_slowdown,
    bound=lambda p, group, epsilon: epsilon_slowdown_bounds(group, epsilon + 0.0 * p),
    source=_SOURCE,
    test=_TEST,
)


# --- escape time (16.3) --------------------------------------------------------------------------------------------


def _derive_escape() -> Derivation:
    u, c, d, a, b = sp.symbols("u c d A B", positive=True)
    primitive = (u * sp.sqrt(c**2 * u**2 + d**2) + d**2 / c * sp.asinh(c * u / d)) / 2
    g = sp.symbols("G", positive=True)
    y = 1 / (4 * (1 + u**2))  # p (1 - p) with u = sinh(x/2)
    # 1/L dx with dx = 2 du / sqrt(1 + u^2); squares, both sides being positive
    integrand = (a + b * y) / (a * y) ** 2 * 4 / (1 + u**2)
    return symbolic(
        (
            "d/du of the primitive is sqrt(c^2 u^2 + d^2)",
            "1/lower bound, in u = sinh(x/2): 4 sqrt(4 A (1 + u^2) + B) / A, A = G - 1, B = (G-2)(G-3)",
            "4 A + B = G^2 - G + 2",
        ),
        [
            sp.diff(primitive, u) - sp.sqrt(c**2 * u**2 + d**2),
            integrand - 16 * (4 * a * (1 + u**2) + b) / a**2,
            4 * (g - 1) + (g - 2) * (g - 3) - (g**2 - g + 2),
        ],
    )


def _sample_escape(rng: np.random.Generator, n: int) -> Sample:
    start = sometimes(rng, rng.uniform(-200.0, 100.0, n), rng.uniform(-12.0, 0.0, n))
    return {
        "log_odds": start,
        "target": start + sometimes(rng, log_uniform(rng, 1e-5, 0.2, n), rng.uniform(0.2, 8.0, n)),
        "group": _group_sizes(rng, n, 32),
    }


ESCAPE = Statement(
    slug="group-normalised-escape",
    title="Escape time of a group-normalised logit in closed form, both plateau laws and the passage between them",
    status="T",
    kind="bound",
    hypotheses="mean flow, population std, x_0 < x_1; u = sinh(x/2)",
    latex=r"\int\frac{dx}{\min\{\sqrt{G-1}\,y,\sqrt{(1-1/G)\,y}\}}\le\eta T\le"
    r"\tfrac4{G-1}\int_{u_0}^{u_1}\sqrt{4(G-1)u^2+G^2-G+2}\;du",
    derive=_derive_escape,
    sample=_sample_escape,
    exact=lambda log_odds, target, group: group_escape_time(log_odds, target, 1.0, group),
    bound=lambda log_odds, target, group: group_escape_bounds(log_odds, target, 1.0, group),
    source=_SOURCE,
    test=_TEST,
)


def _sample_plateau(rng: np.random.Generator, n: int) -> Sample:
    group = _group_sizes(rng, n, 32)
    return {"p0": log_uniform(rng, 1e-5, 0.01, n) / group, "group": group}


PLATEAU = Statement(
    slug="group-normalised-plateau",
    title="For G p_0 << 1 group normalisation shortens the 1/p_0 plateau by sqrt(G - 1), and no more",
    status="A",
    kind="approximation",
    hypotheses="G p_0 <= 0.01, target p = 1/2",
    latex=r"T\approx\frac1{\eta\,p_0\sqrt{G-1}}",
    derive=lambda: nothing("lone successes: probability G p, advantage sqrt(G - 1)"),
    sample=_sample_plateau,
    exact=lambda p0, group: group_escape_time(logit(p0), 0.0, 1.0, group),
    bound=lambda p0, group: same(1.0 / (p0 * np.sqrt(group - 1.0))),
    source=_SOURCE,
    test=_TEST,
)


def _sample_root(rng: np.random.Generator, n: int) -> Sample:
    p0 = log_uniform(rng, 0.03, 0.3, n)
    return {"p0": p0, "group": np.floor(rng.uniform(3.0, 12.0, n) / p0)}


ROOT_PLATEAU = Statement(
    slug="group-normalised-root-plateau",
    title="For G p_0 >> 1 the escape follows the square-root clock, 2 / sqrt(p_0) on a plateau",
    status="A",
    kind="approximation",
    hypotheses="3 <= G p_0 <= 12, p_0 in [0.03, 0.3], target p = 0.8",
    latex=r"T\approx\frac{F_{1/2}(x^*)-F_{1/2}(x_0)}\eta,\qquad F_{1/2}(x)=4\sinh\tfrac x2",
    derive=lambda: nothing("law of large numbers for X"),
    sample=_sample_root,
    exact=lambda p0, group: group_escape_time(logit(p0), np.log(4.0), 1.0, group),
    bound=lambda p0, group: same(learning_clock_between(logit(p0), np.log(4.0), "normalised") + 0.0 * group),
    source=_SOURCE,
    test=_TEST,
    max_examples=20_000,
)

STATEMENTS = (DRIFT, PLAIN, DEAD, SANDWICH, EPSILON, ESCAPE, PLATEAU, ROOT_PLATEAU)
