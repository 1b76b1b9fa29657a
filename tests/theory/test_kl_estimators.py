"""Estimators of KL: moments against mpmath and samples, gradients against autograd, rests against gradient ascent."""

from __future__ import annotations

from itertools import product

import mpmath
import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import brentq
from scipy.special import expit, logit
from torch.distributions import Categorical, kl_divergence

from fstsim import InputError
from fstsim.theory import (
    check_statement,
    find_statements,
    k2_mean_bounds,
    k3_loss_answer,
    k3_loss_bounds,
    k3_loss_log_odds,
    k3_loss_policy,
    k3_reward_drift,
    k3_reward_drift_bounds,
    kl_estimates,
    kl_estimators,
    leash_loss_policy,
    least_control,
    mode_estimates,
    tilt_mass,
)

TOKENS, LENGTH = 3, 2
SEQUENCES = list(product(range(TOKENS), repeat=LENGTH))


def pair(seed: int, size: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(size)), rng.dirichlet(np.ones(size))


@pytest.mark.parametrize("u", [-30.0, -1.0, -0.0999, -1e-3, -1e-9, 1e-12, 1e-4, 0.0999, 0.1001, 2.0, 20.0])
def test_k3_keeps_its_digits(u: float) -> None:
    with mpmath.workdps(60):
        exact = float(mpmath.e ** mpmath.mpf(u) - 1 - mpmath.mpf(u))
    np.testing.assert_allclose(kl_estimators(u), [-u, u * u / 2, exact], rtol=1e-14)


@pytest.mark.parametrize("seed", range(4))
def test_moments_are_those_of_samples(seed: int) -> None:
    q, p = pair(seed)
    found = kl_estimates(q, p)
    k = kl_estimators(np.log(p / q)[np.random.default_rng(seed).choice(5, 400_000, p=q)])
    error = k.std(axis=1) / np.sqrt(k.shape[1])
    assert (np.abs(k.mean(axis=1) - found.mean) < 5 * error).all()
    spread = ((k - found.mean[:, None]) ** 2).std(axis=1) / np.sqrt(k.shape[1])
    assert (np.abs(k.var(axis=1) - found.variance) < 5 * spread).all()
    exact = kl_divergence(Categorical(torch.tensor(q)), Categorical(torch.tensor(p)))
    np.testing.assert_allclose(found.mean[[0, 2]], float(exact), rtol=1e-12)
    low, high = k2_mean_bounds(found.mean[0], np.log(p / q).min(), np.log(p / q).max())
    assert low < found.mean[1] < high


def test_bounds_of_k2_close_where_all_log_ratios_agree_in_size() -> None:
    """And the mean leaves KL without bound where the policy has left the reference."""
    p = np.array([0.5, 0.5])
    tiny = np.array([0.5 + 1e-6, 0.5 - 1e-6])
    np.testing.assert_allclose(kl_estimates(tiny, p).mean[1] / kl_estimates(tiny, p).mean[0], 1.0, rtol=1e-5)
    far = kl_estimates([0.999, 0.001], [1e-9, 1.0 - 1e-9])
    assert far.mean[1] > 10.0 * far.mean[0]


@pytest.mark.parametrize("kl", [0.01, 0.5, 3.0])
def test_a_drifted_mode(kl: float) -> None:
    found = mode_estimates([1.0], [1.0], [np.sqrt(2.0 * kl)])
    np.testing.assert_allclose(found.mean, [kl, kl + kl**2 / 2, kl], rtol=1e-12)
    expected = [2 * kl, 2 * kl**2 + 2 * kl**3, np.exp(2 * kl) - 1 - 2 * kl]
    np.testing.assert_allclose(found.variance, expected, rtol=1e-10)
    crossing = brentq(
        lambda k: float(np.diff(mode_estimates([1.0], [1.0], [np.sqrt(2 * k)]).variance[[0, 2]])[0]), 0.1, 2
    )
    assert crossing == pytest.approx(0.6282, abs=1e-4)


def test_modes_without_drift_are_a_finite_distribution() -> None:
    q, p = pair(3, 4)
    for found, expected in zip(mode_estimates(q, p, np.zeros(4)), kl_estimates(q, p), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-11)


@pytest.mark.parametrize("seed", range(3))
def test_the_best_control_is_the_best_of_a_grid(seed: int) -> None:
    q, p = pair(seed)
    weight, least = least_control(q, p)
    u = np.log(p / q)

    def variance(w: float) -> float:
        k = -u + w * np.expm1(u)
        return float(q @ (k - q @ k) ** 2)

    assert variance(float(weight)) == pytest.approx(float(least), rel=1e-12)
    assert min(variance(w) for w in weight + np.linspace(-1.0, 1.0, 41)) == pytest.approx(float(least), rel=1e-12)
    np.testing.assert_allclose(kl_estimates(q, p).variance[[0, 2]], [variance(0.0), variance(1.0)], rtol=1e-12)


