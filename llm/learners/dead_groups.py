r"""Groups in which nothing succeeds, asked again in contexts, and learned without them (P2O).

A group without context whose rollouts are all wrong has no signal. It is sampled again in the contexts of the population; both
together are the group, so that contexts in which all is right give signal too, and what is learned is the policy *without* context: \(\sum A_i \nabla \log \pi(y_i | x)\) on \(y_i \sim \pi(\cdot | c, x)\), context distillation
weighted by advantages. Log-probabilities that ratios are taken to are those without context too, so that a ratio is 1 before the
first update: \(\pi(y|x) / \pi(y|c, x)\) would weigh down what the policy cannot yet do, which is all that is to be learned here.
Groups with signal are learned as ever. Source: 2603.21877.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch

from fstsim.fast_slow import StepInfo
from fstsim.llm.contexts.reuse import join
from fstsim.llm.learners.weights import Weights, sample_problems
from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.rollouts import Rollouts
from fstsim.llm.types import Population, Problem, Task

BARE = ""
"""The context in which groups are asked first, and which is learned."""


class GroupLearner(Protocol):
    """Of `fstsim.llm.learners.policy_gradient.PolicyGradient` what is used here."""

    @property
    def problems(self) -> int:
        """Problems a step."""
        ...

    def roll_out(
        self, policy: Policy, context: Population, problems: Sequence[Problem], rng: np.random.Generator
    ) -> tuple[Rollouts, torch.Tensor]:
        """Completions of all problems, and the group (problem) of each."""
        ...

    def learn(
        self, weights: Weights, rollouts: Rollouts, rewards: torch.Tensor, groups: torch.Tensor, what: str
    ) -> dict[str, float]:
        """The updates of one batch."""
        ...


def step_without_context(
    learner: GroupLearner, weights: Weights, context: Population, task: Task, rng: np.random.Generator
) -> StepInfo:
    """One step: every problem without context, the unsolved ones again in contexts, all of it learned without."""
    problems = sample_problems(task.problems("train"), learner.problems, rng)
    policy = weights.policy
    rollouts, groups = learner.roll_out(policy, Population((BARE,)), problems, rng)
    rewards = rewards_of(policy, task, problems, rollouts, groups)
    unsolved = unsolved_groups(rewards, groups)
    note(weights, problems, [problems[g] for g in unsolved])
    said = {"train_reward": float(rewards.mean()), "unsolved_share": len(unsolved) / len(problems)}
    if unsolved and context.prompts != (BARE,):
        hard = [problems[g] for g in unsolved]
        again, of = learner.roll_out(policy, context, hard, rng)
        earned = rewards_of(policy, task, hard, again, of)
        said["rescued_share"] = 1.0 - len(unsolved_groups(earned, of)) / len(hard)
        rollouts = join([rollouts, without_context(policy, again, hard, of)])
        groups = torch.cat((groups, torch.tensor(unsolved, device=groups.device)[of]))
        rewards = torch.cat((rewards, earned))
    metrics = learner.learn(weights, rollouts, rewards, groups, f"{task.name}, problems {problems[0].text}...")
    return StepInfo(len(rollouts), {**metrics, **said})


def rewards_of(
    policy: Policy, task: Task, problems: Sequence[Problem], rollouts: Rollouts, groups: torch.Tensor
) -> torch.Tensor:
    """Reward ``(B,)`` of each completion of ``problems[groups[i]]``; a distinct one is decoded and scored once: a verifier has no memory."""
    lengths = rollouts.mask.sum(1).tolist()
    rows = [tuple(row[:n]) for row, n in zip(rollouts.completions.tolist(), lengths, strict=True)]
    keys = list(zip(groups.tolist(), rows, strict=True))
    distinct = list(dict.fromkeys(keys))
    texts = policy.read([row for _, row in distinct])
    reward_of = {key: task.score(problems[key[0]], text).reward for key, text in zip(distinct, texts, strict=True)}
    return torch.tensor([reward_of[key] for key in keys], device=policy.device)


def unsolved_groups(rewards: torch.Tensor, groups: torch.Tensor) -> list[int]:
    """Numbers of the groups in which every reward is 0."""
    count = int(groups.max()) + 1
    best = torch.zeros(count, dtype=rewards.dtype, device=rewards.device).scatter_reduce(0, groups, rewards, "amax")
    return torch.nonzero(best == 0.0)[:, 0].tolist()


def note(weights: Weights, tried: Sequence[Problem], unsolved: Sequence[Problem]) -> None:
    """Keep, for the next fast round, which problems have no solution yet; in the order in which they were met, each once."""
    solved = {p.uid for p in tried} - {p.uid for p in unsolved}
    kept = dict.fromkeys(uid for uid in weights.unsolved if uid not in solved)
    weights.unsolved[:] = [*dict.fromkeys([*kept, *(p.uid for p in unsolved)])]


def without_context(policy: Policy, rollouts: Rollouts, problems: Sequence[Problem], groups: torch.Tensor) -> Rollouts:
    """The same completions after their problems alone, with the policy's log-probabilities there."""
    owner = torch.zeros(len(rollouts.prompts), dtype=torch.long, device=groups.device)
    owner[rollouts.prompt_of] = groups
    bare = policy.with_prompts(rollouts, policy.encode_all([(BARE, problems[g]) for g in owner.tolist()]))
    with torch.no_grad():
        return replace(bare, logprobs=policy.logprobs(bare))
