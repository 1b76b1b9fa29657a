"""Slopes of power laws, and a measurement of one real point."""

from __future__ import annotations

import pytest

from fstsim.paper.pages.growth import slopes
from fstsim.paper.records.growth import AXES, measure


def test_slopes_are_exponents() -> None:
    assert slopes([1.0, 2.0, 8.0], [3.0, 12.0, 12.0]) == pytest.approx([2.0, 0.0])


def test_names_are_not_given_twice_and_values_grow() -> None:
    assert len({axis.name for axis in AXES}) == len(AXES)
    for axis in AXES:
        assert list(axis.values) == sorted(set(axis.values))


@pytest.mark.parametrize("axis", range(3))
def test_the_smallest_point_of_the_mixture_takes_time(axis: int) -> None:
    seconds, megabytes = measure(axis, AXES[axis].values[0])
    assert 0.0 < seconds < 5.0
    assert megabytes >= 0.0
