"""Statements 0.3-0.5 and 3.4: logistic-normal integrals, overlap of two components, misassignment."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import expit

from fstsim.logistic_normal import logistic_normal_mean, responsibility_moments
from fstsim.overlap import (
    bhattacharyya_coefficient,
    harmonic_overlap,
    misassignment_probability,
    weight_fisher_information,
)
from fstsim.theory.overlap import (
    logistic_normal_bounds,
    misassignment_bounds,
    mismatch_overlap_bounds,
    sech_mean_bounds,
    weight_information_bounds,
)
from fstsim.theory.statements.instances import log_uniform, sometimes
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import numeric, sigmoid, softplus, symbolic, vanishes, vanishes_at

Array = NDArray[np.float64]


# --- logistic-normal (0.1, 0.3) -------------------------------------------------------------------------------


def _derive_logistic_normal() -> Derivation:
    z, u = sp.symbols("z u", real=True)
    t = sp.symbols("t", positive=True)
    half = [  # int f(z) exp(-z/2) dz of the half-tilt constants, by u = exp(z/2)
        (2 / (1 + u**2), sp.pi),
        (2 * u**2 / (1 + u**2) ** 2, sp.pi / 2),
        (2 * u**2 / (1 + u**2) ** 3, sp.pi / 8),
    ]
    # g_t = exp(-t z) sigmoid(z): its logarithmic derivative is sigmoid(-z) - t, zero at e^-z = t / (1 - t)
    x = sp.symbols("x", positive=True)  # e^-z
    at_peak = (x**t / (1 + x)).subs(x, t / (1 - t))
    points = [{t: sp.Rational(k, 7)} for k in (1, 3, 6)]
    return numeric(
        (
            "softplus' = sigmoid and sigmoid' = sigmoid (1 - sigmoid)",
            "exp(-t z) sigmoid(z) peaks at e^-z = t / (1 - t), where it is t^t (1-t)^(1-t)",
            "the half-tilt integrals of sigmoid, sigmoid' (and sigmoid^2), sigmoid^2 (1 - sigmoid): pi, pi/2, pi/8",
        ),
        [
            vanishes(sp.diff(softplus(z), z) - sigmoid(z)),
            vanishes(sp.diff(sigmoid(z), z) - sigmoid(z) * (1 - sigmoid(z))),
            vanishes(sp.diff(-t * z + sp.log(sigmoid(z)), z) - (1 - sigmoid(z) - t)),
            vanishes_at(at_peak - t**t * (1 - t) ** (1 - t), points),
            *(sp.simplify(sp.integrate(f, (u, 0, sp.oo)) - value) == 0 for f, value in half),
        ],
    )


def _sample_logistic_normal(rng: np.random.Generator, n: int) -> Sample:
    scale = log_uniform(rng, 0.05, 20.0, n)
    return {"loc": -rng.uniform(0.0, 1.3, n) * scale**2 - 1e-6, "scale": scale}


LOGISTIC_NORMAL = Statement(
    slug="logistic-normal",
    title="Two-sided bounds on the logistic-normal mean",
    status="T",
    kind="bound",
    hypotheses="a < 0, d > 0; t = -a / d^2",
    latex=r"\tfrac12 G\le \mathbb E\,\sigma(a+dU)\le \min\Big\{G,\; e^{-a^2/2d^2}\min\big(t^t(1-t)^{1-t},"
    r"\tfrac{\sqrt{\pi/2}}{d\sin\pi t}\big)\Big\},\quad G=\Phi(\tfrac ad)+e^{a+d^2/2}\Phi(-\tfrac ad-d)",
    derive=_derive_logistic_normal,
    sample=_sample_logistic_normal,
    exact=logistic_normal_mean,
    bound=logistic_normal_bounds,
    test="tests/theory/test_overlap.py",
)


# --- mismatch-overlap (0.4) ------------------------------------------------------------------------------------


def _derive_mismatch() -> Derivation:
    s, c, x, y = sp.symbols("s c x y", real=True)  # one coordinate; the others add up
    a = s + (x - y) * (c - (x + y) / 2)
    exponent = a / 2 + (x - y) ** 2 / 8
    gate = s / 2 - (x + y - 2 * c) ** 2 / 8 + (y - c) ** 2 / 2
    return symbolic(("a/2 + D^2/8 = s/2 - |m_o + m_n - 2c|^2/8 + |m_n - c|^2/2",), [exponent - gate])


def _sample_mismatch(rng: np.random.Generator, n: int) -> Sample:
    spread = rng.uniform(0.2, 2.5, (n, 1))
    return {
        "log_odds": rng.uniform(-6.0, 6.0, n),
        **{name: spread * rng.standard_normal((n, 3)) for name in ("center", "mean_old", "mean_new")},
    }


def _moments(log_odds: Array, center: Array, mean_old: Array, mean_new: Array) -> tuple[Array, Array, Array]:
    gap = mean_old - mean_new
    loc = log_odds + (gap * (center - 0.5 * (mean_old + mean_new))).sum(axis=-1)
    return responsibility_moments(loc, np.linalg.norm(gap, axis=-1))


def _exact_mismatch(log_odds: Array, center: Array, mean_old: Array, mean_new: Array) -> Array:
    return _moments(log_odds, center, mean_old, mean_new)[0]


def _exact_mismatch_second(log_odds: Array, center: Array, mean_old: Array, mean_new: Array) -> Array:
    old, _, both = _moments(log_odds, center, mean_old, mean_new)
    return np.maximum(both, old - both)  # E[r_o r_n] and E[r_o^2] have the same bound


MISMATCH_OVERLAP = Statement(
    slug="mismatch-overlap",
    title="Overlap gate of a wrong responsibility, any four centres",
    status="T",
    kind="bound",
    hypotheses="any c, s, m_o, m_n in any dimension, whitened",
    latex=r"\mathbb E_{N(c)}[r_o]\le\tfrac12e^{s/2}B\min(1,\sqrt{2\pi}/D),\quad "
    r"B=e^{-|m_o+m_n-2c|^2/8+|m_n-c|^2/2}",
    derive=_derive_mismatch,
    sample=_sample_mismatch,
    exact=_exact_mismatch,
    bound=lambda **x: (None, mismatch_overlap_bounds(**x)[0]),
    test="tests/theory/test_overlap.py",
)

MISMATCH_OVERLAP_SECOND = Statement(
    slug="mismatch-overlap-second",
    title="The same for the second moments that drive the means",
    status="T",
    kind="bound",
    hypotheses="any c, s, m_o, m_n in any dimension, whitened",
    latex=r"\mathbb E_{N(c)}[r_or_n],\ \mathbb E_{N(c)}[r_o^2]\le\min(\tfrac{3\sqrt3}{16},\tfrac{\sqrt{\pi/8}}D)\,e^{s/2}B",
    derive=_derive_mismatch,
    sample=_sample_mismatch,
    exact=_exact_mismatch_second,
    bound=lambda **x: (None, mismatch_overlap_bounds(**x)[1]),
    test="tests/theory/test_overlap.py",
)


# --- weight-identities (0.5) ------------------------------------------------------------------------------------


def _derive_weight_identities() -> Derivation:
    b, f, g = sp.symbols("b f g", positive=True)  # weight and the two densities at one point
    q = b * f + (1 - b) * g
    r = b * f / q
    kappa, info = f * g / q, (f - g) ** 2 / q
    # pointwise identities; integrals of f, g and q are 1
    return symbolic(
        (
            "b (1-b) (f-g)^2/q = (1-b) f + b g - f g/q: its integral is b (1-b) D = 1 - kappa",
            "r - b = b (1-b) (f-g)/q, so Var_q(r) = b^2 (1-b)^2 D",
            "f (f-g)/q = (1-b) (f-g)^2/q + (f-g): its integral is (1-b) D",
        ),
        [
            b * (1 - b) * info - ((1 - b) * f + b * g - kappa),
            r - b - b * (1 - b) * (f - g) / q,
            f * (f - g) / q - (1 - b) * info - (f - g),
        ],
    )


def _sample_weight(rng: np.random.Generator, n: int) -> Sample:
    return {
        "log_odds": sometimes(rng, rng.uniform(-600.0, 600.0, n), rng.uniform(-9.0, 9.0, n)),
        "delta": sometimes(rng, log_uniform(rng, 1e-6, 0.05, n), log_uniform(rng, 0.05, 20.0, n)),
    }


def _bound_overlap(log_odds: Array, delta: Array) -> Bounds:
    low, high = sech_mean_bounds(log_odds, delta)
    gate = bhattacharyya_coefficient(delta) * np.cosh(0.5 * log_odds)
    return gate * low, np.minimum(gate * high, 1.0)


WEIGHT_IDENTITIES = Statement(
    slug="weight-identities",
    title="Harmonic overlap is at most the Bhattacharyya coefficient over 2 sqrt(beta (1 - beta))",
    status="T",
    kind="bound",
    hypotheses="0 < beta < 1, delta > 0 (upper bound without prefactor: any two densities)",
    latex=r"\kappa=\int\frac{\phi_o\phi_n}{q}\le\mathrm{BC}\,\cosh(\tfrac s2)\min(1,\tfrac{\sqrt{2\pi}}\delta),\qquad"
    r"\mathcal D=\frac{1-\kappa}{\beta(1-\beta)}",
    derive=_derive_weight_identities,
    sample=_sample_weight,
    exact=harmonic_overlap,
    bound=_bound_overlap,
    test="tests/theory/test_overlap.py",
)

WEIGHT_INFORMATION = Statement(
    slug="weight-information",
    title="Fisher information of the weight between total variation and chi-square",
    status="T",
    kind="bound",
    hypotheses="0 < beta < 1, delta > 0",
    latex=r"4\,\mathrm{TV}^2\le\mathcal D\le\min\{\tfrac1{\beta(1-\beta)},\,e^{\delta^2}-1\}",
    derive=_derive_weight_identities,
    sample=_sample_weight,
    exact=weight_fisher_information,
    bound=weight_information_bounds,
    test="tests/theory/test_overlap.py",
    tolerance=1e-11,
)


def _exact_noise(log_odds: Array, delta: Array) -> Array:
    # E_new[(r_o - beta)^2]
    beta = expit(log_odds)
    old, _, both = responsibility_moments(log_odds - 0.5 * delta * delta, delta)
    return (old - both) - 2.0 * beta * old + beta * beta


WEIGHT_NOISE = Statement(
    slug="weight-noise",
    title="Self-bounding gradient noise: the variance vanishes with the mass",
    status="T",
    kind="bound",
    hypotheses="samples of the new component; any two densities",
    latex=r"\mathbb E_{\phi_n}[(r_o-\beta)^2]\le\beta^2(1-\beta)\,\mathcal D",
    derive=_derive_weight_identities,
    sample=lambda rng, n: {"log_odds": rng.uniform(-5.0, 5.0, n), "delta": rng.uniform(0.5, 12.0, n)},
    exact=_exact_noise,
    bound=lambda log_odds, delta: (
        None,
        expit(log_odds) ** 2 * expit(-log_odds) * weight_fisher_information(log_odds, delta),
    ),
    test="tests/theory/test_overlap.py",
    tolerance=1e-8,  # the exact value is a difference of second moments
)


# --- misassignment (3.4) ----------------------------------------------------------------------------------------


def _derive_misassignment() -> Derivation:
    lam, delta, t = sp.symbols("lambda delta t", real=True)
    exponent = -lam * t - t * (1 - t) * delta**2 / 2
    saddle = sp.Rational(1, 2) + lam / delta**2
    _z, w, y = sp.symbols("z w y", positive=True)
    # sqrt((1-w)/w) BC sech/2 from r_n phi_o at the midpoint: densities as exp(-+delta x/2)
    r_new_density = (1 - w) * y * (1 / y) / (w / y + (1 - w) * y)
    sech_form = sp.sqrt((1 - w) / w) / (y * sp.sqrt((1 - w) / w) + 1 / (y * sp.sqrt((1 - w) / w)))
    points = [{w: sp.Rational(1, 5), y: sp.Rational(7, 3)}, {w: sp.Rational(4, 7), y: sp.Rational(1, 3)}]
    difference = r_new_density - sech_form
    return numeric(
        (
            "the exponent -lambda t - t (1-t) delta^2/2 is -(delta/2 + lambda/delta)^2/2 at t = 1/2 + lambda/delta^2",
            "eps = sqrt((1-w)/w) BC E[sech((delta U - lambda)/2)] / 2",
        ),
        [
            vanishes(exponent.subs(t, saddle) + (delta / 2 + lam / delta) ** 2 / 2),
            vanishes_at(difference, points),
        ],
    )


MISASSIGNMENT = Statement(
    slug="misassignment",
    title="Misassignment probability, exponent delta^2 / 8 with its prefactor",
    status="T",
    kind="bound",
    hypotheses="old log-odds lambda, delta > 0",
    latex=r"\varepsilon=\tfrac12\sqrt{\tfrac{1-w}w}\,\mathrm{BC}\;\mathbb E\,\mathrm{sech}\tfrac{\delta U-\lambda}2"
    r"\le\tfrac12\sqrt{\tfrac{1-w}w}\,e^{-\delta^2/8}\min(1,\tfrac{\sqrt{2\pi}}\delta)",
    derive=_derive_misassignment,
    sample=lambda rng, n: {
        "log_odds": sometimes(rng, rng.uniform(-300.0, 300.0, n), rng.uniform(-7.0, 7.0, n)),
        "delta": rng.uniform(0.05, 20.0, n),
    },
    exact=misassignment_probability,
    bound=misassignment_bounds,
    test="tests/theory/test_overlap.py",
)

STATEMENTS = (
    LOGISTIC_NORMAL,
    MISMATCH_OVERLAP,
    MISMATCH_OVERLAP_SECOND,
    WEIGHT_IDENTITIES,
    WEIGHT_INFORMATION,
    WEIGHT_NOISE,
)
