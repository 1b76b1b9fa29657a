"""Statements of section 12d, what a context does to the asymptote: at a finite horizon, under a KL leash, for skill."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import expit

from fstsim.theory.clocks import integrate, mobility_of
from fstsim.theory.fast_slow import leashed_optimum, no_context_kl, skill_per_drift_ratio
from fstsim.theory.numerics.flows import flow_end
from fstsim.theory.statements.instances import log_uniform, same, sometimes
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import numeric, sigmoid, symbolic, vanishes_at

Array = NDArray[np.float64]
_TEST = "tests/theory/test_fast_slow.py"
_SOURCE = "arXiv 2605.12484 (setting); own derivation"


def _derive_horizon() -> Derivation:
    x, rate, g = sp.symbols("x rate g", positive=True)
    slope = sigmoid(x) * sigmoid(-x)
    return symbolic(
        ("with y = F(x), dy/dt = rate g(m): the system in (y, m) is cooperative and increasing in the rate",),
        [sp.diff(2 * x + 2 * sp.sinh(x), x) * rate * slope * g - rate * g],
    )


def _sample_horizon(rng: np.random.Generator, n: int) -> Sample:
    return {
        "base": rng.uniform(-4.0, 1.0, n),
        "skill": rng.uniform(0.05, 0.9, n),
        "skill_rate": log_uniform(rng, 0.02, 1.0, n),
        "eta_slow": log_uniform(rng, 0.1, 1.0, n),
        "eta_fast": log_uniform(rng, 0.003, 1.0, n),
        "horizon": rng.uniform(1.0, 30.0, n),
    }


def _reward_at_horizon(
    base: Array, skill: Array, skill_rate: Array, eta_slow: Array, eta_fast: Array, horizon: Array, steps: int = 150
) -> Array:
    """Reward ``sigma(x) m`` after ``horizon``, with ``dx = rate sigma'(x) m`` and ``dm = skill_rate sigma(x)(1 - m)``."""
    rate = eta_slow + eta_fast

    def velocity(x: Array, m: Array) -> tuple[Array, Array]:
        return rate * mobility_of(x) * m, skill_rate * expit(x) * (1.0 - m)

    x, m = flow_end(velocity, (base, skill), horizon, steps)
    return np.asarray(expit(x) * m)


FINITE_HORIZON = Statement(
    slug="fast-slow-finite-horizon",
    title="At every finite horizon the two channels together have the higher reward",
    status="T",
    kind="bound",
    hypotheses="skill m grows as d m/dt = eta_m sigma(x) g'(m), g increasing; no asymptotic difference without a horizon, leash or budget",
    latex=r"R_{FST}(T)\ge R_{RL}(T)\quad\text{for all }T",
    derive=_derive_horizon,
    sample=_sample_horizon,
    exact=_reward_at_horizon,
    bound=lambda **x: (_reward_at_horizon(**{**x, "eta_fast": np.zeros_like(x["base"])}), None),
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-8,  # fixed-step integration; both sides err alike
)


def _derive_leash() -> Derivation:
    s, s0, room, g, lam = sp.symbols("s s0 Phi g lambda", real=True)
    p = sigmoid(s)
    k = p * (s - s0) - sp.log(1 + sp.exp(s)) + sp.log(1 + sp.exp(s0))
    slope, lifted = sp.diff(sigmoid(s), s), sp.diff(sigmoid(s + room), s)
    value = sigmoid(s + room) * g - lam * k
    ratio = sp.exp(room) * ((1 + sp.exp(s)) / (1 + sp.exp(s + room))) ** 2
    points = [
        {s: sp.Rational(1, 3), s0: -2, room: 1, g: sp.Rational(2, 3), lam: sp.Rational(1, 5)},
        {s: sp.Rational(-5, 2), s0: -3, room: 2, g: 1, lam: 2},
        {s: 1, s0: sp.Rational(1, 2), room: sp.Rational(3, 7), g: 2, lam: 3},
    ]
    return numeric(
        (
            "stationary: g sigma'(s + Phi) = lambda (s - s0) sigma'(s)",
            "sigma'(s + Phi) / sigma'(s) = e^Phi ((1 + e^s) / (1 + e^(s + Phi)))^2, between e^-Phi and e^Phi, decreasing, 1 at -Phi/2",
        ),
        [
            vanishes_at(sp.diff(value, s) - (g * lifted - lam * (s - s0) * slope), points),
            vanishes_at(lifted / slope - ratio, points) and vanishes_at(ratio.subs(s, -room / 2) - 1, points),
        ],
    )


def _sample_leash(rng: np.random.Generator, n: int) -> Sample:
    return {
        "base": rng.uniform(-8.0, 1.0, n),
        "leash": log_uniform(rng, 0.05, 5.0, n),
        "capacity": log_uniform(rng, 0.05, 3.0, n),
    }


