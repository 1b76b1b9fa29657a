"""A frozen model that reads a context of each problem's own, or a mixture of several: what cases and skills put before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch.nn.functional import pad

from fstsim.llm.policy.blocks import block_size
from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.rollouts import Rollouts, token_logprobs
from fstsim.llm.systems.system import Asked, bare_prompts, mixed_logits


@dataclass(frozen=True)
class Mixed:
    """What each of B problems is asked in: ``contexts[b]`` with masses ``masses[b]`` that sum to 1, none of them 0."""

    contexts: Sequence[Sequence[str]]
    masses: Sequence[Sequence[float]]

    @property
    def most(self) -> int:
        """Contexts of the problem that has the most."""
        return max(map(len, self.contexts))


def joined(policy: Policy, context: str, more: str) -> str:
    """The context with ``more`` after it: one list of rule words in the world, another line of text for other models."""
    return (f"{context} {more}" if policy.template == "world" else f"{context}\n{more}").strip()


def mixture_logits(policy: Policy, asked: Sequence[Asked], mixed: Mixed, rollouts: Rollouts) -> torch.Tensor:
    r"""Logits ``(B, T, V)`` of \(\sum_c \mu_c(x)\, p_0(\cdot \mid c, x)\), exactly (`fstsim.llm.systems.system.mixed_logits`).

    ``asked`` has the problems; the contexts are those of ``mixed``. Parts without mass are not computed. With one context a
    problem they are the policy's own logits, to the bit.
    """
    owner = [b for b, contexts in enumerate(mixed.contexts) for _ in contexts]
    place = [c for contexts in mixed.contexts for c in range(len(contexts))]
    rows = torch.tensor(owner, device=policy.device)
    prompts = policy.encode_all([(c, p) for (_, p), each in zip(asked, mixed.contexts, strict=True) for c in each])
    shown = replace(
        rollouts,
        completions=rollouts.completions[rows],
        mask=rollouts.mask[rows],
        logprobs=rollouts.logprobs[rows],
        prompt_of=torch.arange(len(owner), device=policy.device),
    )
    shown = policy.with_prompts(shown, prompts)
    every = torch.arange(len(owner), device=policy.device)
    size = block_size(policy, rollouts.completions.shape[1])
    if len(owner) <= size:
        logits = policy.logits(shown)
    else:  # a block is as wide as its own longest completion, whatever stands beyond it is masked
        blocks = [policy.logits(shown.take(k)) for k in every.split(size)]
        width = rollouts.completions.shape[1]
        logits = torch.cat([pad(block, (0, 0, 0, width - block.shape[1])) for block in blocks])
    if mixed.most == 1:
        return logits
    parts = logits.new_zeros(len(asked), mixed.most, *logits.shape[1:])
    weights = torch.full((len(asked), mixed.most), -torch.inf, dtype=torch.float64, device=policy.device)
    held = [mass for masses in mixed.masses for mass in masses]
    parts[rows, place] = logits
    weights[rows, place] = torch.tensor(held, dtype=torch.float64, device=policy.device).log()
    return mixed_logits(parts.unbind(1), weights, rollouts)


def sample_mixture(
    policy: Policy, asked: Sequence[Asked], mixed: Mixed, generator: torch.Generator, max_new_tokens: int
) -> Rollouts:
    """One completion of each of ``asked``, as rollouts of ``policy``: a context is drawn by its mass, then its completion.

    The log-probabilities are the mixture's. At temperature 1 only: a mixture of tempered distributions is not the
    tempered mixture.
    """
    dice = torch.rand(len(asked), generator=generator, device=policy.device, dtype=torch.float64).tolist()
    drawn = []
    for u, contexts, masses in zip(dice, mixed.contexts, mixed.masses, strict=True):
        sums = torch.tensor(masses, dtype=torch.float64).cumsum(0)
        drawn.append(contexts[min(int((sums <= u * float(sums[-1])).sum()), len(contexts) - 1)])
    prompts = policy.encode_all([(context, p) for context, (_, p) in zip(drawn, asked, strict=True)])
    wrote = policy.sample(prompts, 1, generator, max_new_tokens=max_new_tokens)
    wrote = policy.with_prompts(wrote, bare_prompts(policy, asked))
    return replace(wrote, logprobs=token_logprobs(mixture_logits(policy, asked, mixed, wrote), wrote))
