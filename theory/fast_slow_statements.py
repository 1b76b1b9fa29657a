"""Statements of section 12: allocation between the two channels, KL at matched reward, speed-up, asymptote."""

from __future__ import annotations

from functools import partial

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.special import expit, log_expit

from fstsim.theory.clocks import Mobility, integrate, mobility_of
from fstsim.theory.fast_slow import (
    fast_slow_allocation,
    kl_reduction,
    leashed_optimum,
    no_context_kl,
    search_phase_time,
    search_time_bound,
    skill_per_drift_ratio,
    speed_up,
    time_to_reward,
)
from fstsim.theory.instances import log_uniform, same
from fstsim.theory.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.symbolic import nothing, numeric, sigmoid, symbolic, vanishes_at

Array = NDArray[np.float64]
_TEST = "tests/theory/test_fast_slow.py"
_FIGURE = "fast-slow"
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
    out = np.empty(base.size)
    for i in range(base.size):
        s0, goal, room = float(base[i]), float(base[i] + gain[i]), float(capacity[i])

        def velocity(_: float, y: Array, quick: float, i: int = i) -> tuple[float, float, float]:
            rate = float(mobility_of(y[0] + y[1])) * y[2]
            return eta_slow[i] * rate, quick * rate, skill_rate[i] * float(expit(y[0] + y[1])) * (1.0 - y[2])

        def reached(_: float, y: Array, goal: float = goal) -> float:
            return float(goal - y[0] - y[1])

        def full(_: float, y: Array, room: float = room) -> float:
            return float(room - y[1])

        reached.terminal = full.terminal = True  # type: ignore[attr-defined]
        y, quick, events = np.array([s0, 0.0, skill[i]]), float(eta_fast[i]), [reached, full]
        while True:
            sol = solve_ivp(
                partial(velocity, quick=quick), (0.0, 1e9), y, "LSODA", events=events, rtol=1e-9, atol=1e-11
            )
            assert sol.t_events is not None
            assert sol.y_events is not None
            if sol.t_events[0].size:
                out[i] = (sol.y_events[0][0][0] - s0) / gain[i]
                break
            y, quick, events = sol.y_events[1][0], 0.0, [reached]
    return out


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
    figure=_FIGURE,
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
    base = rng.uniform(-8.0, 8.0, n)
    return {"log_odds": base + rng.choice([-1.0, 1.0], n) * rng.uniform(0.2, 8.0, n), "base": base}


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
    figure=_FIGURE,
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
    figure=_FIGURE,
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
    figure=_FIGURE,
    test=_TEST,
)


# --- time to a reward level (12c) ---------------------------------------------------------------------------------------


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
    figure=_FIGURE,
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
    figure=_FIGURE,
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
    figure=_FIGURE,
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


def _search_quadrature(base: Array, log_odds: Array, eta_slow: Array, search_rate: Array) -> Array:
    def pace(x: Array) -> Array:
        return 1.0 / (search_rate[:, None] + eta_slow[:, None] * mobility_of(x))

    return integrate(pace, base, log_odds)


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
    exact=_search_quadrature,
    bound=lambda base, log_odds, eta_slow, search_rate: same(search_phase_time(base, log_odds, eta_slow, search_rate)),
    source=_SOURCE,
    figure=_FIGURE,
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
    figure=_FIGURE,
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
    figure=_FIGURE,
    test=_TEST,
)


# --- what is derivable about the asymptote (12d) ------------------------------------------------------------------------


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
    x, m, h = base, skill, horizon / steps
    rate = eta_slow + eta_fast

    def velocity(x: Array, m: Array) -> tuple[Array, Array]:
        return rate * mobility_of(x) * m, skill_rate * expit(x) * (1.0 - m)

    for _ in range(steps):
        k1 = velocity(x, m)
        k2 = velocity(x + 0.5 * h * k1[0], m + 0.5 * h * k1[1])
        k3 = velocity(x + 0.5 * h * k2[0], m + 0.5 * h * k2[1])
        k4 = velocity(x + h * k3[0], m + h * k3[1])
        x, m = (y + h / 6.0 * (a + 2.0 * b + 2.0 * c + d) for y, a, b, c, d in zip((x, m), k1, k2, k3, k4, strict=True))
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
    figure=_FIGURE,
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
    figure=_FIGURE,
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
    figure=_FIGURE,
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
    sample=lambda rng, n: {"log_odds": rng.uniform(-6.0, 6.0, n), "capacity": rng.uniform(0.0, 5.0, n)},
    exact=_skill_ratio,
    bound=lambda log_odds, capacity: same(skill_per_drift_ratio(log_odds, capacity)),
    source=_SOURCE,
    figure=_FIGURE,
    test=_TEST,
    tolerance=2e-4,  # a finite step of the drift
)

STATEMENTS = (
    ALLOCATION,
    MATCHED_KL,
    QUADRATIC_LAW,
    SMALL_GAIN,
    TIME,
    NORMALISED_TIME,
    SPEED_UP,
    SEARCH_TIME,
    SEARCH_BOUND,
    SEARCH_PLATEAU,
    FINITE_HORIZON,
    LEASH,
    LEASHED_OPTIMUM,
    SKILL,
)
