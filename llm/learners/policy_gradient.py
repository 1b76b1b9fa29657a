r"""Policy gradient on groups of rollouts: CISPO and REINFORCE.

CISPO as in MiniMax-M1 and 2605.12484, except: (1) one group may hold rollouts of several contexts, with one baseline;
(2) groups without signal are skipped, which changes no gradient; (3) the leash to the base is a choice: k1 in the
reward, or as a loss the exact full-vocabulary KL, with or without its gradient through the prefixes, or an estimator of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

import numpy as np
import torch

from fstsim.errors import InputError
from fstsim.fast_slow import StepInfo
from fstsim.llm.contexts.reuse import Reusable, join
from fstsim.llm.learners.dead_groups import rewards_of, step_without_context
from fstsim.llm.learners.learner import Learner
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
)
from fstsim.llm.learners.shadow import ShadowedWeights
from fstsim.llm.learners.weights import Diverged, Weights, chunks, generator_from, sample_problems, share_out
from fstsim.llm.policy.divergence import inside
from fstsim.llm.policy.next_tokens import NextTokens
from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.rollouts import Rollouts, check_batch
from fstsim.llm.types import Population, Problem, Task
from fstsim.settings import check_types


@dataclass(frozen=True)
class PolicyGradient(Learner):
    """Reinforcement learning on verified rewards.

    Every step samples ``problems`` problems and ``rollouts`` completions of each, shared out over the contexts of the
    population, and makes ``updates`` optimizer steps on them (with more than one, ratios leave 1 and ``ratio_cap`` bites).
    ``leash_reward`` is nats of reward a nat of k1, ``leash_loss`` weighs the exact KL to the base as a loss, both a sequence.
    """

    about: ClassVar[str] = "policy gradient (CISPO) on verified rewards"

    loss: Literal["cispo", "reinforce"] = "cispo"
    """cispo: stop-gradient of min(ratio, cap), a mean over tokens; reinforce: a mean over rollouts"""
    problems: int = 48
    """problems a step"""
    rollouts: int = 8
    """completions of a problem: one group"""
    advantage: Advantage = "normalised"
    """normalised by the group's standard deviation, centred only, or leave-one-out"""
    ratio_cap: float = 5.0
    """cap of the importance ratio, above 1"""
    updates: int = 1
    """optimizer steps on each batch"""
    leash_reward: float = 0.0
    """strength of the KL leash in the reward (k1), nats of reward a nat; with normalised advantages a group of equal rewards
    follows the leash alone, at size one whatever its strength: take centred ones, or the leash as a loss"""
    leash_loss: float = 0.0
    """strength of the exact KL leash as a loss, a nat a sequence"""
    leash_loss_prefix: bool = False
    """the leash as a loss with its gradient through the prefixes, so that it rests where the leash in the reward does"""
    kl_estimator: KLEstimator = "exact"
    """what the leash as a loss is made of: the exact KL of every next-token distribution, or k1, k2, k3 of the sampled tokens.
    k2 pulls like the exact one, k3 (the KL term of GRPO) along KL(base || policy), and k1 does not pull at all"""
    kl_estimator_ratio: bool = False
    """k1, k2 or k3 times the importance ratio: then k1 and k3 pull like the exact one, and k2 does not"""
    reset_every: int = 0
    """slow steps after which the leash is tied to the policy as it is then, and the optimizer begins anew (ProRL); 0: it stays
    tied to the base. Each settled period adds 1/strength to the log-odds: such a leash delays, it does not retain"""
    dead_groups: Literal["skip", "context"] = "skip"
    """skip: groups without signal are left out; context: every problem is asked without context, and where all is wrong again in
    the contexts of the population; what is learned is the policy without context (P2O)"""
    temperature: float = 1.0
    """temperature of sampling"""
    max_new_tokens: int = 8
    """longest completion"""

    def __post_init__(self) -> None:
        check_types(self)
        if self.loss not in ("cispo", "reinforce"):
            raise InputError(f"loss must be cispo or reinforce, got {self.loss!r}")
        if self.problems < 1 or self.updates < 1 or self.max_new_tokens < 1:
            raise InputError("problems, updates and max_new_tokens must be at least 1")
        if self.rollouts < 2:
            raise InputError(f"rollouts must be at least 2 (a group needs a baseline), got {self.rollouts}")
        check_batch(self.problems, self.rollouts)
        if self.advantage not in get_args(Advantage):
            raise InputError(f"advantage must be one of {', '.join(get_args(Advantage))}; got {self.advantage!r}")
        if not self.ratio_cap > 1.0:
            raise InputError(f"ratio_cap must be above 1, got {self.ratio_cap}")
        if not (0.0 <= self.leash_reward < math.inf and 0.0 <= self.leash_loss < math.inf):
            raise InputError(
                f"leash_reward and leash_loss must be nonnegative and finite, got {self.leash_reward} and {self.leash_loss}"
            )
        if self.leash_loss_prefix and self.leash_loss == 0.0:
            raise InputError("leash_loss_prefix needs a leash_loss above 0")
        if self.dead_groups not in ("skip", "context"):
            raise InputError(f"dead_groups must be skip or context, got {self.dead_groups!r}")
        self.check_estimator()
        if self.reset_every < 0:
            raise InputError(f"reset_every must be at least 0, got {self.reset_every}")
        if self.reset_every and not self.leash_loss + self.leash_reward > 0.0:
            raise InputError(
                "reset_every needs a leash_loss or leash_reward above 0: it moves what the leash is tied to"
            )
        if not 0.0 < self.temperature < math.inf:
            raise InputError(f"temperature must be positive, got {self.temperature}")

    def check_estimator(self) -> None:
        """InputError on an estimator that is unknown, or that nothing would use."""
        if self.kl_estimator not in get_args(KLEstimator):
            raise InputError(
                f"kl_estimator must be one of {', '.join(get_args(KLEstimator))}; got {self.kl_estimator!r}"
            )
        sampled = self.kl_estimator != "exact"
        if sampled and self.leash_loss == 0.0:
            raise InputError(f"kl_estimator {self.kl_estimator} needs a leash_loss above 0")
        if sampled and self.leash_loss_prefix:
            raise InputError("leash_loss_prefix needs kl_estimator exact: it sums exact KL along the prefixes")
        if self.kl_estimator_ratio and not sampled:
            raise InputError("kl_estimator_ratio needs kl_estimator k1, k2 or k3: the exact KL has no sample to weigh")

    def copies(self, tasks: int) -> int:  # noqa: ARG002 -- one, whatever the tasks
        """One where the leash is tied anew."""
        return int(self.reset_every > 0)

    def hold(self, weights: Weights) -> Weights:
        """With a shadow, which the leash is tied to, where it is tied anew."""
        return ShadowedWeights.start(weights) if self.reset_every else weights

    def tie(self, weights: Weights) -> None:
        """Before a step: where it is due, the reference becomes the policy, exactly, and the optimizer has no moments.

        Before the first step both are so already. Source: 2505.24864; the fixed point that moves: `exp-family-unification-fixed-point`.
        """
        if isinstance(weights, ShadowedWeights) and weights.age % self.reset_every == 0:
            weights.follow(1.0)
            weights.forget_moments()

    @staticmethod
    def reference(weights: Weights) -> Policy:
        """What the leash is tied to: the shadow where there is one, else the base."""
        return weights.shadow if isinstance(weights, ShadowedWeights) else weights.base

    def leash(self, own: NextTokens, base: NextTokens, logp: torch.Tensor, part: Rollouts) -> torch.Tensor:
        """The leash as a loss on ``part``, nats a sequence: ``own`` and ``logp`` of the policy, ``base`` of its reference."""
        if self.kl_estimator != "exact":
            held = part.logprobs if self.kl_estimator_ratio else None
            return estimated_leash_loss(logp, base.logprobs(part), part.mask, self.kl_estimator, held)
        kl = own.kl(base, part.mask)
        loss = leash_loss(kl, part.mask)
        return loss + prefix_loss(kl, logp, part.mask) if self.leash_loss_prefix else loss

    def step(
        self, weights: Weights, context: Population, task: Task, rng: np.random.Generator
    ) -> tuple[Weights, StepInfo]:
        """Sample, score, update in place; ``samples`` counts what was sampled here, not what a fast round had sampled."""
        self.tie(weights)
        if self.dead_groups == "context":
            return self._aged(weights), step_without_context(self, weights, context, task, rng)
        reusable = weights.reusable[0] if weights.reusable else None
        weights.reusable.clear()  # its rollouts are used here or never: no checkpoint has to hold them
        problems: list[Problem] = []
        if reusable is not None:
            reusable.check(task.name, self.temperature, self.max_new_tokens)
            problems = list(reusable.problems[: self.problems])
        problems += sample_problems(task.problems("train"), self.problems - len(problems), rng)
        rollouts, groups, reused = self.roll_out_again(weights.policy, context, problems, rng, reusable)
        rewards = rewards_of(weights.policy, task, problems, rollouts, groups)
        metrics = self.learn(weights, rollouts, rewards, groups, f"{task.name}, problems {problems[0].text}...")
        if reusable is not None:
            metrics["reused"] = reused
        return self._aged(weights), StepInfo(len(rollouts) - reused, metrics)

    @staticmethod
    def _aged(weights: Weights) -> Weights:
        """One step older, where that is counted."""
        return replace(weights, age=weights.age + 1) if isinstance(weights, ShadowedWeights) else weights

    def roll_out(
        self, policy: Policy, context: Population, problems: Sequence[Problem], rng: np.random.Generator
    ) -> tuple[Rollouts, torch.Tensor]:
        """Completions of all problems, and the group (problem) of each: a group's rollouts shared out over the contexts."""
        rollouts, groups, _ = self.roll_out_again(policy, context, problems, rng, None)
        return rollouts, groups

    def roll_out_again(
        self,
        policy: Policy,
        context: Population,
        problems: Sequence[Problem],
        rng: np.random.Generator,
        reusable: Reusable | None,
    ) -> tuple[Rollouts, torch.Tensor, int]:
        """`roll_out`, of which the rollouts in ``reusable`` need not be sampled: they come first, and their number last.

        ``reusable`` is of the first of ``problems``. Groups have the same contexts, in the same numbers, as without it.
        """
        shares = share_out(self.rollouts, len(context.prompts), rng)
        used = [(c, n) for c, n in zip(context.prompts, shares, strict=True) if n]
        rows = []
        if reusable is not None:
            rows = [k for k, (c, g) in enumerate(reusable.pairs) if g < len(problems) and c in dict(used)]
        have = {reusable.pairs[k] for k in rows} if reusable is not None else set()
        wanted = [(g, c, n - ((c, g) in have)) for g in range(len(problems)) for c, n in used]
        wanted = [(g, c, n) for g, c, n in wanted if n]
        groups = torch.tensor([g for g, _, n in wanted for _ in range(n)], dtype=torch.long)
        parts = []
        if reusable is not None and rows:
            parts.append(reusable.rollouts.take(torch.tensor(rows, device=policy.device)))
            groups = torch.cat((torch.tensor([reusable.pairs[k][1] for k in rows]), groups))
        if wanted:
            sampled = policy.sample(
                policy.encode_all([(c, problems[g]) for g, c, _ in wanted]),
                [n for *_, n in wanted],
                generator_from(rng, policy),
                max_new_tokens=self.max_new_tokens,
                temperature=self.temperature,
                scored=not self._first,
            )
            parts.append(sampled)
        return parts[0] if len(parts) == 1 else join(parts), groups.to(policy.device), len(rows)

    @property
    def _first(self) -> bool:
        """Whether rollouts are learned from once, and nothing but their ratio needs their log-probabilities at sampling: it is 1."""
        return self.updates == 1 and self.leash_reward == 0.0 and not self.kl_estimator_ratio

    def learn(
        self, weights: Weights, rollouts: Rollouts, rewards: torch.Tensor, groups: torch.Tensor, what: str
    ) -> dict[str, float]:
        """The updates of one batch; returns what is worth a row."""
        if not torch.isfinite(rollouts.logprobs).all():
            raise Diverged(f"log-probabilities of the policy are not finite on {what}")
        shaped = rewards
        if self.leash_reward > 0.0:
            with torch.no_grad():
                there = self.reference(weights).logprobs(rollouts)
            shaped = leashed_rewards(rewards, rollouts.logprobs, there, rollouts.mask, self.leash_reward)
        advantages, dead = group_advantages(shaped, groups, self.advantage)
        live = torch.arange(len(rollouts), device=rewards.device)
        if self.leash_loss == 0.0:
            live = live[~dead[groups]]
        tokens, sequences = float(rollouts.mask.sum()), len(rollouts)
        metrics = {"train_reward": float(rewards.mean()), "dead_share": float(dead.float().mean())}
        metrics["length"] = tokens / sequences
        capped, entropy, seen, held, norms, value = 0.0, 0.0, 0.0, 0.0, [], 0.0
        for _ in range(self.updates):
            # kept on the device until the pass is launched: each float() before it would wait for what is running
            sums = torch.zeros(5, dtype=torch.float64, device=rewards.device)
            for rows in chunks(rollouts, live, weights.policy.vocabulary):
                part = rollouts.take(rows)
                own = weights.policy.next_tokens(part)
                logp = own.logprobs(part)
                if self.loss == "cispo":
                    # in bfloat16 sampling and scoring round differently, and the ratio is of the policy to itself
                    sampled = logp.detach() if self._first and weights.policy.bfloat16 else part.logprobs
                    loss, share = cispo_loss(logp, sampled, advantages[rows], part.mask, self.ratio_cap, tokens=tokens)
                    sums[1] += share.double() * part.mask.sum()
                else:
                    loss = reinforce_loss(logp, advantages[rows], part.mask, sequences)
                if self.leash_loss > 0.0:
                    with torch.no_grad():
                        base = self.reference(weights).next_tokens(part)
                    leash = self.leash(own, base, logp, part) * len(rows) / sequences
                    if self.reset_every:
                        with torch.no_grad():
                            sums[4] += leash_loss(own.kl(base, part.mask), part.mask) * len(rows) / sequences
                    # the mean over tokens of CISPO is a mean over sequences divided by their mean length
                    scale = metrics["length"] if self.loss == "cispo" else 1.0
                    loss = loss + self.leash_loss * leash / scale
                with torch.no_grad():
                    sums[2] += inside(own.entropy(), part.mask).sum()
                    sums[3] += part.mask.sum()
                loss.backward()
                sums[0] += loss.detach()
            value, capped, entropy, seen, held = (
                a + b for a, b in zip((value, capped, entropy, seen, held), sums.tolist(), strict=True)
            )
            if not math.isfinite(value):
                weights.optimizer.zero_grad(set_to_none=True)
                raise Diverged(f"loss is {value} on {what}")
            norms.append(weights.apply(what))
        metrics["loss"] = value / self.updates
        metrics["grad_norm"] = float(np.mean(norms))
        metrics["capped_share"] = capped / (tokens * self.updates)
        metrics["train_entropy"] = entropy / seen if seen else math.nan
        if self.reset_every and self.leash_loss > 0.0:
            metrics["leash_kl"] = held / self.updates
        return metrics
