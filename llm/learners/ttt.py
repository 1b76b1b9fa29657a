r"""TTT-Discover: policy gradient of the entropic utility \(\log E_\pi e^{br} - \lambda\,KL(\pi\|\pi_0)\) (2601.16175; theory 9).

Every step samples groups of rollouts and weighs each rollout by \(e^{br}/Z - 1\). b is chosen for every group so that the KL of
the tilted weights to uniform meets an entropy budget (ln 2 in the paper), or fixed, which is what theory 9 predicts: then the optimum
is \(\pi_0 e^{e^{br}/(\lambda Z)}\), self-limiting in the reward gap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, get_args

import numpy as np
import torch

from fstsim.errors import InputError
from fstsim.fast_slow import StepInfo
from fstsim.llm.learners.groups import ScoredGroups, sample_groups
from fstsim.llm.learners.learner import Learner
from fstsim.llm.learners.losses import leash_loss, reinforce_loss
from fstsim.llm.learners.method_losses import (
    Normaliser,
    entropic_advantages,
    entropic_temperatures,
    others_mean_removed,
)
from fstsim.llm.learners.weights import Diverged, Weights, chunks
from fstsim.llm.policy.divergence import inside
from fstsim.llm.policy.rollouts import check_batch, check_sizes
from fstsim.llm.types import Population, Task
from fstsim.settings import check_types


@dataclass(frozen=True)
class TTTDiscover(Learner):
    """Slow learner: entropic policy gradient, one update a batch, with an inverse temperature for every group."""

    about: ClassVar[str] = "entropic policy gradient on verified rewards"

    problems: int = 48
    """problems a step"""
    rollouts: int = 8
    """completions of a problem: one group"""
    inverse_temperature: float | None = None
    """b, the same for every group; left out, each group has the b that meets the entropy budget"""
    entropy_budget: float = math.log(2.0)
    """KL of a group's tilted weights to uniform that sets b, nats, below log(rollouts)"""
    normaliser: Normaliser = "leave-one-out"
    """Z of a rollout's weight: mean over the others of its group, or over the group"""
    leash_reward: float = 0.0
    """lambda, with the KL to the base in the advantages (k1): its gradient is that of the sequences' KL"""
    leash_loss: float = 0.0
    """lambda, with the exact KL of next tokens along the samples as a loss"""
    max_new_tokens: int = 8
    """longest completion"""

    def __post_init__(self) -> None:
        check_types(self)
        check_sizes(self.problems, self.max_new_tokens)
        if self.rollouts < 2:
            raise InputError(f"rollouts must be at least 2 (a group needs a baseline), got {self.rollouts}")
        check_batch(self.problems, self.rollouts)
        if self.inverse_temperature is not None and not 0.0 < self.inverse_temperature < math.inf:
            raise InputError(f"inverse_temperature must be positive and finite, got {self.inverse_temperature}")
        if self.inverse_temperature is None and not 0.0 < self.entropy_budget < math.log(self.rollouts):
            raise InputError(
                f"entropy_budget must be positive and below log(rollouts) = {math.log(self.rollouts):.3g}, got {self.entropy_budget}"
            )
        if self.normaliser not in get_args(Normaliser):
            raise InputError(f"normaliser must be leave-one-out or group, got {self.normaliser!r}")
        if not (0.0 <= self.leash_reward < math.inf and 0.0 <= self.leash_loss < math.inf):
            raise InputError(
                f"leash_reward and leash_loss must be nonnegative and finite, got {self.leash_reward} and {self.leash_loss}"
            )

    def step(
        self, weights: Weights, context: Population, task: Task, rng: np.random.Generator
    ) -> tuple[Weights, StepInfo]:
        """Sample, score, update in place."""
        groups = sample_groups(
            weights.policy,
            context,
            task,
            rng,
            problems=self.problems,
            rollouts=self.rollouts,
            max_new_tokens=self.max_new_tokens,
        )
        return weights, StepInfo(len(groups.rollouts), self.learn(weights, groups))

    def inverse_temperatures(self, rewards: torch.Tensor) -> torch.Tensor:
        """Inverse temperature of every group, ``(P, G)`` to ``(P,)``."""
        if self.inverse_temperature is None:
            return entropic_temperatures(rewards, self.entropy_budget)
        return torch.full_like(rewards[:, 0], self.inverse_temperature, dtype=torch.float64)

    def learn(self, weights: Weights, groups: ScoredGroups) -> dict[str, float]:
        """The update of one batch; returns what is worth a row."""
        rollouts, rewards, what = groups.rollouts, groups.rewards, groups.what
        b = self.inverse_temperatures(rewards)
        advantages = entropic_advantages(rewards, b, self.normaliser)
        dead = rewards.amax(-1) == rewards.amin(-1)
        mixed = b[~dead]
        metrics = {
            "train_reward": float(rewards.mean()),
            "dead_share": float(dead.float().mean()),
            "length": float(rollouts.mask.sum()) / len(rollouts),
            "inverse_temperature": float(mixed[mixed < math.inf].mean()),  # of groups with signal and a finite one
            "greedy_share": float((mixed == math.inf).float().mean()),  # of groups with signal: best rollouts only
        }
        if self.leash_reward > 0.0:
            with torch.no_grad():
                base = weights.base.logprobs(rollouts)
            ratio = inside(rollouts.logprobs - base, rollouts.mask).sum(-1).view_as(rewards)
            metrics["train_kl"] = float(ratio.mean())
            advantages = advantages - self.leash_reward * others_mean_removed(ratio.double())
        weight = advantages.flatten().to(rollouts.logprobs)
        live = torch.arange(len(rollouts), device=rewards.device)
        if self.leash_reward == self.leash_loss == 0.0:
            live = live[~dead.repeat_interleave(self.rollouts)]
        value, entropy, seen = 0.0, 0.0, 0.0
        for rows in chunks(rollouts, live, weights.policy.vocabulary):
            part = rollouts.take(rows)
            own = weights.policy.next_tokens(part)
            loss = reinforce_loss(own.logprobs(part), weight[rows], part.mask, len(rollouts))
            if self.leash_loss > 0.0:
                with torch.no_grad():
                    fixed = weights.base.next_tokens(part)
                loss = loss + self.leash_loss * leash_loss(own.kl(fixed, part.mask), part.mask) * len(rows) / len(
                    rollouts
                )
            if not torch.isfinite(loss):
                weights.optimizer.zero_grad(set_to_none=True)
                raise Diverged(f"loss is {float(loss.detach())} on {what}")
            loss.backward()
            value += float(loss.detach())
            with torch.no_grad():
                entropy += float(inside(own.entropy(), part.mask).sum())
            seen += float(part.mask.sum())
        metrics["grad_norm"] = weights.apply(what)
        metrics["loss"] = value
        metrics["train_entropy"] = entropy / seen if seen else math.nan
        return metrics
