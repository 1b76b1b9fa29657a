"""Replay, leashes and starvation (theory 6 and 7): closed forms against flows, minimisers, mpmath and finite batches."""

from __future__ import annotations

from collections.abc import Callable

import mpmath
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

from fstsim import SGD, ForwardKL, GradientFlow, InputError, ReverseKL, TwoModeProblem, TwoModeState, simulate
from fstsim.overlap import harmonic_overlap
from fstsim.replay_objectives import Direction, KLLeash, ReverseKLReplay, replay_importance_weights
from fstsim.simulate import gradient_flow
from fstsim.theory import fisher_information, mass_forgetting_separated, mass_forgetting_time
from fstsim.theory.leashes import kl_leash_bounds, kl_leash_equilibrium, kl_leash_log_odds, kl_leash_small_strength
from fstsim.theory.noise import gradient_variance, recovery_steps, sampled_gradients, separated_gradient_variance
from fstsim.theory.overlap import second_moment_constant
from fstsim.theory.replay import (
    replay_equilibrium,
    replay_excursion,
    replay_old_mean_force,
    replay_time,
    replay_weight_rate,
)
from fstsim.theory.starvation import (
    effective_sample_fraction,
    effective_sample_size,
    expected_batches_to_old,
    recovery_time_bounds,
    replay_gradient_variance,
    replay_harm_threshold,
    starvation_probability,
    zero_signal_probability,
)

MASSES = st.floats(0.01, 0.99)
LOGITS = st.floats(-5.0, 5.0)
DELTAS = st.floats(0.5, 10.0)
STRENGTHS = st.floats(0.02, 30.0)


def tilted_problem(alpha: float = 0.4) -> TwoModeProblem:
    """Two dimensions and a covariance that is not the identity: whitening has something to do."""
    return TwoModeProblem(alpha, [0.0, 0.5], [2.0, 1.0], [[1.5, 0.3], [0.3, 0.7]])


# --- forward KL with replayed data (6.1) --------------------------------------------------------------------------------


@given(MASSES, DELTAS)
def test_replay_rests_at_the_share_with_the_right_components(share: float, delta: float) -> None:
    problem = TwoModeProblem.separated(delta, dimension=2)
    rest = ForwardKL(problem, share).gradient(problem.initial(float(replay_equilibrium(share))))
    for part in (rest.log_odds, rest.mean_old, rest.mean_new):
        np.testing.assert_allclose(part, 0.0, atol=1e-13 * (1.0 + delta))
    assert abs(float(replay_weight_rate(logit(share), share, delta))) < 1e-15


@pytest.mark.parametrize(("delta", "share"), [(1.5, 0.5), (3.0, 0.2), (5.0, 0.05)])
def test_joint_flow_ends_at_the_replay_share(delta: float, share: float) -> None:
    problem = TwoModeProblem.separated(delta)
    horizon = 16.0 / float(np.linalg.eigvalsh(fisher_information(share, delta))[0])  # e^-16 = 1e-7
    end = gradient_flow(problem, ForwardKL(problem, share), problem.initial(0.7), horizon)(horizon)
    assert abs(float(end.old_mass) - share) < 1e-6
    assert abs(float(end.mean_old[0])) < 1e-5
    assert abs(float(end.mean_new[0]) - delta) < 1e-5


@given(MASSES, MASSES, st.floats(0.01, 0.99), DELTAS)
def test_time_to_a_level_is_additive_signed_and_slowed_by_overlap(a: float, b: float, share: float, d: float) -> None:
    # the levels are put on one side of the share
    low, high = sorted((share * a, share * b))
    assume(low > 1e-6 and high < share * 0.999 and high > low * 1.01)
    middle = 0.5 * (low + high)
    whole = replay_time(low, high, share)
    assert whole > 0.0
    np.testing.assert_allclose(replay_time(low, middle, share) + replay_time(middle, high, share), whole, rtol=1e-9)
    np.testing.assert_allclose(replay_time(high, low, share), -whole, rtol=1e-12)
    # the two labels are alike
    np.testing.assert_allclose(replay_time(1.0 - low, 1.0 - high, 1.0 - share), whole, rtol=1e-8)
    slowed = float(replay_time(low, high, share, d))
    worst = harmonic_overlap(max(abs(logit(low)), abs(logit(high))), d)
    assert whole * (1.0 - 1e-9) <= slowed <= whole / (1.0 - worst) * (1.0 + 1e-7)


