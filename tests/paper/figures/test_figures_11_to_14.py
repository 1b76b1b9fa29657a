"""The numbers behind figures 11 to 14 agree with the theory, and each figure is drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, logit

from fstsim.overlap import bhattacharyya_coefficient, harmonic_overlap
from fstsim.paper.figures import fast_slow as fast_slow_figures
from fstsim.paper.figures import group_panels, method_runs
from fstsim.paper.figures import methods as method_figures
from fstsim.paper.figures import plasticity as plasticity_figures
from fstsim.paper.figures import retention as retention_figures
from fstsim.paper.figures.catalogue import FIGURES, save_figure
from fstsim.theory.clocks import learning_clock
from fstsim.theory.fast_slow import kl_reduction, largest_slow_share, leashed_optimum, no_context_kl, time_to_reward
from fstsim.theory.group_batches import lone_success_jump, rare_escape_wait
from fstsim.theory.group_normalised import group_escape_time
from fstsim.theory.oapl import oapl_retention_refreshes
from fstsim.theory.plasticity import relearning_time, softmax_relearning_bounds
from fstsim.theory.sdft import sdft_fixed_point, sdft_is_retaining, sdft_path_drift, sdft_retention_time_bounds
from fstsim.theory.statements.plasticity_softmax import SOFTMAX
from fstsim.theory.ttt import entropic_retention_threshold, entropic_tilt_log_odds

NAMES = ("methods", "retention-regions", "fast-slow", "plasticity")

# Random comparisons allow five standard errors: one in 2 million each, a few hundred in this file.
Z = 5.0


# --- figure 11 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", method_runs.PLANS)
def test_sgd_follows_the_closed_form_of_every_method(name: str) -> None:
    runs = method_runs.PLANS[name].runs()
    step = method_runs.ROUND if name.startswith(("sdft", "oapl")) else 1  # the map speaks of the ends of rounds
    last = (len(runs.time) - 1) // step * step
    rows = np.array([last // (2 * step) * step, last])
    mass = expit(runs.log_odds[rows])
    exact = method_runs.exact_mass(name, runs.time[rows])
    error = mass.std(axis=1, ddof=1) / np.sqrt(method_runs.RUNS)
    # 3 %: steps of finite size, and rounds solved to 1 - 0.6^12
    assert (np.abs(mass.mean(axis=1) - exact) <= Z * error + 0.03 * exact).all()


def test_methods_are_lost_or_kept_as_their_panel_says() -> None:
    assert all(method_runs.plateau(name) == 0.0 for name in method_runs.LOST)
    kept = [method_runs.plateau(name) for name in method_runs.KEPT]
    assert min(kept) > 0.02
    assert set(method_runs.LOST) | set(method_runs.KEPT) == set(method_runs.PLANS)
    late = [method_runs.exact_mass(name, np.array([300.0]))[0] for name in method_runs.KEPT]
    np.testing.assert_allclose(late, kept, rtol=0.01)


def test_map_without_labels_errs_within_its_bounds() -> None:
    deltas = np.linspace(1.0, 10.0, 10)
    error = method_figures.basin_error(deltas)
    assert (error.lower <= error.exact).all()
    assert (error.exact <= error.upper).all()
    assert (np.maximum(-error.lower, error.upper) < bhattacharyya_coefficient(deltas)).all()


@pytest.mark.parametrize("rate", [1.0, 0.05])
def test_drift_of_sdft_stays_below_the_law_of_its_path(rate: float) -> None:
    mass, drift = method_figures.sdft_drift(6.0, rate)
    law = sdft_path_drift(0.5, mass, method_figures.DRIFT_TILT, 6.0)
    assert (drift < law).all()
    assert drift[-1] > 0.3 * law[-1]
    assert (np.diff(mass) < 0.0).all()


@pytest.mark.parametrize(("name", "batch"), [("replay", 64), ("reverse KL", 64)])
def test_spread_of_runs_is_the_linear_noise_band(name: str, batch: int) -> None:
    measured = method_figures.measured_spread(name, batch)
    rows = np.rint(measured.time / method_figures.SPREAD_LR).astype(int)
    predicted = np.sqrt(method_figures.predicted_spread(name, batch).variance[rows])
    # 5 %: the theory is of leading order in the noise
    assert (np.abs(measured.mean - predicted) <= Z * measured.error + 0.05 * predicted).all()


# --- figure 12 -----------------------------------------------------------------------------------------------------


def test_simulated_points_lie_on_the_side_that_the_boundary_says() -> None:
    floor, base = retention_figures.MIN_MASS, float(logit(retention_figures.BETA0))
    sdft = retention_figures.sdft_outcomes()
    np.testing.assert_array_equal(sdft.mass >= floor, sdft_is_retaining(base, sdft.x, 1.0 - sdft.y, floor))
    np.testing.assert_allclose(sdft.mass, expit(sdft_fixed_point(base, sdft.x, 1.0 - sdft.y)), rtol=0.01)
    ttt = retention_figures.ttt_outcomes()
    # the weakest leash pulls at rate 0.06: 3 % are left after 60 unit steps
    np.testing.assert_allclose(ttt.mass, expit(entropic_tilt_log_odds(base, ttt.x, ttt.y)), rtol=0.04)
    np.testing.assert_array_equal(ttt.mass >= floor, ttt.y >= entropic_retention_threshold(base, ttt.x, floor))
    oapl = retention_figures.oapl_outcomes(0.8, (0.46, 0.62))
    limit = oapl_retention_refreshes(0.5, oapl.y, 1.0, floor, 0.8)
    np.testing.assert_array_equal(oapl.mass >= floor, oapl.x <= limit)
    for outcomes in (sdft, ttt, oapl):
        kept = outcomes.mass >= floor
        assert 0 < kept.sum() < kept.size


@pytest.mark.parametrize("rate", [1.0, 0.01])
def test_sdft_passes_each_mass_between_its_two_times(rate: float) -> None:
    time, mass = retention_figures.sdft_path(rate, retention_figures.PATH_TILT, 1.0)
    lower, upper = sdft_retention_time_bounds(0.0, retention_figures.PATH_TILT, rate, mass)
    # overlap only slows the loss, by at most 1 / (1 - kappa) (theory 3.3); the flow is solved to 1e-4
    slowed = upper / (1.0 - harmonic_overlap(logit(mass[-1]), retention_figures.DELTA))
    assert (lower <= time * (1.0 + 1e-3)).all()
    assert (time <= slowed * (1.0 + 1e-3)).all()


# --- figure 13 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_simulated_frontier_is_the_curve(share: float) -> None:
    points = fast_slow_figures.frontier(share)
    s0 = float(logit(fast_slow_figures.BASE))
    gain = logit(points.reward) - s0
    expected = no_context_kl(s0 + share * gain, np.full(gain.shape, s0))
    slope = (
        share**2 * gain * expit(s0 + share * gain) * expit(-s0 - share * gain) / (points.reward * (1 - points.reward))
    )
    error = np.hypot(points.kl_error, slope * points.reward_error)
    # 1e-3 nats: the KL of a mean is not the mean of the KL
    assert (np.abs(points.kl - expected) <= Z * error + 1e-3).all()


@pytest.mark.parametrize("channel", [fast_slow_figures.RL, fast_slow_figures.FULL, fast_slow_figures.SEARCH])
def test_runs_reach_the_reward_when_the_closed_form_says(channel: fast_slow_figures.Channel) -> None:
    mean, error = fast_slow_figures.measured_time(channel, 0.05)
    expected = float(time_to_reward(logit(0.05), logit(fast_slow_figures.MATCHED), 1.0, **channel.fast))
    assert abs(mean - expected) <= Z * error + channel.lr + 0.01 * expected


def test_contours_and_leash_are_what_they_are_called() -> None:
    base, end = logit([0.01, 0.1, 0.3]), logit([0.4, 0.9, 0.99])
    np.testing.assert_allclose(kl_reduction(base, end, largest_slow_share(base, end, 0.7)), 0.7, rtol=1e-9)
    for capacity in (0.0, 2.0, 4.0):
        for s0 in (-8.5, -3.0, 0.5):
            found = fast_slow_figures.best_slow_log_odds(s0, fast_slow_figures.LEASH, capacity)
            # the objective is flat at its maximum: half of the digits
            assert found == pytest.approx(float(leashed_optimum(s0, fast_slow_figures.LEASH, capacity)), abs=1e-4)


def test_groups_escape_weigh_and_spread_as_the_theory_says() -> None:
    points = group_panels.escape_points(16, (0.03, 0.15))
    expected = group_escape_time(logit(points.time), 0.0, 1.0, 16)
    assert (np.abs(points.mean - expected) <= Z * points.error + 0.25 + 0.01 * expected).all()
    weights = group_panels.mixed_weights(np.array([0.25, 0.75]))
    for row, companion in enumerate((0.25, 0.75)):
        for column, hard in enumerate((True, False)):
            mean, error = group_panels.sampled_weight(companion, hard)
            assert abs(mean - weights[row, column]) <= Z * error
    cv, error = group_panels.wait_spread(0.7)
    rate = 0.7 / lone_success_jump(1.0, group_panels.GROUP)
    # the law is a limit of small G p0, which is 0.008 here
    assert abs(cv - rare_escape_wait(group_panels.RARE, rate, group_panels.GROUP)[1]) <= Z * error + 0.02


# --- figure 14 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("search", [False, True])
def test_relearning_runs_take_the_time_of_the_closed_form(search: bool) -> None:
    points = plasticity_figures.relearning_runs(search)
    fast = plasticity_figures.SEARCH if search else {}
    expected = time_to_reward(-points.time, plasticity_figures.TARGET, 1.0, **fast)
    assert (np.abs(points.mean - expected) <= Z * points.error + 0.25 + 0.01 * expected).all()


def test_relearning_time_lies_between_the_bounds_from_either_divergence() -> None:
    drift = np.linspace(1.0, 9.0, 17)
    exact = relearning_time(-drift, plasticity_figures.TARGET, 1.0)
    for mass in plasticity_figures.BASES:
        base = np.full(drift.shape, float(logit(mass)))
        for bounds in (plasticity_figures.pole_bounds, plasticity_figures.forward_bounds):
            lower, upper = bounds(drift, base)
            assert (lower <= exact * (1.0 + 1e-9)).all()
            assert (exact <= upper * (1.0 + 1e-9)).all()


def test_sequences_end_their_stages_where_the_recursion_says() -> None:
    ends = {}
    for learner in plasticity_figures.LEARNERS:
        run = plasticity_figures.sequence(learner, 1.5)
        rows = (run.step.size - 1) // plasticity_figures.STAGES * np.arange(1, plasticity_figures.STAGES + 1)
        reward = run.reward[rows]
        ends[learner.label] = run.flow_reward[rows]
        error = reward.std(axis=1, ddof=1) / np.sqrt(plasticity_figures.REPLICATES)
        # 0.02: steps of finite size, whose errors add up over stages that undo each other
        assert (np.abs(reward.mean(axis=1) - run.flow_reward[rows]) <= Z * error + 0.02).all()
    stopped, unstopped, fast_slow = ends.values()
    np.testing.assert_allclose(stopped, [0.9, 0.805] * 3, atol=2e-3)
    np.testing.assert_allclose(unstopped[1::2], 0.5, atol=2e-3)
    np.testing.assert_allclose(fast_slow, 0.9, atol=1e-6)


def test_budget_separates_success_from_failure() -> None:
    np.testing.assert_allclose(plasticity_figures.critical_budget([0.0, 1.0]), [1.0, 2.0], atol=1e-9)
    end = float(logit(plasticity_figures.LEVEL))
    expected = 1.0 + learning_clock(0.4 * end) / learning_clock(end)
    assert float(plasticity_figures.critical_budget(0.4)) == pytest.approx(float(expected), rel=1e-9)
    assert plasticity_figures.succeeds(0.4, 0.93 * float(expected)) < 0.5
    assert plasticity_figures.succeeds(0.4, 1.07 * float(expected)) > 0.5


def test_many_behaviours_lie_between_their_bounds() -> None:
    mass = np.array([0.5, 0.9, 0.99])
    for count in (2, 5):
        policies = plasticity_figures.rest_of(mass, count)
        np.testing.assert_allclose(policies.sum(axis=1), 1.0)
        exact = SOFTMAX.exact(pi=policies, target=np.full(3, plasticity_figures.LEVEL))
        lower, upper = softmax_relearning_bounds(policies, 0, plasticity_figures.LEVEL)
        assert (lower * (1.0 - 1e-5) <= exact).all()
        assert (exact <= upper * (1.0 + 1e-5)).all()


# --- files ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_figure_is_written(name: str, tmp_path: Path) -> None:
    png, pdf = save_figure(FIGURES[name], tmp_path)
    assert png.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert pdf.read_bytes().startswith(b"%PDF-")
    assert png.stat().st_size > 20_000
    assert pdf.stat().st_size > 10_000
