"""Statements of section 10: regression onto lagged rewards, refreshed; and what a reward inside the mode does."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import expit, logit

from fstsim.theory.oapl import (
    oapl_gradient_bounds,
    oapl_log_odds,
    oapl_loss_gradient,
    oapl_old_mass,
    oapl_overlap,
    oapl_overlap_bounds,
    sloped_reward_shift,
)
from fstsim.theory.statements.instances import log_uniform, sometimes
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import nothing, numeric, sigmoid, symbolic, vanishes_at

Array = NDArray[np.float64]
_TEST = "tests/theory/test_oapl.py"
_SOURCE = "arXiv 2602.19362 (method), arXiv 2603.12163 (setting); own derivation"


def loss_slope(log_odds: Array, lag_log_odds: Array, tau: Array, gap: Array) -> Array:
    """``L'(s)`` by a complex step through the definition of the regression loss, rewards 0 and ``gap``."""
    tiny = 1e-100
    s = log_odds + 1j * tiny
    lag_old, lag_new = expit(lag_log_odds), expit(-lag_log_odds)
    value = tau * np.log(lag_old + lag_new * np.exp(gap / tau))  # V*
    log_old, log_new = -np.log1p(np.exp(-s)), -np.log1p(np.exp(s))
    old = tau * (log_old - np.log(lag_old)) + value
    new = tau * (log_new - np.log(lag_new)) - gap + value
    return (lag_old * old * old + lag_new * new * new).imag / tiny


# --- the tilt and its accumulation (10.1) -----------------------------------------------------------------------------


def _derive_tilt() -> Derivation:
    lag, old, new, tau = sp.symbols("beta_l r_o r_n tau", positive=True)
    weight_old, weight_new = lag * sp.exp(old / tau), (1 - lag) * sp.exp(new / tau)
    goal = weight_old / (weight_old + weight_new)
    # residual / tau of the old mode at the tilt, exponentiated: beta* / beta_l e^(-r_o/tau) E e^(r/tau)
    return symbolic(
        (
            "at pi_lag e^(r/tau) / E the regression residual of the old mode is 0",
            "its odds are the lagged odds times e^((r_o - r_n)/tau)",
        ),
        [
            goal / lag * sp.exp(-old / tau) * (weight_old + weight_new) - 1,
            goal / (1 - goal) - lag / (1 - lag) * sp.exp((old - new) / tau),
        ],
    )


def _sample_refreshes(rng: np.random.Generator, n: int) -> Sample:
    return {
        "beta0": expit(rng.uniform(-3.0, 3.0, n)),
        "gap": rng.uniform(-1.0, 1.5, n),
        "tau": rng.uniform(0.3, 2.0, n),
        "refreshes": rng.integers(1, 5, n).astype(np.float64),
        "anchor": np.where(rng.random(n) < 0.5, 1.0, rng.uniform(0.0, 1.0, n)),
    }


def _solved_mass(beta0: Array, gap: Array, tau: Array, refreshes: Array, anchor: Array) -> Array:
    """Each period's loss minimised by bisection on its slope, the reference then refreshed (and mixed with the base)."""
    base = logit(beta0)
    s = base.copy()
    for k in range(int(refreshes.max())):
        reference = anchor * s + (1.0 - anchor) * base
        low, high = reference - 30.0, reference + 30.0
        for _ in range(60):
            middle = 0.5 * (low + high)
            rising = loss_slope(middle, reference, tau, gap) > 0.0
            low, high = np.where(rising, low, middle), np.where(rising, middle, high)
        s = np.where(k < refreshes, 0.5 * (low + high), s)
    return expit(s)


def _closed_mass(beta0: Array, gap: Array, tau: Array, refreshes: Array, anchor: Array) -> Bounds:
    value = oapl_old_mass(beta0, gap, tau, refreshes, anchor)
    return value, value


