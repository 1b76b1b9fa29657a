"""Section 16: quoted numbers, simulations of real groups, brute-force enumeration of policies, waiting times."""

from __future__ import annotations

import itertools

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import expit, logit, softmax
from scipy.stats import binom, poisson

from fstsim.errors import InputError
from fstsim.theory.fast_slow import time_to_reward
from fstsim.theory.group_batches import (
    capped_displacement,
    capped_displacement_bounds,
    escape_wait,
    first_signal_wait,
    lone_success_jump,
    mean_flow_wait,
    rare_escape_wait,
)
from fstsim.theory.group_contexts import (
    advantage_gap,
    advantage_gap_range,
    neutral_logit_variance,
    poisson_binomial,
    random_context_drift,
    shared_dead_group_probability,
    shared_group_drift,
    shared_group_weights,
)
from fstsim.theory.group_normalised import (
    dead_group_probability,
    epsilon_slowdown_bounds,
    group_drift_bounds,
    group_escape_bounds,
    group_escape_time,
    group_logit_update,
    group_normalised_drift,
    plateau_exponent,
)

P = st.floats(1e-6, 1.0 - 1e-6)
GROUP = st.integers(2, 64)
SEED = st.integers(0, 2**32 - 1)
BASELINES = st.sampled_from(["mean", "leave-one-out"])
NORMALISERS = st.sampled_from(["population", "sample", "none"])
Z = 6.0  # standard errors: one false alarm in 5e8


# --- expected update (16.1, 16.2) and its variants --------------------------------------------------------------------------


@given(P, GROUP)
def test_drift_is_symmetric_and_below_the_large_group_limit(p: float, group: int) -> None:
    drift = float(group_normalised_drift(p, group))
    assert drift <= np.sqrt(p * (1.0 - p)) * (1.0 + 1e-12)
    assert drift == pytest.approx(float(group_normalised_drift(1.0 - p, group)), rel=1e-9)
    assert float(group_normalised_drift(p, 2)) == pytest.approx(p * (1.0 - p), rel=1e-12)
    assert float(group_normalised_drift(p, 3)) == pytest.approx(np.sqrt(2.0) * p * (1.0 - p), rel=1e-12)


@settings(max_examples=40)  # sums in 50 digits
@given(st.floats(-30.0, -1.0), st.integers(2, 2000))
def test_drift_against_50_digits(log_odds: float, group: int) -> None:
    with mpmath.workdps(50):
        p = 1 / (1 + mpmath.exp(-mpmath.mpf(log_odds)))
        total = mpmath.mpf(0)
        for k in range(1, min(group, 300)):  # the rest is below 1e-30 of the sum for the p and G drawn
            x = mpmath.mpf(k) / group
            total += mpmath.binomial(group, k) * p**k * (1 - p) ** (group - k) * mpmath.sqrt(x * (1 - x))
        reference = float(total)
    if group * float(p) < 20.0 or group <= 300:
        assert float(group_normalised_drift(float(p), group)) == pytest.approx(reference, rel=1e-10)


def test_both_limits() -> None:
    assert float(group_normalised_drift(0.3, 10_000)) == pytest.approx(np.sqrt(0.21), rel=1e-3)
    for group in (2, 8, 64):
        assert float(group_normalised_drift(1e-9, group)) == pytest.approx(1e-9 * np.sqrt(group - 1), rel=1e-6)
        assert float(group_normalised_drift(0.0, group)) == 0.0
        assert float(group_normalised_drift(1.0, group)) == 0.0


@given(P, GROUP)
def test_bounds_hold_and_are_within_root_two(p: float, group: int) -> None:
    low, high = (float(b) for b in group_drift_bounds(p, group))
    assert low * (1.0 - 1e-12) <= float(group_normalised_drift(p, group)) <= high * (1.0 + 1e-12)
    assert high <= np.sqrt(2.0) * low


