"""Runge-Kutta flows: order 4 against closed forms and against scipy, each flow with its own duration."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.special import expit

from fstsim.theory.numerics.flows import flow_end, flow_to_rest, runge_kutta, student_teacher_flow

Array = NDArray[np.float64]


def _turn(x: Array, v: Array) -> tuple[Array, Array]:
    return v, -x


@pytest.mark.parametrize("steps", [8, 16])
def test_the_error_of_a_rotation_is_of_fourth_order(steps: int) -> None:
    duration = np.array([0.0, 0.7, 2.0])
    start = (np.ones(3), np.zeros(3))

    def error(n: int) -> Array:
        x, v = flow_end(_turn, start, duration, n)
        return np.hypot(x - np.cos(duration), v + np.sin(duration))

    coarse, fine = error(steps), error(2 * steps)
    assert coarse[0] == 0.0
    assert coarse[1:] / fine[1:] == pytest.approx(16.0, rel=0.15)


def test_parts_of_several_shapes_move_by_each_flow_s_own_duration() -> None:
    duration = np.array([0.5, 2.0])
    numbers, vectors = np.array([1.0, -2.0]), np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    s, m = flow_end(lambda s, m: (-s, -0.5 * m), (numbers, vectors), duration, 40)
    np.testing.assert_allclose(s, numbers * np.exp(-duration), rtol=1e-6)
    np.testing.assert_allclose(m, vectors * np.exp(-0.5 * duration)[:, None], rtol=1e-6)


def test_every_step_of_a_gradient_flow_is_on_its_path() -> None:
    duration = np.array([1.0, 3.0])
    start = (np.array([1.0, 2.0]), np.ones((2, 2)), np.zeros((2, 2)))
    states = list(runge_kutta(lambda s, a, b: (s, a - b, b - a), start, duration, 30))
    assert len(states) == 30
    for k, (s, a, b) in enumerate(states, start=1):
        t = duration * k / 30
        np.testing.assert_allclose(s, start[0] * np.exp(-t), rtol=1e-5)
        np.testing.assert_allclose(a + b, 1.0, rtol=1e-14)
        np.testing.assert_allclose(a - b, np.repeat(np.exp(-2.0 * t)[:, None], 2, axis=1), rtol=1e-4)


def test_student_and_teacher_are_those_of_lsoda() -> None:
    rate, duration = 0.3, 4.0

    def velocity(_: float, y: Array) -> list[float]:
        return [-float(expit(y[0]) * expit(-y[0])) * (y[0] - y[1] + 1.0), rate * (y[0] - y[1])]

    exact = solve_ivp(velocity, (0.0, duration), [1.0, 0.5], method="LSODA", rtol=1e-11, atol=1e-12).y[:, -1]
    s, sbar = student_teacher_flow(
        lambda s, sbar: s - sbar + 1.0, np.ones(1), np.full(1, 0.5), np.full(1, rate), np.full(1, duration), 60
    )
    assert [s[0], sbar[0]] == pytest.approx(list(exact), rel=1e-7)


def test_a_flow_at_rest_is_followed_no_further_and_ends_at_the_same_digits() -> None:
    rate, target = np.array([0.9, 0.5, 0.11, 0.03, 0.0001]), np.array([1.0, -2.0, 3.0, 0.5, -1.0])
    rows = []

    def velocity(x: Array, rate: Array, target: Array) -> tuple[Array]:
        rows.append(x.size)
        return (rate * (target - x),)

    (whole,) = flow_end(lambda x: velocity(x, rate, target), (np.zeros(5),), 1000.0, 1000)
    rows.clear()
    (rested,) = flow_to_rest(velocity, (np.zeros(5),), (rate, target), 1000.0, 1000)
    np.testing.assert_array_equal(rested, whole)
    np.testing.assert_allclose(rested[:3], target[:3], rtol=1e-14)  # at rest
    assert rows[0] == 5
    assert rows[-1] < 3  # the slow ones alone
