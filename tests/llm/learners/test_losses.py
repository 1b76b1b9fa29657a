"""Losses of the slow channel against plain-Python loops, autograd, enumeration and torch's own divergences.

Where a loss is an estimator, its expectation is taken exactly, by enumerating everything that a small policy can write.
"""

from __future__ import annotations

import inspect
import math
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Categorical, kl_divergence

from fstsim.errors import InputError
from fstsim.llm.learners import losses, method_losses
from fstsim.llm.learners.losses import (
    Advantage,
    KLEstimator,
    cispo_loss,
    estimated_leash_loss,
    group_advantages,
    leash_loss,
    leashed_rewards,
    prefix_loss,
    reinforce_loss,
    sft_loss,
)
from fstsim.llm.learners.method_losses import distillation_loss, mixture_logprobs
from fstsim.llm.policy.divergence import token_entropy, token_kl
from fstsim.llm.policy.next_tokens import NextTokens

KINDS: tuple[Advantage, ...] = ("normalised", "centred", "leave-one-out")


def tensor(values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def near(value: object, expected: object) -> bool:
    return bool(torch.allclose(torch.as_tensor(value), torch.as_tensor(expected), rtol=1e-9, atol=1e-12))


@st.composite
def batches(draw: st.DrawFn) -> dict[str, torch.Tensor]:
    """Log-probabilities new and old, base ones, advantages, and masks of completions of different lengths, some empty."""
    rollouts, tokens = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    logp = st.floats(-8.0, 0.0)
    rows = [st.lists(logp, min_size=tokens, max_size=tokens) for _ in range(3)]
    made = {
        name: tensor([draw(row) for _ in range(rollouts)])
        for name, row in zip(("new", "old", "base"), rows, strict=True)
    }
    made["advantages"] = tensor([draw(st.floats(-3.0, 3.0)) for _ in range(rollouts)])
    lengths = [draw(st.integers(0, tokens)) for _ in range(rollouts)]
    lengths[0] = max(lengths[0], 1)
    made["mask"] = torch.tensor([[t < length for t in range(tokens)] for length in lengths])
    return made


def written(b: dict[str, torch.Tensor]) -> list[tuple[int, int]]:
    """Places (rollout, token) that count."""
    rollouts, tokens = b["mask"].shape
    return [(i, t) for i in range(rollouts) for t in range(tokens) if b["mask"][i, t]]


# --- advantages ------------------------------------------------------------------------------------------------------


def reference_advantages(rewards: list[float], groups: list[int], kind: str, epsilon: float) -> list[float]:
    out = []
    for reward, group in zip(rewards, groups, strict=True):
        own = [r for r, g in zip(rewards, groups, strict=True) if g == group]
        mean = math.fsum(own) / len(own)
        if min(own) == max(own):
            out.append(0.0)
        elif kind == "normalised":
            out.append((reward - mean) / (math.sqrt(math.fsum((r - mean) ** 2 for r in own) / len(own)) + epsilon))
        elif kind == "centred":
            out.append(reward - mean)
        else:  # the baseline is the mean of the others
            out.append(reward - (math.fsum(own) - reward) / (len(own) - 1))
    return out


@st.composite
def grouped_rewards(draw: st.DrawFn) -> tuple[list[float], list[int]]:
    """Groups of one to five, in any order; rewards binary, with ties, or of any value."""
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))
    groups = draw(st.permutations([g for g, size in enumerate(sizes) for _ in range(size)]))
    reward = draw(
        st.sampled_from([st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 0.2, 1.0]), st.floats(-5.0, 5.0)])
    )
    return [draw(reward) for _ in groups], list(groups)


