"""Own replay: the rate against an enumeration of batches, the rest against its flow, an iteration and Monte Carlo."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.special import expit, logit

from fstsim.errors import InputError
from fstsim.theory import own_replay_bounds, own_replay_equilibrium, own_replay_rate, replay_equilibrium

SHARES, TRIES = st.floats(0.01, 0.99), st.integers(1, 40)


@given(st.floats(-5.0, 5.0), SHARES, st.integers(1, 6))
def test_rate_is_the_expected_gradient_by_enumeration(s: float, share: float, tries: int) -> None:
    """One demonstration: new, or old with all outcomes of its tries; the gradient of a log-probability in the logit."""
    beta = float(expit(s))
    expected = (1.0 - share) * -beta  # d log(1 - beta) / ds
    for right in range(tries + 1):
        chance = math.comb(tries, right) * beta**right * (1.0 - beta) ** (tries - right)
        expected += share * chance * ((1.0 - beta) if right else 0.0)
    assert float(own_replay_rate(s, share, tries)) == pytest.approx(expected, rel=1e-9, abs=1e-14)


@given(SHARES, TRIES)
def test_rest_is_a_zero_of_the_rate_that_attracts(share: float, tries: int) -> None:
    rest = float(own_replay_equilibrium(share, tries))
    if rest < 1e-4:
        assert share * (tries + 1) < 1.01
        assert float(own_replay_rate(logit(0.05), share, tries)) < 0.0
        return
    assert float(own_replay_rate(logit(rest), share, tries)) == pytest.approx(0.0, abs=1e-12)
    assert float(own_replay_rate(logit(0.9 * rest), share, tries)) > 0.0
    assert float(own_replay_rate(logit(rest) + 0.1, share, tries)) < 0.0


@pytest.mark.parametrize(("share", "tries"), [(0.3, 8), (0.3, 4), (0.6, 1), (0.9, 2)])
@pytest.mark.parametrize("start", [0.02, 0.98])
def test_flow_ends_at_the_rest(share: float, tries: int, start: float) -> None:
    flow = solve_ivp(
        lambda _, s: own_replay_rate(s, share, tries), (0.0, 4000.0), [logit(start)], rtol=1e-9, atol=1e-12
    )
    assert float(expit(flow.y[0, -1])) == pytest.approx(float(own_replay_equilibrium(share, tries)), abs=1e-6)


def test_one_try_has_a_closed_form_and_many_are_ordinary_replay() -> None:
    shares = np.array([0.2, 0.5, 0.6, 0.75, 1.0])
    assert own_replay_equilibrium(shares, 1) == pytest.approx([0.0, 0.0, 2 - 1 / 0.6, 2 - 1 / 0.75, 1.0], abs=1e-12)
    assert own_replay_equilibrium(shares, 10**4) == pytest.approx(replay_equilibrium(shares))


@given(SHARES, TRIES)
def test_bounds(share: float, tries: int) -> None:
    low, high = own_replay_bounds(share, tries)
    rest = own_replay_equilibrium(share, tries)
    assert float(low) <= float(rest) * (1 + 1e-9)
    assert float(rest) <= float(high) * (1 + 1e-9) <= share * (1 + 2e-9)


def test_batches_that_are_drawn_rest_there() -> None:
    """Stochastic gradient descent on the logit with real tries: the mean over a long run."""
    rng, share, tries, batch, s = np.random.default_rng(0), 0.3, 4, 400, 1.0
    masses = []
    for step in range(1500):
        beta = float(expit(s))
        old = int(rng.binomial(batch, share))
        shown = int(rng.binomial(old, 1.0 - (1.0 - beta) ** tries))
        s += 0.3 * (shown * (1.0 - beta) - (batch - old) * beta) / batch
        if step >= 300:
            masses.append(beta)
    assert np.mean(masses) == pytest.approx(float(own_replay_equilibrium(share, tries)), abs=0.01)


@pytest.mark.parametrize("tries", [0, 1.5, np.nan])
def test_tries_are_whole_numbers(tries: float) -> None:
    with pytest.raises(InputError, match="tries must be a whole number in 1"):
        own_replay_equilibrium(0.3, tries)
