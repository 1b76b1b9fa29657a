"""Replay with clipped gradients: against simulation, Huber's estimate by another route, and its limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import expit
from scipy.stats import binom

from fstsim import InputError
from fstsim.theory import clipped_replay_bias_bound, clipped_replay_mass

SHARE = st.floats(0.01, 0.99)


@given(SHARE, st.integers(1, 40), st.floats(0.02, 1.0))
def test_it_minimises_hubers_loss(share: float, batch: int, clip: float) -> None:
    k = np.arange(batch + 1)
    weights = binom.pmf(k, batch, share)

    def loss(beta: float) -> float:
        d = np.abs(k / batch - beta)
        return float(weights @ np.where(d <= clip, d * d / 2.0, clip * (d - clip / 2.0)))

    best = minimize_scalar(loss, bounds=(0.0, 1.0), method="bounded", options={"xatol": 1e-10})
    assert loss(float(clipped_replay_mass(share, batch, clip))) <= best.fun + 1e-12


@given(SHARE, st.integers(1, 40))
def test_nothing_is_cut_at_one(share: float, batch: int) -> None:
    assert float(clipped_replay_mass(share, batch, 1.0)) == pytest.approx(share, abs=1e-12)


@given(SHARE, st.integers(1, 40), st.floats(0.02, 1.0))
def test_old_and_new_change_places(share: float, batch: int, clip: float) -> None:
    here = float(clipped_replay_bias_bound(share, batch, clip))
    assert here == pytest.approx(float(clipped_replay_bias_bound(1.0 - share, batch, clip)), nan_ok=True)
    if np.isfinite(here):
        there = float(clipped_replay_mass(1.0 - share, batch, clip))
        assert float(clipped_replay_mass(share, batch, clip)) == pytest.approx(1.0 - there, abs=1e-9)


def test_the_cut_is_the_median_in_the_end() -> None:
    # K of 5 with share .3: the median is 1
    assert float(clipped_replay_mass(0.3, 5, 1e-6)) == pytest.approx(0.2, abs=1e-5)


@pytest.mark.parametrize("batch", [1, 4])
def test_clipped_descent_ends_there(batch: int) -> None:
    """Small steps of clipped gradient descent on the logit, long enough to average: within four standard errors."""
    share, clip, lr = 0.2, 0.3, 0.02
    rng = np.random.default_rng(batch)
    s, kept = np.full(400, -1.0), []
    for step in range(6000):
        gradient = expit(s) - rng.binomial(batch, share, s.shape) / batch
        s -= lr * np.clip(gradient, -clip, clip)
        if step >= 3000:
            kept.append(expit(s))
    means = np.mean(kept, axis=0)
    error = means.std(ddof=1) / np.sqrt(len(means))
    # the fluctuating logit adds a bias of the order of the learning rate
    assert means.mean() == pytest.approx(float(clipped_replay_mass(share, batch, clip)), abs=4 * error + lr / 4)
    assert abs(means.mean() - share) > 10 * error


def test_bad_input() -> None:
    with pytest.raises(InputError, match="batch_size"):
        clipped_replay_mass(0.2, 0, 1.0)
    with pytest.raises(InputError, match="clip must be positive"):
        clipped_replay_mass(0.2, 4, 0.0)
    with pytest.raises(InputError, match="share"):
        clipped_replay_bias_bound(1.2, 4, 1.0)


@pytest.mark.parametrize("batch", [0, 2.5, 10_001])
def test_batches_are_whole_and_at_most_ten_thousand(batch: float) -> None:
    assert 0.0 < float(clipped_replay_bias_bound(0.2, 10_000, 1.0)) < 0.2
    with pytest.raises(InputError, match=r"1\.\.10000"):
        clipped_replay_bias_bound(0.2, batch, 1.0)
