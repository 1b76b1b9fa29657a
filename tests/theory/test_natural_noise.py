"""Noise of the natural gradient: against samples, mpmath, and runs of the recursion itself."""

from __future__ import annotations

from collections.abc import Callable

import mpmath
import numpy as np
import pytest
from scipy.special import expit, logit

from fstsim import InputError
from fstsim.overlap import overlap_gap
from fstsim.theory.natural_noise import (
    natural_estimate_bounds,
    natural_estimate_variance,
    natural_floor,
    natural_odds_growth,
    weight_information,
)


def estimates(s: np.ndarray, share: float, delta: float, batch: int, rng: np.random.Generator) -> np.ndarray:
    """One estimate for each log-odds ``s``, from ``batch`` samples of data with a share of old ones."""
    old = rng.random((s.size, batch)) < share
    x = rng.standard_normal((s.size, batch)) + np.where(old, 0.0, delta)
    r = expit(s[:, None] + delta * (0.5 * delta - x))
    return expit(s) + (r.mean(1) - expit(s)) / overlap_gap(s, delta)


@pytest.mark.parametrize(
    ("s", "share", "delta"), [(-1.0, 0.3, 2.0), (0.5, 0.05, 1.0), (-3.0, 0.0, 1.2), (2.0, 0.6, 0.7)]
)
def test_estimate_is_unbiased_and_varies_as_said(s: float, share: float, delta: float) -> None:
    found = estimates(np.full(60_000, s), share, delta, 4, np.random.default_rng(0))
    variance = float(natural_estimate_variance(s, share, delta)) / 4
    assert found.mean() == pytest.approx(share, abs=4.5 * np.sqrt(variance / 6e4))
    assert found.var() == pytest.approx(variance, rel=0.03)
    assert 4 * variance >= 1.0 / float(weight_information(share, delta))


def test_the_bound_of_cramer_and_rao_is_reached_where_the_weight_is_the_share() -> None:
    for share, delta in ((0.2, 1.5), (0.01, 0.3), (0.7, 4.0)):
        lower, upper = natural_estimate_bounds(logit(share), share, delta)
        found = float(natural_estimate_variance(logit(share), share, delta))
        assert found == pytest.approx(float(lower), rel=1e-9)
        assert found <= float(upper)


def test_variance_against_mpmath() -> None:
    s, share, delta = mpmath.mpf(-6), mpmath.mpf("1e-4"), mpmath.mpf("2.5")
    r = lambda x: 1 / (1 + mpmath.exp(-(s + delta * (delta / 2 - x))))  # noqa: E731
    p = lambda x: share * mpmath.npdf(x) + (1 - share) * mpmath.npdf(x, delta)  # noqa: E731
    points = [-12, -6, -3, 0, 3, 6, 15]
    mean = mpmath.quad(lambda x: p(x) * r(x), points)
    variance = mpmath.quad(lambda x: p(x) * (r(x) - mean) ** 2, points)
    beta = 1 / (1 + mpmath.exp(-s))
    gap = 1 - mpmath.quad(lambda x: mpmath.npdf(x, delta) * r(x), points) / beta
    assert float(natural_estimate_variance(-6.0, 1e-4, 2.5)) == pytest.approx(float(variance / gap**2), rel=1e-9)


def test_expected_odds_of_a_step_against_samples() -> None:
    s, delta, lr, batch = -4.0, 1.0, 0.02, 64
    rng = np.random.default_rng(1)
    step = lr * (estimates(np.full(100_000, s), 0.0, delta, batch, rng) - expit(s)) / (expit(s) * expit(-s))
    assert step.mean() == pytest.approx(-lr * expit(s) / (expit(s) * expit(-s)), abs=4.5 * step.std() / np.sqrt(1e5))
    grown = np.exp(step)
    exact = np.exp(batch * float(natural_odds_growth(s, delta, lr, batch)))
    assert grown.mean() == pytest.approx(exact, abs=4.5 * grown.std() / np.sqrt(1e5))


def test_expected_odds_stop_falling_at_the_floor() -> None:
    delta, lr, batch = 1.0, 0.02, 256
    floor = float(natural_floor(lr, batch, 0.0, delta))
    growth = natural_odds_growth(logit(floor * np.array([0.5, 0.9, 1.1, 3.0])), delta, lr, batch)
    assert (growth[:2] > 0.0).all()
    assert (growth[2:] < 0.0).all()


def test_the_mass_itself_settles_at_the_floor_with_replay() -> None:
    share, delta, lr, batch = 0.2, 1.5, 0.1, 32
    rng = np.random.default_rng(2)
    mass = np.full(4000, 0.5)
    for _ in range(100):
        mass = mass + lr * (estimates(logit(np.clip(mass, 1e-9, 1 - 1e-9)), share, delta, batch, rng) - mass)
    floor = float(natural_floor(lr, batch, share, delta))
    assert mass.mean() == pytest.approx(share, abs=5.0 * floor / np.sqrt(4000))
    assert floor * 0.96 < mass.std() < floor * 1.15


BAD: list[Callable[[], object]] = [
    lambda: weight_information(1.0, 1.0),
    lambda: natural_estimate_variance(0.0, 0.1, 0.0),
    lambda: natural_floor(2.0, 8, 0.1, 1.0),
    lambda: natural_odds_growth(0.0, 1.0, -0.1, 8),
]


@pytest.mark.parametrize("call", BAD)
def test_bad_input(call: Callable[[], object]) -> None:
    with pytest.raises(InputError):
        call()
