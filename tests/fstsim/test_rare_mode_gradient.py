"""The weight gradient keeps its relative accuracy where the old mode is rare: there its two terms agree to many digits.

The flows in the Fisher-Rao and the probability geometry divide it by ``beta^2``, so an absolute accuracy is not enough.
"""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

from fstsim import ForwardKL, GradientFlow, TwoModeProblem, simulate
from fstsim.divergences import forward_kl_gradient

CASES = [
    (-40.0, 1.5, [1.0], [1.5]),
    (-25.0, 0.3, [1.0], [0.3]),
    (-55.0, 4.0, [1.0], [4.0 + 1e-9]),
    (-30.0, 3.0, [1.0], [2.9]),
    (45.0, 2.0, [1.0], [1e-8]),
    (38.0, 2.5, [1.0], [0.0]),
    (-35.0, 2.0, [1e-15, 1.0 - 1e-15], [0.0, 2.0]),
]


def reference(s: float, mean_new: float, weights: list[float], centers: list[float]) -> float:
    with mpmath.workdps(70):
        x, m = mpmath.mpf(s), mpmath.mpf(mean_new)
        total = 1 / (1 + mpmath.exp(-x))
        for weight, center in zip(weights, centers, strict=True):
            a = x - m * (mpmath.mpf(center) - m / 2)
            points = sorted({-30, -15, -8, -4, 0, 4, 8, 15, 30} | {float(np.clip(a / m, -29, 29))})
            mean = mpmath.quad(lambda u, a=a: mpmath.npdf(u) / (1 + mpmath.exp(m * u - a)), points, maxdegree=9)
            total -= mpmath.mpf(weight) * mean
        return float(total)


@pytest.mark.parametrize(("s", "mean_new", "weights", "centers"), CASES)
def test_weight_gradient_of_a_rare_mode(s: float, mean_new: float, weights: list[float], centers: list[float]) -> None:
    computed = forward_kl_gradient(s, [0.0], [mean_new], weights, np.array(centers)[:, None])[0]
    assert computed == pytest.approx(reference(s, mean_new, weights, centers), rel=1e-11)


def test_a_batch_is_its_entries() -> None:
    s = np.array([[-40.0, 0.3, 2.0], [38.0, -25.0, -1.0]])
    centers = np.array([[0.0], [2.0]])
    together = forward_kl_gradient(s, [0.0], [2.0], [0.0, 1.0], centers)[0]
    alone = [[float(forward_kl_gradient(x, [0.0], [2.0], [0.0, 1.0], centers)[0]) for x in row] for row in s]
    np.testing.assert_allclose(together, alone, rtol=1e-14)


def test_fisher_flow_stays_exponential_where_the_mass_is_tiny() -> None:
    problem = TwoModeProblem.separated(1.0)
    flow = GradientFlow(step_time=10.0, geometry="fisher", train="weight")
    run = simulate(problem, ForwardKL(problem), problem.initial(0.5), flow, steps=10)
    np.testing.assert_allclose(run.old_mass, 0.5 * np.exp(-run.time), rtol=1e-6)
