r"""Probes: the columns of a run for a language model, on fixed problems, exact wherever one pass gives the exact value.

- Success on an exact-match task is the probability of the right answer under teacher forcing: no sampling noise. For models
  outside of the shipped world it is that of one tokenisation of the answer (`Policy.encode_answer`): a lower bound of success.
- KL(now || base) and KL(base || now), nats a sequence: sequences are sampled from the first argument, and at each of their
  tokens the KL of the next-token distributions is taken with the full vocabulary (Rao-Blackwellised): by the chain rule
  its sum has the sequences' KL as expectation. Standard errors are over sequences. The same context on both sides.
- K2 = KL(policy in its contexts || base in none), both directions, is how far behaviour is from the base; ``kl_excess`` is
  what it has beyond the least that the success on each problem needs (statement deployed-kl-floor), where success is exact.
- The old behaviour's mass is the probability of its answer, exactly, where the task says what it is. Old skills are what
  was passed as ``skills`` (`fstsim.llm.runs.skills`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from fstsim.errors import InputError
from fstsim.llm.measure.layers import weight_distances
from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.rollouts import Rollouts
from fstsim.llm.runs.behaviour import (
    Written,
    answer_logprobs,
    behaviour,
    excess,
    logprobs_in_blocks,
    mean_se,
    rewards,
    sample_once,
    sequence_kls,
)
from fstsim.llm.types import Answered, Demonstrated, Population, Problem, Skills, Task
from fstsim.settings import check_types


@dataclass(frozen=True)
class ProbeConfig:
    """How much is measured, and when."""

    every: int = 40
    """slow steps between measurements; below it powers of ``early``, and the last step, are measured too"""
    problems: int = 64
    """held-out problems for reward, old mass and KL"""
    exam: int = 16
    """problems in each part of the exam of old skills"""
    max_new_tokens: int = 8
    """longest completion"""
    early: int = 2
    """2: steps 1, 2, 4, ...; 4: steps 1, 4, 16, ..."""
    relearn: int | None = None
    """most supervised steps in which a copy relearns another task, at both ends of a run; 0: not measured; None: 60 for
    models of the laboratory's world, not measured for others"""

    def __post_init__(self) -> None:
        check_types(self)
        if self.early < 2:
            raise InputError(f"probe early must be at least 2, got {self.early}")
        if min(self.every, self.problems, self.exam, self.max_new_tokens) < 1:
            raise InputError("every, problems, exam and max_new_tokens of the probe must be at least 1")
        if self.relearn is not None and self.relearn < 0:
            raise InputError(f"probe relearn must be at least 0, got {self.relearn}")
        if self.problems < 2:
            raise InputError(f"probe problems must be at least 2 (for a standard error), got {self.problems}")

    def due(self, step: int) -> bool:
        """Whether ``step`` of a task is measured: the beginning is resolved in powers."""
        power = 1
        while power < min(step, self.every):
            power *= self.early
        return step % self.every == 0 or (step < self.every and power == step)


