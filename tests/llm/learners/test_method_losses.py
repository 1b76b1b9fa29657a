"""Tensor functions of SDFT, TTT-Discover, OAPL and mixture distillation against plain Python, enumeration and closed forms."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import brentq

from fstsim.errors import InputError
from fstsim.llm.learners.method_losses import (
    anchored_logprobs,
    anchored_rewards,
    check_direction,
    distillation_loss,
    entropic_advantages,
    entropic_divergence,
    entropic_temperatures,
    mixture_logprobs,
    oapl_loss,
    others_mean_removed,
    point_logprobs,
    soft_value,
)

Array = np.ndarray

finite = st.floats(-4.0, 4.0, width=32)
shares = st.floats(0.0, 1.0)
groups = arrays(
    np.float64, st.tuples(st.integers(1, 3), st.integers(2, 6)), elements=st.sampled_from([0.0, 0.2, 0.4, 1.0])
)


def logits(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return 2.0 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain_softmax(row: list[float]) -> list[float]:
    total = sum(math.exp(x) for x in row)
    return [math.exp(x) / total for x in row]


def slope(function: Callable[[torch.Tensor], torch.Tensor], at: torch.Tensor, step: float = 1e-5) -> torch.Tensor:
    """Central differences of a scalar function."""
    found = torch.zeros_like(at)
    for index in np.ndindex(*at.shape):
        for sign in (1.0, -1.0):
            moved = at.detach().clone()
            moved[index] += sign * step
            found[index] += sign * function(moved) / (2.0 * step)
    return found


def autograd(function: Callable[[torch.Tensor], torch.Tensor], at: torch.Tensor) -> torch.Tensor:
    leaf = at.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(leaf), leaf)
    return gradient


# --- teachers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["reverse", "forward"])
@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_distillation_is_the_kl_of_every_written_token(direction: str, seed: int) -> None:
    student, teacher = logits((2, 3, 4), seed), logits((2, 3, 4), seed + 1)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    total = 0.0
    for b, t in [(0, 0), (0, 1), (0, 2), (1, 0)]:
        p, q = plain_softmax(student[b, t].tolist()), plain_softmax(teacher[b, t].tolist())
        if direction == "forward":
            p, q = q, p
        total += sum(x * math.log(x / y) for x, y in zip(p, q, strict=True))
    loss = lambda x: distillation_loss(x, teacher, mask, direction)  # type: ignore[arg-type]  # noqa: E731
    assert float(loss(student)) == pytest.approx(total / 2, rel=1e-10)
    torch.testing.assert_close(autograd(loss, student), slope(loss, student), rtol=1e-6, atol=1e-8)


def test_nothing_flows_into_the_teacher() -> None:
    student, teacher = logits((1, 2, 3), 0).requires_grad_(), logits((1, 2, 3), 1).requires_grad_()
    distillation_loss(student, teacher, torch.ones(1, 2, dtype=torch.bool)).backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_directions_have_names() -> None:
    with pytest.raises(InputError, match="direction must be reverse or forward, got 'both'"):
        check_direction("both")


@given(seed=st.integers(0, 10**6), share=shares)
def test_an_anchor_mixes_log_odds(seed: int, share: float) -> None:
    """Every pair of words: ``a s_T + (1 - a) s_A``; and it is a distribution."""
    teacher, anchor = logits((3, 5), seed), logits((3, 5), seed + 1)
    mixed = anchored_logprobs(teacher, anchor, share)
    torch.testing.assert_close(mixed.exp().sum(-1), torch.ones(3, dtype=torch.float64))
    odds = lambda x: x[:, :1] - x  # noqa: E731
    torch.testing.assert_close(odds(mixed), share * odds(teacher) + (1.0 - share) * odds(anchor))


def conditionals(words: int, length: int, seed: int) -> dict[tuple[int, ...], list[float]]:
    """A random sequence distribution: next-word probabilities after every prefix."""
    rng = np.random.default_rng(seed)
    prefixes = [p for n in range(length) for p in itertools.product(range(words), repeat=n)]
    return {prefix: rng.dirichlet(np.full(words, 0.5)).tolist() for prefix in prefixes}


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), weights=st.lists(st.floats(0.05, 1.0), min_size=3, max_size=3))
def test_a_mixture_of_sequences_token_by_token(seed: int, weights: list[float]) -> None:
    """Over all 27 sequences: the product of next-token probabilities is the mixture of the sequences' probabilities.

    One component writes a single sequence surely, so that it is impossible after most prefixes.
    """
    words, length = 3, 3
    w = [x / sum(weights) for x in weights]
    models = [conditionals(words, length, seed + k) for k in (0, 1)]
    sure = tuple(np.random.default_rng(seed).integers(words, size=length).tolist())
    sequences = list(itertools.product(range(words), repeat=length))
    tables = torch.tensor([[[m[s[:t]] for t in range(length)] for s in sequences] for m in models]).double().log()
    point = point_logprobs(torch.tensor([sure]).expand(len(sequences), -1), length, words).double()
    completions, mask = torch.tensor(sequences), torch.ones(len(sequences), length, dtype=torch.bool)
    mixed = mixture_logprobs(torch.stack([*tables, point]), completions, mask, torch.tensor(w))
    torch.testing.assert_close(mixed.exp().sum(-1), torch.ones(len(sequences), length, dtype=torch.float64))
    found = mixed.gather(-1, completions[..., None])[..., 0].sum(-1).exp().tolist()
    for sequence, value in zip(sequences, found, strict=True):
        parts = [math.prod(m[sequence[:t]][sequence[t]] for t in range(length)) for m in models]
        wanted = w[0] * parts[0] + w[1] * parts[1] + w[2] * (sequence == sure)
        assert value == pytest.approx(wanted, rel=1e-6, abs=1e-12)


def test_what_comes_after_the_end_says_nothing_about_the_component() -> None:
    """A completion that has ended: its padding does not enter the posterior of later columns, which nobody reads."""
    components = torch.log_softmax(logits((2, 1, 3, 4), 3), -1)
    mask = torch.tensor([[True, False, False]])
    one, other = (
        mixture_logprobs(components, torch.tensor([[2, x, x]]), mask, torch.tensor([0.5, 0.5])) for x in (0, 1)
    )
    assert torch.equal(one, other)


def test_a_point_writes_its_answer_and_repeats_its_end() -> None:
    found = point_logprobs(torch.tensor([[2, 0], [1, 3]]), 3, 4).exp()
    assert found.argmax(-1).tolist() == [[2, 0, 0], [1, 3, 3]]
    assert found.sum(-1).tolist() == [[1.0] * 3] * 2
    assert point_logprobs(torch.tensor([[2, 0]]), 1, 4).exp().argmax(-1).tolist() == [[2]]


# --- TTT-Discover ----------------------------------------------------------------------------------------------------


def plain_divergence(rewards: list[float], b: float) -> float:
    best = max(rewards)
    q = [math.exp(b * (r - best)) for r in rewards]
    q = [x / sum(q) for x in q]
    return sum(x * math.log(x * len(q)) for x in q if x > 0.0)


@given(groups, st.floats(0.0, 30.0))
def test_the_divergence_of_tilted_weights(rewards: Array, b: float) -> None:
    found = entropic_divergence(torch.tensor(rewards), torch.full((len(rewards),), b))
    wanted = [plain_divergence(row.tolist(), float(np.float32(b))) for row in rewards]
    assert found.tolist() == pytest.approx(wanted, abs=1e-9)


@given(groups, st.floats(0.01, 2.0), st.floats(-3.0, 3.0), st.floats(0.01, 100.0))
def test_the_temperature_spends_the_budget(rewards: Array, budget: float, shift: float, scale: float) -> None:
    """KL to uniform is the budget where it can be reached; units and zero of the reward do not matter."""
    found = entropic_temperatures(torch.tensor(rewards), budget).tolist()
    for row, b in zip(rewards, found, strict=True):
        limit = math.log(len(row) / (row == row.max()).sum())
        if len(set(row.tolist())) == 1:
            assert b == 0.0
        elif limit <= budget:
            assert b == math.inf
        elif limit > budget * (1.0 + 1e-6):
            assert plain_divergence(row.tolist(), b) == pytest.approx(budget, abs=1e-8)
    moved = entropic_temperatures(torch.tensor(shift + scale * rewards), budget)
    for row, b, other in zip(rewards, found, moved.tolist(), strict=True):
        limit = math.log(len(row) / (row == row.max()).sum())
        if limit > budget + 1e-3:  # at the limit itself rounding decides
            assert other * scale == pytest.approx(b, rel=1e-5)


@pytest.mark.parametrize("right", [1, 2, 3])
def test_the_temperature_of_rewards_0_and_1(right: int) -> None:
    """k right ones of G: the share x of the tilted weight on them solves x log(xG/k) + (1-x) log((1-x)G/(G-k)) = budget."""
    size, budget = 8, math.log(2.0)
    rewards = torch.tensor([[1.0] * right + [0.0] * (size - right)])
    b = float(entropic_temperatures(rewards, budget)[0])
    x = right * math.exp(b) / (right * math.exp(b) + size - right)
    found = x * math.log(x * size / right) + (1.0 - x) * math.log((1.0 - x) * size / (size - right))
    assert found == pytest.approx(budget, abs=1e-9)


def test_half_of_the_group_right_is_all_that_ln_2_allows() -> None:
    """With k >= G / 2 right ones the best rollouts alone are within ln 2 of uniform: all weight on them."""
    rewards = torch.tensor([[1.0] * k + [0.0] * (8 - k) for k in range(9)])
    found = entropic_temperatures(rewards, math.log(2.0))
    assert found[[0, 8]].tolist() == [0.0, 0.0]
    assert (found[1:4] < math.inf).all()
    assert (found[5:8] == math.inf).all()
    with pytest.raises(InputError, match="budget must be positive"):
        entropic_temperatures(rewards, 0.0)


@pytest.mark.parametrize("normaliser", ["leave-one-out", "group"])
@given(rewards=groups, b=st.floats(0.0, 20.0))
def test_entropic_advantages(normaliser: str, rewards: Array, b: float) -> None:
    found = entropic_advantages(
        torch.tensor(rewards),
        torch.full((len(rewards),), b, dtype=torch.float64),
        normaliser,  # type: ignore[arg-type]
    )
    for row, values in zip(rewards.tolist(), found.tolist(), strict=True):
        for i, value in enumerate(values):
            seen = row if normaliser == "group" else row[:i] + row[i + 1 :]
            z = sum(math.exp(b * r) for r in seen) / len(seen)
            assert value == pytest.approx(math.exp(b * row[i]) / z - 1.0, rel=1e-9, abs=1e-9)


def test_entropic_advantages_at_the_edge() -> None:
    """All weight on the best; a weight so large that the others' sum would be lost beside it; nothing where all are equal."""
    rewards = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    always = torch.tensor([math.inf])
    assert entropic_advantages(rewards, always, "group").tolist() == [[1.0, -1.0, 1.0, -1.0]]
    assert entropic_advantages(rewards, always)[0].tolist() == pytest.approx([2.0, -1.0, 2.0, -1.0])
    one = entropic_advantages(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([60.0]))
    assert one[0].tolist() == pytest.approx(
        [math.expm1(60.0), 2.0 * math.exp(-60.0) - 1.0, 2.0 * math.exp(-60.0) - 1.0]
    )
    assert entropic_advantages(torch.full((1, 3), 0.7), torch.tensor([5.0])).tolist() == [[0.0] * 3]
    with pytest.raises(InputError, match="allowed: leave-one-out, group"):
        entropic_advantages(rewards, always, "none")  # type: ignore[arg-type]


