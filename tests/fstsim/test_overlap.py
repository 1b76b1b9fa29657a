"""Overlap measures: the identities of theory 0.5 on random instances, and three independent quadratures.

References: `scipy.integrate.quad` with break points, `mpmath` trapezoids in 40 digits that use the *definitions*
(integrals of the two densities, no logistic-normal form), and two-dimensional grids.
"""

from __future__ import annotations

import itertools
import math

import mpmath
import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scipy import integrate, stats
from scipy.special import expit, log_ndtr, ndtr

from fstsim.errors import InputError
from fstsim.logistic_normal import MAX_SCALE, logistic_normal_mean, logistic_normal_slope
from fstsim.overlap import (
    bhattacharyya_coefficient,
    chernoff_coefficient,
    harmonic_overlap,
    log_misassignment_probability,
    misassignment_probability,
    overlap_gap,
    validate_separation,
    weight_fisher_information,
)

RTOL = 1e-11  # a dozen operations on values good to 1e-12
ODDS = st.floats(-9.0, 9.0)
SEPARATION = st.floats(0.05, 20.0)


def own_moments(s: float, delta: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``E r_o``, ``E r_n`` and ``E r_o r_n`` under (the old, the new) component, from the logistic-normal functions."""
    loc = np.array([s + delta**2 / 2, s - delta**2 / 2])
    both = logistic_normal_slope(loc, delta)
    return logistic_normal_mean(loc, delta), logistic_normal_mean(-loc, delta), both


# --- theory 0.5 ------------------------------------------------------------------------------------------------------


@given(ODDS, SEPARATION)
def test_i_kappa_is_misassignment_over_weight(s: float, delta: float) -> None:
    beta, rest = expit(s), expit(-s)
    kappa = float(harmonic_overlap(s, delta))
    assert float(misassignment_probability(s, delta)) / rest == pytest.approx(kappa, rel=RTOL)
    assert float(misassignment_probability(-s, delta)) / beta == pytest.approx(kappa, rel=RTOL)


@given(ODDS, SEPARATION)
def test_ii_fisher_information_is_the_gap(s: float, delta: float) -> None:
    """``D beta (1 - beta) = 1 - kappa``, absolutely; `overlap_gap` is that without the cancellation."""
    gap = float(weight_fisher_information(s, delta)) * expit(s) * expit(-s)
    assert gap == pytest.approx(1.0 - float(harmonic_overlap(s, delta)), abs=1e-12)
    assert float(overlap_gap(s, delta)) == pytest.approx(gap, rel=RTOL)


@given(ODDS, SEPARATION)
def test_iii_components_against_the_score(s: float, delta: float) -> None:
    """``int f_o (f_o - f_n) / q = (1 - beta) D`` and ``int f_n (f_o - f_n) / q = -beta D``; ``f_k / q = r_k / w_k``."""
    beta, rest = expit(s), expit(-s)
    old, new, _ = own_moments(s, delta)
    fisher = float(weight_fisher_information(s, delta))
    scale = 1e-12 * (1.0 / beta + 1.0 / rest)  # of the two terms that are subtracted
    np.testing.assert_allclose(old / beta - new / rest, [rest * fisher, -beta * fisher], rtol=0.0, atol=scale)


@given(ODDS, ODDS, st.floats(0.0, 1.0), SEPARATION)
def test_iv_kappa_is_convex_even_and_monotone(s1: float, s2: float, share: float, delta: float) -> None:
    beta = share * expit(s1) + (1.0 - share) * expit(s2)
    s = np.log(beta) - np.log(share * expit(-s1) + (1.0 - share) * expit(-s2))
    first, second, between = harmonic_overlap([s1, s2, s], delta)
    assert between <= share * first + (1.0 - share) * second + 1e-12
    assert harmonic_overlap(-s1, delta) == harmonic_overlap(s1, delta)
    smaller, larger = sorted((abs(s1), abs(s2)))
    low, high = harmonic_overlap([smaller, larger], delta)
    assert low <= high * (1.0 + RTOL)
    assert harmonic_overlap(0.0, delta) <= low * (1.0 + RTOL)


@pytest.mark.parametrize("delta", [0.5, 1.0, 3.0])
def test_iv_kappa_tends_to_one(delta: float) -> None:
    """``1 - kappa = beta (1 - beta) D <= beta chi^2`` as the weight goes to 0 or 1."""
    for s in (-20.0, 20.0, -300.0, 300.0):
        assert 0.0 <= 1.0 - float(harmonic_overlap(s, delta)) <= np.exp(-20.0 + delta**2)
    assert harmonic_overlap(700.0, delta) == pytest.approx(1.0, abs=1e-12)


def mean_sech(s: float, delta: float) -> float:
    """``E sech((delta U - s) / 2)`` by a plain trapezoid: poles at distance ``pi / delta``, error ``exp(-39)``."""
    step = 0.5 / max(1.0, delta)
    u = step * np.arange(-np.ceil(9.5 / step), np.ceil(9.5 / step) + 1)
    y = 0.5 * (delta * u - s)
    return float(step * stats.norm.pdf(u) @ (2.0 / (np.exp(y) + np.exp(-y))))


@given(ODDS, SEPARATION)
def test_v_bhattacharyya_bound_and_exact_form(s: float, delta: float) -> None:
    kappa = float(harmonic_overlap(s, delta))
    envelope = float(bhattacharyya_coefficient(delta)) * np.cosh(s / 2.0)
    assert kappa <= envelope * (1.0 + RTOL)
    assert envelope == pytest.approx(
        float(bhattacharyya_coefficient(delta)) / (2.0 * np.sqrt(expit(s) * expit(-s))), rel=1e-12
    )
    assert kappa == pytest.approx(envelope * mean_sech(s, delta), rel=RTOL)


@given(ODDS, SEPARATION)
def test_vi_bounds_of_the_fisher_information(s: float, delta: float) -> None:
    fisher = float(weight_fisher_information(s, delta))
    total_variation = 2.0 * ndtr(delta / 2.0) - 1.0
    assert 4.0 * total_variation**2 <= fisher * (1.0 + RTOL)
    assert fisher <= (1.0 + RTOL) / (expit(s) * expit(-s))
    assert fisher <= np.expm1(delta**2) * (1.0 + RTOL)


@given(ODDS, SEPARATION)
def test_vii_variance_of_the_responsibility(s: float, delta: float) -> None:
    beta, rest = expit(s), expit(-s)
    old, _, both = own_moments(s, delta)
    weights = np.array([beta, rest])
    variance = weights @ (old - both) - beta**2  # E r_o^2 = E r_o - E r_o r_n, and E_q r_o = beta
    assert weights @ old == pytest.approx(beta, rel=RTOL)
    assert variance == pytest.approx((beta * rest) ** 2 * float(weight_fisher_information(s, delta)), abs=1e-12)


@given(ODDS, SEPARATION)
def test_viii_self_bounding_noise(s: float, delta: float) -> None:
    beta = expit(s)
    old, _, both = own_moments(s, delta)
    noise = (old - both)[1] - 2.0 * beta * old[1] + beta**2  # E_new (r_o - beta)^2
    assert noise <= beta**2 * expit(-s) * float(weight_fisher_information(s, delta)) + 1e-12 * beta


# --- quadrature ------------------------------------------------------------------------------------------------------


@given(st.floats(-6.0, 6.0), st.floats(0.3, 7.0))
@example(5.0, 2.0)
def test_against_adaptive_quadrature(s: float, delta: float) -> None:
    """The definitions, with break points at both centres and around the place where the odds are even."""
    beta, rest = float(expit(s)), float(expit(-s))
    even = delta / 2.0 + s / delta
    inner = sorted({0.0, delta, *(even + j / delta for j in (-2.0, 0.0, 2.0))})
    # Neighbours closer than this would leave the routine nothing but rounding between them.
    inner = [x for x, before in zip(inner, [-np.inf, *inner], strict=False) if x - before > 0.05]
    edges = [-9.0, *(x for x in inner if -8.9 < x < delta + 8.9), delta + 9.0]

    def terms(x: float) -> tuple[float, float, float]:
        f, g = (math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi) for z in (x, x - delta))
        return f, g, beta * f + rest * g

    def kappa(x: float) -> float:
        f, g, q = terms(x)
        return f * g / q

    def fisher(x: float) -> float:
        f, g, q = terms(x)
        return (f - g) ** 2 / q

    def bhattacharyya(x: float) -> float:
        f, g, _ = terms(x)
        return math.sqrt(f * g)

    for function, value in (
        (kappa, harmonic_overlap(s, delta)),
        (fisher, weight_fisher_information(s, delta)),
        (lambda x: rest * kappa(x), misassignment_probability(s, delta)),
        (bhattacharyya, bhattacharyya_coefficient(delta)),
    ):
        parts = [integrate.quad(function, *ends, epsabs=1e-14, epsrel=1e-12) for ends in itertools.pairwise(edges)]
        expected, error = np.sum(parts, axis=0)
        assert float(value) == pytest.approx(expected, rel=RTOL, abs=error + 1e-16)


def mpmath_overlap(s: float, delta: float) -> tuple[mpmath.mpf, mpmath.mpf]:
    """``kappa`` and ``D`` to 30 digits from their definitions, by a trapezoid between both centres and beyond.

    In units of the poles' distance ``pi / delta`` the step is 1 / 12 of ``2 pi``: error ``exp(-75)`` relative to ``D``
    and, as ``kappa`` is summed where it peaks, to ``kappa``. From node to node ``f`` and the ratio ``g / f`` are multiplied on,
    which costs ``n^2`` units in the last of 50 digits, with n below 11,000.
    """
    with mpmath.workdps(50):
        s_, d_ = mpmath.mpf(s), mpmath.mpf(delta)
        beta, rest = 1 / (1 + mpmath.exp(-s_)), 1 / (1 + mpmath.exp(s_))
        h = mpmath.mpf(1) / (4 * max(1, d_))
        kappa = fisher = mpmath.mpf(0)
        first, last = int(-13 / h), int((13 + d_) / h)
        x = first * h
        f, step, shrink = mpmath.npdf(x), mpmath.exp(-h * (x + h / 2)), mpmath.exp(-h * h)
        ratio, grow = mpmath.exp(d_ * (x - d_ / 2)), mpmath.exp(d_ * h)
        for _ in range(first, last + 1):
            share = f / (beta + rest * ratio)  # f g / q over g / f
            kappa += share * ratio
            fisher += share * (1 - ratio) ** 2
            f, step, ratio = f * step, step * shrink, ratio * grow
        return h * kappa, h * fisher


MPMATH_CASES = [(0.0, 0.05), (3.0, 0.2), (-2.0, 1.0), (8.0, 1.5), (0.5, 4.0), (-9.0, 6.0), (30.0, 5.0), (1.0, 14.0)]


@pytest.mark.parametrize(("s", "delta"), MPMATH_CASES)
def test_against_forty_digits(s: float, delta: float) -> None:
    """Relative accuracy at either end: kappa down to 1e-11, its gap down to 1e-13."""
    kappa, fisher = mpmath_overlap(s, delta)
    with mpmath.workdps(40):
        s_ = mpmath.mpf(s)
        rest = 1 / (1 + mpmath.exp(s_))
        gap, old_taken_for_new = 1 - kappa, rest * kappa
        assert abs(gap - rest * (1 - rest) * fisher) < 1e-30  # the reference agrees with itself
    assert float(harmonic_overlap(s, delta)) == pytest.approx(float(kappa), rel=1e-12)
    assert float(weight_fisher_information(s, delta)) == pytest.approx(float(fisher), rel=1e-12)
    assert float(overlap_gap(s, delta)) == pytest.approx(float(gap), rel=RTOL)
    assert float(misassignment_probability(s, delta)) == pytest.approx(float(old_taken_for_new), rel=1e-12)


@pytest.mark.parametrize("s", [-30.0, -2.0, 0.0, 2.0, 30.0])
@pytest.mark.parametrize("delta", [12.0, 25.0, 40.0])
def test_log_misassignment_far_out(s: float, delta: float) -> None:
    """About ``-delta^2 / 8 = -200`` at 40, from the sum ``(1 - beta) int f_o f_n / q`` in 40 digits."""
    with mpmath.workdps(40):
        kappa, _ = mpmath_overlap(s, delta)
        expected = mpmath.log(kappa / (1 + mpmath.exp(mpmath.mpf(s))))
    value = float(log_misassignment_probability(s, delta))
    assert value == pytest.approx(float(expected), rel=1e-14, abs=1e-12)
    assert float(misassignment_probability(s, delta)) == pytest.approx(float(mpmath.exp(expected)), rel=RTOL)
    # Two-tail bounds of theory 0.3, in logs.
    a = -s - delta**2 / 2.0
    log_g = float(np.logaddexp(log_ndtr(a / delta), -s + log_ndtr(-a / delta - delta)))
    assert log_g - np.log(2.0) - 1e-9 <= value <= log_g + 1e-9


@given(st.floats(-700.0, 700.0), st.floats(0.0, MAX_SCALE))
def test_log_is_finite_everywhere(s: float, delta: float) -> None:
    value = float(log_misassignment_probability(s, delta))
    assert np.isfinite(value)
    assert value <= 0.0
    assert value <= np.log(0.5) - s / 2.0 - delta**2 / 8.0 + 1e-9  # eps <= sqrt((1 - beta) / beta) BC / 2


def test_fisher_information_where_the_components_meet() -> None:
    """As delta -> 0, ``D -> delta^2``: the form ``(1 - kappa) / beta (1 - beta)`` would have no digits left."""
    for delta in (1e-3, 1e-6, 1e-12):
        for s in (-3.0, 0.0, 5.0):
            # The next term is of relative order delta (odd moments) times a skewness below 2, and delta^2.
            assert float(weight_fisher_information(s, delta)) / delta**2 == pytest.approx(1.0, rel=4.0 * delta + 1e-12)
    assert float(weight_fisher_information(0.0, 0.0)) == 0.0
    assert float(harmonic_overlap(2.0, 0.0)) == 1.0


# --- Chernoff --------------------------------------------------------------------------------------------------------


def random_covariance(rng: np.random.Generator, d: int) -> np.ndarray:
    a = rng.normal(size=(d, d))
    return a @ a.T + 0.3 * np.eye(d)


def chernoff_on_a_grid(mean_i, cov_i, mean_j, cov_j, t: float) -> float:
    """``int f_i^(1-t) f_j^t`` by the trapezoid in whitened coordinates of the geometric mean, which is Gaussian: the
    product is ``exp(-|u|^2 / 2)`` times a constant there, so step 0.5 errs by ``exp(-2 pi^2 / 0.25)``."""
    precision = (1.0 - t) * np.linalg.inv(cov_i) + t * np.linalg.inv(cov_j)
    center = np.linalg.solve(precision, (1.0 - t) * np.linalg.solve(cov_i, mean_i) + t * np.linalg.solve(cov_j, mean_j))
    root = np.linalg.cholesky(np.linalg.inv(precision))
    axis = 0.5 * np.arange(-18, 19)
    u = np.stack(np.meshgrid(*[axis] * len(mean_i), indexing="ij"), axis=-1)
    x = center + u @ root.T
    f_i = stats.multivariate_normal(mean_i, cov_i).logpdf(x)
    f_j = stats.multivariate_normal(mean_j, cov_j).logpdf(x)
    return float(np.exp((1.0 - t) * f_i + t * f_j).sum() * 0.5 ** len(mean_i) * np.linalg.det(root))


@given(st.integers(0, 2**32 - 1), st.integers(1, 2), st.floats(0.05, 0.95))
def test_chernoff_against_numerical_integration(seed: int, d: int, t: float) -> None:
    rng = np.random.default_rng(seed)
    pair = (rng.normal(size=d), random_covariance(rng, d), rng.normal(size=d), random_covariance(rng, d))
    assert float(chernoff_coefficient(*pair, t)) == pytest.approx(chernoff_on_a_grid(*pair, t), rel=1e-10)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.floats(0.0, 1.0))
def test_chernoff_symmetry_and_range(seed: int, d: int, t: float) -> None:
    rng = np.random.default_rng(seed)
    m_i, s_i, m_j, s_j = rng.normal(size=d), random_covariance(rng, d), rng.normal(size=d), random_covariance(rng, d)
    value = float(chernoff_coefficient(m_i, s_i, m_j, s_j, t))
    assert value == pytest.approx(float(chernoff_coefficient(m_j, s_j, m_i, s_i, 1.0 - t)), rel=1e-10)
    assert 0.0 < value <= 1.0 + 1e-10
    ends = chernoff_coefficient(m_i, s_i, m_j, s_j, [0.0, 1.0])
    np.testing.assert_allclose(ends, 1.0, rtol=1e-10)
    # log C_t is convex in t (Hoelder), and 0 at both ends
    low, middle, high = np.log(chernoff_coefficient(m_i, s_i, m_j, s_j, [t / 2.0, t / 2.0 + 0.25, t / 2.0 + 0.5]))
    assert middle <= 0.5 * (low + high) + 1e-10


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.floats(0.0, 1.0))
def test_chernoff_of_one_covariance(seed: int, d: int, t: float) -> None:
    rng = np.random.default_rng(seed)
    m_i, m_j, cov = rng.normal(size=d), rng.normal(size=d), random_covariance(rng, d)
    delta = float(np.sqrt((m_i - m_j) @ np.linalg.solve(cov, m_i - m_j)))
    assume(delta < MAX_SCALE)
    expected = np.exp(-0.5 * t * (1.0 - t) * delta**2)
    assert float(chernoff_coefficient(m_i, cov, m_j, cov, t)) == pytest.approx(expected, rel=1e-9)
    assert float(chernoff_coefficient(m_i, cov, m_j, cov)) == pytest.approx(
        float(bhattacharyya_coefficient(delta)), rel=1e-9
    )


@pytest.mark.parametrize(("ratio", "expected"), [(4.0, 0.894), (10.0, 0.758), (100.0, 0.445)])
def test_no_separation_from_the_covariance_alone(ratio: float, expected: float) -> None:
    """Equal means: ``BC = (4 r / (1 + r)^2)^(1/4)`` per dimension (theory 15)."""
    one = float(chernoff_coefficient([0.0], [[1.0]], [0.0], [[ratio]]))
    assert one == pytest.approx((4.0 * ratio / (1.0 + ratio) ** 2) ** 0.25, rel=1e-14)
    assert one == pytest.approx(expected, abs=5e-4)
    three = float(chernoff_coefficient(np.zeros(3), np.eye(3), np.zeros(3), ratio * np.eye(3)))
    assert three == pytest.approx(one**3, rel=1e-14)


# --- shapes and errors -----------------------------------------------------------------------------------------------

TWO_ARGUMENTS = (
    misassignment_probability,
    log_misassignment_probability,
    harmonic_overlap,
    weight_fisher_information,
    overlap_gap,
)


@pytest.mark.parametrize("function", TWO_ARGUMENTS)
def test_broadcasting(function) -> None:
    s, delta = np.linspace(-5.0, 5.0, 4)[:, None], np.array([0.0, 0.7, 3.0, 17.0, 33.0])
    table = function(s, delta)
    assert table.shape == (4, 5)
    np.testing.assert_allclose(table, [[float(function(a, d)) for d in delta] for a in s[:, 0]], rtol=1e-13)
    assert np.shape(function(0, 1)) == ()
    assert function([], 1.0).shape == (0,)


@pytest.mark.parametrize("delta", [-0.1, 65.0, np.nan, np.inf, [1.0, -1.0]])
def test_bad_separation_is_named(delta) -> None:
    for function in (bhattacharyya_coefficient, validate_separation):
        with pytest.raises(InputError, match="delta must lie in"):
            function(delta)
    for function in TWO_ARGUMENTS:
        with pytest.raises(InputError, match="delta must lie in"):
            function(0.0, delta)


@pytest.mark.parametrize("s", [np.nan, np.inf, -np.inf])
def test_bad_log_odds_are_named(s: float) -> None:
    for function in (misassignment_probability, harmonic_overlap):
        with pytest.raises(InputError, match="finite"):
            function(s, 1.0)


def test_bad_chernoff_input_is_named() -> None:
    eye = np.eye(2)
    with pytest.raises(InputError, match="t must lie in"):
        chernoff_coefficient([0.0, 0.0], eye, [1.0, 0.0], eye, 1.5)
    with pytest.raises(InputError, match="t must lie in"):
        chernoff_coefficient([0.0, 0.0], eye, [1.0, 0.0], eye, np.nan)
    with pytest.raises(InputError, match="positive definite"):
        chernoff_coefficient([0.0, 0.0], eye, [1.0, 0.0], -eye, 0.5)
