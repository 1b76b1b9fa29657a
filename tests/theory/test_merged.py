"""Merged states: the exact flow against what it can do at most, and the entropy of a split against the estimation of it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp
from scipy.special import expit, logit

from fstsim import InputError
from fstsim.logistic_normal import logistic_normal_slope
from fstsim.theory import merged_escape_time, merged_saddle_growth, merged_state
from fstsim.theory.merged import merged_escape_least, merged_frozen_reach, merged_growth_bound, merged_pull
from fstsim.theory.reverse_kl import reverse_kl_gradient

ALPHA, DELTA = 0.5, 5.0


def flow(beta: float, old: float, new: float, time: float, trained: bool) -> tuple[np.ndarray, np.ndarray]:
    """Weight ``(steps,)`` and ``(u_o, u_n) (steps, 2)`` of the exact flow, with the weight trained or frozen."""
    middle = merged_state(ALPHA, DELTA)

    def slope(_: float, y: np.ndarray) -> np.ndarray:
        g_s, g_o, g_n = reverse_kl_gradient(
            np.array([y[0]]),
            np.array([[y[1]]]),
            np.array([[y[2]]]),
            logit(ALPHA),
            np.zeros((1, 1)),
            np.full((1, 1), DELTA),
        )
        return -np.array([g_s[0] if trained else 0.0, g_o[0, 0], g_n[0, 0]])

    start = [logit(beta), middle + old, middle + new]
    found = solve_ivp(slope, (0.0, time), start, rtol=1e-7, atol=1e-9, t_eval=np.linspace(0.0, time, 40))
    return expit(found.y[0]), found.y[1:].T - middle


def test_pull_is_the_greatest_in_its_range() -> None:
    middle = merged_state(ALPHA, DELTA)
    for radius in (0.0, 0.7, 2.0, 4.0):
        at = np.linspace(middle - radius, middle + radius, 801)
        loc = logit(ALPHA) + 0.5 * DELTA**2 - DELTA * at
        most = float((DELTA**2 * logistic_normal_slope(loc, DELTA)).max())
        assert float(merged_pull(ALPHA, DELTA, radius)) == pytest.approx(most, rel=1e-5)
    many = merged_pull(np.array([ALPHA, 0.3]), np.array([DELTA, 7.0]), np.array([0.7, 1.0]))
    assert many == pytest.approx([float(merged_pull(ALPHA, DELTA, 0.7)), float(merged_pull(0.3, 7.0, 1.0))], rel=1e-12)
    assert float(merged_pull(ALPHA, DELTA, 0.0)) == pytest.approx(float(merged_saddle_growth(0.5, ALPHA, DELTA)) * 2.0)


@pytest.mark.parametrize("distance", [0.3, 1.5, 4.0])
def test_entropy_of_a_split_grows_less_than_its_variance_pulls_back(distance: float) -> None:
    """What the bound takes from information theory, by quadrature: the mean squared error, and the derivative of the entropy."""
    beta = 0.3
    w = beta * (1.0 - beta)

    def entropy(d: float) -> float:
        def integrand(x: float) -> float:
            q = beta * np.exp(-0.5 * x * x) + (1.0 - beta) * np.exp(-0.5 * (x - d) ** 2)
            return float(-q * np.log(q / np.sqrt(2 * np.pi)) / np.sqrt(2 * np.pi))

        return quad(integrand, -9.0, 9.0 + d, limit=200, epsabs=1e-12)[0]

    slope = (entropy(distance + 1e-4) - entropy(distance - 1e-4)) / 2e-4
    split = w * distance**2
    assert 0.0 < slope * distance <= split / (1.0 + split) + 1e-6


def test_a_frozen_weight_never_leaves() -> None:
    delta, start = 9.0, 0.008
    reach = float(merged_frozen_reach(0.4, start, ALPHA, delta, 0.5))
    assert reach < 0.5
    middle = merged_state(ALPHA, delta)

    def slope(_: float, y: np.ndarray) -> np.ndarray:
        _, g_o, g_n = reverse_kl_gradient(
            np.array([logit(0.4)]),
            np.array([[y[0]]]),
            np.array([[y[1]]]),
            0.0,
            np.zeros((1, 1)),
            np.full((1, 1), delta),
        )
        return -np.array([g_o[0, 0], g_n[0, 0]])

    time = 20.0 / float(merged_saddle_growth(0.4, ALPHA, delta))
    found = solve_ivp(
        slope, (0.0, time), [middle - 0.6 * start, middle + 0.4 * start], rtol=1e-8, atol=1e-12, method="LSODA"
    )
    distance = np.linalg.norm(found.y - middle, axis=0)
    assert distance.max() <= reach
    assert distance[-1] > 2.0 * distance[0]
    # it stalls: at its first rate it would be e^20 times as far
    late = distance[np.searchsorted(found.t, 0.8 * time)]
    assert distance[-1] == pytest.approx(late, rel=0.02)


def test_the_flow_grows_by_no_more_than_the_bound_and_takes_at_least_the_time() -> None:
    weight, at = flow(0.5, -0.05, 0.04, 60.0, trained=True)
    distance = np.linalg.norm(at, axis=1)
    pull = merged_pull(ALPHA, DELTA, np.abs(at).max(axis=1))
    step = 60.0 / 39
    grown = np.gradient(0.5 * distance**2, step)[1:-1]
    bound = merged_growth_bound(weight, at[:, 0], at[:, 1], pull)[1:-1]
    assert (grown <= bound + 2e-2 * np.abs(bound) + 1e-5).all()
    first = int(np.argmax(distance > 0.3))
    assert distance[first] > 0.3
    assert first * step >= float(merged_escape_least(distance[0], 0.3, ALPHA, DELTA))


def test_the_proved_time_lies_below_the_leading_order() -> None:
    for delta in (6.0, 8.0, 10.0):
        least = float(merged_escape_least(0.01, 0.5, ALPHA, delta))
        assert least < 0.3 * float(merged_escape_time(0.5, ALPHA, delta))


@pytest.mark.parametrize(
    "call",
    [
        lambda: merged_pull(0.5, 8.0, -1.0),
        lambda: merged_growth_bound(1.0, 0.1, 0.1, 0.1),
        lambda: merged_escape_least(0.5, 0.1, 0.5, 8.0),
        lambda: merged_frozen_reach(0.5, 0.0, 0.5, 8.0, 1.0),
    ],
)
def test_bad_input(call: object) -> None:
    with pytest.raises(InputError):
        call()  # type: ignore[operator]
