"""Mixtures of memories against enumeration, high precision and a plain loop of multiplicative weights."""

from __future__ import annotations

import itertools

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fstsim.errors import InputError
from fstsim.theory.maps import ProbabilityMap
from fstsim.theory.retrieval import retrieval_log_mass, softmax_reading_bounds
from fstsim.theory.statements.retrieval import _mixed_divergence, chained, sample_mixtures


def test_chained_mixtures_are_mixtures_of_whole_completions() -> None:
    """All 8 completions of three binary tokens: the chain gives each its mean probability, and the sum is 1."""
    rng = np.random.default_rng(0)
    mu, first = rng.dirichlet(np.ones(5)), rng.random((5, 3, 2, 2))  # each token depends on the one before
    table = first / first.sum(-1, keepdims=True)
    total = 0.0
    for word in itertools.product((0, 1), repeat=3):
        tokens = np.array([[table[c, t, word[t - 1] if t else 0, word[t]] for t in range(3)] for c in range(5)])
        mean = float((mu * tokens.prod(-1)).sum())
        assert np.exp(-chained(np.log(mu)[None], np.log(tokens)[None]))[0] == pytest.approx(mean, rel=1e-13)
        total += mean
    assert total == pytest.approx(1.0)


@given(st.floats(1e-6, 1.0 - 1e-6), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_two_memories_are_a_step_of_the_probability_map(rate: float, own: float, other: float) -> None:
    """Forward KL moves masses by the same affine map."""
    moved = ProbabilityMap(rate, other).iterate(np.log(own / (1.0 - own)), 1.0)
    mass = np.exp(retrieval_log_mass(np.log([1.0 - rate, rate]), np.log([own, other])))
    assert mass == pytest.approx(1.0 / (1.0 + np.exp(-float(moved))), rel=1e-9)


def test_divergence_of_a_mixture_against_high_precision() -> None:
    x = sample_mixtures(np.random.default_rng(1), 40)
    values = _mixed_divergence(**x)
    for value, base, weights, shift in zip(values, x["base"], x["weights"], x["shift"], strict=True):
        with mpmath.workdps(400):
            share = [mpmath.exp(mpmath.mpf(float(v))) for v in base]
            share = [v / mpmath.fsum(share) for v in share]
            mu = [mpmath.exp(mpmath.mpf(float(v))) for v in weights]
            mixed = [mpmath.mpf(0)] * len(share)
            for m, row in zip(mu, shift, strict=True):
                moved = [v * mpmath.exp(mpmath.mpf(float(d))) for v, d in zip(share, row, strict=True)]
                mixed = [a + m / mpmath.fsum(mu) * b / mpmath.fsum(moved) for a, b in zip(mixed, moved, strict=True)]
            exact = mpmath.fsum(p * mpmath.log(p / q) for p, q in zip(mixed, share, strict=True))
        assert float(value) == pytest.approx(float(exact), rel=1e-7, abs=1e-290)


def test_weights_need_no_sum_and_a_clone_shares() -> None:
    mass = retrieval_log_mass(np.log([0.2, 0.6]), np.log([0.1, 0.9]))
    assert retrieval_log_mass(np.log([0.1, 0.1, 0.6]), np.log([0.1, 0.1, 0.9])) == pytest.approx(mass, rel=1e-14)
    assert np.exp(mass) == pytest.approx(0.7)


@pytest.mark.parametrize("alpha", [0.01, 0.3, 50.0])
def test_reading_bounds_are_reached(alpha: float) -> None:
    low, high = softmax_reading_bounds(alpha, 5)
    for best, bound in ((0.0, low), (1.0, high)):
        q = np.full(5, 1.0 - best)
        q[0] = best
        e = np.exp((q - q.max()) / alpha)
        assert float(bound) == pytest.approx(e[0] / e.sum(), rel=1e-12)
    assert softmax_reading_bounds(alpha, 1) == (1.0, 1.0)


def test_what_is_not_allowed() -> None:
    with pytest.raises(InputError, match="a case that is read"):
        retrieval_log_mass([-np.inf, -np.inf], [0.0, 0.0])
    with pytest.raises(InputError, match="below inf"):
        retrieval_log_mass([np.nan, 0.0], [0.0, 0.0])
    with pytest.raises(InputError, match="alpha"):
        softmax_reading_bounds(0.0, 3)
    with pytest.raises(InputError, match="cases"):
        softmax_reading_bounds(1.0, 0.5)
