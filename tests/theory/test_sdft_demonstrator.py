"""A teacher that is pulled to a demonstrator: flows to their ends, rates by decay, the simulator for forward KL."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.special import expit, logit
from torch.distributions import Bernoulli, kl_divergence

from fstsim import InputError, ReverseKL, TwoModeProblem
from fstsim.theory.sdft_demonstrator import (
    demonstrator_drift_bound,
    demonstrator_fixed_point,
    demonstrator_rate,
    forward_speed_bounds,
    forward_speed_ratio,
    undemonstrated_end,
)


def flow(start: tuple[float, float], demonstrator: float, tilt: float, rho: float, lam: float, t: float, forward: bool):
    """Student and teacher at time t."""

    def velocity(_: float, y: np.ndarray) -> list[float]:
        s, bar = y
        target = bar - tilt
        pull = expit(s) - expit(target) if forward else expit(s) * expit(-s) * (s - target)
        return [-pull, rho * (s - bar) + lam * (demonstrator - bar)]

    return solve_ivp(velocity, (0.0, t), list(start), "LSODA", rtol=1e-11, atol=1e-13).y[:, -1]


@pytest.mark.parametrize("forward", [False, True])
@pytest.mark.parametrize("tilt", [0.0, 0.4])
def test_both_directions_end_at_the_demonstrators_share(tilt: float, forward: bool) -> None:
    rho, lam, demonstrator = 0.5, 0.3, float(logit(0.4))
    end = float(demonstrator_fixed_point(demonstrator, tilt, rho, lam))
    if tilt == 0.0:
        assert expit(end) == pytest.approx(0.4)
    for start in ((2.0, 2.0), (-3.0, 1.0)):
        assert flow(start, demonstrator, tilt, rho, lam, 2000.0, forward)[0] == pytest.approx(end, abs=1e-8)


@pytest.mark.parametrize("forward", [False, True])
def test_it_gets_there_at_the_local_rate(forward: bool) -> None:
    rho, lam, demonstrator = 0.5, 0.3, -0.4
    rate, low, high = demonstrator_rate(demonstrator, rho, lam)
    near = [abs(flow((1.0, 1.0), demonstrator, 0.0, rho, lam, t, forward)[0] - demonstrator) for t in (120.0, 140.0)]
    assert np.log(near[0] / near[1]) / 20.0 == pytest.approx(float(rate), rel=1e-3)
    assert low < rate < high


def test_without_a_demonstrator_the_start_decides() -> None:
    for start in ((1.0, -2.0), (-2.0, 1.5)):
        s, bar = flow(start, 0.0, 0.0, 0.2, 0.0, 400.0, forward=False)
        assert s == pytest.approx(bar, abs=1e-9)
        assert s == pytest.approx(float(undemonstrated_end(*start, 0.2)), abs=1e-8)


def test_a_weaker_pull_ends_at_the_same_share_later_and_drifts_more() -> None:
    assert demonstrator_fixed_point(-0.5, 0.0, 0.3, [1e-6, 1.0]).tolist() == [-0.5, -0.5]
    slow, fast = demonstrator_rate(-0.5, 0.3, [1e-6, 1.0])[0]
    assert slow < 1e-5 < fast
    assert demonstrator_drift_bound(0.1, 0.3, [0.1, 1.0]).tolist() == pytest.approx([0.4, 0.13])
    with pytest.raises(InputError, match="strength must be positive"):
        demonstrator_fixed_point(0.0, 0.1, 0.3, 0.0)


@pytest.mark.parametrize("share", [0.05, 0.4, 0.9])
def test_speeds_are_those_of_gradients(share: float) -> None:
    """Reverse KL by the simulator, modes far apart, so that it is that of the decision; forward KL by autograd."""
    problem = TwoModeProblem.separated(12.0, share)
    for mass in (0.02, 0.5, 0.97):
        state = problem.initial(mass)
        reverse = ReverseKL(problem).gradient(state).log_odds
        s = torch.tensor(logit(mass), dtype=torch.float64, requires_grad=True)
        kl = kl_divergence(Bernoulli(torch.tensor(share, dtype=torch.float64)), Bernoulli(logits=s))
        (forward,) = torch.autograd.grad(kl, s)
        ratio = float(forward_speed_ratio(logit(mass), logit(share)))
        assert float(forward) / float(reverse) == pytest.approx(ratio, rel=1e-5)
        low, high = forward_speed_bounds(logit(mass) - logit(share))
        assert low <= ratio <= high
    assert float(forward_speed_ratio(0.3, 0.3)) == 1.0
