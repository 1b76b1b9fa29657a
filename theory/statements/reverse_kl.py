"""Statements of section 3: the reverse-KL target, its weight flow, merged saddles, the force on the old mean."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import expit, logit

from fstsim.divergences import reverse_kl, reverse_kl_gradient
from fstsim.overlap import misassignment_probability
from fstsim.theory.reverse_kl import (
    merged_saddle_growth,
    merged_states,
    old_mean_force_bounds,
    polyak_lojasiewicz_constant,
    skeleton_kl,
    weight_flow_bounds,
    weight_flow_rate,
)
from fstsim.theory.statements.instances import column, log_uniform, sometimes
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import nothing, numeric, sigmoid, symbolic, vanishes, vanishes_at

Array = NDArray[np.float64]
_TEST = "tests/theory/test_reverse_kl.py"


# --- the target is the global minimum (3.1, 3.2) -----------------------------------------------------------------


def _derive_target() -> Derivation:
    b, a, f, g, p, r = sp.symbols("b a f g p r", positive=True)
    # chain rule for (x, z): log of the labelled ratio averages to log q/p plus the divergence of the posteriors
    q, t = b * f + (1 - b) * g, a * p + (1 - a) * r
    posterior = b * f / q
    labelled = b * f * sp.log(b * f / (a * p)) + (1 - b) * g * sp.log((1 - b) * g / ((1 - a) * r))
    marginal = q * sp.log(q / t)
    inner = q * (
        posterior * sp.log(posterior / (a * p / t)) + (1 - posterior) * sp.log((1 - posterior) / ((1 - a) * r / t))
    )
    points = [
        {
            b: sp.Rational(1, 3),
            a: sp.Rational(2, 5),
            f: sp.Rational(3, 2),
            g: sp.Rational(1, 7),
            p: 2,
            r: sp.Rational(5, 3),
        },
        {
            b: sp.Rational(6, 7),
            a: sp.Rational(1, 9),
            f: sp.Rational(1, 4),
            g: 3,
            p: sp.Rational(2, 3),
            r: sp.Rational(1, 5),
        },
    ]
    return numeric(
        (
            "R_sk = R + E_q KL(r^q(x) || r^p(x)): the labelled divergence is the marginal one plus that of the posteriors",
        ),
        [vanishes_at(labelled - marginal - inner, points)],
    )


def _sample_target(rng: np.random.Generator, n: int) -> Sample:
    new = np.zeros((n, 3))
    new[:, 0] = rng.uniform(0.3, 8.0, n)
    spread = log_uniform(rng, 0.02, 3.0, (n, 1))
    return {
        "log_odds": rng.uniform(-5.0, 5.0, n),
        "mean_old": spread * rng.standard_normal((n, 3)),
        "mean_new": new + spread * rng.standard_normal((n, 3)),
        "target_log_odds": rng.uniform(-3.0, 3.0, n),
        "target_old": np.zeros((n, 3)),
        "target_new": new,
    }


TARGET = Statement(
    slug="reverse-kl-target",
    title="Reverse KL is minimal at the target only, and never above its labelled version",
    status="T",
    kind="bound",
    hypotheses="0 < alpha < 1, delta > 0; any learner state in any dimension",
    latex=r"0\le R\le R_{sk}=\mathrm{KL}(\beta\Vert\alpha)+\beta\tfrac{|e|^2}2+(1-\beta)\tfrac{|v|^2}2,\qquad "
    r"R=R_{sk}-\mathbb E_q\mathrm{KL}(r^q\Vert r^p)",
    derive=_derive_target,
    sample=_sample_target,
    exact=reverse_kl,
    bound=lambda **x: (np.zeros(x["log_odds"].shape), skeleton_kl(**x)),
    test=_TEST,
)


# --- the weight flow (3.3) ---------------------------------------------------------------------------------------


def _derive_weight_flow() -> Derivation:
    b, f, g = sp.symbols("b f g", positive=True)
    q = b * f + (1 - b) * g
    x, c = sp.symbols("x c", real=True)
    # separated law: dt/ds = -1 / (sigma'(s) (s - s_alpha)), and Q' must be its negative in x = |s - s_alpha|
    sign = sp.symbols("w", real=True)  # +1: coming from below
    q_prime = 2 / x + 2 * sp.cosh(c) * sp.cosh(x) / x - 2 * sign * sp.sinh(c) * sp.sinh(x) / x
    side = 1
    s = c - side * x
    rate = (1 / (sigmoid(s) * (1 - sigmoid(s)))) / x
    return symbolic(
        (
            "d^2/db^2 of the integrand q log q is (f - g)^2 / q: R is convex in the weight with curvature D",
            "Q'(x) = 1 / (sigmoid'(s) x) with s = s_alpha - x",
        ),
        [sp.diff(q * sp.log(q), b, 2) - (f - g) ** 2 / q, q_prime.subs(sign, side) - rate],
    )


def _sample_weight_flow(rng: np.random.Generator, n: int) -> Sample:
    x = _sample_near_target(rng, n)
    target = sometimes(rng, rng.uniform(-40.0, 40.0, n), x["target_log_odds"])
    away = sometimes(rng, rng.uniform(-60.0, 60.0, n), x["log_odds"] - x["target_log_odds"])
    return {"log_odds": target + away, "target_log_odds": target, "delta": x["delta"]}


def _sample_near_target(rng: np.random.Generator, n: int) -> Sample:
    target = rng.uniform(-3.0, 3.0, n)
    away = rng.choice([-1.0, 1.0], n) * log_uniform(rng, 0.01, 6.0, n)
    return {"log_odds": target + away, "target_log_odds": target, "delta": rng.uniform(0.3, 10.0, n)}


def _weight_gradient(log_odds: Array, target_log_odds: Array, delta: Array) -> Array:
    zero, new = np.zeros((delta.size, 1)), column(delta)
    return reverse_kl_gradient(log_odds, zero, new, target_log_odds, zero, new)[0]


def _relative_speed(log_odds: Array, target_log_odds: Array, delta: Array) -> Array:
    mobility = expit(log_odds) * expit(-log_odds)
    return weight_flow_rate(log_odds, target_log_odds, delta) / (mobility * (target_log_odds - log_odds))


WEIGHT_FLOW = Statement(
    slug="reverse-weight-flow",
    title="Reverse KL brings the weight to the target, slowed by overlap at most by 1 - kappa",
    status="T",
    kind="bound",
    hypotheses="components right",
    latex=r"1-\kappa_{\max}\le\frac{|\dot s|}{\sigma'(s)\,|s-s_\alpha|}\le1,\qquad\dot s=-\sigma'(s)\int_{s_\alpha}^s(1-\kappa)",
    derive=_derive_weight_flow,
    sample=_sample_weight_flow,
    exact=_relative_speed,
    bound=weight_flow_bounds,
    test=_TEST,
)


def _rate_from_gradient(log_odds: Array, target_log_odds: Array, delta: Array) -> Bounds:
    value = -_weight_gradient(log_odds, target_log_odds, delta)
    return value, value


WEIGHT_LAW = Statement(
    slug="reverse-weight-law",
    title="The weight force is an integral of 1 - kappa",
    status="T",
    kind="identity",
    hypotheses="components right; any two densities",
    latex=r"\partial_\beta R=\int_\alpha^\beta\mathcal D(b)\,db",
    derive=_derive_weight_flow,
    # within 6 of the target: farther out the gradient is a difference of divergences that agree to all digits
    sample=lambda rng, n: {**_sample_near_target(rng, n), "delta": rng.uniform(1.0, 10.0, n)},
    exact=weight_flow_rate,
    bound=_rate_from_gradient,
    test=_TEST,
    tolerance=1e-7,  # the gradient is a difference of divergences near the target
)


def _weight_value(log_odds: Array, target_log_odds: Array, delta: Array) -> Array:
    zero, new = np.zeros((delta.size, 1)), column(delta)
    return reverse_kl(log_odds, zero, new, target_log_odds, zero, new)


POLYAK = Statement(
    slug="reverse-weight-pl",
    title="Polyak-Lojasiewicz inequality of the weight flow",
    status="T",
    kind="bound",
    hypotheses="components right; kappa_max, sigma'_min over the interval between s and s_alpha",
    latex=r"|\partial_sR|^2\ge2\mu R,\qquad\mu=2(\sigma'_{\min})^2(1-\kappa_{\max})",
    derive=_derive_weight_flow,
    # from 0.3 on: nearer to the target the divergence is a difference of numbers 1e4 times larger
    sample=lambda rng, n: {
        **_sample_weight_flow(rng, n),
        "log_odds": rng.uniform(0.3, 4.0, n),
        "target_log_odds": rng.uniform(-3.0, 0.0, n),
    },
    exact=lambda **x: weight_flow_rate(**x) ** 2,
    bound=lambda **x: (2.0 * polyak_lojasiewicz_constant(**x) * _weight_value(**x), None),
    test=_TEST,
    tolerance=1e-9,
)


# --- merged states (3.2) -------------------------------------------------------------------------------------------


def _derive_saddle() -> Derivation:
    a, d = sp.symbols("a delta", positive=True)
    # log phi/p with phi a unit Gaussian anywhere: -log of the responsibilities' normaliser; (log p)'' = -1 + delta^2 r_o r_n
    z = sp.symbols("z", real=True)
    p = a * sp.exp(-(z**2) / 2) + (1 - a) * sp.exp(-((z - d) ** 2) / 2)
    r = a * sp.exp(-(z**2) / 2) / p
    points = [
        {z: sp.Rational(1, 3), a: sp.Rational(1, 4), d: sp.Rational(5, 2)},
        {z: sp.Rational(7, 3), a: sp.Rational(5, 6), d: sp.Rational(3, 1)},
    ]
    return numeric(
        ("(log phi/p)'' = -delta^2 r^p_o r^p_n for a unit Gaussian phi",),
        [vanishes_at(sp.diff(sp.log(p), z, 2) + 1 - d**2 * r * (1 - r), points)],
    )


def _sample_saddle(rng: np.random.Generator, n: int) -> Sample:
    return {
        "beta": rng.uniform(0.1, 0.9, n),
        "alpha": rng.uniform(0.2, 0.8, n),
        "delta": rng.uniform(5.0, 8.0, n),
    }


def _saddle_growth(beta: Array, alpha: Array, delta: Array) -> Array:
    return np.array([float(merged_saddle_growth(*x)) for x in zip(beta, alpha, delta, strict=True)])


def _saddle_growth_from_flow(beta: Array, alpha: Array, delta: Array) -> Bounds:
    """Growth of a small split ``m_o = m* - (1-b) x, m_n = m* + b x`` under the exact flow, by symmetric difference."""
    merged = merged_states(alpha, delta)
    zero, new, s_p = np.zeros((delta.size, 1)), column(delta), logit(alpha)
    width = 2e-4
    rate = np.zeros(delta.size)
    for x in (-width, width):
        m_o, m_n = column(merged - (1.0 - beta) * x), column(merged + beta * x)
        _, g_o, g_n = reverse_kl_gradient(logit(beta), m_o, m_n, s_p, zero, new)
        rate += 0.5 * ((-g_n + g_o)[:, 0]) / x
    return rate, rate


MERGED_SADDLE = Statement(
    slug="merged-saddle",
    title="Merged states are strict saddles: mode collapse is metastable, its split grows at a rate of order exp(-delta^2 / 8)",
    status="T",
    kind="identity",
    hypotheses="both learner components at m*, any weight; the rate against the exact flow",
    latex=r"\text{growth}=2\beta(1-\beta)\,\delta^2\,\mathbb E_{N(m^*)}[r^p_or^p_n]\sim\beta(1-\beta)\,\delta\sqrt{\tfrac\pi2}"
    r"\sqrt{\tfrac\alpha{1-\alpha}}\,e^{-\delta^2/8}",
    derive=_derive_saddle,
    sample=_sample_saddle,
    exact=_saddle_growth,
    bound=_saddle_growth_from_flow,
    test=_TEST,
    tolerance=1e-4,  # finite difference of the flow, with a split of 2e-4
    max_examples=500,
)


# --- the force on the old mean (3.5) --------------------------------------------------------------------------------


def _derive_force() -> Derivation:
    s, y = sp.symbols("s y", real=True)
    # Jensen under the logistic Beta(1/2, 3/2) density: mean psi(1/2) - psi(3/2) = -2, variance psi'(1/2) + psi'(3/2) = pi^2 - 4
    half, three_halves = sp.Rational(1, 2), sp.Rational(3, 2)
    return numeric(
        (
            "d eps/ds = -xi: derivative of sigmoid(-s - y) is -sigmoid'",
            "the Beta(1/2, 3/2) logit has mean -2 and variance pi^2 - 4",
        ),
        [
            vanishes(sp.diff(sigmoid(-s - y), s) + sigmoid(-s - y) * (1 - sigmoid(-s - y))),
            vanishes_at(sp.digamma(half) - sp.digamma(three_halves) + 2, [{}]),
            vanishes_at(sp.polygamma(1, half) + sp.polygamma(1, three_halves) - sp.pi**2 + 4, [{}]),
        ],
    )


def _force_from_gradient(log_odds: Array, target_log_odds: Array, delta: Array) -> Array:
    zero, new = np.zeros((delta.size, 1)), column(delta)
    return np.abs(reverse_kl_gradient(log_odds, zero, new, target_log_odds, zero, new)[1][:, 0])


OLD_MEAN_FORCE = Statement(
    slug="old-mean-force",
    title="Force of a wrong weight on the old mean: exponent exactly delta^2 / 8",
    status="T",
    kind="bound",
    hypotheses="means right, weight wrong; |x| <= 4, delta >= 2 where the lower bound is useful",
    latex=r"\tfrac{\sqrt{\pi/8}}\delta e^{-\frac x2-\frac{\delta^2}8}e^{-\frac{(x-2)^2+\pi^2-4}{2\delta^2}}\le\xi(x)\le C(\delta)e^{-\frac x2-\frac{\delta^2}8},"
    r"\qquad|\nabla_{m_o}R|=\beta\delta\Big|\int_{s_\alpha}^s\xi\Big|",
    derive=_derive_force,
    sample=lambda rng, n: {
        "log_odds": rng.uniform(-4.0, 4.0, n),
        "target_log_odds": rng.uniform(-4.0, 4.0, n),
        "delta": rng.uniform(2.0, 15.0, n),
    },
    exact=_force_from_gradient,
    bound=old_mean_force_bounds,
    test=_TEST,
    tolerance=1e-8,  # eps_q - eps_p cancels when the two weights are close
)


def _sample_general(rng: np.random.Generator, n: int) -> Sample:
    delta = rng.uniform(0.5, 10.0, n)
    direction = rng.standard_normal((n, 3))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    return {
        "log_odds": rng.uniform(-4.0, 4.0, n),
        "target_log_odds": rng.uniform(-4.0, 4.0, n),
        "delta": delta,
        "new_error": direction * (rng.uniform(0.0, np.sqrt(3.0) / 2.0, n) * delta)[:, None],
    }


def _places(delta: Array, new_error: Array) -> tuple[Array, Array, Array]:
    old = np.zeros_like(new_error)
    target = old.copy()
    target[:, 0] = delta
    return old, target, target + new_error


def _general_force(log_odds: Array, target_log_odds: Array, delta: Array, new_error: Array) -> Array:
    old, target, new = _places(delta, new_error)
    return np.linalg.norm(reverse_kl_gradient(log_odds, old, new, target_log_odds, old, target)[1], axis=-1)


def _general_force_bound(log_odds: Array, target_log_odds: Array, delta: Array, new_error: Array) -> Bounds:
    _, _, new = _places(delta, new_error)
    own = np.linalg.norm(new, axis=-1)
    learner = own * misassignment_probability(log_odds, own)
    target = delta * misassignment_probability(target_log_odds, delta)
    return None, expit(log_odds) * np.maximum(learner, target)


OLD_MEAN_FORCE_GENERAL = Statement(
    slug="old-mean-force-general",
    title="Any force on a right old mean is a misassignment probability times a distance",
    status="T",
    kind="bound",
    hypotheses="old mean right, |v| <= sqrt(3)/2 delta",
    latex=r"|\nabla_{m_o}R|\le\beta\max\{D\,\varepsilon_q,\ \delta\,\varepsilon_p\}",
    derive=lambda: nothing("two vectors within 60 degrees differ by at most the longer one"),
    sample=_sample_general,
    exact=_general_force,
    bound=_general_force_bound,
    test=_TEST,
)

STATEMENTS = (
    TARGET,
    WEIGHT_LAW,
    WEIGHT_FLOW,
    POLYAK,
    MERGED_SADDLE,
    OLD_MEAN_FORCE,
    OLD_MEAN_FORCE_GENERAL,
)
