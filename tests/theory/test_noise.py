"""Finite-batch noise (theory 14): exact variances against samples, closed forms, and the band of noisy runs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.special import expit, logit, ndtri
from scipy.stats import binom

from fstsim import SGD, ForwardKL, InputError, Objective, ReverseKL, TwoModeProblem, TwoModeState, simulate
from fstsim.divergences import _log_odds_at
from fstsim.logistic_normal import responsibility_moments
from fstsim.overlap import harmonic_overlap, overlap_gap
from fstsim.replay_objectives import KLLeash, ReverseKLReplay
from fstsim.theory.noise import (
    forward_variance_bound,
    gradient_variance,
    linear_noise_band,
    recovery_steps,
    sampled_gradients,
    separated_gradient_variance,
)
from fstsim.theory.replay import replay_weight_rate
from fstsim.theory.reverse_kl import weight_flow_rate
from fstsim.theory.starvation import replay_gradient_variance

BASELINES = ("none", "mean", "leave-one-out", "optimal")
LINE = TwoModeProblem.separated(3.0, 0.4)
PLANE = TwoModeProblem(0.3, [0.0, 0.5], [2.0, 1.0], [[1.5, 0.3], [0.3, 0.7]])
ON_LINE = TwoModeState(-1.0, [0.4], [2.3])
IN_PLANE = TwoModeState(-0.6, [0.3, 0.1], [1.7, 1.6])


def spread(draws: np.ndarray) -> tuple[float, float]:
    """Sample variance and its standard error, from the fourth moment: no normality is assumed."""
    square = (draws - draws.mean()) ** 2
    return float(draws.var(ddof=1)), float(square.std() / np.sqrt(draws.size))


# --- exact variance against samples ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objective", "state"),
    [
        (ForwardKL(LINE), ON_LINE),
        (ForwardKL(LINE, 0.3), ON_LINE),
        (ForwardKL(PLANE, 0.2), IN_PLANE),
        (ReverseKL(LINE), ON_LINE),
        (ReverseKL(PLANE), PLANE.initial(0.2)),
        (ReverseKLReplay(LINE, 0.25), ON_LINE),
        (ReverseKLReplay(PLANE, 0.4), PLANE.initial(0.1)),
    ],
    ids=["new data", "replayed data", "plane", "reverse", "reverse in the plane", "replay", "replay in the plane"],
)
@pytest.mark.parametrize("batch", [2, 9])
def test_variance_of_the_estimate(
    objective: Objective, state: TwoModeState, batch: int, rng: np.random.Generator
) -> None:
    draws = sampled_gradients(objective, state, batch, 50_000, rng)
    variance, error = spread(draws)
    assert abs(variance - gradient_variance(objective, state, batch)) < 5.0 * error
    exact = float(objective.gradient(state).log_odds)
    assert abs(draws.mean() - exact) < 5.0 * np.sqrt(variance / draws.size)


@pytest.mark.parametrize("baseline", ["none", "mean", "optimal"])
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_variance_with_a_constant_baseline(baseline: str, share: float, rng: np.random.Generator) -> None:
    # the estimator written out: sample b, weigh, subtract the constant
    n, s, delta = 400_000, -1.0, 3.0
    problem = TwoModeProblem.separated(delta, 0.4)
    state = TwoModeState(s, problem.mean_old, problem.mean_new)
    x = rng.standard_normal(n) + np.where((rng.random(n) < share) | (rng.random(n) < expit(s)), 0.0, delta)
    z = 0.5 * delta**2 - delta * x  # log p_old / p_new

    def mixed(log_odds: float) -> np.ndarray:
        return np.logaddexp(np.log(expit(log_odds)) + z, np.log(expit(-log_odds)))

    reward, score = mixed(problem.log_odds) - mixed(s), expit(s + z) - expit(s)
    weight = 1.0 / (1.0 - share + share * np.exp(z - mixed(s)))
    constant = {
        "none": 0.0,
        "mean": (weight * reward).mean(),
        "optimal": (weight**2 * score**2 * reward).mean() / (weight**2 * score**2).mean(),
    }[baseline]
    variance, error = spread(weight * (reward - constant) * score)
    objective = ReverseKLReplay(problem, share)
    exact = float(gradient_variance(objective, state, 1, baseline))  # type: ignore[arg-type]
    # the constant is itself estimated, to 1/sqrt(n), which moves the variance by as little
    assert abs(variance - exact) < 6.0 * error
    if baseline == "mean":
        np.testing.assert_allclose(exact, replay_gradient_variance(s, problem.log_odds, share, delta), rtol=1e-10)


# --- identities ---------------------------------------------------------------------------------------------------------


@given(
    st.floats(-4.0, 4.0),
    st.floats(0.0, 1.0),
    st.lists(st.floats(-3.0, 3.0), min_size=4, max_size=4),
)
def test_forward_variance_is_the_logistic_normal_one(s: float, share: float, means: list[float]) -> None:
    state = TwoModeState(s, means[:2], means[2:])
    old, new = PLANE.whiten(state.mean_old), PLANE.whiten(state.mean_new)
    second, first = 0.0, 0.0
    for weight, center in ((share, PLANE.mean_old), (1.0 - share, PLANE.mean_new)):
        r, _, both = responsibility_moments(*_log_odds_at(PLANE.whiten(center), np.asarray(s), old, new))
        first, second = first + weight * r, second + weight * (r - both)  # E r^2 = LN - LP
    exact = gradient_variance(ForwardKL(PLANE, share), state, 5)
    np.testing.assert_allclose(exact, (second - first**2) / 5.0, rtol=1e-9, atol=1e-15)


@given(st.floats(-6.0, 6.0), st.floats(0.3, 10.0))
def test_forward_noise_is_below_the_drift_a_quarter_and_the_overlap(s: float, delta: float) -> None:
    problem = TwoModeProblem.separated(delta)
    state = TwoModeState(s, problem.mean_old, problem.mean_new)
    variance = float(gradient_variance(ForwardKL(problem), state, 1))
    bound = float(forward_variance_bound(s, delta))
    assert variance <= bound * (1.0 + 1e-9)
    assert bound <= min(0.25, expit(s) * overlap_gap(s, delta), expit(s) * harmonic_overlap(s, delta)) + 1e-16


def reverse_case(s: float, error: float, share: float) -> tuple[Objective, TwoModeState]:
    objective = ReverseKLReplay(LINE, share) if share else ReverseKL(LINE)
    return objective, TwoModeState(s, [0.2 * error], [3.0 + error])


@given(st.floats(-4.0, 4.0), st.floats(-1.5, 1.5), st.sampled_from([0.0, 0.3]), st.integers(2, 200))
def test_four_times_the_batch_halves_the_deviation(s: float, error: float, share: float, n: int) -> None:
    objective, state = reverse_case(s, error, share)
    for baseline in ("none", "mean", "optimal"):
        small, large = (float(gradient_variance(objective, state, k * n, baseline)) for k in (1, 4))  # type: ignore[arg-type]
        np.testing.assert_allclose(large, small / 4.0, rtol=1e-12)
    forward = ForwardKL(LINE, share)
    np.testing.assert_allclose(gradient_variance(forward, state, 4 * n), gradient_variance(forward, state, n) / 4.0)
    # leave-one-out has a second term, of order 1/N^2
    small, large = (float(gradient_variance(objective, state, k * n)) for k in (1, 4))
    assert large <= small / 4.0 * (1.0 + 1e-9)


@given(st.floats(-4.0, 4.0), st.floats(-1.5, 1.5), st.sampled_from([0.0, 0.3]), st.integers(2, 200))
def test_no_constant_beats_the_optimal_one_and_leave_one_out_costs_more_than_the_mean(
    s: float, error: float, share: float, n: int
) -> None:
    objective, state = reverse_case(s, error, share)
    values = {b: float(gradient_variance(objective, state, n, b)) for b in BASELINES}  # type: ignore[arg-type]
    assert values["optimal"] <= min(values["none"], values["mean"]) * (1.0 + 1e-9)
    assert values["optimal"] >= -1e-12
    if share == 0.0:
        assert values["leave-one-out"] >= values["mean"] * (1.0 - 1e-9)


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("share", [0.0, 0.2])
def test_separated_closed_form(baseline: str, share: float) -> None:
    problem = TwoModeProblem.separated(14.0, 0.35)
    beta = np.array([0.01, 0.2, 0.6, 0.9])
    state = TwoModeState(logit(beta), problem.mean_old, problem.mean_new)
    reward_old, reward_new = np.log(0.35 / beta), np.log(0.65 / (1.0 - beta))
    exact = gradient_variance(ReverseKLReplay(problem, share), state, 6, baseline)  # type: ignore[arg-type]
    closed = separated_gradient_variance(beta, reward_old, reward_new, 6, baseline, share)  # type: ignore[arg-type]
    np.testing.assert_allclose(exact, closed, rtol=1e-7, atol=1e-9)
    if baseline == "optimal":
        np.testing.assert_allclose(closed, 0.0, atol=1e-30)


def test_the_mean_baseline_can_be_worse_than_none_and_the_swapped_mean_is_best() -> None:
    # rewards of opposite sign and a rare mode: no baseline at all is better than the mean
    none, mean = (separated_gradient_variance(0.05, np.log(10.0), np.log(0.5 / 0.95), 8, b) for b in ("none", "mean"))
    assert none < mean
    # a reward with a large constant: the other way round
    none, mean = (separated_gradient_variance(0.05, 11.0, 10.0, 8, b) for b in ("none", "mean"))
    assert mean < none
    # a constant c in front of every reward is what a baseline -c does
    for beta in (0.1, 0.7):
        swapped = (1.0 - beta) * 2.0 + beta * -1.0
        assert separated_gradient_variance(beta, 2.0 - swapped, -1.0 - swapped, 8, "none") < 1e-30


@given(st.floats(0.02, 0.98), st.integers(2, 40), st.floats(-3.0, 3.0))
def test_batch_mean_baseline_shrinks_the_gradient_and_leave_one_out_does_not(beta: float, n: int, gap: float) -> None:
    k = np.arange(n + 1)
    x, chance = k / n, binom.pmf(k, n, beta)
    batch_mean = (chance * x * (1.0 - x)).sum() * gap
    np.testing.assert_allclose(batch_mean, beta * (1.0 - beta) * (1.0 - 1.0 / n) * gap, rtol=1e-9, atol=1e-15)
    unbiased = n / (n - 1.0) * x * (1.0 - x) * gap
    np.testing.assert_allclose((chance * unbiased).sum(), beta * (1.0 - beta) * gap, rtol=1e-9, atol=1e-15)
    assert (unbiased * np.sign(gap) >= 0.0).all()  # never of the wrong sign
    variance = (chance * (unbiased - (chance * unbiased).sum()) ** 2).sum()
    np.testing.assert_allclose(separated_gradient_variance(beta, gap, 0.0, n), variance, rtol=1e-7, atol=1e-20)


def test_states_are_treated_one_by_one() -> None:
    objective = ReverseKL(LINE)
    s = np.array([[-1.0, 0.5], [2.0, -3.0]])
    whole = gradient_variance(objective, TwoModeState(s, [0.1], [2.7]), 4)
    assert whole.shape == (2, 2)
    np.testing.assert_allclose(
        whole[1, 0], gradient_variance(objective, TwoModeState(2.0, [0.1], [2.7]), 4), rtol=1e-12
    )


# --- the band of a run (14.2) -------------------------------------------------------------------------------------------


@given(st.floats(0.01, 0.9), st.floats(0.05, 2.0), st.floats(-3.0, 3.0), st.integers(1, 60))
def test_band_of_a_linear_drift_is_exact(lr: float, slope: float, s0: float, steps: int) -> None:
    assume(abs(lr * slope - 1.0) > 1e-3)
    band = linear_noise_band(lambda s: -slope * (s - 1.0), lambda _: 2.0, s0, lr, 5, steps)
    growth = 1.0 - lr * slope
    k = np.arange(steps + 1)
    np.testing.assert_allclose(band.euler, 1.0 + (s0 - 1.0) * growth**k, rtol=1e-9, atol=1e-9)
    expected = lr**2 * 2.0 / 5.0 * (1.0 - growth ** (2 * k)) / (1.0 - growth**2)
    np.testing.assert_allclose(band.variance, expected, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(band.bias, 0.0, atol=1e-6)  # rounding of the second difference, 1e-10 a step
    assert (band.lower <= band.center).all()
    assert (band.center <= band.upper).all()


def run_many(
    objective: Objective, beta0: float, lr: float, batch: int, steps: int, replicates: int, rng: np.random.Generator
) -> np.ndarray:
    start = objective.problem.initial(beta0)
    many = TwoModeState(np.full(replicates, start.log_odds), start.mean_old, start.mean_new)
    return simulate(objective.problem, objective, many, SGD(lr, batch, train="weight"), steps, rng).log_odds


@pytest.mark.parametrize("case", ["new data", "replayed data", "reverse", "reverse with replay"])
def test_band_covers_the_runs(case: str, rng: np.random.Generator) -> None:
    delta, batch, lr, steps, replicates, z = 3.0, 16, 0.2, 60, 2000, 1.96
    problem = TwoModeProblem.separated(delta, 0.4)
    objective: Objective
    if case in ("new data", "replayed data"):
        share = 0.0 if case == "new data" else 0.2
        objective, beta0 = ForwardKL(problem, share), 0.5

        def drift(s: float) -> float:
            return float(replay_weight_rate(s, share, delta))
    else:
        objective = ReverseKL(problem) if case == "reverse" else ReverseKLReplay(problem, 0.2)
        beta0 = 0.1

        def drift(s: float) -> float:
            return float(weight_flow_rate(s, problem.log_odds, delta))

    def variance(s: float) -> float:
        state = TwoModeState(s, problem.mean_old, problem.mean_new)
        return batch * float(gradient_variance(objective, state, batch))

    start = float(logit(beta0))
    band = linear_noise_band(drift, variance, start, lr, batch, steps, z)
    runs = run_many(objective, beta0, lr, batch, steps, replicates, rng)
    checked = np.arange(6, steps + 1, 6)
    deviation = (runs[checked] - band.center[checked, None]) / np.sqrt(band.variance[checked, None])
    # mean of replicates: 10 points, one chance in a thousand of a false alarm, and the third order of the expansion
    limit = float(ndtri(1.0 - 1e-3 / (2.0 * checked.size)))
    assert np.abs(deviation.mean(axis=1)).max() < limit / np.sqrt(replicates) + 0.03
    # variance of replicates: standard error sqrt(2 / R) = 3 %, and the same third order
    assert np.abs(deviation.var(axis=1) - 1.0).max() < limit * np.sqrt(2.0 / replicates) + 0.06
    inside = (np.abs(deviation) <= z).mean(axis=1)
    assert np.abs(inside - 0.95).max() < limit * np.sqrt(0.95 * 0.05 / replicates) + 0.01


def test_four_times_the_batch_halves_the_band() -> None:
    widths = []
    for batch in (8, 32):
        band = linear_noise_band(lambda s: 0.2 - expit(s), lambda _: 0.16, 0.0, 0.1, batch, 50)
        widths.append(band.upper[-1] - band.lower[-1])
    np.testing.assert_allclose(widths[0], 2.0 * widths[1], rtol=1e-9)


def test_recovery_steps_counts_from_the_start(rng: np.random.Generator) -> None:
    objective = ReverseKL(TwoModeProblem.separated(8.0, 0.5))
    assert (recovery_steps(objective, 0.2, 0.1, SGD(0.5, 4, train="weight"), 5, 3, rng) == 0.0).all()
    assert np.isnan(recovery_steps(objective, 0.001, 0.4, SGD(0.1, 4, train="weight"), 5, 2, rng)).all()


# --- bad input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gradient_variance(ReverseKL(LINE), ON_LINE, 0, "none"), "at least 1"),
        (lambda: gradient_variance(ReverseKL(LINE), ON_LINE, 1), "at least 2"),
        (lambda: gradient_variance(ReverseKL(LINE), ON_LINE, 2.5), "whole number"),  # type: ignore[arg-type]
        (lambda: gradient_variance(ReverseKL(LINE), ON_LINE, 4, "best"), "baseline must be one of"),  # type: ignore[arg-type]
        (lambda: gradient_variance(ForwardKL(LINE), ON_LINE, 4, "mean"), "forward KL has no baseline"),
        (lambda: gradient_variance(ForwardKL(LINE), IN_PLANE, 4), "state has dimension 2"),
        (lambda: gradient_variance(ReverseKL(LINE), IN_PLANE, 4), "state has dimension 2"),
        (lambda: gradient_variance(ReverseKL(PLANE), IN_PLANE, 4), "must lie on the line"),
        (lambda: gradient_variance(KLLeash(LINE, ON_LINE, 1.0), ON_LINE, 4), "gradient_variance knows"),
        (lambda: separated_gradient_variance(0.0, 1.0, 0.0, 4), "beta must lie strictly"),
        (lambda: separated_gradient_variance(0.5, 1.0, 0.0, 1), "at least 2"),
        (lambda: separated_gradient_variance(0.5, 1.0, 0.0, 4, "mean", 1.0), "replay_fraction must lie in"),
        (lambda: forward_variance_bound(0.0, -1.0), "delta must lie in"),
        (lambda: linear_noise_band(lambda s: -s, lambda _: 1.0, 0.0, 0.0, 4, 5), "lr and z must be positive"),
        (lambda: linear_noise_band(lambda s: -s, lambda _: 1.0, np.nan, 0.1, 4, 5), "s0 finite"),
        (lambda: linear_noise_band(lambda s: -s, lambda _: 1.0, 0.0, 0.1, 0, 5), "batch_size must be"),
        (lambda: linear_noise_band(lambda s: -s, lambda _: 1.0, 0.0, 0.1, 4, -1), "steps must be nonnegative"),
        (lambda: linear_noise_band(lambda s: -s, lambda _: -1.0, 0.0, 0.1, 4, 5), "variance nonnegative"),
        (lambda: linear_noise_band(lambda _: np.nan, lambda _: 1.0, 0.0, 0.1, 4, 5), "must be finite"),
        (
            lambda: sampled_gradients(ReverseKL(LINE), TwoModeState([0.0, 1.0], [0.0], [3.0]), 4, 3, np.random.default_rng()),
            "takes one state",
        ),
        (lambda: sampled_gradients(ReverseKL(LINE), ON_LINE, 4, 0, np.random.default_rng()), "replicates must be"),
        (lambda: recovery_steps(ReverseKL(LINE), 0.0, 0.1, SGD(0.1, 4, train="weight"), 5, 3, np.random.default_rng()), "beta0 must lie"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
