"""Statements of section 13.3, conflicting tasks in turn: budget for all stages, period two, a searching context."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray

from fstsim.theory.clocks import inverse_learning_clock, learning_clock, learning_clock_between, mobility_of
from fstsim.theory.fast_slow import time_to_reward
from fstsim.theory.numerics.flows import flow_end
from fstsim.theory.plasticity import task_sequence
from fstsim.theory.statements.instances import same
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import nothing, symbolic

Array = NDArray[np.float64]
_TEST = "tests/theory/test_plasticity.py"
_SOURCE = "arXiv 2605.12484 (setting); own derivation"


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
    (x,) = flow_end(lambda x: (mobility_of(x),), (-log_odds,), budget, 150)
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
    test=_TEST,
)

STATEMENTS = (SEQUENCE, PERIOD_TWO, SEARCH_STAGE)
