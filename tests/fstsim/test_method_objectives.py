"""SDFT, TTT-Discover and OAPL in the simulator: exact gradients, honest batches, and loops that follow the theory.

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

from fstsim.errors import InputError
from fstsim.labelled import geometric_mix
from fstsim.method_loops import Regression, Teacher, simulate_oapl, simulate_sdft
from fstsim.method_objectives import OAPL, SDFT, TTTDiscover
from fstsim.objectives import Objective
from fstsim.optimizers import SGD, GradientDescent, GradientFlow
from fstsim.overlap import bhattacharyya_coefficient
from fstsim.simulate import gradient_flow, simulate
from fstsim.theory.oapl import oapl_loss_gradient, oapl_old_mass
from fstsim.theory.sdft import sdft_fixed_point, sdft_time
from fstsim.theory.ttt import entropic_shift, entropic_tilt_log_odds
from fstsim.two_mode import TwoModeProblem, TwoModeState

FALSE_ALARM = 1e-6

PLAIN = TwoModeProblem.separated(2.5, alpha=0.35)
SKEWED = TwoModeProblem(0.6, [0.0, 1.0], [2.0, -1.0], [[2.0, 0.8], [0.8, 0.5]])
PLAIN_BASE = TwoModeState(0.3, [0.1], [2.4])
SKEWED_BASE = TwoModeState(-0.5, [0.2, 0.9], [2.1, -1.1])

CASES = {
    "sdft": SDFT(PLAIN, PLAIN_BASE, 0.7),
    "sdft, skewed": SDFT(SKEWED, SKEWED_BASE, -0.4),
    "ttt": TTTDiscover(PLAIN, PLAIN_BASE, 0.1, 1.0, 2.0, 0.5),
    "ttt, skewed, sloped": TTTDiscover(SKEWED, SKEWED_BASE, 1.0, 0.2, 1.5, 0.8, slope=[0.3, -0.2]),
    "ttt, labelled, sloped": TTTDiscover(SKEWED, SKEWED_BASE, 0.1, 1.0, 1.5, 0.5, labelled=True, slope=[0.3, -0.2]),
    "ttt, no leash": TTTDiscover(SKEWED, SKEWED_BASE, 0.1, 1.0, 1.5, 0.0),
    "oapl": OAPL(PLAIN, PLAIN_BASE, 0.1, 1.0, 0.7),
    "oapl, skewed, sloped": OAPL(SKEWED, SKEWED_BASE, 1.0, 0.3, 0.9, slope=[0.3, -0.2]),
}
EACH = pytest.mark.parametrize("name", CASES)


def flat(state: TwoModeState) -> np.ndarray:
    return np.concatenate([state.log_odds[..., None], state.mean_old, state.mean_new], axis=-1)


def unflat(x: np.ndarray) -> TwoModeState:
    d = (x.shape[-1] - 1) // 2
    return TwoModeState(x[..., 0], x[..., 1 : d + 1], x[..., d + 1 :])


def learner(problem: TwoModeProblem) -> TwoModeState:
    return TwoModeState(-0.4, problem.mean_old + 0.3, problem.mean_new - 0.2)


def replicated(state: TwoModeState, count: int) -> TwoModeState:
    return TwoModeState(np.full(count, state.log_odds), state.mean_old, state.mean_new)


# --- value and gradient ----------------------------------------------------------------------------------------------


def test_every_method_has_a_case() -> None:
    assert {type(objective) for objective in CASES.values()} == {SDFT, TTTDiscover, OAPL}


@EACH
@given(seed=st.integers(0, 10**6), spread=st.floats(0.0, 1.5), log_odds=st.floats(-4.0, 4.0))
def test_gradient_is_that_of_the_value(name: str, seed: int, spread: float, log_odds: float) -> None:
    objective: Objective = CASES[name]
    p, rng = objective.problem, np.random.default_rng(seed)
    at = flat(
        TwoModeState(
            log_odds,
            p.mean_old + spread * rng.standard_normal(p.dimension),
            p.mean_new + spread * rng.standard_normal(p.dimension),
        )
    )
    h = 1e-5
    steps = h * np.eye(at.size)
    numeric = (objective.value(unflat(at + steps)) - objective.value(unflat(at - steps))) / (2.0 * h)
    size = 1.0 + np.abs(numeric).max() + np.abs(objective.value(unflat(at)))
    np.testing.assert_allclose(flat(objective.gradient(unflat(at))), numeric, rtol=0.0, atol=1e-7 * size)


@EACH
def test_batch_axes_are_independent_learners(name: str) -> None:
    objective: Objective = CASES[name]
    one = learner(objective.problem)
    many = TwoModeState(
        np.array([[0.3, float(one.log_odds)], [1.0, -2.0]]), one.mean_old + np.zeros((2, 2, 1)), one.mean_new
    )
    assert objective.value(many).shape == (2, 2)
    np.testing.assert_allclose(objective.value(many)[0, 1], objective.value(one), rtol=1e-13)
    np.testing.assert_allclose(flat(objective.gradient(many))[0, 1], flat(objective.gradient(one)), rtol=1e-12)


@given(s=st.floats(-6.0, 6.0), base=st.floats(-3.0, 3.0), gap=st.floats(-3.0, 3.0), leash=st.floats(0.0, 3.0))
def test_labelled_weight_gradient_is_the_two_outcome_one(s: float, base: float, gap: float, leash: float) -> None:
    # components at the base: the log-odds follow theory 9.1 and 10.2 exactly, in any geometry of the means
    state = TwoModeState(s, PLAIN_BASE.mean_old, PLAIN_BASE.mean_new)
    fixed = TwoModeState(base, PLAIN_BASE.mean_old, PLAIN_BASE.mean_new)
    ttt = TTTDiscover(PLAIN, fixed, 0.2, 0.2 + gap, 1.0, leash, labelled=True)
    mobility = expit(s) * expit(-s)
    expected = -mobility * (leash * (base - s) - float(entropic_shift(s, gap)))
    np.testing.assert_allclose(ttt.gradient(state).log_odds, expected, rtol=1e-10, atol=1e-13)
    oapl = OAPL(PLAIN, fixed, 0.2, 0.2 + gap, 0.8)
    np.testing.assert_allclose(
        oapl.gradient(state).log_odds, oapl_loss_gradient(s, base, 0.8, 0.2, 0.2 + gap), rtol=1e-10, atol=1e-12
    )
    assert (oapl.gradient(state).mean_old == 0.0).all()


@given(tilt=st.floats(-3.0, 3.0), delta=st.floats(0.5, 8.0))
def test_sdft_is_zero_exactly_at_the_conditioned_teacher(tilt: float, delta: float) -> None:
    p = TwoModeProblem.separated(delta, dimension=2)
    teacher = TwoModeState(0.4, p.mean_old + 0.1, p.mean_new)
    goal = TwoModeState(0.4 - tilt, teacher.mean_old, teacher.mean_new)
    objective = SDFT(p, teacher, tilt)
    assert abs(objective.value(goal)) < 1e-12
    np.testing.assert_allclose(flat(objective.gradient(goal)), 0.0, atol=1e-12)
    assert objective.value(TwoModeState(0.6 - tilt, teacher.mean_old, teacher.mean_new)) > 0.0


def test_oapl_loss_is_zero_exactly_at_the_tilt() -> None:
    objective: OAPL = CASES["oapl, skewed, sloped"]  # type: ignore[assignment]
    shift = SKEWED.covariance @ np.array([0.3, -0.2]) / 0.9
    gap = (0.3 - 1.0 + np.array([0.3, -0.2]) @ (SKEWED_BASE.mean_new - SKEWED_BASE.mean_old)) / 0.9
    tilted = TwoModeState(SKEWED_BASE.log_odds - gap, SKEWED_BASE.mean_old + shift, SKEWED_BASE.mean_new + shift)
    assert abs(objective.value(tilted)) < 1e-25
    np.testing.assert_allclose(flat(objective.gradient(tilted)), 0.0, atol=1e-13)


# --- batches -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in CASES if "ttt" not in name])
def test_estimates_are_unbiased(name: str, rng: np.random.Generator) -> None:
    objective: Objective = CASES[name]
    state = learner(objective.problem)
    draws = flat(objective.estimate(replicated(state, 20_000), rng, 8))
    z = (draws.mean(axis=0) - flat(objective.gradient(state))) / (draws.std(axis=0) / np.sqrt(len(draws)))
    assert np.abs(z).max() < stats.norm.isf(0.5 * FALSE_ALARM / z.size)


def test_leash_of_ttt_is_unbiased(rng: np.random.Generator) -> None:
    # no reward gap: every entropic weight is 1 and only the leash is left
    for labelled in (False, True):
        objective = TTTDiscover(SKEWED, SKEWED_BASE, 0.5, 0.5, 1.0, 0.7, labelled=labelled)
        state = learner(SKEWED)
        draws = flat(objective.estimate(replicated(state, 20_000), rng, 8))
        z = (draws.mean(axis=0) - flat(objective.gradient(state))) / (draws.std(axis=0) / np.sqrt(len(draws)))
        assert np.abs(z).max() < stats.norm.isf(0.5 * FALSE_ALARM / (2 * z.size))


def test_entropic_estimate_points_the_right_way_and_overshoots_by_a_known_factor(rng: np.random.Generator) -> None:
    beta, gap, batch = 0.3, 1.2, 6
    objective = TTTDiscover(PLAIN, PLAIN_BASE, 0.0, gap, 1.0, 0.0, labelled=True)
    state = TwoModeState(logit(beta), PLAIN_BASE.mean_old, PLAIN_BASE.mean_new)
    # Z E[1 / mean of the others' e^(br)], the others' new count binomial
    k = np.arange(batch)
    others = (k * np.exp(gap) + (batch - 1 - k)) / (batch - 1)
    z_true = beta + (1.0 - beta) * np.exp(gap)
    factor = z_true * (stats.binom.pmf(k, batch - 1, 1.0 - beta) / others).sum()
    assert factor > 1.0
    draws = objective.estimate(replicated(state, 40_000), rng, batch).log_odds
    z = (draws.mean() - factor * objective.gradient(state).log_odds) / (draws.std() / np.sqrt(draws.size))
    assert abs(z) < stats.norm.isf(0.5 * FALSE_ALARM)


def test_entropic_estimate_is_parallel_to_the_exact_gradient_with_overlap(rng: np.random.Generator) -> None:
    # the factor Z E[1 / Z_others] is one number for all coordinates: two coordinates' ratio is that of the gradient
    objective = TTTDiscover(SKEWED, SKEWED_BASE, 0.1, 1.0, 1.0, 0.0)
    state = learner(SKEWED)
    exact = flat(objective.gradient(state))
    draws = flat(objective.estimate(replicated(state, 30_000), rng, 8))
    cross = draws[:, 1:] * exact[0] - draws[:, :1] * exact[1:]
    z = cross.mean(axis=0) / (cross.std(axis=0) / np.sqrt(len(draws)))
    assert np.abs(z).max() < stats.norm.isf(0.5 * FALSE_ALARM / z.size)
    assert draws.mean(axis=0) @ exact > exact @ exact - stats.norm.isf(FALSE_ALARM) * (draws @ exact).std() / np.sqrt(
        len(draws)
    )


# --- the loops -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ema_rate", [0.05, 1.0])
def test_sdft_flow_obeys_the_conservation_law_when_the_modes_are_far(ema_rate: float) -> None:
    p = TwoModeProblem.separated(14.0)
    student, teacher = simulate_sdft(p, p.initial(0.6), Teacher(0.8, ema_rate), GradientFlow(2.0), 20)
    t = sdft_time(student.log_odds[0], student.log_odds[1:], teacher.log_odds[1:], 0.8, ema_rate)
    np.testing.assert_allclose(t, student.time[1:], rtol=1e-6)
    lag = teacher.log_odds - student.log_odds
    assert (lag >= -1e-9).all()
    assert (lag <= 0.8).all()


def test_frozen_teacher_stays_and_the_student_arrives() -> None:
    p = TwoModeProblem.separated(3.0, dimension=2)
    student, teacher = simulate_sdft(p, p.initial(0.6), Teacher(0.8, 0.0), GradientFlow(120.0, rtol=1e-7), 1)
    assert (teacher.log_odds == teacher.log_odds[0]).all()
    np.testing.assert_allclose(student.log_odds[-1], sdft_fixed_point(logit(0.6), 0.8, 0.0), atol=1e-5)
    assert student.drift[-1] < 1e-5  # no final drift


def test_anchor_decides_whether_sdft_keeps_the_old_mass_with_overlap() -> None:
    # delicate point 7: reverse KL and on-policy samples are not enough; the fixed anchor is what retains
    p = TwoModeProblem.separated(3.5)
    flow = GradientFlow(40.0, rtol=1e-7)
    anchored, _ = simulate_sdft(p, p.initial(0.6), Teacher(0.5, 0.5, anchor=0.5), flow, 6)
    free, _ = simulate_sdft(p, p.initial(0.6), Teacher(0.5, 0.5), flow, 6)
    np.testing.assert_allclose(anchored.log_odds[-1], sdft_fixed_point(logit(0.6), 0.5, 0.5), atol=1e-4)
    np.testing.assert_allclose(anchored.drift[-1], 0.0, atol=1e-4)
    assert (np.diff(free.log_odds) < 0.0).all()
    assert free.old_mass[-1] < 0.1 < anchored.old_mass[-1]


def test_descent_converges_to_the_flow_at_first_order() -> None:
    p = TwoModeProblem.separated(3.0)
    start = p.initial(0.5, 0.3)
    end = [run.log_odds[-1] for run in simulate_sdft(p, start, Teacher(0.6, 0.3), GradientFlow(8.0), 1)]

    def error(lr: float) -> np.ndarray:
        runs = simulate_sdft(p, start, Teacher(0.6, 0.3), GradientDescent(lr), round(8.0 / lr))
        return np.abs([run.log_odds[-1] - e for run, e in zip(runs, end, strict=True)])

    coarse, fine = error(0.2), error(0.1)
    assert (fine < 0.02).all()
    np.testing.assert_allclose(coarse / fine, 2.0, rtol=0.1)


def test_sgd_students_scatter_around_the_descent(rng: np.random.Generator) -> None:
    p = TwoModeProblem.separated(5.0)
    one = p.initial(0.5)
    sgd, _ = simulate_sdft(p, replicated(one, 400), Teacher(0.5, 0.2), SGD(0.1, 256, train="weight"), 40, rng)
    plain, _ = simulate_sdft(p, one, Teacher(0.5, 0.2), GradientDescent(0.1, train="weight"), 40)
    assert sgd.samples[-1] == 40 * 256
    last = sgd.log_odds[-1]
    # curvature of the drift moves the mean by O(variance): the scatter is small enough to bound that by variance
    z = np.abs(last.mean() - plain.log_odds[-1]) - last.var()
    assert z < stats.norm.isf(0.5 * FALSE_ALARM) * last.std() / np.sqrt(last.size)


def test_batched_loops_equal_single_ones() -> None:
    p = TwoModeProblem.separated(3.0)
    both = TwoModeState(np.array([0.2, -0.7]), p.mean_old, p.mean_new)
    for how in (GradientFlow(1.0), GradientDescent(0.3)):
        together = simulate_sdft(p, both, Teacher(0.4, 0.5, anchor=0.7), how, 6)
        for k in range(2):
            alone = simulate_sdft(
                p, TwoModeState(both.log_odds[k], p.mean_old, p.mean_new), Teacher(0.4, 0.5, anchor=0.7), how, 6
            )
            for a, b in zip(together, alone, strict=True):
                np.testing.assert_allclose(a.log_odds[:, k], b.log_odds, rtol=1e-9)
                np.testing.assert_allclose(a.mean_old[:, k], b.mean_old, rtol=1e-9, atol=1e-12)


@given(share=st.floats(0.0, 1.0), seed=st.integers(0, 10**6))
def test_geometric_mix_is_the_labelled_product(share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (TwoModeState(*rng.standard_normal(3)) for _ in range(2))
    p = TwoModeProblem.separated(3.0)
    mixed = geometric_mix(p, a, b, share)
    x = rng.standard_normal(5)

    def log_ratio(state: TwoModeState) -> np.ndarray:
        # log of old part over new part at x: what must mix linearly, up to nothing
        return state.log_odds - 0.5 * (x - state.mean_old) ** 2 + 0.5 * (x - state.mean_new) ** 2

    np.testing.assert_allclose(log_ratio(mixed), share * log_ratio(a) + (1.0 - share) * log_ratio(b), atol=1e-12)


def test_oapl_loop_multiplies_the_odds_every_period() -> None:
    p = TwoModeProblem.separated(3.0)
    run = simulate_oapl(p, p.initial(0.6), Regression(0.0, 0.8, 1.0), 4, 1, GradientFlow(400.0))
    np.testing.assert_allclose(run.old_mass, oapl_old_mass(0.6, 0.8, 1.0, np.arange(5)), rtol=1e-6)
    assert run.drift[-1] < 1e-12
    anchored = simulate_oapl(p, p.initial(0.6), Regression(0.0, 0.8, 1.0, anchor=0.5), 12, 1, GradientFlow(400.0))
    np.testing.assert_allclose(anchored.old_mass[-1], oapl_old_mass(0.6, 0.8, 1.0, 12, 0.5), rtol=1e-6)
    assert anchored.log_odds[-1] >= logit(0.6) - 0.8 / 0.5


def test_oapl_loop_counts_rows_times_and_samples(rng: np.random.Generator) -> None:
    p = TwoModeProblem.separated(3.0)
    run = simulate_oapl(p, p.initial(0.6), Regression(0.0, 0.8, 1.0), 3, 5, SGD(0.05, 16), rng)
    assert run.steps == 15
    assert run.samples.tolist() == (16 * np.arange(16)).tolist()
    assert run.time.tolist() == np.arange(16.0).tolist()
    flow = simulate_oapl(p, p.initial(0.6), Regression(0.0, 0.8, 1.0), 2, 2, GradientFlow(1.5))
    assert flow.time.tolist() == [0.0, 1.5, 3.0, 4.5, 6.0]


def test_divergence_is_reported_with_nan_rows() -> None:
    p = TwoModeProblem.separated(3.0)
    with np.errstate(all="ignore"):
        run = simulate_oapl(p, p.initial(0.6, 0.5), Regression(0.0, 0.8, 1.0, slope=0.5), 3, 40, GradientDescent(1e4))
    assert run.status == "diverged"
    assert np.isnan(run.log_odds[-1])
    assert run.steps == 120


def test_ttt_flow_ends_at_the_self_consistent_tilt() -> None:
    p = TwoModeProblem.separated(3.0)
    base = p.initial(0.6)
    for gap in (0.5, 5.0):
        objective = TTTDiscover(p, base, 0.0, gap, 1.0, 0.7, labelled=True)
        end = gradient_flow(p, objective, base, 2000.0)(2000.0)
        np.testing.assert_allclose(end.log_odds, entropic_tilt_log_odds(logit(0.6), gap, 0.7), atol=1e-6)


def test_ttt_by_responsibility_approaches_the_two_outcome_optimum_as_the_modes_separate() -> None:
    errors = []
    for delta in (4.0, 6.0, 8.0):
        p = TwoModeProblem.separated(delta)
        base = p.initial(0.6)
        run = simulate(p, TTTDiscover(p, base, 0.0, 1.5, 1.0, 1.0), base, GradientFlow(300.0), 1)
        errors.append(abs(float(run.log_odds[-1] - entropic_tilt_log_odds(logit(0.6), 1.5, 1.0))))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-3


@pytest.mark.parametrize("delta", [4.0, 6.0, 8.0])
def test_reward_that_varies_inside_the_old_mode_is_not_gated_by_overlap(delta: float) -> None:
    # delicate point 11: a flat reward moves the old mean by O(BC), a slope inside the mode by O(1) at any separation
    p = TwoModeProblem.separated(delta, dimension=2)
    base = p.initial(0.6)
    flow = GradientFlow(300.0, rtol=1e-7)
    drift = {}
    for slope in (0.0, 0.2):  # across the axis, so that the reward gap of the modes stays what it was
        objective = TTTDiscover(p, base, 0.0, 1.0, 1.0, 1.0, slope=[0.0, slope])
        drift[slope] = float(simulate(p, objective, base, flow, 1).drift[-1])
    assert drift[0.0] < 2.0 * bhattacharyya_coefficient(delta)
    # stationarity in m_o: slope / Z at the two-outcome optimum, whatever the separation
    beta = expit(entropic_tilt_log_odds(logit(0.6), 1.0, 1.0))
    np.testing.assert_allclose(drift[0.2], 0.2 / (beta + (1.0 - beta) * np.e), rtol=0.05)
    regressed = simulate_oapl(p, base, Regression(0.0, 0.5, 1.0, slope=[0.0, 0.2]), 3, 1, flow)
    np.testing.assert_allclose(regressed.drift[1:], 0.2 * np.arange(1, 4), rtol=1e-4)
    assert simulate_oapl(p, base, Regression(0.0, 0.5, 1.0), 3, 1, flow).drift[-1] < 1e-10


# --- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SDFT(PLAIN, PLAIN_BASE, np.nan), "tilt must be finite"),
        (lambda: SDFT(PLAIN, SKEWED_BASE, 0.5), "state has dimension 2, the problem 1"),
        (lambda: TTTDiscover(PLAIN, PLAIN_BASE, 0.0, np.inf, 1.0, 1.0), "reward_new must be finite"),
        (lambda: TTTDiscover(PLAIN, PLAIN_BASE, 0.0, 1.0, 0.0, 1.0), "inverse_temperature must be positive"),
        (lambda: TTTDiscover(PLAIN, PLAIN_BASE, 0.0, 1.0, 1.0, -1.0), "kl_weight must be nonnegative"),
        (lambda: TTTDiscover(PLAIN, PLAIN_BASE, 0.0, 1.0, 1.0, 1.0, slope=[1.0, 2.0]), r"shape \(1,\), got \(2,\)"),
        (lambda: OAPL(PLAIN, PLAIN_BASE, 0.0, 1.0, -0.5), "temperature must be positive"),
        (lambda: OAPL(PLAIN, PLAIN_BASE, 0.0, 1.0, 1.0, slope=np.nan), "slope must be finite"),
        (lambda: OAPL(SKEWED, PLAIN_BASE, 0.0, 1.0, 1.0), "state has dimension 1, the problem 2"),
    ],
)
def test_bad_objectives_are_refused(build: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()  # type: ignore[operator]


def test_bad_batches_and_axes_are_refused(rng: np.random.Generator) -> None:
    for name in ("sdft", "ttt"):
        with pytest.raises(InputError, match="batch must be at least 2"):
            CASES[name].estimate(learner(PLAIN), rng, 1)
    with pytest.raises(InputError, match="batch must be at least 1"):
        CASES["oapl"].estimate(learner(PLAIN), rng, 0)
    batched = SDFT(PLAIN, replicated(PLAIN_BASE, 3), 0.5)
    with pytest.raises(InputError, match="do not broadcast"):
        batched.value(replicated(learner(PLAIN), 2))


def test_bad_loops_are_refused(rng: np.random.Generator) -> None:
    start = PLAIN.initial(0.5)
    for teacher, optimizer, steps, message in (
        (Teacher(0.5, -0.1), GradientFlow(), 3, "ema_rate must be nonnegative"),
        (Teacher(0.5, 30.0), GradientDescent(0.1), 3, "ema_rate . lr must be at most 1"),
        (Teacher(0.5, 0.1, anchor=1.2), GradientFlow(), 3, r"anchor must lie in \[0, 1\]"),
        (Teacher(0.5, 0.1), GradientFlow(), -1, "steps must be nonnegative"),
        (Teacher(0.5, 0.1), SGD(0.1, 8), 3, "pass rng"),
        (Teacher(0.5, 0.1, base=SKEWED_BASE), GradientFlow(), 3, "does not broadcast|dimension"),
    ):
        with pytest.raises(InputError, match=message):
            simulate_sdft(PLAIN, start, teacher, optimizer, steps)
    with pytest.raises(InputError, match="refreshes must be nonnegative"):
        simulate_oapl(PLAIN, start, Regression(0.0, 1.0, 1.0), -1, 3, GradientFlow())
    with pytest.raises(InputError, match="temperature must be positive"):
        simulate_oapl(PLAIN, start, Regression(0.0, 1.0, 0.0), 1, 3, SGD(0.1, 8), rng)