@pytest.mark.parametrize("normaliser", ["population", "sample", "none"])
@pytest.mark.parametrize("baseline", ["mean", "leave-one-out"])
def test_expectation_against_simulated_groups(baseline: str, normaliser: str, rng: np.random.Generator) -> None:
    """Advantages and scores of real rollouts, with an epsilon, 60,000 groups for each of 9 settings."""
    eps = 0.1 if normaliser != "none" else 0.0
    for p, group in itertools.product((0.02, 0.3, 0.9), (2, 5, 16)):
        r = (rng.random((60_000, group)) < p).astype(np.float64)
        mean = r.mean(axis=1, keepdims=True)
        others = (r.sum(axis=1, keepdims=True) - r) / (group - 1)
        advantage = r - (mean if baseline == "mean" else others)
        if normaliser != "none":
            advantage = advantage / (r.std(axis=1, ddof=int(normaliser == "sample"), keepdims=True) + eps)
        update = (advantage * (r - p)).mean(axis=1)
        expected = float(group_normalised_drift(p, group, baseline, normaliser, eps))
        assert abs(update.mean() - expected) < Z * update.std() / np.sqrt(update.size)


@given(P, GROUP)
def test_variants_are_multiples_of_each_other(p: float, group: int) -> None:
    drift = float(group_normalised_drift(p, group))
    assert float(group_normalised_drift(p, group, normaliser="sample")) == pytest.approx(
        drift * np.sqrt(1.0 - 1.0 / group), rel=1e-12
    )
    assert float(group_normalised_drift(p, group, "leave-one-out")) == pytest.approx(
        drift * group / (group - 1.0), rel=1e-12
    )
    plain = p * (1.0 - p)
    assert float(group_normalised_drift(p, group, "leave-one-out", "none")) == pytest.approx(plain, rel=1e-10)
    assert float(group_normalised_drift(p, group, "mean", "none")) == pytest.approx(
        plain * (1.0 - 1.0 / group), rel=1e-10
    )


@given(P, GROUP, st.floats(0.0, 20.0))
def test_epsilon_slows_within_its_bounds(p: float, group: int, eps: float) -> None:
    ratio = float(group_normalised_drift(p, group) / group_normalised_drift(p, group, epsilon=eps))
    low, high = (float(b) for b in epsilon_slowdown_bounds(group, eps))
    assert low * (1.0 - 1e-12) <= ratio <= high * (1.0 + 1e-12)


def test_epsilon_on_the_plateau_and_at_infinity() -> None:
    ratio = group_normalised_drift(1e-8, 8) / group_normalised_drift(1e-8, 8, epsilon=0.5)
    assert float(ratio) == pytest.approx(float(epsilon_slowdown_bounds(8, 0.5)[1]), rel=1e-6)
    plain = group_normalised_drift(0.2, 8, normaliser="none")
    assert float(group_normalised_drift(0.2, 8, epsilon=1e7)) * 1e7 == pytest.approx(float(plain), rel=1e-6)


@given(st.floats(0.0, 1.0), GROUP)
def test_dead_groups(p: float, group: int) -> None:
    dead = float(dead_group_probability(p, group))
    assert dead == pytest.approx((1.0 - p) ** group + p**group, rel=1e-10, abs=1e-300)
    assert dead == pytest.approx(float(shared_dead_group_probability(np.full(group, p))), rel=1e-9, abs=1e-300)


@given(P, st.floats(0.0, 1.0), GROUP)
def test_baseline_from_elsewhere_is_unbiased_and_never_dead(p: float, b: float, group: int) -> None:
    x = np.arange(group + 1) / group
    update = x * (1.0 - b - p) + b * p
    assert float(binom.pmf(np.arange(group + 1), group, p) @ update) == pytest.approx(p * (1.0 - p), abs=1e-12)


# --- escape time (16.3) -----------------------------------------------------------------------------------------------------


def test_quoted_escape_times() -> None:
    p0 = np.array([1e-4, 1e-3, 1e-2])
    for group, expected in ((4, [1.002, 1.015, 1.09]), (64, [1.017, 1.13, 1.80])):
        time = group_escape_time(logit(p0), 0.0, 1.0, group)
        np.testing.assert_allclose(time / mean_flow_wait(p0, 1.0, group), expected, rtol=5e-3)
    p0 = np.array([1e-4, 1e-3, 1e-2, 1e-1])
    np.testing.assert_allclose(
        group_escape_time(logit(p0), 0.0, 1.0, 64) * np.sqrt(p0) / 2.0, [6.4, 2.2, 1.13, 0.85], rtol=2e-2
    )


