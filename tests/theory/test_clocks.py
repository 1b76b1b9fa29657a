"""Quadrature of the clocks: intervals of many lengths, with parameters of their own, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fstsim.theory.clocks import integrate

Array = NDArray[np.float64]


def test_intervals_of_all_lengths_with_their_own_parameters() -> None:
    low, length, rate = (
        np.array([[-3.0], [0.5]]),
        np.array([0.0, 1e-6, 1.9, 2.1, -5.0, 31.0]),
        np.array([[0.3], [-0.2]]),
    )
    sizes = []

    def f(x: Array, rate: Array) -> Array:
        sizes.append(x.shape[0])
        return np.asarray(np.exp(rate * x))

    value = integrate(f, low, low + length, rate)
    exact = np.exp(rate * low) * np.expm1(rate * length) / rate
    np.testing.assert_allclose(value, exact, rtol=1e-9)  # of a length 1e-6, known to a rounding of the limits
    np.testing.assert_allclose(value[:, 2:], exact[:, 2:], rtol=1e-13)
    assert sum(sizes) == 2 * (1 + 1 + 1 + 2 + 3 + 16)  # an evaluation a panel, and no pair waits for the longest


def test_without_parameters_the_shape_is_that_of_the_limits() -> None:
    assert integrate(np.cos, 0.0, np.pi / 2.0).shape == ()
    assert float(integrate(np.cos, 0.0, np.pi / 2.0)) == pytest.approx(1.0, abs=1e-14)
