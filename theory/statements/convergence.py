"""Statements of sections 4 and 5: drift along the reverse-KL flow, local geometry, certified convergence."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import expit, logit

from fstsim.divergences import reverse_kl_gradient
from fstsim.theory.drift import convergence_rates, drift_certificates
from fstsim.theory.geometry import (
    condition_number_bound,
    extreme_eigenvalues,
    missing_information_bound,
    missing_information_fraction,
)
from fstsim.theory.numerics.flows import flow_end, runge_kutta
from fstsim.theory.statements.instances import log_uniform
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import nothing, symbolic

Array = NDArray[np.float64]
_TEST = "tests/theory/statements/test_convergence.py"
_SCALE = 4.0  # gamma of theory 5.3 in the check


def _reverse_flow(
    delta: Array, alpha: Array, beta0: Array, v0: Array, duration: float, steps: int
) -> tuple[Array, Array, Array, Array]:
    """Along each flow: peak drift of the old mean, range of s, and the series of W, ``(steps+1, n)``."""
    old = np.zeros_like(v0)
    target = old.copy()
    target[:, 0] = delta
    s_p = logit(alpha)
    state = (logit(beta0), old, target + v0)
    peak = np.zeros(delta.size)
    low, high = state[0], state[0]

    def distance(s: Array, m_o: Array, m_n: Array) -> Array:
        e, v = np.linalg.norm(m_o, axis=-1), np.linalg.norm(m_n - target, axis=-1)
        return np.maximum(np.maximum(e, v), np.abs(s - s_p) / _SCALE)

    series = [distance(*state)]
    for now in runge_kutta(
        lambda s, m_o, m_n: reverse_kl_gradient(s, m_o, m_n, s_p, old, target),
        state,
        np.full(delta.size, duration),
        steps,
    ):
        peak = np.maximum(peak, np.linalg.norm(now[1], axis=-1))
        low, high = np.minimum(low, now[0]), np.maximum(high, now[0])
        series.append(distance(*now))
    return peak, low, high, np.stack(series)


# --- drift along the flow (4.1) -------------------------------------------------------------------------------------


def _derive_restoring() -> Derivation:
    b, f = sp.symbols("beta f", positive=True)
    t = sp.symbols("t", positive=True)
    e = f * (1 - sp.exp(-b * t))
    return symbolic(
        ("e = f (1 - exp(-beta t)) solves de/dt = -beta e + beta f: the restoring force removes any time factor",),
        [sp.diff(e, t) - (-b * e + b * f)],
    )


def _sample_flow(rng: np.random.Generator, n: int) -> Sample:
    size = rng.uniform(0.0, 2.5, n)
    angle = rng.uniform(0.0, np.pi, n)
    return {
        "delta": rng.uniform(5.0, 10.0, n),
        "alpha": rng.uniform(0.15, 0.85, n),
        "beta0": rng.uniform(0.1, 0.9, n),
        "v0": np.stack([size * np.cos(angle), size * np.sin(angle)], axis=-1),
    }


def _certified(delta: Array, alpha: Array, beta0: Array, v0: Array) -> Array:
    return np.isfinite(drift_certificates(delta, alpha, beta0, v0).rho)


def _exact_peak(delta: Array, alpha: Array, beta0: Array, v0: Array) -> Array:
    out = np.full(delta.size, np.nan)
    i = np.flatnonzero(_certified(delta, alpha, beta0, v0))  # no flow is run where nothing is claimed
    if i.size:
        out[i] = _reverse_flow(delta[i], alpha[i], beta0[i], v0[i], duration=20.0, steps=40)[0]
    return out


DRIFT_ALONG_FLOW = Statement(
    slug="drift-along-flow",
    title="Reverse KL: the old mean's drift is bounded for all time, exponentially small in the separation",
    status="T",
    kind="bound",
    hypotheses="old component right at t = 0, new one off by v_0, certificate found; flows followed to t = 20",
    latex=r"\sup_t|m_o(t)-\mu_o|\le\rho\lesssim\sqrt{\tfrac\pi2}\max\Big\{\sqrt{\tfrac{1-b_-}{b_-}}e^{-d_-^2/8},"
    r"\sqrt{\tfrac{1-\alpha}\alpha}e^{-\delta^2/8}\Big\}",
    derive=_derive_restoring,
    sample=_sample_flow,
    exact=_exact_peak,
    bound=lambda delta, alpha, beta0, v0: (None, drift_certificates(delta, alpha, beta0, v0).rho),
    test=_TEST,
    tolerance=1e-4,  # fixed-step integration of the flow
    max_examples=20_000,
)


def _skeleton_log_odds(delta: Array, alpha: Array, beta0: Array, v0: Array) -> Bounds:  # noqa: ARG001
    """Log-odds at t = 5 of ``ds/dt = -sigmoid'(s) (s - s_alpha - |v|^2/2)``, ``dv/dt = -(1 - beta) v``."""
    s, size, s_p = logit(beta0), np.linalg.norm(v0, axis=-1), logit(alpha)

    def velocity(s: Array, v: Array) -> tuple[Array, Array]:
        return -expit(s) * expit(-s) * (s - s_p - 0.5 * v * v), -expit(-s) * v

    s, _ = flow_end(velocity, (s, size), 5.0, 250)
    value = np.exp(s)  # odds, so that a ratio means something
    return value, value


