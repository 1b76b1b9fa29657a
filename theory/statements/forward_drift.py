"""Statements of section 2, the old mean under forward KL: force, drift by a time, its leading orders, half-time."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import logit

from fstsim.divergences import forward_kl_gradient
from fstsim.theory.forward_kl import old_mean_drift_forward, old_mean_drift_saddle
from fstsim.theory.overlap import second_moment_constant
from fstsim.theory.statements.forward_joint import long_flow, short_flow
from fstsim.theory.statements.instances import column, log_uniform, sometimes
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import nothing, symbolic

Array = NDArray[np.float64]
_TEST = "tests/theory/test_forward_kl.py"


def _derive_gate() -> Derivation:
    a, c, x, mu, y = sp.symbols("a c x mu y", real=True)  # a = E r_o, c = E r_o r_n under N(mu)
    force = a * (mu - x) + c * (x - y)
    return symbolic(
        ("E[r_o] (mu_n - m_o) + E[r_o r_n] (m_o - m_n) = E[r_o^2] (mu_n - m_o) + E[r_o r_n] (mu_n - m_n)",),
        [force - (a - c) * (mu - x) - c * (mu - y)],
    )


def _sample_force(rng: np.random.Generator, n: int) -> Sample:
    return {
        "log_odds": sometimes(rng, rng.uniform(-300.0, 700.0, n), rng.uniform(-6.0, 6.0, n)),
        "delta": sometimes(rng, log_uniform(rng, 1e-8, 60.0, n), rng.uniform(0.05, 15.0, n)),
    }


def _old_force(log_odds: Array, delta: Array) -> Array:
    zero = np.zeros_like(delta)
    centers, weights = column(delta)[:, None, :], np.ones((delta.size, 1))
    return -forward_kl_gradient(log_odds, column(zero), column(delta), weights, centers)[1][:, 0]


FORCE = Statement(
    slug="forward-drift-force",
    title="The force on the old mean is gated by overlap, and always toward the new data",
    status="T",
    kind="bound",
    hypotheses="new data only, new mean right, old mean right",
    latex=r"0\le\dot m_o\cdot u=\mathbb E_n[r_o^2]\,\delta\le C(\delta)\,\delta\,e^{s/2}\mathrm{BC}\le\sqrt{\pi/8}\,e^{s/2}e^{-\delta^2/8}",
    derive=_derive_gate,
    sample=_sample_force,
    exact=_old_force,
    bound=lambda log_odds, delta: (
        np.zeros_like(delta),
        second_moment_constant(delta) * delta * np.exp(0.5 * log_odds - 0.125 * delta * delta),
    ),
    test=_TEST,
)


def _sample_drift(rng: np.random.Generator, n: int) -> Sample:
    return {
        "delta": rng.uniform(4.0, 10.0, n),
        "beta0": rng.uniform(0.05, 0.5, n),
        "T": log_uniform(rng, 0.3, 30.0, n),
    }


def _exact_drift(delta: Array, beta0: Array, T: Array) -> Array:
    return short_flow(logit(beta0), np.zeros_like(delta), delta, delta, T)[1]


DRIFT = Statement(
    slug="drift-under-forward-KL",
    title="Drift of the old mean by time T: gated by overlap, growing, never undone",
    status="T",
    kind="bound",
    hypotheses="joint flow from right components, new data only, beta_0 <= 1/2, certificate found",
    latex=r"|m_o(T)-\mu_o|\le\frac{4C(d_-)(\delta+\rho+\bar v)B}{1-\bar\kappa}\Big[\sinh\tfrac{s_0}2-\sinh\tfrac{s_T}2\Big]",
    derive=_derive_gate,
    sample=_sample_drift,
    exact=_exact_drift,
    bound=lambda delta, beta0, T: (None, old_mean_drift_forward(delta, beta0, T)[0]),
    test=_TEST,
    tolerance=1e-5,  # fixed-step integration of the flow
)


def _leading_drift(delta: Array, beta0: Array, T: Array) -> Bounds:
    value = old_mean_drift_forward(delta, beta0, T)[1]
    return value, value


DRIFT_LEADING = Statement(
    slug="forward-drift-leading-order",
    title="Forward drift grows like the square root of time",
    status="A",
    kind="approximation",
    hypotheses="delta large, BC sqrt(T) small; here delta in [7, 10]",
    latex=r"\mathrm{drift}(T)\approx\sqrt{2\pi}\,e^{-\delta^2/8}\big[\sinh\tfrac{s_0}2-\sinh\tfrac{s_T}2\big]\approx\sqrt{\pi/2}\,e^{-\delta^2/8}\sqrt T",
    derive=lambda: nothing("leading order of the certificate"),
    sample=lambda rng, n: {**_sample_drift(rng, n), "delta": rng.uniform(7.0, 10.0, n)},
    exact=_exact_drift,
    bound=_leading_drift,
    test=_TEST,
)


def _saddle_drift(delta: Array, beta0: Array, T: Array) -> Bounds:
    value = old_mean_drift_saddle(delta, beta0, T)
    return value, value


DRIFT_SADDLE = Statement(
    slug="forward-drift-saddle",
    title="The same with its Gaussian factor: a little slower than the square root",
    status="A",
    kind="approximation",
    hypotheses="delta large, BC sqrt(T) small; here delta in [7, 10]",
    latex=r"\mathrm{drift}(T)\approx\sqrt{\tfrac\pi8}\,e^{-\delta^2/8}\int_{s_T}^{s_0}2\cosh\tfrac s2\;e^{-(s-2)^2/2\delta^2}ds",
    derive=lambda: nothing("saddle value of E_n[r_o^2] along the separated path"),
    sample=DRIFT_LEADING.sample,
    exact=_exact_drift,
    bound=_saddle_drift,
    test=_TEST,
)


def _half_time(delta: Array) -> Array:
    """``log t_{1/2}``: logarithm of the time at which the old mean is half way to the new data."""
    horizon = 100.0 * np.exp(0.5 * delta * delta)
    zero = np.zeros_like(delta)
    times = np.geomspace(1e-3, horizon, 4000, axis=-1)
    _, old, _ = long_flow((zero, zero, delta), delta, horizon, 1e-7)(times / column(horizon))
    return np.log([np.interp(0.5 * d, path, t) for d, path, t in zip(delta, old, times, strict=True)])


def _half_time_prediction(delta: Array) -> Bounds:
    value = 0.5 * delta * delta
    return value, value


HALF_TIME = Statement(
    slug="old-mean-half-time",
    title="The old mean itself is lost only after a time of order exp(delta^2 / 2)",
    status="N",
    kind="approximation",
    hypotheses="joint flow from right components; log t_1/2 against delta^2 / 2 (approached from below)",
    latex=r"\log t_{1/2}\approx\tfrac{\delta^2}2-O(\delta)",
    derive=lambda: nothing("numerical observation"),
    sample=lambda rng, n: {"delta": rng.uniform(3.0, 6.0, n)},
    exact=_half_time,
    bound=_half_time_prediction,
    test=_TEST,
    max_examples=4,
)

STATEMENTS = (FORCE, DRIFT, DRIFT_LEADING, DRIFT_SADDLE, HALF_TIME)
