"""Statements of section 15: unequal covariances and K modes."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import expit

from fstsim.theory.modes import mixture_weight_fisher, total_misassignment_bound, weight_velocity_forward
from fstsim.theory.statements.instances import log_uniform, once
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import nothing, symbolic

Array = NDArray[np.float64]
_TEST = "tests/theory/test_modes.py"
_K = 3


def _sample_mixture(rng: np.random.Generator, n: int) -> Sample:
    """Three Gaussians on a line with their own variances."""
    return {
        "weights": rng.dirichlet(np.full(_K, 2.0), n) * 0.94 + 0.02,
        "means": 4.0 * rng.standard_normal((n, _K)),
        "deviations": log_uniform(rng, 0.5, 2.0, (n, _K)),
    }


@once
def _misassignment(weights: Array, means: Array, deviations: Array) -> Array:
    """``M (n, K, K)`` by the trapezoid in each component's own standard coordinate."""
    # The log-ratio of two components turns over within a unit of the narrower one. 0.05 of a deviation resolves a ratio of
    # 4; with 0.1 one instance in a million was wrong by 2e-5.
    u = np.arange(-9.0, 9.0 + 0.025, 0.05)
    density = 0.05 * np.exp(-0.5 * u * u) / np.sqrt(2.0 * np.pi)
    x = means[:, :, None] + deviations[:, :, None] * u  # (n, i, u)
    z = (x[:, :, None, :] - means[:, None, :, None]) / deviations[:, None, :, None]  # (n, i, j, u)
    log_f = np.log(weights / deviations)[:, None, :, None] - 0.5 * z * z
    log_f -= log_f.max(axis=2, keepdims=True)
    f = np.exp(log_f)
    return (f / f.sum(axis=2, keepdims=True)) @ density


def _bhattacharyya(means: Array, deviations: Array) -> Array:
    """BC of all pairs in one dimension, written out: ``sqrt(2 s_i s_j / (s_i^2 + s_j^2)) exp(-gap^2 / (4 (s_i^2 + s_j^2)))``."""
    total = deviations[:, :, None] ** 2 + deviations[:, None, :] ** 2
    product = deviations[:, :, None] * deviations[:, None, :]
    gap = means[:, :, None] - means[:, None, :]
    return np.sqrt(2.0 * product / total) * np.exp(-0.25 * gap * gap / total)


def _derive_pair() -> Derivation:
    t, q = sp.symbols("t q", positive=True)
    ratio = q ** (1 - t) / (1 + q)  # r_j (f_i/f_j)^t, in q = w_j f_j / (w_i f_i): its maximum over q
    peak = (1 - t) / t
    return symbolic(
        (
            "q^(1-t) / (1 + q) is stationary at q = (1-t)/t",
            "at t = 1/2 its maximum is 1/2: r_j <= sqrt(w_j f_j / (w_i f_i)) / 2",
        ),
        [
            sp.simplify(sp.diff(sp.log(ratio), q).subs(q, peak)),
            ratio.subs(t, sp.Rational(1, 2)).subs(q, 1) - sp.Rational(1, 2),
        ],
    )


def _total(weights: Array, means: Array, deviations: Array) -> Array:
    matrix = _misassignment(weights, means, deviations)
    return matrix[:, 0, 1:].sum(axis=-1)  # 1 - M_00 without cancellation


def _total_bound(weights: Array, means: Array, deviations: Array) -> Bounds:
    return None, total_misassignment_bound(weights / weights.sum(-1, keepdims=True), _bhattacharyya(means, deviations))[
        :, 0
    ]


GENERAL = Statement(
    slug="beyond-equal-covariance",
    title="Total misassignment of a mode among K, any covariances",
    status="T",
    kind="bound",
    hypotheses="K components with any densities; here three Gaussians with their own variances",
    latex=r"1-M_{ii}\le\tfrac12\sum_{j\ne i}\sqrt{w_j/w_i}\,\mathrm{BC}_{ij},\qquad M_{ij}=\mathbb E_{f_i}[r_j]",
    derive=_derive_pair,
    sample=_sample_mixture,
    exact=_total,
    bound=_total_bound,
    test=_TEST,
    tolerance=1e-9,
)


def _eigenvalue(weights: Array, means: Array, deviations: Array) -> Array:
    # similar to the symmetric diag(w)^(1/2) M diag(w)^(-1/2)
    matrix = _misassignment(weights, means, deviations)
    root = np.sqrt(weights)
    symmetric = matrix * root[:, :, None] / root[:, None, :]
    values = np.linalg.eigvalsh(0.5 * (symmetric + np.swapaxes(symmetric, 1, 2)))
    return np.asarray(values[:, 0], dtype=np.float64)


def _spectrum(weights: Array, means: Array, deviations: Array) -> Bounds:
    matrix = _misassignment(weights, means, deviations)
    lost = np.stack([np.delete(matrix[:, i], i, axis=1).sum(axis=1) for i in range(_K)], axis=-1)
    return np.maximum(1.0 - 2.0 * lost.max(axis=-1), 0.0), np.ones(weights.shape[0])


SPECTRUM = Statement(
    slug="misassignment-spectrum",
    title="The misassignment matrix is a reversible chain with eigenvalues in [0, 1]",
    status="T",
    kind="bound",
    hypotheses="K components with any densities; smallest eigenvalue",
    latex=r"\max\{0,\,1-2\max_i(1-M_{ii})\}\le\lambda_{\min}(M)\le1",
    derive=lambda: nothing("M is similar to the Gram matrix of sqrt(w_i w_j) f_i f_j / q; Gershgorin"),
    sample=_sample_mixture,
    exact=_eigenvalue,
    bound=_spectrum,
    test=_TEST,
    tolerance=1e-9,
)


