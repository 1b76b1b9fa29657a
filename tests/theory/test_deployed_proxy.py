"""Log-odds and normalisers of proxy-tuning against mpmath, against the Gaussian product, and against a chain that is enumerated."""

from __future__ import annotations

import itertools

import mpmath
import numpy as np
import pytest
from scipy.special import log_softmax

from fstsim.errors import InputError
from fstsim.theory.deployed import proxy_log_normaliser, proxy_log_odds, proxy_tilt_strength
from fstsim.theory.maps import product_log_odds
from fstsim.theory.statements.deployed_proxy import NORMALISER, sample_experts

ALPHAS = (-2.0, -0.3, 0.0, 0.4, 1.0, 1.7, 4.0)


def logps(seed: int, shape: tuple[int, ...], scale: float = 2.0) -> np.ndarray:
    return log_softmax(scale * np.random.default_rng(seed).standard_normal(shape), axis=-1)


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_normaliser_against_high_precision(scale: float) -> None:
    p, q, r = (logps(seed, (len(ALPHAS), 7), scale) for seed in range(3))
    found = proxy_log_normaliser(p, q, r, ALPHAS)
    for value, alpha, *rows in zip(found, ALPHAS, p, q, r, strict=True):
        with mpmath.workdps(60):
            exact = mpmath.log(
                mpmath.fsum(
                    mpmath.exp(mpmath.mpf(a) + alpha * (mpmath.mpf(b) - mpmath.mpf(c)))
                    for a, b, c in zip(*rows, strict=True)
                )
            )
        assert value == pytest.approx(float(exact), rel=1e-9, abs=1e-13)


def test_a_pair_of_the_model_has_a_normaliser_of_the_sign_of_alpha_beyond_0_and_1() -> None:
    p, q = logps(0, (200, 6)), logps(1, (200, 6))
    for alpha in ALPHAS:
        value = proxy_log_normaliser(p, q, p, np.full(200, alpha))
        if alpha in (0.0, 1.0):
            np.testing.assert_allclose(value, 0.0, atol=1e-14)
        else:
            assert ((value < 0.0) == (0.0 < alpha < 1.0)).all()


def test_numbers_of_the_statement_are_those_of_the_function() -> None:
    x = sample_experts(np.random.default_rng(0), 500)
    expert = log_softmax(x["base"] + x["shift"], axis=-1)
    found = proxy_log_normaliser(x["base"], expert, x["base"], x["alpha"])
    np.testing.assert_allclose(found, NORMALISER.exact(**x), rtol=1e-9, atol=1e-12)


def test_gaussian_analogue_of_the_normaliser() -> None:
    """A mode whose mean the expert moved by d: V = alpha (1 - alpha) d^2, of the sign that the normaliser has, half of it."""
    alpha, d = np.array([-1.0, 0.5, 1.0, 2.0]), 1.3
    exponents = np.stack([np.ones(4), alpha, -alpha], axis=-1)
    old = np.zeros((4, 3, 1))
    old[:, 1] = d
    found = product_log_odds(exponents, np.tile([0.2, 0.7, 0.4], (4, 1)), old, np.zeros((4, 3, 1)), np.zeros(4))
    np.testing.assert_allclose(found, proxy_log_odds(0.2, 0.7, 0.4, alpha, 0.5 * alpha * (1.0 - alpha) * d**2))


def test_whole_answers_of_an_enumerated_chain() -> None:
    """All answers of two tokens: probabilities of the combination by sums over the vocabulary, one token at a time."""
    first, second = [logps(seed, (4,)) for seed in range(3)], [logps(seed + 3, (4, 4)) for seed in range(3)]
    alpha = 1.6

    def mixed(rows: list[np.ndarray]) -> np.ndarray:
        weights = np.exp(rows[0]) * (np.exp(rows[1]) / np.exp(rows[2])) ** alpha
        return weights / weights.sum(axis=-1, keepdims=True)

    p = mixed(first)[:, None] * mixed(second)
    assert p.sum() == pytest.approx(1.0)
    whole = [one[:, None] + two for one, two in zip(first, second, strict=True)]
    z1, z2 = proxy_log_normaliser(*first, alpha), proxy_log_normaliser(*second, np.full(4, alpha))
    for a, b in itertools.product(np.ndindex(4, 4), repeat=2):
        odds = [table[a] - table[b] for table in whole]
        found = proxy_log_odds(odds[0], odds[1], odds[2], alpha, (z1 + z2[a[0]]) - (z1 + z2[b[0]]))
        assert float(found) == pytest.approx(np.log(p[a] / p[b]), abs=1e-12)


def test_leash_of_the_large_model() -> None:
    assert proxy_tilt_strength(0.5, [0.5, 1.0, 0.0]).tolist() == [1.0, 0.5, np.inf]
    for tau, alpha in ((0.0, 1.0), (1.0, -1.0), (np.nan, 1.0)):
        with pytest.raises(InputError):
            proxy_tilt_strength(tau, alpha)
    with pytest.raises(InputError, match="log_expert"):
        proxy_log_normaliser([0.0], [np.inf], [0.0], 1.0)
