"""Statements of section 13: relearning time, its two laws in the KL to the base, task sequences, K behaviours."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import entr, expit, logit

from fstsim.theory.clocks import (
    integrate,
    inverse_learning_clock,
    learning_clock,
    learning_clock_between,
    mobility_of,
)
from fstsim.theory.fast_slow import no_context_kl, time_to_reward
from fstsim.theory.instances import same
from fstsim.theory.plasticity import (
    kl_gap,
    relearning_time,
    relearning_time_from_kl,
    softmax_relearning_bounds,
    softmax_start,
    task_sequence,
)
from fstsim.theory.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.symbolic import nothing, numeric, sigmoid, symbolic, vanishes_at

Array = NDArray[np.float64]
_TEST = "tests/theory/test_plasticity.py"
_FIGURE = "plasticity"
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
    start = rng.uniform(-12.0, 4.0, n)
    return {"log_odds": start, "target": start + rng.uniform(0.1, 10.0, n), "rate": rng.uniform(0.05, 5.0, n)}


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
    figure=_FIGURE,
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
    figure=_FIGURE,
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
    base = rng.uniform(-4.0, 4.0, n)
    return {"drift": base + rng.uniform(0.05, 12.0, n), "base": base}


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
    figure=_FIGURE,
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
    figure=_FIGURE,
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
    figure=_FIGURE,
    test=_TEST,
)


# --- sequences of conflicting tasks (13.3) ------------------------------------------------------------------------------


def _derive_sequence() -> Derivation:
    s, x, rho = sp.symbols("s x rho", positive=True)
    fixed = rho * x / (2 - rho)
    return symbolic(
        (
            "slow state: -s + rho (x* + s) = rho x* - (1 - rho) s",
            "its fixed point is rho x* / (2 - rho)",
            "it maps [0, rho x*] into [rho^2 x*, rho x*]: the worst start is the second one, -rho x*",
        ),
        [
            -s + rho * (x + s) - (rho * x - (1 - rho) * s),
            rho * x - (1 - rho) * fixed - fixed,
            rho * x - (1 - rho) * rho * x - rho**2 * x,
        ],
    )


def _sample_sequence(rng: np.random.Generator, n: int) -> Sample:
    eta_fast = np.where(rng.random(n) < 0.2, 0.0, np.exp(rng.uniform(-3.0, 3.0, n)))
    return {"target": rng.uniform(0.2, 6.0, n), "eta_fast": eta_fast}


def _least_budget(target: Array, eta_fast: Array) -> Array:
    """Smallest budget (times the total rate) with which all of 4 alternating stages succeed, by bisection on sequences."""
    low, high = np.zeros(target.shape), 4.0 * learning_clock(target)
    for _ in range(45):
        middle = 0.5 * (low + high)
        budgets = np.broadcast_to(middle / (1.0 + eta_fast), (4, *target.shape))
        stages = task_sequence("fst-gradient", budgets, target_log_odds=target, eta_fast=eta_fast)
        done = (stages.end >= target * (1.0 - 1e-13)).all(axis=0)
        low, high = np.where(done, low, middle), np.where(done, middle, high)
    return high


def _sequence_budget(target: Array, eta_fast: Array) -> Bounds:
    return same(learning_clock(target) + learning_clock(target / (1.0 + eta_fast)))


SEQUENCE = Statement(
    slug="plasticity-sequence",
    title="Budget with which every stage of an alternating pair of conflicting tasks succeeds",
    status="T",
    kind="identity",
    hypotheses="base log-odds 0, early stop at x*, gradient-like context that never fills, reset at each switch; RL: rho = 1",
    latex=r"(\eta_s+\eta_f)T\ge F(x^*)+F(\varrho x^*);\qquad\text{RL alone: }\eta_sT\ge2F(x^*)",
    derive=_derive_sequence,
    sample=_sample_sequence,
    exact=_least_budget,
    bound=_sequence_budget,
    source=_SOURCE,
    figure=_FIGURE,
    test=_TEST,
    tolerance=1e-9,
    max_examples=20_000,
)


def _derive_period() -> Derivation:
    x, tau = sp.symbols("x tau", real=True)

    def clock(y: sp.Expr) -> sp.Expr:
        return 2 * y + 2 * sp.sinh(y)

    return symbolic(
        ("F(-x) + tau = tau - F(x), an involution of F: applied twice it is the identity",),
        [clock(-x) + tau - (tau - clock(x)), tau - (tau - clock(x)) - clock(x)],
    )


def _sample_period(rng: np.random.Generator, n: int) -> Sample:
    return {"log_odds": rng.uniform(-1.0, 4.0, n), "budget": rng.uniform(1.0, 60.0, n)}


def _stage_by_integration(log_odds: Array, budget: Array) -> Array:
    """Odds after one more conflicting stage, ``dx/dt = sigma'(x)`` from ``-x`` for ``budget``, by Runge-Kutta."""
    x, steps = -log_odds, 150
    h = budget / steps
    for _ in range(steps):
        k1 = mobility_of(x)
        k2 = mobility_of(x + 0.5 * h * k1)
        k3 = mobility_of(x + 0.5 * h * k2)
        x = x + h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + mobility_of(x + h * k3))
    return np.exp(x)


