r"""A leash to the base for fine-tuning on demonstrations, in either direction, with the gradient of the KL of whole sequences.

Along samples of its first argument a KL of sequences is the sum over tokens of exact KL of next-token distributions (chain
rule). ``forward`` KL(base || policy) samples the base, whose samples the policy's weights do not move: its gradient is
that of the sum. ``reverse`` KL(policy || base) samples the policy, and has the gradient through the prefixes beside it
(`losses.prefix_loss`). So both rest where `replay-forward-leash` and `replay-forward-reverse-leash` say; along the
demonstrations neither would, because what is forgotten does not stand there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fstsim.llm.learners.losses import leash_loss, prefix_loss
from fstsim.llm.learners.method_losses import Direction
from fstsim.llm.learners.weights import Diverged, Weights, chunks, generator_from


def pull(
    weights: Weights,
    prompts: Sequence[Sequence[int]],
    leash: tuple[float, Direction],
    longest: int,
    rng: np.random.Generator,
) -> float:
    """Add the gradient of the leash (strength, direction) on one sample a prompt to that of the policy; returns its KL, nats a sequence.

    Samples have at most ``longest`` tokens: the KL is that of the sequences up to there. Raises `weights.Diverged`.
    """
    policy, base = weights.policy, weights.base
    strength, direction = leash
    first = policy if direction == "reverse" else base
    rollouts = first.sample(prompts, 1, generator_from(rng, first), max_new_tokens=longest)
    value = 0.0
    for rows in chunks(rollouts, torch.arange(len(rollouts), device=policy.device), 2 * policy.vocabulary):
        part = rollouts if len(rows) == len(rollouts) else rollouts.take(rows)
        share = len(part) / len(rollouts)
        own = policy.next_tokens(part)
        with torch.no_grad():
            fixed = base.next_tokens(part)
        if direction == "reverse":
            each = own.kl(fixed, part.mask)
            kl = leash_loss(each, part.mask)
            loss = kl + prefix_loss(each, own.logprobs(part), part.mask)
        else:
            kl = loss = leash_loss(fixed.kl(own, part.mask), part.mask)
        if not torch.isfinite(loss):
            weights.optimizer.zero_grad(set_to_none=True)
            raise Diverged(f"the leash to the base is {float(kl.detach())} nats a sequence")
        (strength * share * loss).backward()
        value += float(kl.detach()) * share
    return value