TILT = Statement(
    slug="oapl",
    title="Every solved period multiplies the odds by e^(-gap/tau); nothing holds them unless the reference is anchored",
    status="T",
    kind="identity",
    hypotheses="two outcomes, k solved periods, reference pi_lag^a pi_0^(1-a); the losses are minimised numerically",
    latex=r"s_k=s_0-\frac{\Delta r}\tau\,\frac{1-a^k}{1-a},\qquad a=1:\ \beta_k=\frac{\beta_0}{\beta_0+(1-\beta_0)e^{k\Delta r/\tau}}",
    derive=_derive_tilt,
    sample=_sample_refreshes,
    exact=_solved_mass,
    bound=_closed_mass,
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-8,  # bisection on slopes that are differences
)


def _sample_anchored(rng: np.random.Generator, n: int) -> Sample:
    return {
        "base_log_odds": sometimes(rng, rng.uniform(-700.0, 700.0, n), rng.uniform(-3.0, 3.0, n)),
        "gap": log_uniform(rng, 0.01, 100.0, n),
        "tau": log_uniform(rng, 0.01, 10.0, n),
        "refreshes": np.floor(log_uniform(rng, 1.0, 1e6, n)),
        "anchor": sometimes(rng, 1.0 - log_uniform(rng, 1e-12, 1e-2, n), rng.uniform(0.0, 0.99, n)),
    }


def _lost_log_odds(base_log_odds: Array, gap: Array, tau: Array, refreshes: Array, anchor: Array) -> Array:
    return base_log_odds - oapl_log_odds(base_log_odds, gap, tau, refreshes, anchor)


def _loss_limits(base_log_odds: Array, gap: Array, tau: Array, refreshes: Array, anchor: Array) -> Bounds:  # noqa: ARG001
    return gap / tau, gap / tau * np.minimum(refreshes, 1.0 / (1.0 - anchor))


ANCHORED = Statement(
    slug="oapl-anchored",
    title="An anchored reference bounds the loss for all time",
    status="T",
    kind="bound",
    hypotheses="two outcomes, k >= 1 solved periods, gap > 0, a < 1; log-odds lost",
    latex=r"\frac{\Delta r}\tau\le s_0-s_k\le\frac{\Delta r}\tau\min\Big\{k,\frac1{1-a}\Big\}",
    derive=_derive_tilt,
    sample=_sample_anchored,
    exact=_lost_log_odds,
    bound=_loss_limits,
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-9,  # s_0 - s_k is a difference
)


# --- within a period (10.2) -------------------------------------------------------------------------------------------


def _derive_gradient() -> Derivation:
    s, lag, gap, tau = sp.symbols("s s_l d tau", positive=True)
    b, b_l = sigmoid(s), sigmoid(lag)
    goal = sigmoid(lag - gap / tau)
    value = tau * sp.log(b_l + (1 - b_l) * sp.exp(gap / tau))
    loss = (
        b_l * (tau * sp.log(b / b_l) + value) ** 2 + (1 - b_l) * (tau * sp.log((1 - b) / (1 - b_l)) - gap + value) ** 2
    )
    claimed = 2 * tau**2 * (b_l * (1 - b) * sp.log(b / goal) - (1 - b_l) * b * sp.log((1 - b) / (1 - goal)))
    points = [
        {s: sp.Rational(1, 3), lag: sp.Rational(2, 5), gap: sp.Rational(7, 4), tau: sp.Rational(3, 2)},
        {s: sp.Rational(9, 4), lag: sp.Rational(1, 7), gap: sp.Rational(1, 5), tau: sp.Rational(1, 3)},
        {s: sp.Rational(1, 50), lag: sp.Rational(5, 2), gap: 2, tau: sp.Rational(8, 9)},
    ]
    curvature = 2 * tau**2 * (b_l * (1 - goal) ** 2 + (1 - b_l) * goal**2)
    return numeric(
        (
            "L'(s) = 2 tau^2 [beta_l (1 - beta) log(beta/beta*) - (1 - beta_l) beta log((1 - beta)/(1 - beta*))]",
            "L'' at the minimiser = 2 tau^2 [beta_l (1 - beta*)^2 + (1 - beta_l) beta*^2]",
        ),
        [
            vanishes_at(sp.diff(loss, s) - claimed, points),
            vanishes_at(sp.diff(claimed, s).subs(s, lag - gap / tau) - curvature, points),
        ],
    )


