"""Rank correlation and quadratic against scipy and least squares; intervals over runs against their law."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from fstsim.association import over_groups, partial_spearman, quadratic_r2, spearman


def test_rank_correlation_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 9, size=(2, 200)).astype(float)
    assert spearman(x, x + y) == pytest.approx(spearmanr(x, x + y).statistic, rel=1e-12)
    assert np.isnan(spearman(np.ones(9), np.arange(9)))


def test_partial_rank_correlation_is_that_of_what_ranks_do_not_explain() -> None:
    rng = np.random.default_rng(1)
    z = rng.standard_normal(60)
    x, y = z + rng.standard_normal(60), z**3 + rng.standard_normal(60)
    a, b, c = (rankdata(v) for v in (x, y, z))
    left = [v - np.polyval(np.polyfit(c, v, 1), c) for v in (a, b)]
    assert partial_spearman(np.stack([x, z], 1), y) == pytest.approx(np.corrcoef(*left)[0, 1], abs=1e-12)
    assert abs(partial_spearman(np.stack([x, z], 1), y)) < spearman(x, y)
    assert np.isnan(partial_spearman(np.stack([z, z], 1), y))


def test_r2_is_that_of_a_quadratic() -> None:
    x = np.linspace(0.0, 2.0, 50)
    assert quadratic_r2(x, 1.0 + 2.0 * x - 3.0 * x**2) == pytest.approx(1.0)
    noise = np.random.default_rng(1).normal(size=20_000)
    # three coefficients explain 2 / n of pure noise on average
    assert quadratic_r2(np.random.default_rng(2).normal(size=20_000), noise) < 2e-3
    # far from zero the plain powers have no digits left
    assert quadratic_r2(1e6 + x, np.sin(3.0 * x)) == pytest.approx(quadratic_r2(x, np.sin(3.0 * x)), rel=1e-6)
    assert np.isnan(quadratic_r2([0.0, 1.0, 1.0], [1.0, 2.0, 3.0]))
    assert np.isnan(quadratic_r2(x, np.ones(50)))


def test_intervals_take_whole_runs() -> None:
    """Points of a run that are copies of each other say no more than one of them."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(60)
    y = x + rng.standard_normal(60)
    alone = over_groups(spearman, x, y, range(60))
    copied = over_groups(spearman, np.repeat(x, 5), np.repeat(y, 5), np.repeat(np.arange(60), 5).tolist())
    assert alone.low < alone.mean < alone.high
    assert copied.high - copied.low == pytest.approx(alone.high - alone.low, rel=0.15)
    assert np.isnan(over_groups(spearman, [1.0, 1.0], [0.0, 1.0], [0, 1]).low)
