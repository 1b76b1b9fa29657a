"""Stall after drift: against enumeration, simulation of groups, and the size of drift at which it sets in."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from fstsim import InputError
from fstsim.theory.stall import stall_bounds, stall_probability


@given(p=st.floats(1e-6, 0.5), group=st.integers(2, 8), groups=st.integers(1, 40))
def test_against_enumeration_of_successes(p: float, group: int, groups: int) -> None:
    signal = sum(comb(group, k) * p**k * (1.0 - p) ** (group - k) for k in range(1, group))
    assert float(stall_probability(p, group, groups)) == pytest.approx((1.0 - signal) ** groups, rel=1e-9)
    low, high = stall_bounds(p, group, groups)
    assert low - 1e-12 <= (1.0 - signal) ** groups <= high + 1e-12


def test_against_simulated_stages() -> None:
    """20,000 stages of 12 groups of 4: within four standard errors."""
    rng, p, group, groups, n = np.random.default_rng(0), 0.02, 4, 12, 20_000
    successes = rng.binomial(group, p, (n, groups))
    stalled = ((successes == 0) | (successes == group)).all(1)
    expected = float(stall_probability(p, group, groups))
    assert stalled.mean() == pytest.approx(expected, abs=4.0 * np.sqrt(expected * (1.0 - expected) / n))


@pytest.mark.parametrize("chance", [0.5, 0.05])
def test_the_drift_at_which_it_sets_in(chance: float) -> None:
    """At S = log(N G / eps) a stage stalls with at least 1 - eps, one nat below with less than 1 - 2 eps."""
    total = 48 * 32 * 8
    drift = np.log(total / chance)
    assert float(stall_probability(expit(-drift), 8, 48 * 32)) >= 1.0 - chance
    assert float(stall_probability(expit(1.0 - drift), 8, 48 * 32)) < 1.0 - min(2.0 * chance, 0.7)


def test_certain_outcomes_always_stall() -> None:
    assert stall_probability([0.0, 1.0], 4, 10).tolist() == [1.0, 1.0]
    with pytest.raises(InputError, match="groups"):
        stall_probability(0.5, 4, 0)
