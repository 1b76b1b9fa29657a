"""The logistic-normal functions against three independent evaluations, and against what they must satisfy.

References: an *untilted* trapezoid in 40-digit arithmetic (`mpmath`, half the step and no pole correction, so it
shares neither the tilt nor the residues of the code), adaptive quadrature with break points, and Gauss-Hermite.
"""

from __future__ import annotations

import functools

import mpmath
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.special import log_ndtr

from fstsim.errors import InputError
from fstsim.logistic_normal import (
    MAX_SCALE,
    expected_softplus,
    log_expected_softplus,
    log_logistic_normal_mean,
    log_logistic_normal_slope,
    logistic_normal_mean,
    logistic_normal_slope,
    responsibility_moments,
)

VALUES = (expected_softplus, logistic_normal_mean, logistic_normal_slope)
LOGS = (log_expected_softplus, log_logistic_normal_mean, log_logistic_normal_slope)
RTOL = 1e-12  # what the module promises

Triple = tuple[mpmath.mpf, mpmath.mpf, mpmath.mpf]


@functools.cache
def reference(loc: float, scale: float) -> Triple:
    """``(SP, LN, LP)`` to 30 digits: a plain sum over the nodes ``u_k = k h`` that carry the mass of all three.

    The trapezoid errs by ``exp(-2 pi^2 / (d h)) = exp(-79)`` relative to the largest term times ``d``, and the
    window keeps 12.5 standard deviations (``exp(-78)``) about 0 and about the saddle. From node to node the exponentials
    are multiplied on, which costs ``n^2`` units in the last of 50 digits, with n below 8,000; a logarithm near 1 is its
    series to the fourth term. That takes half the time of functions of every node, and agrees with them to 1e-38.
    """
    with mpmath.workdps(50):
        a, d = mpmath.mpf(loc), mpmath.mpf(scale)
        h = mpmath.mpf(1) / (4 * max(1, d))
        saddle = max(-d, min(d, -a / d)) if d else mpmath.mpf(0)
        centers = (saddle,) if a <= 0 else (saddle, mpmath.mpf(0))
        first, last = (int(mpmath.nint(u / h)) for u in (min(centers) - 12.5, max(centers) + 12.5))
        u, half, third = first * h, mpmath.mpf(1) / 2, mpmath.mpf(1) / 3
        weight, ratio, shrink = mpmath.exp(-u * u / 2), mpmath.exp(-h * (u + h / 2)), mpmath.exp(-h * h)
        e, grow = mpmath.exp(a + d * u), mpmath.exp(d * h)
        softplus = mean = slope = mpmath.mpf(0)
        for _ in range(first, last + 1):
            rest = 1 / (1 + e)
            sigmoid = weight * e * rest
            softplus += weight * (mpmath.log(1 + e) if e > 1e-10 else e * (1 - e * (half - e * (third - e / 4))))
            mean += sigmoid
            slope += sigmoid * rest
            weight, ratio, e = weight * ratio, ratio * shrink, e * grow
        norm = h / mpmath.sqrt(2 * mpmath.pi)
        return norm * softplus, norm * mean, norm * slope


def check_against_reference(loc: float, scale: float) -> None:
    expected = reference(loc, scale)
    for value, log_value, exact in zip(VALUES, LOGS, expected, strict=True):
        if exact > 1e-300:  # below, doubles lose digits and only the log variant is meant to serve
            assert float(value(loc, scale)) == pytest.approx(float(exact), rel=RTOL), value.__name__
        with mpmath.workdps(40):
            exact_log = mpmath.log(exact)
            error = abs(mpmath.mpf(float(log_value(loc, scale))) - exact_log)
        # A log is as good as the value allows (absolute 1e-12 near 0), and relative to itself once it is large.
        assert error <= RTOL * max(1.0, abs(exact_log)), log_value.__name__


# Level boundaries of the node tables (2^(k/4)), and the scale h/2 = 0.36 where the pole correction switches on.
BOUNDARIES = [2.0 ** (k / 4) for k in range(22)]
SWITCH = [0.36 + shift for shift in (-0.05, -1e-3, -1e-12, 0.0, 1e-12, 1e-3, 0.05)]


@pytest.mark.parametrize("tilt", [0.02, 0.5, 0.93])
@pytest.mark.parametrize("scale", BOUNDARIES)
def test_level_boundaries(scale: float, tilt: float) -> None:
    check_against_reference(-tilt * scale**2, scale)


@pytest.mark.parametrize("scale", [2.0, 2.0**2.25, 16.0])
@pytest.mark.parametrize("factor", [1 - 1e-10, 1 + 1e-10, 1 + 1e-7])
def test_around_level_boundaries(scale: float, factor: float) -> None:
    check_against_reference(-0.5 * scale**2, scale * factor)


