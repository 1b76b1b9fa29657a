"""The numbers behind the figures agree with the theory, and the files are what they should be."""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from scipy.special import logit, ndtr

from fstsim import ForwardKL, GradientDescent, TwoModeProblem, simulate
from fstsim.overlap import misassignment_probability
from fstsim.paper import figures
from fstsim.paper.figures import forward as forward_figures
from fstsim.paper.figures import joint as joint_figures
from fstsim.paper.figures import reverse as reverse_figures
from fstsim.paper.figures.catalogue import FIGURES, figure_of, save_figure
from fstsim.paper.figures.drawing import SERIES
from fstsim.paper.figures.figure import Figure
from fstsim.theory import (
    ALL_STATEMENTS,
    mass_forgetting_separated,
    mass_forgetting_ultimate,
    misassignment_bound_table,
    old_mean_drift_forward,
)

FIRST_SIX = (
    "mass-forgetting",
    "geometry",
    "joint-forward-flow",
    "misassignment-bounds",
    "drift-vs-separation",
    "drift-vs-time",
)


def slope(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.polyfit(x, y, 1)[0])


# --- the list ------------------------------------------------------------------------------------------------------


def test_the_first_six_are_there_in_order() -> None:
    assert tuple(FIGURES)[:6] == FIRST_SIX
    assert all(name == figure.name for name, figure in FIGURES.items())


def test_figures_show_statements_that_there_are() -> None:
    slugs = {statement.slug for statement in ALL_STATEMENTS}
    for figure in FIGURES.values():
        assert set(figure.slugs) <= slugs
        assert len(figure.slugs) == len(set(figure.slugs))
    assert figure_of("drift-along-flow") == "drift-vs-separation"  # the first of the two that show it
    assert figure_of("mismatch-overlap") == ""


def test_every_figure_that_a_module_declares_is_listed() -> None:
    modules = [
        importlib.import_module(f"fstsim.paper.figures.{m.name}") for m in pkgutil.iter_modules(figures.__path__)
    ]
    declared = [value for module in modules for value in vars(module).values() if isinstance(value, Figure)]
    assert {figure.name for figure in declared} == FIGURES.keys()


def test_series_survive_greyscale() -> None:
    luminance = []
    for color, _ in SERIES:
        linear = [((c + 0.055) / 1.055) ** 2.4 for c in matplotlib.colors.to_rgb(color)]
        luminance.append(116.0 * (np.dot(linear, (0.2126, 0.7152, 0.0722))) ** (1 / 3) - 16.0)
    assert (np.diff(luminance) > 8.0).all()
    assert len({marker for _, marker in SERIES}) == len(SERIES)


# --- figure 1 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delta", [1.0, 3.0])
def test_exact_forgetting_is_what_the_solver_finds(delta: float) -> None:
    exact = forward_figures.forgetting_exact(delta)
    times = np.geomspace(1e2, 1e6, 3)
    expected = np.exp(np.interp(np.log(times), np.log(exact.time), np.log(exact.mass)))
    # linear interpolation on a grid of 240 points
    np.testing.assert_allclose(forward_figures.forgetting_flows([delta, 2.0], times)[0], expected, rtol=2e-3)
    assert (exact.mass >= mass_forgetting_separated(0.5, exact.time)).all()


def test_exponent_is_the_slope_and_its_window_widens() -> None:
    widths = []
    for delta in forward_figures.FORGETTING_DELTAS:
        exact = forward_figures.forgetting_exact(delta)
        measured = -np.gradient(np.log(exact.mass), np.log(exact.time))
        np.testing.assert_allclose(exact.exponent[2:-2], measured[2:-2], rtol=0.03)
        widths.append(np.ptp(np.log(exact.time[exact.exponent > 0.6])))
    assert (np.diff(widths) > 0.0).all()


