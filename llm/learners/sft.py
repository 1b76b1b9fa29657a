r"""Supervised fine-tuning: forward KL on demonstrations, with replay of the old behaviour."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch

from fstsim.errors import InputError
from fstsim.fast_slow import StepInfo
from fstsim.llm.learners.learner import Learner
from fstsim.llm.learners.losses import sft_loss
from fstsim.llm.learners.method_losses import Direction
from fstsim.llm.learners.own_replay import own_answers
from fstsim.llm.learners.sequence_leash import pull
from fstsim.llm.learners.weights import Diverged, Weights, chunks, sample_problems
from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.rollouts import check_batch
from fstsim.llm.types import Answered, Demonstrated, Population, Problem, Task
from fstsim.settings import check_types


@dataclass(frozen=True)
class SupervisedFineTuning(Learner):
    """Forward KL on demonstrations: every step shows ``problems`` problems with their right answers, in every context.

    ``replay_share`` is the share of the batch that shows the old behaviour's answers instead: it changes what the population
    optimum is (2603.12163, replay). Whose they are says ``replay`` (`fstsim.llm.learners.own_replay`). ``leash_loss`` ties the
    policy to the base on the same prompts, along samples (`fstsim.llm.learners.sequence_leash`).
    """

    about: ClassVar[str] = "supervised fine-tuning: forward KL on demonstrations"

    problems: int = 48
    """demonstrations a step"""
    replay_share: float = 0.0
    """share of demonstrations of the old behaviour, 0 to 1"""
    replay: Literal["old", "own"] = "old"
    """old: the task's old answers are replayed; own: completions of the policy as it is, sampled on the old prompts, that say the
    old answer (On-Policy Replay); a prompt without one is left out"""
    replay_tries: int = 8
    """completions of an old prompt that are sampled for replay own; with N of them the old behaviour is lost at a share of
    1/(N + 1) or less"""
    leash_loss: float = 0.0
    """strength of the exact KL leash to the base as a loss, beside that of the demonstrations, a nat a sequence; along samples on the
    shown prompts, as long as the longest answer shown"""
    leash_direction: Direction = "reverse"
    """reverse: KL(policy || base) along the policy's samples, its gradient through the prefixes included: keeps a mass of order
    exp(-1/strength); forward: KL(base || policy) along the base's samples: is replay of the base"""

    def __post_init__(self) -> None:
        check_types(self)
        if self.problems < 1:
            raise InputError(f"problems must be at least 1, got {self.problems}")
        check_batch(self.problems)
        if not 0.0 <= self.replay_share <= 1.0:
            raise InputError(f"replay_share must lie in [0, 1], got {self.replay_share}")
        if self.replay_tries < 1:
            raise InputError(f"replay_tries must be at least 1, got {self.replay_tries}")
        if self.replay == "own":
            if self.replay_share == 0.0:
                raise InputError("replay own needs a replay_share above 0: nothing else is replayed")
            check_batch(self.problems, self.replay_tries)
        if not 0.0 <= self.leash_loss < math.inf:
            raise InputError(f"leash_loss must be nonnegative and finite, got {self.leash_loss}")
        if self.leash_direction == "forward" and self.leash_loss == 0.0:
            raise InputError("leash_direction forward needs a leash_loss above 0")

    @property
    def shows_old(self) -> bool:
        """Where there is replay."""
        return self.replay_share > 0.0

    def check(self, policy: Policy, context: str, task: Task) -> None:  # noqa: ARG002 -- what is shown depends on the task
        """InputError unless ``task`` has the answers that are to be shown."""
        if not isinstance(task, Answered):
            raise InputError(f"method sft shows right answers, but {task.name} has none; choose another --method")
        if self.replay_share > 0.0 and not isinstance(task, Demonstrated):
            raise InputError(f"replay_share above 0 needs a task with answers and old answers; {task.name} lacks them")

    def step(
        self, weights: Weights, context: Population, task: Demonstrated, rng: np.random.Generator
    ) -> tuple[Weights, StepInfo]:
        """Show, update in place."""
        policy = weights.policy
        problems = sample_problems(task.problems("train"), self.problems, rng)
        old = rng.random(self.problems) < self.replay_share
        which = rng.integers(len(context.prompts), size=self.problems)
        prompts = policy.encode_all([(context.prompts[k], p) for k, p in zip(which, problems, strict=True)])
        replayed = np.flatnonzero(old)
        given = self._replayed(policy, task, [(prompts[i], problems[i]) for i in replayed], rng)
        answers: list[Sequence[int] | None] = list(policy.encode_answers([task.answer(p) for p in problems]))
        for i, answer in zip(replayed, given, strict=True):
            answers[i] = answer
        what = f"{task.name}, problems {problems[0].text}..."
        pairs = [(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True) if answer is not None]
        value = show(weights, [prompt for prompt, _ in pairs], [answer for _, answer in pairs], what) if pairs else 0.0
        sampled, new, more = 0, int((~old).sum()), {}
        if self.replay == "own":
            sampled += len(replayed) * self.replay_tries
            more["own_right"] = (len(pairs) - new) / max(len(replayed), 1)
        if self.leash_loss > 0.0:
            sampled += len(prompts)
            longest = max(map(len, policy.encode_answers([task.answer(p) for p in problems])))
            more["leash_kl"] = pull(weights, prompts, (self.leash_loss, self.leash_direction), longest, rng)
            value += self.leash_loss * more["leash_kl"]
        norm = weights.apply(what)
        metrics = {"loss": value, "grad_norm": norm, "old_share": (len(pairs) - new) / max(len(pairs), 1), "shown": new}
        return weights, StepInfo(sampled, metrics | more)

    def _replayed(
        self,
        policy: Policy,
        task: Demonstrated,
        asked: Sequence[tuple[Sequence[int], Problem]],
        rng: np.random.Generator,
    ) -> Sequence[Sequence[int] | None]:
        """What is shown of the old behaviour on each (prompt, problem); None: nothing."""
        texts = [task.old_answer(problem) for _, problem in asked]
        if self.replay == "old":
            return list(policy.encode_answers(texts))
        return own_answers(policy, [prompt for prompt, _ in asked], texts, self.replay_tries, rng)


def show(weights: Weights, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], what: str) -> float:
    """Leave the gradient of `losses.sft_loss` on these demonstrations in the policy; returns the loss. Raises `weights.Diverged`."""
    policy = weights.policy
    shown = policy.forced(prompts, answers)
    value = 0.0
    for rows in chunks(shown, torch.arange(len(shown), device=policy.device), policy.vocabulary):
        part = shown if len(rows) == len(shown) else shown.take(rows)
        loss = sft_loss(policy.logprobs(part), part.mask) * (len(part) / len(shown))
        if not torch.isfinite(loss):
            weights.optimizer.zero_grad(set_to_none=True)
            raise Diverged(f"loss is {float(loss.detach())} on {what}")
        loss.backward()
        value += float(loss.detach())
    return value