@given(st.floats(-14.0, 3.0), st.floats(0.05, 12.0), GROUP, st.floats(0.1, 5.0))
def test_escape_time_lies_between_plain_and_large_groups(x0: float, gap: float, group: int, rate: float) -> None:
    time = float(group_escape_time(x0, x0 + gap, rate, group))
    plain = float(time_to_reward(x0, x0 + gap, rate))
    slack = 1.0 + 1e-11
    assert plain / np.sqrt(group - 1.0) <= time * slack  # group normalisation gains sqrt(G - 1) at most
    assert time <= plain * group / (2.0 * (group - 1.0)) * slack
    assert float(time_to_reward(x0, x0 + gap, rate, mobility="normalised")) <= time * slack
    low, high = (float(b) for b in group_escape_bounds(x0, x0 + gap, rate, group))
    assert low <= time * slack
    assert time <= high * slack
    assert high <= np.sqrt(2.0) * low * slack


@given(st.floats(-8.0, 2.0), st.floats(-3.0, 3.0), st.floats(-3.0, 3.0), GROUP)
def test_escape_time_is_additive(a: float, first: float, second: float, group: int) -> None:
    def t(x: float, y: float) -> float:
        return float(group_escape_time(x, y, 1.0, group))

    whole, parts = t(a, a + first + second), (t(a, a + first), t(a + first, a + first + second))
    assert sum(parts) == pytest.approx(whole, abs=1e-10 * (abs(parts[0]) + abs(parts[1])) + 1e-14)


def test_unnormalised_groups_have_the_plain_plateau_for_every_size() -> None:
    for group in (2, 8, 64):
        time = group_escape_time(-9.0, 1.0, 1.0, group, "none")
        plain = float(time_to_reward(-9.0, 1.0, 1.0)) * group / (group - 1.0)
        assert float(time) == pytest.approx(plain, rel=1e-10)


def universal_exponent(y: float) -> float:
    """Local exponent for ``G -> inf`` at ``G p0 = y``: the successes of a group are Poisson."""

    def mean_root(rate: float) -> float:
        if rate > 300.0:
            return float(np.sqrt(rate) * (1.0 - 1.0 / (8.0 * rate) - 7.0 / (128.0 * rate**2)))
        k = np.arange(1, int(rate + 12.0 * np.sqrt(rate) + 60.0))
        return float(poisson.pmf(k, rate) @ np.sqrt(k))

    whole = quad(lambda u: 1.0 / mean_root(np.exp(u)), np.log(y), np.log(1e9 * max(1.0, y)), limit=300)[0]
    return 1.0 / (mean_root(y) * whole)


def test_table_of_plateau_exponents() -> None:
    """The table that decides which law a success rate follows, as the module says it."""
    table = {0.001: 0.997, 0.01: 0.978, 0.03: 0.947, 0.1: 0.870, 0.3: 0.749, 1.0: 0.599, 3.0: 0.522, 10.0: 0.504}
    for y, expected in table.items():
        assert universal_exponent(y) == pytest.approx(expected, abs=1.5e-3)
    # a finite group with small p0 follows it, up to the share sqrt(p0) of the time that the target adds
    group, y = 2000, np.array([0.01, 0.1, 1.0])
    finite = plateau_exponent(logit(y / group), 2.0, group)
    np.testing.assert_allclose(finite, [table[0.01], table[0.1], table[1.0]], rtol=6e-2)


@given(st.floats(-12.0, 0.0), GROUP)
def test_exponent_is_the_derivative_of_log_time(x0: float, group: int) -> None:
    h = 1e-4
    log_t = np.log(group_escape_time([x0 - h, x0 + h], x0 + 6.0, 1.0, group))
    log_p = np.log(expit([x0 - h, x0 + h]))
    slope = -float(np.diff(log_t)[0] / np.diff(log_p)[0])
    assert float(plateau_exponent(x0, x0 + 6.0, group)) == pytest.approx(slope, rel=1e-5)