@given(drawn=grouped_rewards(), kind=st.sampled_from(KINDS), epsilon=st.sampled_from([1e-6, 0.1]))
def test_group_advantages(drawn: tuple[list[float], list[int]], kind: Advantage, epsilon: float) -> None:
    rewards, groups = drawn
    advantages, dead = group_advantages(tensor(rewards), torch.tensor(groups), kind, epsilon)
    expected = tensor(reference_advantages(rewards, groups, kind, epsilon))
    # a mean that is rounded moves an advantage by that rounding over epsilon
    assert torch.allclose(advantages, expected, rtol=1e-9, atol=1e-9)
    by_group = [[r for r, g in zip(rewards, groups, strict=True) if g == group] for group in range(max(groups) + 1)]
    assert dead.tolist() == [len(set(own)) == 1 for own in by_group]


@given(drawn=grouped_rewards(), kind=st.sampled_from(KINDS))
def test_advantages_of_a_group_sum_to_nothing(drawn: tuple[list[float], list[int]], kind: Advantage) -> None:
    rewards, groups = drawn
    advantages, dead = group_advantages(tensor(rewards), torch.tensor(groups), kind)
    for group in range(max(groups) + 1):
        own = advantages[torch.tensor(groups) == group]
        assert abs(float(own.sum())) < 1e-8
        if dead[group]:
            assert own.tolist() == [0.0] * len(own), "exactly, not up to rounding"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_equal_rewards_are_dead_whatever_their_value(kind: Advantage, dtype: torch.dtype) -> None:
    """Seven times 0.1 has a mean that is not 0.1 in floating point: still no signal, and exactly none."""
    rewards = torch.tensor([0.1] * 7 + [1.0, 0.0], dtype=dtype)
    advantages, dead = group_advantages(rewards, torch.tensor([0] * 7 + [1, 1]), kind)
    assert advantages[:7].tolist() == [0.0] * 7
    assert dead.tolist() == [True, False]
    assert advantages.dtype == dtype


def test_unknown_advantage() -> None:
    with pytest.raises(InputError, match="leave-one-out"):
        group_advantages(tensor([0.0, 1.0]), torch.tensor([0, 0]), "median")  # type: ignore[arg-type]


# --- CISPO -----------------------------------------------------------------------------------------------------------


@given(b=batches(), cap=st.floats(1.01, 20.0), tokens=st.one_of(st.none(), st.floats(1.0, 50.0)))
def test_cispo_value_and_gradient(b: dict[str, torch.Tensor], cap: float, tokens: float | None) -> None:
    """Value, capped share, and the gradient min(rho, c) A / N of each token's log-probability, token by token."""
    logprobs = b["new"].clone().requires_grad_()
    loss, capped = cispo_loss(logprobs, b["old"], b["advantages"], b["mask"], cap, tokens=tokens)
    loss.backward()
    places = written(b)
    count = len(places) if tokens is None else tokens
    value, gradient, over = 0.0, torch.zeros_like(b["new"]), 0
    for i, t in places:
        rho = math.exp(float(b["new"][i, t] - b["old"][i, t]))
        weight = min(rho, cap) * float(b["advantages"][i])
        value -= weight * float(b["new"][i, t]) / count
        gradient[i, t] = -weight / count
        over += rho > cap
    assert near(loss.detach(), tensor(value))
    assert near(logprobs.grad, gradient)
    assert float(capped) == pytest.approx(over / len(places), abs=1e-6)


@given(seed=st.integers(0, 10**6), cap=st.floats(1.01, 3.0))
def test_cispo_gradient_of_logits_is_that_of_the_naive_formula(seed: int, cap: float) -> None:
    """Through a softmax, against autograd of the formula as written in a loop with the weight taken as a number."""
    rng = np.random.default_rng(seed)
    logits = tensor(2.0 * rng.normal(size=(3, 2, 5))).requires_grad_()
    actions = torch.from_numpy(rng.integers(5, size=(3, 2)))
    old = tensor(-3.0 * rng.random((3, 2)))
    advantages = tensor(rng.normal(size=3))
    mask = torch.tensor([[True, True], [True, False], [True, True]])
    logprobs = torch.log_softmax(logits, -1).gather(-1, actions[..., None])[..., 0]
    loss, _ = cispo_loss(logprobs, old, advantages, mask, cap)
    (gradient,) = torch.autograd.grad(loss, logits)
    naive = tensor(0.0)
    for i, t in [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1)]:
        p = F.softmax(logits[i, t], -1)[actions[i, t]]
        weight = min(p.item() / math.exp(old[i, t].item()), cap)
        naive = naive - weight * advantages[i] * torch.log(p) / 5
    (expected,) = torch.autograd.grad(naive, logits)
    assert near(gradient, expected)


