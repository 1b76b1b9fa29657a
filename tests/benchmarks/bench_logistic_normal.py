"""How fast the logistic-normal functions are: 10,000 points a call, so 100 calls/s are a million points/s."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fstsim.logistic_normal import expected_softplus, logistic_normal_mean, responsibility_moments

POINTS = 10_000


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0, 16.0])
@pytest.mark.parametrize("function", [logistic_normal_mean, responsibility_moments, expected_softplus])
def test_points_per_second(
    benchmark: Any, function: Callable[..., Any], scale: float, rng: np.random.Generator
) -> None:
    loc = rng.uniform(-(scale**2), scale**2, POINTS)
    benchmark(function, loc, np.full(POINTS, scale))