# --- several contexts, one baseline -------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=9))
def test_poisson_binomial_is_a_law_with_the_right_moments(p: list[float]) -> None:
    law, probabilities = poisson_binomial(p), np.array(p)
    k = np.arange(len(p) + 1)
    assert law.sum() == pytest.approx(1.0, abs=1e-12)
    assert float(law @ k) == pytest.approx(probabilities.sum(), abs=1e-12)
    variance = (probabilities * (1.0 - probabilities)).sum()
    assert float(law @ (k - probabilities.sum()) ** 2) == pytest.approx(variance, abs=1e-11)
    np.testing.assert_allclose(poisson_binomial(np.full(7, 0.3)), binom.pmf(np.arange(8), 7, 0.3), rtol=1e-12)


@given(P, st.integers(2, 20), BASELINES, NORMALISERS, st.floats(0.0, 1.0))
def test_equal_contexts_are_one_group(p: float, group: int, baseline: str, normaliser: str, eps: float) -> None:
    total = float(shared_group_drift(np.full(group, p), baseline, normaliser, eps).sum())
    expected = float(group_normalised_drift(p, group, baseline, normaliser, eps))
    assert total == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("normaliser", ["population", "none"])
def test_weights_hold_for_any_policy_and_any_parameter(normaliser: str, rng: np.random.Generator) -> None:
    """Softmax policies over three outputs, two of them wrong, all with *shared* logits: 81 joint outputs enumerated."""
    group, outputs = 4, 3
    theta = rng.standard_normal(outputs)
    offsets = 1.5 * rng.standard_normal((group, outputs))  # the contexts of the four rollouts
    policies = np.array([softmax(theta + offset) for offset in offsets])
    right = np.array([1.0, 0.0, 0.0])
    update = np.zeros(outputs)
    for y in itertools.product(range(outputs), repeat=group):
        reward = right[list(y)]
        advantage = reward - reward.mean()
        if normaliser == "population":
            advantage = advantage / reward.std() if reward.std() > 0 else 0.0 * advantage
        score = np.eye(outputs)[list(y)] - policies
        chance = np.prod(policies[np.arange(group), list(y)])
        update += chance * (advantage[:, None] * score).mean(axis=0)
    p = policies[:, 0]
    gradients = p[:, None] * (np.eye(outputs)[0] - policies)  # grad p_i
    m = shared_group_weights(p, normaliser=normaliser)
    np.testing.assert_allclose(update, (m[:, None] * gradients).mean(axis=0), rtol=1e-12, atol=1e-15)
    if normaliser == "none":
        np.testing.assert_allclose(m, 0.75, rtol=1e-12)


@given(st.integers(2, 40))
def test_range_of_the_weights(group: int) -> None:
    gap = advantage_gap(np.arange(group), group)
    low, high = (float(v) for v in advantage_gap_range(group))
    assert gap.min() == pytest.approx(low, rel=1e-12)
    assert gap.max() == pytest.approx(high, rel=1e-12)
    np.testing.assert_allclose(gap, gap[::-1], rtol=1e-12)
    n = np.arange(group)
    np.testing.assert_allclose(gap, np.sqrt((group - 1 - n) / (n + 1)) + np.sqrt(n / (group - n)), rtol=1e-12)


def test_a_hard_context_keeps_its_plateau_whatever_its_companions() -> None:
    """Own update of a context with p -> 0 in a group of 8, per p: never above that in a group of its own kind."""
    p = 1e-7
    alone = np.sqrt(7.0) / 8.0  # a lone success, or a lone failure
    assert shared_group_drift(np.full(8, p))[0] / p == pytest.approx(alone, rel=1e-4)
    assert shared_group_drift(np.array([p] + [1.0] * 7))[0] / p == pytest.approx(alone, rel=1e-4)
    for others in (0.01, 0.1, 0.5, 0.9):
        mixed = shared_group_drift(np.array([p] + [others] * 7))
        assert mixed[0] / p <= alone * (1.0 + 1e-9)
        assert mixed[0] / p >= float(advantage_gap_range(8)[0]) / 8.0 * (1.0 - 1e-6)
        assert mixed.sum() > 100.0 * 8.0 * alone * p  # but the shared logit moves at once


