"""The explorer's numbers in a real browser against the package's, and its controls moved as a hand moves them."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, logit

from fstsim import ForwardKL, GradientFlow, TwoModeProblem, gradient_flow, simulate
from fstsim.divergences import forward_kl_gradient
from fstsim.paper.report.explorer import write_explorer
from fstsim.theory import (
    bhattacharyya_coefficient,
    entropic_tilt_log_odds,
    fast_slow_allocation,
    harmonic_overlap,
    kl_leash_equilibrium,
    mass_forgetting_separated,
    mass_forgetting_time,
    misassignment_probability,
    no_context_kl,
    reverse_kl_gradient,
    time_to_reward,
)
from fstsim.theory.overlap import misassignment_bound_table

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (pip install fstsim[test])")

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no chromium and chromedriver (Debian: apt-get install chromium chromium-driver)"
)

SETTINGS = [
    {"delta": 3.0, "beta0": 0.5, "alpha": 0.6, "replay": 0.1, "tau": 0.5, "capacity": 2.0, "p0": 0.05},
    {"delta": 0.5, "beta0": 0.98, "alpha": 0.05, "replay": 0.5, "tau": 5.0, "capacity": 0.0, "p0": 0.4},
    {"delta": 8.0, "beta0": 0.02, "alpha": 0.95, "replay": 0.01, "tau": 0.1, "capacity": 6.0, "p0": 0.002},
    {"delta": 1.3, "beta0": 0.31, "alpha": 0.22, "replay": 0.0, "tau": 1.0, "capacity": 0.7, "p0": 0.12},
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("explorer")
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1280,1300",
        f"--user-data-dir={folder / 'profile'}",
    ):
        options.add_argument(flag)
    # the driver is on this machine: nothing is to be looked up
    os.environ.setdefault("SE_OFFLINE", "true")
    os.environ.setdefault("SE_AVOID_STATS", "true")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
    driver.get(write_explorer(folder / "explorer.html").as_uri())
    yield driver
    driver.quit()


def _set(browser: Any, settings: dict[str, float]) -> dict[str, float]:
    browser.execute_script(
        "for (const [k, v] of Object.entries(arguments[0])) document.getElementById(k).value = v;"
        "document.getElementById('delta').dispatchEvent(new Event('input'));",
        settings,
    )
    values: dict[str, float] = json.loads(browser.execute_script("return document.body.dataset.values"))
    return values


def _package_values(p: dict[str, float]) -> dict[str, float]:
    s0, s_a, delta = logit(p["beta0"]), logit(p["alpha"]), p["delta"]
    base, goal = logit(p["p0"]), logit(0.8)
    centers = [[0.0], [delta]]

    def forward(old: float) -> float:
        return -float(forward_kl_gradient(s0, [0.0], [delta], [old, 1.0 - old], centers)[0])

    share = float(fast_slow_allocation(1.0, 1.0, p["capacity"], goal - base))
    return {
        "bhattacharyya": float(bhattacharyya_coefficient(delta)),
        "kappa": float(harmonic_overlap(s0, delta)),
        "misassignment": float(misassignment_probability(s_a, delta)),
        "misassignmentBound": float(misassignment_bound_table(s_a, delta)["U2"]),
        "forwardRate": forward(0.0),
        "tenfoldTime": float(mass_forgetting_time(p["beta0"], p["beta0"] / 10.0, delta)),
        "separatedAt10": float(mass_forgetting_separated(p["beta0"], 10.0)),
        "reverseRate": -float(reverse_kl_gradient(s0, [0.0], [delta], s_a, [0.0], [delta])[0]),
        "replayRate": forward(p["replay"]),
        "plainTiltMass": float(expit(s0 - 1.0 / p["tau"])),
        "entropicTiltMass": float(expit(entropic_tilt_log_odds(s0, 1.0, p["tau"]))),
        "forwardLeashMass": float(kl_leash_equilibrium(s0, p["tau"], direction="forward")),
        "timeSlow": float(time_to_reward(base, goal, 1.0)),
        "timeGradient": float(time_to_reward(base, goal, 1.0, 1.0, p["capacity"], fast="gradient")),
        "timeSearch": float(time_to_reward(base, goal, 1.0, 10.0, p["capacity"], fast="search")),
        "klSlow": float(no_context_kl(goal, base)),
        "klFast": float(no_context_kl(base + share * (goal - base), base)),
    }


@pytest.mark.parametrize("settings", SETTINGS)
def test_page_and_package_agree(browser: Any, settings: dict[str, float]) -> None:
    page, package = _set(browser, settings), _package_values(settings)
    assert page.keys() == package.keys()
    for name, value in package.items():
        assert page[name] == pytest.approx(value, rel=1e-6, abs=1e-12), name


def test_replay_curve_is_the_flow(browser: Any) -> None:
    _set(browser, SETTINGS[0])
    points = browser.execute_script("return charts(params, compute(params))[1].series[0].points")
    times, masses = (np.array(column) for column in zip(*points[1:-1], strict=True))
    problem = TwoModeProblem.separated(3.0)
    run = simulate(
        problem, ForwardKL(problem, 0.1), problem.initial(0.5), GradientFlow(0.05, 1.02, train="weight"), 250
    )
    inside = times < run.time[-1]
    np.testing.assert_allclose(masses[inside], np.interp(times[inside], run.time, run.old_mass), atol=2e-4)
    # at the points themselves, without the error of interpolation between rows
    path = gradient_flow(
        problem,
        ForwardKL(problem, 0.1),
        problem.initial(0.5),
        float(times[inside][-1]),
        GradientFlow(train="weight", rtol=1e-11),
    )
    np.testing.assert_allclose(masses[inside], path(times[inside]).old_mass, rtol=1e-6)


def test_a_slider_moved_by_hand_moves_the_curves(browser: Any) -> None:
    _set(browser, SETTINGS[0])
    before = browser.find_element("css selector", "#forgetting path").get_attribute("d")
    slider = browser.find_element("id", "delta")
    for _ in range(5):
        slider.send_keys("\ue014")  # WebDriver's code of the right arrow
    assert browser.find_element("id", "delta-value").text == "3.5"
    assert browser.find_element("css selector", "#forgetting path").get_attribute("d") != before
    browser.find_element("css selector", "button").click()
    assert browser.find_element("id", "delta-value").text == "3.0"


def test_page_is_self_contained_and_quiet(browser: Any) -> None:
    page = Path(browser.current_url.removeprefix("file://")).read_text(encoding="utf-8")
    assert not re.search(r"(src|href)\s*=|@import|url\(['\"]?http|fetch\(|XMLHttpRequest", page)
    assert "__VERSION__" not in page
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_cut_off(browser: Any, width: int) -> None:
    browser.set_window_size(max(width, 500), 1000)
    if width < 500:  # a desktop window cannot be narrower: emulate the phone
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 850, "deviceScaleFactor": 1, "mobile": True},
        )
    try:
        overflow = browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
        assert overflow <= 0
        right = browser.execute_script(
            "return Math.max(...[...document.querySelectorAll('form, figure, table')].map(e => e.getBoundingClientRect().right))"
        )
        assert right <= width - 8
        assert len(browser.find_elements("css selector", "figure")) == 4
        folder = os.environ.get("FSTSIM_SCREENSHOTS")
        if folder:
            browser.execute_script("window.scrollTo(0, 0)")
            browser.save_screenshot(str(Path(folder) / f"explorer-{width}.png"))
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