PERIOD_TWO = Statement(
    slug="plasticity-period-two",
    title="Without early stopping, conflicting stages have period 2: every even one ends where the sequence began",
    status="T",
    kind="identity",
    hypotheses="one budget for all stages, no early stop; odds at the end of the next stage",
    latex=r"F(x_{j+1})=\tau-F(x_j)\ \Rightarrow\ x_{j+2}=x_j",
    derive=_derive_period,
    sample=_sample_period,
    exact=_stage_by_integration,
    bound=lambda log_odds, budget: same(np.exp(inverse_learning_clock(budget - learning_clock(log_odds)))),
    source=_SOURCE,
    figure=_FIGURE,
    test=_TEST,
    tolerance=1e-6,  # fixed-step integration
)


def _sample_search_stage(rng: np.random.Generator, n: int) -> Sample:
    return {
        "drift": rng.uniform(0.0, 6.0, n),
        "target": rng.uniform(0.2, 4.0, n),
        "capacity": rng.uniform(0.1, 6.0, n),
        "search_rate": np.exp(rng.uniform(-1.0, 3.0, n)),
    }


def _search_stage_time(drift: Array, target: Array, capacity: Array, search_rate: Array) -> Array:
    return time_to_reward(-drift, target, 1.0, search_rate, capacity, "search")


def _search_stage_bound(drift: Array, target: Array, capacity: Array, search_rate: Array) -> Bounds:
    rest = np.maximum(learning_clock_between(capacity - drift, target), 0.0)
    return None, capacity / search_rate + rest


SEARCH_STAGE = Statement(
    slug="plasticity-search-stage",
    title="A searching context relearns from any drift at the price of its capacity",
    status="T",
    kind="bound",
    hypotheses="stage starts at -S with an empty context; eta_s = 1",
    latex=r"T\le\frac\Phi\nu+\frac{[F(x^*)-F(\Phi-S)]^+}{\eta_s}",
    derive=lambda: nothing("s >= -S when the context is full, and F increases"),
    sample=_sample_search_stage,
    exact=_search_stage_time,
    bound=_search_stage_bound,
    source=_SOURCE,
    figure=_FIGURE,
    test=_TEST,
)


# --- K behaviours (13.4) -------------------------------------------------------------------------------------------------


