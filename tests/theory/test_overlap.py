"""Bounds of theory 0.3-0.5 and 3.4 against independent integrals, and the numbers quoted for them."""

from __future__ import annotations

import functools
import math

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from fstsim import InputError
from fstsim.overlap import log_misassignment_probability
from fstsim.theory import (
    harmonic_overlap,
    logistic_normal_bounds,
    logistic_normal_mean,
    misassignment_bound_table,
    misassignment_bounds,
    misassignment_probability,
    weight_fisher_information,
)
from fstsim.theory.overlap import mismatch_overlap_bounds, sech_mean_bounds, second_moment_constant

log_odds = st.floats(-7.0, 7.0)
separations = st.floats(0.05, 20.0)


@given(log_odds, separations)
def test_every_misassignment_bound_holds(s: float, delta: float) -> None:
    exact = float(misassignment_probability(s, delta))
    table = {name: float(value) for name, value in misassignment_bound_table(s, delta).items()}
    for name in ("U1", "U2", "U3", "U4", "U5", "U*"):
        assert exact <= table[name] * (1.0 + 1e-12), name
    assert table["L*"] <= exact * (1.0 + 1e-12)
    assert table["U*"] <= 1.41 * exact  # as tight as `misassignment_bounds` says


@given(log_odds, separations)
def test_misassignment_is_reversible(s: float, delta: float) -> None:
    # w eps_o = (1 - w) eps_n
    w = 1.0 / (1.0 + np.exp(-s))
    left = w * float(misassignment_probability(s, delta))
    assert left == pytest.approx((1.0 - w) * float(misassignment_probability(-s, delta)), rel=1e-11)


@pytest.mark.parametrize(("delta", "u1", "u2"), [(2, 0.74, 0.74), (4, 0.51, 0.81), (6, 0.37, 0.89), (10, 0.24, 0.956)])
def test_ratios_quoted_at_half(delta: float, u1: float, u2: float) -> None:
    table, exact = misassignment_bound_table(0.0, delta), misassignment_probability(0.0, delta)
    assert float(exact / table["U1"]) == pytest.approx(u1, abs=0.006)
    assert float(exact / table["U2"]) == pytest.approx(u2, abs=0.006)


def test_exponent_alone_looks_wrong_without_the_prefactor() -> None:
    delta = np.array([2.0, 4.0, 6.0, 10.0])
    slope = -log_misassignment_probability(0.0, delta) / (delta**2 / 8.0)
    np.testing.assert_allclose(slope, [2.99, 1.69, 1.37, 1.17], atol=0.006)
    # with the prefactor sqrt(pi/2)/delta the exponent is right at the same separations
    corrected = -(log_misassignment_probability(0.0, delta) - np.log(np.sqrt(np.pi / 2.0) / delta)) / (delta**2 / 8.0)
    np.testing.assert_allclose(corrected[2:], 1.0, atol=0.03)


def test_misassignment_is_an_mpmath_integral() -> None:
    mp.mp.dps = 30
    for s, delta in ((0.3, 2.0), (-2.5, 5.0), (4.0, 9.0)):
        value = mp.quad(
            lambda x, s=s, delta=delta: mp.npdf(x) / (1 + mp.exp(s + mp.mpf(delta) ** 2 / 2 - delta * x)),
            [-12, 0, delta / 2 + s / delta, delta, 12 + delta],
        )
        assert float(misassignment_probability(s, delta)) == pytest.approx(float(value), rel=1e-12)


@given(st.floats(-9.0, 9.0), separations)
def test_sech_bounds_bracket_the_harmonic_overlap(s: float, delta: float) -> None:
    low, high = sech_mean_bounds(s, delta)
    sech_mean = float(harmonic_overlap(s, delta)) / (np.exp(-(delta**2) / 8.0) * np.cosh(0.5 * s))
    assert float(low) * (1.0 - 1e-9) <= sech_mean <= float(high) * (1.0 + 1e-9)


@given(st.floats(0.05, 15.0), st.floats(0.01, 1.29))
def test_logistic_normal_bounds(scale: float, tilt: float) -> None:
    loc = -tilt * scale**2
    low, high = logistic_normal_bounds(loc, scale)
    exact = float(logistic_normal_mean(loc, scale))
    assert float(low) <= exact * (1.0 + 1e-11)
    assert exact <= float(high) * (1.0 + 1e-11)