def _sample_natural(rng: np.random.Generator, n: int) -> Sample:
    # separated enough for the Fisher matrix to be inverted in double precision
    sample = _sample_mixture(rng, n)
    order = np.sort(np.abs(sample["means"]), axis=1)
    return {
        **sample,
        "means": order + np.array([0.0, 2.0, 4.0]),
        "alpha": rng.dirichlet(np.ones(_K), n),
    }


def _natural_velocity(weights: Array, means: Array, deviations: Array, alpha: Array) -> Array:
    w = weights / weights.sum(axis=-1, keepdims=True)
    matrix = _misassignment(w, means, deviations)
    force = weight_velocity_forward(matrix, w, alpha)
    fisher = mixture_weight_fisher(matrix, w)
    # logits are defined up to a constant: the pseudo-inverse, then back to weights by the softmax Jacobian
    step = (np.linalg.pinv(fisher, rcond=1e-10, hermitian=True) @ force[..., None])[..., 0]
    velocity = w * (step - (w * step).sum(axis=-1, keepdims=True))
    # projected on the law's direction: a scalar that is not small, and wrong if any component is
    direction = alpha - w
    return (velocity * direction).sum(axis=-1) / np.linalg.norm(direction, axis=-1)


def _natural_law(weights: Array, means: Array, deviations: Array, alpha: Array) -> Bounds:  # noqa: ARG001
    value = np.linalg.norm(alpha - weights / weights.sum(axis=-1, keepdims=True), axis=-1)
    return value, value


NATURAL = Statement(
    slug="k-mode-natural-gradient",
    title="Natural gradient of K weights: w' = alpha - w, whatever the overlap",
    status="T",
    kind="identity",
    hypotheses="forward KL to the mixture with weights alpha, components right, any densities",
    latex=r"\dot w=\alpha-w,\qquad\dot s=M^\top(\alpha-w)\ \text{(logit flow)},\qquad\mathcal I_s=\mathrm{diag}(w)M-ww^\top",
    derive=lambda: nothing("M' (alpha - w) = I_s diag(w)^-1 (alpha - w) since w' M = w'"),
    sample=_sample_natural,
    exact=_natural_velocity,
    bound=_natural_law,
    test=_TEST,
    tolerance=1e-5,  # a solve with the Fisher matrix, ill-conditioned where modes overlap
)


def _sample_force(rng: np.random.Generator, n: int) -> Sample:
    return {
        "log_odds": rng.uniform(-3.0, 3.0, n),
        "target_log_odds": rng.uniform(-3.0, 3.0, n),
        "delta": rng.uniform(1.0, 8.0, n),
        "new_error": rng.uniform(-1.5, 1.5, n),
        "deviation": log_uniform(rng, 0.5, 2.0, n),
    }


_U = np.arange(-9.0, 9.0 + 0.025, 0.05)
_DENSITY = 0.05 * np.exp(-0.5 * _U * _U) / np.sqrt(2.0 * np.pi)


def _force(log_odds: Array, target_log_odds: Array, delta: Array, new_error: Array, deviation: Array) -> Array:
    """``|beta E_{f_o}[d/dx (log q - log p)]|`` with ``f_o = N(0, 1)``, new components ``N(., deviation^2)``."""
    variance = deviation[:, None] ** 2

    def score(s: Array, new: Array) -> Array:
        z = s[:, None] + np.log(deviation)[:, None] - 0.5 * _U**2 + 0.5 * (_U - new[:, None]) ** 2 / variance
        r = expit(z)
        return -r * _U - expit(-z) * (_U - new[:, None]) / variance

    gap = score(log_odds, delta + new_error) - score(target_log_odds, delta)
    return np.abs(expit(log_odds) * (gap @ _DENSITY))


def _force_bound(log_odds: Array, target_log_odds: Array, delta: Array, new_error: Array, deviation: Array) -> Bounds:
    """Sum of ``sqrt((1-w)/w) BC E_mid|A| / 2`` for learner and target, ``A(x) = (m_n - x)/v + x``."""
    v = deviation**2

    def term(s: Array, new: Array) -> Array:
        bc = np.sqrt(2.0 * deviation / (1.0 + v)) * np.exp(-0.25 * new * new / (1.0 + v))
        spread = 2.0 / (1.0 + 1.0 / v)  # variance of the normalised sqrt(f_o f_n)
        middle = 0.5 * spread * new / v
        x = middle[:, None] + np.sqrt(spread)[:, None] * _U
        mean = np.abs((new[:, None] - x) / v[:, None] + x) @ _DENSITY
        return 0.5 * np.exp(-0.5 * s) * bc * mean

    total = term(log_odds, delta + new_error) + term(target_log_odds, delta)
    return None, expit(log_odds) * total


FORCE = Statement(
    slug="old-mean-force-unequal",
    title="The old mean's force stays gated by overlap when covariances differ",
    status="T",
    kind="bound",
    hypotheses="old component right; old and new covariances differ, shared by learner and target",
    latex=r"|\nabla_{m_o}R|\le\tfrac\beta2\Big\{\sqrt{\tfrac{1-\beta}\beta}\,\mathrm{BC}_q\,\mathbb E_{mid}|A_q|"
    r"+\sqrt{\tfrac{1-\alpha}\alpha}\,\mathrm{BC}_p\,\mathbb E_{mid}|A_p|\Big\}",
    derive=lambda: nothing("half tilt of each responsibility; A = S_n^-1 (m_n - x) + S_o^-1 (x - mu_o)"),
    sample=_sample_force,
    exact=_force,
    bound=_force_bound,
    test=_TEST,
    tolerance=1e-4,  # the trapezoid of |A| errs at its kink by the square of the step
)

STATEMENTS = (GENERAL, SPECTRUM, NATURAL, FORCE)