@given(st.floats(0.05, 0.95), st.floats(0.1, 0.9))
def test_without_replay_the_time_is_that_of_mass_forgetting(beta0: float, part: float) -> None:
    beta1 = beta0 * part
    time = float(replay_time(beta0, beta1, 0.0))
    np.testing.assert_allclose(mass_forgetting_separated(beta0, time), beta1, rtol=1e-9)
    np.testing.assert_allclose(replay_time(beta0, beta1, 1e-12), time, rtol=1e-9)
    np.testing.assert_allclose(replay_time(beta0, beta1, 1e-7, 2.5), mass_forgetting_time(beta0, beta1, 2.5), rtol=1e-4)


@given(MASSES, MASSES, st.floats(1e-9, 0.9))
def test_time_against_the_textbook_antiderivative_in_50_digits(a: float, b: float, share: float) -> None:
    assume(min(a, b) > share * 1.001 and abs(a - b) > 1e-4)
    with mpmath.workdps(50):
        lam = mpmath.mpf(share)

        def gamma(x: float) -> mpmath.mpf:
            x = mpmath.mpf(x)
            return mpmath.log(x) / lam + mpmath.log(1 - x) / (1 - lam) - mpmath.log(x - lam) / (lam * (1 - lam))

        expected = float(gamma(b) - gamma(a))
    np.testing.assert_allclose(replay_time(a, b, share), expected, rtol=1e-9)


@pytest.mark.parametrize("delta", [1.0, 3.0, 7.0])
def test_time_is_that_of_the_flow(delta: float) -> None:
    problem = TwoModeProblem.separated(delta)
    time = float(replay_time(0.8, 0.3, 0.2, delta))
    flow = gradient_flow(
        problem, ForwardKL(problem, 0.2), problem.initial(0.8), time, GradientFlow(train="weight", rtol=1e-10)
    )
    np.testing.assert_allclose(flow(time).old_mass, 0.3, rtol=1e-7)


def test_natural_gradient_under_replay_is_exponential_for_every_overlap() -> None:
    for delta in (0.8, 3.0):
        problem = TwoModeProblem.separated(delta)
        how = GradientFlow(0.1, geometry="fisher", train="weight")
        run = simulate(problem, ForwardKL(problem, 0.3), problem.initial(0.9), how, 40)
        np.testing.assert_allclose(run.old_mass, 0.3 + 0.6 * np.exp(-run.time), rtol=1e-6)


# --- the old mean under replay ------------------------------------------------------------------------------------------


@given(LOGITS, MASSES, DELTAS)
def test_old_mean_is_dragged_toward_the_new_data_above_the_share_and_away_below(
    s: float, share: float, d: float
) -> None:
    problem = TwoModeProblem.separated(d)
    state = TwoModeState(s, problem.mean_old, problem.mean_new)
    force = float(replay_old_mean_force(s, share, d))
    np.testing.assert_allclose(-ForwardKL(problem, share).gradient(state).mean_old[0], force, rtol=1e-9, atol=1e-15)
    assert np.sign(force) == np.sign(expit(s) - share)


def peak_excursion(delta: float, beta0: float, share: float) -> tuple[float, float, float]:
    """Largest shift of the old mean, the time when it is reached (units of 1/share), and the last shift."""
    problem = TwoModeProblem.separated(delta)
    horizon = 60.0 / share
    flow = gradient_flow(problem, ForwardKL(problem, share), problem.initial(beta0), horizon)
    times = np.linspace(0.0, horizon, 30_001)
    shift = flow(times).mean_old[:, 0]
    k = int(np.abs(shift).argmax())
    return float(shift[k]), float(times[k] * share), float(shift[-1])


def test_replay_fixes_the_end_not_the_way() -> None:
    peak, _, last = peak_excursion(1.5, 0.5, 0.05)
    assert round(peak, 2) == 0.99  # two thirds of the separation
    # and it takes the slowest rate, 6e-4, to undo it: 1200 time units later most of it is still there
    assert 0.75 * peak < last < 0.85 * peak
    problem = TwoModeProblem.separated(1.5)
    end = gradient_flow(problem, ForwardKL(problem, 0.05), problem.initial(0.5), 20_000.0)(20_000.0)
    assert abs(float(end.mean_old[0])) < 1e-4
    assert np.isnan(replay_excursion(1.5, 0.5, 0.05)[0])  # and no certificate promises less


