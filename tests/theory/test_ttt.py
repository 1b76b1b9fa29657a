"""TTT-Discover (theory 9): the self-consistent tilt against direct maximisation, mpmath, and quadrature."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.special import expit, logit
from scipy.stats import norm

from fstsim import InputError
from fstsim.overlap import bhattacharyya_coefficient
from fstsim.theory.statements.ttt import utility_slope
from fstsim.theory.ttt import (
    entropic_bracket,
    entropic_drift_bound,
    entropic_mean_lower_bound,
    entropic_optimum,
    entropic_overlap_bounds,
    entropic_retention_threshold,
    entropic_shift,
    entropic_tilt_log_odds,
    entropic_unleashed_time,
)
from fstsim.tilts import log_entropic_mean, tilt_grid

bases = st.floats(-4.0, 4.0)
gaps = st.floats(-8.0, 8.0)
leashes = st.floats(0.1, 20.0)


def utility(mass: float, base: float, gap: float, leash: float) -> float:
    old = expit(base)
    kl = mass * np.log(mass / old) + (1.0 - mass) * np.log((1.0 - mass) / (1.0 - old))
    return float(np.log(mass + (1.0 - mass) * np.exp(gap)) - leash * kl)


# --- the tilt ---------------------------------------------------------------------------------------------------------


@given(base=bases, gap=gaps, leash=leashes)
def test_tilt_is_the_maximum_and_inside_its_bracket(base: float, gap: float, leash: float) -> None:
    s = float(entropic_tilt_log_odds(base, gap, leash))
    low, high = entropic_bracket(base, gap, leash)
    assert low - 1e-12 * (1.0 + abs(low)) <= s <= high + 1e-12 * (1.0 + abs(high))
    slope_left, slope_right = (
        float(utility_slope(np.asarray(s + away), np.asarray(base), np.asarray(gap), np.asarray(leash)))
        for away in (-1e-3, 1e-3)
    )
    assert slope_left > 0.0 > slope_right
    assert low >= base - 1.0 / (leash * expit(-base)) - 1e-12  # whatever the gap


@given(base=bases, gap=gaps, leash=leashes)
def test_tilt_solves_its_equation_to_thirty_digits_of_help(base: float, gap: float, leash: float) -> None:
    with mpmath.workdps(30):
        s = mpmath.mpf(float(entropic_tilt_log_odds(base, gap, leash)))
        beta = 1 / (1 + mpmath.exp(-s))
        shift = mpmath.expm1(gap) / (beta + (1 - beta) * mpmath.exp(gap))
        assert abs(s + shift / leash - base) < 1e-13 * (10.0 + abs(s) + abs(base))


@given(base=bases, gap=gaps, leash=leashes)
def test_mirror_symmetry(base: float, gap: float, leash: float) -> None:
    direct, mirrored = entropic_tilt_log_odds(base, gap, leash), entropic_tilt_log_odds(-base, -gap, leash)
    assert direct == pytest.approx(-mirrored, rel=1e-12, abs=1e-12)


@given(base=bases, gap=st.floats(-2.0, 2.0), leash=st.floats(0.3, 3.0))
def test_weak_exponent_is_expected_reward_with_a_leash(base: float, gap: float, leash: float) -> None:
    b = 1e-5
    assert entropic_tilt_log_odds(base, b * gap, b * leash) == pytest.approx(base - gap / leash, abs=2e-3)


@given(base=bases, gap=gaps)
def test_strong_leash_keeps_the_base_and_no_leash_loses_it(base: float, gap: float) -> None:
    assume(abs(gap) > 1e-6)
    assert entropic_tilt_log_odds(base, gap, 1e12) == pytest.approx(base, abs=1e-9)
    assert entropic_tilt_log_odds(base, gap, 0.0) == -np.sign(gap) * np.inf
    assert entropic_tilt_log_odds(base, 0.0, 0.0) == base


def test_it_is_not_the_plain_tilt() -> None:
    # delicate point 6: neither e^(br) nor e^(br / lambda) maximises the utility; the loss saturates in the gap
    base, gap, leash = 0.5, 2.0, 1.0
    best = utility(float(expit(entropic_tilt_log_odds(base, gap, leash))), base, gap, leash)
    assert best > utility(float(expit(base - gap)), base, gap, leash) + 1e-3
    lost = base - entropic_tilt_log_odds(base, np.array([1.0, 5.0, 50.0, 500.0]), leash)
    assert (np.diff(lost) >= 0.0).all()
    assert lost[-1] - lost[-2] < 1e-12
    assert lost[-1] <= 1.0 / (leash * expit(-base))


@given(base=bases, gap=st.floats(0.01, 30.0), drop=st.floats(0.01, 6.0), factor=st.floats(1.01, 3.0))
def test_threshold_separates_keeping_from_losing(base: float, gap: float, drop: float, factor: float) -> None:
    floor = float(expit(base - drop))
    leash = float(entropic_retention_threshold(base, gap, floor))
    assert expit(entropic_tilt_log_odds(base, gap, leash * factor)) > floor
    assert expit(entropic_tilt_log_odds(base, gap, leash / factor)) < floor


def test_threshold_where_nothing_or_everything_retains() -> None:
    assert entropic_retention_threshold(0.0, 1.0, 0.6) == np.inf
    assert entropic_retention_threshold(0.0, 0.0, 0.4) == 0.0


@given(base=st.floats(-2.0, 2.0), gap=st.floats(0.05, 4.0), drop=st.floats(0.1, 5.0))
def test_unleashed_time_is_that_of_the_flow(base: float, gap: float, drop: float) -> None:
    t = float(entropic_unleashed_time(base, base - drop, gap))

    def velocity(_: float, y: np.ndarray) -> np.ndarray:
        return -expit(y) * expit(-y) * entropic_shift(y, gap)

    flow = solve_ivp(velocity, (0.0, t), [base], rtol=1e-9, atol=1e-11, method="LSODA")
    assert flow.y[0, -1] == pytest.approx(base - drop, abs=1e-5)


def test_unleashed_mass_ends_like_one_over_t() -> None:
    t = float(entropic_unleashed_time(0.0, -14.0, 1.0))
    assert expit(-14.0) * t * (1.0 - np.exp(-1.0)) == pytest.approx(1.0, rel=1e-3)


# --- the quadratures behind the overlap ----------------------------------------------------------------------------------


NODES, WEIGHTS = np.polynomial.legendre.leggauss(10)


def panels(low: float, high: float, count: int = 800) -> tuple[np.ndarray, np.ndarray]:
    """Composite Gauss-Legendre: another rule than the trapezoid of the package."""
    half = 0.5 * (high - low) / count
    middle = low + half * (2.0 * np.arange(count)[:, None] + 1.0)
    return (middle + half * NODES).ravel(), np.tile(half * WEIGHTS, count)


@given(loc=st.floats(-30.0, 30.0), scale=st.floats(0.0, 8.0), gain=st.floats(-15.0, 15.0))
def test_log_entropic_mean_against_another_rule(loc: float, scale: float, gain: float) -> None:
    value, slope = log_entropic_mean(loc, scale, gain)
    u, w = panels(-16.0, 16.0)
    sigma = expit(loc + scale * u)
    weight = w * norm.pdf(u) * np.exp(gain * sigma)
    assert value == pytest.approx(np.log(weight.sum()), abs=1e-12 * (1.0 + abs(gain)))
    moment = gain * (weight * sigma * (1.0 - sigma)).sum() / weight.sum()
    assert slope == pytest.approx(moment, rel=1e-10, abs=1e-13)


@pytest.mark.parametrize(("loc", "scale", "gain"), [(-1.0, 3.0, 5.0), (2.0, 0.7, -8.0), (-480.0, 40.0, 100.0)])
def test_log_entropic_mean_against_mpmath(loc: float, scale: float, gain: float) -> None:
    # the last one lives beyond 12 standard deviations
    with mpmath.workdps(25):
        points = [-20, -4, 0, 4, 10, *(12 + 0.05 * k for k in range(-8, 9)), 14, 25]
        mean = mpmath.quad(
            lambda u: mpmath.npdf(u) * mpmath.exp(gain / (1 + mpmath.exp(-(loc + scale * u)))), points, maxdegree=8
        )
        assert float(log_entropic_mean(loc, scale, gain)[0]) == pytest.approx(float(mpmath.log(mean)), rel=1e-11)


def optimum_by_gauss(base: float, gap: float, leash: float, delta: float) -> tuple[float, float, float]:
    """``(Z', M, shift)`` by damped iteration with another quadrature and the direct first moment."""
    y, w = panels(-9.0, delta + 9.0)
    share = expit(delta * (y - 0.5 * delta) - base)
    base_density = w * (expit(base) * norm.pdf(y) + expit(-base) * norm.pdf(y - delta))
    z = float(np.exp(gap * expit(-base)))
    for _ in range(400):
        tilted = np.exp((np.exp(gap * share) - 1.0) / (leash * z))
        mean = (base_density * tilted * np.exp(gap * share)).sum() / (base_density * tilted).sum()
        z = float(np.sqrt(z * mean))
    old = w * norm.pdf(y) * tilted
    mass = (base_density * tilted * (1.0 - share)).sum() / (base_density * tilted).sum()
    return z, float(mass), float((old * y).sum() / old.sum())


@pytest.mark.parametrize(
    ("base", "gap", "leash", "delta"), [(0.3, 1.0, 1.0, 3.0), (-1.0, 2.0, 0.8, 5.0), (1.5, 3.0, 2.0, 4.0)]
)
def test_function_space_optimum_against_another_quadrature(base: float, gap: float, leash: float, delta: float) -> None:
    found = entropic_optimum(base, gap, leash, delta)
    z, mass, shift = optimum_by_gauss(base, gap, leash, delta)
    assert np.exp(found.log_mean) == pytest.approx(z, rel=1e-9)
    assert found.old_mass == pytest.approx(mass, rel=1e-9)
    assert found.old_shift == pytest.approx(shift, rel=1e-6)


def test_function_space_optimum_beats_every_other_tilt() -> None:
    base, gap, leash, delta = 0.4, 1.5, 0.7, 3.0
    grid = tilt_grid(np.array([base]), np.array([delta]), 30.0)
    log_base = grid.log_base(np.array([base]))[0]
    share = grid.new_share[0]

    def value(tilt: np.ndarray) -> float:
        log_p = log_base + tilt
        log_p = log_p - np.log(np.exp(log_p).sum())
        p = np.exp(log_p)
        return float(np.log((p * np.exp(gap * share)).sum()) - leash * (p * (log_p - log_base)).sum())

    z = float(np.exp(entropic_optimum(base, gap, leash, delta).log_mean))
    best = value(np.exp(gap * share) / (leash * z))
    rng = np.random.default_rng(0)
    for _ in range(30):
        other = np.exp(gap * share) / (leash * z) + 0.1 * rng.standard_normal() * np.sin(
            rng.uniform(0, 3) * share * 6.0
        )
        assert value(other) <= best + 1e-13
    assert value(gap * share) < best - 1e-4  # the plain tilt
    assert value(gap * share / leash) < best - 1e-4


@given(base=st.floats(-2.0, 2.0), gap=st.floats(0.1, 3.0), leash=st.floats(0.5, 5.0), delta=st.floats(1.0, 9.0))
def test_overlap_bounds_hold(base: float, gap: float, leash: float, delta: float) -> None:
    found = entropic_optimum(base, gap, leash, delta)
    odds = float(np.exp(logit(found.old_mass)))
    low, high = entropic_overlap_bounds(base, gap, leash, delta)
    assert low * (1.0 - 1e-10) <= odds <= high * (1.0 + 1e-10)
    assert entropic_mean_lower_bound(base, gap, delta) <= found.log_mean * (1.0 + 1e-12)
    assert 0.0 < found.old_shift <= entropic_drift_bound(base, gap, leash, delta)


def test_overlap_bounds_close_on_the_two_outcome_bracket() -> None:
    low, high = entropic_bracket(0.5, 1.2, 0.8)
    low_odds, high_odds = entropic_overlap_bounds(0.5, 1.2, 0.8, 12.0)
    assert np.log(low_odds) == pytest.approx(low, abs=1e-6)
    assert np.log(high_odds) == pytest.approx(high, abs=1e-6)


def test_function_space_mass_tends_to_the_two_outcome_one() -> None:
    delta = np.array([3.0, 4.0, 6.0, 8.0])
    two_point = expit(entropic_tilt_log_odds(0.0, 1.5, 0.8))
    error = np.abs(entropic_optimum(0.0, 1.5, 0.8, delta).old_mass - two_point)
    assert (np.diff(error) < 0.0).all()
    assert (error < 0.6 * bhattacharyya_coefficient(delta)).all()


def test_drift_is_gated_only_while_the_tilt_is_moderate() -> None:
    # 9.3: with a leash so weak that the tilt passes delta^2 / 8, the old component is dragged along even at delta = 6
    gap = 3.0
    z_least = np.exp(gap * 0.5)
    for nats, gated in ((1.0, True), (40.0, False)):
        leash = np.expm1(gap) / (z_least * nats)
        shift = entropic_optimum(0.0, gap, leash, 6.0).old_shift
        assert (shift < 0.1) == gated


# --- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: entropic_tilt_log_odds(np.nan, 1.0, 1.0), "base_log_odds must be finite"),
        (lambda: entropic_tilt_log_odds(0.0, np.inf, 1.0), "scaled_gap must be finite"),
        (lambda: entropic_tilt_log_odds(0.0, 1.0, -1.0), "kl_weight must be nonnegative"),
        (lambda: entropic_shift(np.inf, 1.0), "log_odds must be finite"),
        (lambda: entropic_bracket(0.0, 1.0, 0.0), "kl_weight must be positive"),
        (lambda: entropic_bracket(0.0, np.nan, 1.0), "scaled_gap must be finite"),
        (lambda: entropic_bracket(np.nan, 1.0, 1.0), "base_log_odds must be finite"),
        (lambda: entropic_retention_threshold(0.0, -1.0, 0.1), "scaled_gap must be nonnegative"),
        (lambda: entropic_retention_threshold(0.0, 1.0, 1.0), "min_mass must lie strictly"),
        (lambda: entropic_retention_threshold(np.inf, 1.0, 0.1), "base_log_odds must be finite"),
        (lambda: entropic_unleashed_time(0.0, -1.0, 0.0), "scaled_gap must be positive"),
        (lambda: entropic_unleashed_time(np.nan, -1.0, 1.0), "s0 must be finite"),
        (lambda: entropic_unleashed_time(0.0, np.inf, 1.0), "s1 must be finite"),
        (lambda: entropic_optimum(0.0, 60.0, 1.0, 4.0), r"scaled_gap must lie in \[0, 50\]"),
        (lambda: entropic_optimum(0.0, 20.0, 1e-3, 4.0), "raise kl_weight or lower scaled_gap"),
        (lambda: entropic_optimum(0.0, 1.0, 1.0, 0.0), "delta positive"),
        (lambda: entropic_drift_bound(0.0, -1.0, 1.0, 4.0), "scaled_gap must be nonnegative"),
        (lambda: entropic_drift_bound(0.0, 1.0, 0.0, 4.0), "kl_weight must be positive"),
        (lambda: entropic_drift_bound(0.0, 1.0, 1.0, 65.0), "delta must lie"),
        (lambda: entropic_overlap_bounds(0.0, -1.0, 1.0, 4.0), "scaled_gap must be nonnegative"),
        (lambda: log_entropic_mean(np.nan, 1.0, 1.0), "loc must be finite"),
        (lambda: log_entropic_mean(0.0, -1.0, 1.0), "scale must lie"),
        (lambda: log_entropic_mean(0.0, 1.0, 501.0), "gain must lie"),
        (lambda: tilt_grid(np.zeros((2, 2)), np.ones((2, 2)), 1.0), "share one axis"),
        (lambda: tilt_grid(np.array([np.inf]), np.ones(1), 1.0), "base_log_odds must be finite"),
        (lambda: tilt_grid(np.zeros(1), np.ones(1), -1.0), "span must lie"),
    ],
)
def test_bad_input_is_one_clear_line(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        call()  # type: ignore[operator]
    assert "\n" not in str(error.value)
