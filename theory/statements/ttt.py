"""Statements of section 9: the entropic utility with a leash."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import expit, logit

from fstsim.theory.clocks import learning_clock_between
from fstsim.theory.statements.instances import log_uniform, sometimes
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import nothing, numeric, sigmoid, symbolic, vanishes_at
from fstsim.theory.ttt import (
    entropic_bracket,
    entropic_drift_bound,
    entropic_optimum,
    entropic_overlap_bounds,
    entropic_retention_threshold,
    entropic_tilt_log_odds,
    entropic_unleashed_time,
)

Array = NDArray[np.float64]
_TEST = "tests/theory/test_ttt.py"
_SOURCE = "arXiv 2601.16175 (method), arXiv 2603.12163 (setting); own derivation"


def utility_slope(log_odds: Array, base_log_odds: Array, scaled_gap: Array, kl_weight: Array) -> Array:
    """``d/ds [log E e^(br) - lambda KL]`` by a complex step through the definition: no derivative formula enters."""
    tiny = 1e-100
    s = log_odds + 1j * tiny
    old, new = 1.0 / (1.0 + np.exp(-s)), 1.0 / (1.0 + np.exp(s))
    log_old, log_new = -np.log1p(np.exp(-s)), -np.log1p(np.exp(s))
    base_old, base_new = -np.log1p(np.exp(-base_log_odds)), -np.log1p(np.exp(base_log_odds))
    leash = old * (log_old - base_old) + new * (log_new - base_new)
    # E e^(br) up to the constant e^(b r_old)
    return (np.log(old + new * np.exp(scaled_gap)) - kl_weight * leash).imag / tiny


# --- the self-consistent tilt (9.1) ----------------------------------------------------------------------------------


def _derive_tilt() -> Derivation:
    s, s0, g, lam = sp.symbols("s s_0 g lambda", positive=True)
    b, b0 = sigmoid(s), sigmoid(s0)
    utility = sp.log(b + (1 - b) * sp.exp(g)) - lam * (b * sp.log(b / b0) + (1 - b) * sp.log((1 - b) / (1 - b0)))
    shift = (sp.exp(g) - 1) / (b + (1 - b) * sp.exp(g))
    claimed = lam * b * (1 - b) * (s0 - s - shift / lam)
    points = [
        {s: sp.Rational(1, 3), s0: sp.Rational(2, 5), g: sp.Rational(7, 4), lam: sp.Rational(3, 2)},
        {s: sp.Rational(9, 4), s0: sp.Rational(1, 7), g: sp.Rational(1, 5), lam: sp.Rational(1, 3)},
        {s: sp.Rational(1, 50), s0: sp.Rational(5, 2), g: 4, lam: sp.Rational(8, 9)},
    ]
    return numeric(
        (
            "d/ds [log E e^(br) - lambda KL] = lambda sigmoid'(s) (s_0 - s - shift(s) / lambda)",
            "d shift / ds = sigmoid'(s) shift^2 > 0: one root",
        ),
        [
            vanishes_at(sp.diff(utility, s) - claimed, points),
            vanishes_at(sp.diff(shift, s) - b * (1 - b) * shift**2, points),
        ],
    )


def _sample_tilt(rng: np.random.Generator, n: int) -> Sample:
    return {
        "base_log_odds": sometimes(rng, rng.uniform(-30.0, 30.0, n), rng.uniform(-3.0, 3.0, n)),
        "scaled_gap": rng.choice([-1.0, 1.0], n)
        * sometimes(rng, log_uniform(rng, 8.0, 100.0, n), log_uniform(rng, 0.05, 8.0, n)),
        "kl_weight": log_uniform(rng, 0.2, 10.0, n),
    }


def _maximiser(base_log_odds: Array, scaled_gap: Array, kl_weight: Array) -> Array:
    """Odds of the maximiser of the utility, by bisection on its slope."""
    low, high = base_log_odds - 250.0, base_log_odds + 250.0
    for _ in range(70):
        middle = 0.5 * (low + high)
        rising = utility_slope(middle, base_log_odds, scaled_gap, kl_weight) > 0.0
        low, high = np.where(rising, middle, low), np.where(rising, high, middle)
    return np.exp(0.5 * (low + high))


def _tilted_odds(base_log_odds: Array, scaled_gap: Array, kl_weight: Array) -> Bounds:
    value = np.exp(entropic_tilt_log_odds(base_log_odds, scaled_gap, kl_weight))
    return value, value


TILT = Statement(
    slug="ttt-discover",
    title="TTT-Discover's optimum is a self-consistent tilt, not the plain e^(br)",
    status="T",
    kind="identity",
    hypotheses="two outcomes, lambda > 0; odds of the old mode at the maximiser of log E e^(br) - lambda KL",
    latex=r"s^*+\frac1\lambda\,\frac{e^g-1}{\beta^*+(1-\beta^*)e^g}=s_0\ \text{(unique)},\qquad"
    r"\pi^*\propto\pi_0\,e^{e^{br}/\lambda Z},\ Z=\mathbb E_{\pi^*}e^{br}",
    derive=_derive_tilt,
    sample=_sample_tilt,
    exact=_maximiser,
    bound=_tilted_odds,
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-9,  # the maximiser's log-odds to 1e-12 of numbers up to 100
)


# --- retention (9.2) ---------------------------------------------------------------------------------------------------


def _gain(base_log_odds: Array, scaled_gap: Array, kl_weight: Array) -> Array:
    """Log-odds that the favoured mode gains."""
    return np.abs(base_log_odds - entropic_tilt_log_odds(base_log_odds, scaled_gap, kl_weight))


def _gain_bounds(base_log_odds: Array, scaled_gap: Array, kl_weight: Array) -> Bounds:
    low, high = entropic_bracket(base_log_odds, scaled_gap, kl_weight)
    near, far = np.abs(base_log_odds - low), np.abs(base_log_odds - high)
    return np.minimum(near, far), np.maximum(near, far)


BRACKET = Statement(
    slug="ttt-discover-retention",
    title="The entropic utility limits itself: the old mode loses at most 1/(lambda (1 - beta_0)), whatever the gap",
    status="T",
    kind="bound",
    hypotheses="two outcomes, lambda > 0; written for g > 0, mirrored for g < 0",
    latex=r"\frac{1-e^{-g}}\lambda\le s_0-s^*\le\frac{e^g-1}{\lambda(\beta_0+(1-\beta_0)e^g)}\le\frac1{\lambda(1-\beta_0)}",
    derive=_derive_tilt,
    sample=_sample_tilt,
    exact=_gain,
    bound=_gain_bounds,
    source=_SOURCE,
    test=_TEST,
)


def _sample_threshold(rng: np.random.Generator, n: int) -> Sample:
    s0 = rng.uniform(-2.0, 3.0, n)
    return {
        "base_log_odds": s0,
        "scaled_gap": log_uniform(rng, 0.05, 20.0, n),
        "min_mass": expit(s0 - rng.uniform(0.05, 5.0, n)),
    }


def _mass_at_threshold(base_log_odds: Array, scaled_gap: Array, min_mass: Array) -> Array:
    leash = entropic_retention_threshold(base_log_odds, scaled_gap, min_mass)
    return expit(entropic_tilt_log_odds(base_log_odds, scaled_gap, leash))


THRESHOLD = Statement(
    slug="ttt-discover-threshold",
    title="The leash that just keeps a given old mass",
    status="T",
    kind="identity",
    hypotheses="two outcomes, g > 0, alpha < beta_0; old mass at that leash (it increases with the leash)",
    latex=r"\beta^*\ge\alpha\iff\lambda\ge\frac{e^g-1}{(\alpha+(1-\alpha)e^g)\,(s_0-\mathrm{logit}\,\alpha)}",
    derive=_derive_tilt,
    sample=_sample_threshold,
    exact=_mass_at_threshold,
    bound=lambda base_log_odds, scaled_gap, min_mass: (min_mass, min_mass),  # noqa: ARG005
    source=_SOURCE,
    test=_TEST,
)


def _derive_unleashed() -> Derivation:
    s, g = sp.symbols("s g", real=True)
    b = sigmoid(s)
    shift = (sp.exp(g) - 1) / (b + (1 - b) * sp.exp(g))
    time = (s + sp.exp(s) + sp.exp(g) * (s - sp.exp(-s))) / (sp.exp(g) - 1)
    return symbolic(
        ("dt/ds = 1 / (sigmoid'(s) shift(s)) for t = (s + e^s + e^g (s - e^-s)) / (e^g - 1)",),
        [sp.diff(time, s) - 1 / (b * (1 - b) * shift)],
    )


def _sample_unleashed(rng: np.random.Generator, n: int) -> Sample:
    s0 = sometimes(rng, rng.uniform(-40.0, 40.0, n), rng.uniform(-3.0, 3.0, n))
    return {
        "s0": s0,
        "s1": s0 - sometimes(rng, log_uniform(rng, 1e-9, 0.05, n), log_uniform(rng, 0.05, 15.0, n)),
        "scaled_gap": log_uniform(rng, 0.01, 6.0, n),
    }


def _unleashed_bounds(s0: Array, s1: Array, scaled_gap: Array) -> Bounds:
    clock = learning_clock_between(s1, s0)
    return clock / np.expm1(scaled_gap), clock / -np.expm1(-scaled_gap)


UNLEASHED = Statement(
    slug="ttt-discover-no-leash",
    title="Without a leash the entropic utility loses the old mass like 1/t",
    status="T",
    kind="bound",
    hypotheses="lambda = 0, g > 0, Euclidean logit flow; exact time from s_0 to s_1",
    latex=r"\frac{F(s_0)-F(s_1)}{e^g-1}\le t=\frac{[x+e^x+e^g(x-e^{-x})]_{s_1}^{s_0}}{e^g-1}\le\frac{F(s_0)-F(s_1)}{1-e^{-g}}",
    derive=_derive_unleashed,
    sample=_sample_unleashed,
    exact=entropic_unleashed_time,
    bound=_unleashed_bounds,
    source=_SOURCE,
    test=_TEST,
)


# --- overlap and drift (9.3) -------------------------------------------------------------------------------------------


def _derive_chord() -> Derivation:
    c, g, rho = sp.symbols("c g rho", positive=True)
    f = sp.exp(c * sp.exp(g * rho) - c)
    gap = (1 + (f.subs(rho, 1) - 1) * rho - f) / (rho * (1 - rho))
    claimed = sp.diff(f, rho).subs(rho, 1) - f.subs(rho, 1) + 1
    log_slope = sp.log(c * g) + g * rho + c * sp.exp(g * rho) - c  # of f'
    return symbolic(
        (
            "log f' is convex in rho, f = e^(l - l(0)): f' runs below its chord",
            "the gap between chord and f, per rho (1 - rho), tends to f'(1) - f(1) + f(0) at rho = 1",
        ),
        [
            sp.diff(log_slope, rho, 2) - c * g**2 * sp.exp(g * rho),
            sp.limit(gap, rho, 1) - claimed,
        ],
    )


def _sample_overlap(rng: np.random.Generator, n: int) -> Sample:
    s0, gap = rng.uniform(-2.0, 2.0, n), rng.uniform(0.1, 4.0, n)
    # the largest tilt l(1) - l(0) is drawn, at most 8 nats: beyond, the bounds say little and the grids grow
    tilt = log_uniform(rng, 0.1, 8.0, n)
    return {
        "base_log_odds": s0,
        "scaled_gap": gap,
        "kl_weight": np.expm1(gap) * np.exp(-gap * expit(-s0)) / tilt,
        "delta": rng.uniform(1.0, 10.0, n),
    }


def _old_odds(base_log_odds: Array, scaled_gap: Array, kl_weight: Array, delta: Array) -> Array:
    return np.exp(logit(entropic_optimum(base_log_odds, scaled_gap, kl_weight, delta).old_mass))


OVERLAP = Statement(
    slug="ttt-discover-overlap",
    title="The retention bracket survives overlap, up to kappa",
    status="T",
    kind="bound",
    hypotheses="optimum over all densities, reward by base responsibility, g > 0; odds of the old mode, h = beta_0 (1 - beta_0) kappa",
    latex=r"e^{s_0-\frac{e^g-1}{\lambda\underline Z}}\le\frac M{1-M}\le\frac{1+(e^L-1)h/\beta_0}"
    r"{\frac{1-\beta_0}{\beta_0}e^L-(K+e^L-1)h/\beta_0},\quad L=\tfrac{1-e^{-g}}\lambda,\ "
    r"\underline Z=\max\{e^{g(1-\beta_0)},\beta_0+(1-\beta_0)e^g-K_gh\}",
    derive=_derive_chord,
    sample=_sample_overlap,
    exact=_old_odds,
    bound=entropic_overlap_bounds,
    source=_SOURCE,
    test=_TEST,
)


def _old_shift(base_log_odds: Array, scaled_gap: Array, kl_weight: Array, delta: Array) -> Array:
    return entropic_optimum(base_log_odds, scaled_gap, kl_weight, delta).old_shift


DRIFT = Statement(
    slug="ttt-discover-drift",
    title="The old mode's drift is gated by overlap while the tilt is O(1), and only if the reward is flat inside it",
    status="T",
    kind="bound",
    hypotheses="optimum over all densities, reward by base responsibility, g > 0; shift of the tilted old component",
    latex=r"\mathrm{shift}\le\delta\sqrt{\tfrac{1-\beta_0}{\beta_0}}\,\mathrm{BC}\,\Big[H_0C(\delta)+(H_1-H_0)\min\big(\tfrac18,"
    r"\tfrac{\sqrt{\pi/128}}\delta\big)\Big],\quad H_0=g\,l(0),\ H_1=g\,l(1)e^{l(1)-l(0)}",
    derive=_derive_chord,
    sample=_sample_overlap,
    exact=_old_shift,
    bound=lambda base_log_odds, scaled_gap, kl_weight, delta: (
        np.zeros_like(delta),
        entropic_drift_bound(base_log_odds, scaled_gap, kl_weight, delta),
    ),
    source=_SOURCE,
    test=_TEST,
)


def _sample_contrast(rng: np.random.Generator, n: int) -> Sample:
    return {
        "base_log_odds": rng.uniform(-2.0, 2.0, n),
        "gap": rng.uniform(0.1, 3.0, n),
        "leash": rng.uniform(0.3, 3.0, n),
        "b": np.full(n, 1e-3),
    }


def _plain_limit(base_log_odds: Array, gap: Array, leash: Array, b: Array) -> Bounds:  # noqa: ARG001
    value = np.exp(base_log_odds - gap / leash)
    return value, value


SMALL_B = Statement(
    slug="ttt-discover-small-b",
    title="A weak exponent is ordinary RL with a KL leash, whose loss grows with the reward gap",
    status="A",
    kind="approximation",
    hypotheses="b -> 0 with lambda = b lambda'; here b = 0.001; odds of the old mode",
    latex=r"s^*\to s_0-\Delta r/\lambda'",
    derive=lambda: nothing("both ends of the bracket tend to the same shift"),
    sample=_sample_contrast,
    exact=lambda base_log_odds, gap, leash, b: np.exp(entropic_tilt_log_odds(base_log_odds, b * gap, b * leash)),
    bound=_plain_limit,
    source=_SOURCE,
    test=_TEST,
)

STATEMENTS = (
    TILT,
    BRACKET,
    THRESHOLD,
    UNLEASHED,
    OVERLAP,
    DRIFT,
    SMALL_B,
)
