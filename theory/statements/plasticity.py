"""Statements of sections 13.1 and 13.2: relearning time, what drift costs, its two laws in the KL to the base."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import entr, expit

from fstsim.theory.clocks import integrate, mobility_of
from fstsim.theory.fast_slow import no_context_kl
from fstsim.theory.plasticity import kl_gap, relearning_time, relearning_time_from_kl
from fstsim.theory.statements.instances import log_uniform, same, sometimes
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import nothing, numeric, sigmoid, symbolic, vanishes_at

Array = NDArray[np.float64]
_TEST = "tests/theory/test_plasticity.py"
_SOURCE = "arXiv 2605.12484 (setting); own derivation"


# --- relearning time (13.1) ------------------------------------------------------------------------------------------


def _derive_relearning() -> Derivation:
    x, s = sp.symbols("x S", real=True)
    f = 2 * x + 2 * sp.sinh(x)
    return symbolic(
        ("F' sigma' = 1", "F is odd", "F(S) = 2 S + e^S - e^-S, between 2 S + e^S - 1 and 2 S + e^S for S >= 0"),
        [
            sp.diff(f, x) * sigmoid(x) * sigmoid(-x) - 1,
            f + f.subs(x, -x),
            f.subs(x, s) - (2 * s + sp.exp(s) - sp.exp(-s)),
        ],
    )


def _sample_relearning(rng: np.random.Generator, n: int) -> Sample:
    start = sometimes(rng, rng.uniform(-600.0, 600.0, n), rng.uniform(-12.0, 4.0, n))
    gain = sometimes(rng, log_uniform(rng, 1e-6, 0.1, n), rng.uniform(0.1, 10.0, n))
    return {"log_odds": start, "target": start + gain, "rate": rng.uniform(0.05, 5.0, n)}


RELEARNING = Statement(
    slug="plasticity-relearning-time",
    title="Time to learn from given log-odds: exponential in the drift",
    status="T",
    kind="identity",
    hypotheses="policy gradient on one logit, learning rate x reward gap = eta",
    latex=r"T(s_0\to s^*)=\frac{F(s^*)-F(s_0)}\eta,\qquad F(x)=2x+2\sinh x",
    derive=_derive_relearning,
    sample=_sample_relearning,
    exact=lambda log_odds, target, rate: integrate(lambda x: 1.0 / (rate[:, None] * mobility_of(x)), log_odds, target),
    bound=lambda log_odds, target, rate: same(relearning_time(log_odds, target, rate)),
    source=_SOURCE,
    test=_TEST,
)

DRIFT_BRACKET = Statement(
    slug="plasticity-drift",
    title="What drift costs: e^S, up to its sign and one unit",
    status="T",
    kind="bound",
    hypotheses="S >= 0",
    latex=r"2S+e^S-1\le F(S)\le2S+e^S",
    derive=_derive_relearning,
    sample=lambda rng, n: {"drift": rng.uniform(0.01, 15.0, n)},
    exact=lambda drift: integrate(lambda x: 1.0 / mobility_of(x), np.zeros_like(drift), drift),
    bound=lambda drift: (2.0 * drift + np.expm1(drift), 2.0 * drift + np.exp(drift)),
    source=_SOURCE,
    test=_TEST,
)


# --- as a function of the KL to the base (13.2) -------------------------------------------------------------------------


def _derive_gap() -> Derivation:
    s, b = sp.symbols("S s_b", real=True)
    p = sigmoid(s)
    kl = p * (s - b) - sp.log(1 + sp.exp(s)) + sp.log(1 + sp.exp(b))
    gap = sp.log(1 + sp.exp(-s)) + (s - b) * sigmoid(-s)
    points = [{s: 2, b: sp.Rational(1, 3)}, {s: sp.Rational(7, 2), b: -1}, {s: sp.Rational(1, 5), b: -3}]
    return numeric(
        ("log 1/p_b - KL(pi || b) = log(1 + e^-S) + (S - s_b) sigma(-S)", "d gap / dS = -(S - s_b) sigma'(S)"),
        [
            vanishes_at(sp.log(1 + sp.exp(-b)) - kl - gap, points),
            vanishes_at(sp.diff(gap, s) + (s - b) * sigmoid(s) * sigmoid(-s), points),
        ],
    )


def _sample_drift(rng: np.random.Generator, n: int) -> Sample:
    base = sometimes(rng, rng.uniform(-300.0, 30.0, n), rng.uniform(-4.0, 4.0, n))
    return {"drift": base + sometimes(rng, rng.uniform(12.0, 300.0, n), rng.uniform(0.05, 12.0, n)), "base": base}


POLE = Statement(
    slug="plasticity-pole",
    title="Relearning time has a pole where KL(policy || base) saturates, at log 1/p_b",
    status="T",
    kind="bound",
    hypotheses="S > s_b; with F(S) ~ e^S this bounds the time from the KL alone",
    latex=r"\frac{S-s_b}\Delta-1\le e^S\le\frac{S-s_b+1}\Delta,\qquad\Delta=\log\tfrac1{p_b}-\mathrm{KL}(\pi\Vert b)",
    derive=_derive_gap,
    sample=_sample_drift,
    exact=lambda drift, base: 1.0 + np.exp(drift) + 0.0 * base,
    bound=lambda drift, base: (
        (drift - base) / kl_gap(drift, base),
        1.0 + (drift - base + 1.0) / kl_gap(drift, base),
    ),
    source=_SOURCE,
    test=_TEST,
)


def _derive_from_base() -> Derivation:
    s, b = sp.symbols("S s_b", real=True)
    p = sigmoid(b)
    direct = p * sp.log(p / sigmoid(s)) + (1 - p) * sp.log((1 - p) / sigmoid(-s))
    entropy = -p * sp.log(p) - (1 - p) * sp.log(1 - p)
    points = [{s: 2, b: sp.Rational(1, 3)}, {s: sp.Rational(7, 2), b: -1}, {s: sp.Rational(1, 5), b: -3}]
    return numeric(
        ("KL(b || pi) = softplus(S) - p_b S - H(p_b); S <= softplus(S) <= S + log 2 for S >= 0",),
        [vanishes_at(direct - (sp.log(1 + sp.exp(s)) - p * s - entropy), points)],
    )


def _entropy(base: Array) -> Array:
    return entr(expit(base)) + entr(expit(-base))


def _forward_bounds(drift: Array, base: Array) -> Bounds:
    kl, h = no_context_kl(base, drift), _entropy(base)
    return np.maximum(kl + h - np.log(2.0), 0.0) / expit(-base), (kl + h) / expit(-base)


FORWARD_LAW = Statement(
    slug="plasticity-forward-kl",
    title="Drift is linear, and relearning time exponential, in KL(base || policy)",
    status="T",
    kind="bound",
    hypotheses="S > 0, S > s_b",
    latex=r"\frac{\mathrm{KL}(b\Vert\pi)+H(p_b)-\log2}{1-p_b}\le S\le\frac{\mathrm{KL}(b\Vert\pi)+H(p_b)}{1-p_b}",
    derive=_derive_from_base,
    sample=lambda rng, n: {
        "drift": rng.uniform(0.05, 12.0, n) + np.maximum(base := rng.uniform(-4.0, 4.0, n), 0.0),
        "base": base,
    },
    exact=lambda drift, base: drift + 0.0 * base,
    bound=_forward_bounds,
    source=_SOURCE,
    test=_TEST,
)


def _sample_time_from_kl(rng: np.random.Generator, n: int) -> Sample:
    base = rng.uniform(-2.0, 1.0, n)
    return {"drift": rng.uniform(5.0, 10.0, n), "base": base}


EXPONENTIAL = Statement(
    slug="plasticity-exponent",
    title="log T against KL(base || policy) is a line of slope 1/(1 - p_b)",
    status="A",
    kind="approximation",
    hypotheses="S in [5, 10], s* = 2; the leading order exp((KL + H)/(1 - p_b))",
    latex=r"T\approx\frac1\eta\exp\frac{\mathrm{KL}(b\Vert\pi)+H(p_b)}{1-p_b}",
    derive=lambda: nothing("F(S) ~ e^S and softplus(S) ~ S"),
    sample=_sample_time_from_kl,
    exact=lambda drift, base: relearning_time_from_kl(no_context_kl(base, drift), base, 2.0, 1.0, "from_base"),
    bound=lambda drift, base: same(np.exp((no_context_kl(base, drift) + _entropy(base)) / expit(-base))),
    source=_SOURCE,
    test=_TEST,
)

STATEMENTS = (RELEARNING, DRIFT_BRACKET, POLE, FORWARD_LAW, EXPONENTIAL)
