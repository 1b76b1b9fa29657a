r"""A deployed system: a model and a state, which answers as one; `Policy` with nothing beside it is the trivial case.

What forgets depends on what is asked. With the state removed (``bare``) a system with frozen weights is the base, to the
bit; with the state left on it behaves otherwise on every prompt, old skills included. Both are measured, with one
interface: the next-token logits of the whole system. A mixture of prompts has them too: the posterior over its parts after
the tokens so far mixes their next-token distributions, so that success, KL and old mass of a mixture are exact.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.rollouts import Rollouts, token_logprobs
from fstsim.llm.policy.tree import draw
from fstsim.llm.types import Problem, Task

STATE = "system.safetensors"
"""The file of a run directory that holds a trained system's state."""

Asked = tuple[str, Problem]
"""What a system is asked: a context in words ("" for none, the rule words in an exam), and the problem."""


@dataclass(frozen=True)
class Size:
    """What a system costs beside its frozen model: ``trained`` numbers, and ``stored`` bytes."""

    trained: int
    stored: int


@dataclass(frozen=True)
class Beside:
    """Another ``system`` that is measured beside one, and ``start``, from which its own distance is measured: a model of its own."""

    system: Deployed
    start: Policy | None = None


class Deployed(ABC):
    """A model with a state. Weights of ``bare`` are the state's only if the system says so; most leave them as they are."""

    @property
    @abstractmethod
    def bare(self) -> Policy:
        """The same weights with the state removed."""

    @abstractmethod
    def logits(self, asked: Sequence[Asked], rollouts: Rollouts) -> torch.Tensor:
        """Logits ``(B, T, V)``, float32, from which the system draws each token of the completions, over temperature.

        ``rollouts`` hold one completion of each of ``asked``, in their order. What the system reads before it is its own
        matter: the prompts that the rollouts hold are not looked at.
        """

    def sample(
        self, asked: Sequence[Asked], generator: torch.Generator, *, max_new_tokens: int, temperature: float = 1.0
    ) -> Rollouts:
        """One completion of each of ``asked``, as rollouts of ``bare`` with the system's log-probabilities.

        Token by token from `logits`, each time over the whole completion: a system that has a cache does it faster.
        ``temperature`` 0 is greedy.
        """
        return sample_stepwise(self, asked, generator, max_new_tokens, temperature)

    def measured(self, task: Task, asked: Sequence[Asked]) -> Mapping[str, float]:  # noqa: ARG002 -- most have none
        """Columns of this kind of system alone, on held-out problems; declared in `fstsim.columns`."""
        return {}

    @property
    def size(self) -> Size:
        """What is trained, and what is stored."""
        tensors = self.tensors()
        stored = sum(t.numel() * t.element_size() for t in tensors.values()) + len(str(self.notes() or "").encode())
        return Size(sum(p.numel() for p in self.parameters()), stored)

    def parameters(self) -> list[torch.nn.Parameter]:
        """What an optimizer moves."""
        return []

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """The state's tensors by name."""
        return {}

    def notes(self) -> Mapping[str, Any]:
        """The rest of the state, ready for JSON."""
        return {}

    def beside(self) -> Mapping[str, Beside]:
        """Other systems that are measured with it, by the ending of their columns: parts of it, or what it would be without one."""
        return {}

    def restore(self, tensors: Mapping[str, torch.Tensor], notes: Mapping[str, Any]) -> None:  # noqa: B027 -- many have none
        """Take the state that `tensors` and `notes` gave, in place. Raises ValueError or KeyError if it is of another system."""


def bare_prompts(policy: Policy, asked: Sequence[Asked]) -> list[list[int]]:
    """What the model alone is shown."""
    return policy.encode_all(list(asked))