@pytest.mark.parametrize(
    ("delta", "beta0", "share"), [(6.0, 0.5, 0.05), (6.0, 0.9, 0.2), (6.0, 0.1, 0.3), (8.0, 0.5, 0.01)]
)
def test_excursion_certificate_and_leading_order(delta: float, beta0: float, share: float) -> None:
    peak, _, last = peak_excursion(delta, beta0, share)
    bound, leading = replay_excursion(delta, beta0, share)
    assert abs(peak) <= bound < 5.0 * abs(peak)
    assert np.sign(peak) == np.sign(beta0 - share)
    assert abs(peak) <= leading < 1.35 * abs(peak)  # the next order is 1/delta^2 times (log of the replay share)^2
    assert abs(last) < 1e-3 * abs(peak)


def smallest_certificate(delta: float, beta0: float, share: float) -> float:
    """The inequalities of `replay_excursion`'s docstring as equations, iterated from 0, with the integral by quadrature."""
    s0, rho, v = float(logit(beta0)), 0.0, 0.0
    low, high = min(s0, float(logit(share))), max(s0, float(logit(share)))
    for _ in range(200):
        reach, closest = delta + (rho + v), delta - (rho + v)
        constant = float(second_moment_constant(closest))
        overlap_new, overlap_old = (np.exp((4.0 * w * w - closest**2) / 8.0) for w in (v, rho))
        largest = max(abs(high), abs(float(logit(share))))  # on the way down to the share
        k = (1.0 - share) * overlap_new * np.cosh(largest / 2.0)
        rest = share / (1.0 - k)
        eps_old, eps_new = np.exp(-low / 2.0) * overlap_old / 2.0, np.exp(high / 2.0) * overlap_new / 2.0
        y = np.sqrt(rest / (1.0 - rest))
        way = quad(lambda x, y=y: 2.0 * (1.0 + x * x) * (1.0 + y * y) / (x * (x + y)), y, np.exp(high / 2.0))[0]
        damped = y / (share * (1.0 - eps_old)) + way / (1.0 - k)
        by_new, by_old = (1.0 - share) * constant * overlap_new, share * constant * overlap_old * np.exp(-low / 2.0)
        up, down = by_new * damped * reach, by_new * damped * v + by_old * reach / (share * (1.0 - eps_old))
        left = max(by_new * np.exp(high / 2.0) * reach + by_old * rho, by_old * (reach + rho))
        rho, v = max(up, down), left / ((1.0 - share) * (1.0 - eps_new))
        low, high = min(s0, float(logit(share * (1.0 - eps_old)))), max(s0, float(logit(rest)))
    return rho


@pytest.mark.parametrize(
    ("delta", "beta0", "share"),
    [(6.0, 0.5, 0.05), (6.0, 0.9, 0.2), (5.0, 0.5, 0.3), (5.0, 0.2, 0.4), (4.5, 0.6, 0.5), (8.0, 0.5, 0.01)],
)
def test_the_excursion_bound_solves_its_inequalities(delta: float, beta0: float, share: float) -> None:
    bound = float(replay_excursion(delta, beta0, share)[0])
    assert bound == pytest.approx(smallest_certificate(delta, beta0, share), rel=1e-6)


def test_excursion_grows_like_the_inverse_root_of_the_share() -> None:
    # the constant: w artanh w = 1/2, peak 2 (1 - w^2) artanh w
    w = float(mpmath.findroot(lambda x: x * mpmath.atanh(x) - 0.5, 0.65))
    constant = 2.0 * (1.0 - w * w) * np.arctanh(w)
    assert round(constant, 4) == 0.8955
    assert round(-np.log(1.0 - w * w), 3) == 0.544
    share = 10.0 ** -np.arange(2.0, 9.0)
    scaled = replay_excursion(12.0, 0.5, share)[1] * np.sqrt(share) * np.exp(18.0) / np.sqrt(np.pi / 8.0)
    assert (np.abs(scaled - constant) < 4.0 * share + 1e-4).all()  # next order, and the grid of the peak


# --- leashes (6.2) --------------------------------------------------------------------------------------------------------


def test_numbers_of_the_theory() -> None:
    found = kl_leash_equilibrium(0.0, 0.2, [2.0, 3.0, 4.0, 6.0, 8.0], "reverse")
    np.testing.assert_allclose(found, [0.0358, 0.0189, 0.0110, 0.0068, 0.0065], atol=6e-5)
    np.testing.assert_allclose(kl_leash_equilibrium(0.0, 0.2, direction="reverse"), 0.00648, atol=6e-6)


@given(LOGITS, st.floats(1e-3, 1e3))
def test_separated_leash_solves_its_equation(base: float, eta: float) -> None:
    s = float(kl_leash_log_odds(base, eta, None, "reverse"))
    assert s < base
    # the residual 1 + e^s + eta (s - base), to the rounding of its terms
    assert abs(1.0 + np.exp(s) + eta * (s - base)) < 1e-13 * (1.0 + np.exp(s) + eta * abs(s) + eta * abs(base))


