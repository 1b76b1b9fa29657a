"""Section 13: quoted tables, inverses, ODE comparisons of stages and of softmax policies, and malformed input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.special import expit, logit, softmax

from fstsim.errors import InputError
from fstsim.theory.clocks import inverse_learning_clock, learning_clock
from fstsim.theory.fast_slow import no_context_kl, time_to_reward
from fstsim.theory.plasticity import (
    drift_from_kl,
    drift_from_kl_gap,
    kl_gap,
    relearning_time,
    relearning_time_from_kl,
    softmax_relearning_bounds,
    stage_success,
    task_sequence,
)

ODDS = st.floats(-10.0, 10.0)
RATE = st.floats(0.05, 5.0)
MOBILITIES = st.sampled_from(["plain", "normalised"])
BASE = st.floats(-5.0, 5.0)


# --- relearning time (13.1, 13.2) --------------------------------------------------------------------------------------------


def test_quoted_table() -> None:
    drift = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0])
    np.testing.assert_allclose(
        no_context_kl(drift, 0.0), [0.0, 0.111, 0.328, 0.502, 0.603, 0.676, 0.690], atol=5.001e-4
    )
    np.testing.assert_allclose(no_context_kl(0.0, drift), [0.0, 0.12, 0.43, 0.86, 1.33, 2.31, 3.31], atol=6e-3)
    np.testing.assert_allclose(
        relearning_time(-drift, 2.0, 1.0), [11.3, 15.6, 22.5, 37.3, 73.8, 427.0, 3008.0], rtol=5e-3
    )


@given(ODDS, ODDS, ODDS, RATE, MOBILITIES)
def test_time_is_additive_and_changes_sign(a: float, b: float, c: float, rate: float, mobility: str) -> None:
    def t(x: float, y: float) -> float:
        return float(relearning_time(x, y, rate, mobility))

    scale = abs(t(a, b)) + abs(t(b, c)) + 1e-12
    assert t(a, b) + t(b, c) == pytest.approx(t(a, c), abs=1e-12 * scale)
    assert t(a, b) == -t(b, a)


@given(BASE, st.floats(1e-3, 12.0))
def test_drift_from_kl_inverts_both_directions(base: float, gap: float) -> None:
    drift = base + gap
    backward = no_context_kl(base, drift)
    assert float(drift_from_kl(backward, base, "from_base")) == pytest.approx(drift, rel=1e-9, abs=1e-9)
    forward = no_context_kl(drift, base)
    found = drift_from_kl(forward, base, "to_base")
    # near saturation the KL does not determine the drift, only itself
    assert float(no_context_kl(found, base)) == pytest.approx(float(forward), rel=1e-12)


@given(BASE, st.floats(0.05, 600.0))
def test_drift_from_the_gap_survives_saturation(base: float, gap: float) -> None:
    drift = min(base + gap, 690.0)
    found = float(drift_from_kl_gap(kl_gap(drift, base), base))
    # the gap is flat at the base, where its rounding is divided by (S - s_b) sigma'(S)
    slope = (drift - base) * expit(drift) * expit(-drift) / float(kl_gap(drift, base))
    assert found == pytest.approx(drift, rel=1e-12, abs=1e-14 / slope)


@given(BASE, st.floats(0.01, 10.0))
def test_gap_is_ceiling_minus_kl(base: float, gap: float) -> None:
    drift = base + gap
    direct = np.logaddexp(0.0, -base) - no_context_kl(drift, base)
    assert float(kl_gap(drift, base)) == pytest.approx(float(direct), abs=1e-13)


@given(BASE, st.floats(0.05, 9.0), st.floats(-1.0, 4.0), RATE, MOBILITIES)
def test_time_from_kl_is_the_time_from_its_drift(
    base: float, gap: float, target: float, rate: float, mobility: str
) -> None:
    drift = base + gap
    kl = no_context_kl(base, drift)
    expected = float(relearning_time(-drift, target, rate, mobility))
    got = float(relearning_time_from_kl(kl, base, target, rate, "from_base", mobility))
    assert got == pytest.approx(expected, rel=1e-7, abs=1e-9 * (1.0 + float(learning_clock(abs(drift))) / rate))


def test_time_increases_with_either_kl() -> None:
    for direction, top in (("to_base", np.log(2.0)), ("from_base", 20.0)):
        times = relearning_time_from_kl(np.linspace(0.0, top * 0.999, 200), 0.0, 2.0, 1.0, direction)
        assert (np.diff(times) > 0.0).all()


def test_measured_exponent_of_the_forward_law() -> None:
    """Slope of log T against KL(base || policy) at S = 8, s_b = 0.3: 2.341, for 1/(1 - p_b) = 2.350."""
    kl = no_context_kl(0.3, np.array([7.99, 8.01]))
    log_t = np.log(relearning_time_from_kl(kl, 0.3, 0.0, 1.0, "from_base"))  # back to log-odds 0
    assert float(np.diff(log_t)[0] / np.diff(kl)[0]) == pytest.approx(2.341, abs=2e-3)
    assert 1.0 / float(expit(-0.3)) == pytest.approx(2.350, abs=5e-4)


# --- sequences (13.3) ---------------------------------------------------------------------------------------------------


def test_quoted_rewards_of_six_stages() -> None:
    x = logit(0.9)
    budgets = np.full(6, 1.5 * learning_clock(x))
    rl = task_sequence("rl", budgets, target_log_odds=x)
    np.testing.assert_allclose(rl.reward, [0.9, 0.8, 0.9, 0.8, 0.9, 0.8], atol=5e-3)
    no_stop = task_sequence("rl-no-stop", budgets, target_log_odds=x)
    np.testing.assert_allclose(no_stop.reward, [0.94, 0.5, 0.94, 0.5, 0.94, 0.5], atol=5e-3)
    fst = task_sequence("fst-gradient", budgets, target_log_odds=x, eta_fast=2.0)
    np.testing.assert_allclose(fst.reward, 0.9, atol=1e-9)
    assert fst.success.all()
    assert rl.success.tolist() == [True, False] * 3


@given(st.floats(0.2, 5.0), st.floats(0.01, 3.0), st.floats(0.0, 20.0))
def test_stage_success_is_the_sequence(target: float, share_of_budget: float, fast: float) -> None:
    needed = float(learning_clock(target) + learning_clock(target / (1.0 + fast)))
    assume(abs(share_of_budget - 1.0) > 1e-6)
    budget = share_of_budget * needed / (1.0 + fast)
    stages = task_sequence("fst-gradient", np.full(7, budget), target_log_odds=target, eta_fast=fast)
    assert bool(stage_success(target, budget, 1.0, fast)) == bool(stages.success.all())


@given(st.floats(0.5, 200.0), st.floats(-2.0, 2.0))
def test_period_two_without_a_stop(budget: float, base: float) -> None:
    stages = task_sequence("rl-no-stop", np.full(6, budget), -1.0, target_log_odds=2.0, base_log_odds=-base)
    np.testing.assert_allclose(stages.end[2:], stages.end[:-2], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(stages.end[1::2], -base, atol=1e-9)  # every even stage ends at the base


@given(st.floats(0.3, 4.0), st.floats(0.05, 5.0))
def test_slow_state_of_fst_stays_within_its_bound(target: float, fast: float) -> None:
    rho = 1.0 / (1.0 + fast)
    stages = task_sequence("fst-gradient", np.full(30, 1e6), target_log_odds=target, eta_fast=fast)
    assert (stages.slow <= rho * target * (1.0 + 1e-12)).all()
    assert (stages.slow >= -1e-12).all()
    next_one = rho * target - (1.0 - rho) * stages.slow[:-1]
    np.testing.assert_allclose(stages.slow[1:], next_one, rtol=1e-9, atol=1e-12)
    assert abs(stages.slow[-1] - rho * target / (2.0 - rho)) <= rho * target * (1.0 - rho) ** 29 + 1e-9


@given(st.floats(0.1, 4.0), st.floats(0.0, 1.0))
def test_only_conflict_costs_plasticity(target: float, alignment: float) -> None:
    budget = float(learning_clock(target))
    stages = task_sequence("rl", [budget, budget], [1.0, alignment], target_log_odds=target)
    assert stages.success.all()
    assert not task_sequence("rl", [budget, budget], [1.0, -max(alignment, 0.01)], target_log_odds=target).success[1]


def stage_by_ode(start: float, time: float, slow: float, fast: float, room: float, kind: str) -> tuple[float, float]:
    """``(log-odds with context, slow log-odds)`` at the end of a stage without stop, from an ODE solver."""

    def velocity(_: float, y: np.ndarray, quick: float) -> list[float]:
        m = float(expit(y.sum()) * expit(-y.sum()))
        return [slow * m, quick * (m if kind == "fst-gradient" else 1.0)]

    def full(_: float, y: np.ndarray, quick: float) -> float:
        return room - y[1] if quick else 1.0

    full.terminal = True
    sol = solve_ivp(velocity, (0.0, time), [start, 0.0], "LSODA", args=(fast,), events=full, rtol=1e-10, atol=1e-12)
    if sol.status == 1:
        sol = solve_ivp(velocity, (float(sol.t[-1]), time), sol.y[:, -1], "LSODA", args=(0.0,), rtol=1e-10, atol=1e-12)
    return float(sol.y[:, -1].sum()), float(sol.y[0, -1])


@pytest.mark.parametrize("kind", ["fst-gradient", "fst-search"])
def test_a_stage_against_ode(kind: str, rng: np.random.Generator) -> None:
    for _ in range(8):
        start, time = rng.uniform(-5.0, 1.0), rng.uniform(0.5, 20.0)
        slow, fast, room = rng.uniform(0.1, 2.0), rng.uniform(0.1, 2.0), rng.uniform(0.3, 4.0)
        stage = task_sequence(
            kind,
            [time],
            1.0,
            target_log_odds=60.0,
            eta_slow=slow,
            eta_fast=fast,
            capacity=room,
            base_log_odds=start,
        )
        expected = stage_by_ode(start, time, slow, fast, room, kind)
        assert (float(stage.end[0]), float(stage.slow[0])) == pytest.approx(expected, rel=1e-6, abs=1e-7)


@given(st.floats(0.0, 5.0), st.floats(0.2, 4.0), st.floats(0.1, 5.0), st.floats(0.3, 10.0), MOBILITIES)
def test_least_budget_of_a_search_stage_is_the_time_to_reward(
    drift: float, target: float, room: float, nu: float, mobility: str
) -> None:
    need = float(time_to_reward(-drift, target, 1.0, nu, room, "search", mobility))
    for budget, enough in ((need * (1.0 - 1e-5), False), (need * (1.0 + 1e-5), True)):
        stage = task_sequence(
            "fst-search",
            [budget],
            1.0,
            base_log_odds=-drift,
            target_log_odds=target,
            eta_fast=nu,
            capacity=room,
            mobility=mobility,
        )
        assert bool(stage.success[0]) == enough


def test_sequences_broadcast_over_parameters() -> None:
    budgets = np.full((4, 1), 30.0)
    fast = np.array([0.0, 0.5, 2.0])
    together = task_sequence("fst-search", budgets, target_log_odds=2.0, eta_fast=fast, capacity=[1.0, 2.0, 5.0])
    for i in range(3):
        alone = task_sequence(
            "fst-search", budgets[:, 0], target_log_odds=2.0, eta_fast=fast[i], capacity=[1.0, 2.0, 5.0][i]
        )
        np.testing.assert_allclose(together.slow[:, i], alone.slow, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(together.end[:, i], alone.end, rtol=1e-10, atol=1e-12)


# --- K behaviours (13.4) --------------------------------------------------------------------------------------------------


def softmax_time(pi: np.ndarray, k: int, target: float) -> float:
    """Time until ``pi_k`` is the target, from an ODE solver on the logits."""

    def velocity(_: float, theta: np.ndarray) -> np.ndarray:
        p = softmax(theta)
        return p[k] * ((np.arange(p.size) == k) - p)

    def reached(_: float, theta: np.ndarray) -> float:
        return target - float(softmax(theta)[k])

    reached.terminal = True
    sol = solve_ivp(velocity, (0.0, 1e6), np.log(pi), "LSODA", events=reached, rtol=1e-10, atol=1e-12)
    return float(sol.t_events[0][0])


@pytest.mark.parametrize(("behaviours", "expected"), [(2, 13.3), (3, 21.6), (5, 35.7), (9, 61.4)])
def test_quoted_times_of_k_behaviours(behaviours: int, expected: float) -> None:
    pi = np.full(behaviours, 0.1 / (behaviours - 1))
    pi[0] = 0.9
    time = softmax_time(pi, 1, 0.9)
    assert time == pytest.approx(expected, abs=0.06)
    low, high = softmax_relearning_bounds(pi, 1, 0.9)
    assert float(low) * (1.0 - 1e-7) <= time <= float(high) * (1.0 + 1e-7)


def test_law_after_training_another_mode() -> None:
    """``T ~ (K - 1) / (2 eta (1 - p))``: the rest of the mass sits on one behaviour, C is near 1."""
    for behaviours in (2, 4, 8):
        p = 1.0 - 1e-4
        pi = np.full(behaviours, (1.0 - p) / (behaviours - 1))
        pi[0] = p
        assert softmax_time(pi, 1, 0.9) * 2.0 * (1.0 - p) / (behaviours - 1) == pytest.approx(1.0, abs=0.05)


@given(st.lists(st.floats(0.02, 1.0), min_size=2, max_size=8), st.randoms(use_true_random=False))
def test_bounds_do_not_depend_on_the_order(weights: list[float], random: object) -> None:
    pi = np.array(weights) / np.sum(weights)
    order = list(range(1, pi.size))
    random.shuffle(order)
    target = 0.5 * (1.0 + pi[0])
    first = softmax_relearning_bounds(pi, 0, target)
    shuffled = np.concatenate([pi[order], pi[:1]])
    np.testing.assert_allclose(softmax_relearning_bounds(shuffled, -1, target), first, rtol=1e-12)
    assert float(first[0]) <= float(first[1]) * (1.0 + 1e-12)


@given(st.floats(0.01, 0.98), st.floats(0.01, 0.99))
def test_two_behaviours_move_twice_as_fast_as_one_logit(p: float, share: float) -> None:
    target = p + share * (1.0 - p) * 0.99
    low, high = softmax_relearning_bounds([p, 1.0 - p], 0, target)
    one = float(relearning_time(logit(p), logit(target), 1.0))
    assert float(low) == pytest.approx(0.5 * one, rel=1e-9)
    assert float(high) == pytest.approx(0.5 * one, rel=1e-9)


# --- bad input --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: relearning_time(0.0, 1.0, 0.0), "rate must be positive"),
        (lambda: relearning_time(np.nan, 1.0, 1.0), "log_odds must be finite"),
        (lambda: relearning_time(0.0, np.inf, 1.0), "target_log_odds must be finite"),
        (lambda: drift_from_kl(-0.1, 0.0, "to_base"), "kl must be nonnegative"),
        (lambda: drift_from_kl(0.7, 0.0, "to_base"), "kl must be below 0.693"),
        (lambda: drift_from_kl(1e4, 0.0, "from_base"), "kl must be below"),
        (lambda: drift_from_kl(0.1, 0.0, "forward"), "direction must be one of to_base, from_base"),
        (lambda: drift_from_kl_gap(0.0, 0.0), "gap must be positive"),
        (lambda: drift_from_kl_gap(0.7, 0.0), "gap must be at most"),
        (lambda: relearning_time_from_kl(0.1, 0.0, 1.0, -1.0, "to_base"), "rate must be positive"),
        (lambda: stage_success(-1.0, 1.0), "target_log_odds must be positive"),
        (lambda: stage_success(1.0, -1.0), "budget must be nonnegative"),
        (lambda: stage_success(1.0, 1.0, 0.0, 0.0), "must not both be 0"),
        (lambda: task_sequence("ppo", [1.0], target_log_odds=1.0), "method must be one of rl"),
        (lambda: task_sequence("rl", [-1.0], target_log_odds=1.0), "budgets must be nonnegative"),
        (lambda: task_sequence("rl", [1.0], -2.0, target_log_odds=1.0), "conflicts must lie in"),
        (lambda: task_sequence("rl", [1.0], [1.0, 1.0], target_log_odds=1.0), "conflicts must be one number"),
        (lambda: task_sequence("rl", [1.0], target_log_odds=np.nan), "target_log_odds must be finite"),
        (lambda: task_sequence("rl", [1.0], target_log_odds=1.0, mobility="x"), "mobility must be one of"),
        (lambda: softmax_relearning_bounds([0.5, 0.6], 0, 0.9), "sum 1"),
        (lambda: softmax_relearning_bounds([1.0], 0, 0.9), "at least 2"),
        (lambda: softmax_relearning_bounds([1.0, 0.0], 0, 0.9), "pi must be positive"),
        (lambda: softmax_relearning_bounds([0.5, 0.5], 2, 0.9), "k must be one of the 2"),
        (lambda: softmax_relearning_bounds([0.5, 0.5], 0, 0.4), "target must be a probability"),
        (lambda: softmax_relearning_bounds([0.5, 0.5], 0, 1.0), "target must be a probability"),
    ],
)
def test_malformed(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_clock_inverse_is_exact_on_the_stages(rng: np.random.Generator) -> None:
    y = rng.uniform(-1e4, 1e4, 100)
    np.testing.assert_allclose(learning_clock(inverse_learning_clock(y)), y, rtol=1e-13)