def test_cispo_caps_from_above_only_and_never_drops_a_token() -> None:
    """Ratios 0.01, 1 and 100 with either sign of the advantage: weights 0.01, 1 and the cap; a PPO clip would zero some."""
    old = tensor([[0.0, 0.0, 0.0]])
    for advantage in (2.0, -2.0):
        logprobs = tensor([[math.log(0.01), 0.0, math.log(100.0)]]).requires_grad_()
        loss, capped = cispo_loss(logprobs, old, tensor([advantage]), torch.ones(1, 3, dtype=torch.bool), 5.0)
        loss.backward()
        assert near(logprobs.grad, -advantage * tensor([[0.01, 1.0, 5.0]]) / 3)
        assert float(capped) == pytest.approx(1 / 3)


@given(b=batches())
def test_on_policy_cispo_is_reinforce_by_token(b: dict[str, torch.Tensor]) -> None:
    """With equal log-probabilities no ratio is capped, and the gradient is REINFORCE's but for the normaliser."""
    one, two = b["new"].clone().requires_grad_(), b["new"].clone().requires_grad_()
    loss, capped = cispo_loss(one, b["new"], b["advantages"], b["mask"], 1.5, tokens=1.0)
    loss.backward()
    reinforce_loss(two, b["advantages"], b["mask"], rollouts=1).backward()
    assert near(one.grad, two.grad)
    assert float(capped) == 0.0


@given(b=batches())
def test_no_gradient_reaches_old_log_probabilities(b: dict[str, torch.Tensor]) -> None:
    """The ratio is under the stop-gradient: what depends on the old policy alone is a constant."""
    new = b["new"].clone().requires_grad_()
    loss, _ = cispo_loss(new, b["old"], b["advantages"], b["mask"], 2.0)
    (first,) = torch.autograd.grad(loss, new, create_graph=True, materialize_grads=True)
    assert not first.requires_grad, "the gradient is linear in log pi: its weight must not depend on it"


@pytest.mark.parametrize("cap", [1.0, 0.2, -1.0, math.nan])
def test_a_cap_not_above_one_is_refused(cap: float) -> None:
    one = torch.zeros(1, 1)
    with pytest.raises(InputError, match="above 1"):
        cispo_loss(one, one, one[0], one == 0, cap)


# --- sums ------------------------------------------------------------------------------------------------------------


@given(b=batches(), strength=st.floats(0.0, 3.0))
def test_plain_sums(b: dict[str, torch.Tensor], strength: float) -> None:
    """REINFORCE, SFT and leashed rewards in loops."""
    rollouts = len(b["mask"])
    advantages, new, base = b["advantages"].tolist(), b["new"].tolist(), b["base"].tolist()
    weighted = math.fsum(-advantages[i] * new[i][t] for i, t in written(b))
    assert near(reinforce_loss(b["new"], b["advantages"], b["mask"]), tensor(weighted / rollouts))
    assert near(reinforce_loss(b["new"], b["advantages"], b["mask"], rollouts=7), tensor(weighted / 7))
    assert near(sft_loss(b["new"], b["mask"]), tensor(math.fsum(-new[i][t] for i, t in written(b)) / rollouts))
    shaped = list(advantages)  # any rewards do
    for i, t in written(b):
        gap = new[i][t] - base[i][t]
        shaped[i] -= strength * gap * (abs(gap) >= 1e-5)
    assert near(leashed_rewards(b["advantages"], b["new"], b["base"], b["mask"], strength), tensor(shaped))


