"""Differences of log-odds and masses against `mpmath`, from equal arguments to the ends of the range."""

from __future__ import annotations

from collections.abc import Callable

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mp, mpf

from fstsim.logits import (
    bernoulli_kl,
    bernoulli_kl_gap,
    exp_difference,
    expit_difference,
    log_expit_difference,
    logit_difference,
)

LOG_ODDS = st.floats(-700.0, 700.0)
MASSES = st.floats(1e-300, 1.0 - 2.0**-53)
STEPS = st.floats(-1.0, 1.0) | st.floats(-1e-9, 1e-9) | st.floats(-100.0, 100.0)


def agrees(value: object, exact: mpf, tolerance: float = 1e-12) -> bool:
    return bool(abs(mpf(float(value)) - exact) <= tolerance * abs(exact) + mpf(10) ** -300)


def sig(x: mpf) -> mpf:
    return 1 / (1 + mp.exp(-x))


@given(MASSES, MASSES | st.just(None), st.floats(-1e-6, 1e-6))
def test_logits(a: float, b: float | None, step: float) -> None:
    other = float(np.clip(a * (1.0 + step), 1e-300, 1.0 - 2.0**-53)) if b is None else b
    with mp.workdps(60):
        x, y = mpf(a), mpf(other)
        assert agrees(logit_difference(np.asarray(a), np.asarray(other)), mp.log(x / (1 - x)) - mp.log(y / (1 - y)))


@pytest.mark.parametrize(
    ("function", "exact"),
    [
        (exp_difference, lambda s, p: mp.exp(s) - mp.exp(p)),
        (expit_difference, lambda s, p: sig(s) - sig(p)),
        (log_expit_difference, lambda s, p: mp.log(sig(s)) - mp.log(sig(p))),
        (bernoulli_kl, lambda s, p: sig(s) * mp.log(sig(s) / sig(p)) + sig(-s) * mp.log(sig(-s) / sig(-p))),
    ],
)
@given(LOG_ODDS, STEPS)
def test_log_odds(
    function: Callable[[np.ndarray, np.ndarray], np.ndarray], exact: Callable[[mpf, mpf], mpf], s: float, step: float
) -> None:
    p = float(np.clip(s + step, -700.0, 700.0))
    with mp.workdps(1000):
        assert agrees(function(np.asarray(s), np.asarray(p)), exact(mpf(s), mpf(p)))


@given(LOG_ODDS, st.floats(-700.0, 0.0))
def test_the_gap_to_saturation(s: float, p: float) -> None:
    with mp.workdps(1000):
        x, y = mpf(s), mpf(p)
        exact = mp.log(1 + mp.exp(-x)) + (x - y) * sig(-x)
        assert agrees(bernoulli_kl_gap(np.asarray(s), np.asarray(p)), exact)


def test_infinite_only_where_the_difference_is() -> None:
    a, b = np.array([800.0, 700.0, 800.0, 750.0]), np.array([700.0, 800.0, 800.0, 749.0])
    assert exp_difference(a, b).tolist() == [np.inf, -np.inf, 0.0, np.inf]
    assert float(mpmath.exp(-1)) == pytest.approx(float(exp_difference(np.asarray(-1.0), np.asarray(-2000.0))))
