"""Statements of section 12c: time to a reward level, with a context that follows the gradient and one that searches."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray

from fstsim.theory.clocks import Mobility, integrate, mobility_of
from fstsim.theory.fast_slow import search_phase_time, search_time_bound, speed_up, time_to_reward
from fstsim.theory.statements.instances import log_uniform, same
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import nothing, numeric, sigmoid, symbolic, vanishes_at

Array = NDArray[np.float64]
_TEST = "tests/theory/test_fast_slow.py"
_SOURCE = "arXiv 2605.12484 (setting); own derivation"


def _derive_clock() -> Derivation:
    x, y = sp.symbols("x y", real=True)
    f = 2 * x + 2 * sp.sinh(x)
    half = 4 * sp.sinh(x / 2)
    slope = sigmoid(x) * sigmoid(-x)
    gap = 2 * (y - x) + 4 * sp.cosh((x + y) / 2) * sp.sinh((y - x) / 2)
    return symbolic(
        (
            "F' sigma' = 1 for F = 2 x + 2 sinh x",
            "(F_1/2')^2 sigma' = 1 for F_1/2 = 4 sinh(x/2)",
            "F(y) - F(x) = 2 (y - x) + 4 cosh((x+y)/2) sinh((y-x)/2)",
        ),
        [
            sp.diff(f, x) * slope - 1,
            sp.diff(half, x) ** 2 * slope - 1,
            f.subs(x, y) - f - gap,
        ],
    )


def _sample_time(rng: np.random.Generator, n: int) -> Sample:
    base = rng.uniform(-9.0, 1.0, n)
    return {
        "base": base,
        "target": base + rng.uniform(0.2, 9.0, n),
        "eta_slow": log_uniform(rng, 0.05, 5.0, n),
        "eta_fast": log_uniform(rng, 0.02, 20.0, n),
        "capacity": rng.uniform(0.0, 8.0, n),
    }


def _gradient_quadrature(
    base: Array, target: Array, eta_slow: Array, eta_fast: Array, capacity: Array, mobility: Mobility = "plain"
) -> Array:
    """Time by quadrature of ``dx / rate``: both channels until the context is full, then the slow one."""
    full = np.minimum(target, base + capacity * (eta_slow + eta_fast) / eta_fast)
    both = (eta_slow + eta_fast)[:, None]
    first = integrate(lambda x: 1.0 / (both * mobility_of(x, mobility)), base, full)
    return first + integrate(lambda x: 1.0 / (eta_slow[:, None] * mobility_of(x, mobility)), full, target)


TIME = Statement(
    slug="fast-slow-time",
    title="Time to a reward level with a gradient-like context",
    status="T",
    kind="identity",
    hypotheses="plain policy gradient, x* > s_0",
    latex=r"T=\frac{F(x_1)-F(s_0)}{\eta_s+\eta_f}+\frac{F(x^*)-F(x_1)}{\eta_s},\quad x_1=\min\{x^*,s_0+\Phi(1+\tfrac{\eta_s}{\eta_f})\},"
    r"\quad F(x)=2x+2\sinh x",
    derive=_derive_clock,
    sample=_sample_time,
    exact=_gradient_quadrature,
    bound=lambda base, target, eta_slow, eta_fast, capacity: same(
        time_to_reward(base, target, eta_slow, eta_fast, capacity)
    ),
    source=_SOURCE,
    test=_TEST,
)


NORMALISED_TIME = Statement(
    slug="fast-slow-time-normalised",
    title="The same with group-normalised advantages, large groups: the plateau is p_0^(-1/2), not 1/p_0",
    status="T",
    kind="identity",
    hypotheses="mobility sqrt(sigma'), x* > s_0",
    latex=r"T\text{ as before with }F_{1/2}(x)=4\sinh\tfrac x2",
    derive=_derive_clock,
    sample=_sample_time,
    exact=lambda **x: _gradient_quadrature(**x, mobility="normalised"),
    bound=lambda base, target, eta_slow, eta_fast, capacity: same(
        time_to_reward(base, target, eta_slow, eta_fast, capacity, mobility="normalised")
    ),
    source=_SOURCE,
    test=_TEST,
)


def _sample_speed_up(rng: np.random.Generator, n: int) -> Sample:
    x = _sample_time(rng, n)
    x["capacity"] = np.where(rng.random(n) < 0.3, np.inf, x["capacity"])  # never full: the bound is reached
    return x


def _speed_up(base: Array, target: Array, eta_slow: Array, eta_fast: Array, capacity: Array) -> Array:
    return speed_up(base, target, eta_slow, eta_fast, capacity)


def _speed_up_bounds(eta_slow: Array, eta_fast: Array, **_: Array) -> Bounds:
    return np.ones_like(eta_slow), 1.0 + eta_fast / eta_slow


SPEED_UP = Statement(
    slug="fast-slow-speed-up",
    title="A gradient-like context speeds learning up by its share of the rates, and no more",
    status="T",
    kind="bound",
    hypotheses="plain policy gradient, x* > s_0; equality iff the context never fills",
    latex=r"1\le\frac{T_{RL}}T\le1+\frac{\eta_f}{\eta_s}",
    derive=lambda: nothing("the rate of x lies between eta_s sigma' and (eta_s + eta_f) sigma' at every x"),
    sample=_sample_speed_up,
    exact=_speed_up,
    bound=_speed_up_bounds,
    source=_SOURCE,
    test=_TEST,
)


def _derive_search() -> Derivation:
    y = sp.symbols("y", real=True)
    eta, nu = sp.symbols("eta nu", positive=True)
    root = sp.sqrt(eta / (eta + 4 * nu))
    plain = y / nu - eta / nu * 2 / sp.sqrt(eta**2 + 4 * nu * eta) * sp.atanh(root * sp.tanh(y / 2))
    rest = sp.sqrt((2 * nu - eta) / (2 * nu + eta))
    half = y / nu - eta / nu * 4 / sp.sqrt(4 * nu**2 - eta**2) * sp.atan(rest * sp.tanh(y / 4))
    slope = sigmoid(y) * sigmoid(-y)
    points = [
        {y: sp.Rational(1, 3), eta: 1, nu: 2},
        {y: sp.Rational(-5, 2), eta: sp.Rational(1, 4), nu: sp.Rational(2, 3)},
        {y: 3, eta: sp.Rational(3, 2), nu: 1},
    ]
    return numeric(
        ("d t_F2 / dx = 1 / (nu + eta sigma'(x))", "the same with sqrt(sigma'), eta < 2 nu"),
        [
            vanishes_at(sp.diff(plain, y) * (nu + eta * slope) - 1, points),
            vanishes_at(sp.diff(half, y) * (nu + eta * sp.sqrt(slope)) - 1, points),
        ],
    )


def _sample_search(rng: np.random.Generator, n: int) -> Sample:
    base = rng.uniform(-9.0, 1.0, n)
    return {
        "base": base,
        "log_odds": base + rng.uniform(0.2, 9.0, n),
        "eta_slow": log_uniform(rng, 0.05, 5.0, n),
        "search_rate": log_uniform(rng, 0.05, 20.0, n),
    }


def _search_time(base: Array, log_odds: Array, eta_slow: Array, search_rate: Array) -> Array:
    return search_phase_time(base, log_odds, eta_slow, search_rate)


def _search_closed_form(base: Array, log_odds: Array, eta_slow: Array, search_rate: Array) -> Bounds:
    root = np.sqrt(eta_slow / (eta_slow + 4.0 * search_rate))
    scale = 2.0 * eta_slow / search_rate / np.sqrt(eta_slow * (eta_slow + 4.0 * search_rate))
    ends = [np.arctanh(root * np.tanh(0.5 * y)) for y in (log_odds, base)]
    return same((log_odds - base) / search_rate - scale * (ends[0] - ends[1]))


SEARCH_TIME = Statement(
    slug="fast-slow-search-time",
    title="Time with a searching context that is not yet full, in closed form",
    status="T",
    kind="identity",
    hypotheses="search-like fast channel of constant rate nu, plain policy gradient on the weights",
    latex=r"t_{F2}(x)=\frac{x-s_0}\nu-\frac{\eta_s}\nu\frac2{\sqrt{\eta_s^2+4\nu\eta_s}}"
    r"\Big[\mathrm{artanh}\Big(\sqrt{\tfrac{\eta_s}{\eta_s+4\nu}}\tanh\tfrac y2\Big)\Big]_{s_0}^x",
    derive=_derive_search,
    sample=_sample_search,
    exact=_search_time,
    bound=_search_closed_form,
    source=_SOURCE,
    test=_TEST,
)


def _sample_search_bound(rng: np.random.Generator, n: int) -> Sample:
    x = _sample_time(rng, n)
    x["capacity"] = (x["target"] - x["base"]) * rng.uniform(0.01, 1.0, n)
    return x


def _search_total(base: Array, target: Array, eta_slow: Array, eta_fast: Array, capacity: Array) -> Array:
    return time_to_reward(base, target, eta_slow, eta_fast, capacity, "search")


SEARCH_BOUND = Statement(
    slug="fast-slow-search-bound",
    title="A searching context buys its capacity in log-odds at a constant price, before any success",
    status="T",
    kind="bound",
    hypotheses="s_0 + Phi <= x*",
    latex=r"T\le\frac\Phi\nu+\frac{F(x^*)-F(s_0+\Phi)}{\eta_s}",
    derive=lambda: nothing("s >= s_0 when the context is full, and F increases"),
    sample=_sample_search_bound,
    exact=_search_total,
    bound=lambda base, target, eta_slow, eta_fast, capacity: (
        None,
        search_time_bound(base, target, eta_slow, eta_fast, capacity),
    ),
    source=_SOURCE,
    test=_TEST,
)


def _sample_search_plateau(rng: np.random.Generator, n: int) -> Sample:
    return {
        "base": rng.uniform(-18.0, -14.0, n),
        "capacity": rng.uniform(0.5, 3.0, n),
        "search_rate": log_uniform(rng, 1.0, 20.0, n),
    }


SEARCH_PLATEAU = Statement(
    slug="fast-slow-search-plateau",
    title="On hard prompts a searching context divides the plateau by exp(capacity); a gradient-like one cannot",
    status="A",
    kind="approximation",
    hypotheses="1/p_0 far above eta_s Phi / nu + exp(x*); eta_s = 1, p* = 0.8",
    latex=r"T_{RL}/T\to e^\Phi\ (\text{plain}),\qquad e^{\Phi/2}\ (\sqrt{\sigma'})",
    derive=lambda: nothing("F(x) ~ -exp(-x) on the plateau"),
    sample=_sample_search_plateau,
    exact=lambda base, capacity, search_rate: speed_up(base, np.log(4.0), 1.0, search_rate, capacity, "search"),
    bound=lambda base, capacity, search_rate: same(np.exp(capacity) + 0.0 * base * search_rate),
    source=_SOURCE,
    test=_TEST,
)

STATEMENTS = (TIME, NORMALISED_TIME, SPEED_UP, SEARCH_TIME, SEARCH_BOUND, SEARCH_PLATEAU)
