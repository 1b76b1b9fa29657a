"""Section 12: the quoted numbers, the closed forms against ODE solvers and mpmath, and the simulation beside its flow."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scipy.integrate import quad, solve_ivp
from scipy.special import expit, logit

from fstsim.errors import InputError
from fstsim.theory.clocks import (
    inverse_learning_clock,
    learning_clock,
    learning_clock_between,
    mobility_of,
    solve_increasing,
)
from fstsim.theory.fast_slow import (
    fast_slow_allocation,
    kl_reduction,
    largest_slow_share,
    leashed_optimum,
    no_context_kl,
    search_log_odds,
    search_phase_time,
    search_time_bound,
    skill_per_drift_ratio,
    speed_up,
    time_to_reward,
)
from fstsim.theory.fast_slow_run import simulate_fast_slow
from fstsim.theory.group_normalised import group_normalised_drift
from fstsim.theory.plasticity import task_sequence

ODDS = st.floats(-9.0, 3.0)
GAIN = st.floats(0.05, 9.0)
RATE = st.floats(0.05, 10.0)
CAPACITY = st.floats(0.01, 8.0)
KINDS = st.sampled_from(["gradient", "search"])
MOBILITIES = st.sampled_from(["plain", "normalised"])


# --- clocks ------------------------------------------------------------------------------------------------------------


@given(st.floats(-300.0, 300.0), MOBILITIES)
def test_clock_is_odd_and_inverted(x: float, mobility: str) -> None:
    y = float(learning_clock(x, mobility))
    assert float(learning_clock(-x, mobility)) == -y
    assert float(inverse_learning_clock(y, mobility)) == pytest.approx(x, rel=1e-14, abs=1e-300)


@given(st.floats(-1e6, 1e6), MOBILITIES)
def test_clock_of_the_inverse(y: float, mobility: str) -> None:
    assert float(learning_clock(inverse_learning_clock(y, mobility), mobility)) == pytest.approx(y, rel=1e-13)


@given(ODDS, st.floats(-5.0, 5.0), MOBILITIES)
def test_clock_between_is_the_integral_of_one_over_mobility(x: float, gap: float, mobility: str) -> None:
    reference = quad(lambda t: 1.0 / float(mobility_of(t, mobility)), x, x + gap, epsabs=0.0, epsrel=1e-12)[0]
    assert float(learning_clock_between(x, x + gap, mobility)) == pytest.approx(reference, rel=1e-10)


@given(st.floats(-20.0, 20.0))
def test_solve_increasing_clips_to_its_bracket(y: float) -> None:
    root = solve_increasing(np.sinh, np.cosh, y, -1.0, 2.0)
    assert float(root) == pytest.approx(np.clip(np.arcsinh(y), -1.0, 2.0), abs=1e-12)


# --- allocation and KL (12a, 12b) ------------------------------------------------------------------------------------------


@given(RATE, RATE, CAPACITY, GAIN)
def test_allocation_lies_between_its_two_regimes(slow: float, fast: float, room: float, gain: float) -> None:
    share = float(fast_slow_allocation(slow, fast, room, gain))
    assert share == max(slow / (slow + fast), 1.0 - room / gain)
    assert 0.0 < share <= 1.0
    assert float(fast_slow_allocation(slow, 0.0, room, gain)) == 1.0
    assert float(fast_slow_allocation(slow, fast, 0.0, gain)) == 1.0
    assert float(fast_slow_allocation(0.0, fast, np.inf, gain)) == 0.0


@given(st.floats(-40.0, 40.0), st.floats(-20.0, 3.8), st.sampled_from([-1.0, 1.0]))
def test_kl_against_40_digits(base: float, log_gap: float, sign: float) -> None:
    s = base + sign * np.exp(log_gap)
    assume(s != base)
    with mpmath.workdps(60):
        a, b = mpmath.mpf(float(s)), mpmath.mpf(base)
        p = 1 / (1 + mpmath.exp(-a))
        exact = p * (a - b) - mpmath.log1p(mpmath.exp(a)) + mpmath.log1p(mpmath.exp(b))
    assert float(no_context_kl(s, base)) == pytest.approx(float(exact), rel=1e-13)


@given(st.floats(-8.0, 8.0), st.floats(-8.0, 8.0))
def test_kl_is_nonnegative_with_slope_gap_times_mobility(s: float, base: float) -> None:
    assert float(no_context_kl(s, base)) >= 0.0
    h = 1e-4
    slope = float(no_context_kl(s + h, base) - no_context_kl(s - h, base)) / (2.0 * h)
    # a central difference errs by h^2 times the third derivative, which is below 10 here
    assert slope == pytest.approx((s - base) * expit(s) * expit(-s), abs=1e-6)


def test_largest_share_for_70_percent_is_the_quoted_table() -> None:
    table = {
        0.01: [0.728, 0.709, 0.662, 0.613, 0.566, 0.474],
        0.05: [0.654, 0.639, 0.592, 0.541, 0.492, 0.398],
        0.10: [0.616, 0.605, 0.559, 0.507, 0.457, 0.363],
        0.30: [0.558, 0.554, 0.512, 0.460, 0.409, 0.313],
    }
    targets = logit([0.4, 0.6, 0.8, 0.9, 0.95, 0.99])
    for p0, row in table.items():
        np.testing.assert_allclose(largest_slow_share(logit(p0), targets), row, atol=5.001e-4)
    np.testing.assert_allclose(largest_slow_share(0.0, targets[1:]), [0.544, 0.506, 0.454, 0.402, 0.300], atol=5.001e-4)


@given(ODDS, GAIN, st.floats(0.05, 0.95))
def test_largest_share_inverts_the_reduction(base: float, gain: float, reduction: float) -> None:
    share = largest_slow_share(base, base + gain, reduction)
    assert float(kl_reduction(base, base + gain, share)) == pytest.approx(reduction, abs=1e-11)


def test_conditions_for_a_70_percent_reduction_at_small_gain() -> None:
    limit = np.sqrt(0.3)
    assert float(largest_slow_share(-1.0, -1.0 + 1e-5, 0.7)) == pytest.approx(limit, abs=1e-4)
    assert 1.0 / limit - 1.0 == pytest.approx(0.826, abs=5e-4)  # eta_f / eta_s
    assert 1.0 - limit == pytest.approx(0.452, abs=5e-4)  # Phi / G
    assert 1.0 / limit == pytest.approx(1.83, abs=5e-3)  # the speed-up it predicts
    assert pytest.approx(0.89, abs=2e-3) == 1.0 - 3.0**-2  # and what a threefold speed-up predicts


def test_even_the_linear_law_fails_where_the_kl_saturates() -> None:
    base, target, share = logit(0.05), logit(0.999), 0.6
    assert float(1.0 - kl_reduction(base, target, share)) > share > share**2


# --- time (12c) -----------------------------------------------------------------------------------------------------------


@given(ODDS, GAIN, RATE, RATE, CAPACITY, KINDS, MOBILITIES)
def test_without_a_fast_channel_it_is_rl(
    base: float, gain: float, slow: float, fast: float, room: float, kind: str, mobility: str
) -> None:
    alone = float(time_to_reward(base, base + gain, slow, mobility=mobility))
    assert alone == pytest.approx(float(learning_clock_between(base, base + gain, mobility)) / slow, rel=1e-12)
    assert float(time_to_reward(base, base + gain, slow, 0.0, room, kind, mobility)) == pytest.approx(alone, rel=1e-12)
    assert float(time_to_reward(base, base + gain, slow, fast, 0.0, kind, mobility)) == pytest.approx(alone, rel=1e-12)


@given(ODDS, GAIN, RATE, RATE, CAPACITY, MOBILITIES)
def test_gradient_speed_up_is_bounded_by_the_rates(
    base: float, gain: float, slow: float, fast: float, room: float, mobility: str
) -> None:
    most = 1.0 + fast / slow
    value = float(speed_up(base, base + gain, slow, fast, room, "gradient", mobility))
    assert 1.0 - 1e-12 <= value <= most * (1.0 + 1e-12)
    unsaturated = float(speed_up(base, base + gain, slow, fast, np.inf, "gradient", mobility))
    assert unsaturated == pytest.approx(most, rel=1e-11)


def ode_time(base: float, target: float, slow: float, fast: float, room: float, kind: str, mobility: str) -> float:
    """Time from an ODE solver with events, in the two phases of the model."""

    def velocity(_: float, y: np.ndarray, quick: float) -> list[float]:
        m = float(mobility_of(y[0], mobility))
        gain = quick * (m if kind == "gradient" else 1.0)
        return [slow * m + gain, gain]

    def reached(_: float, y: np.ndarray, quick: float) -> float:  # noqa: ARG001
        return target - y[0]

    def full(_: float, y: np.ndarray, quick: float) -> float:
        return room - y[1] if quick else 1.0

    reached.terminal = full.terminal = True
    start, now, quick = [base, 0.0], 0.0, fast
    while True:
        sol = solve_ivp(
            velocity, (now, 1e9), start, "LSODA", args=(quick,), events=[reached, full], rtol=1e-10, atol=1e-12
        )
        now = float(sol.t[-1])
        if sol.t_events[0].size:
            return now
        start, quick = sol.y[:, -1], 0.0


@pytest.mark.parametrize("mobility", ["plain", "normalised"])
@pytest.mark.parametrize("kind", ["gradient", "search"])
def test_time_against_ode(kind: str, mobility: str, rng: np.random.Generator) -> None:
    for _ in range(6):
        base = rng.uniform(-6.0, 0.0)
        case = (base, base + rng.uniform(0.5, 6.0), *rng.uniform(0.2, 3.0, 2), rng.uniform(0.2, 4.0), kind, mobility)
        assert float(time_to_reward(*case)) == pytest.approx(ode_time(*case), rel=1e-7)


@pytest.mark.parametrize(
    ("p0", "expected"), [(0.1, [1.66, 2.69, 56.0]), (0.01, [2.29, 4.56, 12.4]), (0.001, [2.64, 6.72, 33.0])]
)
def test_quoted_speed_ups_of_a_searching_context(p0: float, expected: list[float]) -> None:
    got = speed_up(logit(p0), logit(0.8), 1.0, 10.0, [1.0, 2.0, 4.0], "search")
    np.testing.assert_allclose(got, expected, rtol=7e-3)


@given(ODDS, GAIN, RATE, RATE, CAPACITY, MOBILITIES)
def test_search_bound_and_its_limit(
    base: float, gain: float, slow: float, nu: float, room: float, mobility: str
) -> None:
    assume(room < gain)
    time = float(time_to_reward(base, base + gain, slow, nu, room, "search", mobility))
    assert time <= float(search_time_bound(base, base + gain, slow, nu, room, mobility)) * (1.0 + 1e-11)
    # nu -> infinity: the context is there at once
    at_once = float(learning_clock_between(base + room, base + gain, mobility)) / slow
    quick = float(time_to_reward(base, base + gain, slow, 1e9, room, "search", mobility))
    assert quick == pytest.approx(at_once, rel=1e-6, abs=room * 1e-8)


def test_search_bound_says_nothing_beyond_the_target() -> None:
    assert np.isnan(search_time_bound(0.0, 1.0, 1.0, 1.0, 2.0))


@given(ODDS, GAIN, RATE, RATE, MOBILITIES)
def test_search_phase_closed_form_and_inverse(base: float, gain: float, slow: float, nu: float, mobility: str) -> None:
    assume(nu > 0.01 * slow)  # below that the closed form loses digits, as it says
    time = float(search_phase_time(base, base + gain, slow, nu, mobility))
    reference = quad(
        lambda x: 1.0 / (nu + slow * float(mobility_of(x, mobility))), base, base + gain, epsabs=0.0, epsrel=1e-12
    )[0]
    assert time == pytest.approx(reference, rel=1e-9)
    arrays = (np.asarray(v) for v in (base, time, base + gain + 1.0, slow, nu))
    assert float(search_log_odds(*arrays, mobility)) == pytest.approx(base + gain, rel=1e-9, abs=1e-9)


def test_search_phase_at_the_rate_where_arctan_meets_artanh() -> None:
    near = [float(search_phase_time(-3.0, 2.0, eta, 1.0, "normalised")) for eta in (2.0 - 1e-7, 2.0, 2.0 + 1e-7)]
    assert near[0] > near[1] > near[2]
    np.testing.assert_allclose(near, near[1], rtol=1e-6)


def test_fast_only_is_out_of_reach_with_a_small_capacity() -> None:
    for kind in ("gradient", "search"):
        assert time_to_reward(-2.0, 1.0, 0.0, 1.0, 2.9, kind) == np.inf
        assert np.isfinite(time_to_reward(-2.0, 1.0, 0.0, 1.0, 3.1, kind))
    assert float(time_to_reward(-2.0, 1.0, 0.0, 0.5, 5.0, "search")) == pytest.approx(6.0)
    assert float(time_to_reward(1.0, 1.0, 2.0)) == 0.0


# --- asymptote (12d) ------------------------------------------------------------------------------------------------------


@given(ODDS, st.floats(0.05, 5.0), st.floats(0.0, 4.0), st.floats(0.1, 1.0))
def test_leashed_optimum_balances_and_tells_when_a_context_drifts_more(
    base: float, leash: float, room: float, skill: float
) -> None:
    s = float(leashed_optimum(base, leash, room, skill))
    alone = float(leashed_optimum(base, leash, 0.0, skill))
    assert alone == pytest.approx(base + skill / leash, rel=1e-12, abs=1e-12)
    ratio = np.exp(room + 2.0 * np.logaddexp(0.0, s) - 2.0 * np.logaddexp(0.0, s + room))
    assert skill * ratio == pytest.approx(leash * (s - base), rel=1e-9)
    if room > 1e-6 and abs(alone + 0.5 * room) > 1e-6:
        assert (s < alone) == (alone > -0.5 * room)

    def value(at: float) -> float:
        return float(expit(at + room) * skill - leash * no_context_kl(at, base))

    assert value(s) >= max(value(s + d) for d in (-0.3, 0.3)) - 1e-12
    without = float(expit(alone) * skill - leash * no_context_kl(alone, base))
    assert value(s) >= without - 1e-14


@given(st.floats(-20.0, 20.0), st.floats(0.0, 10.0))
def test_skill_ratio_lies_between_one_and_the_capacity(s: float, room: float) -> None:
    ratio = float(skill_per_drift_ratio(s, room))
    assert 1.0 - 1e-12 <= ratio <= np.exp(room) * (1.0 + 1e-12)


# --- simulation beside the flow ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gradient", "search"])
@pytest.mark.parametrize("advantage", ["plain", "normalised"])
def test_simulation_converges_to_the_flow_with_the_rate(kind: str, advantage: str, rng: np.random.Generator) -> None:
    """Euler's error halves with the rate (measured ratios 1.7 to 2.0); the noise of 100,000 groups is a tenth of it."""
    errors = []
    for scale in (1, 2):
        run = simulate_fast_slow(
            -2.0,
            (1,),
            12 * scale,
            eta_slow=1.0 / scale,
            eta_fast=0.5 / scale,
            capacity=20.0,
            fast=kind,
            group=4,
            groups=100_000,
            contexts=2,
            advantage=advantage,
            rng=rng,
        )
        errors.append(float(np.abs(run.slow[:, 0] - run.flow_slow).max()))
    assert errors[0] < 0.1
    assert 1.4 < errors[0] / errors[1] < 2.6