def test_sure_contexts_make_a_live_group_without_signal() -> None:
    p = np.array([0.0, 0.0, 1.0, 1.0])
    assert float(shared_dead_group_probability(p)) == 0.0
    assert (shared_group_drift(p) == 0.0).all()
    assert (shared_group_weights(p) > 0.0).all()


@given(SEED, st.integers(2, 4), st.integers(2, 12))
def test_shared_update_is_the_within_context_share(seed: int, contexts: int, group: int) -> None:
    rng = np.random.default_rng(seed)
    p, w = rng.uniform(0.01, 0.99, contexts), rng.dirichlet(np.ones(contexts))
    mean = float(w @ p)
    within = float(w @ (p * (1.0 - p))) / (mean * (1.0 - mean))
    own = random_context_drift(p, w, group)
    assert float(own.sum()) == pytest.approx(float(group_normalised_drift(mean, group)) * within, rel=1e-10)
    equal = random_context_drift(np.full(contexts, 0.3), w, group)
    np.testing.assert_allclose(equal, w * group_normalised_drift(0.3, group), rtol=1e-10)
    assert (random_context_drift(np.zeros(contexts), w, group) == 0.0).all()


def test_neutral_variance_against_simulation(rng: np.random.Generator) -> None:
    """A logit whose scores are fair signs: variance of its update, 200,000 groups (relative error of a variance 1 %)."""
    p, group, n = 0.15, 6, 200_000
    r = (rng.random((n, group)) < p).astype(np.float64)
    spread = r.std(axis=1, keepdims=True)
    advantage = np.divide(r - r.mean(axis=1, keepdims=True), spread, out=np.zeros(r.shape), where=spread > 0.0)
    square = (advantage * rng.choice([-1.0, 1.0], r.shape)).mean(axis=1) ** 2
    assert abs(square.mean() - float(neutral_logit_variance(p, group))) < Z * square.std() / np.sqrt(n)


# --- several capped updates of one batch --------------------------------------------------------------------------------------


@given(SEED, st.integers(1, 6), st.floats(1.05, 6.0), st.floats(0.05, 3.0))
def test_capped_updates_against_rollouts(seed: int, updates: int, cap: float, lr: float) -> None:
    """The gradient of ``min(rho, cap) A log pi`` with the cap and rho held constant, rollout by rollout."""
    rng = np.random.default_rng(seed)
    x0, group = rng.uniform(-4.0, 4.0), 8
    r = np.zeros(group)
    r[: rng.integers(1, group)] = 1.0
    advantage = (r - r.mean()) / r.std()
    x = x0
    for _ in range(updates):
        ratio = np.where(r == 1.0, expit(x) / expit(x0), expit(-x) / expit(-x0))
        x += lr * float((np.minimum(ratio, cap) * advantage * (r - expit(x))).mean())
    update = float(group_logit_update(r.mean(), group))
    assert float(capped_displacement(x0, update, lr, updates, cap)) == pytest.approx(x - x0, rel=1e-9, abs=1e-12)


@given(st.floats(-12.0, 12.0), st.floats(0.0, 0.5), st.floats(0.0, 2.0), st.integers(1, 20), st.floats(1.01, 8.0))
def test_capped_displacement_within_its_bounds(x0: float, u: float, lr: float, updates: int, cap: float) -> None:
    moved = float(capped_displacement(x0, u, lr, updates, cap))
    low, high = (float(b) for b in capped_displacement_bounds(updates * lr * u, cap))
    assert low - 1e-11 <= moved <= high + 1e-11
    if updates * lr * u <= 1.0 - 1.0 / cap:  # inert
        assert moved == pytest.approx(float(capped_displacement(x0, u, lr, updates, np.inf)), abs=1e-13)


