"""The numbers that the tables of experiments are made of, against constructed curves."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t as student

from fstsim.paper.experiments.numbers import (
    Curves,
    estimate,
    kl_at_reward,
    kl_reduction,
    speed_up,
)

SAMPLES = np.linspace(0.0, 1000.0, 21)


def curves(rewards: np.ndarray, kl: np.ndarray | None = None) -> Curves:
    samples = np.tile(SAMPLES, (len(rewards), 1))
    return Curves("run", samples, {"reward": rewards, "kl_to_base": rewards if kl is None else kl})


def test_estimate_is_students_interval() -> None:
    x = [1.0, 2.0, 4.0]
    e = estimate(x)
    low, high = student.interval(0.95, 2, np.mean(x), np.std(x, ddof=1) / np.sqrt(3))
    assert (e.value, e.low, e.high) == pytest.approx((np.mean(x), low, high))
    assert str(estimate([0.5])) == "0.5"
    assert str(estimate([0.5, np.inf])) == "-"


def test_a_run_three_times_as_fast_is_three_times_as_fast() -> None:
    # rising to the end, so that interpolation between measurements is exact
    slow = np.outer([1.0, 1.1, 0.9], SAMPLES / 1200.0)
    fast = 3.0 * slow
    ratio = speed_up(curves(slow), curves(fast))["ratio"]
    assert ratio.value == pytest.approx(3.0, rel=1e-6)
    assert ratio.low - 1e-9 <= 3.0 <= ratio.high + 1e-9


def test_kl_at_matched_reward() -> None:
    reward = np.tile(SAMPLES / 1000.0, (3, 1))
    rl, fst = curves(reward, 4.0 * reward), curves(reward, 1.0 * reward)
    assert kl_at_reward(rl, 0.52) == pytest.approx(np.full(3, 2.08))
    assert kl_reduction(rl, fst, 0.52).value == pytest.approx(0.75)
    assert np.isnan(kl_at_reward(rl, 1.5)).all()


def test_equal_values_have_no_width() -> None:
    """The same in every seed, up to rounding: the width is 0, not 1e-16."""
    assert str(estimate([0.1, 0.1, 0.1])) == "0.1 ± 0"
    ratio = speed_up(curves(np.outer(np.ones(3), SAMPLES / 1000.0)), curves(np.outer(np.ones(3), SAMPLES / 900.0)))[
        "ratio"
    ]
    assert str(ratio) == "1.11 ± 0"
