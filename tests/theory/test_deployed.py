"""The floor of a deployed system's KL against mpmath, and against systems that are drawn to beat it."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fstsim.errors import InputError
from fstsim.theory.deployed import deployed_kl_floor
from fstsim.theory.statements.deployed import divergence, sample_systems, success_log_odds

LOG_ODDS = st.floats(-700.0, 700.0)


@given(LOG_ODDS, LOG_ODDS)
def test_floor_against_high_precision(x: float, x0: float) -> None:
    with mpmath.workdps(700):
        p, p0 = (1 / (1 + mpmath.exp(-mpmath.mpf(v))) for v in (x, x0))
        exact = p * mpmath.log(p / p0) + (1 - p) * mpmath.log((1 - p) / (1 - p0))
    assert float(deployed_kl_floor(x, x0)) == pytest.approx(float(exact), rel=1e-12, abs=1e-300)


def test_divergence_of_the_statement_against_high_precision() -> None:
    x = sample_systems(np.random.default_rng(0), 300)
    values = divergence(x["base"], x["shift"])
    for found, base, shift in zip(values, x["base"], x["shift"], strict=True):
        with mpmath.workdps(400):
            share = [mpmath.exp(mpmath.mpf(float(v))) for v in base]
            share = [v / mpmath.fsum(share) for v in share]  # float64 rows sum to 1 up to rounding
            moved = [v * mpmath.exp(mpmath.mpf(float(d))) for v, d in zip(share, shift, strict=True)]
            moved = [v / mpmath.fsum(moved) for v in moved]
            exact = mpmath.fsum(p * mpmath.log(p / q) for p, q in zip(moved, share, strict=True))
        assert float(found) == pytest.approx(float(exact), rel=1e-9, abs=1e-300)


def test_only_a_tilt_reaches_the_floor() -> None:
    """Moving mass between right completions costs KL and earns nothing."""
    base = np.log([[0.2, 0.2, 0.6]])
    right = np.array([[1.0, 1.0, 0.0]])
    tilt, spread = (np.log([row]) - base for row in ([0.4, 0.4, 0.2], [0.7, 0.1, 0.2]))
    floor = deployed_kl_floor(success_log_odds(base + tilt, right), success_log_odds(base, right))
    assert divergence(base, tilt) == pytest.approx(floor, rel=1e-12)
    assert divergence(base, spread) > floor + 0.1


def test_certainty_has_no_log_odds() -> None:
    with pytest.raises(InputError, match="log_odds"):
        deployed_kl_floor(np.inf, 0.0)
