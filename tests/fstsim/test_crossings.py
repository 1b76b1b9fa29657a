"""First crossings: exact on straight lines of the scale, and equal to the first root of scipy's linear spline."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import PPoly, make_interp_spline
from scipy.special import expit

from fstsim.crossings import first_crossing


def test_the_first_crossing_is_the_first_root_of_the_line_through_the_points() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        x, y = np.cumsum(rng.uniform(0.1, 1.0, 12)), rng.normal(0.0, 1.0, 12)
        level = float(rng.uniform(y[0], y.max()))
        above = PPoly.from_spline(make_interp_spline(x, y - level, k=1))
        assert first_crossing(x, y, level) == pytest.approx(float(above.roots(extrapolate=False)[0]), rel=1e-10)


def test_in_log_odds_a_logistic_curve_is_a_straight_line() -> None:
    x = np.array([0.0, 2.0, 4.0])
    y = expit(np.array([-2.0, -1.0, 1.0]))
    assert first_crossing(x, y, float(expit(-1.5)), "log-odds") == pytest.approx(1.0)
    assert first_crossing(x, y, 0.5, "log-odds") == pytest.approx(3.0)
    assert first_crossing(x, y, 0.5) != pytest.approx(2.9)


def test_in_log_odds_certainty_is_a_finite_place() -> None:
    assert 0.0 < first_crossing([0.0, 1.0], [0.0, 1.0], 0.5, "log-odds") < 1.0


@pytest.mark.parametrize("scale", ["linear", "log-odds"])
def test_curves_that_start_above_or_never_reach(scale: str) -> None:
    x, y = [1.0, 2.0, 3.0], [0.2, 0.1, 0.4]
    assert first_crossing(x, y, 0.15, scale) == 1.0  # type: ignore[arg-type]  # a parameter of the test
    assert np.isnan(first_crossing(x, y, 0.5, scale))  # type: ignore[arg-type]
    assert first_crossing(x, y, 0.5, scale, never=np.inf) == np.inf  # type: ignore[arg-type]
    assert np.isnan(first_crossing([], [], 0.5, scale))  # type: ignore[arg-type]
