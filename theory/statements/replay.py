"""Statements of section 6.1: where replay brings the old mass to rest, and when."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import expit, logit

from fstsim.divergences import forward_kl_gradient
from fstsim.overlap import overlap_gap
from fstsim.theory.replay import replay_equilibrium, replay_time
from fstsim.theory.statements.instances import column, log_uniform, sometimes
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import symbolic

Array = NDArray[np.float64]
_TEST = "tests/theory/test_replay.py"


def replay_slope(log_odds: Array, delta: Array, old_share: Array) -> Array:
    """``dL/ds`` of the cross-entropy on ``(1 - old_share) p_new + old_share p_old``, components right."""
    zero, new = column(np.zeros_like(delta)), column(delta)
    weights = np.stack([old_share, 1.0 - old_share], axis=-1)
    return forward_kl_gradient(log_odds, zero, new, weights, np.stack([zero, new], axis=-2))[0]


def _derive_replay() -> Derivation:
    b, lam, f, g = sp.symbols("beta lambda f g", positive=True)
    q = b * f + (1 - b) * g
    train = lam * f + (1 - lam) * g
    # -dL/dbeta = int train (f - g) / q; train = q + (lambda - beta)(f - g), and int (f - g) = 0
    return symbolic(
        ("train (f - g) / q = (lambda - beta)(f - g)^2 / q + (f - g): the force on beta is (lambda - beta) D",),
        [train * (f - g) / q - (lam - b) * (f - g) ** 2 / q - (f - g)],
    )


def _sample_replay(rng: np.random.Generator, n: int) -> Sample:
    return {
        "log_odds": sometimes(rng, rng.uniform(-200.0, 30.0, n), rng.uniform(-6.0, 6.0, n)),
        "delta": sometimes(rng, log_uniform(rng, 0.01, 40.0, n), log_uniform(rng, 0.5, 12.0, n)),
    }


def _resting_share(log_odds: Array, delta: Array) -> Array:
    """The replay share at which the exact gradient vanishes at ``log_odds``: it is affine in the share."""
    at_none, at_all = (replay_slope(log_odds, delta, np.full(delta.shape, share)) for share in (0.0, 1.0))
    return at_none / (at_none - at_all)


def _equal(log_odds: Array, delta: Array) -> Bounds:  # noqa: ARG001
    value = replay_equilibrium(expit(log_odds))
    return value, value


REPLAY = Statement(
    slug="replay-forward",
    title="With replayed data the old mass comes to rest at the replay share, for every overlap",
    status="T",
    kind="identity",
    hypotheses="training density (1 - lambda) p_new + lambda p_old, components right; any two densities",
    latex=r"\dot s=(\lambda-\beta)(1-\kappa),\qquad\beta^*=\lambda",
    derive=_derive_replay,
    sample=_sample_replay,
    exact=_resting_share,
    bound=_equal,
    test=_TEST,
    tolerance=1e-8,  # a ratio of differences of near-equal numbers where delta is small
)


def _derive_time() -> Derivation:
    b, lam = sp.symbols("b lambda", positive=True)
    gamma = sp.log(b) / lam + sp.log(1 - b) / (1 - lam) - sp.log(lam - b) / (lam * (1 - lam))
    stable = -sp.log(1 - lam / b) / lam - sp.log(1 - (1 - lam) / (1 - b)) / (1 - lam)
    return symbolic(
        (
            "Gamma'(b) = 1 / (b (1 - b)(lambda - b)), for d beta/dt = beta (1 - beta)(lambda - beta)",
            "the form without cancellation has the same derivative",
        ),
        [sp.diff(gamma, b) - 1 / (b * (1 - b) * (lam - b)), sp.diff(stable - gamma, b)],
    )


def _sample_time(rng: np.random.Generator, n: int) -> Sample:
    target = sometimes(rng, rng.uniform(-60.0, 2.0, n), rng.uniform(-4.0, 2.0, n))
    away = rng.choice([-1.0, 1.0], n) * sometimes(rng, log_uniform(rng, 1e-3, 20.0, n), rng.uniform(0.2, 5.0, n))
    return {
        "beta0": expit(target + away),
        "beta1": expit(target + away * rng.uniform(0.05, 0.95, n)),
        "lam": expit(target),
        "delta": rng.uniform(0.7, 10.0, n),
    }


def _time_bounds(beta0: Array, beta1: Array, lam: Array, delta: Array) -> Bounds:
    separated = replay_time(beta0, beta1, lam)
    # kappa is even and nondecreasing in |s|: its maximum on the way is at the farther end
    return separated, separated / overlap_gap(np.maximum(np.abs(logit(beta0)), np.abs(logit(beta1))), delta)


REPLAY_TIME = Statement(
    slug="replay-forward-time",
    title="Time of the mass to a level under replay: closed form, slowed by overlap at most by 1 - kappa",
    status="T",
    kind="bound",
    hypotheses="components right, beta_0 and beta_1 on one side of lambda, flow in the logit",
    latex=r"\Gamma(\beta_1)-\Gamma(\beta_0)\le t\le\frac{\Gamma(\beta_1)-\Gamma(\beta_0)}{1-\kappa_{\max}},\quad"
    r"\Gamma(b)=\tfrac{\log b}\lambda+\tfrac{\log(1-b)}{1-\lambda}-\tfrac{\log|\lambda-b|}{\lambda(1-\lambda)}",
    derive=_derive_time,
    sample=_sample_time,
    exact=replay_time,
    bound=_time_bounds,
    test=_TEST,
)

STATEMENTS = (REPLAY, REPLAY_TIME)
