"""Answers of several decisions: products of one-token laws, their bounds, and what a calibrated clock leaves of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.special import expit, logit

from fstsim import InputError
from fstsim.theory import (
    adam_log_odds_path,
    mass_forgetting_separated,
    sequence_clock,
    sequence_forgetting,
    sequence_logit_bounds,
    sequence_mass,
    sequence_shift_bounds,
)

MASS = st.floats(1e-4, 1.0 - 1e-4)
TOKENS = st.lists(MASS, min_size=1, max_size=6)
TIME = st.floats(0.0, 1e5)
MASSES = np.array([[0.45, 0.75, 0.93, 0.99], [0.6, 0.5, 0.97, 1.0], [0.3, 0.9, 0.9, 0.999]])


@given(TOKENS, TIME)
def test_logit_bounds(tokens: list[float], t: float) -> None:
    exact = float(sequence_forgetting([tokens], t, "logit")[0])
    lower, upper = sequence_logit_bounds(tokens, t)
    assert lower * (1 - 1e-9) <= exact <= upper * (1 + 1e-9)
    assert exact <= mass_forgetting_separated(np.prod(tokens), t) * (1 + 1e-9)  # one token of the same mass


@given(TOKENS, st.floats(-60.0, 0.0))
def test_shift_bounds(tokens: list[float], shift: float) -> None:
    cost = -np.log(float(sequence_mass(tokens, shift)))
    lower, upper = sequence_shift_bounds(tokens, shift)
    assert lower <= cost * (1 + 1e-9)
    assert cost <= upper * (1 + 1e-9)
    assert cost == pytest.approx(sum(np.logaddexp(0.0, -(logit(b) + shift)) for b in tokens), rel=1e-9)


def test_logit_law_is_the_flow_of_every_decision() -> None:
    times = np.array([0.0, 0.5, 3.0, 40.0])
    flow = solve_ivp(lambda _, s: -expit(s), (0.0, 40.0), logit(MASSES[0]), "DOP853", times, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(sequence_forgetting(MASSES, times, "logit")[:, 0], expit(flow.y).prod(axis=0), rtol=1e-8)


@pytest.mark.parametrize("length", [1, 2, 5])
def test_late_laws(length: int) -> None:
    """Slope ``-L`` in log time, ``-L`` a unit of time, and L times the shared shift."""
    masses = np.full((1, length), 0.6)
    late = np.log(sequence_forgetting(masses, [1e6, 2e6], "logit")[:, 0])
    assert np.diff(late)[0] / np.log(2.0) == pytest.approx(-length, rel=1e-4)
    natural = np.log(sequence_forgetting(masses, [3.0, 4.0], "fisher")[:, 0])
    assert np.diff(natural)[0] == pytest.approx(-length)
    t = np.array([1000, 2000])
    adam = np.log(sequence_forgetting(masses, t, "adam", clock=0.05)[:, 0])
    shift = np.diff(adam_log_odds_path([logit(0.6)], 0.05, 2000, eps=0.0)[t, 0])[0]
    assert np.diff(adam)[0] == pytest.approx(length * shift, rel=5e-3)


def test_early_loss_is_the_sum() -> None:
    """``-d log P / dt`` at the start: ``sum beta (1 - beta)`` (logit), L (fisher), ``h sum (1 - beta)`` (adam)."""
    b, t = MASSES[:1], 1e-6
    for law, slope in (("logit", (b * (1 - b)).sum()), ("fisher", 4.0)):
        change = np.log(sequence_forgetting(b, t, law)[0] / b.prod()) / t  # type: ignore[arg-type]
        assert -change == pytest.approx(slope, rel=1e-4)
    change = np.log(sequence_forgetting(b, 1, "adam", clock=t)[0] / b.prod()) / t
    assert -change == pytest.approx((1 - b).sum(), rel=1e-4)


def test_a_mass_of_one_is_no_decision() -> None:
    padded, plain = np.array([[0.5, 0.8, 1.0, 1.0]]), np.array([[0.5, 0.8]])
    for law in ("logit", "fisher", "adam"):
        one = sequence_forgetting(padded, [0, 3, 50], law, clock=0.2)  # type: ignore[arg-type]
        np.testing.assert_allclose(one, sequence_forgetting(plain, [0, 3, 50], law, clock=0.2))  # type: ignore[arg-type]
        assert (sequence_forgetting([[1.0, 1.0]], [0, 9], law) == 1.0).all()  # type: ignore[arg-type]
    for bounds in (sequence_logit_bounds, sequence_shift_bounds):
        np.testing.assert_allclose(bounds(padded[0], 0.0), bounds(plain[0], 0.0))
    np.testing.assert_allclose(sequence_logit_bounds(padded[0], 7.0), sequence_logit_bounds(plain[0], 7.0))
    np.testing.assert_allclose(sequence_shift_bounds(padded[0], -7.0), sequence_shift_bounds(plain[0], -7.0))


def test_adam_law_is_the_shared_path() -> None:
    """All decisions of all prompts, in one parameter, by the path that is tested against torch."""
    decisions = MASSES < 1.0
    path = adam_log_odds_path(logit(MASSES[decisions]), 0.03, 40, eps=0.0)
    shift = path[40, 0] - path[0, 0]
    np.testing.assert_allclose(
        sequence_forgetting(MASSES, 40, "adam", clock=0.03), sequence_mass(MASSES, np.full(3, shift)), rtol=1e-12
    )


@pytest.mark.parametrize("law", ["logit", "fisher", "adam"])
def test_clock_is_found(law: str) -> None:
    start = MASSES.prod(axis=1).mean()
    clock = sequence_clock(MASSES, 6, 0.8 * start, law)  # type: ignore[arg-type]
    found = sequence_forgetting(MASSES, 6, law, clock=clock).mean()  # type: ignore[arg-type]
    assert found == pytest.approx(0.8 * start, rel=1e-9)


def test_what_calibration_leaves_of_the_length() -> None:
    """Nothing under the natural gradient; more than the one-token law under the other two, when decisions are likely."""
    masses = np.array([[0.5, 0.9, 0.9, 0.9]])
    one = masses.prod(axis=1, keepdims=True)
    later = {}
    for law in ("logit", "fisher", "adam"):
        for name, b in (("one", one), ("several", masses)):
            clock = sequence_clock(b, 6, 0.8 * one.item(), law)  # type: ignore[arg-type]
            later[law, name] = float(sequence_forgetting(b, 60, law, clock=clock).mean())  # type: ignore[arg-type]
    assert later["fisher", "several"] == pytest.approx(later["fisher", "one"], rel=1e-9)
    assert later["fisher", "one"] == pytest.approx(one.item() * 0.8**10, rel=1e-9)
    assert later["logit", "several"] < 0.5 * later["logit", "one"]
    assert later["adam", "several"] < 0.5 * later["adam", "one"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sequence_forgetting([[0.0, 0.5]], 1, "logit"), r"token_masses must lie in \(0, 1\]"),
        (lambda: sequence_forgetting([0.5], 1, "logit"), r"token_masses must be \(prompts, decisions\)"),
        (lambda: sequence_forgetting([[0.5]], -1, "logit"), "t must be nonnegative"),
        (lambda: sequence_forgetting([[0.5]], 1, "sgd"), "law must be one of logit, fisher, adam"),
        (lambda: sequence_forgetting([[0.5]], 1.5, "adam"), "t must be whole steps"),
        (lambda: sequence_forgetting([[0.5]], 1_000_001, "adam"), "at most 1,000,000"),
        (lambda: sequence_forgetting([[0.5]], 1, "logit", clock=0.0), "clock must be positive"),
        (lambda: sequence_shift_bounds([0.5], 1.0), "shift must be at most 0"),
        (lambda: sequence_clock([[0.5]], 6, 0.6, "logit"), "after must lie between 0 and the mean mass 0.5"),
        (lambda: sequence_mass([], 0.0), "decisions on its last axis"),
    ],
)
def test_bad_input(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()  # type: ignore[operator]
