"""Unequal covariances and K modes: against closed forms, scipy's adaptive quadrature, mpmath, and torch autograd."""

from __future__ import annotations

import itertools
import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats
from scipy.special import expit, voigt_profile

from fstsim.divergences import forward_kl_gradient, reverse_kl_gradient, two_mode_kl
from fstsim.errors import InputError
from fstsim.general import (
    Estimate,
    MixtureGradient,
    expectation,
    forward_kl_gradients,
    kl_divergence,
    misassignment_estimate,
    misassignment_matrix,
    reverse_kl_gradients,
)
from fstsim.mixtures import GaussianMixture
from fstsim.overlap import chernoff_coefficient, misassignment_probability
from fstsim.whitened import Whitened

FALSE_ALARM = 1e-6  # chance that a statistical test here rejects correct code under another seed
GRADIENTS = (forward_kl_gradients, reverse_kl_gradients)


def random_mixture(rng: np.random.Generator, k: int, d: int, size: float = 1.5) -> GaussianMixture:
    factors = 0.4 * rng.normal(size=(k, d, d)) + np.eye(d)
    covs = factors @ np.swapaxes(factors, -1, -2) + 0.1 * np.eye(d)
    weights = 0.1 + rng.dirichlet(np.ones(k))
    return GaussianMixture(weights / weights.sum(), size * rng.normal(size=(k, d)), covs)


def full_covariances(g: GaussianMixture) -> np.ndarray:
    return np.broadcast_to(g.covariance, (g.components, g.dimension, g.dimension))


def flat(g: MixtureGradient) -> Estimate:
    """``(K, 1 + D)``."""
    return Estimate(
        *(
            np.concatenate([getattr(g.logits, name)[:, None], getattr(g.means, name)], axis=-1)
            for name in ("value", "standard_error")
        )
    )


seeds = st.integers(0, 2**32 - 1)

NARROW = GaussianMixture([0.3, 0.7], [[0.0], [2.0]], [[[1.0]], [[0.09]]])
WIDE = GaussianMixture([0.5, 0.2, 0.3], [[-1.0], [2.5], [0.5]], [[[2.0]], [[0.25]], [[0.6]]])
PLANE = GaussianMixture([0.4, 0.6], [[0.0, 0.0], [2.0, 1.0]], [[[1.0, 0.6], [0.6, 1.0]], [[0.5, -0.2], [-0.2, 0.3]]])
OTHER_PLANE = GaussianMixture(
    [0.7, 0.3], [[0.5, 0.0], [1.5, -1.0]], [[[0.8, 0.0], [0.0, 1.5]], [[0.4, 0.1], [0.1, 2.0]]]
)
SPACE = random_mixture(np.random.default_rng(1), 3, 4)
OTHER_SPACE = random_mixture(np.random.default_rng(2), 2, 4)

# --- one covariance, two modes: the exact formulas -------------------------------------------------------------------


@given(st.tuples(*[st.floats(-3.0, 3.0)] * 6))
def test_against_the_exact_formulas_in_one_dimension(numbers: tuple[float, ...]) -> None:
    s_p, s_q, *means = numbers
    check_against_exact_formulas(s_p, s_q, *np.reshape(means, (4, 1)))


@pytest.mark.parametrize("seed", range(5))
def test_against_the_exact_formulas_in_two_dimensions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    check_against_exact_formulas(*rng.normal(size=2), *rng.normal(scale=1.5, size=(4, 2)))


def check_against_exact_formulas(
    s_p: float, s_q: float, mu_o: np.ndarray, mu_n: np.ndarray, m_o: np.ndarray, m_n: np.ndarray
) -> None:
    d = mu_o.size
    p = GaussianMixture([expit(s_p), expit(-s_p)], [mu_o, mu_n], np.eye(d))
    q = GaussianMixture([expit(s_q), expit(-s_q)], [m_o, m_n], np.eye(d))
    exact = two_mode_kl(Whitened(s_p, mu_o, mu_n), Whitened(s_q, m_o, m_n))
    result = kl_divergence(p, q)
    assert float(result.value) == pytest.approx(float(exact), abs=1e-10 * (1.0 + abs(float(exact))))
    assert float(result.standard_error) == 0.0

    # d/ds of the old log-odds is d/dlogit_old, as the two logits' derivatives are opposite
    reverse = flat(reverse_kl_gradients(p, q)).value
    g = reverse_kl_gradient(s_q, m_o, m_n, s_p, mu_o, mu_n)
    np.testing.assert_allclose(reverse, np.stack([[g[0], *g[1]], [-g[0], *g[2]]]), rtol=0.0, atol=1e-9)
    forward = flat(forward_kl_gradients(p, q)).value
    g = forward_kl_gradient(s_q, m_o, m_n, [expit(s_p), expit(-s_p)], [mu_o, mu_n])
    np.testing.assert_allclose(forward, np.stack([[g[0], *g[1]], [-g[0], *g[2]]]), rtol=0.0, atol=1e-9)


