"""The leash as a loss: its rest against gradients by autograd and against enumeration of groups."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from scipy.special import expit, logit

from fstsim import InputError
from fstsim.llm.learners.losses import group_advantages
from fstsim.theory import (
    effective_tau,
    leash_loss_answer,
    leash_loss_answer_bounds,
    leash_loss_policy,
    leash_loss_value_bounds,
    leash_path_kl,
    normalised_leash_answer,
    normalised_tau,
    normalised_tau_bounds,
    sequence_tilt,
)

TOKENS, LENGTH = 3, 2
SEQUENCES = list(product(range(TOKENS), repeat=LENGTH))


def tree(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(len(SEQUENCES))), rng.uniform(-1.0, 1.0, len(SEQUENCES))


def slope(theta: np.ndarray, base: np.ndarray, reward: np.ndarray, tau: float, frozen: bool) -> np.ndarray:
    """Gradient of reward less leash in the logits ``(1 + TOKENS, TOKENS)`` of every prefix, by autograd.

    ``frozen``: no gradient of the leash through the prefixes that are visited.
    """
    p, r = torch.tensor(base).reshape(TOKENS, TOKENS), torch.tensor(reward).reshape(TOKENS, TOKENS)
    logits = torch.tensor(theta, requires_grad=True)
    a, b = torch.log_softmax(logits[0], -1), torch.log_softmax(logits[1:], -1)
    visits = a.exp().detach() if frozen else a.exp()
    first = (a.exp() * (a - p.sum(1).log())).sum()
    second = (visits[:, None] * b.exp() * (b - (p / p.sum(1, keepdim=True)).log())).sum()
    gain = (a.exp()[:, None] * b.exp() * r).sum() - tau * (first + second)
    return torch.autograd.grad(gain, logits)[0].numpy()


def logits_of(policy: np.ndarray) -> np.ndarray:
    q = policy.reshape(TOKENS, TOKENS)
    return np.log(np.vstack((q.sum(axis=1), q / q.sum(axis=1, keepdims=True))))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("tau", [0.3, 1.0])
def test_rest_is_where_the_gradient_vanishes(seed: int, tau: float) -> None:
    """Each leash at its own rest, and not at the other's."""
    base, reward = tree(seed)
    rests = {True: leash_loss_policy(base, reward, tau, TOKENS), False: sequence_tilt(base, reward, tau)}
    for frozen, policy in rests.items():
        assert np.abs(slope(logits_of(policy), base, reward, tau, frozen)).max() < 1e-14
        assert np.abs(slope(logits_of(policy), base, reward, tau, not frozen)).max() > 1e-4


@pytest.mark.parametrize("frozen", [True, False])
def test_gradient_ascent_ends_there(frozen: bool) -> None:
    base, reward = tree(1)
    theta = logits_of(base)
    for _ in range(2000):
        theta = theta + 4.0 * slope(theta, base, reward, 0.7, frozen)
    q = np.exp(theta - np.log(np.exp(theta).sum(axis=1, keepdims=True)))
    expected = leash_loss_policy(base, reward, 0.7, TOKENS) if frozen else sequence_tilt(base, reward, 0.7)
    np.testing.assert_allclose((q[0][:, None] * q[1:]).ravel(), expected, atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_what_the_path_spends(seed: int) -> None:
    base, reward = tree(seed)
    policy = leash_loss_policy(base, reward, 0.4, TOKENS)
    spent = leash_path_kl(policy, base, TOKENS)
    # the mean over sequences of what paths spend is the KL of sequences
    assert (policy * spent).sum() == pytest.approx((policy * np.log(policy / base)).sum(), rel=1e-12)
    ratio = np.log(policy / base) - reward / 0.4 - spent
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-10)
    lower, upper = leash_loss_value_bounds(base, reward, 0.4, TOKENS)
    assert lower <= policy @ reward <= upper
    # against the leashed objective written out: the tilt has it, nothing has more
    tilt = sequence_tilt(base, reward, 0.4)
    assert lower == pytest.approx(tilt @ reward - 0.4 * tilt @ np.log(tilt / base), rel=1e-12)


def test_one_decision_is_the_tilt() -> None:
    base, reward = np.array([0.2, 0.5, 0.3]), np.array([0.1, -0.4, 0.9])
    np.testing.assert_allclose(leash_loss_policy(base, reward, 0.3, 3), sequence_tilt(base, reward, 0.3), rtol=1e-12)
    assert leash_loss_answer([0.3], 0.5) == pytest.approx(expit(logit(0.3) + 2.0), rel=1e-12)
    np.testing.assert_allclose(leash_loss_answer_bounds([0.3], 0.5), expit(logit(0.3) + 2.0), rtol=1e-12)


def test_the_answer_is_the_tree_with_one_success() -> None:
    first, second, third = 0.6, 0.3, 0.8
    base = np.outer([first, 1 - first], np.outer([second, 1 - second], [third, 1 - third])).ravel()
    reward = np.eye(8)[0]
    for tau in (0.2, 1.0):
        success = leash_loss_policy(base, reward, tau)[0]
        assert leash_loss_answer([first, second, third], tau) == pytest.approx(success, rel=1e-12)
        tilt, above = leash_loss_answer_bounds([first, second, third], tau)
        assert tilt == pytest.approx(sequence_tilt(base, reward, tau)[0], rel=1e-12)
        assert tilt < success < above


def test_the_answer_to_many_digits() -> None:
    with mpmath.workdps(40):
        value = mpmath.mpf(1)
        for p in (0.9, 0.02, 0.5):
            odds = mpmath.mpf(p) / (1 - mpmath.mpf(p)) * mpmath.exp(value / mpmath.mpf(0.25))
            value = odds / (1 + odds) * value
    assert float(leash_loss_answer([0.5, 0.02, 0.9, 1.0], 0.25)) == pytest.approx(float(value), rel=1e-13)


