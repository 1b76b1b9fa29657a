"""Section 15: the misassignment matrix against independent integrals, its bounds, and the two-mode special case."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from fstsim import GaussianMixture, InputError
from fstsim.general import misassignment_estimate
from fstsim.overlap import harmonic_overlap, misassignment_probability
from fstsim.testing import gaussian_mixtures
from fstsim.theory import (
    bhattacharyya_coefficient,
    chernoff_coefficient,
    chernoff_information,
    misassignment_matrix,
    mixture_weight_fisher,
    total_misassignment_bound,
    weight_velocity_forward,
)
from fstsim.theory.modes import bhattacharyya_matrix


@given(gaussian_mixtures(max_components=3, max_dimension=1))
def test_matrix_is_a_reversible_chain(mixture: GaussianMixture) -> None:
    matrix = misassignment_matrix(mixture.weights, mixture.means, mixture.covariance)
    w = mixture.weights
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0, atol=1e-9)
    flow = w[:, None] * matrix
    np.testing.assert_allclose(flow, flow.T, atol=1e-9)
    np.testing.assert_allclose(w @ matrix, w, atol=1e-9)
    eigenvalues = np.linalg.eigvals(matrix)
    assert np.abs(eigenvalues.imag).max() < 1e-6
    assert eigenvalues.real.min() > -1e-8
    assert eigenvalues.real.max() < 1.0 + 1e-8
    bound = total_misassignment_bound(w, bhattacharyya_matrix(mixture.means, mixture.covariance))
    assert (1.0 - np.diag(matrix) <= bound + 1e-9).all()


def test_entries_are_integrals() -> None:
    w, means, deviations = np.array([0.2, 0.5, 0.3]), np.array([-2.0, 0.5, 3.0]), np.array([1.0, 0.6, 1.7])
    matrix = misassignment_matrix(w, means[:, None], (deviations**2)[:, None, None])

    def density(x: float) -> np.ndarray:
        return w * norm.pdf(x, means, deviations)

    for i in range(3):
        for j in range(3):
            value = quad(
                lambda x, i=i, j=j: norm.pdf(x, means[i], deviations[i]) * density(x)[j] / density(x).sum(),
                means[i] - 10 * deviations[i],
                means[i] + 10 * deviations[i],
                limit=300,
                points=sorted(means),
                epsabs=1e-12,
            )[0]
            assert matrix[i, j] == pytest.approx(value, abs=1e-9)


@given(st.floats(-4.0, 4.0), st.floats(0.3, 6.0))
def test_two_equal_modes_reduce_to_the_closed_form(s: float, delta: float) -> None:
    beta = 1.0 / (1.0 + np.exp(-s))
    matrix = misassignment_matrix([beta, 1.0 - beta], [[0.0], [delta]], [[1.0]])
    assert matrix[0, 1] == pytest.approx(float(misassignment_probability(s, delta)), rel=1e-8, abs=1e-12)
    # each of the two logits moves at (alpha - beta)(1 - kappa), in opposite directions
    alpha = np.array([0.7, 0.3])
    velocity = weight_velocity_forward(matrix, [beta, 1.0 - beta], alpha)
    expected = (0.7 - beta) * (1.0 - float(harmonic_overlap(s, delta)))
    np.testing.assert_allclose(velocity, [expected, -expected], atol=1e-9)


def test_logit_fisher_information_is_a_monte_carlo_covariance_of_scores() -> None:
    mixture = GaussianMixture([0.2, 0.5, 0.3], [[0.0, 0.0], [2.0, 0.5], [0.5, 2.0]], np.eye(2))
    matrix = misassignment_matrix(mixture.weights, mixture.means, mixture.covariance)
    fisher = mixture_weight_fisher(matrix, mixture.weights)
    x = mixture.sample(200_000, np.random.default_rng(5))
    scores = mixture.responsibilities(x) - mixture.weights
    products = scores[:, :, None] * scores[:, None, :]
    error = products.std(axis=0) / np.sqrt(x.shape[0])
    # nine entries: 4.5 standard errors are exceeded with probability below 1e-4
    assert (np.abs(products.mean(axis=0) - fisher) < 4.5 * error).all()


@given(st.floats(0.05, 0.95))
def test_chernoff_symmetry_and_equal_covariance(t: float) -> None:
    a = ([0.0, 1.0], [[1.0, 0.2], [0.2, 0.7]])
    b = ([1.5, -0.5], [[0.5, 0.0], [0.0, 2.0]])
    left = float(chernoff_coefficient(*a, *b, t))
    assert left == pytest.approx(float(chernoff_coefficient(*b, *a, 1.0 - t)), rel=1e-12)
    equal = float(chernoff_coefficient([0.0], [[1.0]], [3.0], [[1.0]], t))
    assert equal == pytest.approx(np.exp(-0.5 * t * (1.0 - t) * 9.0), rel=1e-12)


def test_chernoff_information() -> None:
    value, t = chernoff_information([0.0], [[1.0]], [3.0], [[1.0]])
    assert value == pytest.approx(9.0 / 8.0)
    assert t == pytest.approx(0.5, abs=1e-6)
    value, t = chernoff_information([0.0], [[1.0]], [3.0], [[4.0]])
    grid = np.linspace(0.0, 1.0, 100_001)
    assert value == pytest.approx(-np.log(chernoff_coefficient([0.0], [[1.0]], [3.0], [[4.0]], grid).min()), abs=1e-9)
    assert t != pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(("ratio", "bc"), [(4.0, 0.894), (10.0, 0.758), (100.0, 0.445)])
def test_no_separation_from_variances_alone(ratio: float, bc: float) -> None:
    value = float(chernoff_coefficient([0.0], [[1.0]], [0.0], [[ratio]]))
    assert value == pytest.approx(bc, abs=5e-4)
    assert value == pytest.approx((4.0 * ratio / (1.0 + ratio) ** 2) ** 0.25, rel=1e-12)


def test_monte_carlo_agrees_in_three_dimensions() -> None:
    mixture = GaussianMixture([0.4, 0.6], [[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]], np.eye(3))
    estimate = misassignment_estimate(mixture, method="monte-carlo", samples=40_000, rng=np.random.default_rng(9))
    exact = float(misassignment_probability(np.log(0.4 / 0.6), 2.0))
    assert abs(estimate.value[0, 1] - exact) < 4.5 * estimate.standard_error[0, 1]
    assert float(bhattacharyya_coefficient(2.0)) > exact


def test_bad_input() -> None:
    for call in (
        lambda: misassignment_matrix([0.5, 0.6], [[0.0], [1.0]], [[1.0]]),
        lambda: misassignment_matrix([0.5, 0.5], [[0.0], [1.0]], [[0.0]]),
        lambda: misassignment_matrix([0.5, 0.5], [[0.0] * 3, [1.0] * 3], np.eye(3)),
        lambda: total_misassignment_bound([0.5, 0.5], np.eye(3)),
        lambda: total_misassignment_bound([0.5, 0.5], 2.0 * np.ones((2, 2))),
        lambda: mixture_weight_fisher(np.eye(2), [0.5, 0.6]),
        lambda: chernoff_coefficient([0.0], [[1.0]], [1.0], [[1.0]], 1.5),
        lambda: chernoff_coefficient([0.0, 0.0], np.eye(2), [1.0], np.eye(2)),
        lambda: chernoff_coefficient([0.0], np.eye(2), [1.0], np.eye(2)),
        lambda: chernoff_coefficient([0.0, 0.0], [[1.0, 0.5], [0.0, 1.0]], [1.0, 0.0], np.eye(2)),
        lambda: bhattacharyya_matrix([0.0, 1.0], [[1.0]]),
    ):
        with pytest.raises(InputError):
            call()