@settings(max_examples=40)  # two or three ODE solutions each
@example(0.0, 0.25, 2.2e-309, 1.0, "search")  # a rate whose inverse overflows: the context never helps
@example(-1.0, 0.1, 5e-324, 2.0, "gradient")
@given(st.floats(-3.0, 1.0), st.floats(0.01, 0.3), st.floats(0.0, 0.3), st.floats(0.1, 4.0), KINDS)
def test_flow_equals_the_closed_form_of_the_sequence(
    base: float, slow: float, fast: float, room: float, kind: str
) -> None:
    rng = np.random.default_rng(0)
    signs, steps, target = (1, -1, -1), 30, 1.5
    run = simulate_fast_slow(
        base, signs, steps, eta_slow=slow, eta_fast=fast, capacity=room, fast=kind, target_log_odds=target, rng=rng
    )
    method = "fst-gradient" if kind == "gradient" else "fst-search"
    stages = task_sequence(
        method,
        np.full(3, float(steps)),
        [1.0, -1.0, 1.0],
        target_log_odds=target,
        eta_slow=slow,
        eta_fast=fast,
        capacity=room,
        base_log_odds=base,
    )
    flow = run.flow_slow[[steps, 2 * steps, 3 * steps]] * signs
    np.testing.assert_allclose(flow, stages.slow, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", ["search", "gradient"])
def test_a_rate_whose_inverse_overflows_does_nothing(kind: str) -> None:
    alone = float(time_to_reward(-1.0, 1.0, 0.1))
    for fast in (5e-324, 2.2e-309, 1e-300):
        assert float(time_to_reward(-1.0, 1.0, 0.1, fast, 1.0, kind)) == pytest.approx(alone, rel=1e-12)


def test_run_has_one_row_a_step_and_counts_both_channels(rng: np.random.Generator) -> None:
    run = simulate_fast_slow(
        -1.0,
        (1, -1),
        6,
        eta_slow=0.1,
        eta_fast=0.1,
        capacity=2.0,
        fast="search",
        slow_steps_per_round=3,
        group=4,
        groups=2,
        contexts=2,
        replicates=5,
        rng=rng,
    )
    assert run.slow.shape == (13, 5)
    assert run.fast.shape == (13, 2, 5)
    assert run.samples[-1] == 12 * 8 + 4 * 8
    assert run.task.tolist() == [0] * 7 + [1] * 6
    table = run.columns()
    assert {v.shape[0] for v in table.values()} == {13}
    assert (table["kl_to_base"][0] == 0.0).all()
    assert (table["kl_to_base"] >= 0.0).all()
    # with a context in the prompt the distance from the base is larger than without, on the first task
    assert (table["kl_in_context"][6] > table["kl_to_base"][6]).all()
    assert run.flow_reward.shape == (13,)


@pytest.mark.parametrize("contexts", [1, 2])
def test_one_normalised_step_has_the_exact_mean(contexts: int, rng: np.random.Generator) -> None:
    run = simulate_fast_slow(
        -1.5, (1,), 1, eta_slow=1.0, group=6, contexts=contexts, advantage="normalised", replicates=100_000, rng=rng
    )
    step = run.slow[1] - run.slow[0]
    expected = float(group_normalised_drift(expit(-1.5), 6))
    assert abs(step.mean() - expected) < 6.0 * step.std() / np.sqrt(step.size)


def test_rl_only_and_fast_only(rng: np.random.Generator) -> None:
    rl = simulate_fast_slow(-1.0, (1,), 5, eta_slow=0.3, capacity=3.0, rng=rng)
    assert (rl.fast == 0.0).all()
    assert rl.samples[-1] == 40
    fast = simulate_fast_slow(-1.0, (1,), 5, eta_slow=0.0, eta_fast=0.3, capacity=1.0, fast="search", rng=rng)
    assert (fast.slow == -1.0).all()
    assert fast.samples[-1] == 40
    assert fast.fast[-1].item() == 1.0
    np.testing.assert_allclose(fast.flow_fast, [0.0, 0.3, 0.6, 0.9, 1.0, 1.0], atol=1e-9)


# --- bad input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fast_slow_allocation(-1.0, 1.0, 1.0, 1.0), "eta_slow must be nonnegative"),
        (lambda: fast_slow_allocation(0.0, 0.0, 1.0, 1.0), "must not both be 0"),
        (lambda: fast_slow_allocation(1.0, 1.0, -1.0, 1.0), "capacity must be nonnegative"),
        (lambda: fast_slow_allocation(1.0, 1.0, 1.0, 0.0), "gain must be positive"),
        (lambda: no_context_kl(np.inf, 0.0), "log_odds must be finite"),
        (lambda: no_context_kl(0.0, np.nan), "base_log_odds must be finite"),
        (lambda: kl_reduction(0.0, 0.0, 0.5), "target_log_odds must lie above"),
        (lambda: kl_reduction(0.0, 1.0, 1.5), "slow_share must lie in"),
        (lambda: kl_reduction(0.0, 1.0, np.nan), "slow_share must lie in"),
        (lambda: largest_slow_share(0.0, 1.0, 1.0), "reduction must lie strictly"),
        (lambda: time_to_reward(1.0, 0.0, 1.0), "must not lie below"),
        (lambda: time_to_reward(0.0, 1.0, -1.0), "eta_slow must be nonnegative"),
        (lambda: time_to_reward(0.0, 1.0, 1.0, np.inf, 1.0), "eta_fast must be nonnegative and finite"),
        (lambda: time_to_reward(0.0, 1.0, 1.0, 1.0, 1.0, "gepa"), "fast must be one of gradient, search"),
        (lambda: time_to_reward(0.0, 1.0, 1.0, mobility="group"), "mobility must be one of"),
        (lambda: search_phase_time(0.0, 1.0, 0.0, 1.0), "eta_slow must be positive"),
        (lambda: search_phase_time(0.0, 1.0, 1.0, 0.0), "search_rate must be positive"),
        (lambda: leashed_optimum(0.0, 0.0), "leash must be positive"),
        (lambda: leashed_optimum(0.0, 1.0, -1.0), "capacity must be nonnegative"),
        (lambda: skill_per_drift_ratio(0.0, -1.0), "capacity must be nonnegative"),
        (lambda: learning_clock(0.0, "wall"), "mobility must be one of"),
    ],
)
def test_malformed(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base_log_odds": np.nan}, "base_log_odds must be finite"),
        ({"signs": (1, 0)}, "sign must be 1 or -1"),
        ({"signs": ()}, "tasks must not be empty"),
        ({"steps_per_task": 0}, "steps_per_task"),
        ({"eta_slow": -1.0}, "lr must be nonnegative"),
        ({"eta_fast": -0.1, "fast": "search", "capacity": 1.0}, "gain must be nonnegative"),
        ({"contexts": 3}, "multiple of contexts"),
        ({"replicates": 0}, "replicates must be at least 1"),
        ({"fast": "none"}, "fast must be one of"),
        ({"advantage": "z"}, "advantage must be one of"),
    ],
)
def test_malformed_simulation(change: dict, message: str, rng: np.random.Generator) -> None:
    args = {"base_log_odds": 0.0, "eta_slow": 0.1, "rng": rng, **change}
    with pytest.raises(InputError, match=message):
        simulate_fast_slow(**args)
