"""Statements of section 6.2: the leashes KL(base || q) and KL(q || base) under forward KL, and a weak leash."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import expit

from fstsim.divergences import reverse_kl_gradient
from fstsim.theory.leashes import kl_leash_bounds, kl_leash_equilibrium, kl_leash_small_strength
from fstsim.theory.statements.instances import column, log_uniform
from fstsim.theory.statements.replay import replay_slope
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import nothing, sigmoid, symbolic

Array = NDArray[np.float64]
_TEST = "tests/theory/test_replay.py"


def _leash_slope(log_odds: Array, base_log_odds: Array, delta: Array) -> Array:
    """``d KL(q || base) / ds``, components right."""
    zero, new = column(np.zeros_like(delta)), column(delta)
    return reverse_kl_gradient(log_odds, zero, new, base_log_odds, zero, new)[0]


def _derive_leash() -> Derivation:
    eta, bb, p, f, g = sp.symbols("eta beta_b p f g", positive=True)
    base = bb * f + (1 - bb) * g
    share = eta * bb / (1 + eta)
    return symbolic(
        ("p_new + eta base = (1 + eta) [(1 - lambda) p_new + lambda p_old] with lambda = eta beta_b / (1 + eta)",),
        [(g + eta * base - (1 + eta) * ((1 - share) * g + share * f)) * p],
    )


def _sample_leash(rng: np.random.Generator, n: int) -> Sample:
    base = rng.uniform(-4.0, 4.0, n)
    # the mass at rest, and with it the strength that holds it there: no root has to be found
    return {
        "log_odds": base - log_uniform(rng, 0.02, 12.0, n),
        "base_log_odds": base,
        "delta": log_uniform(rng, 0.4, 10.0, n),
    }


def _sample_forward_leash(rng: np.random.Generator, n: int) -> Sample:
    x = _sample_leash(rng, n)
    s, delta = x["log_odds"], x["delta"]
    x["eta"] = -replay_slope(s, delta, np.zeros(n)) / replay_slope(s, delta, expit(x["base_log_odds"]))
    return x


def _mass(log_odds: Array, **_: Array) -> Array:
    return expit(log_odds)


def _forward_leash(log_odds: Array, base_log_odds: Array, delta: Array, eta: Array) -> Bounds:  # noqa: ARG001
    value = kl_leash_equilibrium(base_log_odds, eta, delta, "forward")
    return value, value


FORWARD_LEASH = Statement(
    slug="replay-forward-leash",
    title="The leash KL(base || q) is replay, at the share eta beta_b / (1 + eta)",
    status="T",
    kind="identity",
    hypotheses="base with the right components and weight beta_b, strength eta; any overlap",
    latex=r"\min_q\mathrm{KL}(p_n\Vert q)+\eta\,\mathrm{KL}(\text{base}\Vert q):\qquad\beta^*=\lambda_{\rm eff}=\frac{\eta\beta_b}{1+\eta}",
    derive=_derive_leash,
    sample=_sample_forward_leash,
    exact=_mass,
    bound=_forward_leash,
    test=_TEST,
    tolerance=1e-8,  # the strength comes from a difference of near-equal numbers
)


def _derive_reverse_leash() -> Derivation:
    sb, eta, b, d = sp.symbols("s_b eta beta D", positive=True)
    w = sp.LambertW(sp.exp(sb - 1 / eta) / eta)
    root = sb - 1 / eta - w
    # e^root = e^(sb - 1/eta) e^-w, and w e^w = e^(sb - 1/eta) / eta
    stationary = 1 + eta * w + eta * (root - sb)
    kappa = 1 - b * (1 - b) * d
    s = sp.symbols("s", real=True)
    return symbolic(
        (
            "beta D = (1 - kappa) / (1 - beta)",
            "d beta = beta (1 - beta) ds: D d beta = (1 - kappa) ds",
            "1 + e^s + eta (s - s_b) vanishes at s_b - 1/eta - W(e^(s_b - 1/eta) / eta), where e^s = eta W",
        ),
        [b * d - (1 - kappa) / (1 - b), sp.diff(sigmoid(s), s) - sigmoid(s) * (1 - sigmoid(s)), stationary],
    )


def _sample_reverse_leash(rng: np.random.Generator, n: int) -> Sample:
    x = _sample_leash(rng, n)
    s, delta = x["log_odds"], x["delta"]
    x["eta"] = -replay_slope(s, delta, np.zeros(n)) / _leash_slope(s, x["base_log_odds"], delta)
    return x


def _reverse_leash_bounds(log_odds: Array, base_log_odds: Array, delta: Array, eta: Array) -> Bounds:  # noqa: ARG001
    lower, upper = kl_leash_bounds(base_log_odds, eta, delta)
    return expit(lower), expit(upper)


REVERSE_LEASH = Statement(
    slug="replay-forward-reverse-leash",
    title="The leash KL(q || base) keeps exponentially little: two-sided, with a linear floor from the overlap",
    status="T",
    kind="bound",
    hypotheses="components right, base weight beta_b; L(x) the separated root, k the largest kappa on the way",
    latex=r"\max\Big\{\sigma(L(\eta(1-k))),\tfrac{\eta K}{(1+\eta)(e^{\delta^2}-1)}\Big\}\le\beta^*\le\sigma\big(L(\tfrac\eta{1-k})\big),\quad "
    r"L(\eta)=s_b-\tfrac1\eta-W\big(\tfrac1\eta e^{s_b-1/\eta}\big)",
    derive=_derive_reverse_leash,
    sample=_sample_reverse_leash,
    exact=_mass,
    bound=_reverse_leash_bounds,
    test=_TEST,
    tolerance=1e-7,  # the strength comes from a difference of near-equal numbers
)


def _sample_weak_leash(rng: np.random.Generator, n: int) -> Sample:
    delta = rng.uniform(0.7, 2.5, n)
    x = {
        "log_odds": -1.5 * delta**2 - rng.uniform(4.0, 8.0, n),
        "base_log_odds": rng.uniform(-1.0, 2.0, n),
        "delta": delta,
    }
    x["eta"] = -replay_slope(x["log_odds"], delta, np.zeros(n)) / _leash_slope(x["log_odds"], x["base_log_odds"], delta)
    return x


def _weak_leash(log_odds: Array, base_log_odds: Array, delta: Array, eta: Array) -> Bounds:  # noqa: ARG001
    value = kl_leash_small_strength(base_log_odds, eta, delta)
    return value, value


WEAK_LEASH = Statement(
    slug="replay-forward-weak-leash",
    title="exp(-1/eta) is an intermediate law: with overlap a weak leash KL(q || base) keeps a mass linear in eta",
    status="A",
    kind="approximation",
    hypotheses="components right, eta -> 0 at fixed separation (beta* << exp(-3 delta^2 / 2))",
    latex=r"\beta^*\sim\frac{\eta K}{e^{\delta^2}-1},\qquad K=\int_0^{\beta_b}\mathcal D\,db<\infty",
    derive=lambda: nothing("D -> e^(delta^2) - 1 as beta -> 0 in beta D = eta (K - int_0^beta D)"),
    sample=_sample_weak_leash,
    exact=_mass,
    bound=_weak_leash,
    test=_TEST,
)

STATEMENTS = (FORWARD_LEASH, REVERSE_LEASH, WEAK_LEASH)