def test_forgetting_ends_at_the_last_law() -> None:
    exact = forward_figures.forgetting_exact(1.0)
    assert exact.exponent[-1] == pytest.approx(0.5, abs=1e-6)
    assert exact.mass[-1] == pytest.approx(float(mass_forgetting_ultimate(exact.time[-1], 1.0)), rel=1e-5)


def test_sgd_points_follow_the_descent_they_sample() -> None:
    points = forward_figures.forgetting_sgd(2.0)
    problem = TwoModeProblem.separated(2.0)
    descent = simulate(problem, ForwardKL(problem), problem.initial(0.5), GradientDescent(0.5, train="weight"), 800)
    expected = descent.old_mass[np.rint(points.time / 0.5).astype(int)]
    # five standard errors, and the bias of order lr / batch that the noise of a curved flow brings
    assert (np.abs(points.mean - expected) <= 5.0 * points.error + 0.5 / 32 * expected).all()


# --- figure 2 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delta", [1.0, 4.0])
def test_fisher_rao_is_a_straight_line_at_every_overlap(delta: float) -> None:
    times = np.array([1.0, 4.0, 8.0])
    np.testing.assert_allclose(forward_figures.geometry_flow("fisher", delta, times), 0.5 * np.exp(-times), rtol=1e-4)
    time, mass = forward_figures.fisher_descent(delta, 0.0)
    np.testing.assert_allclose(mass, 0.5 * 0.99 ** np.rint(time / 0.01), rtol=1e-8)


def test_other_geometries_bend_as_the_caption_says() -> None:
    late = np.geomspace(1e3, 1e4, 8)
    logit_slope = slope(np.log(late), np.log(forward_figures.geometry_flow("logit", 2.0, late)))
    em_slope = slope(np.log(late), np.log(forward_figures.geometry_flow("em", 2.0, late)))
    assert -0.65 < logit_slope < -0.5
    assert -1.1 < em_slope < -0.95
    assert forward_figures.geometry_separated("prob", [0.374, 0.375, 1.0])[0] > 0.0
    assert (forward_figures.geometry_separated("prob", [0.375, 1.0]) == 0.0).all()
    overlapping = forward_figures.geometry_flow("prob", 2.0, np.array([0.375, 1.0]))
    assert (overlapping > 0.5 * np.exp(-np.expm1(4.0) * np.array([0.375, 1.0]))).all()


# --- figure 3 ------------------------------------------------------------------------------------------------------


def test_joint_flow_collapses_with_a_positive_mass() -> None:
    times = np.geomspace(0.1, 1e6, 241)
    flows = joint_figures.joint_flows({2.0: times, 4.0: times})
    for (delta, flow), final in zip(flows.items(), (0.271, 4.47e-3), strict=True):
        end = joint_figures.collapse(times, flow)
        assert end.mass == pytest.approx(final, rel=5e-3)  # theory 1.6
        assert end.predicted == pytest.approx(final, rel=0.25)
        assert (np.diff(flow.mass) <= 1e-9).all()
        assert (flow.region <= flow.region_bound + 1e-9).all()
        assert flow.region[-1] == pytest.approx(ndtr(-0.5 * delta), rel=0.01)
        assert flow.mean_old[-1] > 0.95


# --- figure 4 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old_mass", reverse_figures.OLD_MASSES)
def test_misassignment_lies_between_its_bounds_as_tightly_as_the_caption_says(old_mass: float) -> None:
    deltas = np.linspace(0.3, 10.0, 98)
    actual = misassignment_probability(logit(old_mass), deltas)
    table = misassignment_bound_table(logit(old_mass), deltas)
    assert (table["L*"] <= actual).all()
    assert (table["U*"] <= 1.41 * actual).all()
    assert (table["U2"] <= 2.31 * actual).all()
    for name in ("U1", "U2", "U3", "U4", "U5", "U*"):
        assert (actual <= table[name] * (1.0 + 1e-12)).all()
    sampled = reverse_figures.misassignment_samples(old_mass, [1.0, 3.0])
    exact = misassignment_probability(logit(old_mass), sampled.time)
    assert (np.abs(sampled.mean - exact) <= 5.0 * sampled.error).all()