def _flow_odds(delta: Array, alpha: Array, beta0: Array, v0: Array) -> Array:
    old = np.zeros_like(v0)
    target = old.copy()
    target[:, 0] = delta
    s_p = logit(alpha)
    state = (logit(beta0), old, target + v0)
    flow = runge_kutta(
        lambda s, m_o, m_n: reverse_kl_gradient(s, m_o, m_n, s_p, old, target), state, np.full(delta.size, 5.0), 20
    )
    *_, last = flow
    return np.exp(last[0])


SKELETON = Statement(
    slug="skeleton-dynamics",
    title="While the new component is wrong, reverse KL starves the new mode",
    status="A",
    kind="approximation",
    hypotheses="delta in [8, 10], |v_0| <= 2.5; odds of the old mode after 5 time units",
    latex=r"\dot s=-\sigma'(s)\big[s-s_\alpha+\tfrac{|e|^2-|v|^2}2\big],\quad\dot e=-\beta e,\quad\dot v=-(1-\beta)v",
    derive=lambda: nothing("gradient flow of the labelled divergence R_sk"),
    sample=lambda rng, n: {**_sample_flow(rng, n), "delta": rng.uniform(8.0, 10.0, n)},
    exact=_flow_odds,
    bound=_skeleton_log_odds,
    test=_TEST,
    max_examples=20_000,
)


# --- local geometry (5.1, 5.2) ---------------------------------------------------------------------------------------


def _derive_louis() -> Derivation:
    r, y, w = sp.symbols("r y w", real=True)  # responsibility of the old mode, positions from old and new mean
    a = sp.symbols("alpha", real=True)
    score = sp.Matrix([r - a, r * y, (1 - r) * w])
    missing = r * (1 - r) * sp.Matrix([1, y, -w]) * sp.Matrix([1, y, -w]).T
    # E[(r - a)^2] + h: r^2 - 2 a r + a^2 + r (1 - r) = r (1 - 2 a) + a^2, whose mean is a (1 - a) since E r = a
    complete = sp.Matrix(
        [[r - 2 * a * r + a**2, (1 - a) * r * y, -a * (1 - r) * w], [0, r * y**2, 0], [0, 0, (1 - r) * w**2]]
    )
    total = (score * score.T + missing).applyfunc(sp.expand)
    pairs = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
    return symbolic(
        (
            (
                "score score' + r_o r_n w w' is the complete-data information plus terms of mean zero "
                "(E r_o = alpha, E r_o y_o = 0, E r_n y_n = 0)"
            ),
        ),
        [total[i, j] - sp.expand(complete[i, j]) for i, j in pairs],
    )


def _sample_geometry(rng: np.random.Generator, n: int) -> Sample:
    return {"alpha": rng.uniform(0.05, 0.95, n), "delta": log_uniform(rng, 0.5, 12.0, n)}


