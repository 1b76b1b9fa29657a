"""SDFT (theory 8): conservation law, lag, fixed points, horizons, and quoted numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.special import expit, logit

from fstsim import InputError
from fstsim.theory.clocks import learning_clock
from fstsim.theory.sdft import (
    probability_mixing_tilt,
    sdft_fixed_point,
    sdft_is_retaining,
    sdft_local_rate,
    sdft_path_drift,
    sdft_response_bracket,
    sdft_retention_horizon,
    sdft_retention_time_bounds,
    sdft_time,
)

log_odds = st.floats(-2.5, 3.0)
tilts = st.floats(0.05, 3.0)
rates = st.floats(0.01, 3.0)


def flow(
    s0: float, tilt: float, ema_rate: float, times: np.ndarray, anchor: float = 1.0, base: float = 0.0
) -> np.ndarray:
    """``(2, T)``: student and teacher of the separated flow, solved to 1e-10."""

    def velocity(_: float, y: np.ndarray) -> list[float]:
        goal = anchor * y[1] + (1.0 - anchor) * base - tilt
        return [-expit(y[0]) * expit(-y[0]) * (y[0] - goal), ema_rate * (y[0] - y[1])]

    solution = solve_ivp(velocity, (0.0, times[-1]), [s0, s0], method="LSODA", t_eval=times, rtol=1e-10, atol=1e-12)
    assert solution.success
    return np.asarray(solution.y)


@given(s0=log_odds, tilt=tilts, ema_rate=rates)
def test_conservation_law_and_lag(s0: float, tilt: float, ema_rate: float) -> None:
    times = np.geomspace(0.1, 300.0, 12)
    s, sbar = flow(s0, tilt, ema_rate, times)
    np.testing.assert_allclose(sdft_time(s0, s, sbar, tilt, ema_rate), times, rtol=1e-6)
    assert (sbar - s >= -1e-9).all()
    assert (sbar - s <= tilt + 1e-9).all()
    assert (sbar >= s0 - ema_rate * tilt * times - 1e-9).all()


@given(s0=log_odds, tilt=tilts, ema_rate=rates, drop=st.floats(0.05, 4.0))
def test_horizon_is_certain_and_the_bracket_holds(s0: float, tilt: float, ema_rate: float, drop: float) -> None:
    floor = float(expit(s0 - drop))
    low, high = sdft_retention_time_bounds(s0, tilt, ema_rate, floor)
    times = np.array([low, high])
    horizon = sdft_retention_horizon(s0, tilt, ema_rate, floor)
    assert 0.0 <= horizon <= low <= high
    assert high - low <= 1.0 / ema_rate + 1e-9 * high
    mass = expit(flow(s0, tilt, ema_rate, times)[0])
    assert mass[0] >= floor * (1.0 - 1e-7)
    assert mass[1] <= floor * (1.0 + 1e-7)


@pytest.mark.parametrize("ema_rate", [1e-3, 0.1, 10.0])
def test_old_mass_ends_like_one_over_ht(ema_rate: float) -> None:
    # the teacher's share of the series resistance, log(t) / (rho h), is 1.4 % of t for the slowest
    mass = expit(flow(0.0, 1.0, ema_rate, np.array([1e6]))[0, 0])
    assert mass * 1e6 == pytest.approx(1.0, rel=0.03)


def test_frozen_teacher_is_the_anchor_zero() -> None:
    assert sdft_fixed_point(0.7, 0.4, 0.0) == pytest.approx(0.3)
    s, sbar = flow(0.7, 0.4, 0.0, np.array([500.0]))
    assert s[0] == pytest.approx(0.3, abs=1e-8)
    assert sbar[0] == 0.7
    assert sdft_retention_horizon(0.7, 0.4, 0.0, 0.5) == np.inf
    assert sdft_retention_horizon(0.7, 0.8, 0.0, 0.5) == 0.0


def test_no_anchor_means_no_interior_fixed_point() -> None:
    # delicate point 7
    assert sdft_fixed_point([1.0, 1.0, 1.0], [0.1, 0.0, -0.1], 1.0).tolist() == [-np.inf, 1.0, np.inf]
    assert not sdft_is_retaining(5.0, 1e-9, 1.0, 1e-6)
    assert sdft_is_retaining(0.0, 0.0, 1.0, 0.5)


@given(base=log_odds, tilt=tilts, anchor=st.floats(0.0, 0.8), min_mass=st.floats(0.01, 0.99))
def test_retention_condition(base: float, tilt: float, anchor: float, min_mass: float) -> None:
    room = (1.0 - anchor) * (base - logit(min_mass))
    if abs(tilt - room) > 1e-9:
        assert sdft_is_retaining(base, tilt, anchor, min_mass) == (tilt <= room)


@given(base=st.floats(-1.0, 2.0), tilt=st.floats(0.05, 1.5), anchor=st.floats(0.0, 0.8), ema_rate=st.floats(0.1, 2.0))
def test_anchored_flow_falls_monotonically_to_its_fixed_point(
    base: float, tilt: float, anchor: float, ema_rate: float
) -> None:
    fixed = float(sdft_fixed_point(base, tilt * (1.0 - anchor), anchor))
    rate = float(sdft_local_rate(fixed, ema_rate, anchor)[0])
    s, sbar = flow(base, tilt * (1.0 - anchor), ema_rate, np.linspace(0.0, 30.0 / rate, 60), anchor, base)
    assert (np.diff(s) <= 1e-8).all()
    assert (np.diff(sbar) <= 1e-8).all()
    assert s[-1] == pytest.approx(fixed, abs=1e-6)
    assert (s >= fixed - 1e-8).all()


@given(fixed=st.floats(-5.0, 5.0), ema_rate=rates, anchor=st.floats(0.0, 0.95))
def test_local_rate_is_the_slow_eigenvalue(fixed: float, ema_rate: float, anchor: float) -> None:
    c = expit(fixed) * expit(-fixed)
    slow = -np.linalg.eigvals(np.array([[-c, anchor * c], [ema_rate, -ema_rate]])).real.max()
    rate, low, high = sdft_local_rate(fixed, ema_rate, anchor)
    assert rate == pytest.approx(slow, rel=1e-8)
    assert low <= rate * (1.0 + 1e-12)
    assert rate <= high * (1.0 + 1e-12)


@given(mass=st.floats(1e-6, 0.999), gamma=st.floats(0.0, 0.99))
def test_probability_mixing_is_this_tilt(mass: float, gamma: float) -> None:
    tilt = float(probability_mixing_tilt(mass, gamma))
    assert logit(mass) - tilt == pytest.approx(logit((1.0 - gamma) * mass), abs=1e-9)
    assert tilt >= np.log(1.0 / (1.0 - gamma)) - 1e-12


def test_probability_mixing_loses_the_mass_and_not_by_the_tempting_law() -> None:
    gamma, rho = 0.3, 0.2

    def mass_at(t: float) -> float:
        def velocity(_: float, y: np.ndarray) -> list[float]:
            tilt = float(probability_mixing_tilt(expit(y[1]), gamma))
            return [-expit(y[0]) * expit(-y[0]) * (y[0] - y[1] + tilt), rho * (y[0] - y[1])]

        flow = solve_ivp(velocity, (0.0, t), [0.0, 0.0], method="LSODA", rtol=1e-9, atol=1e-11)
        return float(expit(flow.y[0, -1]))

    late = mass_at(1e5) * np.log(1.0 / (1.0 - gamma)) * 1e5
    assert 1.0 < late < 1.2
    tempting = 0.5 * (1.0 - gamma) ** (rho * 60.0)
    assert mass_at(60.0) > 3.0 * tempting


@given(beta0=st.floats(0.2, 0.9), share=st.floats(0.01, 1.0), delta=st.floats(2.0, 10.0))
def test_path_drift_is_the_quoted_formula_and_additive(beta0: float, share: float, delta: float) -> None:
    beta1 = beta0 * share
    odds = [1.0 / b - 1.0 for b in (beta0, beta1)]
    g = [np.sqrt(o) - 1.0 / np.sqrt(o) for o in odds]
    quoted = 2.0 * np.sqrt(np.pi / 8.0) * np.exp(0.5 - delta**2 / 8.0) * (g[1] - g[0])
    assert sdft_path_drift(beta0, beta1, 1.0, delta) == pytest.approx(quoted, rel=1e-9, abs=1e-15)
    middle = 0.5 * (beta0 + beta1)
    parts = sdft_path_drift(beta0, middle, 1.0, delta) + sdft_path_drift(middle, beta1, 1.0, delta)
    assert parts == pytest.approx(sdft_path_drift(beta0, beta1, 1.0, delta), rel=1e-9, abs=1e-15)


def test_series_resistance_is_two_clocks() -> None:
    # s moves as if the teacher were free, the teacher as if the student were: the times add
    t = sdft_time(1.0, -2.0, -1.5, 0.5, 0.1)
    assert t == pytest.approx((learning_clock(1.0) - learning_clock(-2.0)) / 0.5 + 2.5 / 0.05)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sdft_fixed_point(np.nan, 0.5, 0.5), "base_log_odds must be finite"),
        (lambda: sdft_fixed_point(0.0, 0.5, 1.5), r"anchor must lie in \[0, 1\]"),
        (lambda: sdft_fixed_point(0.0, np.inf, 0.5), "tilt must be finite"),
        (lambda: sdft_is_retaining(0.0, 0.5, 0.5, 1.0), "min_mass must lie strictly between 0 and 1"),
        (lambda: sdft_is_retaining(0.0, 0.5, -0.1, 0.3), "anchor must lie"),
        (lambda: sdft_is_retaining(np.inf, 0.5, 0.1, 0.3), "base_log_odds must be finite"),
        (lambda: sdft_time(0.0, -1.0, -0.5, 0.0, 0.1), "tilt must be positive"),
        (lambda: sdft_time(0.0, -1.0, -0.5, 0.5, -0.1), "ema_rate must be positive"),
        (lambda: sdft_time(0.0, np.nan, -0.5, 0.5, 0.1), "s must be finite"),
        (lambda: sdft_retention_horizon(0.0, 0.5, -1.0, 0.1), "ema_rate must be nonnegative"),
        (lambda: sdft_retention_horizon(0.0, -0.5, 1.0, 0.1), "tilt must be positive"),
        (lambda: sdft_retention_horizon(0.0, 0.5, 1.0, 0.0), "min_mass"),
        (lambda: sdft_retention_time_bounds(0.0, 0.5, 1.0, 0.6), "min_mass must be below"),
        (lambda: sdft_retention_time_bounds(0.0, 0.5, 0.0, 0.1), "ema_rate must be positive"),
        (lambda: sdft_retention_time_bounds(0.0, 0.0, 1.0, 0.1), "tilt must be positive"),
        (lambda: sdft_local_rate(0.0, 0.0, 0.5), "ema_rate must be positive"),
        (lambda: sdft_local_rate(np.nan, 1.0, 0.5), "fixed_log_odds must be finite"),
        (lambda: sdft_local_rate(0.0, 1.0, 2.0), "anchor"),
        (lambda: probability_mixing_tilt(0.5, 1.0), r"mixing must lie in \[0, 1\)"),
        (lambda: probability_mixing_tilt(0.0, 0.5), "teacher_mass"),
        (lambda: probability_mixing_tilt(np.nan, 0.5), "teacher_mass"),
        (lambda: sdft_path_drift(0.2, 0.3, 0.5, 4.0), "the path runs downward"),
        (lambda: sdft_path_drift(0.2, 0.1, 0.5, -4.0), "delta must lie"),
        (lambda: sdft_path_drift(0.2, 0.0, 0.5, 4.0), "beta1"),
    ],
)
def test_bad_input_is_one_clear_line(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        call()  # type: ignore[operator]
    assert "\n" not in str(error.value)


@given(
    base=st.floats(-1.0, 2.0),
    tilt=st.just(0.0) | st.floats(1e-6, 1.5),  # LSODA does not solve for tilts of 1e-297
    anchor=st.floats(0.0, 0.6),
    slope=st.floats(0.0, 1.0),
    ema_rate=st.floats(0.2, 1.0),
)
def test_a_linear_response_is_the_anchored_teacher_of_a_smaller_share(
    base: float, tilt: float, anchor: float, slope: float, ema_rate: float
) -> None:
    """Both ends of the bracket meet where theory's own anchored flow ends, with a K for a; solved by LSODA."""
    low, high = sdft_response_bracket(base, tilt, anchor, slope, slope)
    assert float(low) == pytest.approx(float(high))
    end = flow(base, tilt, ema_rate, np.array([40_000.0]), anchor * slope, base)[0, -1]  # e-folds of at least 300
    assert end == pytest.approx(float(low), abs=1e-6)


def test_the_ends_of_the_bracket() -> None:
    level, tilted = 1.0 - 0.4 * 3.0, float(sdft_fixed_point(1.0, 1.2, 0.4))
    low, high = sdft_response_bracket(1.0, 1.2, 0.4, 0.0, 1.0)
    assert (float(low), float(high)) == pytest.approx((tilted, level))
    with pytest.raises(InputError, match="least must not exceed most"):
        sdft_response_bracket(0.0, 1.0, 0.5, 0.6, 0.5)
    with pytest.raises(InputError, match="anchor must be below 1"):
        sdft_response_bracket(0.0, 1.0, 1.0, 0.0, 1.0)
    with pytest.raises(InputError, match="tilt"):
        sdft_response_bracket(0.0, -1.0, 0.5, 0.0, 1.0)
