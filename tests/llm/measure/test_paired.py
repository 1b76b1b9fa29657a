"""Flips against scipy's table of McNemar's test by hand, pass@k against counting, ratios against the delta method by resampling."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest

from fstsim.llm.measure.paired import fan, flips, pass_at, pass_fan, ratio_se


def test_flips_are_counted_and_tested_exactly() -> None:
    before = np.array([True] * 6 + [False] * 4)
    after = np.array([True] + [False] * 5 + [True] + [False] * 3)
    found = flips(before, after)
    assert (found["lost"], found["gained"]) == (5, 1)
    assert found["flip_p"] == pytest.approx(2 * (comb(6, 0) + comb(6, 1)) / 2**6)


def test_nothing_flipped_says_nothing() -> None:
    same = np.array([True, False])
    assert flips(same, same) == {"lost": 0, "gained": 0, "flip_p": 1.0}


@pytest.mark.parametrize("right", range(7))
@pytest.mark.parametrize("k", [1, 2, 4, 6])
def test_pass_at_is_the_share_of_subsets_with_a_right_one(right: int, k: int) -> None:
    solved = [True] * right + [False] * (6 - right)
    share = np.mean([any(subset) for subset in combinations(solved, k)])
    assert pass_at(np.array([float(right)]), 6, k)[0] == pytest.approx(share)


def test_the_fan_ends_at_the_samples() -> None:
    assert fan(1) == (1,)
    assert fan(6) == (1, 2, 4)
    assert fan(8) == (1, 2, 4, 8)
    assert pass_fan(np.array([[True, False], [False, False]])) == {
        "1": {"mean": 0.25, "se": 0.25},
        "2": {"mean": 0.5, "se": 0.5},
    }


def test_error_of_a_ratio_is_that_of_resampling() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 9, 400).astype(float)
    amounts = lengths * rng.exponential(0.3, 400)
    ratio, error = ratio_se(amounts, lengths)
    drawn = rng.integers(0, 400, (4000, 400))
    resampled = amounts[drawn].sum(1) / lengths[drawn].sum(1)
    assert ratio == amounts.sum() / lengths.sum()
    assert error == pytest.approx(resampled.std(), rel=0.05)
