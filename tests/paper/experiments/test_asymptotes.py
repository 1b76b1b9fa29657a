"""Asymptotes on curves with known parameters, what is refused, and what a running maximum changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit

from fstsim.paper import DATA
from fstsim.paper.experiments.asymptotes import fit_asymptote, fit_sigmoid, running_maximum, sigmoid_curve
from fstsim.paper.experiments.numbers import Curves, read_curves, speed_up
from fstsim.paper.experiments.tables import running_table

SAMPLES = np.linspace(0.0, 1000.0, 21)


def seeds(rewards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.tile(SAMPLES, (len(rewards), 1)), rewards


@settings(max_examples=30)
@given(st.floats(0.0, 0.2), st.floats(0.4, 1.0), st.floats(80.0, 700.0), st.floats(1.0, 6.0))
def test_parameters_are_recovered(start: float, asymptote: float, middle: float, steepness: float) -> None:
    fitted = fit_sigmoid(SAMPLES, sigmoid_curve(SAMPLES, start, asymptote, middle, steepness))
    found = (fitted.start, fitted.asymptote, fitted.middle / 1000.0, fitted.steepness)
    assert found == pytest.approx((start, asymptote, middle / 1000.0, steepness), rel=2e-3, abs=2e-3)


def test_the_curve_is_the_papers_formula() -> None:
    """Half way at C_mid; and R - R0 = (A - R0) / (1 + (C_mid / C)^B) at a point worked out by hand."""
    assert sigmoid_curve(np.array([300.0]), 0.1, 0.7, 300.0, 3.0) == pytest.approx(0.4)
    assert sigmoid_curve(np.array([600.0]), 0.1, 0.7, 300.0, 2.0) == pytest.approx(0.1 + 0.6 / 1.25)
    assert sigmoid_curve(np.array([0.0]), 0.1, 0.7, 300.0, 2.0) == pytest.approx(0.1)


def test_with_noise_it_agrees_with_another_fit_and_its_interval_holds_the_truth() -> None:
    rng = np.random.default_rng(0)
    rewards = sigmoid_curve(SAMPLES, 0.05, 0.7, 300.0, 3.0) + rng.normal(0.0, 0.01, size=(5, len(SAMPLES)))
    found = fit_asymptote(*seeds(rewards), rng)
    other, _ = curve_fit(sigmoid_curve, SAMPLES, rewards.mean(0), p0=(0.0, 1.0, 500.0, 1.0), bounds=(0.0, 5000.0))
    assert found.value == pytest.approx(other[1], abs=1e-5)
    assert found.low - 0.02 <= 0.7 <= found.high + 0.02


@pytest.mark.parametrize(
    ("rewards", "why"),
    [
        (np.full(21, 0.3), "does not rise"),
        (sigmoid_curve(SAMPLES, 0.0, 1.0, 1800.0, 3.0), "ends before its middle"),
    ],
)
def test_what_says_nothing_of_its_end_is_refused(rewards: np.ndarray, why: str) -> None:
    fitted = fit_sigmoid(SAMPLES, rewards)
    assert fitted.refused == why
    assert np.isnan(fitted.asymptote)
    assert np.isnan(fit_asymptote(*seeds(np.tile(rewards, (3, 1))), np.random.default_rng(0)).value)


def test_four_parameters_on_four_points_fit_anything() -> None:
    assert fit_sigmoid(SAMPLES[:4], SAMPLES[:4] / 150.0).refused == "fewer than 5 measurements"


def test_seeds_that_end_too_early_open_the_interval() -> None:
    """The mean reaches its middle, many resamples do not: A is shown without an interval."""
    late = sigmoid_curve(SAMPLES, 0.0, 0.9, 2500.0, 4.0)
    early = sigmoid_curve(SAMPLES, 0.0, 0.9, 250.0, 4.0)
    found = fit_asymptote(*seeds(np.stack([early, late, late])), np.random.default_rng(0))
    assert np.isfinite(found.value)
    assert np.isnan(found.low)
    assert np.isnan(found.high)


def test_a_running_maximum_never_falls_and_reaches_no_level_later() -> None:
    rng = np.random.default_rng(1)
    noisy = np.clip(np.tile(SAMPLES / 1200.0, (4, 1)) + rng.normal(0.0, 0.05, (4, 21)), 0.0, 1.0)
    run = Curves("run", np.tile(SAMPLES, (4, 1)), {"reward": noisy, "kl_to_base": noisy})
    best = running_maximum(run)
    assert (np.diff(best["reward"], axis=1) >= 0.0).all()
    assert best["reward"].max(axis=1) == pytest.approx(noisy.max(axis=1))
    assert best["kl_to_base"] is noisy
    # the peak is the same, and a level is crossed between the same two measurements
    plain, other = (speed_up(c, c)["rl"].value for c in (run, best))
    assert 0.0 <= plain - other <= SAMPLES[1]


def test_recorded_runs_have_a_row_each_and_one_is_refused() -> None:
    """On the star graph RL's best rewards so far rise to the end: where they end is not seen."""
    out = DATA / "experiments"
    table = running_table(out)
    cells = [list(column.cells) for column in table.columns]
    assert [len(column) for column in cells] == [6] * 7
    flat = read_curves(out, "star_graph-hard-rl")
    assert flat is not None
    best = running_maximum(flat)
    assert fit_sigmoid(best.samples.mean(0), best["reward"].mean(0)).refused == "ends before its middle"
    assert cells[3][cells[0].index("star_graph:forward")] == "-"
