"""Statements of section 18.1: the estimators k1, k2, k3 of KL(q || p) as values, their bias and their variance."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray

from fstsim.theory.kl_estimators import k2_mean_bounds, kl_estimates, least_control, mode_estimates
from fstsim.theory.statements.instances import log_uniform, same
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import nothing, symbolic

Array = NDArray[np.float64]
_TEST = "tests/theory/test_kl_estimators.py"
_SOURCE = "own derivation; the estimators are those of J. Schulman, Approximating KL divergence (2020)"
_OUTCOMES = 6


def sample_pairs(rng: np.random.Generator, n: int) -> Sample:
    """Two distributions of six outcomes: from next to each other to far apart, rare outcomes included."""
    base = rng.dirichlet(np.full(_OUTCOMES, 0.7), n) * 0.999 + 0.001 / _OUTCOMES
    tilted = base * np.exp(log_uniform(rng, 0.02, 3.0, (n, 1)) * rng.standard_normal((n, _OUTCOMES)))
    return {"policy": tilted / tilted.sum(axis=-1, keepdims=True), "base": base}


def _log_ratio(policy: Array, base: Array) -> Array:
    return np.log(base) - np.log(policy)


# --- bias -------------------------------------------------------------------------------------------------------------


def _bias_bounds(policy: Array, base: Array) -> Bounds:
    u = _log_ratio(policy, base)
    kl = (base - policy - policy * u).sum(axis=-1)  # a sum of terms that are at least 0: nothing cancels between them
    return k2_mean_bounds(kl, u.min(axis=-1), u.max(axis=-1))


BIAS = Statement(
    slug="kl-estimators-bias",
    title="k1 and k3 have the mean KL(q || p); that of k2 lies off it by at most phi of the extreme log-ratios",
    status="T",
    kind="bound",
    hypotheses="any q and p of the same support, a sample of q, u = log p/q; the bounds need u to be bounded",
    latex=r"E_qk_1=E_qk_3=\mathrm{KL}(q\Vert p),\qquad \frac{\mathrm{KL}(q\Vert p)}{\phi(u_{\max})}\le E_qk_2\le\frac{\mathrm{KL}(q\Vert p)}{\phi(u_{\min})},\qquad \phi(u)=2\frac{e^u-1-u}{u^2}",
    derive=lambda: nothing(
        "E_q e^u = 1, so that E k3 = -E u; and k3 = phi(u) k2 at every sample, k2 >= 0",
        "phi(u) = 2 int_0^1 (1 - t) e^(t u) dt increases with u",
    ),
    sample=sample_pairs,
    exact=lambda policy, base: 0.5 * (policy * _log_ratio(policy, base) ** 2).sum(axis=-1),
    bound=_bias_bounds,
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-9,
)


# --- variance ---------------------------------------------------------------------------------------------------------


def _derive_variance() -> Derivation:
    q = sp.symbols("q1:4", positive=True)
    p = sp.symbols("p1:4", positive=True)
    u = sp.symbols("u1:4", real=True)  # log p/q, kept as a symbol: r = p/q

    def mean(values: list[sp.Expr]) -> sp.Expr:
        return sum(w * v for w, v in zip(q, values, strict=True))

    ratio = [a / b for a, b in zip(p, q, strict=True)]
    both = mean([(r - 1) * -x for r, x in zip(ratio, u, strict=True)])
    kl, forward = mean([-x for x in u]), sum(a * x for a, x in zip(p, u, strict=True))
    k3 = [r - 1 - x for r, x in zip(ratio, u, strict=True)]
    return symbolic(
        (
            "k3 = k1 + (r - 1), r = p/q, E r = 1 and Var r = chi2(p || q)",
            "Cov(k1, r - 1) = E_q[-(r - 1) u] = -KL(p || q) - KL(q || p)",
        ),
        [
            both + kl + forward,
            mean([x * x for x in k3])
            - mean([x * x for x in u])
            - mean([(r - 1) ** 2 for r in ratio])
            - 2 * both,
        ],
    )  # fmt: skip


def _variance(policy: Array, base: Array) -> Bounds:
    u = _log_ratio(policy, base)
    kl, forward = -(policy * u).sum(axis=-1), (base * u).sum(axis=-1)
    chi2 = (policy * np.expm1(u) ** 2).sum(axis=-1)
    plain = (policy * (u + kl[:, None]) ** 2).sum(axis=-1)
    return same(plain + chi2 - 2.0 * (kl + forward))


def _sample_apart(rng: np.random.Generator, n: int) -> Sample:
    """Far enough apart that four terms of first size do not cancel to their last digits."""
    x = sample_pairs(rng, n)
    close = np.abs(_log_ratio(x["policy"], x["base"])).max(axis=-1) < 0.05
    x["policy"][close] = np.roll(x["policy"][close], 1, axis=-1)
    return x


VARIANCE = Statement(
    slug="kl-estimators-variance",
    title="k3 varies less than k1 exactly where chi2(p || q) is below twice the sum of both KL divergences",
    status="T",
    kind="identity",
    hypotheses="as kl-estimators-bias; all four divergences finite",
    latex=r"\mathrm{Var}_qk_3=\mathrm{Var}_qk_1+\chi^2(p\Vert q)-2\big[\mathrm{KL}(p\Vert q)+\mathrm{KL}(q\Vert p)\big]",
    derive=_derive_variance,
    sample=_sample_apart,
    exact=lambda policy, base: kl_estimates(policy, base).variance[2],
    bound=_variance,
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-8,
)


def _sample_control(rng: np.random.Generator, n: int) -> Sample:
    x = _sample_apart(rng, n)
    best = least_control(**x)[0]
    off = np.where(rng.random(n) < 0.5, 0.0, rng.standard_normal(n))
    # k1 and k3 themselves, the best weight, and others
    weight = np.where(rng.random(n) < 0.3, rng.integers(0, 2, n), best * np.exp(off))
    return {**x, "weight": weight}


def _controlled(policy: Array, base: Array, weight: Array) -> Array:
    u = _log_ratio(policy, base)
    value = -u + weight[:, None] * np.expm1(u)
    mean = (policy * value).sum(axis=-1, keepdims=True)
    # where the control leaves nothing, what remains is rounding: counted with what it was taken from
    return (policy * ((value - mean) ** 2 + 1e-3 * u * u)).sum(axis=-1)


def _control_bound(policy: Array, base: Array, weight: Array) -> Bounds:  # noqa: ARG001
    u = _log_ratio(policy, base)
    kl = -(policy * u).sum(axis=-1)
    both, chi2 = ((base - policy) * u).sum(axis=-1), (policy * np.expm1(u) ** 2).sum(axis=-1)
    plain = (policy * (u + kl[:, None]) ** 2).sum(axis=-1)
    return plain - both**2 / chi2 + 1e-3 * (policy * u * u).sum(axis=-1), None


def _derive_control() -> Derivation:
    plain, both, chi2, weight = sp.symbols("V J chi2 lambda", positive=True)
    variance = plain - 2 * weight * both + weight**2 * chi2
    return symbolic(
        ("Var(k1 + lambda (r - 1)) = Var k1 - 2 lambda J + lambda^2 chi2, J the sum of both KL divergences",),
        [variance - (plain - both**2 / chi2) - chi2 * (weight - both / chi2) ** 2],
    )


CONTROL = Statement(
    slug="kl-estimators-control",
    title="No weight of the control p/q - 1 brings the variance of k1 below what the weight J / chi2 leaves; k3 has weight 1",
    status="T",
    kind="bound",
    hypotheses="as kl-estimators-variance; J = KL(p || q) + KL(q || p); the check adds E u^2 / 1000 to both sides",
    latex=r"\mathrm{Var}_q\big[k_1+\lambda(\tfrac pq-1)\big]\ge\mathrm{Var}_qk_1-\frac{J^2}{\chi^2(p\Vert q)},\quad\text{equal at }\lambda=\frac J{\chi^2(p\Vert q)}",
    derive=_derive_control,
    sample=_sample_control,
    exact=_controlled,
    bound=_control_bound,
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-8,
)


# --- modes ------------------------------------------------------------------------------------------------------------


def _sample_modes(rng: np.random.Generator, n: int) -> Sample:
    shift = rng.uniform(-2.0, 2.0, (n, 1)) * [1.0, -1.0] * (rng.random((n, 1)) < 0.7)
    base = rng.dirichlet(np.ones(2), n) * 0.98 + 0.01
    policy = base * np.exp(shift)
    return {
        "policy_weights": policy / policy.sum(axis=-1, keepdims=True),
        "base_weights": base,
        "drifts": log_uniform(rng, 0.1, 2.5, (n, 2)),
        "which": rng.integers(0, 6, n).astype(float),
    }


def _chosen(values: Array, which: Array) -> Array:
    """One of six: the means of k1, k2, k3, then their variances."""
    picked: Array = np.take_along_axis(values, which.astype(int)[None], axis=0)[0]
    return picked


def _by_quadrature(policy_weights: Array, base_weights: Array, drifts: Array, which: Array) -> Array:
    """Sums on a grid along each mode's drift, far enough for e^(2u)."""
    grid = np.linspace(-9.0, 14.0, 116)  # u falls along the drift, so that e^u lies to its left
    density = np.exp(-0.5 * grid**2) / np.sqrt(2.0 * np.pi) * (grid[1] - grid[0])
    d = drifts[..., None]
    u = np.log(base_weights / policy_weights)[..., None] - 0.5 * d * d + d * grid
    values = np.stack((-u, 0.5 * u * u, np.expm1(u) - u))
    weight = policy_weights[..., None] * density
    mean = (weight * values).sum(axis=(-1, -2))
    variance = (weight * (values - mean[..., None, None]) ** 2).sum(axis=(-1, -2))
    return _chosen(np.concatenate((mean, variance)), which)