@given(arrays(np.float64, (2, 5), elements=finite))
def test_the_baseline_of_the_others(values: Array) -> None:
    found = others_mean_removed(torch.tensor(values)).numpy()
    for i in range(5):
        np.testing.assert_allclose(found[:, i], values[:, i] - np.delete(values, i, 1).mean(1), atol=1e-12)


# --- OAPL ------------------------------------------------------------------------------------------------------------


@given(groups, st.floats(0.05, 20.0))
def test_the_soft_value(rewards: Array, tau: float) -> None:
    """Its definition; between the mean and the maximum; both of them in the limits."""
    found = soft_value(torch.tensor(rewards), tau).numpy()
    np.testing.assert_allclose(found, tau * np.log(np.exp(rewards / tau).mean(-1)), atol=1e-9)
    assert (found >= rewards.mean(-1) - 1e-12).all()
    assert (found <= rewards.max(-1) + 1e-12).all()
    np.testing.assert_allclose(soft_value(torch.tensor(rewards), 1e9), rewards.mean(-1), atol=1e-5)
    np.testing.assert_allclose(soft_value(torch.tensor(rewards), 1e-3), rewards.max(-1), atol=3e-3)


@settings(max_examples=20)
@given(arrays(np.float64, (3, 4), elements=finite), st.floats(0.1, 3.0))
def test_the_regression(values: Array, tau: float) -> None:
    now, lag, advantages, _ = torch.tensor(values.T.copy())
    loss = lambda x: oapl_loss(x, lag, advantages, tau)  # noqa: E731
    wanted = sum(
        (tau * (a - b) - c) ** 2 for a, b, c in zip(now.tolist(), lag.tolist(), advantages.tolist(), strict=True)
    )
    assert float(loss(now)) == pytest.approx(wanted / 3, rel=1e-10)
    assert float(oapl_loss(now, lag, advantages, tau, 6)) == pytest.approx(wanted / 6, rel=1e-10)
    torch.testing.assert_close(autograd(loss, now), slope(loss, now), rtol=1e-5, atol=1e-6)