@given(b=batches())
def test_what_was_not_written_does_not_matter(b: dict[str, torch.Tensor]) -> None:
    """Anything may stand behind the mask, very unlikely tokens too."""
    junk = torch.where(b["mask"], b["new"], -700.0)
    for a, c in [
        (
            cispo_loss(b["new"], b["old"], b["advantages"], b["mask"], 2.0)[0],
            cispo_loss(junk, b["old"], b["advantages"], b["mask"], 2.0)[0],
        ),
        (reinforce_loss(b["new"], b["advantages"], b["mask"]), reinforce_loss(junk, b["advantages"], b["mask"])),
        (sft_loss(b["new"], b["mask"]), sft_loss(junk, b["mask"])),
        (
            leashed_rewards(b["advantages"], b["new"], b["base"], b["mask"], 1.0),
            leashed_rewards(b["advantages"], junk, b["base"], b["mask"], 1.0),
        ),
    ]:
        assert near(a, c)


# --- divergences -----------------------------------------------------------------------------------------------------


def logit_pairs(seed: int, spread: float, shape: tuple[int, ...] = (2, 3, 6)) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    return tensor(spread * rng.normal(size=shape)), tensor(spread * rng.normal(size=shape))


@given(seed=st.integers(0, 10**6), spread=st.floats(0.1, 6.0))
def test_token_kl_and_its_direction(seed: int, spread: float) -> None:
    """KL(p || q), p first, against torch.distributions, F.kl_div with its swapped arguments, and a loop."""
    p, q = logit_pairs(seed, spread)
    value = token_kl(p, q)
    assert near(value, kl_divergence(Categorical(logits=p), Categorical(logits=q)))
    logp, logq = torch.log_softmax(p, -1), torch.log_softmax(q, -1)
    assert near(value, F.kl_div(logq, logp, reduction="none", log_target=True).sum(-1))
    for i, t in product(range(2), range(3)):
        a, b = logp[i, t].tolist(), logq[i, t].tolist()
        assert float(value[i, t]) == pytest.approx(math.fsum(math.exp(x) * (x - y) for x, y in zip(a, b, strict=True)))


def test_token_kl_is_not_its_mirror_image() -> None:
    """A point mass against a coin: log 2 one way, far more the other."""
    point, coin = tensor([[[30.0, 0.0]]]), tensor([[[0.0, 0.0]]])
    assert float(token_kl(point, coin)) == pytest.approx(math.log(2.0))
    assert float(token_kl(coin, point)) == pytest.approx(15.0 - math.log(2.0))


@given(seed=st.integers(0, 10**6), spread=st.floats(0.1, 6.0))
def test_token_entropy(seed: int, spread: float) -> None:
    p, _ = logit_pairs(seed, spread)
    assert near(token_entropy(p), Categorical(logits=p).entropy())
    assert near(token_entropy(p) + token_kl(p, torch.zeros_like(p)), torch.full((2, 3), math.log(6.0), dtype=p.dtype))


@given(seed=st.integers(0, 10**6))
def test_leash_loss_is_a_mean_over_sequences(seed: int) -> None:
    p, q = logit_pairs(seed, 1.0)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    kl = token_kl(p, q)
    assert near(leash_loss(token_kl(p, q), mask), (kl[0, 0] + kl[0, 1] + kl[1, 0]) / 2)


# --- estimators, by enumeration --------------------------------------------------------------------------------------
#
# A policy over sequences of two tokens: ``first (V,)`` logits of the first, ``second (V, V)`` of the second given it.
# Token 0 ends a sequence, so that lengths differ.