def test_more_success_than_the_tilt_is_no_law_of_trees() -> None:
    """A branch that pays much KL for a little less reward than a sure one draws the policy away from the better branch."""
    base, reward = np.array([0.5 - 1e-12, 1e-12, 0.4995, 0.0005]), np.array([0.9, 0.9, 0.0, 1.0])
    policy, tilt = leash_loss_policy(base, reward, 0.12), sequence_tilt(base, reward, 0.12)
    assert policy @ reward < tilt @ reward - 0.01


# --- groups -----------------------------------------------------------------------------------------------------------


def expected_gradient(p: float, size: int, kind: Any) -> float:
    """Of one logit with success probability p, by every group that can be drawn and the learner's own advantages."""
    total = 0.0
    for drawn in product((0.0, 1.0), repeat=size):
        rewards = torch.tensor(drawn, dtype=torch.float64)
        advantages, _ = group_advantages(rewards, torch.zeros(size, dtype=torch.long), kind, 0.0)
        chance = p ** sum(drawn) * (1 - p) ** (size - sum(drawn))
        total += chance * float((torch.nan_to_num(advantages) * (rewards - p)).mean())
    return total


@pytest.mark.parametrize("kind", ["centred", "leave-one-out", "normalised"])
@pytest.mark.parametrize("size", [2, 5])
def test_effective_tau_of_a_leash_as_a_loss(kind: Any, size: int) -> None:
    """Its rest at success p is that of the tilt with this tau: reward's gradient against tau times that of the KL."""
    p, base, y = 0.3, -3.0, 0.3 * 0.7
    tau = expected_gradient(p, size, kind) / (y * (logit(p) - base))
    found = normalised_tau(tau, p, size) if kind == "normalised" else effective_tau(tau, size, kind, "loss")
    assert expit(base + 1.0 / float(found)) == pytest.approx(p, rel=1e-9)


def test_a_leash_in_the_reward_keeps_its_tau() -> None:
    for kind in ("centred", "leave-one-out"):
        assert effective_tau(0.4, 8, kind, "reward") == 0.4  # type: ignore[arg-type]
    assert effective_tau(0.35, 8, "centred", "loss") == pytest.approx(0.4)


def test_normalised_advantages_never_strengthen_it() -> None:
    p = np.geomspace(1e-6, 0.5, 30)[:, None]
    sizes = np.array([2.0, 3.0, 8.0, 64.0])
    tau = normalised_tau(1.0, p, sizes)
    lower, upper = normalised_tau_bounds(1.0, p, sizes)
    assert (lower <= tau * (1 + 1e-12)).all()
    assert (tau <= upper * (1 + 1e-12)).all()
    assert (upper <= 1.0 + 1e-12).all()
    np.testing.assert_allclose(tau[0], 1.0 / np.sqrt(sizes - 1.0), rtol=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: leash_loss_policy([0.5, 0.2, 0.3], [0, 0, 1], 1.0), r"2\^L sequences"),
        (lambda: leash_loss_policy([0.5, 0.6], [0, 1], 1.0), "sum to 1"),
        (lambda: leash_loss_policy([0.5, 0.5], [0, 1], 0.0), "tau must be positive"),
        (lambda: leash_loss_policy([0.5, 0.5], [0, 1], 1.0, 1), "tokens must be at least 2"),
        (lambda: leash_loss_policy([0.5, 0.5], [0, np.inf], 1.0), "reward must be finite"),
        (lambda: leash_loss_answer([0.0, 0.5], 1.0), r"token_masses must lie in \(0, 1\]"),
        (lambda: effective_tau(1.0, 1, "centred", "loss"), "group_size must be whole and at least 2"),
        (lambda: effective_tau(1.0, 8, "normalised", "loss"), "normalised has normalised_tau"),
        (lambda: effective_tau(1.0, 8, "centred", "both"), "leash must be reward or loss"),  # type: ignore[arg-type]
        (lambda: normalised_tau(1.0, 1.0, 8), "success must lie strictly between 0 and 1"),
    ],
)
def test_bad_input(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("prefix", [False, True])
@pytest.mark.parametrize("tau", [0.4, 1.0, 3.0])
def test_rest_under_normalised_advantages_has_its_own_strength(prefix: bool, tau: float) -> None:
    masses = np.array([[0.4, 0.3, 1.0], [0.9, 0.02, 0.5], [0.05, 0.99, 1.0]])
    rest = normalised_leash_answer(masses, tau, 8, prefix=prefix)
    at = normalised_tau(tau, np.minimum(rest, 1.0 - 1e-16), 8)
    tilted = expit(logit(masses.prod(axis=1)) + 1.0 / at)
    np.testing.assert_allclose(rest, tilted if prefix else leash_loss_answer(masses, at), rtol=1e-9)
    assert (rest > masses.prod(axis=1)).all()


def test_one_decision_under_normalised_advantages_balances_enumerated_groups() -> None:
    """Every number of right rollouts in a group of four, advantages over their standard deviation, against the leash's pull."""
    tau, base, group = 0.8, 0.2, 4
    q = float(normalised_leash_answer([base], tau, group))
    drift = 0.0
    for rewards in product((0.0, 1.0), repeat=group):
        r = np.array(rewards)
        if r.std() > 0.0:
            chance = float(np.prod(np.where(r > 0.0, q, 1.0 - q)))
            drift += chance * float(((r - r.mean()) / r.std() * (r - q)).mean())
    assert drift == pytest.approx(tau * q * (1.0 - q) * float(logit(q) - logit(base)), rel=1e-9)