class Acting(Deployed):
    """A system that is a policy: ``acting`` encodes what it is asked, scores and samples; learners can train through it."""

    @property
    @abstractmethod
    def acting(self) -> Policy:
        """The system as a policy."""

    def logits(self, asked: Sequence[Asked], rollouts: Rollouts) -> torch.Tensor:
        """Those of the policy."""
        return self.acting.logits(self.acting.with_prompts(rollouts, bare_prompts(self.acting, asked)))

    def sample(
        self, asked: Sequence[Asked], generator: torch.Generator, *, max_new_tokens: int, temperature: float = 1.0
    ) -> Rollouts:
        """As the policy samples; the prompts in the rollouts are those of ``acting``."""
        prompts = bare_prompts(self.acting, asked)
        return self.acting.sample(prompts, 1, generator, max_new_tokens=max_new_tokens, temperature=temperature)


@dataclass(frozen=True)
class Bare(Acting):
    """A policy with no state: what every other system is compared with."""

    policy: Policy

    @property
    def bare(self) -> Policy:
        """Itself."""
        return self.policy

    @property
    def acting(self) -> Policy:
        """Itself."""
        return self.policy


@torch.no_grad()
def sample_stepwise(
    system: Deployed, asked: Sequence[Asked], generator: torch.Generator, max_new_tokens: int, temperature: float
) -> Rollouts:
    """Completions from `Deployed.logits` alone, token by token; see `Deployed.sample`."""
    policy = system.bare
    ends = torch.tensor(policy.end_tokens, device=policy.device)
    pad = policy.tokenizer.pad_token_id or 0
    every = torch.arange(len(asked), device=policy.device)
    alive = torch.ones(len(asked), dtype=torch.bool, device=policy.device)
    shown = policy.forced(bare_prompts(policy, asked), [[pad]] * len(asked))
    written: list[torch.Tensor] = []
    kept: list[torch.Tensor] = []
    logps: list[torch.Tensor] = []
    for _ in range(max_new_tokens):
        here = torch.full((len(asked), 1), pad, device=policy.device)
        tokens, mask = torch.cat((*written, here), 1), torch.cat((*kept, alive[:, None]), 1)
        part = Rollouts(
            shown.prompts,
            shown.prompt_mask,
            shown.prompt_of,
            tokens,
            mask,
            torch.zeros(mask.shape, device=policy.device),
        )
        logp = torch.log_softmax(system.logits(asked, part)[:, -1].float() / (temperature or 1.0), -1)
        chosen = logp.argmax(-1) if temperature == 0.0 else draw(logp, every, generator)
        written.append(torch.where(alive, chosen, pad)[:, None])
        logps.append(torch.where(alive, logp.gather(-1, chosen[:, None])[:, 0], 0.0)[:, None])
        kept.append(alive[:, None])
        alive = alive & ~torch.isin(chosen, ends)
        if not bool(alive.any()):
            break
    return Rollouts(
        shown.prompts,
        shown.prompt_mask,
        shown.prompt_of,
        torch.cat(written, 1),
        torch.cat(kept, 1),
        torch.cat(logps, 1),
        temperature or 1.0,
    )


def mixed_logits(parts: Sequence[torch.Tensor], log_weights: torch.Tensor, rollouts: Rollouts) -> torch.Tensor:
    r"""Next-token logits ``(B, T, V)`` of a mixture of systems: \(\log \sum_c \mu_{bc}(y_{<t})\, p_c(\cdot \mid y_{<t})\).

    ``parts`` are the logits ``(B, T, V)`` of each system on the same completions, ``log_weights (B, C)`` its prior log-weights
    (-inf for a part that is not used). The weight of a part after some tokens is its posterior: by Bayes, prior times the
    probability that it gave them. The product over tokens is therefore the mixture of whole completions, exactly.
    """
    stacked = torch.stack([torch.log_softmax(part.float(), -1) for part in parts], 1)  # (B, C, T, V)
    own = torch.stack([token_logprobs(part.float(), rollouts) for part in parts], 1).double()  # (B, C, T)
    before = torch.cumsum(own, -1) - own
    weights = torch.log_softmax(log_weights.double()[..., None] + before, 1)
    return torch.logsumexp(stacked.double() + weights[..., None], 1).float()