V = 4
SEQUENCES = [(0,), *((a, b) for a in range(1, V) for b in range(V))]
REWARDS = tensor([0.3, *np.linspace(-1.0, 1.0, len(SEQUENCES) - 1) ** 3])


def parameters(seed: int) -> torch.Tensor:
    """First row: logits of the first token; row 1 + a: those of the second after a."""
    return tensor(1.5 * np.random.default_rng(seed).normal(size=(1 + V, V)))


def sequence_logits(theta: torch.Tensor) -> torch.Tensor:
    """Logits along every sequence, ``(sequences, 2, V)``."""
    return torch.stack([torch.stack([theta[0], theta[1 + s[0]]]) for s in SEQUENCES])


MASK = torch.tensor([[True, len(s) == 2] for s in SEQUENCES])
TOKENS = torch.tensor([[*s, 0][:2] for s in SEQUENCES])


def token_logp(theta: torch.Tensor) -> torch.Tensor:
    logp = torch.log_softmax(sequence_logits(theta), -1).gather(-1, TOKENS[..., None])[..., 0]
    return torch.where(MASK, logp, 0.0)


def gradient(value: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(value, theta, retain_graph=True)[0]


def exact_kl(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
    """KL of the laws of whole sequences."""
    a, b = token_logp(one).sum(-1), token_logp(two).sum(-1)
    return (a.exp() * (a - b)).sum()


def expected_reinforce(theta: torch.Tensor, rewards: torch.Tensor) -> torch.Tensor:
    """Expectation of the gradient of `reinforce_loss` over one rollout drawn from the policy; rewards are numbers."""
    logp = token_logp(theta)
    probability = logp.sum(-1).exp().detach()
    total = torch.zeros_like(theta)
    for i, weight in enumerate(probability):
        total += weight * gradient(reinforce_loss(logp[[i]], rewards[[i]].detach(), MASK[[i]]), theta)
    return total


EACH_SEED = pytest.mark.parametrize("seed", range(3))


@EACH_SEED
def test_the_enumerated_policy_is_a_probability(seed: int) -> None:
    assert float(token_logp(parameters(seed)).sum(-1).exp().sum()) == pytest.approx(1.0)


@EACH_SEED
def test_reinforce_is_unbiased(seed: int) -> None:
    """Minus its expected gradient is that of the expected reward."""
    theta = parameters(seed).requires_grad_()
    exact = gradient((token_logp(theta).sum(-1).exp() * REWARDS).sum(), theta)
    assert float(exact.abs().max()) > 1e-3
    assert near(-expected_reinforce(theta, REWARDS), exact)


@EACH_SEED
def test_leashed_reinforce_is_unbiased(seed: int) -> None:
    """With k1 in the reward, minus the expected gradient is that of E[r] - tau KL(pi || pi_0), sequences and all."""
    theta, base, tau = parameters(seed).requires_grad_(), parameters(seed + 100), 0.7
    shaped = leashed_rewards(REWARDS, token_logp(theta), token_logp(base), MASK, tau)
    exact = gradient((token_logp(theta).sum(-1).exp() * REWARDS).sum() - tau * exact_kl(theta, base), theta)
    assert near(-expected_reinforce(theta, shaped), exact)
    assert float((exact - gradient((token_logp(theta).sum(-1).exp() * REWARDS).sum(), theta)).abs().max()) > 1e-3


@EACH_SEED
@pytest.mark.parametrize("kind", ["centred", "leave-one-out"])
def test_group_baselines_in_expectation(seed: int, kind: Advantage) -> None:
    """Three rollouts a group: leave-one-out is unbiased, centring shrinks the gradient to (G - 1) / G."""
    size, logits = 3, tensor(np.random.default_rng(seed).normal(size=V)).requires_grad_()
    logp = torch.log_softmax(logits, -1)
    rewards = tensor([0.0, 1.0, 1.0, 0.4])
    exact = gradient((logp.exp() * rewards).sum(), logits)
    total = torch.zeros(V, dtype=torch.float64)
    for drawn in product(range(V), repeat=size):
        rows = torch.tensor(drawn)
        advantages, _ = group_advantages(rewards[rows], torch.zeros(size, dtype=torch.long), kind)
        loss = reinforce_loss(logp[rows][:, None], advantages, torch.ones(size, 1, dtype=torch.bool))
        total += logp[rows].sum().exp().detach() * gradient(loss, logits)
    assert near(-total, exact * (1.0 if kind == "leave-one-out" else (size - 1) / size))


@EACH_SEED
def test_leash_loss_is_the_kl_of_sequences(seed: int) -> None:
    """Its expectation over sequences of the policy is KL(pi || pi_0) exactly: the chain rule, Rao-Blackwellised."""
    theta, base = parameters(seed), parameters(seed + 100)
    probability = token_logp(theta).sum(-1).exp()
    logits, base_logits = sequence_logits(theta), sequence_logits(base)
    values = torch.stack(
        [leash_loss(token_kl(logits[[i]], base_logits[[i]]), MASK[[i]]) for i in range(len(SEQUENCES))]
    )
    assert near((probability * values).sum(), exact_kl(theta, base))


@EACH_SEED
def test_leash_loss_gradient_leaves_out_only_the_visited_prefixes(seed: int) -> None:
    """Of the second token's logits the gradient is exact; of the first's it lacks the term of where the path leads."""
    theta, base = parameters(seed).requires_grad_(), parameters(seed + 100)
    probability = token_logp(theta).sum(-1).exp().detach()
    logits, base_logits = sequence_logits(theta), sequence_logits(base)
    loss = sum(p * leash_loss(token_kl(logits[[i]], base_logits[[i]]), MASK[[i]]) for i, p in enumerate(probability))
    found, exact = gradient(loss, theta), gradient(exact_kl(theta, base), theta)
    assert near(found[1:], exact[1:])
    first = torch.log_softmax(theta[0], -1)
    assert near(found[0], gradient(token_kl(theta[0], base[0]), theta)[0])
    later = token_kl(theta[1:], base[1:]).detach()
    later[0] = 0.0  # nothing follows token 0
    assert near(found[0] + gradient((first.exp() * later).sum(), theta)[0], exact[0])


@EACH_SEED
def test_the_prefix_term_completes_the_leash(seed: int) -> None:
    """With it the expected gradient is that of the KL of whole sequences, of every logit."""
    theta, base = parameters(seed).requires_grad_(), parameters(seed + 100)
    logp = token_logp(theta)
    probability = logp.sum(-1).exp().detach()
    logits, base_logits = sequence_logits(theta), sequence_logits(base)
    loss = sum(
        p
        * (
            leash_loss(token_kl(logits[[i]], base_logits[[i]]), MASK[[i]])
            + prefix_loss(token_kl(logits[[i]], base_logits[[i]]), logp[[i]], MASK[[i]])
        )
        for i, p in enumerate(probability)
    )
    exact = gradient(exact_kl(theta, base), theta)
    assert near(gradient(loss, theta), exact)
    without = sum(p * leash_loss(token_kl(logits[[i]], base_logits[[i]]), MASK[[i]]) for i, p in enumerate(probability))
    assert not near(gradient(without, theta), exact)


@EACH_SEED
def test_what_the_estimators_of_kl_differentiate_to(seed: int) -> None:
    """As losses, k1 has no gradient in expectation, k2 that of KL(pi || pi_0), k3 that of KL(pi_0 || pi).

    Why the leash here is k1 in the reward or the exact sum over the vocabulary, and never k1 as a loss.
    """
    theta, base = parameters(seed).requires_grad_(), parameters(seed + 100)
    logp = token_logp(theta).sum(-1)
    ratio = token_logp(base).sum(-1) - logp
    probability = logp.exp().detach()
    k1, k2, k3 = -ratio, ratio**2 / 2, ratio.exp() - 1 - ratio
    forward = exact_kl(theta, base)
    assert near((probability * k1).sum().detach(), forward.detach())
    assert near((probability * k3).sum().detach(), forward.detach())
    assert near(gradient((probability * k1).sum(), theta), torch.zeros_like(theta))
    assert near(gradient((probability * k2).sum(), theta), gradient(forward, theta))
    assert near(gradient((probability * k3).sum(), theta), gradient(exact_kl(base, theta), theta))


@EACH_SEED
@pytest.mark.parametrize("ratio", [False, True])
@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_estimated_leashes_in_expectation(seed: int, estimator: KLEstimator, ratio: bool) -> None:
    """Every sequence in turn, against autograd of exact divergences of next tokens along sequences that are held."""
    theta, base = parameters(seed).requires_grad_(), parameters(seed + 100)
    logp, base_logp = token_logp(theta), token_logp(base)
    held = logp.detach()
    probability = held.sum(-1).exp()
    logits, base_logits = sequence_logits(theta), sequence_logits(base)

    def along(value: torch.Tensor) -> torch.Tensor:
        return (probability * (value * MASK).sum(-1)).sum()

    reverse = along(token_kl(logits, base_logits))
    own, other = torch.log_softmax(logits, -1), torch.log_softmax(base_logits, -1)
    wanted = {
        ("k1", False): 0.0 * reverse,
        ("k2", False): reverse,
        ("k3", False): along(token_kl(base_logits, logits)),
        ("k1", True): reverse,
        ("k2", True): along((own.exp() * 0.5 * (other - own) ** 2).sum(-1)),
        ("k3", True): reverse,
    }[estimator, ratio]
    loss = sum(
        p * estimated_leash_loss(logp[[i]], base_logp[[i]], MASK[[i]], estimator, held[[i]] if ratio else None)
        for i, p in enumerate(probability)
    )
    assert near(gradient(loss, theta), gradient(wanted, theta))
    if estimator != "k2":
        assert near(loss.detach(), reverse.detach())


def test_an_estimated_leash_is_one_of_three() -> None:
    rows = torch.zeros(1, 1), torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool)
    with pytest.raises(InputError, match="kl_estimator of sampled tokens must be k1, k2 or k3"):
        estimated_leash_loss(*rows, "exact")


@EACH_SEED
def test_cispo_off_policy_is_importance_weighted(seed: int) -> None:
    """One token, drawn from an old policy, no ratio at the cap: the expected gradient is that of the new policy's reward."""
    rng = np.random.default_rng(seed)
    logits, old = tensor(rng.normal(size=V)).requires_grad_(), torch.log_softmax(tensor(rng.normal(size=V)), -1)
    logp, rewards = torch.log_softmax(logits, -1), tensor(rng.normal(size=V))
    total, capped_total = torch.zeros(V, dtype=torch.float64), torch.zeros(V, dtype=torch.float64)
    ratios = (logp - old).exp().detach()
    cap = 1.0 + (float(ratios.max()) - 1.0) / 2
    for a in range(V):
        args = logp[None, [a]], old[None, [a]], rewards[[a]], torch.ones(1, 1, dtype=torch.bool)
        total += old[a].exp() * gradient(cispo_loss(*args, 1e6)[0], logits)
        capped_total += old[a].exp() * gradient(cispo_loss(*args, cap)[0], logits)
    assert near(-total, gradient((logp.exp() * rewards).sum(), logits))
    kept = (ratios.clamp(max=cap) / ratios).detach()
    assert near(-capped_total, gradient((logp.exp().detach() * kept * rewards * logp).sum(), logits))


SPOILT = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("filling", SPOILT)
def test_nothing_outside_the_mask_counts(filling: float) -> None:
    """Value and gradient are those of zeros there, whatever a model writes at places that are no answer."""
    mask = torch.tensor([[True, True, False], [True, False, False]])
    advantages = tensor([1.0, -0.5])
    new, old, base = (-torch.rand(2, 3, dtype=torch.float64) for _ in range(3))
    logits, fixed = torch.randn(2, 2, 3, 4, dtype=torch.float64)

    def spoil(x: torch.Tensor) -> torch.Tensor:
        return torch.where(mask.view(*mask.shape, *(1,) * (x.ndim - 2)), x, filling)

    table = (
        (new, lambda x, f: cispo_loss(x, f(old), advantages, mask, 2.0)[0]),
        (new, lambda x, _: reinforce_loss(x, advantages, mask)),
        (new, lambda x, _: sft_loss(x, mask)),
        (logits, lambda x, f: leash_loss(NextTokens.apart(x).kl(NextTokens.apart(f(fixed)), mask), mask)),
        (new, lambda x, _: leash_loss(x, mask)),
        (new, lambda x, f: prefix_loss(f(old), x, mask)),  # no gradient flows into its KL
        *(
            (new, lambda x, f, kind=kind, held=held: estimated_leash_loss(x, f(base), mask, kind, held and f(old)))
            for kind in ("k1", "k2", "k3")
            for held in (True, None)
        ),
        (logits, lambda x, f: distillation_loss(x, f(fixed), mask, "reverse")),
        (logits, lambda x, f: distillation_loss(x, f(fixed), mask, "forward")),
    )
    for values, loss in table:
        clean, spoilt = (x.clone().requires_grad_() for x in (values, spoil(values)))
        expected, found = loss(clean, lambda x: x), loss(spoilt, spoil)
        assert near(found, expected)
        wanted, slope = (torch.autograd.grad(value, x)[0] for value, x in ((expected, clean), (found, spoilt)))
        assert near(slope, wanted)
    assert float(cispo_loss(spoil(new), spoil(old), advantages, mask, 2.0)[1]) == float(
        cispo_loss(new, old, advantages, mask, 2.0)[1]
    )
    plain = leashed_rewards(advantages, new, base, mask, 0.3)
    assert near(leashed_rewards(advantages, spoil(new), spoil(base), mask, 0.3), plain)
    components, words = torch.log_softmax(torch.randn(2, 2, 3, 4, dtype=torch.float64), -1), torch.randint(4, (2, 3))
    shares = tensor([0.3, 0.7])
    mixed, spoilt = (
        mixture_logprobs(x, words, mask, shares) for x in (components, torch.stack([spoil(c) for c in components]))
    )
    assert near(mixed[mask], spoilt[mask])


def test_every_loss_with_a_mask_is_tried_outside_of_it() -> None:
    """A new one belongs into the test above."""
    tried = inspect.getsource(test_nothing_outside_the_mask_counts)
    for room in (losses, method_losses):
        for name, function in vars(room).items():
            if inspect.isfunction(function) and function.__module__ == room.__name__:
                assert "mask" not in inspect.signature(function).parameters or f"{name}(" in tried, name


def test_tokens_that_are_excluded() -> None:
    """Logits of -inf, as constrained decoding writes them."""
    p, q = tensor([0.0, 0.0, -math.inf]).requires_grad_(), tensor([0.0, math.log(3.0), -math.inf])
    assert float(token_kl(p.detach(), q)) == pytest.approx(0.5 * math.log(4.0 / 3.0))  # (1/2, 1/2) and (1/4, 3/4)
    assert float(token_kl(tensor([0.0, -math.inf]), tensor([0.0, 0.0]))) == pytest.approx(math.log(2.0))
    assert float(token_kl(tensor([0.0, 0.0]), tensor([0.0, -math.inf]))) == math.inf
    assert float(token_entropy(p.detach())) == pytest.approx(math.log(2.0))
    (slope,) = torch.autograd.grad(token_kl(p, q) + token_entropy(p), p)
    assert bool(torch.isfinite(slope).all())
    assert float(slope[2]) == 0.0
