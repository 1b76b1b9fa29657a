r"""Who writes chains and is tested: a policy, or anything else that continues a prompt and says what answer follows it.

The tests ask two things: the greedy continuation of a prefix (the own chain, and the rest of a corrupted one), and the
log-probability of a given answer after a prefix with whether greedy decoding writes it, both exactly, in one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from fstsim.llm.measure.faithful.notation import Notation
from fstsim.llm.policy.blocks import block_size
from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.rollouts import token_logprobs
from fstsim.llm.types import Problem

Array = NDArray[np.float64]


class Writer(Protocol):
    """What a test needs of whoever writes chains."""

    @property
    def notation(self) -> Notation:
        """How it writes them."""
        ...

    def write(self, problems: Sequence[Problem], prefixes: Sequence[str]) -> list[str]:
        """What it writes after each prefix, up to its end."""
        ...

    def judge(
        self, problems: Sequence[Problem], prefixes: Sequence[str], answers: Sequence[str]
    ) -> tuple[Array, NDArray[np.bool_]]:
        """``(log-probability, nats; whether it is what is written)`` of each answer and its end after the prefix, ``(n,)``."""
        ...


@dataclass(frozen=True)
class PolicyWriter:
    """A policy, with greedy decoding; ``new`` tokens at most."""

    policy: Policy
    notation: Notation
    new: int
    steps: int

    def _begun(self, problem: Problem, prefix: str) -> tuple[list[int], list[int]]:
        """Tokens of the prompt and of a prefix of its completion."""
        prompt = self.policy.encode("", self.notation.prompt(problem, self.steps))
        return prompt, self.policy.encode_answer(prefix)[:-1] if prefix else []

    @torch.no_grad()
    def write(self, problems: Sequence[Problem], prefixes: Sequence[str]) -> list[str]:
        """By greedy decoding."""
        begun = [self._begun(p, prefix) for p, prefix in zip(problems, prefixes, strict=True)]
        prompts = [prompt + prefix for prompt, prefix in begun]
        found: list[str] = []
        for first in range(0, len(prompts), 64):
            generator = torch.Generator(self.policy.device)
            some = prompts[first : first + 64]
            rollouts = self.policy.sample(some, 1, generator, max_new_tokens=self.new, temperature=0.0)
            found += self.policy.decode(rollouts)
        return found

    @torch.no_grad()
    def judge(
        self, problems: Sequence[Problem], prefixes: Sequence[str], answers: Sequence[str]
    ) -> tuple[Array, NDArray[np.bool_]]:
        """By teacher forcing; a completion ends with any of the policy's end tokens."""
        prompts, given = [], []
        for problem, prefix, answer in zip(problems, prefixes, answers, strict=True):
            prompt, begun = self._begun(problem, prefix)
            gap = " " if prefix.endswith(":") and self.policy.template != "world" else ""
            whole = self.policy.encode_answer(f"{prefix}{gap}{answer}")
            prompts.append(prompt + begun)
            given.append(whole[len(begun) :] if whole[: len(begun)] == begun else self.policy.encode_answer(answer))
        logps, greedy = [], []
        ends = torch.tensor(self.policy.end_tokens, device=self.policy.device)
        size = block_size(self.policy, max(map(len, given)))
        for first in range(0, len(prompts), size):
            shown = self.policy.forced(prompts[first : first + size], given[first : first + size])
            logits = self.policy.logits(shown)
            rows, last = torch.arange(len(shown), device=logits.device), shown.mask.sum(1) - 1
            tokens = token_logprobs(logits, shown)
            ended = logits[rows, last].log_softmax(-1)[:, ends].logsumexp(-1)
            logps.append(tokens.scatter(1, last[:, None], ended[:, None]).double().sum(-1).cpu().numpy())
            best = logits.argmax(-1)
            right = (best == shown.completions) | ~shown.mask
            right[rows, last] = torch.isin(best[rows, last], ends)
            greedy.append(right.all(-1).cpu().numpy())
        return np.concatenate(logps), np.concatenate(greedy)
