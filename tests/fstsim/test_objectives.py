"""What an objective promises: a gradient of its value, and unbiased estimates of it with the variance of theory 14.1.

Statistical tests state their chance of rejecting correct code, `FALSE_ALARM` for a whole test whatever the seed: a
threshold for m comparisons is the normal quantile at `FALSE_ALARM / m`.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import expit, logit

from fstsim.divergences import reverse_kl, two_mode_kl
from fstsim.errors import InputError
from fstsim.general import expectation
from fstsim.logistic_normal import logistic_normal_mean, logistic_normal_slope
from fstsim.objectives import ForwardKL, Objective, ReverseKL
from fstsim.overlap import overlap_gap
from fstsim.two_mode import TwoModeProblem, TwoModeState
from fstsim.whitened import Whitened

FALSE_ALARM = 1e-6

PLAIN = TwoModeProblem.separated(2.5, alpha=0.35)
SKEWED = TwoModeProblem(0.6, [0.0, 1.0], [2.0, -1.0], [[2.0, 0.8], [0.8, 0.5]])
SPACE = TwoModeProblem(0.2, np.zeros(3), [1.0, 2.0, 0.5], np.diag([1.0, 4.0, 0.25]))

CASES = {
    "new data": ForwardKL(PLAIN),
    "old data": ForwardKL(PLAIN, 1.0),
    "replay, skewed": ForwardKL(SKEWED, 0.3),
    "replay, space": ForwardKL(SPACE, 0.5),
    "reverse": ReverseKL(PLAIN),
    "reverse, skewed": ReverseKL(SKEWED),
    "reverse, space": ReverseKL(SPACE),
}


def learner(problem: TwoModeProblem) -> TwoModeState:
    """A state off the target in every coordinate."""
    return TwoModeState(-0.4, problem.mean_old + 0.3, problem.mean_new - 0.2)


def replicated(state: TwoModeState, count: int) -> TwoModeState:
    return TwoModeState(np.full(count, state.log_odds), state.mean_old, state.mean_new)


def flat(state: TwoModeState) -> np.ndarray:
    """``(..., 1 + 2 D)``."""
    return np.concatenate([state.log_odds[..., None], state.mean_old, state.mean_new], axis=-1)


def replicates(objective: Objective, count: int, batch: int, rng: np.random.Generator) -> np.ndarray:
    return flat(objective.estimate(replicated(learner(objective.problem), count), rng, batch))


# --- value and gradient ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_gradient_is_that_of_the_value(name: str) -> None:
    """Central differences with one Richardson step of 1e-2, in the problem's own coordinates."""
    objective = CASES[name]
    state = learner(objective.problem)
    d, at = objective.problem.dimension, flat(state)

    def central(h: float) -> np.ndarray:
        moved = at + h * np.concatenate([np.eye(at.size), -np.eye(at.size)])
        value = objective.value(TwoModeState(moved[:, 0], moved[:, 1 : 1 + d], moved[:, 1 + d :]))
        return (value[: at.size] - value[at.size :]) / (2.0 * h)

    numeric = (4.0 * central(0.5e-2) - central(1e-2)) / 3.0
    # h^4 / 480 times a fifth derivative of order sqrt(5!) in units of the smallest standard deviation, plus rounding
    narrow = np.linalg.eigvalsh(objective.problem.covariance)[0] ** 2.5
    np.testing.assert_allclose(
        flat(objective.gradient(state)), numeric, rtol=0.0, atol=1e-8 / 480.0 * 50.0 / narrow + 1e-12
    )


@given(st.floats(-5.0, 5.0), st.floats(0.0, 1.0))
def test_values_are_the_divergences(s: float, share: float) -> None:
    p, state = SKEWED, TwoModeState(s, SKEWED.mean_old + 0.1, SKEWED.mean_new)
    target = (p.whiten(p.mean_old), p.whiten(p.mean_new))
    now = (s, p.whiten(state.mean_old), p.whiten(state.mean_new))
    with np.errstate(divide="ignore"):
        s_train = np.log(share) - np.log1p(-share)
    assert float(ForwardKL(p, share).value(state)) == pytest.approx(
        float(two_mode_kl(Whitened(s_train, *target), Whitened(*now)))
    )
    assert float(ReverseKL(p).value(state)) == pytest.approx(float(reverse_kl(*now, p.log_odds, *target)))


@pytest.mark.parametrize("problem", [PLAIN, SKEWED, SPACE])
def test_the_target_is_stationary(problem: TwoModeProblem) -> None:
    for objective in (ForwardKL(problem, problem.alpha), ReverseKL(problem)):
        assert float(objective.value(problem.target)) == pytest.approx(0.0, abs=1e-14)
        np.testing.assert_allclose(flat(objective.gradient(problem.target)), 0.0, atol=1e-13)


