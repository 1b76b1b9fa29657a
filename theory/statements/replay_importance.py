"""Statements of section 7.2, importance-weighted replay: no bias, bounded variance, effective sample size."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import expit, log_expit

from fstsim.divergences import reverse_kl_gradient
from fstsim.theory.numerics.collinear import gaussian_nodes, policy_average, right_components, score_moments
from fstsim.theory.starvation import effective_sample_fraction, replay_gradient_variance
from fstsim.theory.statements.instances import log_uniform
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import nothing, symbolic

Array = NDArray[np.float64]
_TEST = "tests/theory/test_replay.py"


def sample_states(rng: np.random.Generator, n: int) -> Sample:
    """Learners with right components and a wrong weight, replay shares and separations."""
    s = rng.uniform(-6.0, 6.0, n)
    return {
        "log_odds": s,
        "target_log_odds": s + rng.choice([-1.0, 1.0], n) * log_uniform(rng, 0.1, 6.0, n),
        "replay_fraction": rng.uniform(0.01, 0.7, n),
        "delta": log_uniform(rng, 0.5, 9.0, n),
    }


def _derive_weights() -> Derivation:
    q, p, f, lam, g, v = sp.symbols("q p f lambda g V", positive=True)
    b = (1 - lam) * q + lam * p
    w = q / b
    return symbolic(
        (
            "b w f = q f: the mean under b of w f is that under q of f",
            "b (w f)^2 = q w f^2",
            "1/(1 - lambda) - w = lambda p / ((1 - lambda) b) >= 0",
            "E_q f^2 / (1 - lambda) - g^2 = V / (1 - lambda) + lambda g^2 / (1 - lambda) for V = E_q f^2 - g^2",
        ),
        [
            b * w * f - q * f,
            b * (w * f) ** 2 - q * w * f**2,
            1 / (1 - lam) - w - lam * p / ((1 - lam) * b),
            (v + g**2) / (1 - lam) - g**2 - v / (1 - lam) - lam * g**2 / (1 - lam),
        ],
    )


def _replayed_mean(log_odds: Array, target_log_odds: Array, replay_fraction: Array, delta: Array) -> Array:
    """``E_b[w A (r_o - beta)]`` integrated over ``b = (1 - lambda) q + lambda p_old``, each component in turn."""
    u, weights = gaussian_nodes(float(delta.max()))
    beta, lam = expit(log_odds), replay_fraction
    total = np.zeros(delta.shape)
    for share, side in ((lam + (1.0 - lam) * beta, 1.0), ((1.0 - lam) * (1.0 - beta), -1.0)):
        z = side * 0.5 * delta[:, None] ** 2 + delta[:, None] * u  # log p_old / p_new
        q = np.logaddexp(log_expit(log_odds)[:, None] + z, log_expit(-log_odds)[:, None])
        p = np.logaddexp(log_expit(target_log_odds)[:, None] + z, log_expit(-target_log_odds)[:, None])
        weight = 1.0 / (1.0 - lam[:, None] + lam[:, None] * np.exp(z - q))
        score = expit(log_odds[:, None] + z) - beta[:, None]
        total = total + share * ((weight * (p - q) * score) @ weights)
    return total


def _exact_slope(log_odds: Array, target_log_odds: Array, replay_fraction: Array, delta: Array) -> Bounds:  # noqa: ARG001
    zero, new = np.zeros((delta.size, 1)), delta[:, None]
    value = -reverse_kl_gradient(log_odds, zero, new, target_log_odds, zero, new)[0]
    return value, value


UNBIASED = Statement(
    slug="replay-reverse-unbiased",
    title="Importance-weighted replay leaves the population objective unchanged",
    status="T",
    kind="identity",
    hypotheses="components right; any q, p_old and integrand f",
    latex=r"\mathbb E_b[\varpi f]=\mathbb E_q[f],\qquad b=(1-\lambda)q+\lambda p_o,\quad\varpi=q/b\le\tfrac1{1-\lambda}",
    derive=_derive_weights,
    sample=sample_states,
    exact=_replayed_mean,
    bound=_exact_slope,
    test=_TEST,
    tolerance=1e-7,  # the mean of terms of both signs
)


def _variance_bound(log_odds: Array, target_log_odds: Array, replay_fraction: Array, delta: Array) -> Bounds:
    moments = score_moments(right_components(log_odds, target_log_odds, delta), np.zeros(delta.size))
    on_policy = moments.m[2, 2] - moments.gain**2
    return None, (on_policy + replay_fraction * moments.gain**2) / (1.0 - replay_fraction)


REPLAY_VARIANCE_BOUND = Statement(
    slug="replay-reverse",
    title="Replayed batches cost at most the factor 1 / (1 - lambda) in variance",
    status="T",
    kind="bound",
    hypotheses="f the centred weight gradient; any integrand with a second moment",
    latex=r"\mathrm{Var}_b(\varpi f)\le\frac{\mathrm{Var}_q f}{1-\lambda}+\frac\lambda{1-\lambda}(\mathbb E_qf)^2",
    derive=_derive_weights,
    sample=sample_states,
    exact=replay_gradient_variance,
    bound=_variance_bound,
    test=_TEST,
)


def _share_used(log_odds: Array, replay_fraction: Array, delta: Array, **_: Array) -> Array:
    line = right_components(log_odds, log_odds, delta)
    return 1.0 / policy_average(line, replay_fraction, lambda draw, _: draw.weight[None])[0]


def _ess_bounds(log_odds: Array, replay_fraction: Array, **_: Array) -> Bounds:
    # without overlap E_q[w] is largest: the two modes are told apart perfectly (data processing for chi^2)
    separated = effective_sample_fraction(log_odds, replay_fraction)
    return np.maximum(separated, 1.0 - replay_fraction), np.ones_like(separated)


ESS = Statement(
    slug="replay-reverse-ess",
    title="Effective sample size of a replayed batch, never below its value without overlap",
    status="T",
    kind="bound",
    hypotheses="components right (p_old the old component of the learner)",
    latex=r"1-\lambda\le\Big[\frac{\beta^2}{b_o}+\frac{(1-\beta)^2}{1-b_o}\Big]^{-1}\le\frac{\mathrm{ESS}}N=\frac1{\mathbb E_q\varpi}\le1",
    derive=lambda: nothing("E_q[w] = 1 + chi^2(q || b), which data processing (x from its label) can only lower"),
    sample=sample_states,
    exact=_share_used,
    bound=_ess_bounds,
    test=_TEST,
)

STATEMENTS = (UNBIASED, REPLAY_VARIANCE_BOUND, ESS)