@pytest.mark.parametrize("tau", [0.2, 1.0, 4.0])
def test_three_choices_rest_where_ascent_on_the_other_divergence_ends(tau: float) -> None:
    base, _ = pair(1, 3)
    reward = torch.tensor([0.1, -0.4, 1.0], dtype=torch.float64)
    logits = torch.tensor(np.log(base), requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-14, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        now = Categorical(logits=logits)
        loss = tau * kl_divergence(Categorical(torch.tensor(base)), now) - now.probs @ reward
        loss.backward()
        return loss

    optimizer.step(closure)
    found = k3_loss_policy(base, reward.numpy(), tau, tokens=3)
    np.testing.assert_allclose(found, torch.softmax(logits, -1).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["k2", "k3"])
def test_a_tree_rests_where_the_enumerated_gradient_vanishes(kind: str, seed: int) -> None:
    """Every sequence in turn, its samples held: k2 where the exact leash as a loss rests, k3 elsewhere."""
    rng = np.random.default_rng(seed)
    base, reward, tau = rng.dirichlet(np.ones(9)), rng.uniform(-1.0, 1.0, 9), 0.5
    rests = {"k2": leash_loss_policy(base, reward, tau, TOKENS), "k3": k3_loss_policy(base, reward, tau, TOKENS)}

    def slope(policy: np.ndarray) -> float:
        q = policy.reshape(TOKENS, TOKENS)
        table = np.log(np.vstack((q.sum(axis=1), q / q.sum(axis=1, keepdims=True))))
        p = base.reshape(TOKENS, TOKENS)
        given = torch.tensor(np.log(np.vstack((p.sum(axis=1), p / p.sum(axis=1, keepdims=True)))))
        logits = torch.tensor(table, requires_grad=True)
        logp = torch.log_softmax(logits, -1)
        total = torch.zeros((), dtype=torch.float64)
        for (a, b), r in zip(SEQUENCES, reward, strict=True):
            own, other = torch.stack((logp[0, a], logp[1 + a, b])), torch.stack((given[0, a], given[1 + a, b]))
            u = other - own
            k = 0.5 * u**2 if kind == "k2" else torch.exp(u) - 1 - u
            probability = own.sum().exp()
            total = total + probability * r - tau * probability.detach() * k.sum()
        return float(torch.autograd.grad(total, logits)[0].abs().max())

    assert slope(rests[kind]) < 1e-13
    assert slope(rests["k2" if kind == "k3" else "k3"]) > 1e-4


def test_one_decision_is_a_tree_of_one_token() -> None:
    p, tau = np.array([1e-6, 0.01, 0.3, 0.9]), np.array([0.05, 0.4, 2.0, 30.0])
    x = expit(k3_loss_log_odds(logit(p)[:, None], 1.0 / tau))
    tree = k3_loss_policy(np.stack((1.0 - p, p), -1)[:, None], [0.0, 1.0], tau)[..., 1]
    np.testing.assert_allclose(x, tree, rtol=1e-9)
    np.testing.assert_allclose(x * (1 - x), tau * (x - p[:, None]), rtol=1e-6, atol=1e-12)
    low, high = k3_loss_bounds(p[:, None], tau)
    assert ((low <= x * (1 + 1e-12)) & (x <= high * (1 + 1e-12))).all()
    # a rare answer: the tilt leaves it rare, k3 lifts it to 1 - tau
    assert tilt_mass(1e-6, 0.1) == pytest.approx(0.022, abs=1e-3)
    assert x[0, 0] > 0.95


def test_zero_masses_stay_and_no_reward_moves_nothing() -> None:
    base = np.array([0.5, 0.0, 0.3, 0.2])
    np.testing.assert_allclose(k3_loss_policy(base, np.zeros(4), 0.7), base, atol=1e-14)
    assert k3_loss_policy(base, [0.0, 5.0, 1.0, 0.0], 0.3)[1] == 0.0


@pytest.mark.parametrize(("base", "start", "end"), [(-1.0, -1.2, -3.0), (-2.0, -1.5, -2.0), (1.0, 1.2, 3.0)])
def test_k3_in_the_reward_runs_away(base: float, start: float, end: float) -> None:
    """From just outside of the base to the sure decision, from just inside back to the base and no further."""
    flow = solve_ivp(lambda _, x: 200.0 * k3_reward_drift(base, x), (0.0, 20.0), [start], "LSODA", rtol=1e-9)
    at = float(flow.y[0, -1])
    assert at < end if end < base else at > end if end > base else base < at < base + 0.05


@pytest.mark.parametrize("move", [-3.0, -1.9, -0.3, -1e-4, 1e-5, 0.7, 2.5])
def test_the_drift_keeps_its_digits_and_its_bounds(move: float) -> None:
    x0 = -3.0
    with mpmath.workdps(50):
        sigma = lambda y: 1 / (1 + mpmath.exp(-mpmath.mpf(y)))  # noqa: E731
        q, p = sigma(mpmath.mpf(x0) + mpmath.mpf(move)), sigma(x0)
        exact = float(q - p - q * (1 - q) * mpmath.mpf(move))
    found = k3_reward_drift(x0, x0 + move)
    np.testing.assert_allclose(found, exact, rtol=1e-10)
    low, high = k3_reward_drift_bounds(x0, x0 + move)
    assert low * (1 - 1e-10) <= -found <= high * (1 + 1e-10)


@pytest.mark.parametrize("slug", ["kl-estimators-loss", "kl-estimators-ratio", "kl-estimators-reward"])
def test_each_estimator_alone_has_the_gradient_that_is_claimed(slug: str) -> None:
    """The statement checks sums of the three; here one weight at a time, against a central difference."""
    (statement,) = find_statements(slug)
    sample = statement.sample(np.random.default_rng(0), 200)
    for i in range(3):
        if slug == "kl-estimators-loss" and i == 0:
            continue  # the gradient that is claimed has no direction: it is 0
        alone = {**sample, "weights": np.eye(3)[[i] * 200]}
        np.testing.assert_allclose(statement.exact(**alone), statement.bound(**alone)[0], rtol=1e-7)
    assert check_statement(statement, 100).violations == 0


@pytest.mark.parametrize("seed", range(3))
def test_gradients_against_autograd(seed: int) -> None:
    """All nine of the table, from the definition, at one pair of distributions."""
    q0, p = (torch.tensor(x) for x in pair(seed))
    theta = q0.log().requires_grad_()
    logq = torch.log_softmax(theta, -1)
    u = p.log() - logq
    estimators = (-u, 0.5 * u**2, torch.exp(u) - 1 - u)

    def grad(value: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(value, theta, retain_graph=True)[0]

    reverse = grad(kl_divergence(Categorical(logits=theta), Categorical(p)))
    forward = grad(kl_divergence(Categorical(p), Categorical(logits=theta)))
    square = grad((logq.exp() * estimators[1]).sum())
    table = [
        (torch.zeros_like(reverse), reverse, reverse),
        (reverse, square, square - reverse),
        (forward, reverse, reverse - forward),
    ]
    for k, (loss, ratio, reward) in zip(estimators, table, strict=True):
        assert torch.allclose(grad((q0 * k).sum()), loss, atol=1e-12)
        assert torch.allclose(grad((q0 * (logq - q0.log()).exp() * k).sum()), ratio, atol=1e-12)
        assert torch.allclose(grad((logq.exp() * k.detach()).sum()), reward, atol=1e-12)


def test_what_is_no_distribution_is_refused() -> None:
    with pytest.raises(InputError, match="policy must hold positive probabilities that sum to 1"):
        kl_estimates([0.5, 0.4], [0.5, 0.5])
    with pytest.raises(InputError, match="base must hold positive probabilities"):
        least_control([0.5, 0.5], [1.0, 0.0])
    with pytest.raises(InputError, match="lowest must be at most 0"):
        k2_mean_bounds(0.1, 0.2, 0.3)
    with pytest.raises(InputError, match="tau must be positive"):
        k3_loss_policy([0.5, 0.5], [0.0, 1.0], 0.0)


@pytest.mark.parametrize("tau", [0.1, 0.4, 2.0])
def test_one_right_answer_rests_where_the_tree_does(tau: float) -> None:
    tree = np.random.default_rng(3).dirichlet(np.ones(9), size=4)
    reward = np.zeros(9)
    reward[5] = 1.0  # the second token after the first, then the third
    first = tree[:, 3:6].sum(axis=1)
    masses = np.stack((first, tree[:, 5] / first, np.ones(4)), axis=1)
    expected = k3_loss_policy(tree, reward, tau, tokens=3)[:, 5]
    np.testing.assert_allclose(k3_loss_answer(masses, tau), expected, rtol=1e-10)
    with pytest.raises(InputError, match="token_masses"):
        k3_loss_answer([0.5, 0.0], tau)