# --- estimates -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [2, 16])
@pytest.mark.parametrize("name", CASES)
def test_estimate_is_unbiased(name: str, batch: int, rng: np.random.Generator) -> None:
    """z-test of the mean of many replicates in every coordinate; two samples are the least that leave-one-out takes."""
    objective, count = CASES[name], 8000
    g = replicates(objective, count, batch, rng)
    exact = flat(objective.gradient(learner(objective.problem)))
    z = (g.mean(axis=0) - exact) / (g.std(axis=0, ddof=1) / np.sqrt(count))
    assert np.abs(z).max() < stats.norm.isf(FALSE_ALARM / 2.0 / z.size)


def test_a_single_sample_is_unbiased_for_forward_kl(rng: np.random.Generator) -> None:
    objective = ForwardKL(SKEWED, 0.3)
    g = replicates(objective, 20_000, 1, rng)
    z = (g.mean(axis=0) - flat(objective.gradient(learner(SKEWED)))) / (g.std(axis=0, ddof=1) / np.sqrt(len(g)))
    assert np.abs(z).max() < stats.norm.isf(FALSE_ALARM / 2.0 / z.size)


@pytest.mark.parametrize("name", CASES)
def test_replicates_are_independent(name: str, rng: np.random.Generator) -> None:
    """Neighbours along the batch axis are uncorrelated: Fisher's z of n pairs has standard deviation 1 / sqrt(n - 3)."""
    g = replicates(CASES[name], 8000, 8, rng)[:, 0]
    correlation = np.corrcoef(g[0::2], g[1::2])[0, 1]
    assert abs(np.arctanh(correlation)) * np.sqrt(g.size / 2 - 3) < stats.norm.isf(FALSE_ALARM / 2.0)


def variance_limits(count: int, excess_kurtosis: float) -> tuple[float, float]:
    """Limits of sample variance / variance. The sample variance of ``count`` values has relative variance
    ``2 / (count - 1) + excess / count``: chi-squared with the degrees of freedom that have the same variance."""
    freedom = 2.0 / (2.0 / (count - 1) + excess_kurtosis / count)
    return (
        stats.chi2.ppf(FALSE_ALARM / 2.0, freedom) / freedom,
        stats.chi2.isf(FALSE_ALARM / 2.0, freedom) / freedom,
    )


def responsibility_law(objective: ForwardKL, state: TwoModeState) -> tuple[float, float]:
    """Variance of one ``r_o(x)`` under the training density by theory 14.1, and its excess kurtosis by a 1-D sum."""
    p, s = objective.problem, float(state.log_odds)
    m_o, m_n = p.whiten(state.mean_old), p.whiten(state.mean_new)
    gap, scale = m_o - m_n, float(np.linalg.norm(m_o - m_n))
    weights = np.array([objective.old_fraction, 1.0 - objective.old_fraction])
    loc = np.array([s + gap @ (p.whiten(c) - 0.5 * (m_o + m_n)) for c in (p.mean_old, p.mean_new)])
    first, both = logistic_normal_mean(loc, scale), logistic_normal_slope(loc, scale)
    mean, variance = weights @ first, weights @ (first - both) - (weights @ first) ** 2

    u = np.arange(-9.5, 9.5, 0.05)
    density = 0.05 * stats.norm.pdf(u)
    centred = expit(loc[:, None] + scale * u) - mean
    assert weights @ (centred**2 @ density) == pytest.approx(variance, rel=1e-9)
    return float(variance), float(weights @ (centred**4 @ density) / variance**2 - 3.0)


FORWARD = [name for name, objective in CASES.items() if isinstance(objective, ForwardKL)]


@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("name", FORWARD)
def test_forward_variance(name: str, batch: int, rng: np.random.Generator) -> None:
    objective, count = CASES[name], 10_000
    assert isinstance(objective, ForwardKL)
    variance, excess = responsibility_law(objective, learner(objective.problem))
    sample_variance = replicates(objective, count, batch, rng)[:, 0].var(ddof=1)
    low, high = variance_limits(count, excess / batch)  # cumulants of a mean of N: excess / N
    assert low < sample_variance / (variance / batch) < high


@given(st.floats(-5.0, 5.0), st.floats(0.1, 8.0))
def test_forward_variance_bounds(s: float, delta: float) -> None:
    """14.1 on new data with the components right: at most ``beta (1 - kappa)`` and ``1/4``, per sample."""
    problem = TwoModeProblem.separated(delta)
    loc = s - delta**2 / 2.0
    first, both = float(logistic_normal_mean(loc, delta)), float(logistic_normal_slope(loc, delta))
    variance = first - both - first**2
    assert variance <= float(expit(s) * overlap_gap(s, problem.separation)) + 1e-14
    assert variance <= 0.25