@given(st.integers(0, 10**6), st.floats(0.2, 3.0), shares)
def test_the_loss_is_zero_at_the_anchored_tilt_alone(seed: int, tau: float, anchor: float) -> None:
    """Over all outcomes of a distribution of eight, each as often as the lagged policy writes it, normaliser and all."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 5, size=8)
    lag = np.log(counts / counts.sum())
    base, rewards = np.log(rng.dirichlet(np.ones(8))), rng.random(8)
    tilted = anchor * lag + (1.0 - anchor) * base + rewards / tau
    tilted -= np.log(np.exp(tilted).sum())
    rows = np.repeat(np.arange(8), counts)
    lag_t, base_t, rewards_t, tilted_t = (torch.tensor(x[rows]) for x in (lag, base, rewards, tilted))
    shaped = anchored_rewards(rewards_t, lag_t, base_t, tau, anchor)
    advantages = shaped - soft_value(shaped[None], tau)
    assert float(oapl_loss(tilted_t, lag_t, advantages, tau)) == pytest.approx(0.0, abs=1e-18)
    other = torch.tensor(np.log(rng.dirichlet(np.ones(8)))[rows])
    assert float(oapl_loss(other, lag_t, advantages, tau)) > 0.0


@pytest.mark.parametrize("gap", [1e-3, 1e-30, 1e-60, 1e-200])
def test_the_temperature_of_two_rewards_that_differ_by_almost_nothing(gap: float) -> None:
    """The third is far below: KL = log 3 - H(p), and the odds of the best two are e^(b gap)."""
    budget = 0.8

    def left(log_odds: float) -> float:
        p = 1.0 / (1.0 + math.exp(-log_odds))
        return math.log(3.0) + p * math.log(p) + (1.0 - p) * math.log(1.0 - p) - budget

    expected = brentq(left, 0.1, 20.0, xtol=1e-14) / gap
    found = entropic_temperatures(torch.tensor([[0.0, -gap, -1.0]], dtype=torch.float64), budget)
    assert float(found[0]) == pytest.approx(expected, rel=1e-9)
