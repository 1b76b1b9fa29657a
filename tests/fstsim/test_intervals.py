"""Student intervals: the one of scipy, the closed form for two values, and how often the mean is inside."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fstsim.intervals import LEVEL, student_interval


@pytest.mark.parametrize("count", [2, 3, 7])
def test_the_interval_is_that_of_scipy(count: int) -> None:
    values = np.random.default_rng(count).normal(3.0, 2.0, (count, 4))
    mean, low, high = student_interval(values)
    wanted = stats.ttest_1samp(values, 0.0).confidence_interval(LEVEL)
    np.testing.assert_allclose(mean, values.sum(axis=0) / count, rtol=1e-14)
    np.testing.assert_allclose(low, wanted.low, rtol=1e-12)
    np.testing.assert_allclose(high, wanted.high, rtol=1e-12)


def test_with_two_values_student_is_cauchy() -> None:
    mean, low, high = map(float, student_interval([1.0, 2.0]))
    assert (mean, low + high) == (1.5, pytest.approx(3.0))
    assert high - mean == pytest.approx(0.5 * np.tan(0.5 * np.pi * LEVEL), rel=1e-10)  # older scipy: 2e-11


def test_the_mean_is_inside_as_often_as_promised() -> None:
    values = np.random.default_rng(5).normal(1.0, 0.5, (3, 20_000))
    _, low, high = student_interval(values)
    inside = int(((low <= 1.0) & (high >= 1.0)).sum())
    assert stats.binomtest(inside, values.shape[1], LEVEL).pvalue > 1e-3


@pytest.mark.parametrize("values", [[1.0], [1.0, np.nan], [1.0, np.nan, 2.0]])
def test_too_little_has_no_interval(values: list[float]) -> None:
    assert np.isnan(student_interval(values)[1:]).all()
