r"""OAPL: squared regression of \(\tau \log(\pi/\pi_{lag})\) on \(r - V^*\), on rollouts of a lagged policy (2602.19362; theory 10).

The sampler is the policy of up to ``period`` steps ago. \(V^* = \tau \log E_{lag} e^{r/\tau}\) is estimated on the group of each
problem, log-probabilities are those of whole sequences, and the loss is zero at \(\pi_{lag} e^{r/\tau}/Z\): each solved period
moves the log-odds of the old behaviour by \(-\Delta r/\tau\), without end. With an anchor a < 1 the reference is
\(\pi_{lag}^{a}\pi_0^{1-a}\) instead, and they end at \(s_0 - \Delta r/(\tau(1-a))\).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch

from fstsim.errors import InputError
from fstsim.fast_slow import StepInfo
from fstsim.llm.learners.groups import ScoredGroups, sample_groups
from fstsim.llm.learners.learner import Learner
from fstsim.llm.learners.method_losses import anchored_rewards, oapl_loss, soft_value
from fstsim.llm.learners.shadow import ShadowedWeights
from fstsim.llm.learners.weights import Diverged, chunks
from fstsim.llm.policy.rollouts import check_batch
from fstsim.llm.types import Population, Task
from fstsim.settings import check_types


@dataclass(frozen=True)
class OAPL(Learner):
    """Slow learner: off-policy advantage regression with a lagged sampler; fresh rollouts of it every step."""

    about: ClassVar[str] = "regression of log ratios on a lagged policy's rewards"
    shadowed: ClassVar[bool] = True

    problems: int = 48
    """problems a step"""
    rollouts: int = 8
    """completions of a problem: one group"""
    tau: float = 0.5
    """scale of the reward in the optimum e^(r / tau), reward a nat"""
    period: int = 10
    """steps between refreshes of the lagged policy"""
    lagged_share: float = 1.0
    """a, share of the lagged policy in the reference in log space, 0 to 1; the rest is the base"""
    max_new_tokens: int = 8
    """longest completion"""

    def __post_init__(self) -> None:
        check_types(self)
        if self.problems < 1 or self.max_new_tokens < 1 or self.period < 1:
            raise InputError("problems, max_new_tokens and period must be at least 1")
        if self.rollouts < 2:
            raise InputError(f"rollouts must be at least 2 (a group needs a value), got {self.rollouts}")
        check_batch(self.problems, self.rollouts)
        if not 0.0 < self.tau < math.inf:
            raise InputError(f"tau must be positive and finite, got {self.tau}")
        if not 0.0 <= self.lagged_share <= 1.0:
            raise InputError(f"lagged_share must lie in [0, 1], got {self.lagged_share}")

    def follows(self, made: int) -> float:
        """1 where the next step begins with a refresh."""
        return float(made % self.period == 0)

    def step(
        self, weights: ShadowedWeights, context: Population, task: Task, rng: np.random.Generator
    ) -> tuple[ShadowedWeights, StepInfo]:
        """Refresh the lagged policy when it is due, sample it, score, update in place."""
        if weights.age % self.period == 0:
            weights.follow(1.0)
        groups = sample_groups(
            weights.shadow,
            context,
            task,
            rng,
            problems=self.problems,
            rollouts=self.rollouts,
            max_new_tokens=self.max_new_tokens,
        )
        metrics = self.learn(weights, groups)
        return replace(weights, age=weights.age + 1), StepInfo(len(groups.rollouts), metrics)

    def learn(self, weights: ShadowedWeights, groups: ScoredGroups) -> dict[str, float]:
        """The update of one batch; returns what is worth a row."""
        rollouts, rewards, what = groups.rollouts, groups.rewards, groups.what
        lag = rollouts.logprobs.sum(-1)
        shaped = rewards
        if self.lagged_share < 1.0:
            with torch.no_grad():
                base = weights.base.logprobs(rollouts).sum(-1)
            shaped = anchored_rewards(rewards, lag.view_as(rewards), base.view_as(rewards), self.tau, self.lagged_share)
        value = soft_value(shaped, self.tau)
        advantages = (shaped - value[:, None]).flatten()
        dead = rewards.amax(-1) == rewards.amin(-1)
        total, lagged_kl = 0.0, 0.0
        every = torch.arange(len(rollouts), device=rewards.device)
        for rows in chunks(rollouts, every, weights.policy.vocabulary):
            part = rollouts.take(rows)
            logp = weights.policy.logprobs(part).sum(-1)
            loss = oapl_loss(logp, lag[rows], advantages[rows], self.tau, len(rollouts))
            if not torch.isfinite(loss):
                weights.optimizer.zero_grad(set_to_none=True)
                raise Diverged(f"loss is {float(loss.detach())} on {what}")
            loss.backward()
            total += float(loss.detach())
            lagged_kl += float((lag[rows] - logp.detach()).sum())
        return {
            "train_reward": float(rewards.mean()),  # of the lagged policy
            "dead_share": float(dead.float().mean()),
            "length": float(rollouts.mask.sum()) / len(rollouts),
            "value": float(value.mean()),
            "lagged_kl": lagged_kl / len(rollouts),  # one-sample estimate of KL(lagged || policy)
            "loss": total,
            "grad_norm": weights.apply(what),
        }