def _leashed_drift(base: Array, leash: Array, capacity: Array) -> Array:
    """Drift at the maximum of ``sigma(s + Phi) - leash k(s, s0)`` by golden section on the objective itself."""
    low, high = base.copy(), base + np.exp(capacity) / leash
    golden = 0.5 * (np.sqrt(5.0) - 1.0)

    def value(s: Array) -> Array:
        return expit(s + capacity) - leash * no_context_kl(s, base)

    for _ in range(60):
        a, b = high - golden * (high - low), low + golden * (high - low)
        # equal to rounding far out, where the objective is flat: the maximum is to the left
        left = value(a) >= value(b) - 1e-14
        low, high = np.where(left, low, a), np.where(left, b, high)
    return 0.5 * (low + high) - base


def _leash_bounds(base: Array, leash: Array, capacity: Array) -> Bounds:
    alone = 1.0 / leash
    hard = base + alone < -0.5 * capacity
    factor = np.exp(capacity)
    return np.where(hard, alone, alone / factor), np.where(hard, alone * factor, alone)


LEASH = Statement(
    slug="fast-slow-leash",
    title="Under a KL leash a context lowers the slow drift, except on very hard tasks, where it raises it",
    status="T",
    kind="bound",
    hypotheses="objective sigma(s + Phi) g - lambda k(s, s_0) with g = 1; its maximum also exceeds the one without context",
    latex=r"e^{-\Phi}\tfrac g\lambda\le s^*-s_0\le\tfrac g\lambda\ \text{ if }s_0+\tfrac g\lambda\ge-\tfrac\Phi2,\qquad"
    r"\tfrac g\lambda\le s^*-s_0\le e^\Phi\tfrac g\lambda\ \text{ otherwise}",
    derive=_derive_leash,
    sample=_sample_leash,
    exact=lambda base, leash, capacity: leashed_optimum(base, leash, capacity) - base,
    bound=_leash_bounds,
    source=_SOURCE,
    test=_TEST,
)

LEASHED_OPTIMUM = Statement(
    slug="fast-slow-leash-optimum",
    title="Where the KL leash and the context balance",
    status="T",
    kind="identity",
    hypotheses="as before; the value at the root against direct maximisation of the objective",
    latex=r"g\,\sigma'(s^*+\Phi)=\lambda(s^*-s_0)\,\sigma'(s^*)",
    derive=_derive_leash,
    # a weaker leash lets both terms saturate: the objective is then flat to rounding and no direct search can see its maximum
    sample=lambda rng, n: {**_sample_leash(rng, n), "leash": log_uniform(rng, 0.3, 5.0, n)},
    # the objective is flat at its maximum, so that the argument is only found to the root of the rounding
    exact=lambda base, leash, capacity: 1.0 + _leashed_drift(base, leash, capacity),
    bound=lambda base, leash, capacity: same(1.0 + leashed_optimum(base, leash, capacity) - base),
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-4,
)


def _derive_skill() -> Derivation:
    s, room = sp.symbols("s Phi", real=True)
    x = s + room
    per_drift = sigmoid(x) * sigmoid(s) * sigmoid(-s) / (sigmoid(x) * sigmoid(-x))
    alone = sigmoid(s) * sigmoid(s) * sigmoid(-s) / (sigmoid(s) * sigmoid(-s))
    return symbolic(
        ("(sigma(x) sigma'(s) / sigma'(x)) / (sigma(s) sigma'(s) / sigma'(s)) = (1 + e^(s + Phi)) / (1 + e^s)",),
        [per_drift / alone - (1 + sp.exp(x)) / (1 + sp.exp(s))],
    )


def _skill_ratio(log_odds: Array, capacity: Array) -> Array:
    """Skill gained while the slow log-odds move by a little, with context over without, by quadrature along the drift."""
    step = 1e-4

    def gained(room: Array) -> Array:
        x_of = room[:, None]
        return integrate(lambda s: expit(s + x_of) * mobility_of(s) / mobility_of(s + x_of), log_odds, log_odds + step)

    return gained(capacity) / gained(np.zeros_like(capacity))


SKILL = Statement(
    slug="fast-slow-skill",
    title="If exploration comes from the no-context entropy, a context buys more skill per unit of slow drift",
    status="T",
    kind="identity",
    hypotheses="modelling assumption: skill grows like sigma(x) sigma'(s); a stop at fixed slow drift then raises the asymptote",
    latex=r"\frac{dm/ds\,|_{\Phi}}{dm/ds\,|_0}=\frac{1+e^{s+\Phi}}{1+e^s}\in[1,e^\Phi)",
    derive=_derive_skill,
    sample=lambda rng, n: {
        "log_odds": sometimes(rng, rng.uniform(-200.0, 200.0, n), rng.uniform(-6.0, 6.0, n)),
        "capacity": sometimes(rng, log_uniform(rng, 1e-4, 100.0, n), rng.uniform(0.0, 5.0, n)),
    },
    exact=_skill_ratio,
    bound=lambda log_odds, capacity: same(skill_per_drift_ratio(log_odds, capacity)),
    source=_SOURCE,
    test=_TEST,
    tolerance=2e-4,  # a finite step of the drift
)

STATEMENTS = (FINITE_HORIZON, LEASH, LEASHED_OPTIMUM, SKILL)
