"""OAPL (theory 10): tilts, refreshes, the slope within a period, overlap, and rewards that vary inside a mode."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import expit, logit
from scipy.stats import norm

from fstsim import InputError
from fstsim.theory.oapl import (
    oapl_gradient_bounds,
    oapl_log_odds,
    oapl_loss_gradient,
    oapl_old_mass,
    oapl_overlap,
    oapl_overlap_bounds,
    oapl_retention_refreshes,
    sloped_reward_shift,
)

masses = st.floats(0.01, 0.99)
log_odds = st.floats(-5.0, 5.0)
gaps = st.floats(-2.0, 2.0)
temperatures = st.floats(0.2, 3.0)


def loss(s: mpmath.mpf, lag: float, tau: float, r_old: float, r_new: float) -> mpmath.mpf:
    def sigma(x: mpmath.mpf) -> mpmath.mpf:
        return 1 / (1 + mpmath.exp(-x))

    b_l = sigma(mpmath.mpf(lag))
    value = tau * mpmath.log(b_l * mpmath.exp(r_old / tau) + (1 - b_l) * mpmath.exp(r_new / tau))
    old = tau * mpmath.log(sigma(s) / b_l) - r_old + value
    new = tau * mpmath.log(sigma(-s) / (1 - b_l)) - r_new + value
    return b_l * old**2 + (1 - b_l) * new**2


@given(s=log_odds, lag=log_odds, tau=temperatures, r_old=gaps, r_new=gaps)
def test_gradient_against_mpmath(s: float, lag: float, tau: float, r_old: float, r_new: float) -> None:
    with mpmath.workdps(40):
        exact = mpmath.diff(lambda x: loss(x, lag, mpmath.mpf(tau), r_old, r_new), s)
        at_tilt = loss(lag - (mpmath.mpf(r_new) - r_old) / tau, lag, mpmath.mpf(tau), r_old, r_new)
    size = 1.0 + abs(s) + abs(lag) + abs(r_new - r_old) / tau
    assert float(oapl_loss_gradient(s, lag, tau, r_old, r_new)) == pytest.approx(
        float(exact), rel=1e-9, abs=1e-13 * size * tau**2
    )
    assert abs(at_tilt) < 1e-30  # zero loss at the tilt


@given(s=log_odds, lag=log_odds, tau=temperatures, gap=gaps)
def test_gradient_has_the_sign_of_the_distance_and_is_bracketed(s: float, lag: float, tau: float, gap: float) -> None:
    away = s - (lag - gap / tau)
    assume(abs(away) > 1e-3)
    slope = float(oapl_loss_gradient(s, lag, tau, 0.0, gap))
    low, high = oapl_gradient_bounds(s, lag, tau, 0.0, gap)
    assert slope * away > 0.0
    assert 0.0 < low * (1.0 - 1e-9) <= slope / away <= high * (1.0 + 1e-9)


@given(lag=st.floats(-3.0, 3.0), tau=temperatures, gap=gaps)
def test_bounds_meet_in_the_curvature(lag: float, tau: float, gap: float) -> None:
    goal = lag - gap / tau
    low, high = oapl_gradient_bounds(goal, lag, tau, 0.0, gap)
    b, b_l = expit(goal), expit(lag)
    curvature = 2.0 * tau**2 * (b_l * (1.0 - b) ** 2 + (1.0 - b_l) * b**2)
    assert low == pytest.approx(high, rel=1e-9)
    assert low == pytest.approx(curvature, rel=1e-9)


@given(beta0=masses, gap=gaps, tau=temperatures, first=st.integers(0, 20), second=st.integers(0, 20))
def test_refreshes_compose(beta0: float, gap: float, tau: float, first: int, second: int) -> None:
    start = logit(beta0)
    halfway = oapl_log_odds(start, gap, tau, first)
    assert oapl_log_odds(halfway, gap, tau, second) == pytest.approx(oapl_log_odds(start, gap, tau, first + second))
    quoted = beta0 / (beta0 + (1.0 - beta0) * np.exp(first * gap / tau))
    assert oapl_old_mass(beta0, gap, tau, first) == pytest.approx(quoted, rel=1e-9)


@given(beta0=masses, gap=gaps, tau=temperatures, anchor=st.floats(0.0, 0.99), k=st.integers(0, 60))
def test_anchored_refreshes_are_the_iterated_map(beta0: float, gap: float, tau: float, anchor: float, k: int) -> None:
    base = s = float(logit(beta0))
    for _ in range(k):
        s = anchor * s + (1.0 - anchor) * base - gap / tau
    assert oapl_log_odds(base, gap, tau, k, anchor) == pytest.approx(s, rel=1e-9, abs=1e-9)
    limit = base - gap / (tau * (1.0 - anchor))
    assert oapl_log_odds(base, gap, tau, np.inf, anchor) == pytest.approx(limit, rel=1e-9, abs=1e-9)


def test_without_an_anchor_or_a_gap() -> None:
    # delicate point 7: no interior fixed point unless the gap vanishes
    assert oapl_old_mass(0.7, 0.1, 1.0, np.inf) == 0.0
    assert oapl_old_mass(0.7, -0.1, 1.0, np.inf) == 1.0
    assert oapl_old_mass(0.7, 0.0, 1.0, np.inf) == pytest.approx(0.7)
    # an anchor close to 1 tends to none
    assert oapl_log_odds(0.5, 1.0, 1.0, 10, 1.0 - 1e-12) == pytest.approx(oapl_log_odds(0.5, 1.0, 1.0, 10), rel=1e-9)


@given(beta0=masses, gap=st.floats(0.01, 2.0), tau=temperatures, drop=st.floats(0.01, 4.0), anchor=st.floats(0.0, 1.0))
def test_retention_refreshes_invert_the_mass(beta0: float, gap: float, tau: float, drop: float, anchor: float) -> None:
    floor = float(expit(logit(beta0) - drop))
    k = float(oapl_retention_refreshes(beta0, gap, tau, floor, anchor))
    if np.isinf(k):
        assert oapl_old_mass(beta0, gap, tau, np.inf, anchor) >= floor * (1.0 - 1e-9)
    elif 1e-6 < anchor < 1.0 - 1e-6 or anchor == 1.0:
        assert oapl_old_mass(beta0, gap, tau, k, anchor) == pytest.approx(floor, rel=1e-6)


def test_retention_refreshes_at_the_edges() -> None:
    assert oapl_retention_refreshes(0.5, -1.0, 1.0, 0.4) == np.inf
    assert np.isnan(oapl_retention_refreshes(0.3, 1.0, 1.0, 0.4))
    assert oapl_retention_refreshes(0.5, 1.0, 1.0, 0.5) == 0.0
    assert oapl_retention_refreshes(0.5, 1.0, 1.0, float(expit(-3.0))) == pytest.approx(3.0)


# --- overlap and drift -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("base", "tilt", "delta"), [(0.3, 2.0, 3.0), (-1.0, 4.0, 5.0), (1.0, 0.5, 8.0)])
def test_overlap_against_adaptive_quadrature(base: float, tilt: float, delta: float) -> None:
    def share(y: float) -> float:
        return float(expit(delta * (y - 0.5 * delta) - base))

    def integral(f: object) -> float:
        points = [0.0, 0.5 * delta, delta]
        return quad(f, -9.0, delta + 9.0, points=points, limit=300, epsabs=1e-14, epsrel=1e-10)[0]  # type: ignore[call-overload]

    def density(y: float) -> float:
        p = expit(base) * norm.pdf(y) + expit(-base) * norm.pdf(y - delta)
        return float(p * np.exp(tilt * share(y)))

    def old(y: float) -> float:
        return float(norm.pdf(y) * np.exp(tilt * share(y)))

    mass, shift = oapl_overlap(base, tilt, delta)
    assert mass == pytest.approx(integral(lambda y: density(y) * (1.0 - share(y))) / integral(density), rel=1e-9)
    assert shift == pytest.approx(integral(lambda y: old(y) * y) / integral(old), rel=1e-6, abs=1e-11)


@given(base=st.floats(-3.0, 3.0), tilt=st.floats(0.0, 6.0), delta=st.floats(1.0, 10.0))
def test_sandwich_and_drift_bound(base: float, tilt: float, delta: float) -> None:
    mass, shift = oapl_overlap(base, tilt, delta)
    low, high, most = oapl_overlap_bounds(base, tilt, delta)
    assert low * (1.0 - 1e-12) <= mass <= high * (1.0 + 1e-12)
    assert 0.0 <= shift <= most * (1.0 + 1e-12)


@given(base=st.floats(-2.0, 2.0), tilt=st.floats(0.0, 4.0), slope=st.floats(-1.0, 1.5), delta=st.floats(1.0, 9.0))
def test_sloped_reward_moves_the_old_mode_at_any_separation(
    base: float, tilt: float, slope: float, delta: float
) -> None:
    shift, most = sloped_reward_shift(base, tilt, slope, delta)
    assert slope <= shift <= most + 1e-12 * (1.0 + abs(slope))
    flat, _ = sloped_reward_shift(base, tilt, 0.0, delta)
    assert flat == pytest.approx(float(oapl_overlap(base, tilt, delta)[1]), rel=1e-9, abs=1e-14)


def test_slope_breaks_the_gating_by_overlap() -> None:
    # delicate point 11: flat rewards drift like exp(-delta^2/8), sloped ones do not drift less than the slope
    delta = np.array([4.0, 6.0, 8.0, 10.0, 12.0])
    flat, sloped = (sloped_reward_shift(0.0, 1.0, slope, delta)[0] for slope in (0.0, 0.3))
    assert (flat[1:] / flat[:-1] < 0.2).all()
    assert (sloped >= 0.3).all()
    assert sloped[-1] == pytest.approx(0.3, abs=1e-4)


def test_sloped_shift_against_adaptive_quadrature() -> None:
    base, tilt, slope, delta = 0.4, 1.5, 0.6, 3.0

    def weight(y: float) -> float:
        return float(norm.pdf(y) * np.exp(tilt * expit(delta * (y - 0.5 * delta) - base) + slope * y))

    exact = quad(lambda y: y * weight(y), -9.0, 12.0, epsrel=1e-12)[0] / quad(weight, -9.0, 12.0, epsrel=1e-12)[0]
    assert sloped_reward_shift(base, tilt, slope, delta)[0] == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: oapl_old_mass(0.0, 1.0, 1.0, 3), "beta0 must lie strictly"),
        (lambda: oapl_old_mass(0.5, 1.0, 0.0, 3), "tau must be positive"),
        (lambda: oapl_old_mass(0.5, 1.0, 1.0, -1), "refreshes must be nonnegative"),
        (lambda: oapl_old_mass(0.5, 1.0, 1.0, 3, 1.5), "anchor must lie"),
        (lambda: oapl_old_mass(0.5, np.nan, 1.0, 3), "gap must be finite"),
        (lambda: oapl_retention_refreshes(0.5, 1.0, -1.0, 0.1), "tau must be positive"),
        (lambda: oapl_retention_refreshes(0.5, 1.0, 1.0, 0.0), "min_mass must lie strictly"),
        (lambda: oapl_retention_refreshes(0.5, 1.0, 1.0, 0.1, -0.5), "anchor must lie"),
        (lambda: oapl_loss_gradient(np.inf, 0.0, 1.0, 0.0, 1.0), "log_odds must be finite"),
        (lambda: oapl_loss_gradient(0.0, 0.0, -1.0, 0.0, 1.0), "tau must be positive"),
        (lambda: oapl_loss_gradient(0.0, 0.0, 1.0, np.nan, 1.0), "r_old must be finite"),
        (lambda: oapl_gradient_bounds(0.0, np.nan, 1.0, 0.0, 1.0), "lag_log_odds must be finite"),
        (lambda: oapl_overlap(0.0, -1.0, 4.0), "tilt must lie"),
        (lambda: oapl_overlap(np.nan, 1.0, 4.0), "base_log_odds must be finite"),
        (lambda: oapl_overlap(0.0, 1.0, 0.0), "delta positive"),
        (lambda: oapl_overlap_bounds(0.0, 501.0, 4.0), "tilt must lie"),
        (lambda: oapl_overlap_bounds(0.0, 1.0, -4.0), "delta must lie"),
        (lambda: oapl_overlap_bounds(np.inf, 1.0, 4.0), "base_log_odds must be finite"),
        (lambda: sloped_reward_shift(0.0, 1.0, np.nan, 4.0), "slope must be finite"),
        (lambda: sloped_reward_shift(0.0, -1.0, 0.1, 4.0), "tilt must lie"),
        (lambda: sloped_reward_shift(0.0, 1.0, 0.1, 65.0), "delta must lie"),
    ],
)
def test_bad_input_is_one_clear_line(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        call()  # type: ignore[operator]
    assert "\n" not in str(error.value)