@given(LOGITS, STRENGTHS, DELTAS)
def test_forward_leash_is_replay(base: float, eta: float, delta: float) -> None:
    problem = TwoModeProblem.separated(delta, dimension=2)
    share = float(kl_leash_equilibrium(base, eta, delta, "forward"))
    np.testing.assert_allclose(share, eta * expit(base) / (1.0 + eta), rtol=1e-12)
    state = TwoModeState(base - 1.0, [0.3, -0.2], [delta, 0.4])
    leash = KLLeash(problem, problem.initial(float(expit(base))), eta).gradient(state)
    replay = ForwardKL(problem, share).gradient(state)
    for name in ("log_odds", "mean_old", "mean_new"):
        np.testing.assert_allclose(getattr(leash, name), (1.0 + eta) * getattr(replay, name), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@given(base=LOGITS, eta=STRENGTHS, delta=DELTAS)
def test_loss_is_level_at_the_equilibrium_and_rises_on_both_sides(
    direction: Direction, base: float, eta: float, delta: float
) -> None:
    problem = TwoModeProblem.separated(delta)
    loss = KLLeash(problem, problem.initial(float(expit(base))), eta, direction)
    s = float(kl_leash_log_odds(base, eta, delta, direction))
    below, here, above = loss.gradient(TwoModeState([s - 0.1, s, s + 0.1], [0.0], problem.mean_new)).log_odds
    assert below < 0.0 < above
    assert abs(here) < 1e-7 * (above - below) + 1e-15


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize(("base", "eta", "delta"), [(0.0, 0.2, 2.0), (-1.5, 0.5, 4.0), (2.0, 3.0, 1.0)])
def test_equilibrium_against_direct_minimisation(direction: Direction, base: float, eta: float, delta: float) -> None:
    problem = TwoModeProblem.separated(delta)
    loss = KLLeash(problem, problem.initial(float(expit(base))), eta, direction)

    def value(s: float) -> float:
        return float(loss.value(TwoModeState(s, problem.mean_old, problem.mean_new)))

    s = float(kl_leash_log_odds(base, eta, delta, direction))
    found = minimize_scalar(value, bracket=(s - 1.0, s + 0.7), tol=1e-10)
    # a minimum is flat: its place is known to the root of the rounding of the value over the curvature
    assert abs(found.x - s) < 1e-6


@given(LOGITS, STRENGTHS, DELTAS, st.sampled_from(["forward", "reverse"]))
def test_leash_is_monotone_and_ends_at_the_base(base: float, eta: float, delta: float, direction: Direction) -> None:
    values = kl_leash_log_odds(base, [eta, 1.3 * eta, 1e9], delta, direction)
    assert values[0] < values[1] < values[2] < base
    assert base - values[2] < 1e-6


@given(LOGITS, STRENGTHS, DELTAS)
def test_reverse_leash_between_its_bounds(base: float, eta: float, delta: float) -> None:
    lower, upper = kl_leash_bounds(base, eta, delta)
    exact = kl_leash_log_odds(base, eta, delta, "reverse")
    assert lower <= exact * (1.0 + 1e-12) + 1e-10
    assert exact <= upper + 1e-10
    separated = kl_leash_log_odds(base, eta, None, "reverse")
    if separated < 0.0 and abs(separated) >= abs(base):
        assert exact >= separated - 1e-10


def test_weak_reverse_leash_is_linear_with_overlap_and_exponential_without() -> None:
    eta = np.array([1e-2, 1e-3, 1e-4])
    ratio = kl_leash_equilibrium(0.0, eta, 1.0, "reverse") / kl_leash_small_strength(0.0, eta, 1.0)
    assert (np.diff(np.abs(ratio - 1.0)) < 0.0).all()
    np.testing.assert_allclose(ratio[-1], 1.0, atol=1e-3)
    np.testing.assert_allclose(kl_leash_log_odds(0.0, eta, None, "reverse"), -1.0 / eta, rtol=1e-9)


def test_reverse_leash_hardly_pins_the_old_mean() -> None:
    # both leashes of one strength and one base: what pulls a displaced old mean back is eta times the *mass* that is left
    problem = TwoModeProblem.separated(10.0)
    pull = {}
    for direction in ("forward", "reverse"):
        leash = KLLeash(problem, problem.initial(0.5), 0.2, direction)  # type: ignore[arg-type]
        s = float(kl_leash_log_odds(0.0, 0.2, 10.0, direction))  # type: ignore[arg-type]
        here, there = (leash.gradient(TwoModeState(s, [x], problem.mean_new)).mean_old[0] for x in (0.0, 0.1))
        pull[direction] = float(there - here) / 0.1
    np.testing.assert_allclose(pull["forward"], 0.2 * 0.5, rtol=1e-2)
    np.testing.assert_allclose(pull["reverse"], 0.2 * 0.00648, rtol=1e-2)


# --- the objectives -------------------------------------------------------------------------------------------------------


def objectives() -> list[KLLeash | ReverseKLReplay]:
    problem = tilted_problem()
    base = TwoModeState(0.3, [0.1, 0.4], [2.5, 1.2])
    return [
        KLLeash(problem, base, 0.6),
        KLLeash(problem, base, 0.6, "reverse"),
        ReverseKLReplay(problem, 0.3),
    ]


NAMES = ["forward leash", "reverse leash", "replay"]


@pytest.mark.parametrize("k", range(3), ids=NAMES)
@given(s=st.floats(-4.0, 4.0), shift=st.lists(st.floats(-1.0, 1.0), min_size=4, max_size=4))
def test_gradient_against_finite_differences(k: int, s: float, shift: list[float]) -> None:
    objective = objectives()[k]
    start = np.array([s, *(np.array([0.0, 0.5, 2.0, 1.0]) + np.array(shift))])

    g = objective.gradient(TwoModeState(start[0], start[1:3], start[3:]))
    exact = np.concatenate([g.log_odds[None], g.mean_old, g.mean_new])
    h = 1e-5
    y = start + h * np.concatenate([np.eye(5), -np.eye(5)])
    values = objective.value(TwoModeState(y[:, 0], y[:, 1:3], y[:, 3:]))
    np.testing.assert_allclose(exact, (values[:5] - values[5:]) / (2.0 * h), atol=1e-8)


@pytest.mark.parametrize("k", range(3), ids=NAMES)
@pytest.mark.parametrize("batch", [4, 7])
def test_estimate_is_unbiased(k: int, batch: int, rng: np.random.Generator) -> None:
    objective = objectives()[k]
    replicates = 60_000
    many = TwoModeState(np.full(replicates, -0.7), [0.3, 0.1], [1.7, 1.4])
    estimate = objective.estimate(many, rng, batch)
    exact = objective.gradient(TwoModeState(-0.7, [0.3, 0.1], [1.7, 1.4]))
    draws = np.concatenate([estimate.log_odds[:, None], estimate.mean_old, estimate.mean_new], axis=-1)
    truth = np.concatenate([exact.log_odds[None], exact.mean_old, exact.mean_new])
    z = (draws.mean(axis=0) - truth) / (draws.std(axis=0) / np.sqrt(replicates))
    assert np.abs(z).max() < 5.0  # 30 of them: a chance of 2e-5


def test_without_replay_the_estimate_is_that_of_reverse_kl() -> None:
    problem = tilted_problem()
    state = TwoModeState([-0.7, 1.2], [0.3, 0.1], [1.7, 1.4])
    one, other = (
        objective.estimate(state, np.random.default_rng(5), 6)
        for objective in (ReverseKL(problem), ReverseKLReplay(problem, 0.0))
    )
    for name in ("log_odds", "mean_old", "mean_new"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-12, atol=1e-14)


def test_leash_without_strength_is_forward_kl_on_new_data() -> None:
    problem = tilted_problem()
    state = TwoModeState(-0.7, [0.3, 0.1], [1.7, 1.4])
    for direction in ("forward", "reverse"):
        leash = KLLeash(problem, problem.initial(0.5), 0.0, direction)  # type: ignore[arg-type]
        np.testing.assert_allclose(leash.value(state), ForwardKL(problem).value(state), rtol=1e-12)
        np.testing.assert_allclose(leash.gradient(state).mean_old, ForwardKL(problem).gradient(state).mean_old)


@given(st.floats(-40.0, 40.0), st.floats(-3000.0, 3000.0), st.floats(0.0, 0.99))
def test_importance_weights_are_bounded(log_q: float, gap: float, share: float) -> None:
    w = float(replay_importance_weights(log_q, log_q + gap, share))
    assert 0.0 <= w <= 1.0 / (1.0 - share) * (1.0 + 1e-12)
    assert float(replay_importance_weights(log_q, log_q + gap, 0.0)) == 1.0
    if share > 0.0:  # q / ((1 - share) q + share p)
        expected = float(1 / ((1 - mpmath.mpf(share)) + mpmath.mpf(share) * mpmath.exp(gap)))
        np.testing.assert_allclose(w, expected, rtol=1e-9, atol=1e-300)


# --- starvation and its cure (7) ------------------------------------------------------------------------------------------


def test_starvation_numbers() -> None:
    np.testing.assert_allclose(starvation_probability(0.01, 64), 0.53, atol=0.005)
    np.testing.assert_allclose(starvation_probability(0.01, 64, 0.2), 3e-7, rtol=0.15)
    np.testing.assert_allclose(expected_batches_to_old(1e-6, 8), 1.0 / 8e-6, rtol=1e-5)
    assert expected_batches_to_old(0.0, 8) == np.inf
    assert starvation_probability(1.0, 8) == 0.0


@given(st.floats(0.0, 1.0), st.integers(1, 500), st.floats(0.0, 0.9))
def test_starvation_is_less_likely_with_more_samples_and_with_replay(beta: float, n: int, share: float) -> None:
    p = starvation_probability(beta, n, share)
    assert 0.0 <= p <= starvation_probability(beta, n) <= 1.0
    assert starvation_probability(beta, n + 1, share) <= p
    assert p <= zero_signal_probability(beta, n, share) <= 1.0
    assert expected_batches_to_old(beta, n, share) >= 1.0


@pytest.mark.parametrize("share", [0.0, 0.15])
def test_share_of_dead_batches_in_a_simulation(share: float, rng: np.random.Generator) -> None:
    # 12 apart: a sample of one mode alone has a centred reward below 1e-6
    problem = TwoModeProblem.separated(12.0)
    beta, batch, replicates = 0.02, 8, 20_000
    state = problem.initial(beta)
    drawn = sampled_gradients(ReverseKLReplay(problem, share), state, batch, replicates, rng)
    dead = float((np.abs(drawn) < 1e-6).mean())
    expected = float(zero_signal_probability(beta, batch, share))
    assert abs(dead - expected) < 5.0 * np.sqrt(expected * (1.0 - expected) / replicates)
    # and what is left never points the wrong way: descent on log-odds below the target's raises them
    assert drawn.max() < 1e-6


@given(st.lists(st.floats(0.0, 1e6), min_size=1, max_size=30), st.floats(1e-150, 1e150))
def test_effective_sample_size_lies_between_one_and_all(w: list[float], scale: float) -> None:
    assume(max(w) > 1e-3)
    size = float(effective_sample_size(w))
    assert 1.0 - 1e-12 <= size <= len(w) * (1.0 + 1e-12)
    np.testing.assert_allclose(effective_sample_size(np.array(w) * scale), size, rtol=1e-9)


@given(LOGITS, st.floats(0.01, 0.8), DELTAS)
def test_effective_fraction_grows_with_overlap(s: float, share: float, delta: float) -> None:
    fraction = float(effective_sample_fraction(s, share, delta))
    least = float(effective_sample_fraction(s, share))
    assert 1.0 - share <= least * (1.0 + 1e-12) <= fraction * (1.0 + 2e-12) <= 1.0 + 1e-9
    np.testing.assert_allclose(effective_sample_fraction(s, 0.0, delta), 1.0, rtol=1e-12)


def test_effective_size_of_a_large_batch_is_the_predicted_one(rng: np.random.Generator) -> None:
    s, share, delta, n = -2.0, 0.3, 3.0, 200_000
    replayed = rng.random(n) < share
    old = replayed | (rng.random(n) < expit(s))
    x = rng.standard_normal(n) + np.where(old, 0.0, delta)
    log_old = -0.5 * x**2
    log_q = np.logaddexp(np.log(expit(s)) + log_old, np.log(expit(-s)) - 0.5 * (x - delta) ** 2)
    w = replay_importance_weights(log_q, log_old, share)
    # relative error of (mean w)^2 / mean w^2 for weights in [0, 1.43]: a few times 1 / sqrt(n)
    np.testing.assert_allclose(effective_sample_size(w) / n, effective_sample_fraction(s, share, delta), rtol=0.01)
    assert abs(w.mean() - 1.0) < 5.0 * w.std() / np.sqrt(n)


def test_variance_ratio_numbers() -> None:
    s = logit(np.array([0.3, 0.1, 0.01, 0.001]))
    with_replay, without = (replay_gradient_variance(s, 0.5, share, 8.0) for share in (0.2, 0.0))
    np.testing.assert_allclose(with_replay / without, [0.36, 0.27, 0.038, 0.0040], rtol=0.02)


def test_replay_may_increase_the_variance_at_moderate_mass(rng: np.random.Generator) -> None:
    n = 400
    s, delta, share = rng.uniform(-4.0, 4.0, n), rng.uniform(1.0, 8.0, n), rng.uniform(0.01, 0.6, n)
    ratio = replay_gradient_variance(s, s + 1.0, share, delta) / replay_gradient_variance(s, s + 1.0, 0.0, delta)
    assert np.quantile(ratio, 0.95) > 1.5
    assert ratio[s < -3.0].max() < 1.0


@given(st.floats(0.01, 0.99), st.floats(0.005, 0.95), st.integers(2, 64))
def test_harm_threshold_separates_help_from_harm(beta: float, share: float, batch: int) -> None:
    for baseline in ("mean", "leave-one-out"):
        limit = float(replay_harm_threshold(beta, baseline))  # type: ignore[arg-type]
        assume(abs(share - limit) > 1e-3)
        with_replay, without = (
            separated_gradient_variance(beta, 1.0, 0.0, batch, baseline, lam)  # type: ignore[arg-type]
            for lam in (share, 0.0)
        )
        assert (with_replay > without) == (share > limit)


def test_replayed_estimate_has_the_predicted_variance(rng: np.random.Generator) -> None:
    problem = TwoModeProblem.separated(4.0, 0.5)
    replicates = 40_000
    for beta, share in ((0.02, 0.2), (0.4, 0.5)):
        state = problem.initial(beta)
        measured = []
        for objective in (ReverseKL(problem), ReverseKLReplay(problem, share)):
            drawn = sampled_gradients(objective, state, 8, replicates, rng)
            variance = drawn.var()
            error = np.sqrt((((drawn - drawn.mean()) ** 2 - variance) ** 2).mean() / replicates)
            assert abs(variance - gradient_variance(objective, state, 8)) < 5.0 * error
            measured.append(variance)
        # replay helps a rare mode and hurts a common one
        assert (measured[1] < measured[0]) == (share < replay_harm_threshold(beta))


def test_recovery_time_between_its_bounds(rng: np.random.Generator) -> None:
    problem = TwoModeProblem.separated(12.0, 0.5)
    replicates, lr = 600, 0.5
    for batch, horizon in ((2, 600), (16, 300)):
        lower, upper = recovery_time_bounds(0.05, 0.15, 0.5, lr, batch)
        taken = recovery_steps(ReverseKL(problem), 0.05, 0.15, SGD(lr, batch, train="weight"), replicates, horizon, rng)
        assert np.isfinite(taken).all()
        error = 5.0 * taken.std() / np.sqrt(replicates)
        assert taken.mean() > lower - error
        if batch == 2:
            assert taken.mean() < upper + error
        else:
            assert np.isnan(upper)


def test_replay_removes_the_wait(rng: np.random.Generator) -> None:
    problem = TwoModeProblem.separated(12.0, 0.5)
    beta0, batch = 0.003, 8
    first = {
        share: recovery_steps(
            ReverseKLReplay(problem, share), beta0, beta0 * 1.0001, SGD(0.5, batch, train="weight"), 400, 600, rng
        )
        for share in (0.0, 0.2)
    }
    wait = 1.0 / (1.0 - zero_signal_probability(beta0, batch, [0.0, 0.2]))
    for share, expected in zip((0.0, 0.2), wait, strict=True):
        # the wait for the first informative batch is geometric; a run cut off at 600 has a chance of 1e-6
        error = 5.0 * expected / np.sqrt(400)
        assert abs(np.nanmean(first[share]) - expected) < error + 0.05
    assert np.nanmean(first[0.0]) > 15.0 * np.nanmean(first[0.2])


def test_replay_sgd_ends_exactly_at_the_target(rng: np.random.Generator) -> None:
    # at the target the reward log p/q is constant, so that the noise of the estimate dies with the error
    problem = TwoModeProblem.separated(6.0, 0.3)
    start = problem.initial(0.01)
    many = TwoModeState(np.full(50, start.log_odds), start.mean_old, start.mean_new)
    run = simulate(problem, ReverseKLReplay(problem, 0.2), many, SGD(0.5, 16, train="weight"), 400, rng)
    np.testing.assert_allclose(run.log_odds[-1], problem.log_odds, atol=1e-9)


# --- bad input ------------------------------------------------------------------------------------------------------------


PROBLEM = TwoModeProblem.separated(3.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: replay_equilibrium(1.2), "replay_fraction must lie in"),
        (lambda: replay_equilibrium(np.nan), "replay_fraction must lie in"),
        (lambda: replay_time(0.5, 0.1, 0.2), "same side of lam"),
        (lambda: replay_time(0.0, 0.1, 0.2), "beta0 must lie strictly"),
        (lambda: replay_time(0.5, 0.4, -0.1), "lam must lie in"),
        (lambda: replay_time(0.5, 0.4, 0.0, 2.0), "mass_forgetting_time"),
        (lambda: replay_time(0.5, 0.4, 0.1, -2.0), "delta"),
        (lambda: replay_weight_rate(np.inf, 0.1, 2.0), "log_odds must be finite"),
        (lambda: replay_excursion(0.0, 0.5, 0.1), "delta must be positive"),
        (lambda: replay_excursion(3.0, 1.0, 0.1), "beta0 must lie"),
        (lambda: replay_excursion(3.0, 0.5, 0.0), "replay_fraction must lie strictly"),
        (lambda: kl_leash_equilibrium(np.nan, 0.1), "base_log_odds must be finite"),
        (lambda: kl_leash_equilibrium(0.0, 0.0), "eta must be positive"),
        (lambda: kl_leash_equilibrium(0.0, 0.1, 2.0, "sideways"), "direction must be"),  # type: ignore[arg-type]
        (lambda: kl_leash_equilibrium(0.0, 0.1, 0.0, "reverse"), "delta must be positive"),
        (lambda: kl_leash_equilibrium(0.0, 0.001, 50.0, "reverse"), "eta is too small"),
        (lambda: kl_leash_bounds(0.0, -1.0, 2.0), "eta must be positive"),
        (lambda: starvation_probability(1.2, 3), "beta must lie in"),
        (lambda: starvation_probability(0.2, 0), "batch_size must be"),
        (lambda: starvation_probability(0.2, 2.5), "batch_size must be"),
        (lambda: zero_signal_probability(0.2, 3, 1.0), "replay_fraction must lie in"),
        (lambda: replay_importance_weights(np.nan, 0.0, 0.1), "must be finite"),
        (lambda: replay_importance_weights(0.0, 0.0, 1.0), "replay_fraction must lie in"),
        (lambda: effective_sample_size([]), "must not all be zero"),
        (lambda: effective_sample_size([0.0, 0.0]), "must not all be zero"),
        (lambda: effective_sample_size([1.0, -1.0]), "nonnegative"),
        (lambda: effective_sample_fraction(np.nan, 0.1), "log_odds must be finite"),
        (lambda: replay_gradient_variance(0.0, 1.0, -0.1), "replay_fraction must lie in"),
        (lambda: replay_harm_threshold(0.0), "beta must lie strictly"),
        (lambda: replay_harm_threshold(0.3, "none"), "baseline must be one of"),  # type: ignore[arg-type]
        (lambda: recovery_time_bounds(0.2, 0.1, 0.5, 0.1, 2), "0 < beta0 < beta1 < alpha"),
        (lambda: recovery_time_bounds(0.1, 0.2, 0.5, 2.0, 2), "lr must lie in"),
        (lambda: recovery_time_bounds(0.1, 0.2, 0.5, 0.5, 1), "batch_size must be"),
        (lambda: KLLeash(PROBLEM, PROBLEM.initial(0.5), -1.0), "strength must be nonnegative"),
        (lambda: KLLeash(PROBLEM, PROBLEM.initial(0.5), np.nan), "strength must be nonnegative"),
        (lambda: KLLeash(PROBLEM, PROBLEM.initial(0.5), 1.0, "both"), "direction must be one of"),  # type: ignore[arg-type]
        (lambda: KLLeash(PROBLEM, TwoModeState([0.0, 1.0], [0.0], [3.0]), 1.0), "base must be one state"),
        (lambda: KLLeash(PROBLEM, TwoModeState(0.0, [0.0, 0.0], [3.0, 0.0]), 1.0), "base has dimension 2"),
        (lambda: ReverseKLReplay(PROBLEM, 1.0), "replay_fraction must lie in"),
        (lambda: ReverseKLReplay(PROBLEM, -0.1), "replay_fraction must lie in"),
        (
            lambda: ReverseKLReplay(PROBLEM, 0.1).estimate(PROBLEM.initial(0.5), np.random.default_rng(0), 1),
            "batch must be at least 2",
        ),
        (
            lambda: KLLeash(PROBLEM, PROBLEM.initial(0.5), 1.0, "reverse").estimate(
                PROBLEM.initial(0.5), np.random.default_rng(0), 3
            ),
            "batch must be at least 4",
        ),
    ],
)
def test_bad_input_is_one_clear_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
