"""Statements of sections 12a and 12b: how a gain is split between weights and context, and its KL to the base."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import expit, log_expit

from fstsim.theory.clocks import mobility_of
from fstsim.theory.fast_slow import fast_slow_allocation, kl_reduction, no_context_kl
from fstsim.theory.numerics.arrivals import Rows, first_arrivals
from fstsim.theory.statements.instances import log_uniform, same, sometimes
from fstsim.theory.statements.statement import Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import numeric, sigmoid, symbolic, vanishes_at

Array = NDArray[np.float64]
_TEST = "tests/theory/test_fast_slow.py"
_SOURCE = "arXiv 2605.12484 (setting); own derivation"


# --- allocation (12a) ------------------------------------------------------------------------------------------------


def _derive_allocation() -> Derivation:
    a, b, g, room = sp.symbols("eta_s eta_f G Phi", positive=True)
    rho = a / (a + b)
    # unsaturated: ds : d phi = eta_s : eta_f whatever the common factor; phi = G - s
    return symbolic(
        (
            "ds / (ds + d phi) = rho, because the mobility and the skill are common factors",
            "the context is just full when (1 - rho) G = Phi, where both branches give rho G = G - Phi",
        ),
        [a / (a + b) - rho, (rho * g - (g - room)).subs(room, (1 - rho) * g)],
    )


def _sample_allocation(rng: np.random.Generator, n: int) -> Sample:
    return {
        "base": rng.uniform(-5.0, 1.0, n),
        "gain": rng.uniform(0.5, 6.0, n),
        "eta_slow": log_uniform(rng, 0.1, 3.0, n),
        "eta_fast": log_uniform(rng, 0.1, 3.0, n),
        "capacity": rng.uniform(0.1, 6.0, n),
        "skill": rng.uniform(0.2, 1.0, n),
        "skill_rate": rng.uniform(0.0, 2.0, n),
    }


def _slow_share_of_flow(
    base: Array, gain: Array, eta_slow: Array, eta_fast: Array, capacity: Array, skill: Array, skill_rate: Array
) -> Array:
    """Slow share when the flow of (s, phi, skill) first reaches the target, by an ODE solver with events."""
    goal = base + gain

    def arrive(initial: Array, quick: Array, past: Callable[[Array, Rows], Array]) -> Array:
        # the skill by -log(1 - skill): it fills within a time that is short beside that of the log-odds, and would be stiff
        def velocity(y: Array, rows: Rows) -> Array:
            rate = mobility_of(y[:, 0] + y[:, 1]) * -np.expm1(-y[:, 2])
            learning = skill_rate[rows] * expit(y[:, 0] + y[:, 1])
            return np.stack([eta_slow[rows] * rate, quick[rows] * rate, learning], axis=-1)

        return first_arrivals(velocity, initial, past).state

    def reached(y: Array, rows: Rows) -> Array:
        return y[:, 0] + y[:, 1] - goal[rows]

    def full(y: Array, rows: Rows) -> Array:
        return y[:, 1] - capacity[rows]

    initial = np.stack([base, np.zeros_like(base), -np.log1p(-skill)], axis=-1)
    here = arrive(initial, eta_fast, lambda y, rows: np.maximum(reached(y, rows), full(y, rows)))
    # whoever stopped because the context is full goes on without it
    rest = full(here, np.arange(base.size)) >= reached(here, np.arange(base.size))
    end = arrive(here, np.where(rest, 0.0, eta_fast), reached)
    return (end[:, 0] - base) / gain


ALLOCATION = Statement(
    slug="fast-slow-allocation",
    title="How a gain is split between weights and context: the slower share, unless the context fills",
    status="T",
    kind="identity",
    hypotheses="gradient-like fast channel, any positive mobility and skill; the split when the target is first reached",
    latex=r"\Delta s=\vartheta G,\qquad\vartheta=\max\Big\{\tfrac{\eta_s}{\eta_s+\eta_f},\ 1-\tfrac\Phi G\Big\}",
    derive=_derive_allocation,
    sample=_sample_allocation,
    exact=_slow_share_of_flow,
    bound=lambda base, gain, eta_slow, eta_fast, capacity, skill, skill_rate: same(  # noqa: ARG005
        fast_slow_allocation(eta_slow, eta_fast, capacity, gain)
    ),
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-6,  # of the ODE solver
    max_examples=2000,
)


# --- KL at matched reward (12b) ----------------------------------------------------------------------------------------


def _derive_kl() -> Derivation:
    s, s0 = sp.symbols("s s0", real=True)
    p, p0 = sigmoid(s), sigmoid(s0)
    k = p * (s - s0) - sp.log(1 + sp.exp(s)) + sp.log(1 + sp.exp(s0))
    direct = p * sp.log(p / p0) + (1 - p) * sp.log((1 - p) / (1 - p0))
    points = [{s: sp.Rational(1, 3), s0: -2}, {s: sp.Rational(-7, 2), s0: sp.Rational(1, 5)}, {s: 4, s0: 3}]
    return numeric(
        (
            "k(s, s0) is the divergence of the two Bernoulli laws",
            "d k / d s = (s - s0) sigma'(s), so that k is the integral of y sigma'(s0 + y)",
        ),
        [vanishes_at(k - direct, points), vanishes_at(sp.diff(k, s) - (s - s0) * sp.diff(sigmoid(s), s), points)],
    )


def _bernoulli_kl(log_odds: Array, base: Array) -> Array:
    p = expit(log_odds)
    return p * (log_expit(log_odds) - log_expit(base)) + expit(-log_odds) * (log_expit(-log_odds) - log_expit(-base))


def _sample_kl(rng: np.random.Generator, n: int) -> Sample:
    base = sometimes(rng, rng.uniform(-600.0, 600.0, n), rng.uniform(-8.0, 8.0, n))
    away = sometimes(rng, log_uniform(rng, 0.01, 50.0, n), rng.uniform(0.2, 8.0, n))
    return {"log_odds": base + rng.choice([-1.0, 1.0], n) * away, "base": base}


MATCHED_KL = Statement(
    slug="fast-slow-kl",
    title="KL of the no-context decision from the base, as an integral over the slow drift",
    status="T",
    kind="identity",
    hypotheses="any two log-odds",
    latex=r"\mathrm{KL}(\pi_{\text{no ctx}}\Vert\text{base})=k(s,s_0)=\int_0^{s-s_0}y\,\sigma'(s_0+y)\,dy\le\log\tfrac1{p_0}",
    derive=_derive_kl,
    sample=_sample_kl,
    exact=_bernoulli_kl,
    bound=lambda log_odds, base: same(no_context_kl(log_odds, base)),
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-8,  # the direct formula cancels
)


def _derive_quadratic() -> Derivation:
    s0, v, w, g = sp.symbols("s0 v w G", real=True)
    return symbolic(
        (
            "(s0 + v w)^2 - (s0 + w)^2 = (v - 1) w (2 s0 + (1 + v) w): nonnegative on [0, G] iff (1 + v) G <= -2 s0",
            "y = v w: int_0^(vG) y f(s0 + y) dy = v^2 int_0^G w f(s0 + v w) dw",
        ),
        [
            (s0 + v * w) ** 2 - (s0 + w) ** 2 - (v - 1) * w * (2 * s0 + (1 + v) * w),
            sp.integrate(v * w * (v * w) ** 3 * v, (w, 0, g)) - sp.integrate(w**4, (w, 0, v * g)),
        ],
    )


def _sample_quadratic(rng: np.random.Generator, n: int) -> Sample:
    base = -rng.uniform(0.5, 8.0, n)
    share = rng.uniform(0.05, 0.95, n)
    return {"base": base, "gain": -2.0 * base / (1.0 + share) * rng.uniform(0.01, 1.0, n), "share": share}


QUADRATIC_LAW = Statement(
    slug="fast-slow-quadratic-law",
    title="At matched reward the KL falls at least like the square of the slow share, for targets that are not too high",
    status="T",
    kind="bound",
    hypotheses="s_0 < 0, 0 <= vartheta <= 1 and x* <= |s_0| - vartheta G (so whenever x* <= 0); false in general",
    latex=r"k(s_0+\vartheta G,s_0)\le\vartheta^2\,k(s_0+G,s_0)",
    derive=_derive_quadratic,
    sample=_sample_quadratic,
    exact=lambda base, gain, share: no_context_kl(base + share * gain, base),
    bound=lambda base, gain, share: (None, share**2 * no_context_kl(base + gain, base)),
    source=_SOURCE,
    test=_TEST,
)


def _derive_small_gain() -> Derivation:
    v, g, y = sp.symbols("v G y", real=True)
    f0, f1 = sp.symbols("f0 f1")  # sigma'(s0), sigma''(s0)
    k = sp.integrate(y * (f0 + f1 * y), (y, 0, g))
    ratio = sp.series(k.subs(g, v * g) / k, g, 0, 1).removeO()
    return symbolic(("k(s0 + v G) / k(s0 + G) -> v^2 as G -> 0",), [ratio - v**2])


SMALL_GAIN = Statement(
    slug="fast-slow-reduction",
    title="For small gains the KL at matched reward falls by 1 - vartheta^2: 70 % needs a slow share below 0.548",
    status="A",
    kind="approximation",
    hypotheses="G <= 0.5, |s_0| <= 3",
    latex=r"1-\frac{k(s_0+\vartheta G,s_0)}{k(s_0+G,s_0)}=1-\vartheta^2+O(G)",
    derive=_derive_small_gain,
    sample=lambda rng, n: {
        "base": rng.uniform(-3.0, 3.0, n),
        "gain": rng.uniform(0.01, 0.5, n),
        "share": rng.uniform(0.05, 0.9, n),
    },
    exact=lambda base, gain, share: kl_reduction(base, base + gain, share),
    bound=lambda base, gain, share: same(1.0 - share**2 + 0.0 * base * gain),
    source=_SOURCE,
    test=_TEST,
)

STATEMENTS = (ALLOCATION, MATCHED_KL, QUADRATIC_LAW, SMALL_GAIN)