def separated_reverse_law(beta: float, alpha: float, batch: int) -> tuple[float, float, float]:
    """Mean, variance and excess kurtosis of the estimate when every sample shows its mode: a sum over the binomial."""
    k = np.arange(batch + 1)
    probability = stats.binom.pmf(k, batch, beta)
    old, new = np.log(beta / alpha), np.log((1.0 - beta) / (1.0 - alpha))
    mean_ratio = (k * old + (batch - k) * new) / batch
    scale = batch / (batch - 1.0)
    g = scale * (k * (old - mean_ratio) * (1.0 - beta) - (batch - k) * (new - mean_ratio) * beta) / batch
    mean = probability @ g
    variance = probability @ (g - mean) ** 2
    return mean, variance, probability @ (g - mean) ** 4 / variance**2 - 3.0


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("batch", [2, 6, 40])
def test_reverse_variance_with_leave_one_out(beta: float, batch: int, rng: np.random.Generator) -> None:
    """14.1: ``b (1-b) dA^2 [(1-2b)^2 / N + 2 b (1-b) / (N (N-1))]`` when separated; at delta = 14 overlap is 1e-11."""
    alpha, count = 0.4, 20_000
    problem = TwoModeProblem.separated(14.0, alpha)
    mean, variance, excess = separated_reverse_law(beta, alpha, batch)
    gap, spread = logit(beta) - logit(alpha), beta * (1.0 - beta)
    formula = spread * gap**2 * ((1.0 - 2.0 * beta) ** 2 / batch + 2.0 * spread / (batch * (batch - 1.0)))
    assert variance == pytest.approx(formula, rel=1e-10)

    objective, state = ReverseKL(problem), problem.initial(beta)
    assert mean == pytest.approx(float(objective.gradient(state).log_odds), rel=1e-9)
    g = objective.estimate(replicated(state, count), rng, batch).log_odds
    low, high = variance_limits(count, excess)
    assert low < g.var(ddof=1) / variance < high


def leave_one_out_excess(objective: Objective) -> np.ndarray:
    """``c`` in ``variance = (1 + c / (N - 1)) a / N``, for every coordinate.

    Forward KL averages independent terms: 0. The leave-one-out estimate is the sample covariance of the log-ratio
    ``A`` and the score ``g``, whose variance is ``(mu_22 - s_Ag^2) / N + (s_A^2 s_g^2 + s_Ag^2) / (N (N - 1))``.
    """
    p = objective.problem
    state = learner(p)
    if isinstance(objective, ForwardKL):
        return np.zeros(1 + 2 * p.dimension)
    q, target, beta = state.mixture(p.covariance), p.mixture, float(state.old_mass)

    def moments(x: np.ndarray) -> np.ndarray:
        r = q.responsibilities(x)
        by_mean = -r[..., None] * q.component_score(x)
        g = np.concatenate([r[:, :1] - beta, by_mean[:, 0], by_mean[:, 1]], axis=-1)
        a = (q.log_prob(x) - target.log_prob(x) - float(objective.value(state)))[:, None]
        return np.stack([a**2 * g**2, a * g, np.broadcast_to(a**2, g.shape), g**2], axis=1)

    both, cross, ratio, score = expectation(q, moments).value
    return (ratio * score + cross**2) / (both - cross**2)


@pytest.mark.parametrize("name", [name for name in CASES if name != "reverse, space"])
def test_four_times_the_batch_halves_the_standard_deviation(name: str, rng: np.random.Generator) -> None:
    """Ratio of two sample variances in every coordinate, as the normal limit of its logarithm: each has variance
    ``(kurtosis - 1) / count``, the kurtosis measured. The leave-one-out factor is not 4 but nearly, and known."""
    objective, count, batch = CASES[name], 4000, 16
    runs = [replicates(objective, count, n, rng) for n in (batch, 4 * batch)]
    excess = leave_one_out_excess(objective)
    expected = np.log(4.0 * (1.0 + excess / (batch - 1.0)) / (1.0 + excess / (4.0 * batch - 1.0)))
    log_ratio = np.log(runs[0].var(axis=0, ddof=1) / runs[1].var(axis=0, ddof=1))
    noise = sum((stats.kurtosis(g, axis=0, fisher=False) - 1.0) / count for g in runs)
    allowed = stats.norm.isf(FALSE_ALARM / 2.0 / log_ratio.size) * np.sqrt(noise)
    assert (np.abs(log_ratio - expected) < allowed).all()
    # Standard deviations that fall by 1.4 or 2.8 instead of 2 would be seen: the test is not vacuous.
    assert (allowed < np.log(2.0)).all()


