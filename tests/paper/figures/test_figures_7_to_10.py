"""The numbers behind figures 7 to 10 agree with the theory, and the files are what they should be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, logit

from fstsim import InputError, ReverseKL, TwoModeProblem
from fstsim.paper.figures import convergence as convergence_figures
from fstsim.paper.figures import phase as phase_figures
from fstsim.paper.figures import replay as replay_figures
from fstsim.paper.figures import starvation as starvation_figures
from fstsim.paper.figures.catalogue import FIGURES, save_figure
from fstsim.paper.figures.drawing import Points
from fstsim.theory import (
    kl_leash_equilibrium,
    mass_forgetting_separated,
    merged_escape_time,
    merged_saddle_growth,
    replay_excursion,
    skeleton_kl,
    skeleton_kl_gradient,
)
from fstsim.theory.geometry import extreme_eigenvalues
from fstsim.theory.replay import replay_old_mean_force
from fstsim.theory.starvation import recovery_time_bounds, replay_harm_threshold, zero_signal_probability

NAMES = ("phase-portrait", "local-geometry", "replay-and-leashes", "starvation")

# Random comparisons allow five standard errors: one in 2 million each, a hundred in this file.
Z = 5.0


def close(points: Points, expected: np.ndarray, bias: float = 0.0) -> bool:
    """Within five standard errors, and a relative ``bias`` that descent has beside a flow (of order learning rate)."""
    return bool((np.abs(points.mean - expected) <= Z * points.error + bias * np.abs(expected)).all())


def test_figures_are_in_paper_order() -> None:
    assert tuple(FIGURES)[6:10] == NAMES


# --- figure 7 ------------------------------------------------------------------------------------------------------


def test_skeleton_gradient_is_the_slope_of_the_skeleton(rng: np.random.Generator) -> None:
    target = (0.4, np.zeros(2), np.array([5.0, 0.0]))
    y, h = rng.normal(size=(20, 5)), 1e-5

    def value(x: np.ndarray) -> np.ndarray:
        return skeleton_kl(x[:, 0], x[:, 1:3], x[:, 3:], *target)

    g_s, g_o, g_n = skeleton_kl_gradient(y[:, 0], y[:, 1:3], y[:, 3:], *target)
    slopes = [(value(y + h * e) - value(y - h * e)) / (2.0 * h) for e in np.eye(5)]
    np.testing.assert_allclose(np.column_stack([g_s, g_o, g_n]), np.stack(slopes, axis=-1), atol=1e-8)


def test_paths_follow_the_skeleton_while_the_modes_are_apart_and_merge_otherwise() -> None:
    plane = phase_figures.portrait(phase_figures.AWAY + phase_figures.TOWARD + phase_figures.MERGING)
    away, toward = len(phase_figures.AWAY), len(phase_figures.AWAY + phase_figures.TOWARD)
    mass, error = (x[:, :away] for x in plane)
    bare_mass, bare_error = phase_figures.portrait(phase_figures.AWAY, skeleton=True)
    np.testing.assert_allclose(mass, bare_mass, atol=0.02)
    np.testing.assert_allclose(error, bare_error, atol=0.05)
    assert (np.abs(plane[1][-1, away:toward]) < 0.05).all()
    # as the old mass stays away from 1, where everything about the new component is slow
    assert (plane[1][-1, toward:-1] < -5.0).all()


def test_a_worse_new_mode_is_starved_more() -> None:
    peaks = []
    for error, (_, until) in phase_figures.FIRST_ERRORS.items():
        points = phase_figures.transient_sgd(error)
        flow = phase_figures.transient(error, np.concatenate([points.time, np.geomspace(0.1, until, 200)]))
        at_points, exact = np.split(flow, [points.time.size])
        peaks.append(exact.max())
        assert exact[-1] == pytest.approx(0.5, abs=0.01)
        assert exact.max() < expit(0.5 * error**2)  # never past the place where the weight is drawn
        assert close(points, at_points, bias=0.02)
    assert (np.diff(peaks) > 0.1).all()


def test_escape_from_a_merged_state_takes_far_longer_than_the_split() -> None:
    shares = []
    for delta, share in ((4.0, 0.43), (6.0, 0.32), (8.0, 0.62)):
        found = phase_figures.escape(delta)
        assert found.e_fold == pytest.approx(1.0 / float(merged_saddle_growth(0.5, 0.5, delta)), rel=0.03)
        shares.append(found.escape / float(merged_escape_time(0.5, 0.5, delta)))
        assert shares[-1] == pytest.approx(share, abs=0.015)
        plateau = found.divergence[found.time < 0.5 * found.escape]
        assert plateau.min() > 0.97 * plateau.max() > 0.6
        assert plateau.max() < np.log(2.0)
        assert found.divergence[-1] < 1e-3
    assert found.escape > 1e4 * found.e_fold  # exp(5/16 - 1/8 of delta^2), not the same order
    with pytest.raises(InputError, match="beta must lie"):
        merged_escape_time(1.0, 0.5, 6.0)


# --- figure 8 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delta", [1.5, 3.0, 6.5])
def test_both_flows_have_the_rates_of_the_fisher_information(delta: float) -> None:
    values, _ = convergence_figures.eigenpairs(0.3, delta)
    for objective in ("reverse", "replay"):
        rates = convergence_figures.local_rates(objective, 0.3, delta)
        np.testing.assert_allclose(rates, values, rtol=2e-4, atol=2e-6)
    mean, error = convergence_figures.sampled_eigenvalues(0.3, delta)
    assert (np.abs(mean - values) <= Z * error).all()


@pytest.mark.parametrize("start", convergence_figures.APPROACHES)
def test_approach_is_certified_and_ends_at_the_smallest_eigenvalue(start: tuple[float, float]) -> None:
    times = np.linspace(0.0, 30.0, 61)
    distance = convergence_figures.approach_flow(*start, times)
    assert (distance <= convergence_figures.approach_bound(*start, times) * (1.0 + 1e-6)).all()
    slope = np.log(distance[-11] / distance[-1]) / (times[-1] - times[-11])
    slowest = float(extreme_eigenvalues(0.5, convergence_figures.APPROACH_DELTA)[0])
    assert slope == pytest.approx(slowest, rel=1e-3)
    points = convergence_figures.approach_sgd(*start)
    expected = convergence_figures.approach_flow(*start, points.time)
    # descent with learning rate 0.05 takes 1 - 0.05 r for exp(-0.05 r): 9 % ahead after 30 units at r = 1/4
    assert close(points, expected, bias=0.15)


# --- figure 9 ------------------------------------------------------------------------------------------------------


def test_mass_under_replay_is_timed_exactly() -> None:
    for beta0, share in replay_figures.COURSES:
        time, mass = replay_figures.replay_course(beta0, share)
        points = replay_figures.replay_sgd(beta0, share)
        there = points.time < time[-1]
        shown = Points(*(x[there] for x in points))
        expected = expit(np.interp(np.log(shown.time), np.log(time), logit(mass)))
        assert close(shown, expected, bias=0.06)  # learning rate 1/4
        free, _ = replay_figures.replay_course(beta0, share, None)
        assert (free <= time).all()


@pytest.mark.parametrize(("delta", "share"), [(1.5, 0.2), (5.0, 0.65)])
def test_mass_rests_at_the_replay_share(delta: float, share: float) -> None:
    mass, error = replay_figures.resting_state(delta, share)
    assert mass == pytest.approx(share, abs=1e-4)
    assert error < 2e-3


def test_sgd_rests_at_the_replay_share() -> None:
    shares = np.array([0.35, 0.8])
    assert close(replay_figures.resting_sgd(3.0, shares), shares, bias=0.01)


@pytest.mark.parametrize(("strength", "delta"), [(0.45, 2.0), (1.45, 4.0), (1.0 / 30.0, 3.0)])
def test_leashed_flows_rest_where_the_theory_says(strength: float, delta: float) -> None:
    rest = {way: float(replay_figures.leash_rest([strength], [delta], way)[0]) for way in ("forward", "reverse")}
    assert rest["forward"] == pytest.approx(0.5 * strength / (1.0 + strength), rel=1e-4)
    assert rest["reverse"] == pytest.approx(float(kl_leash_equilibrium(0.0, strength, delta, "reverse")), rel=1e-3)
    assert rest["reverse"] < rest["forward"]


def test_old_mean_is_dragged_on_the_way_and_comes_back() -> None:
    times = np.geomspace(0.01, 1e3, 200)
    shift = {what: replay_figures.excursion_flow(*what, times) for what in replay_figures.EXCURSIONS}
    worst, usual, pushed = shift.values()
    assert worst.max() == pytest.approx(0.67, abs=0.01)  # theory 6.2
    assert usual[-1] < 1e-2 * usual.max()
    assert pushed.min() < -0.05
    for (delta, beta0, share), path in shift.items():
        force = float(replay_old_mean_force(logit(beta0), share, delta))
        assert path[0] == pytest.approx(0.01 * force / delta, rel=0.03)
        points = replay_figures.excursion_sgd(delta, beta0, share)
        flow = replay_figures.excursion_flow(delta, beta0, share, np.append(points.time, 1e3))[:-1]
        # learning rate 0.2 and the noise of batches of 32 where the modes overlap
        assert close(points, flow, bias=0.1)


def test_largest_excursions_lie_below_their_certificates_and_near_the_law() -> None:
    shares = np.array([0.01, 0.03, 0.1])
    for delta, near in ((6.0, 0.35), (8.0, 0.2)):
        peaks = replay_figures.excursion_peaks(delta, shares)
        bound, leading = replay_excursion(delta, 0.5, shares)
        assert not (peaks > bound).any()  # nan: no certificate
        np.testing.assert_allclose(peaks, leading, rtol=near)
    assert np.isfinite(bound).all()


# --- figure 10 -----------------------------------------------------------------------------------------------------


def test_recovery_in_the_logit_takes_the_flow_time_and_at_most_one_wait() -> None:
    masses = np.array([7e-3, 2.5e-2])
    lower, upper = recovery_time_bounds(masses, starvation_figures.LEVEL, starvation_figures.ALPHA, 1.0, 2)
    np.testing.assert_allclose(starvation_figures.flow_steps("logit", masses), lower, rtol=2e-3)
    for beta0, low, high in zip(masses, lower, upper, strict=True):
        scarce = starvation_figures.recovery_steps("logit", 2, 0.0, beta0)
        # the first step at or beyond the level overshoots: at most one step more than the expected crossing
        assert (scarce.mean >= low - Z * scarce.error).all()
        assert (scarce.mean <= high + 1.0 + Z * scarce.error).all()
        replayed = starvation_figures.recovery_steps("logit", 2, starvation_figures.SHARE, beta0)
        assert (replayed.mean >= low - Z * replayed.error).all()
        assert (replayed.mean <= 1.2 * low + 1.0 + Z * replayed.error).all()


def test_where_the_mass_moves_fast_the_wait_is_all() -> None:
    beta0 = 7e-3
    flow = float(starvation_figures.flow_steps("em", np.array([beta0, 2.5e-2]))[0])
    wait = 1.0 / (1.0 - float(zero_signal_probability(beta0, 2)))
    scarce = starvation_figures.recovery_steps("em", 2, 0.0, beta0)
    replayed = starvation_figures.recovery_steps("em", 2, starvation_figures.SHARE, beta0)
    assert (np.abs(scarce.mean - wait) <= Z * scarce.error + flow).all()
    assert (replayed.mean <= 2.0 * flow + Z * replayed.error).all()


def test_old_samples_keep_coming_in_the_logit_only() -> None:
    steps = np.arange(1, 501)
    logits, natural = (starvation_figures.old_samples(geometry)[1:] for geometry in ("logit", "fisher"))
    rate = starvation_figures.FORGET_RATE
    done, before = (logit(mass_forgetting_separated(0.5, rate * t)) for t in (steps, steps - 1))
    assert (-done / rate <= logits * (1.0 + 1e-6)).all()
    assert (logits <= (0.5 - before / rate) * (1.0 + 1e-6)).all()
    assert natural[-1] == pytest.approx(0.5 / rate, rel=1e-4)
    for geometry, exact in (("logit", logits), ("fisher", natural)):
        points = starvation_figures.old_samples_drawn(geometry)
        at = np.rint(points.time).astype(int) - 1
        assert close(points, exact[at], bias=0.01)


def test_sampled_noise_has_the_ratio_of_the_theory() -> None:
    shares = np.array([0.05, 0.6])
    for beta in starvation_figures.OLD_MASSES:
        expected = starvation_figures.variance_ratio(beta, shares)
        assert close(starvation_figures.sampled_ratio(beta, shares), expected, bias=0.01)  # overlap at delta = 8


def test_replay_hurts_beyond_the_threshold() -> None:
    beta, shares = expit(np.linspace(-4.0, 2.0, 13)), np.linspace(0.02, 0.98, 25)
    ratio = starvation_figures.variance_ratio(beta, shares[:, None])
    beyond = shares[:, None] > replay_harm_threshold(beta)
    assert ((ratio > 1.0) == beyond).all()
    rare = beta[beta < 0.4]
    apart = starvation_figures.overlap_ratio(8.0, rare, shares[::6])
    np.testing.assert_allclose(apart, starvation_figures.variance_ratio(rare, shares[::6, None]), rtol=0.05)


# --- files ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_figure_is_written(name: str, tmp_path: Path) -> None:
    png, pdf = save_figure(FIGURES[name], tmp_path)
    assert png.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert pdf.read_bytes().startswith(b"%PDF-")
    assert png.stat().st_size > 20_000
    assert pdf.stat().st_size > 10_000


def test_plateau_is_the_divergence_of_a_collapsed_learner() -> None:
    problem = TwoModeProblem.separated(8.0)
    collapsed = problem.initial(0.5)
    collapsed = type(collapsed)(collapsed.log_odds, problem.mean_new, problem.mean_new)
    assert float(ReverseKL(problem).value(collapsed)) == pytest.approx(np.log(2.0), abs=1e-3)