@given(st.lists(st.floats(-4.0, 4.0), min_size=6, max_size=6), st.floats(-4.0, 4.0))
def test_mismatch_bounds_against_two_dimensional_sampling_free_integral(places: list[float], s: float) -> None:
    c, m_o, m_n = (np.array(places[2 * k : 2 * k + 2]) for k in range(3))
    first, second = mismatch_overlap_bounds(s, c, m_o, m_n)
    gap = m_o - m_n
    loc, scale, root = float(s + gap @ (c - 0.5 * (m_o + m_n))), float(np.linalg.norm(gap)), math.sqrt(2.0 * math.pi)

    @functools.cache
    def moment(power: int) -> float:
        if scale == 0.0:
            return float(1.0 / (1.0 + np.exp(-loc))) ** power
        points = [0.0, -loc / scale, 0.5 * scale]  # break points at the bend of the sigmoid and at its tilt
        inside = sorted({p for p in points if -11.0 < p < 11.0})
        return quad(
            lambda u: math.exp(-0.5 * u * u) / root * (1.0 / (1.0 + math.exp(-(loc + scale * u)))) ** power,
            -11,
            11,
            points=inside,
            limit=200,
        )[0]

    # quad is accurate to about 1e-8 absolutely
    assert moment(1) <= float(first) + 1e-7
    assert moment(2) <= float(second) + 1e-7
    assert moment(1) - moment(2) <= float(second) + 1e-7


@given(st.lists(st.floats(-4.0, 4.0), min_size=6, max_size=6), st.floats(-4.0, 4.0))
def test_the_mismatch_bound_is_half_the_mean_root_of_the_odds(places: list[float], s: float) -> None:
    """Along the gap of the means the log-odds are normal: ``E e^(z/2) = e^(mean/2 + variance/8)``."""
    c, m_o, m_n = (np.array(places[2 * k : 2 * k + 2]) for k in range(3))
    gap = m_o - m_n
    distance = float(np.linalg.norm(gap))
    root = math.exp((s + gap @ (c - 0.5 * (m_o + m_n))) / 2.0 + distance**2 / 8.0)
    first, second = mismatch_overlap_bounds(s, c, m_o, m_n)
    near = min(1.0, math.sqrt(2.0 * math.pi) / distance) if distance > 0.0 else 1.0
    assert float(first) == pytest.approx(0.5 * root * near, rel=1e-9)
    assert float(second) == pytest.approx(float(second_moment_constant(distance)) * root, rel=1e-9)


def test_second_moment_constant() -> None:
    # max of sigmoid'(z) e^(-z/2) and of sigmoid(z)^2 e^(-z/2) on a fine grid
    z = np.linspace(-20.0, 20.0, 400_001)
    r = 1.0 / (1.0 + np.exp(-z))
    assert float(second_moment_constant(0.1)) == pytest.approx((r * (1 - r) * np.exp(-z / 2)).max(), rel=1e-8)
    assert float(second_moment_constant(0.1)) == pytest.approx((r * r * np.exp(-z / 2)).max(), rel=1e-8)
    assert float(second_moment_constant(10.0)) == pytest.approx(np.sqrt(np.pi / 8.0) / 10.0)


@given(st.floats(-9.0, 9.0), st.floats(0.05, 12.0))
def test_information_is_one_minus_kappa_over_the_variance(s: float, delta: float) -> None:
    beta = 1.0 / (1.0 + np.exp(-s))
    kappa = float(harmonic_overlap(s, delta))
    left = beta * (1.0 - beta) * float(weight_fisher_information(s, delta))
    assert left == pytest.approx(1.0 - kappa, rel=1e-9, abs=1e-13)


def test_bad_input() -> None:
    for call in (
        lambda: misassignment_bounds(0.0, 0.0),
        lambda: misassignment_bounds(0.0, -1.0),
        lambda: misassignment_bounds(0.0, 100.0),
        lambda: logistic_normal_bounds(0.1, 1.0),
        lambda: logistic_normal_bounds(-0.1, 0.0),
        lambda: misassignment_probability(np.nan, 1.0),
    ):
        with pytest.raises(InputError):
            call()
