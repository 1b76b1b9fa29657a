"""The Gaussian mixture against scipy, torch autograd, finite differences, and its own exact distribution functions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import ndtr

from fstsim.errors import InputError
from fstsim.mixtures import GaussianMixture, cholesky

FALSE_ALARM = 1e-6  # chance that a statistical test here rejects correct code under another seed


def random_mixture(rng: np.random.Generator, k: int, d: int, shared: bool = False) -> GaussianMixture:
    factors = rng.normal(size=(k, d, d)) + 1.5 * np.eye(d)
    covs = factors @ np.swapaxes(factors, -1, -2) + 0.1 * np.eye(d)
    return GaussianMixture(rng.dirichlet(np.ones(k)), 3.0 * rng.normal(size=(k, d)), covs[0] if shared else covs)


def full_covariances(g: GaussianMixture) -> np.ndarray:
    return np.broadcast_to(g.covariance, (g.components, g.dimension, g.dimension))


mixtures = st.builds(
    lambda seed, k, d, shared: random_mixture(np.random.default_rng(seed), k, d, shared),
    st.integers(0, 2**32 - 1),
    st.integers(1, 4),
    st.integers(1, 4),
    st.booleans(),
)

BIMODAL = GaussianMixture([0.4, 0.6], [[-1.5], [2.0]], [[0.8]])
SKEWED = GaussianMixture(
    [0.2, 0.5, 0.3], [[-4.0, 0.0], [1.0, 2.0], [3.0, -5.0]], [[[1, 0.7], [0.7, 1]], [[3, -1], [-1, 0.5]], np.eye(2)]
)
PROBLEMS = {"bimodal": BIMODAL, "skewed": SKEWED, "five": random_mixture(np.random.default_rng(5), 3, 5)}


@pytest.mark.parametrize("name", PROBLEMS)
def test_samples_follow_the_exact_distribution(name: str, rng: np.random.Generator) -> None:
    """Kolmogorov-Smirnov on every coordinate and on random directions, where the exact CDF is a mixture of normals.

    Averaging two normals instead of choosing one passes any test of the mean: the KS distance sees it at once.
    """
    g = PROBLEMS[name]
    x = g.sample(20_000, rng)
    directions = np.concatenate([np.eye(g.dimension), rng.normal(size=(5, g.dimension))])
    for a in directions:
        center, spread = g.means @ a, np.sqrt(np.einsum("i,kij,j->k", a, full_covariances(g), a))
        result = stats.kstest(x @ a, lambda y, c=center, s=spread: ndtr((y[:, None] - c) / s) @ g.weights)
        assert result.pvalue > FALSE_ALARM / len(directions)


def test_ks_test_has_the_power_to_see_an_averaged_sampler(rng: np.random.Generator) -> None:
    """The sampler that averages the components (standard deviation 0.64 instead of 1.93) must fail the test above."""
    normals = BIMODAL.means[:, 0] + np.sqrt(0.8) * rng.standard_normal((20_000, 2))
    averaged = normals @ BIMODAL.weights
    result = stats.kstest(averaged, lambda y: ndtr((y[:, None] - [-1.5, 2.0]) / np.sqrt(0.8)) @ BIMODAL.weights)
    assert result.pvalue < 1e-100


def exact_moments(g: GaussianMixture) -> tuple[np.ndarray, np.ndarray]:
    mean = g.weights @ g.means
    gap = g.means - mean
    return mean, np.einsum("k,kij->ij", g.weights, full_covariances(g) + gap[:, :, None] * gap[:, None, :])


@pytest.mark.parametrize("name", PROBLEMS)
def test_sample_mean_and_covariance(name: str, rng: np.random.Generator) -> None:
    """Both are averages of independent terms, so by the central limit theorem ``n e' S^-1 e`` is chi-squared: for the
    mean e with the exact covariance S, for the second moments with their own sample covariance."""
    g, n = PROBLEMS[name], 40_000
    x = g.sample(n, rng)
    mean, cov = exact_moments(g)
    error = x.mean(axis=0) - mean
    assert n * error @ np.linalg.solve(cov, error) < stats.chi2.isf(FALSE_ALARM, g.dimension)

    i, j = np.triu_indices(g.dimension)
    products = (x - mean)[:, i] * (x - mean)[:, j]
    error = products.mean(axis=0) - cov[i, j]
    noise = np.atleast_2d(np.cov(products.T))
    assert n * error @ np.linalg.solve(noise, error) < stats.chi2.isf(FALSE_ALARM, i.size)


def test_bimodal_standard_deviation(rng: np.random.Generator) -> None:
    """Exact: ``0.8 + 0.4 * 0.6 * 3.5^2 = 3.74``. The sample variance has variance ``(mu_4 - sigma^4) / n``."""
    x = BIMODAL.sample(100_000, rng)[:, 0]
    deviation = x - BIMODAL.weights @ BIMODAL.means[:, 0]
    spread = np.sqrt((np.mean(deviation**4) - 3.74**2) / x.size)
    assert abs(np.mean(deviation**2) - 3.74) < stats.norm.isf(FALSE_ALARM / 2) * spread


def test_component_counts(rng: np.random.Generator) -> None:
    """Far apart, the nearest mean tells the component: the counts are multinomial, a weight of zero draws nothing."""
    g = GaussianMixture([0.1, 0.0, 0.9], [[0.0], [100.0], [200.0]], [[1.0]])
    nearest = np.abs(g.sample(10_000, rng) - g.means[:, 0]).argmin(axis=1)
    counts = np.bincount(nearest, minlength=3)
    assert counts[1] == 0
    assert stats.chisquare(counts[[0, 2]], [1000.0, 9000.0]).pvalue > FALSE_ALARM


def test_sampling_is_reproducible_and_can_be_empty() -> None:
    first, second = (SKEWED.sample(7, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert SKEWED.sample(0, np.random.default_rng(3)).shape == (0, 2)


@given(mixtures, st.integers(0, 2**32 - 1))
def test_density_against_scipy(g: GaussianMixture, seed: int) -> None:
    x = g.sample(5, np.random.default_rng(seed))
    logs = [
        np.atleast_1d(stats.multivariate_normal(m, c).logpdf(x))
        for m, c in zip(g.means, full_covariances(g), strict=True)
    ]
    components = np.stack(logs, axis=-1)
    np.testing.assert_allclose(g.component_log_prob(x), components, rtol=1e-9, atol=1e-9)
    density = np.exp(components) @ g.weights
    np.testing.assert_allclose(np.exp(g.log_prob(x)), density, rtol=1e-8)
    np.testing.assert_allclose(g.responsibilities(x), np.exp(components) * g.weights / density[:, None], atol=1e-9)


@given(mixtures, st.floats(0.0, 1e4))
def test_responsibilities_sum_to_one(g: GaussianMixture, distance: float) -> None:
    """Also so far out that every density underflows."""
    x = np.full((3, g.dimension), distance) * np.array([[-1.0], [0.0], [1.0]])
    r = g.responsibilities(x)
    assert ((r >= 0.0) & (r <= 1.0)).all()
    np.testing.assert_allclose(r.sum(axis=-1), 1.0, rtol=1e-14)


@given(mixtures, st.integers(0, 2**32 - 1))
def test_score_against_autograd(g: GaussianMixture, seed: int) -> None:
    x = torch.tensor(g.sample(4, np.random.default_rng(seed)), requires_grad=True)
    parts = [
        torch.distributions.MultivariateNormal(torch.tensor(m), torch.tensor(c)).log_prob(x) + np.log(w)
        for w, m, c in zip(g.weights, g.means, full_covariances(g), strict=True)
    ]
    torch.logsumexp(torch.stack(parts), dim=0).sum().backward()
    assert x.grad is not None
    expected = x.grad.numpy()
    np.testing.assert_allclose(g.score(x.detach().numpy()), expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


@given(mixtures, st.integers(0, 2**32 - 1))
def test_score_against_finite_differences(g: GaussianMixture, seed: int) -> None:
    """Central differences: an error of ``step^2 / 6`` times a third derivative (a cubic of the score, the third power
    of the largest curvature here) and of rounding over the step; the sum is least near step ``1e-5``."""
    x, step = g.sample(3, np.random.default_rng(seed)), 1e-5
    shifts = step * np.eye(g.dimension)
    numeric = (g.log_prob(x[:, None] + shifts) - g.log_prob(x[:, None] - shifts)) / (2.0 * step)
    # Cumulants of the component scores bound the third derivative: scores and curvatures at the points themselves.
    pull = np.abs(g.component_score(x)).max()
    curvature = max(np.linalg.norm(np.linalg.inv(c), 2) for c in full_covariances(g))
    third = 6.0 * pull**3 + 6.0 * pull * curvature
    rounding = 4e-16 * (1.0 + np.abs(g.component_log_prob(x)).max()) / step * 10.0
    np.testing.assert_allclose(g.score(x), numeric, rtol=0.0, atol=step**2 / 6.0 * third + rounding)


def test_component_score_is_the_score_of_one_component() -> None:
    x = np.array([[0.3, -0.7], [2.0, 5.0]])
    for k in range(3):
        alone = GaussianMixture([1.0], SKEWED.means[k : k + 1], SKEWED.covariance[k])
        np.testing.assert_allclose(SKEWED.component_score(x)[:, k], alone.score(x), rtol=1e-13)


def test_weight_zero_is_a_lost_mode() -> None:
    """A component without weight changes nothing, wherever it is."""
    with_lost = GaussianMixture([0.0, 1.0], [[0.0], [50.0]], [[1.0]])
    alone = GaussianMixture([1.0], [[50.0]], [[1.0]])
    x = np.linspace(-10.0, 60.0, 9)[:, None]
    np.testing.assert_allclose(with_lost.log_prob(x), alone.log_prob(x), rtol=1e-15)
    np.testing.assert_allclose(with_lost.score(x), alone.score(x), rtol=1e-15)
    np.testing.assert_array_equal(with_lost.responsibilities(x), np.tile([0.0, 1.0], (9, 1)))


def test_shapes_broadcast() -> None:
    x = np.zeros((4, 3, 2))
    assert SKEWED.log_prob(x).shape == (4, 3)
    assert SKEWED.component_log_prob(x).shape == (4, 3, 3)
    assert SKEWED.responsibilities(x).shape == (4, 3, 3)
    assert SKEWED.component_score(x).shape == (4, 3, 3, 2)
    assert SKEWED.score(x).shape == (4, 3, 2)
    assert SKEWED.log_prob([0.0, 0.0]).shape == ()
    assert SKEWED.log_prob(np.zeros((0, 2))).shape == (0,)
    assert SKEWED.score(np.zeros((3, 0, 2))).shape == (3, 0, 2)
    points = np.arange(24.0).reshape(4, 3, 2)
    np.testing.assert_allclose(SKEWED.score(points)[2, 1], SKEWED.score(points[2, 1]), rtol=1e-13)
    assert (SKEWED.components, SKEWED.dimension) == (3, 2)


def test_arrays_are_frozen_copies() -> None:
    weights = np.array([0.5, 0.5])
    g = GaussianMixture(weights, [[0.0], [1.0]], [[1.0]])
    weights[0] = 9.0
    assert g.weights[0] == 0.5
    with pytest.raises(ValueError, match="read-only"):
        g.means[0] = 3.0


@pytest.mark.parametrize(
    ("weights", "means", "covariance", "what"),
    [
        ([0.5, 0.6], [[0.0], [1.0]], [[1.0]], "sum to 1"),
        ([-0.5, 1.5], [[0.0], [1.0]], [[1.0]], "nonnegative"),
        ([np.nan, 1.0], [[0.0], [1.0]], [[1.0]], "weights"),
        ([[1.0]], [[0.0]], [[1.0]], "weights must have shape"),
        ([], np.zeros((0, 1)), [[1.0]], "weights must have shape"),
        ([0.5, 0.5], [[0.0], [1.0], [2.0]], [[1.0]], "means must have shape"),
        ([0.5, 0.5], [0.0, 1.0], [[1.0]], "means must have shape"),
        ([1.0], [[]], np.zeros((0, 0)), "means must have shape"),
        ([1.0], [[np.inf]], [[1.0]], "means must be finite"),
        ([1.0], [[0.0, 0.0]], [[1.0]], "covariance must have shape"),
        ([0.5, 0.5], [[0.0], [1.0]], np.ones((3, 1, 1)), "covariance must have shape"),
        ([1.0], [[0.0, 0.0]], [[1.0, 0.5], [0.0, 1.0]], "symmetric"),
        ([1.0], [[0.0, 0.0]], [[1.0, 2.0], [2.0, 1.0]], "positive definite"),
        ([1.0], [[0.0]], [[np.nan]], "finite"),
    ],
)
def test_bad_mixture_is_named(weights, means, covariance, what) -> None:
    with pytest.raises(InputError, match=what):
        GaussianMixture(weights, means, covariance)


def test_bad_points_and_counts_are_named(rng: np.random.Generator) -> None:
    for method in (SKEWED.log_prob, SKEWED.responsibilities, SKEWED.score, SKEWED.component_score):
        with pytest.raises(InputError, match="last axis 2"):
            method(np.zeros((5, 3)))
        with pytest.raises(InputError, match="last axis 2"):
            method(0.0)
    with pytest.raises(InputError, match="n must be nonnegative"):
        SKEWED.sample(-1, rng)
    with pytest.raises(InputError, match="square"):
        cholesky(np.ones((2, 3)))
