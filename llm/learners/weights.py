"""What every slow learner changes, and what several use: weights with their optimizer, batches of problems, shares of a group."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fstsim.llm.contexts.reuse import Reusable
from fstsim.llm.policy.adapters import own_weights
from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.rollouts import Rollouts
from fstsim.llm.types import Problem

_TOKENS_AT_ONCE = 65_536  # prompt and completion tokens of one forward and backward pass
_LOGITS_AT_ONCE = 1 << 25  # logits of completions in one pass, 128 MiB in float32: a loss holds a few such tensors


class Diverged(RuntimeError):
    """A loss or gradient is not finite; the message says of which batch. That update has not been made."""


@dataclass(frozen=True)
class Weights:
    """What the slow channel changes, in place: a policy and its optimizer; ``base`` is the frozen start.

    ``reusable`` holds at most one batch of rollouts of the policy as it is now, left by a fast round; `apply` empties it.
    """

    policy: Policy
    base: Policy
    optimizer: torch.optim.Optimizer
    clip: float = 1.0
    reusable: list[Reusable] = field(default_factory=list)
    unsolved: list[str] = field(default_factory=list)
    """problems (`Problem.uid`) that no rollout without context solved when last tried, where a learner notes them"""

    def trained(self) -> list[torch.nn.Parameter]:
        """What gradients are clipped over: all weights of the policy."""
        return list(self.policy.model.parameters())

    def apply(self, what: str) -> float:
        """One optimizer step with the gradient that is there; returns its norm. Raises Diverged if it is not finite."""
        self.reusable.clear()
        parameters = [p for p in self.trained() if p.grad is not None]
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.clip)) if parameters else 0.0
        if not math.isfinite(norm):
            self.optimizer.zero_grad(set_to_none=True)
            raise Diverged(f"gradient is not finite on {what}")
        if parameters:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def forget_moments(self) -> None:
        """Let the optimizer begin anew: no moments, no steps made."""
        self.optimizer.state.clear()

    def kept(self) -> Mapping[str, torch.Tensor]:
        """The weights that a checkpoint holds, by name: the policy's own."""
        return own_weights(self.policy)

    def extras(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """What a checkpoint holds beside policy and optimizer: tensors by name, and a JSON-ready rest."""
        return {}, {"unsolved": list(self.unsolved)} if self.unsolved else {}

    def with_extras(self, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any], path: Path) -> Weights:  # noqa: ARG002
        """These weights with what `extras` gave, as the checkpoint at ``path`` holds it. Raises InputError where it is none."""
        self.unsolved[:] = meta.get("unsolved", [])
        return self


def sample_problems(problems: Sequence[Problem], count: int, rng: np.random.Generator) -> list[Problem]:
    """``count`` problems, without repetition where there are enough."""
    return [problems[i] for i in rng.choice(len(problems), size=count, replace=count > len(problems))]


def share_out(rollouts: int, contexts: int, rng: np.random.Generator) -> list[int]:
    """How many of a group's rollouts each context gets: equal, and what is left over at random."""
    shares = np.full(contexts, rollouts // contexts)
    shares[rng.choice(contexts, size=rollouts % contexts, replace=False)] += 1
    return shares.tolist()


def generator_from(rng: np.random.Generator, policy: Policy) -> torch.Generator:
    """A torch generator on the policy's device, seeded from the run's one generator."""
    return torch.Generator(policy.device).manual_seed(int(rng.integers(2**62)))


def chunks(rollouts: Rollouts, rows: torch.Tensor, vocabulary: int) -> list[torch.Tensor]:
    """``rows`` in parts whose tokens, and logits of a ``vocabulary``, fit in memory, none when there are none."""
    if not len(rows):
        return []
    length = rollouts.completions.shape[1]
    at_once = min(_TOKENS_AT_ONCE // (rollouts.prompts.shape[1] + length), _LOGITS_AT_ONCE // (length * vocabulary))
    return list(rows.split(max(1, at_once)))