@dataclass
class Probe:
    """Measures a policy against the ``base`` on the test problems of a task; what never changes is computed once."""

    base: Policy
    task: Task
    config: ProbeConfig
    seed: int = 0
    skills: Sequence[Skills] = ()
    _problems: list[Problem] = field(init=False, default_factory=list)
    _base_written: dict[tuple[str, ...], Written] = field(init=False, default_factory=dict)
    _base_logps: np.ndarray | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._problems = list(self.task.problems("test"))[: self.config.problems]

    @property
    def problems(self) -> Sequence[Problem]:
        """The held-out problems."""
        return self._problems

    def _sampled(self, policy: Policy, contexts: tuple[str, ...]) -> Rollouts:
        return sample_once(policy, contexts, self._problems, self.seed, self.config.max_new_tokens)

    def _base_wrote(self, contexts: tuple[str, ...]) -> Written:
        if contexts not in self._base_written:
            self._base_written[contexts] = Written.by(self.base, self._sampled(self.base, contexts))
        return self._base_written[contexts]

    def _right(self, policy: Policy, contexts: tuple[str, ...]) -> np.ndarray | None:
        """Log-probabilities of the right answers, ``(contexts, problems)``; None where they are not what success is."""
        if not (self.task.exact and isinstance(self.task, Answered)):
            return None
        return answer_logprobs(policy, contexts, self._problems, [self.task.answer(p) for p in self._problems])

    def _prompts(self, policy: Policy, contexts: tuple[str, ...]) -> list[list[int]]:
        return policy.encode_all([(contexts[i % len(contexts)], p) for i, p in enumerate(self._problems)])

    @torch.no_grad()
    def measure(self, policy: Policy, population: Population) -> dict[str, Any]:
        """One row of measurements; columns as in the module's docstring, ``*_se`` their standard errors."""
        training = policy.model.training
        policy.model.eval()
        row: dict[str, Any] = {}
        contexts = population.prompts
        right = self._right(policy, contexts[:1])  # in the best context of the last round
        row |= self.reward(policy, contexts[:1]) if right is None else _mean_reward(np.exp(right).mean(0), "")
        if len(contexts) > 1:
            row |= self.reward(policy, contexts, "_all_contexts")
        if contexts != ("",):
            row |= self.reward(policy, ("",), "_no_context")
        self._drift(policy, row)
        if policy.model is not self.base.model:  # frozen weights, or those of an adapter beside them
            row["weight_distance"] = weight_distances(policy.model, self.base.model)["all"]
        kls = self._distances(policy, ("",), row, "_no_context" if contexts != ("",) else "")
        if contexts != ("",):
            kls = self._distances(policy, contexts, row, "")
        self._behaviour(policy, contexts, kls, right if len(contexts) == 1 else None, row)
        policy.model.train(training)
        return row

    @torch.no_grad()
    def reward(self, policy: Policy, contexts: tuple[str, ...], tail: str = "") -> dict[str, float]:
        """Mean reward over the contexts on held-out problems: exactly for exact-match tasks, else of one sample a problem."""
        most = self.config.max_new_tokens
        return _mean_reward(rewards(policy, self.task, self._problems, contexts, self.seed, most), tail)

    def _drift(self, policy: Policy, row: dict[str, Any]) -> None:
        """Mass of the old behaviour on ambiguous prompts (no context), and the old skills with their own context."""
        if isinstance(self.task, Demonstrated):
            answers = [self.task.old_answer(p) for p in self._problems]
            mass = np.exp(answer_logprobs(policy, ("",), self._problems, answers))[0]
            row["old_mass"], row["old_mass_se"] = mean_se(mass)
        for skills in self.skills:
            row |= skills.measure(policy)

    def _distances(
        self, policy: Policy, contexts: tuple[str, ...], row: dict[str, Any], tail: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """KL with these contexts on both sides, into ``row``; returned: KL(policy in them || base in none), both directions."""
        told = contexts != ("",)
        now = self._sampled(policy, contexts)
        length = now.mask.sum(-1).double().cpu().numpy()
        others = [(self.base, now)]
        if told:
            others.append((self.base, self.base.with_prompts(now, self._prompts(self.base, ("",)))))
        kls, entropy = sequence_kls(policy, now, others)
        to_base, to_bare = kls[0], kls[-1]
        then = self._base_wrote(contexts)
        from_base = from_bare = then.kl(self.base, policy)
        if told:
            bare = self._base_wrote(("",))
            seen = policy.with_prompts(bare.rollouts, self._prompts(policy, contexts))
            (from_bare,), _ = sequence_kls(self.base, bare.rollouts, [(policy, seen)], bare.distributions)
        row[f"kl_to_base{tail}"], row[f"kl_to_base{tail}_se"] = mean_se(to_base)
        row[f"kl_from_base{tail}"], row[f"kl_from_base{tail}_se"] = mean_se(from_base)
        row[f"kl_to_base{tail}_token"] = float(to_base.sum() / length.sum())
        row[f"kl_from_base{tail}_token"] = float(from_base.sum() / float(then.rollouts.mask.sum()))
        row[f"entropy{tail}"], row[f"entropy{tail}_se"] = mean_se(entropy)
        return to_bare, from_bare

    def _behaviour(
        self,
        policy: Policy,
        contexts: tuple[str, ...],
        kls: tuple[np.ndarray, np.ndarray],
        right: np.ndarray | None,
        row: dict[str, Any],
    ) -> None:
        """How far the policy in its contexts is from the base in none, and what of that its success does not need.

        ``right`` is what `_right` says where there is one context.
        """
        row |= behaviour(*kls)
        task = self.task
        if not (task.exact and isinstance(task, Answered)):
            return
        answers = policy.encode_answers([task.answer(p) for p in self._problems])
        if self._base_logps is None:
            self._base_logps = logprobs_in_blocks(self.base, self._prompts(self.base, ("",)), answers)
        logps = logprobs_in_blocks(policy, self._prompts(policy, contexts), answers) if right is None else right[0]
        row |= excess(kls[0], logps, self._base_logps)


def _mean_reward(values: np.ndarray, tail: str) -> dict[str, float]:
    mean, error = mean_se(values)
    return {f"reward{tail}": mean, f"reward{tail}_se": error}
