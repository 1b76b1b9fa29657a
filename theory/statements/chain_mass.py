"""Statements of theory 6.4: the mass of writing a chain is an old behaviour."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import expit

from fstsim.theory.chain_mass import chain_log_odds_paid, chain_mass_rate, chain_mass_rest
from fstsim.theory.clocks import integrate
from fstsim.theory.statements.instances import log_uniform, same, sometimes
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import sigmoid, symbolic

Array = NDArray[np.float64]
_TEST = "tests/theory/test_chain_mass.py"
_SOURCE = "own derivation, on 2411.15382 (faithfulness after fine-tuning) and 2603.12163 (mass forgetting)"
_HALVINGS = 200


def _derive() -> Derivation:
    u, lam, w, g, a, b = sp.symbols("u lambda w g a b", real=True)
    c = sigmoid(u)
    shown = -lam * sp.log(c) - (1 - lam) * sp.log(1 - c)
    paid = a * c + (a - g) * (1 - c)
    # the mean of (reward - baseline) times the score, over the two routes
    estimate = c * (a - b) * sp.diff(sp.log(c), u) + (1 - c) * (a - g - b) * sp.diff(sp.log(1 - c), u)
    rest = (-(w - g) + sp.sqrt((w - g) ** 2 + 4 * g * w * lam)) / (2 * g)
    return symbolic(
        (
            "cross-entropy of the first token, a share lambda of chains: du/dt = lambda - c",
            "expected reward of the answer, gap g between the routes: du/dt = g c (1 - c)",
            "the policy gradient has this mean for every baseline b",
            "the rest of both is a root of w (lambda - c) + g c (1 - c)",
        ),
        [
            -sp.diff(shown, u) - (lam - c),
            sp.diff(paid, u) - g * c * (1 - c),
            estimate - g * c * (1 - c),
            sp.expand(w * (lam - rest) + g * rest * (1 - rest)),
        ],
    )


def _sample_rest(rng: np.random.Generator, n: int) -> Sample:
    """Any share, weight and gap, at their ends and next to each other too."""
    lam = sometimes(rng, log_uniform(rng, 1e-12, 1e-3, n), rng.uniform(size=n))
    lam = sometimes(rng, rng.choice([0.0, 1.0], n), lam, 0.1)
    weight = log_uniform(rng, 1e-4, 10.0, n)
    gap = np.clip(sometimes(rng, weight * (1.0 + 1e-3 * rng.normal(size=n)), rng.uniform(-1.0, 1.0, n)), -1.0, 1.0)
    return {"chain_share": lam, "weight": weight, "gap": np.where(rng.random(n) < 0.05, 0.0, gap)}


def _bisected(chain_share: Array, weight: Array, gap: Array) -> Array:
    """The rest by halving, of the rate itself: it falls from w lambda at c = 0 to -w (1 - lambda) at 1, and has one zero between.

    At lambda = 0 the end c = 0 is a rest as well; the one that is approached from inside is wanted.
    """
    low, high = np.full(len(gap), -800.0), np.full(len(gap), 40.0)
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        rising = chain_mass_rate(middle, chain_share, weight, gap) > 0.0
        low, high = np.where(rising, middle, low), np.where(rising, high, middle)
    return expit(0.5 * (low + high))


def _rest_bound(chain_share: Array, weight: Array, gap: Array) -> Bounds:
    return same(1.0 + chain_mass_rest(chain_share, weight, gap))


REST = Statement(
    slug="chain-mass",
    title="Writing a chain is an old behaviour: answers alone forget it by the old-mass law, a share of chains keeps that share, a gap in reward moves it",
    status="T",
    kind="identity",
    hypotheses="one decision (chain or answer) of log-odds u, supervised steps of weight w with a share lambda of chains, reinforcement with gap g in success",
    latex=r"\dot u=w(\lambda-c)+g\,c(1-c),\quad c=\sigma(u):\qquad c_\infty=\lambda\ (g=0),\qquad c_\infty=(1-w/g)_+\ (\lambda=0),\qquad gc_\infty^2+(w-g)c_\infty=w\lambda",
    derive=_derive,
    sample=_sample_rest,
    exact=lambda **x: 1.0 + _bisected(**x),
    bound=_rest_bound,
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-8,
)


def _derive_paid() -> Derivation:
    u = sp.symbols("u", real=True)
    clock = 2 * u + 2 * sp.sinh(u)
    return symbolic(
        ("F(u) = 2 u + 2 sinh u grows at rate g: F'(u) c (1 - c) = 1",),
        [(sp.diff(clock, u) * sigmoid(u) * sigmoid(-u) - 1).rewrite(sp.exp)],
    )


def _sample_paid(rng: np.random.Generator, n: int) -> Sample:
    """Masses at both ends, any gap but 0, times in which the mass moves by something or by almost all."""
    u = sometimes(rng, rng.uniform(-15.0, 15.0, n), rng.normal(scale=2.0, size=n))
    gap = rng.choice([-1.0, 1.0], n) * log_uniform(rng, 1e-3, 1.0, n)
    return {"log_odds0": u, "t": log_uniform(rng, 1e-1, 1e6, n) * np.cosh(0.5 * u) ** 2, "gap": gap}


def _time(log_odds0: Array, t: Array, gap: Array) -> Array:
    """Time that the flow takes to what the law says, by quadrature of one over the rate."""
    end = chain_log_odds_paid(log_odds0, t, gap)
    return integrate(lambda u: 2.0 + 2.0 * np.cosh(u), log_odds0, end) / gap


PAID = Statement(
    slug="chain-mass-paid",
    title="Reinforcement on the answer alone leaves chains where they are if both routes pay alike, else moves them by the plain clock",
    status="T",
    kind="identity",
    hypotheses="one decision (chain or answer), exact policy gradient, gap g in success between the routes that does not change",
    latex=r"2u+2\sinh u=2u_0+2\sinh u_0+g\,t",
    derive=_derive_paid,
    sample=_sample_paid,
    exact=_time,
    bound=lambda **x: same(x["t"]),
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-7,
)

STATEMENTS = (REST, PAID)