LOCAL_GEOMETRY = Statement(
    slug="local-geometry",
    title="Share of information lost to overlap at the target, any dimension",
    status="T",
    kind="bound",
    hypotheses="0 < alpha < 1, delta > 0",
    latex=r"\kappa_{op}=\|\mathcal I_c^{-1/2}(\mathcal I_c-\mathcal I)\mathcal I_c^{-1/2}\|\le\min\{b_1,b_2\}=O(\delta\,e^{-\delta^2/8})",
    derive=_derive_louis,
    sample=_sample_geometry,
    exact=missing_information_fraction,
    bound=lambda alpha, delta: (None, missing_information_bound(alpha, delta)),
    test=_TEST,
)


def _condition_number(alpha: Array, delta: Array) -> Array:
    # a bound of inf says nothing; below delta = 1 the smallest eigenvalue drowns in rounding
    low, high = extreme_eigenvalues(alpha, delta)
    return np.where(np.isfinite(condition_number_bound(alpha, delta)), high / low, np.nan)


CONDITION_NUMBER = Statement(
    slug="condition-number",
    title="The target is well conditioned as soon as the modes separate",
    status="T",
    kind="bound",
    hypotheses="0 < alpha < 1, bound on the missing information below 1",
    latex=r"\mathrm{cond}(\mathcal I)\le\frac1{\min(\alpha,1-\alpha)\,(1-\kappa_{op})}",
    derive=_derive_louis,
    sample=lambda rng, n: {"alpha": rng.uniform(0.05, 0.95, n), "delta": rng.uniform(3.0, 12.0, n)},
    exact=_condition_number,
    bound=lambda alpha, delta: (np.ones_like(delta), condition_number_bound(alpha, delta)),
    test=_TEST,
)


# --- certified convergence (5.3) ---------------------------------------------------------------------------------------


def _sample_convergence(rng: np.random.Generator, n: int) -> Sample:
    alpha = rng.uniform(0.2, 0.8, n)
    size, angle = rng.uniform(0.05, 1.0, n), rng.uniform(0.0, np.pi, n)
    return {
        "delta": rng.uniform(7.0, 12.0, n),
        "alpha": alpha,
        "beta0": expit(logit(alpha) + rng.uniform(-1.0, 1.0, n)),
        "v0": np.stack([size * np.cos(angle), size * np.sin(angle)], axis=-1),
    }


def _largest_ratio(delta: Array, alpha: Array, beta0: Array, v0: Array) -> Array:
    """``max_k W(t_k) / W(0) * exp(rate t_k)``: at most 1 where the certificate holds."""
    out = np.full(delta.size, np.nan)
    rate, start = convergence_rates(delta, alpha, beta0, v0, _SCALE)
    i = np.flatnonzero(np.isfinite(rate))
    if i.size:
        steps, duration = 30, 15.0
        series = _reverse_flow(delta[i], alpha[i], beta0[i], v0[i], duration, steps)[3]
        times = np.linspace(0.0, duration, steps + 1)[1:, None]
        out[i] = (series[1:] / start[i] * np.exp(rate[i] * times)).max(axis=0)
    return out


def _one(delta: Array, **_: Array) -> Bounds:
    return None, np.ones_like(delta)


LOCAL_CONVERGENCE = Statement(
    slug="local-convergence",
    title="Exponential convergence to the target from an explicit basin",
    status="T",
    kind="bound",
    hypotheses="certificate found (gamma = 4); the ratio W(t) e^(rt) / W(0) at its largest for 0 < t <= 15",
    latex=r"W(t)\le W(0)\,e^{-rt},\qquad W=\max(|e|,|v|,|s-s_\alpha|/\gamma)",
    derive=lambda: nothing("Dini derivative of the active coordinate of W, Lipschitz bounds along the path"),
    sample=_sample_convergence,
    exact=_largest_ratio,
    bound=_one,
    test=_TEST,
    tolerance=1e-3,  # fixed-step integration: W is compared where it has become small
    max_examples=20_000,
)

STATEMENTS = (
    DRIFT_ALONG_FLOW,
    SKELETON,
    LOCAL_GEOMETRY,
    CONDITION_NUMBER,
    LOCAL_CONVERGENCE,
)
