"""Groups of rollouts with their rewards, as matrices: what TTT-Discover and OAPL learn from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from fstsim.llm.learners.weights import Diverged, generator_from, sample_problems, share_out
from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.rollouts import Rollouts
from fstsim.llm.types import Population, Task


@dataclass(frozen=True)
class ScoredGroups:
    """``rollouts`` of P problems, G of each in a row, ``rewards (P, G)``, and ``what`` they are, for messages."""

    rollouts: Rollouts
    rewards: torch.Tensor
    what: str


def sample_groups(
    policy: Policy,
    context: Population,
    task: Task,
    rng: np.random.Generator,
    *,
    problems: int,
    rollouts: int,
    max_new_tokens: int,
) -> ScoredGroups:
    """Sample problems and a group of each (shared out over the contexts), score. Raises `weights.Diverged` on nan."""
    drawn = sample_problems(task.problems("train"), problems, rng)
    shares = share_out(rollouts, len(context.prompts), rng)
    used = [(prompt, share) for prompt, share in zip(context.prompts, shares, strict=True) if share]
    sampled = policy.sample(
        policy.encode_all([(prompt, problem) for problem in drawn for prompt, _ in used]),
        [share for _ in drawn for _, share in used],
        generator_from(rng, policy),
        max_new_tokens=max_new_tokens,
    )
    what = f"{task.name}, problems {drawn[0].text}..."
    if not torch.isfinite(sampled.logprobs).all():
        raise Diverged(f"log-probabilities of the policy are not finite on {what}")
    # a verifier has no memory: equal completions of a problem are scored once
    keys = [(i // rollouts, text) for i, text in enumerate(policy.decode(sampled))]
    reward_of = {key: task.score(drawn[key[0]], key[1]).reward for key in dict.fromkeys(keys)}
    rewards = [reward_of[key] for key in keys]
    return ScoredGroups(sampled, torch.tensor(rewards, device=policy.device).view(problems, rollouts), what)