@pytest.mark.parametrize("loc", [-3.0, -(0.36**2), -0.1, -0.05, -1e-9, 0.0, 0.05, 2.0])
@pytest.mark.parametrize("scale", SWITCH)
def test_where_the_pole_correction_switches_on(scale: float, loc: float) -> None:
    check_against_reference(loc, scale)


@pytest.mark.parametrize("scale", [1e-200, 1e-8, 0.01, 0.3, 0.75, 1.0, 3.0, 8.0, 20.0, 40.0])
@pytest.mark.parametrize("multiple", [-40.0, -1.5, -1.0 - 1e-9, -1.0, -1.0 + 1e-9, -0.999])
def test_clipped_tilt_and_its_edge(scale: float, multiple: float) -> None:
    check_against_reference(multiple * scale**2, scale)


@pytest.mark.parametrize("scale", [0.01, 0.7, 1.0, 3.0, 10.0, 40.0])
@pytest.mark.parametrize("loc", [-1e-300, 0.0, 1e-12, 0.4, 7.0, 60.0])
def test_zero_and_positive_locations(scale: float, loc: float) -> None:
    check_against_reference(loc, scale)


@pytest.mark.parametrize("loc", [-1e6, -800.0, -40.0, -1.0, -1e-300, 0.0, 1e-9, 3.0, 30.0, 700.0])
def test_zero_scale_is_the_plain_function(loc: float) -> None:
    check_against_reference(loc, 0.0)


def test_random_points() -> None:
    rng = np.random.default_rng(0)
    for scale in np.exp(rng.uniform(np.log(0.05), np.log(40.0), 60)):
        check_against_reference(float(rng.uniform(-1.3, 0.4)) * float(scale) ** 2, float(scale))


@given(st.floats(0.0, 8.0), st.floats(-1.3, 0.4))
@example(0.36, -0.5)
def test_anywhere(scale: float, multiple: float) -> None:
    check_against_reference(multiple * scale**2, scale)


@pytest.mark.parametrize(("loc", "scale"), [(-0.7, 0.5), (-1.9, 3.0), (-18.0, 6.0), (-90.0, 12.0), (5.0, 4.0)])
def test_reference_agrees_with_adaptive_quadrature(loc: float, scale: float) -> None:
    """The reference is itself checked: break points at the kink ``-a/d`` of the sigmoid and at the saddle."""
    with mpmath.workdps(34):
        a, d = mpmath.mpf(loc), mpmath.mpf(scale)
        kink, saddle = -a / d, max(mpmath.mpf(0), min(d, -a / d))
        inner = [kink + 3 * j / d for j in range(-4, 5)] + [saddle + j for j in (-6, -3, 0, 3, 6)]
        points = sorted({saddle - 13, saddle + 13, *(u for u in inner if abs(u - saddle) < 13)})

        def integrand(u: mpmath.mpf, which: int) -> mpmath.mpf:
            e = mpmath.exp(a + d * u)
            return mpmath.npdf(u) * (mpmath.log1p(e), e / (1 + e), e / (1 + e) ** 2)[which]

        for which, exact in enumerate(reference(loc, scale)):
            value = mpmath.quad(functools.partial(integrand, which=which), points)
            assert abs(value / exact - 1) < 1e-24


