"""Statements of section 14.3: the noise of natural-gradient steps, and the floor below which expected odds do not fall."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import expit, logit

from fstsim.overlap import overlap_gap
from fstsim.theory.natural_noise import (
    natural_estimate_bounds,
    natural_estimate_variance,
    natural_odds_bounds,
    natural_odds_growth,
)
from fstsim.theory.statements.instances import log_uniform, sometimes
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import symbolic

Array = NDArray[np.float64]
_TEST = "tests/theory/test_natural_noise.py"
_SOURCE = "Cramer (1946) and Rao (1945) for the bound; own derivation"
_MOST = 60.0  # of a, the exponent of one sample that is wholly old


def _derive_noise() -> Derivation:
    b, k, a = sp.symbols("beta kappa alpha", positive=True)
    mean = b * k + a * (1 - k)  # of r_o: (1 - alpha) beta kappa + alpha (1 - (1 - beta) kappa)
    old, new = 1 - (1 - b) * k, b * k
    return symbolic(
        (
            "E r_o = beta kappa + alpha (1 - kappa), so that the estimate has mean alpha",
            "Cov_alpha(r_o, (f_o - f_n) / p_alpha) = E_o r_o - E_n r_o = 1 - kappa",
        ),
        [(1 - a) * new + a * old - mean, b + (mean - b) / (1 - k) - a, old - new - (1 - k)],
    )


def _sample_noise(rng: np.random.Generator, n: int) -> Sample:
    share = sometimes(rng, np.zeros(n), expit(rng.uniform(-12.0, 8.0, n)))
    away = rng.uniform(-12.0, 12.0, n)
    at_rest = logit(np.clip(share, 1e-8, 1.0 - 1e-8)) + log_uniform(rng, 1e-4, 1.0, n)
    return {
        "log_odds": sometimes(rng, at_rest, away, 0.4),
        "share": share,
        "delta": log_uniform(rng, 0.05, 6.0, n),
    }


NOISE = Statement(
    slug="natural-gradient-noise",
    title="A natural-gradient step goes towards an unbiased estimate of the share, no better than Cramer and Rao allow",
    status="T",
    kind="bound",
    hypotheses="forward KL on data with a share alpha in [0, 1) of old ones, components right, any weight beta; equal at beta = alpha",
    latex=r"\hat\alpha=\beta+\frac{\frac1N\sum r_o(x_i)-\beta}{1-\kappa},\quad\mathbb E\hat\alpha=\alpha,\qquad"
    r"\frac1{\mathcal D(\alpha)}\le N\,\mathrm{Var}(\hat\alpha)\le\frac{y(1-y)}{(1-\kappa)^2},\quad y=\beta\kappa+\alpha(1-\kappa)",
    derive=_derive_noise,
    sample=_sample_noise,
    exact=natural_estimate_variance,
    bound=natural_estimate_bounds,
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-7,  # a quadrature
    max_examples=200_000,
)


def _derive_floor() -> Derivation:
    z, b, k = sp.symbols("z beta kappa", positive=True)
    h, n = sp.symbols("h N", positive=True)
    a = h / (n * b * (1 - b) * (1 - k))
    return symbolic(
        (
            "e^z >= 1 + z + z^2 / 2 for z >= 0; (e^(a r) - 1 - a r) / r^2 rises in r, so that at r <= 1 it is at most e^a - 1 - a",
            "N a (beta - y) = h / (1 - beta): the mean of the log-odds falls by that in every step",
        ),
        [sp.series(sp.exp(z), z, 0, 3).removeO() - (1 + z + z**2 / 2), n * a * (b - b * k) - h / (1 - b)],
    )


def _sample_floor(rng: np.random.Generator, n: int) -> Sample:
    s, d = rng.uniform(-14.0, 6.0, n), log_uniform(rng, 0.05, 5.0, n)
    batch = np.floor(log_uniform(rng, 1.0, 4096.0, n))
    most = _MOST * batch * expit(s) * expit(-s) * overlap_gap(s, d)
    return {"log_odds": s, "delta": d, "lr": np.minimum(log_uniform(rng, 1e-4, 1.0, n), most), "batch_size": batch}


def _growth(log_odds: Array, delta: Array, lr: Array, batch_size: Array) -> Array:
    return np.exp(natural_odds_growth(log_odds, delta, lr, batch_size))


def _growth_bounds(log_odds: Array, delta: Array, lr: Array, batch_size: Array) -> Bounds:
    lower, upper = natural_odds_bounds(log_odds, delta, lr, batch_size)
    return np.exp(lower), np.exp(upper)


FLOOR = Statement(
    slug="natural-gradient-floor",
    title="Natural gradient on finite batches: below sqrt(h / (2 N D)) the expected odds of the old mode stop falling",
    status="T",
    kind="bound",
    hypotheses="new data only, components right, natural-gradient steps h of the log-odds, batch N; a = h / (N beta (1 - beta)(1 - kappa)); a factor per sample is compared",
    latex=r"1+ay+\tfrac{a^2}2\big(y^2+\tfrac{(1-\kappa)^2}{\chi^2}\big)\le e^{a\beta}\,\mathbb E\Big[\tfrac{\mathrm{odds}_{k+1}}{\mathrm{odds}_k}\Big]^{1/N}"
    r"\le1+ay+(e^a-1-a)\min\{y,x(1-x)+y^2\},\quad x=\beta(1-\kappa),\ y=\beta\kappa",
    derive=_derive_floor,
    sample=_sample_floor,
    exact=_growth,
    bound=_growth_bounds,
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-9,
    max_examples=200_000,
)

STATEMENTS = (NOISE, FLOOR)