def _modes(policy_weights: Array, base_weights: Array, drifts: Array, which: Array) -> Bounds:
    found = mode_estimates(policy_weights, base_weights, drifts)
    return same(_chosen(np.concatenate((found.mean, found.variance)), which))


def _derive_modes() -> Derivation:
    d, x = sp.symbols("d x", positive=True)
    k, u = d**2 / 2, d * x - d**2 / 2
    moments = (1, 0, 1, 0, 3)  # of a standard normal

    def mean(value: sp.Expr) -> sp.Expr:
        return sum(c * moments[i] for (i,), c in sp.Poly(sp.expand(value), x).terms())

    square, fourth = mean(u**2), mean(u**4)
    return symbolic(
        (
            "u is normal with mean -K and variance 2K, K = d^2 / 2",
            "E k2 = K + K^2 / 2 and Var k2 = 2 K^2 + 2 K^3",
            "under e^u x is normal about d, where u has mean K; e^(2u) has mean e^(2K): Var k3 = 2K + e^(2K) - 1 - 4K",
        ),
        [
            square / 2 - k - k**2 / 2,
            (fourth - square**2) / 4 - 2 * k**2 - 2 * k**3,
            (-(x**2) / 2 + u) + (x - d) ** 2 / 2,
            mean(u.subs(x, x + d)) - k,
            (-(x**2) / 2 + 2 * u) - (-((x - 2 * d) ** 2) / 2 + 2 * k),
        ],
    )


MODES = Statement(
    slug="kl-estimators-modes",
    title="A mode that has drifted: k2 is K^2 / 2 too large, and k3 varies less than k1 up to K = .628 nats only",
    status="T",
    kind="identity",
    hypotheses="modes that do not overlap or are labelled, unit covariance; the formulas of one mode, K its d^2 / 2; any weights checked",
    latex=r"E_qk_2=K+\tfrac{K^2}2,\qquad \mathrm{Var}_q(k_1,k_2,k_3)=\big(2K,\ 2K^2+2K^3,\ e^{2K}-1-2K\big),\qquad K=\tfrac{d^2}2",
    derive=_derive_modes,
    sample=_sample_modes,
    exact=_by_quadrature,
    bound=_modes,
    source=_SOURCE,
    test=_TEST,
    tolerance=1e-8,
)

STATEMENTS = (BIAS, VARIANCE, CONTROL, MODES)