# --- figures 5 and 6 -----------------------------------------------------------------------------------------------


def test_reverse_peaks_are_the_theory_table_and_below_their_certificates() -> None:
    table = {6.0: (1.06e-2, 9.7e-4, 4.6e-3), 12.0: (6.6e-8, 1.1e-9, 6.9e-9)}  # theory 4.1, three initial errors
    peaks = {delta: reverse_figures.reverse_peaks(delta) for delta in table}
    for delta, expected in table.items():
        np.testing.assert_allclose(peaks[delta], expected, rtol=0.1)  # descent with learning rate 0.1
        bounds = [reverse_figures.reverse_certificate([delta], start)[0] for start in reverse_figures.STARTS]
        assert (peaks[delta] < bounds).all()
    # exponent 1/8 of the squared separation where only the weight is wrong
    assert np.log(peaks[6.0][2] / peaks[12.0][2]) / (12.0**2 - 6.0**2) == pytest.approx(1 / 8, rel=0.02)


@pytest.mark.parametrize("delta", [8.0, 12.0])
def test_forward_drift_grows_almost_like_the_square_root_of_time(delta: float) -> None:
    times = np.array([1e2, 1e3])
    drift = reverse_figures.forward_drift(delta, times)
    both = reverse_figures.forward_drifts([4.0, delta], times)
    np.testing.assert_allclose(both[1], drift, rtol=1e-5)
    exponent = np.log10(drift[1] / drift[0])
    # the misassigned samples sit 2 - s from the midpoint: a factor exp(-(2 - s)^2 / (2 delta^2)), s = -log t, slows it
    assert exponent == pytest.approx(0.5 - (np.log(10.0**2.5) + 2.0) / delta**2, abs=0.06)
    bound, leading = old_mean_drift_forward(delta, 0.5, times)
    assert (drift <= bound).all()
    assert (0.6 * leading < drift).all()
    assert (drift < leading).all()


def test_reverse_drift_comes_back() -> None:
    times = np.linspace(0.0, 50.0, 251)
    drift, envelope = reverse_figures.reverse_flow(reverse_figures.WEIGHT, times)
    assert (drift <= envelope + 1e-9).all()
    assert drift.max() > 1e-3
    assert drift[-1] < 1e-3 * drift.max()


# --- files ---------------------------------------------------------------------------------------------------------


def check_files(name: str, out: Path) -> list[Path]:
    paths = save_figure(FIGURES[name], out)
    assert [path.name for path in paths] == [f"{name}.png", f"{name}.pdf"]
    png, pdf = (path.read_bytes() for path in paths)
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert png.endswith(b"IEND\xaeB`\x82")
    width = int.from_bytes(png[16:20], "big")
    assert 900 <= width <= 1500
    assert pdf.startswith(b"%PDF-")
    assert pdf.rstrip().endswith(b"%%EOF")
    assert len(png) > 20_000
    assert len(pdf) > 10_000
    return paths


def test_same_bytes_every_time_in_threads_too_and_no_style_left_behind(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    alone = check_files("misassignment-bounds", tmp_path / "first")
    with ThreadPoolExecutor(2) as pool:
        names = ("misassignment-bounds", "drift-vs-time")
        beside, _ = pool.map(lambda name: check_files(name, tmp_path / "second"), names)
    assert dict(matplotlib.rcParams) == before
    first, second = ([hashlib.sha256(path.read_bytes()).hexdigest() for path in paths] for paths in (alone, beside))
    assert first == second


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mass-forgetting", "geometry", "joint-forward-flow", "drift-vs-separation"])
def test_the_other_figures(name: str, tmp_path: Path) -> None:
    check_files(name, tmp_path)
