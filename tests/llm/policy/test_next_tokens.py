"""Next-token distributions, each distinct one once: against a row a token, by plain torch and autograd."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from fstsim.llm.policy.next_tokens import NextTokens
from fstsim.llm.policy.rollouts import Rollouts
from tests.tiny_models import MakePolicy

WHICH = torch.tensor([[0, 2, 1], [0, 2, 0], [0, 3, 0]])
MASK = torch.tensor([[True, True, True], [True, True, False], [True, True, False]])
TOKENS = torch.tensor([[4, 1, 0], [4, 1, 0], [3, 2, 0]])


def shared(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3.0 * torch.randn(4, 6, dtype=torch.float64, generator=generator)


def written() -> Rollouts:
    none = torch.zeros(MASK.shape, dtype=torch.float64)
    one = torch.ones(1, 1, dtype=torch.long)
    return Rollouts(one, one.bool(), torch.zeros(3, dtype=torch.long), TOKENS, MASK, none)


def test_values_are_those_of_a_row_a_token() -> None:
    """Log-probabilities, entropies and divergences by torch.distributions."""
    p, q = NextTokens(shared(0), WHICH), NextTokens(shared(1), WHICH)
    own, other = Categorical(logits=p.logits[WHICH]), Categorical(logits=q.logits[WHICH])
    zero = torch.zeros((), dtype=torch.float64)
    torch.testing.assert_close(p.whole(), p.logits[WHICH], rtol=0, atol=0)
    torch.testing.assert_close(p.logprobs(written()), torch.where(MASK, own.log_prob(TOKENS), zero))
    torch.testing.assert_close(p.entropy(), own.entropy())
    expected = torch.where(MASK, kl_divergence(own, other), zero)
    torch.testing.assert_close(p.kl(q, MASK), expected)
    # of another model, whose prefixes are shared in another way
    torch.testing.assert_close(p.kl(NextTokens.apart(q.whole()), MASK), expected)
    torch.testing.assert_close(NextTokens.apart(p.whole()).kl(NextTokens.apart(q.whole()), MASK), expected)


def test_gradients_are_those_of_autograd() -> None:
    """The one gradient that is written by hand, by finite differences and against plain operations; -inf excludes a token."""
    flow = torch.randn(MASK.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for excluded in (False, True):
        logits = shared(0)
        if excluded:
            logits[:, 5] = -math.inf
        ours, plain = logits.clone().requires_grad_(), logits.clone().requires_grad_()
        (flow * NextTokens(ours, WHICH).logprobs(written())).sum().backward()
        picked = torch.log_softmax(plain[WHICH], -1).gather(-1, TOKENS[..., None])[..., 0]
        (flow * MASK * picked).sum().backward()
        torch.testing.assert_close(ours.grad, plain.grad)
    assert torch.autograd.gradcheck(
        lambda x: NextTokens(x, WHICH).logprobs(written()), shared(3).requires_grad_(), atol=1e-6
    )


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_a_policy_shares_what_rollouts_share(make_policy: MakePolicy, temperature: float) -> None:
    """Each distinct prefix has one row, and the numbers are those of a policy that shares nothing."""
    policy = make_policy(seed=0)
    generator = torch.Generator().manual_seed(0)
    r = policy.sample([[5, 6], [7, 8, 9]], 12, generator, max_new_tokens=4, temperature=temperature)
    rows = replace(policy, share_prompts=False)
    found, alone = policy.next_tokens(r), rows.next_tokens(r)
    starts = [tuple(r.prompts[o][r.prompt_mask[o]].tolist()) for o in r.prompt_of]
    prefixes = {
        (start, *row[:t].tolist())
        for start, row, kept in zip(starts, r.completions, r.mask, strict=True)
        for t in range(int(kept.sum()))
    }
    assert len(found.logits) == len(prefixes) < len(alone.logits) == r.mask.numel()
    torch.testing.assert_close(found.whole()[r.mask], alone.whole()[r.mask], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.logprobs(r), alone.logprobs(r), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.kl(alone, r.mask), torch.zeros(r.mask.shape), rtol=0, atol=1e-6)
