"""Adam's clock: the path is torch's, its bounds hold and are tight where they should be, and its two late laws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from fstsim import AdamW, ForwardKL, InputError, TwoModeProblem, simulate
from fstsim.theory import (
    adam,
    adam_flow_shift,
    adam_late_rate,
    adam_log_odds_path,
    adam_mass_bounds,
    adam_shift_bounds,
    adam_shift_path,
    adam_steady_step,
    adam_step_bound,
    mass_forgetting_separated,
)

ODDS = st.floats(-8.0, 5.0)
STEP = st.floats(1e-3, 0.4)


@pytest.mark.parametrize("gain", [1.0, 30.0])
@pytest.mark.parametrize("eps", [1e-8, 1e-2])
def test_path_is_that_of_torch(gain: float, eps: float) -> None:
    """Three prompts, one parameter: ``mean softplus(s_i + gain theta)`` by autograd and torch's AdamW."""
    base, lr, betas = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64), 0.2 / gain, (0.8, 0.98)
    theta = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.AdamW([theta], lr=lr, betas=betas, eps=eps, weight_decay=0.0)
    path = adam_log_odds_path(base.numpy(), lr, 100, betas, eps, gain)
    assert path.shape == (101, 3)
    for k in range(101):
        now = (base + gain * theta).detach().numpy()
        np.testing.assert_allclose(path[k], now, rtol=0.0, atol=1e-12)
        optimizer.zero_grad()
        torch.nn.functional.softplus(base + gain * theta).mean().backward()
        optimizer.step()


def test_path_is_the_simulator_without_overlap() -> None:
    """At separation 20 (kappa < 1e-20) the weight's gradient is sigmoid(s), and the simulator's AdamW gives the path."""
    problem = TwoModeProblem.separated(20.0)
    run = simulate(problem, ForwardKL(problem), problem.initial(0.7), AdamW(0.05, train="weight"), 200)
    path = adam_log_odds_path(run.log_odds[:1], 0.05, 200)
    np.testing.assert_allclose(run.log_odds, path[:, 0], rtol=0.0, atol=1e-9)


@given(ODDS, STEP, st.floats(0.5, 100.0))
def test_scale_of_the_loss_drops_out(odds: float, step: float, gain: float) -> None:
    """eps = 0: gradients ten times as large, the same path; only ``lr x gain`` counts."""
    one = adam_log_odds_path([odds, 0.0], step, 30, eps=0.0)
    other = adam_log_odds_path([odds, 0.0], step / gain, 30, eps=0.0, gain=gain)
    np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


@given(st.lists(ODDS, min_size=1, max_size=4), STEP, st.floats(0.0, 1.0), st.floats(0.5, 0.9999), st.floats(0.05, 1.0))
def test_two_sided(odds: list[float], step: float, ratio: float, beta2: float, clip: float) -> None:
    """`adam-clock` along a whole path, with no step longer than h."""
    path = adam_shift_path(odds, step, 60, ratio * beta2, beta2, clip=clip)
    lower, upper = adam_shift_bounds(odds, step, 60, ratio * beta2, beta2, clip=clip)
    assert (lower <= np.exp(-path) * (1 + 1e-10)).all()
    assert (np.exp(-path) <= upper * (1 + 1e-10)).all()
    falls = -np.diff(path)
    assert falls[0] == pytest.approx(step, rel=1e-12)
    assert ((falls > 0.0) & (falls <= step * (1 + 1e-9))).all()
    mass = expit(np.array(odds) + path[:, None]).mean(axis=1)
    low, high = adam_mass_bounds(odds, step, 60, ratio * beta2, beta2, clip=clip)
    assert ((low <= mass * (1 + 1e-9)) & (mass <= high * (1 + 1e-9))).all()


@given(ODDS, STEP)
def test_never_slower_than_a_rescaled_logit_clock(odds: float, step: float) -> None:
    """``u >= G / G_1``: forgetting is at least that of the logit flow with time ``h t / beta_0``."""
    path = odds + adam_shift_path([odds], step, 50)
    beta = float(expit(odds))
    flow = mass_forgetting_separated(beta, step * np.arange(51) / beta)
    assert (expit(path) <= flow * (1 + 1e-9)).all()
    assert (expit(path) >= expit(odds - step * np.arange(51)) * (1 - 1e-9)).all()


def test_while_the_clip_acts_every_step_is_full() -> None:
    """Clipped at a tenth of its first size the gradient is constant until the mass has fallen tenfold: exponential all along."""
    path = adam_shift_path([-3.0], 0.05, 60, clip=0.1)
    constant = np.exp(path) > 0.13  # G falls slightly less than e^x
    assert constant.sum() > 40
    np.testing.assert_allclose(path[constant], -0.05 * np.arange(constant.sum()), rtol=1e-12)
    free = adam_shift_path([-3.0], 0.05, 60)
    assert free[-1] > path[-1] + 0.5


@given(st.floats(0.0, 0.99), st.floats(0.05, 0.9999), st.integers(1, 60))
def test_step_bound_is_reached(beta1: float, beta2: float, steps: int) -> None:
    ages = np.arange(steps)[::-1]
    with np.errstate(under="ignore"):
        gradients = (max(beta1, 1e-3) / beta2) ** ages
    first = second = 0.0
    for g in gradients / gradients.max():
        first, second = beta1 * first + (1 - beta1) * g, beta2 * second + (1 - beta2) * g * g
    step = first / (1 - beta1**steps) / np.sqrt(second / (1 - beta2**steps))
    bound = float(adam_step_bound(steps, beta1, beta2))
    assert step <= bound * (1 + 1e-9)
    if beta1 >= 1e-3:
        assert step == pytest.approx(bound, rel=1e-6)


