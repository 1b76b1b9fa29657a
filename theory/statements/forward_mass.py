"""Statements of sections 1.1 to 1.5, mass forgetting: rate of the weight, law and late law, Fisher-Rao geometry, SGD."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import expit

from fstsim.divergences import forward_kl_gradient
from fstsim.optimizers import weight_velocity
from fstsim.overlap import overlap_gap
from fstsim.theory.forward_kl import mass_forgetting_bounds, mass_forgetting_time, mass_forgetting_ultimate
from fstsim.theory.statements.instances import column, log_uniform, sometimes
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import nothing, sigmoid, symbolic

Array = NDArray[np.float64]
_TEST = "tests/theory/test_forward_kl.py"


# --- the rate of the weight (1.1, 1.2) --------------------------------------------------------------------------


def _derive_rate() -> Derivation:
    s = sp.symbols("s", real=True)
    f, g, a = sp.symbols("f g a", positive=True)
    b = sigmoid(s)
    q = b * f + (1 - b) * g
    beta = sp.symbols("beta", positive=True)
    mix = beta * f + (1 - beta) * g
    train = a * f + (1 - a) * g
    # E_train[r] - beta = (a - beta) * beta (1 - beta) int (f-g)^2/q + (terms whose integral is 0): train = q + (a-beta)(f-g)
    return symbolic(
        (
            "d log q / ds = r_o - beta",
            "train (r_o - beta) = (alpha - beta) beta (1 - beta) (f - g)^2 / q + beta (1 - beta) (f - g)",
        ),
        [
            sp.diff(sp.log(q), s) - (b * f / q - b),
            train * (beta * f / mix - beta)
            - (a - beta) * beta * (1 - beta) * (f - g) ** 2 / mix
            - beta * (1 - beta) * (f - g),
        ],
    )


def _sample_rate(rng: np.random.Generator, n: int) -> Sample:
    return {
        "log_odds": sometimes(rng, rng.uniform(-200.0, 30.0, n), rng.uniform(-8.0, 8.0, n)),
        "alpha": rng.uniform(0.0, 1.0, n),
        "delta": log_uniform(rng, 0.3, 12.0, n),
    }


def _gradient_rate(log_odds: Array, alpha: Array, delta: Array) -> Array:
    zero = np.zeros_like(delta)
    weights = np.stack([alpha, 1.0 - alpha], axis=-1)
    centers = np.stack([column(zero), column(delta)], axis=-2)
    return -forward_kl_gradient(log_odds, column(zero), column(delta), weights, centers)[0]


def _rate(log_odds: Array, alpha: Array, delta: Array) -> Bounds:
    value = (alpha - expit(log_odds)) * overlap_gap(log_odds, delta)
    return value, value


RATE = Statement(
    slug="mass-forgetting-rate",
    title="The old weight moves at (alpha - beta)(1 - kappa)",
    status="T",
    kind="identity",
    hypotheses="components right, training weight alpha on the old one; any two densities",
    latex=r"\dot s=(\alpha-\beta)(1-\kappa(\beta))",
    derive=_derive_rate,
    sample=_sample_rate,
    exact=_gradient_rate,
    bound=_rate,
    test=_TEST,
    tolerance=1e-8,  # the left side is a difference of near-equal numbers when alpha is near beta or delta is small
)


# --- how fast the mass goes (1.3) --------------------------------------------------------------------------------


def _derive_law() -> Derivation:
    y0, t = sp.symbols("y0 t", positive=True)
    y = sp.Function("y")(t)
    s = sp.symbols("s", real=True)
    # ds/dt = -sigmoid(s) with y = e^-s: dy/dt = y sigmoid(s) = y / (1 + y), so d(y + log y)/dt = 1
    rate = y / (1 + y)
    lambert = sp.LambertW(y0 * sp.exp(y0 + t))
    return symbolic(
        (
            "d/dt (y + log y) = 1 along ds/dt = -sigmoid(s), y = exp(-s)",
            "y = W(y0 exp(y0 + t)) solves dy/dt = y / (1 + y)",
            "dt/ds of the exact law: (1 + e^-s) sigmoid(s) = 1",
        ),
        [
            sp.diff(y + sp.log(y), t).subs(sp.Derivative(y, t), rate) - 1,
            sp.diff(lambert, t) - lambert / (1 + lambert),
            (1 + sp.exp(-s)) * sigmoid(s) - 1,
        ],
    )


def _sample_law(rng: np.random.Generator, n: int) -> Sample:
    s0 = sometimes(rng, rng.uniform(-150.0, 30.0, n), rng.uniform(-3.0, 3.0, n))
    fall = sometimes(rng, log_uniform(rng, 1e-6, 0.05, n), rng.uniform(0.05, 10.0, n))
    beta0, beta1 = expit(s0), expit(s0 - fall)
    delta = rng.uniform(0.7, 8.0, n)
    return {"beta0": beta0, "beta1": beta1, "delta": delta, "t": mass_forgetting_time(beta0, beta1, delta)}


MASS_FORGETTING = Statement(
    slug="mass-forgetting",
    title="Old mass under forward KL on new data: algebraic decay, two-sided",
    status="T",
    kind="bound",
    hypotheses="components right, new data only, flow in the logit of the weight",
    latex=r"\beta_W(t)\le\beta(t)\le\min\Big\{\beta_W\big((1-\bar\kappa)t\big),\ "
    r"\big[\beta_0^{-2}+8\mathrm{TV}^2(1-\beta_0)^2t\big]^{-1/2}\Big\},\quad "
    r"\beta_W=\frac1{1+W(e^{y_0+\log y_0+t})},\ y_0=\tfrac{1-\beta_0}{\beta_0}",
    derive=_derive_law,
    sample=_sample_law,
    exact=lambda beta0, beta1, delta, t: beta1,  # noqa: ARG005 -- t is the exact time of beta1
    bound=lambda beta0, beta1, delta, t: mass_forgetting_bounds(beta0, t, delta),  # noqa: ARG005
    test=_TEST,
)


def _sample_ultimate(rng: np.random.Generator, n: int) -> Sample:
    delta = rng.uniform(0.5, 2.0, n)
    s1 = -1.5 * delta**2 - rng.uniform(6.0, 10.0, n)  # beta << exp(-3 delta^2 / 2)
    t = mass_forgetting_time(np.full(n, 0.5), expit(s1), delta)
    return {"beta1": expit(s1), "delta": delta, "t": t}


def _ultimate(beta1: Array, delta: Array, t: Array) -> Bounds:  # noqa: ARG001
    value = mass_forgetting_ultimate(t, delta)
    return value, value


MASS_FORGETTING_ULTIMATE = Statement(
    slug="mass-forgetting-ultimate",
    title="1/t is an intermediate law: with overlap the mass ends like t^(-1/2)",
    status="A",
    kind="approximation",
    hypotheses="components right, beta << exp(-3 delta^2 / 2)",
    latex=r"\beta(t)\sim[2(e^{\delta^2}-1)\,t]^{-1/2}",
    derive=lambda: nothing("from D -> chi^2 = exp(delta^2) - 1 as beta -> 0"),
    sample=_sample_ultimate,
    exact=lambda beta1, delta, t: beta1,  # noqa: ARG005
    bound=_ultimate,
    test=_TEST,
)


# --- geometry (1.4) -----------------------------------------------------------------------------------------------


def _derive_geometry() -> Derivation:
    a, b, info = sp.symbols("alpha beta D", positive=True)
    force = (a - b) * info  # -dL/dbeta
    t, b0 = sp.symbols("t beta_0", positive=True)
    solution = a + (b0 - a) * sp.exp(-t)
    return symbolic(
        (
            "Fisher-Rao: the natural gradient (alpha - beta) D / D is alpha - beta",
            "its flow is alpha + (beta_0 - alpha) exp(-t)",
        ),
        [force / info - (a - b), sp.diff(solution, t) - (a - solution)],
    )


def _fisher_velocity(log_odds: Array, alpha: Array, delta: Array) -> Array:
    gradient = -_gradient_rate(log_odds, alpha, delta)
    return expit(log_odds) * expit(-log_odds) * weight_velocity(log_odds, gradient, delta, "fisher")


def _fisher_law(log_odds: Array, alpha: Array, delta: Array) -> Bounds:  # noqa: ARG001
    value = alpha - expit(log_odds)
    return value, value


GEOMETRY = Statement(
    slug="mass-forgetting-geometry",
    title="In the Fisher-Rao geometry the old mass decays like exp(-t), for every overlap",
    status="T",
    kind="identity",
    hypotheses="components right, training weight alpha on the old one; any two densities",
    latex=r"\dot\beta=\alpha-\beta\quad\text{(natural gradient)},\qquad\text{against}\quad\dot\beta=\beta(1-\beta)(\alpha-\beta)(1-\kappa)"
    r"\quad\text{(logit)}",
    derive=_derive_geometry,
    sample=_sample_rate,
    exact=_fisher_velocity,
    bound=_fisher_law,
    test=_TEST,
    tolerance=1e-8,
)


# --- SGD (1.5) ----------------------------------------------------------------------------------------------------


def _derive_sgd() -> Derivation:
    h = sp.symbols("h", positive=True)
    f, y = sp.symbols("f y", negative=True)
    return symbolic(
        (
            "with E y = h f and E y^2 <= h^2 |f|, the bound 1 + y + y^2 averages to 1 - h (1 - h) |f|",
            "e^y = 1 + y + y^2/2 + ... : the third-order remainder of 1 + y + y^2 - e^y at 0 is y^2/2",
        ),
        [
            1 + h * f - h**2 * f - (1 - h * (1 - h) * (-f)),
            sp.series(1 + y + y**2 - sp.exp(y), y, 0, 3).removeO() - y**2 / 2,
        ],
    )


def _sample_sgd(rng: np.random.Generator, n: int) -> Sample:
    return {
        "log_odds": rng.uniform(-6.0, 4.0, n),
        "delta": rng.uniform(0.7, 8.0, n),
        "lr": rng.uniform(0.01, 0.99, n),
        "batch": np.floor(log_uniform(rng, 1.0, 256.0, n)),
    }


def _odds_loss(log_odds: Array, delta: Array, lr: Array, batch: Array) -> Array:
    """``(1 - E[odds_{k+1} / odds_k]) / (h |f|)``: the expected relative loss of the odds in one SGD step."""
    step = 0.25 / np.maximum(1.0, delta.max())
    u = np.arange(-9.5, 9.5 + step, step)
    density = step * np.exp(-0.5 * u * u) / np.sqrt(2.0 * np.pi)
    z = (log_odds - 0.5 * delta * delta)[:, None] + delta[:, None] * u
    moment = np.expm1((lr / batch)[:, None] * expit(z)) @ density
    rate = expit(log_odds) * overlap_gap(log_odds, delta)
    return -np.expm1(batch * np.log1p(moment) - lr * expit(log_odds)) / (lr * rate)


SGD_ODDS = Statement(
    slug="mass-forgetting-sgd",
    title="Under SGD the odds of the old mode are a supermartingale, whatever the batch",
    status="T",
    kind="bound",
    hypotheses="new data only, batch N >= 1, 0 < h < 1, components right",
    latex=r"h|f|\ \ge\ 1-\mathbb E\Big[\tfrac{\mathrm{odds}_{k+1}}{\mathrm{odds}_k}\Big|s_k\Big]\ \ge\ h(1-h)|f|,\quad f=-\beta(1-\kappa)",
    derive=_derive_sgd,
    sample=_sample_sgd,
    exact=_odds_loss,
    bound=lambda log_odds, delta, lr, batch: (1.0 - lr, np.ones_like(lr)),  # noqa: ARG005
    test=_TEST,
    tolerance=1e-7,  # a difference of numbers near 1, divided by the small rate
)

STATEMENTS = (RATE, MASS_FORGETTING, MASS_FORGETTING_ULTIMATE, GEOMETRY, SGD_ODDS)
