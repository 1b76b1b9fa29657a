"""The log of the mean probability of old answers, also where none of them is a number of its own."""

from __future__ import annotations

import math
import warnings

import mpmath
import numpy as np
import pytest

from fstsim.llm.forecast.reading import OLD, Reading


def reading(old: dict[str, list[float]]) -> Reading:
    none = np.zeros(0)
    return Reading(none, none, {name: np.array(values) for name, values in old.items()}, {}, none, none)


@pytest.mark.parametrize("logs", [[-1.0, -2.0, -50.0], [-800.0, -801.0], [-3e4, -1e5], [0.0], [-745.2, -2.0]])
def test_the_log_of_the_old_mass_is_that_of_mpmath(logs: list[float]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = reading({OLD: logs}).log_old_mass
    assert found == pytest.approx(
        float(mpmath.log(mpmath.fsum(mpmath.exp(x) for x in logs) / len(logs))), rel=1e-14, abs=0
    )


def test_without_old_answers_there_is_none() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isnan(reading({}).log_old_mass)
        assert math.isnan(reading({OLD: []}).log_old_mass)