def _sample_period(rng: np.random.Generator, n: int) -> Sample:
    lag, tau, gap = rng.uniform(-3.0, 3.0, n), rng.uniform(0.3, 2.0, n), rng.uniform(-2.0, 2.0, n)
    away = rng.choice([-1.0, 1.0], n) * sometimes(rng, log_uniform(rng, 1e-3, 40.0, n), log_uniform(rng, 0.05, 8.0, n))
    return {"log_odds": lag - gap / tau + away, "lag_log_odds": lag, "tau": tau, "gap": gap}


def _relative_slope(log_odds: Array, lag_log_odds: Array, tau: Array, gap: Array) -> Array:
    return loss_slope(log_odds, lag_log_odds, tau, gap) / (log_odds - lag_log_odds + gap / tau)


def _slope_bounds(log_odds: Array, lag_log_odds: Array, tau: Array, gap: Array) -> Bounds:
    return oapl_gradient_bounds(log_odds, lag_log_odds, tau, np.zeros_like(gap), gap)


PERIOD = Statement(
    slug="oapl-within-period",
    title="Within a period there is one minimiser, and the flow runs straight to it",
    status="T",
    kind="bound",
    hypotheses="two outcomes; slope of the loss over the distance to the minimiser",
    latex=r"0<2\tau^2\min_{x\in[s,s^*]}w(x)\le\frac{L'(s)}{s-s^*}\le2\tau^2\max_{x\in[s,s^*]}w(x),\quad "
    r"w(x)=\beta_l(1-\beta)\,\sigma(-x)+(1-\beta_l)\beta\,\sigma(x)\ \text{(term by term)}",
    derive=_derive_gradient,
    sample=_sample_period,
    exact=_relative_slope,
    bound=_slope_bounds,
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-9,
)


def _pull(log_odds: Array, lag_log_odds: Array, tau: Array, gap: Array) -> Array:
    return oapl_loss_gradient(log_odds, lag_log_odds, tau, np.zeros_like(gap), gap)


def _lasting_pull(log_odds: Array, lag_log_odds: Array, tau: Array, gap: Array) -> Bounds:
    value = (
        2.0
        * tau**2
        * expit(lag_log_odds)
        * (log_odds - np.logaddexp(0.0, log_odds) + _minus_log_goal(lag_log_odds, tau, gap))
    )
    return value, value


def _minus_log_goal(lag_log_odds: Array, tau: Array, gap: Array) -> Array:
    return np.logaddexp(0.0, gap / tau - lag_log_odds)


LASTING_PULL = Statement(
    slug="oapl-lagged-pull",
    title="The lagged sampler keeps pulling a vanishing old mode back until the next refresh",
    status="A",
    kind="approximation",
    hypotheses="beta -> 0 at fixed beta_l; here s in [-14, -9]",
    latex=r"L'(s)\to2\tau^2\beta_l\log(\beta/\beta^*)\quad(\beta\to0)",
    derive=lambda: nothing("limit of the gradient"),
    sample=lambda rng, n: {**_sample_period(rng, n), "log_odds": rng.uniform(-14.0, -9.0, n)},
    exact=_pull,
    bound=_lasting_pull,
    source=_SOURCE,
    test=_TEST,
)


# --- overlap (10.3) ----------------------------------------------------------------------------------------------------


def _derive_chord() -> Derivation:
    c, rho = sp.symbols("c rho", positive=True)
    gap = (1 + (sp.exp(c) - 1) * rho - sp.exp(c * rho)) / (rho * (1 - rho))
    return symbolic(
        ("the gap between the chord and e^(c rho), per rho (1 - rho), tends to c e^c - e^c + 1 at rho = 1",),
        [sp.limit(gap, rho, 1) - (c * sp.exp(c) - sp.exp(c) + 1)],
    )


def _sample_overlap(rng: np.random.Generator, n: int) -> Sample:
    return {
        "base_log_odds": rng.uniform(-3.0, 3.0, n),
        "tilt": rng.uniform(0.05, 6.0, n),
        "delta": rng.uniform(1.0, 10.0, n),
    }


