"""Statements of section 11: one affine map on the log-odds behind the methods."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.special import log_expit, logsumexp

from fstsim.theory.maps import basin_odds_bounds, product_log_odds
from fstsim.theory.statements.instances import log_uniform, sometimes
from fstsim.theory.statements.statement import Bounds, Derivation, Sample, Statement
from fstsim.theory.statements.symbolic import nothing, sigmoid, symbolic

Array = NDArray[np.float64]
_TEST = "tests/theory/test_maps.py"


# --- products of labelled mixtures (11.1) ------------------------------------------------------------------------------


def _derive_product() -> Derivation:
    a, b, c, x, m, p, q = sp.symbols("a b c x m p q", real=True)
    total, center = a + b + c, a * m + b * p + c * q
    spread = a * m**2 + b * p**2 + c * q**2 - center**2 / total
    return symbolic(
        (
            (
                "sum_i a_i (x - m_i)^2 = A (x - sum_i a_i m_i / A)^2 + V: each mode is N(., 1/A) times e^(-V/2), "
                "and the normaliser of N(., 1/A) is the same for both"
            ),
        ),
        [a * (x - m) ** 2 + b * (x - p) ** 2 + c * (x - q) ** 2 - total * (x - center / total) ** 2 - spread],
    )


def _sample_product(rng: np.random.Generator, n: int) -> Sample:
    old = rng.standard_normal((n, 3))
    return {
        "exponents": rng.uniform(0.3, 1.5, (n, 3)),
        "log_odds": rng.uniform(-3.0, 3.0, (n, 3)),
        "means_old": old,
        "means_new": 4.0 + np.where(rng.random((n, 1)) < 0.5, old, rng.standard_normal((n, 3))),
        "drift": rng.uniform(-3.0, 3.0, n),
    }


_GRID = np.arange(-12.0, 16.0, 0.05)


def _integrated_odds(exponents: Array, log_odds: Array, means_old: Array, means_new: Array, drift: Array) -> Array:
    """Odds of the two labels of the product, integrated on a grid."""

    def log_mass(means: Array, log_weights: Array) -> Array:
        log_density = np.zeros((len(exponents), _GRID.size))
        for i in range(exponents.shape[1]):
            gap = _GRID - means[:, i, None]
            log_density += exponents[:, i, None] * (log_weights[:, i, None] - 0.5 * gap * gap)
        return logsumexp(log_density, axis=-1)

    return np.exp(log_mass(means_old, log_expit(log_odds)) - log_mass(means_new, log_expit(-log_odds)) - drift)


def _product_odds(exponents: Array, log_odds: Array, means_old: Array, means_new: Array, drift: Array) -> Bounds:
    value = np.exp(product_log_odds(exponents, log_odds, means_old[..., None], means_new[..., None], drift))
    return value, value


PRODUCT = Statement(
    slug="exp-family-unification",
    title="Products of policies and exponentiated rewards act affinely on the log-odds",
    status="T",
    kind="identity",
    hypotheses="labelled space, equal covariances, A = a + b + c > 0, also A != 1; V_k vanishes if the factors' means agree",
    latex=r"q_{t+1}\propto q_t^a\,p^b\,q_0^c\,e^{r/\tau}\ \Rightarrow\ s_{t+1}=a\,s_t+b\,s_p+c\,s_0-\tfrac{\Delta r}\tau-\tfrac12(V_o-V_n)",
    derive=_derive_product,
    sample=_sample_product,
    exact=_integrated_odds,
    bound=_product_odds,
    test=_TEST,
    tolerance=1e-9,
)


# --- iterates (11.1) ---------------------------------------------------------------------------------------------------


def _derive_iterates() -> Derivation:
    a, s0, u, k = sp.symbols("a s_0 u k", positive=True)
    fixed = u / (1 - a)
    iterate = fixed + a**k * (s0 - fixed)
    return symbolic(
        ("s_(k+1) = a s_k + u for s_k = s* + a^k (s_0 - s*), s* = u / (1 - a)", "s_0 is the iterate at k = 0"),
        [sp.expand(iterate.subs(k, k + 1) - a * iterate - u).simplify(), iterate.subs(k, 0) - s0],
    )


def _sample_iterates(rng: np.random.Generator, n: int) -> Sample:
    return {
        "a": sometimes(
            rng, 1.0 - log_uniform(rng, 1e-15, 1e-3, n), np.where(rng.random(n) < 0.2, 1.0, rng.uniform(-1.0, 1.0, n))
        ),
        "constant": rng.uniform(-2.0, 2.0, n),
        "s0": sometimes(rng, rng.uniform(-200.0, 200.0, n), rng.uniform(-4.0, 4.0, n)),
        "k": rng.integers(1, 60, n).astype(np.float64),
    }


def _iterated_odds(a: Array, constant: Array, s0: Array, k: Array) -> Array:
    s = s0
    for step in range(int(k.max())):
        s = np.where(step < k, a * s + constant, s)
    return np.exp(s)


def _closed_odds(a: Array, constant: Array, s0: Array, k: Array) -> Bounds:
    with np.errstate(divide="ignore", invalid="ignore"):
        # s* + a^k (s_0 - s*) without the difference of two large numbers that it is for a near 1
        power = np.power(a, k)
        rest = np.where(a > 0.0, -np.expm1(k * np.log(np.abs(a))), 1.0 - power)
        inside = power * s0 + constant * rest / (1.0 - a)
    value = np.exp(np.where(a == 1.0, s0 + k * constant, inside))
    return value, value


ITERATES = Statement(
    slug="exp-family-unification-fixed-point",
    title="A method retains iff it contracts toward a fixed anchor, or its tilt vanishes",
    status="T",
    kind="identity",
    hypotheses="u = b s_p + c s_0 - gap/tau; interior attracting fixed point iff |a| < 1; a = 1: linear divergence unless u = 0",
    latex=r"s_k=s^*+a^k(s_0-s^*),\quad s^*=\frac{b\,s_p+c\,s_0-\Delta r/\tau}{1-a};\qquad a=1:\ s_k=s_0+k\,u",
    derive=_derive_iterates,
    sample=_sample_iterates,
    exact=_iterated_odds,
    bound=_closed_odds,
    test=_TEST,
    tolerance=1e-9,
)


# --- reverse KL as a proximal step (11.2) ------------------------------------------------------------------------------


def _derive_prox() -> Derivation:
    s, p, t, step = sp.symbols("s p t l", real=True)
    b = sigmoid(s)
    # dk(s, x)/ds = (s - x) sigmoid'(s)
    slope = b * (1 - b) * (step * (s - p) + (s - t))
    return symbolic(
        ("the slope of l KL(q || p) + KL(q || q_t) vanishes at s = (s_t + l s_p) / (1 + l)",),
        [slope.subs(s, (t + step * p) / (1 + step))],
    )


def _sample_prox(rng: np.random.Generator, n: int) -> Sample:
    return {
        "log_odds": sometimes(rng, rng.uniform(-18.0, 18.0, n), rng.uniform(-4.0, 4.0, n)),
        "target_log_odds": sometimes(rng, rng.uniform(-18.0, 18.0, n), rng.uniform(-4.0, 4.0, n)),
        "step": sometimes(rng, log_uniform(rng, 1e-3, 1e3, n), log_uniform(rng, 0.05, 20.0, n)),
    }


def _minimiser(log_odds: Array, target_log_odds: Array, step: Array) -> Array:
    """Odds at the minimum of the proximal objective, by bisection on a complex-step derivative."""
    tiny = 1e-100

    def slope(s: Array) -> Array:
        z = s + 1j * tiny
        old, new = 1.0 / (1.0 + np.exp(-z)), 1.0 / (1.0 + np.exp(z))
        log_old, log_new = -np.log1p(np.exp(-z)), -np.log1p(np.exp(z))

        def kl(base: Array) -> Array:
            return old * (log_old - log_expit(base)) + new * (log_new - log_expit(-base))

        return (step * kl(target_log_odds) + kl(log_odds)).imag / tiny

    low, high = np.full(step.shape, -20.0), np.full(step.shape, 20.0)
    for _ in range(60):
        middle = 0.5 * (low + high)
        rising = slope(middle) > 0.0
        low, high = np.where(rising, low, middle), np.where(rising, middle, high)
    return np.exp(0.5 * (low + high))


def _prox_odds(log_odds: Array, target_log_odds: Array, step: Array) -> Bounds:
    value = np.exp((log_odds + step * target_log_odds) / (1.0 + step))
    return value, value


PROX = Statement(
    slug="reverse-kl-prox",
    title="A proximal reverse-KL step is the affine map a = 1/(1+l), b = l/(1+l)",
    status="T",
    kind="identity",
    hypotheses="labelled space, components right, step l > 0",
    latex=r"\arg\min_q\,\ell\,\mathrm{KL}(q\Vert p)+\mathrm{KL}(q\Vert q_t):\quad s=\frac{s_t+\ell s_p}{1+\ell}",
    derive=_derive_prox,
    sample=_sample_prox,
    exact=_minimiser,
    bound=_prox_odds,
    test=_TEST,
    tolerance=1e-9,
)


# --- with overlap instead of labels (11.1) -----------------------------------------------------------------------------


def _sample_basins(rng: np.random.Generator, n: int) -> Sample:
    return {
        "exponents": rng.dirichlet(np.ones(3), n),
        "log_odds": rng.uniform(-2.0, 2.0, (n, 3)),
        "drift": rng.uniform(-1.5, 1.5, n),
        "delta": rng.uniform(1.0, 10.0, n),
    }


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)
_PANELS = 40


def _basin_odds(exponents: Array, log_odds: Array, drift: Array, delta: Array) -> Array:
    """Odds of the two half-lines under the product of the *densities*, with the reward constant on each half-line."""
    unit = (np.arange(_PANELS)[:, None] + 0.5 * (1.0 + _NODES)).ravel() / _PANELS
    weights = np.tile(_WEIGHTS, _PANELS)
    away = unit * (0.5 * delta[:, None] + 9.0)

    def log_mass(side: float) -> Array:
        own, other = away - 0.5 * delta[:, None], away + 0.5 * delta[:, None]
        log_density = np.zeros(away.shape)
        for i in range(exponents.shape[1]):
            s = side * log_odds[:, i, None]
            both = np.logaddexp(log_expit(s) - 0.5 * own * own, log_expit(-s) - 0.5 * other * other)
            log_density += exponents[:, i, None] * both
        return logsumexp(log_density, axis=-1, b=weights)

    return np.exp(log_mass(1.0) - log_mass(-1.0) - drift)


BASINS = Statement(
    slug="exp-family-unification-overlap",
    title="Without labels the map holds up to the overlap",
    status="T",
    kind="bound",
    hypotheses="products of the densities, a_i >= 0 with sum 1, means agree, reward constant on each basin; odds of the two basins, Phi at delta/2",
    latex=r"\frac{\Phi}{\Phi+\bar\Phi\sum_ia_ie^{s_i}}\le\frac{Q_{t+1}(\text{old basin})}{Q_{t+1}(\text{new basin})}\,e^{-s_{t+1}}"
    r"\le\frac{\Phi+\bar\Phi\sum_ia_ie^{-s_i}}{\Phi},\qquad\bar\Phi\le\tfrac12\mathrm{BC}",
    derive=lambda: nothing("weighted arithmetic-geometric mean, integrated over the half-space"),
    sample=_sample_basins,
    exact=_basin_odds,
    bound=basin_odds_bounds,
    test=_TEST,
)

STATEMENTS = (
    PRODUCT,
    ITERATES,
    PROX,
    BASINS,
)