@pytest.mark.parametrize("delta", [0.1, 1.0, 4.0, 12.0, 40.0])
@pytest.mark.parametrize("s", [-3.0, 0.0, 1.0])
def test_misassignment_of_one_covariance(s: float, delta: float) -> None:
    """Relative accuracy also where the misassignment is ``exp(-200)``."""
    for d in (1, 2) if delta < 10.0 else (1,):
        means = np.zeros((2, d))
        means[1, 0] = delta
        m = misassignment_matrix([expit(s), expit(-s)], means, np.eye(d))
        exact = misassignment_probability([s, -s], delta)
        np.testing.assert_allclose([m[0, 1], m[1, 0]], exact, rtol=1e-9)


# --- closed forms, adaptive quadrature, many digits ------------------------------------------------------------------


def gaussian_kl(p: GaussianMixture, q: GaussianMixture) -> float:
    (a,), (b,) = full_covariances(p), full_covariances(q)
    gap = q.means[0] - p.means[0]
    log_det = np.linalg.slogdet(b)[1] - np.linalg.slogdet(a)[1]
    return 0.5 * float(np.trace(np.linalg.solve(b, a)) + gap @ np.linalg.solve(b, gap) - len(gap) + log_det)


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("seed", range(6))
def test_single_gaussians(seed: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    p, q = random_mixture(rng, 1, d), random_mixture(rng, 1, d)
    exact = gaussian_kl(p, q)
    assert float(kl_divergence(p, q).value) == pytest.approx(exact, rel=1e-9, abs=1e-9)
    gap = np.linalg.solve(full_covariances(q)[0], q.means[0] - p.means[0])
    np.testing.assert_allclose(forward_kl_gradients(p, q).means.value[0], gap, rtol=0.0, atol=1e-8)
    np.testing.assert_allclose(forward_kl_gradients(p, q).logits.value, 0.0, atol=1e-12)
    gap = np.linalg.solve(full_covariances(p)[0], q.means[0] - p.means[0])
    np.testing.assert_allclose(reverse_kl_gradients(p, q).means.value[0], gap, rtol=0.0, atol=1e-8)


def density_1d(g: GaussianMixture, x: float) -> float:
    return sum(
        w * math.exp(-0.5 * (x - m) ** 2 / c) / math.sqrt(2.0 * math.pi * c)
        for w, m, c in zip(g.weights, g.means[:, 0], full_covariances(g)[:, 0, 0], strict=True)
    )


@pytest.mark.parametrize(("p", "q"), [(NARROW, WIDE), (WIDE, NARROW)])
def test_one_dimension_against_adaptive_quadrature(p: GaussianMixture, q: GaussianMixture) -> None:
    def integrand(x: float) -> float:
        f = density_1d(p, x)
        return f * math.log(f / density_1d(q, x)) if f > 0.0 else 0.0

    edges = [-14.0, -5.0, -1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.5, 6.0, 14.0]
    parts = [integrate.quad(integrand, *ends, epsabs=1e-13, epsrel=1e-12) for ends in itertools.pairwise(edges)]
    expected, error = np.sum(parts, axis=0)
    assert float(kl_divergence(p, q).value) == pytest.approx(expected, rel=1e-11, abs=error)


def test_one_dimension_against_thirty_digits() -> None:
    """A plain trapezoid in mpmath with step 1/40: poles lie at ``pi`` over the slope, which is 10 at most here."""
    with mpmath.workdps(30):
        h, total = mpmath.mpf(1) / 40, mpmath.mpf(0)

        def density(g: GaussianMixture, x: mpmath.mpf) -> mpmath.mpf:
            return sum(
                mpmath.mpf(float(w)) * mpmath.npdf(x, float(m), mpmath.sqrt(float(c)))
                for w, m, c in zip(g.weights, g.means[:, 0], full_covariances(g)[:, 0, 0], strict=True)
            )

        for k in range(-480, 561):
            f = density(NARROW, k * h)
            total += h * f * mpmath.log(f / density(WIDE, k * h))
    assert float(kl_divergence(NARROW, WIDE, rtol=1e-13).value) == pytest.approx(float(total), rel=1e-12)


def test_two_dimensions_against_adaptive_quadrature() -> None:
    """`dblquad` to 1e-8 in the box that holds all but 1e-12 of the mass."""
    inverse = [np.linalg.inv(full_covariances(g)) for g in (PLANE, OTHER_PLANE)]
    norms = [g.weights / (2.0 * np.pi * np.sqrt(np.linalg.det(full_covariances(g)))) for g in (PLANE, OTHER_PLANE)]

    def density(which: int, g: GaussianMixture, x: float, y: float) -> float:
        total = 0.0
        for norm, (mx, my), a in zip(norms[which].tolist(), g.means.tolist(), inverse[which].tolist(), strict=True):
            u, v = x - mx, y - my
            total += norm * math.exp(-0.5 * (a[0][0] * u * u + 2.0 * a[0][1] * u * v + a[1][1] * v * v))
        return total

    def integrand(y: float, x: float) -> float:
        f = density(0, PLANE, x, y)
        return f * math.log(f / density(1, OTHER_PLANE, x, y))

    value, error = integrate.dblquad(integrand, -7.5, 8.0, -7.5, 7.5, epsabs=1e-8, epsrel=1e-8)
    assert float(kl_divergence(PLANE, OTHER_PLANE).value) == pytest.approx(value, abs=error + 1e-9)


# --- gradients against autograd of direct integration ----------------------------------------------------------------


def torch_log_density(logits: torch.Tensor, means: torch.Tensor, covs: np.ndarray, x: torch.Tensor) -> torch.Tensor:
    log_weights = torch.log_softmax(logits, dim=0)
    parts = [
        w + torch.distributions.MultivariateNormal(m, torch.tensor(c), validate_args=False).log_prob(x)
        for w, m, c in zip(log_weights, means, covs, strict=True)
    ]
    return torch.logsumexp(torch.stack(parts), dim=0)


def integrated_gradient(p: GaussianMixture, q: GaussianMixture, learner: GaussianMixture, step: float) -> np.ndarray:
    """Gradient of ``KL(p || q)`` in the logits and means of ``learner`` (p or q), ``(K, 1 + D)``, from a plain grid."""
    means = np.concatenate([p.means, q.means])
    spread = 7.5 * math.sqrt(max(np.linalg.norm(c, 2) for g in (p, q) for c in full_covariances(g)))
    axes = [
        torch.arange(low - spread, high + spread, step, dtype=torch.float64)
        for low, high in zip(means.min(axis=0), means.max(axis=0), strict=True)
    ]
    x = torch.stack([m.ravel() for m in torch.meshgrid(*axes, indexing="ij")], dim=-1)
    logs, parameters = [], []
    for g in (p, q):
        logits, m = torch.log(torch.tensor(g.weights)), torch.tensor(g.means)
        if g is learner:
            parameters = [logits.requires_grad_(), m.requires_grad_()]
        logs.append(torch_log_density(logits, m, full_covariances(g), x))
    value = step**p.dimension * (logs[0].exp() * (logs[0] - logs[1])).sum()
    logit_gradient, mean_gradient = torch.autograd.grad(value, parameters)
    return np.concatenate([logit_gradient[:, None].numpy(), mean_gradient.numpy()], axis=-1)


PAIRS = [(NARROW, WIDE, 0.02), (WIDE, NARROW, 0.02), (PLANE, OTHER_PLANE, 0.05), (OTHER_PLANE, PLANE, 0.05)]


@pytest.mark.parametrize(("target", "policy", "step"), PAIRS)
def test_gradients_against_autograd(target: GaussianMixture, policy: GaussianMixture, step: float) -> None:
    """Both means and logits, unequal covariances, one and two dimensions."""
    forward = flat(forward_kl_gradients(target, policy)).value
    np.testing.assert_allclose(forward, integrated_gradient(target, policy, policy, step), rtol=0.0, atol=1e-10)
    reverse = flat(reverse_kl_gradients(target, policy)).value
    np.testing.assert_allclose(reverse, integrated_gradient(policy, target, policy, step), rtol=0.0, atol=1e-10)


def moved(g: GaussianMixture, logits: np.ndarray, means: np.ndarray) -> GaussianMixture:
    w = g.weights * np.exp(logits)
    return GaussianMixture(w / w.sum(), g.means + means, g.covariance)


@given(seeds, st.integers(1, 4), st.integers(1, 3))
def test_gradients_against_differences_of_the_value(seed: int, k_target: int, k: int) -> None:
    """Along one random direction, central with a Richardson step: ``h^4`` times a fifth derivative, rounding over h."""
    rng = np.random.default_rng(seed)
    target, policy = random_mixture(rng, k_target, 1), random_mixture(rng, k, 1)
    direction = rng.normal(size=(k, 2))
    direction /= np.linalg.norm(direction)
    narrow = min(float(full_covariances(g).min()) for g in (target, policy))
    for gradients, value in (
        (forward_kl_gradients, lambda q: kl_divergence(target, q, rtol=1e-12)),
        (reverse_kl_gradients, lambda q: kl_divergence(q, target, rtol=1e-12)),
    ):

        def along(h: float, value=value) -> float:
            ends = [float(value(moved(policy, t * direction[:, 0], t * direction[:, 1:])).value) for t in (h, -h)]
            return (ends[0] - ends[1]) / (2.0 * h)

        h = 2e-2
        numeric = (4.0 * along(h / 2.0) - along(h)) / 3.0
        size = 1.0 + abs(float(value(policy).value))
        # sqrt(5!) for a fifth derivative in units of the smallest variance, as in test_divergences
        atol = h**4 / 480.0 * 5.0 * math.sqrt(120.0) * size / narrow**2.5 + 1e-11 * size / h
        exact = float((flat(gradients(target, policy)).value * direction).sum())
        assert exact == pytest.approx(numeric, abs=atol)


@pytest.mark.parametrize("gradients", GRADIENTS)
@pytest.mark.parametrize("target", [NARROW, WIDE, PLANE])
def test_zero_gradient_at_the_target_and_its_permutations(gradients, target: GaussianMixture) -> None:
    order = np.roll(np.arange(target.components), 1)
    permuted = GaussianMixture(target.weights[order], target.means[order], full_covariances(target)[order])
    for policy in (target, permuted):
        np.testing.assert_allclose(flat(gradients(target, policy)).value, 0.0, atol=1e-10)
        assert float(kl_divergence(policy, target).value) == pytest.approx(0.0, abs=1e-12)


@given(seeds, st.integers(1, 4))
def test_logit_gradients_sum_to_zero(seed: int, k: int) -> None:
    """A common shift of the logits changes nothing."""
    rng = np.random.default_rng(seed)
    target, policy = random_mixture(rng, 2, 1), random_mixture(rng, k, 1)
    for gradients in GRADIENTS:
        assert float(gradients(target, policy).logits.value.sum()) == pytest.approx(0.0, abs=1e-12)


def test_split_components_and_lost_modes() -> None:
    """Writing one component as two, or adding one without weight, changes no divergence; gradients split likewise."""
    w, m, c = WIDE.weights, WIDE.means, WIDE.covariance
    split = GaussianMixture([0.6 * w[0], *w[1:], 0.4 * w[0]], [*m, m[0]], [*c, c[0]])
    lost = GaussianMixture([*w, 0.0], [*m, [30.0]], [*c, [[0.01]]])
    for other in (split, lost):
        for ours, theirs in ((WIDE, other), (other, WIDE)):
            assert float(kl_divergence(ours, theirs).value) == pytest.approx(0.0, abs=1e-12)
    for gradients in GRADIENTS:
        plain, parted = flat(gradients(NARROW, WIDE)).value, flat(gradients(NARROW, split)).value
        np.testing.assert_allclose(parted[[0, 3]].sum(axis=0), plain[0], rtol=0.0, atol=1e-9)
        np.testing.assert_allclose(parted[1:3], plain[1:], rtol=0.0, atol=1e-9)
        without = flat(gradients(NARROW, lost)).value
        np.testing.assert_allclose(without[:3], plain, rtol=0.0, atol=1e-9)
        np.testing.assert_allclose(without[3], 0.0, atol=1e-12)


def test_linear_change_of_coordinates() -> None:
    """``x -> A x + b``: divergences stay, mean gradients become ``A^-T g``."""
    a, b = np.array([[2.0, 0.5], [-1.0, 0.7]]), np.array([3.0, -1.0])

    def image(g: GaussianMixture) -> GaussianMixture:
        covs = a @ full_covariances(g) @ a.T
        return GaussianMixture(g.weights, g.means @ a.T + b, 0.5 * (covs + np.swapaxes(covs, -1, -2)))

    p, q = image(PLANE), image(OTHER_PLANE)
    assert float(kl_divergence(p, q).value) == pytest.approx(float(kl_divergence(PLANE, OTHER_PLANE).value), rel=1e-9)
    for gradients in GRADIENTS:
        plain, there = gradients(PLANE, OTHER_PLANE), gradients(p, q)
        np.testing.assert_allclose(there.logits.value, plain.logits.value, rtol=0.0, atol=1e-9)
        np.testing.assert_allclose(there.means.value @ a, plain.means.value, rtol=0.0, atol=1e-9)


# --- Monte Carlo -----------------------------------------------------------------------------------------------------


def scores(estimate: Estimate, exact: np.ndarray) -> np.ndarray:
    """z-scores; the entries without any noise have to be exact."""
    gap, error = np.atleast_1d(estimate.value - exact), np.atleast_1d(estimate.standard_error)
    np.testing.assert_allclose(gap[error == 0.0], 0.0, atol=1e-12)
    return (gap[error > 0.0] / error[error > 0.0]).ravel()


def assert_within_noise(z: np.ndarray) -> None:
    assert np.abs(z).max() < stats.norm.isf(FALSE_ALARM / 2.0 / z.size)


@pytest.mark.parametrize(("p", "q"), [(NARROW, WIDE), (WIDE, NARROW), (PLANE, OTHER_PLANE)])
def test_monte_carlo_against_quadrature(p: GaussianMixture, q: GaussianMixture, rng: np.random.Generator) -> None:
    how = {"method": "monte-carlo", "samples": 40_000, "rng": rng}
    assert_within_noise(scores(kl_divergence(p, q, **how), kl_divergence(p, q).value))
    for gradients in GRADIENTS:
        assert_within_noise(scores(flat(gradients(p, q, **how)), flat(gradients(p, q)).value))


def embedded(g: GaussianMixture, rotation: np.ndarray) -> GaussianMixture:
    """``g`` times a standard normal in the other coordinates, rotated: every divergence between two such stays."""
    d, full = g.dimension, rotation.shape[0]
    covs = np.tile(np.eye(full), (g.components, 1, 1))
    covs[:, :d, :d] = full_covariances(g)
    covs = rotation @ covs @ rotation.T
    means = np.concatenate([g.means, np.zeros((g.components, full - d))], axis=1) @ rotation.T
    return GaussianMixture(g.weights, means, 0.5 * (covs + np.swapaxes(covs, -1, -2)))


@pytest.mark.parametrize(("p", "q"), [(WIDE, NARROW), (PLANE, OTHER_PLANE)])
def test_monte_carlo_in_five_dimensions(p: GaussianMixture, q: GaussianMixture, rng: np.random.Generator) -> None:
    """Against quadrature of the one- or two-dimensional problem that is hidden in it."""
    rotation = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    far_p, far_q = embedded(p, rotation), embedded(q, rotation)
    how = {"method": "monte-carlo", "samples": 40_000, "rng": rng}
    assert_within_noise(scores(kl_divergence(far_p, far_q, **how), kl_divergence(p, q).value))
    for gradients in GRADIENTS:
        exact = flat(gradients(p, q)).value
        padded = np.concatenate([exact[:, 1:], np.zeros((q.components, 5 - p.dimension))], axis=1) @ rotation.T
        g = gradients(far_p, far_q, **how)
        assert_within_noise(scores(g.logits, exact[:, 0]))
        assert_within_noise(scores(g.means, padded))


def test_standard_errors_are_honest(rng: np.random.Generator) -> None:
    """z-scores of independent estimates have variance one: chi-squared limits, 10% wider for the studentised mean of
    skewed terms, whose variance is ``1 + (2 + 7/4 skewness^2) / n`` with n = 200 in the smallest stratum."""
    exact, gradient = kl_divergence(NARROW, WIDE).value, flat(reverse_kl_gradients(WIDE, NARROW)).value
    runs, how = 600, {"method": "monte-carlo", "samples": 1000, "rng": rng}
    z = [scores(kl_divergence(NARROW, WIDE, **how), exact) for _ in range(runs)]
    y = [scores(flat(reverse_kl_gradients(WIDE, NARROW, **how)), gradient) for _ in range(runs)]
    squares = (np.concatenate([z, y], axis=1) ** 2).sum(axis=0)
    chance = FALSE_ALARM / 2.0 / squares.size
    assert (squares > stats.chi2.ppf(chance, runs) / 1.1).all()
    assert (squares < stats.chi2.isf(chance, runs) * 1.1).all()


def test_standard_error_falls_like_the_square_root(rng: np.random.Generator) -> None:
    """Regression slope of ``log SE`` and of ``log |error|`` on ``log n``: -1/2. An estimated SE of n samples has relative
    variance ``(kurtosis - 1) / 4 n``; ``log |z|`` of a normal z has standard deviation 1.11 (``pi / sqrt 8``)."""
    exact = float(kl_divergence(NARROW, WIDE).value)
    sizes, repeats = np.array([250, 1000, 4000, 16_000, 64_000]), 40
    runs = [
        [kl_divergence(NARROW, WIDE, method="monte-carlo", samples=n, rng=rng) for _ in range(repeats)] for n in sizes
    ]
    log_n = np.log(sizes) - np.log(sizes).mean()
    leverage = np.sqrt(1.0 / (log_n @ log_n))
    z = stats.norm.isf(FALSE_ALARM / 4.0)
    log_se = np.array([np.mean([np.log(float(e.standard_error)) for e in row]) for row in runs])
    spread = np.array([np.std([np.log(float(e.standard_error)) for e in row]) for row in runs]).max()
    assert log_n @ log_se * leverage**2 == pytest.approx(-0.5, abs=z * spread / np.sqrt(repeats) * leverage)
    log_error = np.array([np.mean([np.log(abs(float(e.value) - exact)) for e in row]) for row in runs])
    noise = np.pi / np.sqrt(8.0) / np.sqrt(repeats) * leverage
    assert log_n @ log_error * leverage**2 == pytest.approx(-0.5, abs=z * noise)
    assert z * noise < 0.25  # a slope of -1/4 or -3/4 would be seen


def test_stratified_sampling_beats_the_mixture(rng: np.random.Generator) -> None:
    """Variance within the components only: for ``E x`` of a separated mixture that is nearly all of the gain."""
    g = GaussianMixture([0.5, 0.5], [[-10.0], [10.0]], [[1.0]])
    estimate = expectation(g, lambda x: x[:, 0], method="monte-carlo", samples=10_000, rng=rng)
    assert float(estimate.standard_error) == pytest.approx(0.01, rel=0.1)  # sampling the mixture: 0.1


# --- expectation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_moments(k: int, d: int) -> None:
    """Vector-valued functions of any shape."""
    seed = 10 * k + d
    g = random_mixture(np.random.default_rng(seed), k, d)
    first = g.weights @ g.means
    second = np.einsum("k,kij->ij", g.weights, full_covariances(g) + g.means[:, :, None] * g.means[:, None, :])
    np.testing.assert_allclose(expectation(g, lambda x: x).value, first, rtol=0.0, atol=1e-9)
    outer = expectation(g, lambda x: x[:, :, None] * x[:, None, :])
    assert outer.value.shape == outer.standard_error.shape == (d, d)
    np.testing.assert_allclose(outer.value, second, rtol=1e-9, atol=1e-9)
    assert float(expectation(g, lambda x: np.ones(len(x))).value) == pytest.approx(1.0, abs=1e-12)


def test_halving_meets_detail_the_mixture_does_not_show() -> None:
    """A Lorentzian of width 0.01, unseen by a first step of 0.75: its mean is a Voigt profile."""
    g, width = GaussianMixture([1.0], [[0.3]], [[1.0]]), 0.01
    value = float(expectation(g, lambda x: width**2 / (width**2 + (x[:, 0] - 1.0) ** 2)).value)
    assert value == pytest.approx(np.pi * width * float(voigt_profile(0.7, 1.0, width)), rel=1e-9)


def test_small_functions_need_a_small_absolute_tolerance() -> None:
    g = GaussianMixture([1.0], [[0.0]], [[1.0]])
    value = float(expectation(g, lambda x: 1e-20 / (1e-4 + x[:, 0] ** 2), atol=0.0).value)
    assert value == pytest.approx(1e-18 * np.pi * float(voigt_profile(0.0, 1.0, 0.01)), rel=1e-9)


def test_tolerance_is_kept() -> None:
    """A looser ``rtol`` costs fewer points and stays within itself."""
    exact = float(kl_divergence(NARROW, WIDE, rtol=1e-13).value)
    evaluated = []
    for rtol in (1e-3, 1e-6, 1e-9):
        count = 0

        def log_ratio(x: np.ndarray) -> np.ndarray:
            nonlocal count
            count += len(x)
            return NARROW.log_prob(x) - WIDE.log_prob(x)

        value = float(expectation(NARROW, log_ratio, rtol=rtol).value)
        assert value == pytest.approx(exact, abs=2.0 * rtol)
        evaluated.append(count)
    assert evaluated == sorted(evaluated)


def test_a_jump_is_refused_by_quadrature_and_taken_by_monte_carlo(rng: np.random.Generator) -> None:
    def right(x: np.ndarray) -> np.ndarray:
        return (x[:, 0] > 0.1234).astype(float)

    with pytest.raises(RuntimeError, match="has not reached rtol"):
        expectation(NARROW, right)
    estimate = expectation(NARROW, right, method="monte-carlo", samples=20_000, rng=rng)
    exact = stats.norm.sf((0.1234 - NARROW.means[:, 0]) / np.sqrt([1.0, 0.09])) @ NARROW.weights
    assert_within_noise(scores(estimate, exact))


# --- misassignment ---------------------------------------------------------------------------------------------------


@given(seeds, st.integers(1, 4))
def test_misassignment_matrix(seed: int, k: int) -> None:
    """15.1: row-stochastic, reversible, ``w' M = w'``, eigenvalues in [0, 1]; and entry by entry ``E_{f_i}[r_j]``."""
    g = random_mixture(np.random.default_rng(seed), k, 1)
    m = misassignment_matrix(g.weights, g.means, g.covariance)
    np.testing.assert_allclose(m.sum(axis=1), 1.0, rtol=1e-14)
    np.testing.assert_allclose(g.weights[:, None] * m, (g.weights[:, None] * m).T, rtol=1e-13)
    np.testing.assert_allclose(g.weights @ m, g.weights, rtol=1e-12)
    assert ((m >= 0.0) & (m <= 1.0)).all()
    eigenvalues = np.linalg.eigvals(m)
    np.testing.assert_allclose(eigenvalues.imag, 0.0, atol=1e-10)
    assert ((eigenvalues.real > -1e-10) & (eigenvalues.real < 1.0 + 1e-10)).all()
    for i in range(k):
        alone = GaussianMixture([1.0], g.means[i : i + 1], full_covariances(g)[i])
        np.testing.assert_allclose(m[i], expectation(alone, g.responsibilities).value, rtol=0.0, atol=1e-9)


def test_misassignment_in_two_dimensions() -> None:
    g = random_mixture(np.random.default_rng(3), 3, 2)
    m = misassignment_matrix(g.weights, g.means, g.covariance)
    for i in range(3):
        alone = GaussianMixture([1.0], g.means[i : i + 1], full_covariances(g)[i])
        np.testing.assert_allclose(m[i], expectation(alone, g.responsibilities).value, rtol=0.0, atol=1e-9)


@given(seeds, st.integers(2, 4))
def test_misassignment_is_below_the_bhattacharyya_bound(seed: int, k: int) -> None:
    """15.2: ``M_ij <= sqrt(w_j / w_i) BC_ij / 2``."""
    g = random_mixture(np.random.default_rng(seed), k, 1, size=3.0)
    m, covs = misassignment_matrix(g.weights, g.means, g.covariance), full_covariances(g)
    for i, j in itertools.permutations(range(k), 2):
        bc = float(chernoff_coefficient(g.means[i], covs[i], g.means[j], covs[j]))
        assert m[i, j] <= 0.5 * np.sqrt(g.weights[j] / g.weights[i]) * bc * (1.0 + 1e-9)


@given(seeds, st.integers(2, 4))
def test_flow_of_the_weights(seed: int, k: int) -> None:
    """15.1: with the components right, ``-dL/dlogits = M' (alpha - w)`` and ``Cov_q(r) = diag(w) M - w w'``."""
    rng = np.random.default_rng(seed)
    g = random_mixture(rng, k, 1)
    alpha = rng.dirichlet(np.ones(k))
    target = GaussianMixture(alpha, g.means, g.covariance)
    m = misassignment_matrix(g.weights, g.means, g.covariance)
    velocity = -forward_kl_gradients(target, g).logits.value
    np.testing.assert_allclose(velocity, m.T @ (alpha - g.weights), rtol=0.0, atol=1e-9)

    def squared(x: np.ndarray) -> np.ndarray:
        r = g.responsibilities(x)
        return r[:, :, None] * r[:, None, :]

    np.testing.assert_allclose(expectation(g, squared).value, g.weights[:, None] * m, rtol=0.0, atol=1e-9)


def test_old_mean_force_of_unequal_covariances() -> None:
    """15.3: covariances shared by p and q, old mean right: ``beta (E_o[r^q_n A_q] - E_o[r^p_n A_p])``."""
    covs = full_covariances(PLANE)
    mu_o, mu_n = PLANE.means
    q = GaussianMixture([0.7, 0.3], [mu_o, mu_n + np.array([0.4, -0.3])], covs)
    old = GaussianMixture([1.0], [mu_o], covs[0])

    def term(g: GaussianMixture, x: np.ndarray) -> np.ndarray:
        pull = g.component_score(x)  # -cov^-1 (x - m)
        return g.responsibilities(x)[:, 1:] * (pull[:, 1] - pull[:, 0])

    expected = 0.7 * expectation(old, lambda x: term(q, x) - term(PLANE, x)).value
    np.testing.assert_allclose(reverse_kl_gradients(PLANE, q).means.value[0], expected, rtol=0.0, atol=1e-9)


@pytest.mark.parametrize("separation", [2.0, 6.0, 15.0, 35.0])
def test_monte_carlo_misassignment_does_not_care_for_distance(separation: float, rng: np.random.Generator) -> None:
    """In three dimensions, down to ``exp(-153)``: within its noise, which stays below 2% at 20,000 samples (the integrand
    is ``sech`` of a variable of standard deviation ``delta / 2``: relative variance ``delta / 5``)."""
    means = np.zeros((2, 3))
    means[1, 1] = separation
    mixture = GaussianMixture([0.3, 0.7], means, np.eye(3))
    m = misassignment_estimate(mixture, method="monte-carlo", samples=20_000, rng=rng)
    s = np.log(0.3 / 0.7)
    exact = misassignment_probability([s, -s], separation)
    assert_within_noise(scores(m, np.array([[1.0 - exact[0], exact[0]], [exact[1], 1.0 - exact[1]]])))
    relative = m.standard_error[0, 1] / m.value[0, 1]
    assert relative < 1.2 * np.sqrt((1.0 + separation / 5.0) / 20_000)


def test_monte_carlo_misassignment_of_four_modes(rng: np.random.Generator) -> None:
    """Against direct sampling of every component; and a matrix of 1-D quadrature embedded in more dimensions."""
    line = random_mixture(rng, 3, 1)
    covs = np.stack([np.diag([c, 1.0, 1.0]) for c in line.covariance[:, 0, 0]])
    means = np.concatenate([line.means, np.zeros((3, 2))], axis=1)
    exact = misassignment_matrix(line.weights, line.means, line.covariance)
    m = misassignment_estimate(
        GaussianMixture(line.weights, means, covs), method="monte-carlo", samples=30_000, rng=rng
    )
    assert_within_noise(scores(m, exact))
    np.testing.assert_allclose(m.value.sum(axis=1), 1.0, rtol=1e-14)
    assert (m.standard_error > 0.0).all()
    again = misassignment_matrix(line.weights, means, covs, "monte-carlo", samples=1000, rng=rng)
    assert again.shape == (3, 3)


# --- errors ----------------------------------------------------------------------------------------------------------

TWO_MIXTURES = (kl_divergence, *GRADIENTS)


@pytest.mark.parametrize("function", TWO_MIXTURES)
def test_bad_pairs_are_named(function, rng: np.random.Generator) -> None:
    with pytest.raises(InputError, match="one dimension, got 1 and 2"):
        function(NARROW, PLANE)
    with pytest.raises(InputError, match="quadrature serves dimensions 1 and 2, got 4"):
        function(SPACE, OTHER_SPACE)
    with pytest.raises(InputError, match="pass rng"):
        function(SPACE, OTHER_SPACE, method="monte-carlo")
    with pytest.raises(InputError, match="method must be one of quadrature, monte-carlo; got 'exact'"):
        function(NARROW, WIDE, method="exact")
    with pytest.raises(InputError, match="samples must be at least 2"):
        function(NARROW, WIDE, method="monte-carlo", samples=1, rng=rng)
    for rtol in (0.0, -1.0, 1.0, math.nan):
        with pytest.raises(InputError, match="rtol must lie in"):
            function(NARROW, WIDE, rtol=rtol)


def test_bad_functions_are_named(rng: np.random.Generator) -> None:
    for how in ({}, {"method": "monte-carlo", "rng": rng}):
        with pytest.raises(InputError, match="function must map"):
            expectation(NARROW, lambda x: x.sum(), **how)
        with pytest.raises(InputError, match="function must map"):
            expectation(NARROW, lambda x: x[1:], **how)
    with pytest.raises(InputError, match="function must be finite"):
        expectation(NARROW, lambda x: np.full(len(x), np.nan))
    with pytest.raises(InputError, match="atol must be nonnegative"):
        expectation(NARROW, lambda x: x, atol=-1.0)
    with pytest.raises(InputError, match="got 4"):
        expectation(SPACE, lambda x: x)
    with pytest.raises(InputError, match="pass rng"):
        expectation(SPACE, lambda x: x, method="monte-carlo")


def test_bad_misassignment_is_named() -> None:
    with pytest.raises(InputError, match="positive weights"):
        misassignment_matrix([0.0, 1.0], [[0.0], [1.0]], [[1.0]])
    with pytest.raises(InputError, match="got 4"):
        misassignment_estimate(SPACE)
    with pytest.raises(InputError, match="means must have shape"):
        misassignment_matrix([0.5, 0.5], [[0.0]], [[1.0]])
    with pytest.raises(InputError, match="method must be"):
        misassignment_matrix([0.5, 0.5], [[0.0], [1.0]], [[1.0]], "grid")