OVERLAP = Statement(
    slug="oapl-overlap",
    title="Overlap can only protect the old mass",
    status="T",
    kind="bound",
    hypotheses="reward by base responsibility, c = k gap / tau >= 0, h = beta_0 (1 - beta_0) kappa, K_c = c e^c - e^c + 1",
    latex=r"\frac{\beta_0}{\beta_0+(1-\beta_0)e^c}\le M\le\frac{\beta_0+(e^c-1)h}{\beta_0+(1-\beta_0)e^c-K_ch}",
    derive=_derive_chord,
    sample=_sample_overlap,
    exact=lambda base_log_odds, tilt, delta: oapl_overlap(base_log_odds, tilt, delta)[0],
    bound=lambda base_log_odds, tilt, delta: oapl_overlap_bounds(base_log_odds, tilt, delta)[:2],
    source=_SOURCE,
    test=_TEST,
)

DRIFT = Statement(
    slug="oapl-drift",
    title="Old-mode drift of the accumulated tilt: gated by overlap, if the reward is flat inside the mode",
    status="T",
    kind="bound",
    hypotheses="reward by base responsibility, c = k gap / tau >= 0; shift of the tilted old component",
    latex=r"\mathrm{shift}\le\delta c\sqrt{\tfrac{1-\beta_0}{\beta_0}}\,\mathrm{BC}\,\Big[C(\delta)+(e^c-1)\min\big(\tfrac18,"
    r"\tfrac{\sqrt{\pi/128}}\delta\big)\Big]",
    derive=_derive_chord,
    sample=_sample_overlap,
    exact=lambda base_log_odds, tilt, delta: oapl_overlap(base_log_odds, tilt, delta)[1],
    bound=lambda base_log_odds, tilt, delta: (
        np.zeros_like(delta),
        oapl_overlap_bounds(base_log_odds, tilt, delta)[2],
    ),
    source=_SOURCE,
    test=_TEST,
)


def _derive_slope() -> Derivation:
    y, v, c, d = sp.symbols("y v c delta", positive=True)
    share = sp.Function("rho")(y)
    density = sp.exp(-(y**2) / 2)
    tilt = sp.exp(c * share + v * y)
    share_slope = d * share * (1 - share)
    moved = sp.diff(density * tilt, y).subs(sp.Derivative(share, y), share_slope)
    return symbolic(
        (
            (
                "Stein: d/dy [phi e^l] = (v + c delta rho (1 - rho) - y) phi e^l, whose integral is 0; "
                "so E[y e^l] = E[(v + c delta rho_o rho_n) e^l] >= v E[e^l]"
            ),
        ),
        [sp.expand((moved / (density * tilt) - (v + c * share_slope - y)).simplify())],
    )


SLOPED = Statement(
    slug="reward-slope-drift",
    title="If the reward varies inside the old mode, drift is not gated: it never falls below the slope, at any separation",
    status="T",
    kind="bound",
    hypotheses="tilt e^(c rho_n + v y), c >= 0, y toward the new mean; v = k |reward slope| / tau; shift of the old component",
    latex=r"v\ \le\ \mathrm{shift}\ \le\ v+e^{\delta v/2}\,\delta c\sqrt{\tfrac{1-\beta_0}{\beta_0}}\,\mathrm{BC}\,\Big[C(\delta)+(e^c-1)"
    r"\min\big(\tfrac18,\tfrac{\sqrt{\pi/128}}\delta\big)\Big]",
    derive=_derive_slope,
    sample=lambda rng, n: {**_sample_overlap(rng, n), "slope": log_uniform(rng, 0.01, 1.5, n)},
    exact=lambda base_log_odds, tilt, delta, slope: sloped_reward_shift(base_log_odds, tilt, slope, delta)[0],
    bound=lambda base_log_odds, tilt, delta, slope: (
        slope,
        sloped_reward_shift(base_log_odds, tilt, slope, delta)[1],
    ),
    source=_SOURCE,
    test=_TEST,
)

STATEMENTS = (
    TILT,
    ANCHORED,
    PERIOD,
    LASTING_PULL,
    OVERLAP,
    DRIFT,
    SLOPED,
)
