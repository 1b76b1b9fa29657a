"""Statements of sections 6.1 and 6.2, the old mean under replay: its force, the last rate, its excursion."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import expit, logit

from fstsim.divergences import forward_kl_gradient
from fstsim.theory.geometry import extreme_eigenvalues
from fstsim.theory.numerics.flows import runge_kutta
from fstsim.theory.replay import replay_excursion, replay_old_mean_force
from fstsim.theory.statements.instances import column, log_uniform, sometimes
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import nothing, symbolic

Array = NDArray[np.float64]
State = tuple[Array, Array, Array]
_TEST = "tests/theory/test_replay.py"


def _derive_force() -> Derivation:
    b, lam, f, g, d = sp.symbols("beta lambda f g delta", positive=True)
    q = b * f + (1 - b) * g
    r = b * f / q
    force = (1 - lam) * g * r**2 - lam * f * r * (1 - r)
    return symbolic(
        (
            "(1 - lambda) E_n[r_o^2] - lambda E_o[r_o r_n] = (beta - lambda) / (1 - beta) E_o[r_o r_n], as integrands",
            "both are beta (beta - lambda) f^2 g / q^2",
        ),
        [
            d * force - d * (b - lam) / (1 - b) * f * r * (1 - r),
            force - b * (b - lam) * f**2 * g / q**2,
        ],
    )


def _sample_force(rng: np.random.Generator, n: int) -> Sample:
    s = sometimes(rng, rng.uniform(-300.0, 300.0, n), rng.uniform(-4.0, 4.0, n))
    away = rng.choice([-1.0, 1.0], n) * log_uniform(rng, 0.1, 300.0, n)
    return {
        "log_odds": s,
        "replay_fraction": expit(np.minimum(s + away, 30.0)),  # beyond, a double cannot say how much is not replayed
        "delta": sometimes(rng, log_uniform(rng, 1e-8, 60.0, n), rng.uniform(0.3, 8.0, n)),
    }


def _force(log_odds: Array, replay_fraction: Array, delta: Array) -> Array:
    zero, new = column(np.zeros_like(delta)), column(delta)
    weights = np.stack([replay_fraction, 1.0 - replay_fraction], axis=-1)
    return -forward_kl_gradient(log_odds, zero, new, weights, np.stack([zero, new], axis=-2))[1][:, 0]


def _force_law(log_odds: Array, replay_fraction: Array, delta: Array) -> Bounds:
    value = replay_old_mean_force(log_odds, replay_fraction, delta)
    return value, value


FORCE = Statement(
    slug="replay-forward-force",
    title="Under replay the old mean is dragged exactly while the mass is on its way",
    status="T",
    kind="identity",
    hypotheses="components right (positive: toward the new data)",
    latex=r"\dot m_o\cdot u=\delta\big[(1-\lambda)\mathbb E_n[r_o^2]-\lambda\mathbb E_o[r_or_n]\big]"
    r"=\delta\,\frac{\beta-\lambda}{1-\beta}\,\mathbb E_o[r_or_n]",
    derive=_derive_force,
    sample=_sample_force,
    exact=_force,
    bound=_force_law,
    test=_TEST,
    tolerance=1e-9,  # a difference of the pulls of old and new data, which are within a tenth of each other at times
)


def _smallest_curvature(alpha: Array, delta: Array) -> Array:
    """Smallest eigenvalue of the Hessian of the replay loss at its minimum in two dimensions, by central differences."""
    n, h = delta.size, 1e-4
    new = np.stack([delta, np.zeros(n)], axis=-1)
    centers = np.stack([np.zeros((n, 2)), new], axis=-2)
    weights = np.stack([alpha, 1.0 - alpha], axis=-1)

    def gradient(y: Array) -> Array:
        parts = forward_kl_gradient(logit(alpha) + y[:, 0], y[:, 1:3], new + y[:, 3:], weights, centers)
        return np.concatenate([parts[0][:, None], parts[1], parts[2]], axis=-1)

    columns = []
    for k in range(5):
        shift = np.zeros((n, 5))
        shift[:, k] = h
        columns.append((gradient(shift) - gradient(-shift)) / (2.0 * h))
    hessian = np.stack(columns, axis=-1)
    eigenvalues = np.linalg.eigvalsh(0.5 * (hessian + np.swapaxes(hessian, -1, -2)))
    return np.asarray(eigenvalues[:, 0], dtype=np.float64)


def _rate(alpha: Array, delta: Array) -> Bounds:
    value = extreme_eigenvalues(alpha, delta)[0]
    return value, value


LOCAL_RATE = Statement(
    slug="replay-forward-rate",
    title="Last stage of joint training with replay: the rate is the smallest Fisher eigenvalue at the replay share",
    status="T",
    kind="identity",
    hypotheses="joint flow in (s, m_o, m_n) near its minimum, D >= 2",
    latex=r"\text{rate}=\lambda_{\min}(\mathcal I(\lambda))",
    derive=lambda: nothing("at its minimum (KL = 0) the Hessian of the cross-entropy is the Fisher information"),
    sample=lambda rng, n: {"alpha": rng.uniform(0.05, 0.95, n), "delta": rng.uniform(2.0, 10.0, n)},
    exact=_smallest_curvature,
    bound=_rate,
    test=_TEST,
    tolerance=1e-5,  # central differences
)


def _sample_excursion(rng: np.random.Generator, n: int) -> Sample:
    return {
        "delta": rng.uniform(5.0, 10.0, n),
        "beta0": rng.uniform(0.05, 0.9, n),
        "replay_fraction": log_uniform(rng, 0.05, 0.6, n),
    }


def _exact_excursion(delta: Array, beta0: Array, replay_fraction: Array) -> Array:
    """Largest shift of the old mean along the joint flow, up to ``5 / lambda``: the peak lies before ``2 / lambda``."""
    zero, new = column(np.zeros_like(delta)), column(delta)
    centers = np.stack([zero, new], axis=-2)
    weights = np.stack([replay_fraction, 1.0 - replay_fraction], axis=-1)
    duration = 5.0 / replay_fraction
    peak = np.zeros(delta.size)

    def gradient(s: Array, m_o: Array, m_n: Array) -> State:
        return forward_kl_gradient(s, m_o, m_n, weights, centers)

    for now in runge_kutta(gradient, (logit(beta0), zero, new), duration, int(np.ceil(2.0 * duration.max()))):
        peak = np.maximum(peak, np.abs(now[1][:, 0]))
    return peak


EXCURSION = Statement(
    slug="replay-forward-excursion",
    title="Replay bounds the excursion of the old mean for all time",
    status="T",
    kind="bound",
    hypotheses="joint flow from right components, certificate found (replay_excursion)",
    latex=r"\sup_t|m_o(t)-\mu_o|\le\rho=O\big(e^{-\delta^2/8}/\sqrt\lambda\big)",
    derive=lambda: nothing("variation of constants and comparison flow, see replay_excursion"),
    sample=_sample_excursion,
    exact=_exact_excursion,
    bound=lambda delta, beta0, replay_fraction: (None, replay_excursion(delta, beta0, replay_fraction)[0]),
    test=_TEST,
    tolerance=1e-4,  # fixed-step integration of the flow
    max_examples=10_000,
)


def _derive_excursion() -> Derivation:
    tau = sp.symbols("tau", positive=True)
    w = sp.sqrt(1 - sp.exp(-tau))
    b = 1 / w**2  # beta / lambda, from far above
    e = 2 * (1 - w**2) * sp.atanh(w)
    y = sp.symbols("w", positive=True)
    return symbolic(
        (
            "d(beta/lambda)/d(lambda t) = -b (b - 1) is solved by b = 1 / (1 - e^-tau)",
            "de/dtau = (b - 1) / sqrt(b) - e is solved by 2 (1 - w^2) artanh w, w = sqrt(1 - e^-tau)",
            "its peak has w artanh w = 1/2",
        ),
        [
            sp.diff(b, tau) + b * (b - 1),
            sp.diff(e, tau) - (1 - w**2) / w + e,
            sp.diff(2 * (1 - y**2) * sp.atanh(y), y) - 2 * (1 - 2 * y * sp.atanh(y)),
        ],
    )


def _leading_excursion(delta: Array, beta0: Array, replay_fraction: Array) -> Bounds:
    value = replay_excursion(delta, beta0, replay_fraction)[1]
    return value, value


EXCURSION_LEADING = Statement(
    slug="replay-forward-excursion-leading-order",
    title="Peak excursion of the old mean under replay: the less replay, the larger, like 1/sqrt(lambda)",
    status="A",
    kind="approximation",
    hypotheses="BC << sqrt(lambda); here delta in [7, 10]. The constant is for lambda << beta_0",
    latex=r"\max_t|m_o-\mu_o|\approx0.8955\,\sqrt{\tfrac\pi8}\,\frac{e^{-\delta^2/8}}{\sqrt\lambda}\quad\text{at }t\approx0.544/\lambda",
    derive=_derive_excursion,
    sample=lambda rng, n: {**_sample_excursion(rng, n), "delta": rng.uniform(7.0, 10.0, n)},
    exact=_exact_excursion,
    bound=_leading_excursion,
    test=_TEST,
    max_examples=10_000,
)

STATEMENTS = (FORCE, LOCAL_RATE, EXCURSION, EXCURSION_LEADING)