@pytest.mark.parametrize("make", [ForwardKL, ReverseKL])
def test_covariance_is_a_change_of_coordinates(make, rng: np.random.Generator) -> None:
    """With a lower triangular A, ``x -> A x`` maps the very samples of the plain problem onto those of the other one:
    the estimates agree sample by sample, means transforming like a gradient."""
    a = np.array([[1.5, 0.0, 0.0], [-0.7, 0.4, 0.0], [2.0, 1.0, 3.0]])
    plain = TwoModeProblem(0.3, [0.0, 0.0, 0.0], [1.0, 2.0, -1.0], np.eye(3))
    moved = TwoModeProblem(0.3, a @ plain.mean_old, a @ plain.mean_new, a @ a.T)
    state = learner(plain)
    moved_state = TwoModeState(state.log_odds, a @ state.mean_old, a @ state.mean_new)
    seed = rng.integers(2**32)
    first = make(plain).estimate(state, np.random.default_rng(seed), 8)
    second = make(moved).estimate(moved_state, np.random.default_rng(seed), 8)
    assert float(first.log_odds) == pytest.approx(float(second.log_odds), rel=1e-10)
    for g, h in ((first.mean_old, second.mean_old), (first.mean_new, second.mean_new)):
        np.testing.assert_allclose(np.linalg.solve(a.T, g), h, rtol=1e-9, atol=1e-12)


# --- batches and errors ----------------------------------------------------------------------------------------------


def test_eight_learners_with_one_sample_are_one_with_eight() -> None:
    """The mean of eight single-sample gradients is the gradient of the batch of eight, drawn from the same stream."""
    objective = ForwardKL(SKEWED, 0.3)
    one = objective.estimate(learner(SKEWED), np.random.default_rng(7), 8)
    eight = objective.estimate(replicated(learner(SKEWED), 8), np.random.default_rng(7), 1)
    np.testing.assert_allclose(flat(eight).mean(axis=0), flat(one), rtol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_batch_axes(name: str) -> None:
    """Exact methods agree entry by entry; an estimate has the shape of its state, whatever the layout of the axes."""
    objective = CASES[name]
    d = objective.problem.dimension
    shift = np.linspace(-1.0, 1.0, 8)
    old, new = objective.problem.mean_old + shift[:, None], objective.problem.mean_new - shift[:, None]
    rows = TwoModeState(shift[:, None], old[:, None], new[:, None])
    columns = TwoModeState(shift[None], old[None], new[None])
    assert objective.value(rows).shape == (8, 1)
    np.testing.assert_allclose(
        objective.value(rows)[:, 0], objective.value(columns)[0], rtol=1e-12
    )  # sums of other lengths round differently
    for method in (
        objective.gradient,
        lambda state: objective.estimate(state, np.random.default_rng(3), 4),
    ):
        first, second = method(rows), method(columns)
        assert first.mean_old.shape == (8, 1, d)
        np.testing.assert_allclose(flat(first)[:, 0], flat(second)[0], rtol=1e-12, atol=1e-14)
    for k in range(8):
        one = TwoModeState(shift[k], old[k], new[k])
        assert float(objective.value(one)) == pytest.approx(float(objective.value(rows)[k, 0]), rel=1e-12)
        np.testing.assert_allclose(
            flat(objective.gradient(one)), flat(objective.gradient(rows))[k, 0], rtol=1e-11, atol=1e-14
        )


def test_estimates_are_reproducible_and_differ_between_calls() -> None:
    for objective in CASES.values():
        state = learner(objective.problem)
        rng, again = np.random.default_rng(11), np.random.default_rng(11)
        first = flat(objective.estimate(state, rng, 5))
        np.testing.assert_array_equal(first, flat(objective.estimate(state, again, 5)))
        assert not np.array_equal(first, flat(objective.estimate(state, rng, 5)))


@pytest.mark.parametrize("fraction", [-0.1, 1.1, np.nan])
def test_bad_old_fraction_is_named(fraction: float) -> None:
    with pytest.raises(InputError, match="old_fraction must lie in"):
        ForwardKL(PLAIN, fraction)


def test_bad_batch_and_dimension_are_named(rng: np.random.Generator) -> None:
    with pytest.raises(InputError, match="batch must be at least 1"):
        ForwardKL(PLAIN).estimate(learner(PLAIN), rng, 0)
    with pytest.raises(InputError, match="batch must be at least 2"):
        ReverseKL(PLAIN).estimate(learner(PLAIN), rng, 1)
    for objective in (ForwardKL(PLAIN), ReverseKL(PLAIN)):
        with pytest.raises(InputError, match="dimension 2"):
            objective.value(learner(SKEWED))
        with pytest.raises(InputError, match="dimension 2"):
            objective.gradient(learner(SKEWED))
        with pytest.raises(InputError, match="dimension 2"):
            objective.estimate(learner(SKEWED), rng, 4)