@pytest.mark.parametrize("scale", [0.1, 0.36, 0.5, 1.0, 1.7, 2.4, 3.0])
def test_gauss_hermite(scale: float) -> None:
    """A third route, in double precision; nodes as its poles at distance ``pi/d`` ask (about 14 d^2)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(int(14 * scale**2) + 40)
    weights = weights / np.sqrt(2.0 * np.pi)
    loc = np.linspace(-(scale**2) - 1.0, scale**2 + 1.0, 21)
    z = loc[:, None] + scale * nodes
    sigmoid = 1.0 / (1.0 + np.exp(-z))
    for value, integrand in zip(VALUES, (np.logaddexp(0.0, z), sigmoid, sigmoid * (1.0 - sigmoid)), strict=True):
        np.testing.assert_allclose(value(loc, scale), integrand @ weights, rtol=1e-9)


scales = st.floats(0.0, 40.0)
# Locations as multiples of d^2, where the tilt lives, with a shift so that d = 0 is not only a = 0.
locations = st.tuples(st.floats(-1.5, 0.5), st.floats(-20.0, 5.0))


def place(location: tuple[float, float], scale: float) -> float:
    return location[0] * scale**2 + location[1]


@given(st.floats(-2000.0, 2000.0), scales)
def test_reflections(loc: float, scale: float) -> None:
    assert logistic_normal_mean(loc, scale) + logistic_normal_mean(-loc, scale) == pytest.approx(1.0, abs=1e-15)
    assert logistic_normal_slope(loc, scale) == logistic_normal_slope(-loc, scale)
    up, down = expected_softplus(loc, scale), expected_softplus(-loc, scale)
    assert float(up - down) == pytest.approx(loc, abs=4e-16 * float(up + down))
    assert log_logistic_normal_slope(loc, scale) == log_logistic_normal_slope(-loc, scale)


def gauss_legendre(low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """24 nodes: exact to rounding on intervals up to 1, where the integrands here are analytic within ``pi``."""
    nodes, weights = np.polynomial.legendre.leggauss(24)
    return 0.5 * (low + high) + 0.5 * (high - low) * nodes, 0.5 * (high - low) * weights


def assert_increment(high: float, low: float, integral: float) -> None:
    """``high - low == integral``, where each of the three carries the promised relative error."""
    assert high - low == pytest.approx(integral, rel=0.0, abs=2.0 * RTOL * (abs(high) + abs(low)) + 1e-300)


@given(locations, scales)
def test_derivatives_in_loc(location: tuple[float, float], scale: float) -> None:
    """``dSP/da = LN`` and ``dLN/da = LP`` in integrated form over a unit step: no truncation error to allow for."""
    loc = place(location, scale)
    nodes, weights = gauss_legendre(loc, loc + 1.0)
    for function, derivative in (
        (expected_softplus, logistic_normal_mean),
        (logistic_normal_mean, logistic_normal_slope),
    ):
        ends = function([loc, loc + 1.0], scale)
        assert_increment(float(ends[1]), float(ends[0]), float(weights @ derivative(nodes, scale)))


@given(locations, scales)
def test_derivative_in_scale(location: tuple[float, float], scale: float) -> None:
    """``dSP/dd = d LP`` in integrated form; the step shrinks as 1/d so that the tail changes by a bounded factor."""
    loc, top = place(location, scale), scale + 0.5 / max(1.0, scale)
    nodes, weights = gauss_legendre(scale, top)
    ends = expected_softplus(loc, [scale, top])
    integral = weights @ (nodes * logistic_normal_slope(loc, nodes))
    assert_increment(float(ends[1]), float(ends[0]), float(integral))


@given(st.floats(-30.0, 30.0), scales)
def test_finite_difference(loc: float, scale: float) -> None:
    """The same in differential form. Truncation is ``step^2/6`` times a third derivative: ``|LP'| <= 0.097`` for SP,
    ``|LP''| <= 1/8`` for LN. Rounding is ``1e-12 |value| / step``, with ``|SP| <= 60 + d``."""
    step = 1e-4
    softplus = expected_softplus([loc - step, loc + step], scale)
    mean = logistic_normal_mean([loc - step, loc + step], scale)
    rounding = RTOL / step
    assert np.diff(softplus)[0] / (2 * step) == pytest.approx(
        float(logistic_normal_mean(loc, scale)), abs=step**2 / 6 * 0.097 + rounding * softplus.max()
    )
    assert np.diff(mean)[0] / (2 * step) == pytest.approx(
        float(logistic_normal_slope(loc, scale)), abs=step**2 / 6 / 8 + rounding * mean.max()
    )


@given(locations, st.floats(1e-3, 40.0))
def test_two_tail_bounds(location: tuple[float, float], scale: float) -> None:
    """``G/2 <= LN <= G`` for ``a < 0``, ``G = Phi(a/d) + exp(a + d^2/2) Phi(-a/d - d)``, in logs."""
    loc = -abs(place(location, scale))
    tails = log_ndtr(loc / scale), loc + 0.5 * scale**2 + log_ndtr(-loc / scale - scale)
    log_g = float(np.logaddexp(*tails))
    value = float(log_logistic_normal_mean(loc, scale))
    # Each term of log_g is a sum of numbers of this size, so this is its rounding error.
    slack = 1e-15 * (10.0 + abs(loc) + scale**2 + (loc / scale) ** 2)
    assert log_g - np.log(2.0) - slack <= value <= log_g + slack


@given(locations, scales, st.floats(0.0, 3.0))
def test_monotone(location: tuple[float, float], scale: float, step: float) -> None:
    loc = place(location, scale)
    for function in (log_expected_softplus, log_logistic_normal_mean):
        low, high = function([loc, loc + step], scale)
        assert high >= low - RTOL * (1.0 + abs(low))
    low, high = expected_softplus(loc, [scale, scale + step])
    assert high >= low * (1.0 - RTOL)
    outer, inner = log_logistic_normal_slope([-abs(loc) - step, -abs(loc)], scale)
    assert inner >= outer - RTOL * (1.0 + abs(outer))


@given(st.floats(-2000.0, 2000.0), st.floats(0.0, MAX_SCALE))
def test_ranges(loc: float, scale: float) -> None:
    """Up to the largest scale allowed."""
    softplus, mean, slope = (float(function(loc, scale)) for function in VALUES)
    assert 0.0 <= mean <= 1.0
    ceiling = 0.25 if scale < 1.6 else 1.0 / (scale * np.sqrt(2.0 * np.pi))
    assert 0.0 <= slope <= ceiling * (1.0 + RTOL)
    assert slope <= min(mean, 1.0 - mean) * (1.0 + RTOL) + 1e-15  # sigma' = sigma (1 - sigma)
    highest = max(loc, 0.0) + np.log(2.0) + scale / np.sqrt(2.0 * np.pi)
    assert max(loc, 0.0) <= softplus <= highest * (1.0 + RTOL)


def test_far_lower_tail_is_finite_in_logs() -> None:
    """At ``a = -1e6, d = 40`` each value is ``exp(a + d^2/2)`` to all digits: the sigmoid has become ``e^z``."""
    for log_value, value in zip(LOGS, VALUES, strict=True):
        assert float(log_value(-1e6, 40.0)) == pytest.approx(-1e6 + 800.0, rel=1e-14)
        assert float(value(-1e6, 40.0)) == 0.0
    assert float(log_logistic_normal_mean(1e6, 40.0)) == 0.0
    assert float(expected_softplus(1e6, 40.0)) == 1e6


@pytest.mark.parametrize("scale", [1e-200, 1e-160, 0.4, 3.0, MAX_SCALE])
@pytest.mark.parametrize("loc", [-1.7e308, -1e160, -1e15, -1.0, -5e-324])
def test_extreme_input_neither_warns_nor_loses_digits(loc: float, scale: float) -> None:
    """Squares and quotients of such numbers overflow or vanish; warnings are errors in this suite."""
    for function in (*VALUES, *LOGS):
        assert np.isfinite(function([loc, -loc], scale)).all()
    if loc > -2.0:
        check_against_reference(loc, scale)
    else:
        for log_value in LOGS:
            assert float(log_value(loc, scale)) == pytest.approx(loc + 0.5 * scale**2, rel=1e-15)


def test_broadcasting_and_shapes() -> None:
    loc, scale = np.linspace(-9.0, 4.0, 5)[:, None], np.array([0.0, 0.5, 3.0])
    for function in (*VALUES, *LOGS):
        table = function(loc, scale)
        assert table.shape == (5, 3)
        assert table.dtype == np.float64
        one_by_one = [[float(function(a, d)) for d in scale] for a in loc[:, 0]]
        np.testing.assert_allclose(table, one_by_one, rtol=1e-14)
        assert np.shape(function(0, 1)) == ()
        assert function([], 1.0).shape == (0,)


def test_points_do_not_depend_on_their_neighbours(rng: np.random.Generator) -> None:
    """More points than one block holds, scales from many node tables, in two orders."""
    scale = rng.uniform(0.0, 20.0, 3000)
    loc = rng.uniform(-1.2, 0.2, 3000) * scale**2
    order = rng.permutation(3000)
    for function in LOGS:
        np.testing.assert_allclose(
            function(loc, scale)[order], function(loc[order], scale[order]), rtol=1e-13, atol=1e-13
        )


@given(locations, scales)
def test_responsibility_moments_are_the_separate_functions(location: tuple[float, float], scale: float) -> None:
    loc = place(location, scale)
    old, new, overlap = responsibility_moments(loc, scale)
    # E(1 - r) is LN(-a), not 1 - LN(a): both responsibilities keep their digits when small.
    np.testing.assert_allclose(old, logistic_normal_mean(loc, scale), rtol=1e-15)
    np.testing.assert_allclose(new, logistic_normal_mean(-loc, scale), rtol=1e-15)
    np.testing.assert_allclose(overlap, logistic_normal_slope(loc, scale), rtol=1e-15)


@pytest.mark.parametrize("function", [*VALUES, *LOGS, responsibility_moments])
@pytest.mark.parametrize(
    ("loc", "scale", "what"),
    [
        (np.nan, 1.0, "loc"),
        (np.inf, 1.0, "loc"),
        ([0.0, -np.inf], 1.0, "loc"),
        (0.0, -1e-9, "scale"),
        (0.0, [1.0, 64.1], "scale"),
        (0.0, np.nan, "scale"),
        (0.0, np.inf, "scale"),
    ],
)
def test_bad_input_is_named(function, loc, scale, what) -> None:
    with pytest.raises(InputError, match=what):
        function(loc, scale)