@given(st.floats(-12.0, 12.0), st.floats(0.0, 0.5), st.floats(0.0, 2.0), st.floats(1.001, 8.0))
def test_one_update_a_batch_is_on_policy(x0: float, u: float, lr: float, cap: float) -> None:
    assert float(capped_displacement(x0, u, lr, 1, cap)) == pytest.approx(lr * u, rel=1e-9, abs=1e-13)


def test_both_ends_of_the_capped_bounds_are_reached() -> None:
    steps, a = 20_000, 0.5
    low, high = capped_displacement_bounds(a, np.inf)
    assert float(capped_displacement(-25.0, 0.5, 2.0 * a / steps, steps, np.inf)) == pytest.approx(high, rel=1e-4)
    assert float(capped_displacement(25.0, 0.5, 2.0 * a / steps, steps, np.inf)) == pytest.approx(low, rel=1e-4)


# --- waiting -------------------------------------------------------------------------------------------------------------------


@given(st.floats(1e-9, 1.0 - 1e-6), GROUP, st.integers(1, 16))
def test_first_signal_is_geometric(p: float, group: int, groups: int) -> None:
    mean, variance = (float(v) for v in first_signal_wait(p, group, groups))
    live = 1.0 / mean
    assert variance == pytest.approx((1.0 - live) * mean**2, rel=1e-9, abs=1e-12 * mean**2)
    with mpmath.workdps(60):
        q = mpmath.mpf(p)
        exact = 1 - ((1 - q) ** group + q**group) ** groups
    assert live == pytest.approx(float(exact), rel=1e-9)


