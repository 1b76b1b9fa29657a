"""Completions of left-padded prompts, token by token: a row a rollout, or every prefix once.

With `fstsim.llm.policy.static_decode.Decoders.sample` these are three ways to the same completions: one uniform number of the
generator decides each token. Call them without gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedModel

from fstsim.llm.policy.rollouts import Request, from_left
from fstsim.llm.policy.shared_prompts import repeat, run_prompts
from fstsim.llm.policy.tree import Frontier, draw

_FRONTIER_ROW = 64  # places in a row while sampling: shorter than in scoring, rows grow

Sampled = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""``completions, mask, logprobs (B, T)``, as `Rollouts` has them"""


def sample_rows(model: PreTrainedModel, ask: Request) -> Sampled:
    """A row a rollout, with a growing cache: works with every model."""
    out = run_prompts(model, ask.prompts, ask.mask, None if bool(ask.mask.all()) else ask.mask)
    rows = CachedRows(model, ask, out)
    return draw_rows(rows.logits, rows.read, ask)


class CachedRows:
    """A model that has read the prompts of ``ask`` once and reads on, a token of every rollout at a time.

    ``out`` is what the model gave for the prompts: their cache, and ``logits`` after the last token, which become ``(B, V)``.
    """

    def __init__(self, model: PreTrainedModel, ask: Request, out: Any) -> None:
        self.model, self.unpadded = model, bool(ask.mask.all())
        self.cache, self.logits = repeat(out.past_key_values, ask.prompt_of), out.logits[:, -1][ask.prompt_of]
        self.length, self.whole = ask.mask.sum(1)[ask.prompt_of], ask.mask[ask.prompt_of]

    def read(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits ``(B, V)`` after one more token ``(B,)`` of each rollout."""
        self.whole = torch.cat((self.whole, torch.ones_like(self.whole[:, :1])), 1)
        out = self.model(
            tokens[:, None],
            attention_mask=None if self.unpadded else self.whole,
            position_ids=self.length[:, None],
            past_key_values=self.cache,
            use_cache=True,
        )
        self.length = self.length + 1
        self.cache, self.logits = out.past_key_values, out.logits[:, -1]
        return self.logits


def draw_rows(logits: torch.Tensor, read: Callable[[torch.Tensor], torch.Tensor], ask: Request) -> Sampled:
    """Completions from the ``logits (B, V)`` of their first tokens, and ``read``: a token of each to the logits after it."""
    device = ask.prompts.device
    every = torch.arange(len(ask.prompt_of), device=device)
    last = torch.tensor(ask.ends, device=device)
    alive = torch.ones(len(every), dtype=torch.bool, device=device)
    written, kept, logps = [], [], []
    for t in range(ask.new):
        logp = torch.log_softmax(logits.float() / (ask.temperature or 1.0), -1)
        chosen = logp.argmax(-1) if ask.temperature == 0.0 else draw(logp, every, ask.generator)
        written.append(torch.where(alive, chosen, ask.pad))
        logps.append(torch.where(alive, logp.gather(-1, chosen[:, None])[:, 0], 0.0))
        kept.append(alive)
        alive = alive & ~torch.isin(chosen, last)
        # on an accelerator the question costs a synchronisation: ask it every eighth token
        if t + 1 == ask.new or ((device.type == "cpu" or t % 8 == 7) and not bool(alive.any())):
            break
        logits = read(written[-1])
    return torch.stack(written, 1), torch.stack(kept, 1), torch.stack(logps, 1)


def sample_tree(model: PreTrainedModel, ask: Request) -> Sampled:
    """The same as `sample_rows`, each prefix once however many rollouts have it."""
    last = torch.tensor(ask.ends, device=ask.prompts.device)
    frontier = Frontier(model, *from_left(ask.prompts, ask.mask), width=_FRONTIER_ROW)
    node = frontier.node[ask.prompt_of]
    alive = torch.ones(len(node), dtype=torch.bool, device=node.device)
    written, kept, logps = [], [], []
    for t in range(ask.new):
        logp = torch.log_softmax(frontier.logits.float() / (ask.temperature or 1.0), -1)
        chosen = logp.argmax(-1)[node] if ask.temperature == 0.0 else draw(logp, node, ask.generator)
        written.append(torch.where(alive, chosen, ask.pad))
        logps.append(torch.where(alive, logp[node, chosen], 0.0))
        kept.append(alive)
        alive = alive & ~torch.isin(chosen, last)
        if t + 1 == ask.new or not bool(alive.any()):
            break
        node = frontier.grow(node, chosen, alive)
    return torch.stack(written, 1), torch.stack(kept, 1), torch.stack(logps, 1)
