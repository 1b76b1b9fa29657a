"""Completions as tensors: what sampling is asked for and hands to scoring, and how the left-padded prompts of a batch are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from fstsim.errors import InputError

_MOST_AT_ONCE = 1_000_000


def check_batch(problems: int, rollouts: int | None = None) -> None:
    """InputError unless a step's ``problems``, with ``rollouts`` completions of each, are few enough to be meant: a million."""
    asked, what = (problems, "problems") if rollouts is None else (problems * rollouts, "problems x rollouts")
    if asked > _MOST_AT_ONCE:
        raise InputError(f"{what} must be at most {_MOST_AT_ONCE:,} a step, got {asked:,}")


def check_sizes(problems: int, max_new_tokens: int) -> None:
    """InputError unless a step has a problem, and a completion room for a token."""
    if problems < 1 or max_new_tokens < 1:
        raise InputError(f"problems and max_new_tokens must be at least 1, got {problems} and {max_new_tokens}")


@dataclass(frozen=True)
class Rollouts:
    """Completions with what is needed to score them again.

    ``prompts, prompt_mask (P, S)`` padded on the left; ``prompt_of (B,)`` the prompt of each completion;
    ``completions, mask (B, T)`` padded on the right, the mask true up to and including the end token;
    ``logprobs (B, T)`` at sampling, nats, 0 outside of the mask.
    """

    prompts: torch.Tensor
    prompt_mask: torch.Tensor
    prompt_of: torch.Tensor
    completions: torch.Tensor
    mask: torch.Tensor
    logprobs: torch.Tensor
    temperature: float = 1.0

    def __len__(self) -> int:
        return len(self.completions)

    def take(self, rows: torch.Tensor) -> Rollouts:
        """Only the completions ``rows`` (indices), and only the prompts and columns that they need."""
        used, prompt_of = torch.unique(self.prompt_of[rows], return_inverse=True)
        prompt_mask, mask = self.prompt_mask[used], self.mask[rows]
        left = int((~prompt_mask).all(0).long().sum()) if len(rows) else 0
        right = int(mask.any(0).sum())
        return replace(
            self,
            prompts=self.prompts[used, left:],
            prompt_mask=prompt_mask[:, left:],
            prompt_of=prompt_of,
            completions=self.completions[rows, :right],
            mask=mask[:, :right],
            logprobs=self.logprobs[rows, :right],
        )


@dataclass(frozen=True)
class Request:
    """What is to be sampled: ``prompt_of (B,)`` says whose prompt, of left-padded ``prompts, mask (P, S)``, each completion continues.

    At most ``new`` tokens each; ``temperature`` 0 is greedy, otherwise all randomness comes from ``generator``; a completion
    ends with one of ``ends``, and ``pad`` fills the rest.
    """

    prompts: torch.Tensor
    mask: torch.Tensor
    prompt_of: torch.Tensor
    generator: torch.Generator
    new: int
    temperature: float
    ends: tuple[int, ...]
    pad: int

    def rollouts(self, completions: torch.Tensor, mask: torch.Tensor, logprobs: torch.Tensor) -> Rollouts:
        """What was sampled for it, ``(B, T)`` each, with its prompts."""
        temperature = self.temperature or 1.0  # greedy completions are scored at temperature 1
        return Rollouts(self.prompts, self.mask, self.prompt_of, completions, mask, logprobs, temperature)


def token_logprobs(logits: torch.Tensor, rollouts: Rollouts) -> torch.Tensor:
    """Log-probabilities ``(B, T)`` of the completions under ``logits (B, T, V)``; 0 outside the mask."""
    picked = logits.gather(-1, rollouts.completions[..., None])[..., 0] - torch.logsumexp(logits, -1)
    return torch.where(rollouts.mask, picked, 0.0)


def ended_logprobs(logits: torch.Tensor, rollouts: Rollouts, ends: Sequence[int]) -> torch.Tensor:
    """Log-probability ``(B,)``, nats, of every completion up to its last token, and of any of ``ends`` in the place of that one."""
    last = rollouts.mask.sum(1, keepdim=True) - 1
    at_end = logits.gather(1, last[..., None].expand(-1, -1, logits.shape[-1]))[:, 0]
    ended = torch.logsumexp(at_end[:, torch.tensor(ends, device=logits.device)], -1) - torch.logsumexp(at_end, -1)
    return token_logprobs(logits, rollouts).scatter(1, last, ended[:, None]).sum(-1)


def owners(prompts: int, repeats: int | Sequence[int]) -> torch.Tensor:
    """The prompt of each completion, ``(B,)``, on the CPU: ``repeats`` of every prompt, or of prompt i ``repeats[i]``."""
    counts = torch.as_tensor([repeats] * prompts if isinstance(repeats, int) else list(repeats))
    return torch.repeat_interleave(torch.arange(prompts), counts)


def positions_of(mask: torch.Tensor) -> torch.Tensor:
    """Position of every token of rows padded on the left, ``(P, S)``; pads are at 0."""
    return (mask.long().cumsum(1) - 1).clamp(min=0)


def from_left(tokens: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows that were padded on the left, moved to the left, and their lengths."""
    size = mask.sum(1)
    places = torch.arange(tokens.shape[1], device=tokens.device) + (tokens.shape[1] - size)[:, None]
    return tokens.gather(1, places.clamp(max=tokens.shape[1] - 1)), size
