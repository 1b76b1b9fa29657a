"""Whitened coordinates: Euclidean distances in them are Mahalanobis distances, and gradients obey the chain rule."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis

from fstsim import InputError, TwoModeProblem, TwoModeState
from fstsim.whitened import Whitened, unwhiten_gradient, whiten

COVARIANCE = np.array([[2.0, 0.6], [0.6, 0.5]])
PROBLEM = TwoModeProblem(0.5, [0.0, 0.0], [3.0, 1.0], COVARIANCE)
STATE = TwoModeState(0.3, [0.1, -0.4], [2.5, 1.5])


def test_distances_are_those_of_mahalanobis() -> None:
    q = whiten(PROBLEM, STATE)
    exact = mahalanobis(STATE.mean_old, STATE.mean_new, np.linalg.inv(COVARIANCE))
    assert float(np.linalg.norm(q.old - q.new)) == pytest.approx(exact, rel=1e-13)
    assert float(q.log_odds) == 0.3


def test_a_gradient_is_that_of_the_composed_function() -> None:
    slopes = Whitened(np.array(1.5), np.array([1.0, -2.0]), np.array([0.5, 3.0]))

    def value(state: TwoModeState) -> float:
        q = whiten(PROBLEM, state)
        return float(sum((slope * part).sum() for slope, part in zip(slopes, q, strict=True)))

    g = unwhiten_gradient(PROBLEM, slopes)
    for k, step in enumerate(np.eye(2)):
        moved = TwoModeState(STATE.log_odds, STATE.mean_old + step, STATE.mean_new)
        assert value(moved) - value(STATE) == pytest.approx(float(g.mean_old[k]), rel=1e-12)
        moved = TwoModeState(STATE.log_odds, STATE.mean_old, STATE.mean_new + step)
        assert value(moved) - value(STATE) == pytest.approx(float(g.mean_new[k]), rel=1e-12)
    assert float(g.log_odds) == 1.5


def test_another_dimension_is_refused() -> None:
    with pytest.raises(InputError, match="state has dimension 1, the problem 2"):
        whiten(PROBLEM, TwoModeState(0.0, [0.0], [1.0]))