def _derive_softmax() -> Derivation:
    a, b, c = sp.symbols("a b c", positive=True)
    total = a + b + c
    pi = [a / total, b / total, c / total]
    theta = [pi[0] * (1 - pi[0]), -pi[0] * pi[1], -pi[0] * pi[2]]  # behaviour 0 is rewarded
    rest = pi[1] + pi[2]
    r = [pi[1] / rest, pi[2] / rest]
    rate = theta[0] - r[0] * theta[1] - r[1] * theta[2]
    spread = r[0] ** 2 + r[1] ** 2
    # d r_j = r_j (theta_j' - mean theta'), per unit of pi_k (1 - pi_k)
    change = [r[j] * (theta[j + 1] - r[0] * theta[1] - r[1] * theta[2]) / (pi[0] * rest) for j in (0, 1)]
    cubes = r[0] ** 3 + r[1] ** 3
    return symbolic(
        (
            "dl/dt = pi_k (1 - pi_k)(1 + C), C = sum r_j^2 (shown for K = 3)",
            "dC = -2 (sum r^3 - (sum r^2)^2) <= 0 by Cauchy-Schwarz: the rest equalises, C falls toward 1/(K-1)",
        ),
        [
            rate - pi[0] * (1 - pi[0]) * (1 + spread),
            2 * (r[0] * change[0] + r[1] * change[1]) + 2 * (cubes - spread**2),
        ],
    )


def _sample_softmax(rng: np.random.Generator, n: int) -> Sample:
    logits = rng.normal(0.0, rng.uniform(0.2, 2.5), (n, int(rng.integers(2, 9))))
    pi = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return {"pi": pi, "target": expit(logit(pi[:, 0]) + rng.uniform(0.1, 8.0, n))}


def _softmax_time(pi: Array, target: Array) -> Array:
    """Exact time by Runge-Kutta on the logits, with the log-odds of behaviour 0 as the independent variable."""
    _, start, _, end = softmax_start(pi, 0, target)
    theta, time, steps = np.log(pi), np.zeros(target.shape), 60
    h = (end - start) / steps

    def velocity(theta: Array) -> tuple[Array, Array]:
        p = np.exp(theta - theta.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        move = -p[:, :1] * p
        move[:, 0] += p[:, 0]
        rest = p[:, 1:] / p[:, 1:].sum(axis=1, keepdims=True)
        rate = move[:, 0] - (rest * move[:, 1:]).sum(axis=1)
        return move / rate[:, None], 1.0 / rate

    for _ in range(steps):
        k1, t1 = velocity(theta)
        k2, t2 = velocity(theta + 0.5 * h[:, None] * k1)
        k3, t3 = velocity(theta + 0.5 * h[:, None] * k2)
        k4, t4 = velocity(theta + h[:, None] * k3)
        theta = theta + h[:, None] / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
        time = time + h / 6.0 * (t1 + 2.0 * t2 + 2.0 * t3 + t4)
    return time


SOFTMAX = Statement(
    slug="plasticity-softmax",
    title="Relearning one of K behaviours: bracketed by how the rest of the mass is spread",
    status="T",
    kind="bound",
    hypotheses="softmax policy, reward 1 for behaviour k, unit rate",
    latex=r"\frac{\Delta F}{1+C_0}\le T\le\frac{K-1}K\Delta F,\qquad C=\sum_{j\ne k}\frac{\pi_j^2}{(1-\pi_k)^2}\in[\tfrac1{K-1},1]",
    derive=_derive_softmax,
    sample=_sample_softmax,
    exact=_softmax_time,
    bound=lambda pi, target: softmax_relearning_bounds(pi, 0, target),
    source=_SOURCE,
    figure=_FIGURE,
    test=_TEST,
    tolerance=1e-5,  # fixed-step integration; for K = 2 both bounds are equalities
)

STATEMENTS = (
    RELEARNING,
    DRIFT_BRACKET,
    POLE,
    FORWARD_LAW,
    EXPONENTIAL,
    SEQUENCE,
    PERIOD_TWO,
    SEARCH_STAGE,
    SOFTMAX,
)