def simulate_escape(
    p0: float, group: int, rate: float, runs: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Batches until p = 1/2, run by run: dead batches are skipped by a geometric draw, live ones are drawn in full."""
    x, waited = np.full(runs, logit(p0)), np.zeros(runs)
    going = np.arange(runs)
    k = np.arange(1, group)
    while going.size:
        p = expit(x[going])
        weights = binom.pmf(k, group, p[:, None])
        live = weights.sum(axis=1)
        waited[going] += rng.geometric(live)
        pick = (weights.cumsum(axis=1) < (rng.random(going.size) * live)[:, None]).sum(axis=1)
        share = k[np.minimum(pick, group - 2)] / group
        x[going] += rate * np.sqrt(share * (1.0 - share))
        going = going[x[going] < 0.0]
    return waited, x


@pytest.mark.parametrize(("group", "rate"), [(8, 1.0), (8, 8.0), (16, 0.4), (3, 2.0)])
def test_spread_of_the_escape_time(group: int, rate: float, rng: np.random.Generator) -> None:
    """Mean and coefficient of variation over 4000 runs from p0 = 1e-5, G p0 at most 1.6e-4."""
    p0, runs = 1e-5, 4000
    waited, _ = simulate_escape(p0, group, rate, runs, rng)
    mean, cv = (float(v) for v in rare_escape_wait(p0, rate, group))
    error = waited.std() / np.sqrt(runs)
    # the limit p0 -> 0 is approached like G p0 log(1 / p0), a few parts in a thousand
    assert abs(waited.mean() - mean) < Z * error + 5e-3 * mean
    centred = (waited - waited.mean()) ** 2
    cv_error = centred.std() / np.sqrt(runs) / (2.0 * waited.var()) * cv  # delta method for the standard deviation
    assert abs(waited.std() / waited.mean() - cv) < Z * (cv_error + cv * error / mean) + 5e-3 * cv
    bound = float(escape_wait(logit(p0), 0.0, rate, group)[0])
    assert waited.mean() < bound + Z * error


def test_small_jumps_follow_the_mean_flow_and_large_ones_the_first_success() -> None:
    mean, cv = rare_escape_wait(1e-6, [1e-3, 1e3], 8)
    flow = mean_flow_wait(1e-6, [1e-3, 1e3], 8)
    jump = lone_success_jump([1e-3, 1e3], 8)
    np.testing.assert_allclose(mean / flow, [1.0 + 0.5 * jump[0], jump[1]], rtol=1e-6)
    np.testing.assert_allclose(cv, [np.sqrt(0.5 * jump[0]), 1.0], rtol=1e-6)
    # samples to escape do not depend on how many groups share a batch, if the jump is the same
    one, many = rare_escape_wait(1e-6, 1.0, 8, 1), rare_escape_wait(1e-6, 4.0, 8, 4)
    assert float(one[0]) == pytest.approx(4.0 * float(many[0]), rel=1e-12)
    assert float(one[1]) == pytest.approx(float(many[1]), rel=1e-12)


def test_escape_wait_becomes_the_mean_flow_for_small_jumps() -> None:
    mean, variance = escape_wait(logit(1e-3), 0.0, 1e-3, 3)
    assert float(mean) == pytest.approx(float(group_escape_time(logit(1e-3), 0.0, 1e-3, 3)), rel=1e-3)
    assert float(np.sqrt(variance) / mean) == pytest.approx(float(rare_escape_wait(1e-3, 1e-3, 3)[1]), rel=2e-2)


# --- bad input ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: group_normalised_drift(1.1, 4), "success_probability must lie in"),
        (lambda: group_normalised_drift(np.nan, 4), "success_probability must lie in"),
        (lambda: group_normalised_drift(0.5, 1), "group_size must be a whole number in 2"),
        (lambda: group_normalised_drift(0.5, 2.5), "group_size must be a whole number"),
        (lambda: group_normalised_drift(0.5, 4, "median"), "baseline must be one of"),
        (lambda: group_normalised_drift(0.5, 4, normaliser="std"), "normaliser must be one of"),
        (lambda: group_normalised_drift(0.5, 4, epsilon=-1.0), "epsilon must be nonnegative"),
        (lambda: group_logit_update(2.0, 4), "mean_reward must lie in"),
        (lambda: dead_group_probability(0.5, 10**6), "group_size"),
        (lambda: group_escape_time(0.0, 1.0, 0.0, 4), "rate must be positive"),
        (lambda: group_escape_time(np.inf, 1.0, 1.0, 4), "log_odds must be finite"),
        (lambda: group_escape_bounds(1.0, 0.0, 1.0, 4), "must not lie below"),
        (lambda: plateau_exponent(0.0, 0.0, 4), "must lie above"),
        (lambda: poisson_binomial([0.5, 1.5]), "probabilities must lie in"),
        (lambda: poisson_binomial(0.5), "axis of trials"),
        (lambda: advantage_gap(4, 4), "others_successes must be a whole number"),
        (lambda: shared_group_drift([0.5]), "at least 2 rollouts"),
        (lambda: shared_group_drift([0.5, -0.1]), "success_probabilities must lie in"),
        (lambda: random_context_drift([0.5, 0.5], [0.7, 0.7], 4), "sum to 1"),
        (lambda: random_context_drift([0.5, 0.5], [1.0], 4), "one number for each context"),
        (lambda: capped_displacement(0.0, 0.6, 1.0, 1, 2.0), "group_update must be at most 1/2"),
        (lambda: capped_displacement(0.0, 0.5, 1.0, 0, 2.0), "updates must be at least 1"),
        (lambda: capped_displacement(0.0, 0.5, 1.0, 1, 1.0), "ratio_cap must be above 1"),
        (lambda: capped_displacement_bounds(-0.1, 2.0), "on_policy must be nonnegative"),
        (lambda: first_signal_wait(0.0, 4), "strictly between 0 and 1"),
        (lambda: first_signal_wait(0.5, 4, 0), "groups must be a whole number"),
        (lambda: escape_wait(0.0, -1.0, 1.0, 4), "target_log_odds must lie above"),
        (lambda: escape_wait(-9.0, 0.0, 1e-9, 4), "at most 10,000,000 jumps are added up, .*: raise rate"),
        (lambda: rare_escape_wait(0.0, 1.0, 4), "success_probability must be positive"),
        (lambda: lone_success_jump(-1.0, 4), "rate must be positive"),
    ],
)
def test_malformed(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