def test_step_bound_at_the_usual_betas() -> None:
    assert float(adam_step_bound(1)) == pytest.approx(1.0)
    limit = 0.1 / np.sqrt(0.001 * (1.0 - 0.81 / 0.999))
    assert float(adam_step_bound(1e7)) == pytest.approx(limit, rel=1e-12)
    # larger than (1 - beta1) / sqrt(1 - beta2), which holds for one gradient after many zeros
    assert limit > 0.1 / np.sqrt(0.001)


def test_the_middle_law_is_three_halves() -> None:
    """``1/h << t << 1/(1 - beta2)``: the slope of log mass in log time, along the path and its flow."""
    t = np.array([5_000, 10_000])
    path = adam_shift_path([-2.0], 0.05, 10_000, 0.0, 1.0 - 1e-8)
    flow = adam_flow_shift([-2.0], 0.05 * t)
    for x in (path[t], flow):
        assert np.diff(x)[0] / np.log(2.0) == pytest.approx(-1.5, abs=0.02)
    np.testing.assert_allclose(path[t], flow, atol=0.05)


def test_flow_starts_linear_and_keeps_shape() -> None:
    times = np.array([[0.0, 1e-9], [1e-3, 1e-2]])
    x = adam_flow_shift([-4.0, 0.0, 3.0], times)
    assert x.shape == times.shape
    np.testing.assert_allclose(x, -times, rtol=5e-3, atol=1e-15)
    assert adam_flow_shift([0.0], 3.0).shape == ()


@pytest.mark.parametrize(("beta1", "beta2", "step"), [(0.9, 0.99, 0.3), (0.9, 0.99, 0.01), (0.0, 0.9, 0.05)])
def test_late_rate(beta1: float, beta2: float, step: float) -> None:
    path = adam_shift_path([1.0], step, 4000, beta1, beta2)
    rate = float(adam_late_rate(step, beta1, beta2))
    assert (path[2000] - path[4000]) / 2000 == pytest.approx(rate, rel=1e-4)  # sigmoid against exp, at log-odds of -9
    assert rate < min(step, -0.5 * np.log(beta2))
    assert float(adam_steady_step(rate, beta1, beta2)) * step == pytest.approx(rate, rel=1e-9)


def test_late_rate_limits() -> None:
    """Small steps are never held back; large ones go as fast as v forgets."""
    assert float(adam_late_rate(1e-6)) == pytest.approx(1e-6, rel=1e-2)
    np.testing.assert_allclose(adam_late_rate([0.1, 10.0]), -0.5 * np.log(0.999), rtol=2e-4)
    assert float(adam_steady_step(0.0)) == 1.0
    assert float(adam_steady_step(0.001)) == 0.0


def test_rare_prompts_keep_their_digits() -> None:
    """Gradients are taken relative to the first: log-odds of -800 move like those of -100."""
    np.testing.assert_allclose(adam_shift_path([-800.0], 0.1, 50), adam_shift_path([-100.0], 0.1, 50), rtol=1e-12)
    assert np.isfinite(adam_log_odds_path([-800.0], 0.1, 5)).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: adam_shift_path([np.inf], 0.1, 3), "base_log_odds must be finite"),
        (lambda: adam_shift_path([0.0], 0.0, 3), "step_size must be positive"),
        (lambda: adam_shift_path([0.0], 0.1, -1), "steps must be nonnegative"),
        (lambda: adam_shift_path([0.0], 0.1, 3, 1.0), r"beta1 must lie in \[0, 1\)"),
        (lambda: adam_shift_path([0.0], 0.1, 3, clip=2.0), r"clip must lie in \(0, 1\]"),
        (lambda: adam_shift_path([0.0], 0.1, 3, eps=-1.0), "eps must be nonnegative"),
        (lambda: adam_log_odds_path([[0.0]], 0.1, 3), "one number a prompt"),
        (lambda: adam_shift_bounds([0.0], 0.1, 3, 0.9, 0.5), "beta1 must be at most beta2"),
        (lambda: adam_step_bound(0), "step must be at least 1"),
        (lambda: adam_step_bound(1, 0.5, 0.0), "beta2 must be positive"),
        (lambda: adam_flow_shift([0.0], -1.0), r"time must lie in \[0, 1e\+12\]"),
    ],
)
def test_bad_input(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()  # type: ignore[operator]


def test_the_late_rate_is_found_by_newton_and_not_by_halving(monkeypatch: pytest.MonkeyPatch) -> None:
    """The derivative of ``r - h u(r)``: with a wrong one the root is the same, but found by halving its bracket."""
    calls = 0
    steady = adam.adam_steady_step

    def counted(*arguments: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        return steady(*arguments)

    monkeypatch.setattr(adam, "adam_steady_step", counted)
    adam.adam_late_rate(0.02, 0.9, 0.95)
    adam.adam_late_rate(1.0, 0.3, 0.5)
    assert calls <= 40  # 26; with the factor 1, 3 or 4 in the exponent more than 100
