"""First arrivals: closed forms of a decay and of the logistic flow, scipy's events, and what does not arrive."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.special import expit

from fstsim.theory.clocks import learning_clock_between
from fstsim.theory.numerics import arrivals
from fstsim.theory.numerics.arrivals import Rows, first_arrivals

Array = NDArray[np.float64]


def test_flows_of_any_speed_arrive_at_the_time_of_the_closed_form() -> None:
    rate, level = np.array([1e-6, 1e-2, 1.0, 40.0, 1e5]), np.array([0.9, 0.5, 1e-3, 0.2, 1e-6])
    # atol far below the lowest level, where the time is read off
    time, state = first_arrivals(
        lambda y, rows: -rate[rows, None] * y, np.ones((5, 1)), lambda y, rows: level[rows] - y[:, 0], atol=1e-18
    )
    np.testing.assert_allclose(time, np.log(1.0 / level) / rate, rtol=1e-9)
    np.testing.assert_allclose(state[:, 0], level, rtol=1e-9)


def test_a_policy_gradient_takes_the_time_of_the_learning_clock() -> None:
    start, end = np.array([-6.0, -1.0, 0.0]), np.array([2.0, 5.0, 0.5])
    time, _ = first_arrivals(
        lambda y, _: expit(y) * expit(-y), start[:, None], lambda y, rows: y[:, 0] - end[rows], rtol=1e-11
    )
    np.testing.assert_allclose(time, learning_clock_between(start, end), rtol=1e-10)


def test_two_variables_arrive_where_scipy_says() -> None:
    pull = np.array([0.3, 1.0, 2.5])

    def velocity(y: Array, rows: Rows) -> Array:
        return np.stack([y[:, 1], -pull[rows] * np.sin(y[:, 0])], axis=-1)

    time, state = first_arrivals(velocity, np.tile([0.0, 0.4], (3, 1)), lambda y, _: -y[:, 1])  # the turn of a pendulum
    for k, a in enumerate(pull):

        def turned(_: float, y: Array) -> float:
            return float(y[1])

        turned.terminal = True  # type: ignore[attr-defined]
        found = solve_ivp(
            lambda _, y, a=a: [y[1], -a * np.sin(y[0])], (0.0, 10.0), [0.0, 0.4], events=turned, rtol=1e-12, atol=1e-13
        )
        assert time[k] == pytest.approx(found.t_events[0][0], rel=1e-9)
        assert state[k, 0] == pytest.approx(found.y_events[0][0][0], rel=1e-9)


def test_whoever_starts_there_stays_and_whoever_does_not_arrive_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    still = first_arrivals(lambda y, _: np.ones_like(y), np.full((2, 1), 3.0), lambda y, _: y[:, 0] - 1.0)
    assert still.time.tolist() == [0.0, 0.0]
    assert still.state.tolist() == [[3.0], [3.0]]
    monkeypatch.setattr(arrivals, "_MOST_STEPS", 100)  # of 10,000, which take a second
    with pytest.raises(RuntimeError, match="1 flows did not arrive within 100 steps"):
        first_arrivals(lambda y, _: -y, np.ones((1, 1)), lambda y, _: -1.0 - y[:, 0])
