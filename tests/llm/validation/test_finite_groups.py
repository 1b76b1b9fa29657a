"""Fixed points with finite groups: against simulation, against the theory's limits, against direct minimisation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit

from fstsim.llm.validation.finite_groups import entropic_group_optimum, oapl_group_step
from fstsim.theory import entropic_tilt_log_odds

LOG_ODDS = st.floats(-5.0, 3.0)


@given(LOG_ODDS, st.floats(0.05, 3.0), st.floats(0.3, 4.0))
def test_large_groups_have_the_exact_normaliser(x0: float, gap: float, leash: float) -> None:
    exact = -float(entropic_tilt_log_odds(-x0, gap, leash))
    found = float(entropic_group_optimum(np.array(x0), gap, leash, 800))
    assert found == pytest.approx(exact, abs=0.1)


@given(LOG_ODDS, st.floats(0.05, 4.0), st.floats(0.3, 4.0), st.integers(2, 32))
def test_small_groups_go_further(x0: float, gap: float, leash: float, group: int) -> None:
    """Jensen: E[1 / Z_others] >= 1 / Z."""
    assert float(entropic_group_optimum(np.array(x0), gap, leash, group)) >= (
        -float(entropic_tilt_log_odds(-x0, gap, leash)) - 1e-9
    )


@pytest.mark.parametrize("group", [2, 4])
def test_the_expected_advantages_balance_the_leash(group: int) -> None:
    """Every outcome of a group written out: the drift of the logit vanishes at the optimum."""
    x0, gap, leash = -1.2, 1.5, 0.8
    x = float(entropic_group_optimum(np.array(x0), gap, leash, group))
    p = expit(x)
    drift = 0.0
    for rewards in itertools.product((0, 1), repeat=group):
        probability = np.prod([p if r else 1.0 - p for r in rewards])
        weights = np.exp(gap * np.array(rewards))
        for i, r in enumerate(rewards):
            others = (weights.sum() - weights[i]) / (group - 1)
            drift += probability / group * (weights[i] / others) * (r - p)  # score of the logit: r - p
    assert drift == pytest.approx(leash * (x - x0) * p * (1.0 - p), rel=1e-9)


@pytest.mark.parametrize("group", [2, 3])
def test_an_oapl_period_minimises_the_expected_loss(group: int) -> None:
    x0, tau = -0.7, 0.6
    p = expit(x0)

    def loss(x: float) -> float:
        total = 0.0
        for rewards in itertools.product((0, 1), repeat=group):
            probability = np.prod([p if r else 1.0 - p for r in rewards])
            value = tau * np.log(np.mean(np.exp(np.array(rewards) / tau)))
            for r in rewards:
                ratio = log_expit(x) - log_expit(x0) if r else log_expit(-x) - log_expit(-x0)
                total += probability / group * (tau * ratio - (r - value)) ** 2
        return float(total)

    best = minimize_scalar(loss, bracket=(x0, x0 + 1.0), tol=1e-12).x
    assert float(oapl_group_step(np.array(x0), tau, group)) == pytest.approx(best, abs=1e-6)


@given(LOG_ODDS, st.floats(0.3, 3.0))
def test_a_large_group_takes_the_whole_step(x0: float, tau: float) -> None:
    assert float(oapl_group_step(np.array(x0), tau, 20_000)) == pytest.approx(x0 + 1.0 / tau, abs=0.05)


@given(LOG_ODDS, st.floats(0.3, 3.0), st.integers(2, 64))
def test_a_finite_group_takes_a_shorter_step(x0: float, tau: float, group: int) -> None:
    step = float(oapl_group_step(np.array(x0), tau, group)) - x0
    assert 0.0 < step <= 1.0 / tau + 1e-9
