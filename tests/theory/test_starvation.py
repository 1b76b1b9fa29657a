"""Recovery from a rare old mode: where its bounds speak, and which inputs they take."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit

from fstsim import InputError
from fstsim.theory.starvation import recovery_time_bounds


def test_known_cases() -> None:
    """A target next to 1, by mpmath: the terms of the flow time are 1e10 times larger than it."""
    lower, upper = recovery_time_bounds(0.01, 0.4, 1.0 - 1e-8, 0.1, 2)
    assert float(lower) == pytest.approx(48.578173480302866, rel=1e-12)
    assert float(upper - lower) == pytest.approx(1.0 / (2.0 * 0.01 * 0.99), rel=1e-9)
    assert float(recovery_time_bounds(0.01, 0.4, 1.0 - 1e-12, 0.1, 2)[0]) == pytest.approx(34.2, abs=0.05)


@pytest.mark.parametrize("level", [0.1, 0.3, 0.45])
def test_the_target_must_be_one_over_one_minus_two_levels_above_the_level(level: float) -> None:
    least = logit(level) + 1.0 / (1.0 - 2.0 * level)
    for shift, speaks in ((1e-6, True), (-1e-6, False)):
        lower, upper = recovery_time_bounds(0.01, level, expit(least + shift), 0.1, 2)
        assert np.isfinite(lower) == np.isfinite(upper) == speaks


@pytest.mark.parametrize(("batch", "bounded"), [(2, True), (3, True), (4, False), (100, False)])
def test_only_batches_of_two_and_three_have_an_upper_bound(batch: int, bounded: bool) -> None:
    lower, upper = recovery_time_bounds(0.01, 0.2, 0.9, 0.1, batch)
    assert np.isfinite(lower)
    assert np.isfinite(upper) == bounded
    if bounded:
        assert float(upper - lower) == pytest.approx(1.0 / (batch * 0.01 * 0.99), rel=1e-9)


def test_the_largest_rate_is_one() -> None:
    assert np.isfinite(recovery_time_bounds(0.01, 0.2, 0.9, 1.0, 2)).all()
    for rate in (0.0, -0.1, 1.0 + 1e-12, np.nan):
        with pytest.raises(InputError, match=r"lr must lie in \(0, 1\]"):
            recovery_time_bounds(0.01, 0.2, 0.9, rate, 2)


@pytest.mark.parametrize(
    "masses", [(0.0, 0.2, 0.9), (0.2, 0.2, 0.9), (0.3, 0.2, 0.9), (0.1, 0.9, 0.9), (0.1, 0.95, 0.9), (0.1, 0.2, 1.0)]
)
def test_masses_are_in_order(masses: tuple[float, float, float]) -> None:
    with pytest.raises(InputError, match="0 < beta0 < beta1 < alpha < 1"):
        recovery_time_bounds(*masses, 0.1, 2)


@pytest.mark.parametrize("batch", [1, 2.5, np.inf])
def test_a_batch_is_two_or_more(batch: float) -> None:
    with pytest.raises(InputError, match="batch_size must be a whole number of at least 2"):
        recovery_time_bounds(0.1, 0.2, 0.9, 0.1, batch)
