"""Replay of the policy's own answers (On-Policy Replay, 2605.29495): what stands in a batch in place of declared old answers.

Against the paper, deliberately: (1) an own answer is right where its text is the old answer that the task declares: no other
verifier of old behaviour is asked of a task; (2) it is sampled from the weights as they are, not from those of an earlier
stage; (3) a prompt that gets no right answer in its tries is left out of the batch: nothing is shown in its place. What
that does to the share at which the old mass rests: statement `replay-forward-own`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fstsim.llm.learners.weights import Diverged, generator_from
from fstsim.llm.policy.policy import Policy

Tokens = list[int]


def own_answers(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    old_answers: Sequence[str],
    tries: int,
    rng: np.random.Generator,
) -> list[Tokens | None]:
    """For each prompt the first of ``tries`` sampled completions that says the old answer, in its own tokens; None if none does.

    Nothing longer than the longest old answer is sampled: it would be none of them. Raises `weights.Diverged`.
    """
    if not prompts:
        return []
    declared = policy.encode_answers(old_answers)
    longest = max(map(len, declared))
    rollouts = policy.sample(prompts, tries, generator_from(rng, policy), max_new_tokens=longest)
    if not torch.isfinite(rollouts.logprobs).all():
        raise Diverged(f"log-probabilities of the policy are not finite on the old answers {old_answers[0]}...")
    written = [row[m].tolist() for row, m in zip(rollouts.completions.cpu(), rollouts.mask.cpu(), strict=True)]
    texts, wanted = (policy.read(tokens) for tokens in (written, declared))  # answers as the policy writes them
    chosen: list[Tokens | None] = []
    for k, text in enumerate(wanted):
        right = (
            i
            for i in range(k * tries, (k + 1) * tries)
            if written[i][-1] in policy.end_tokens and texts[i].strip() == text.strip()
        )
        first = next(right, None)
        chosen.append(None if first is None else written[first])
    return chosen
