"""Completions of left-padded prompts, token by token: a row a rollout, or every prefix once.

Both have the signature of `fstsim.llm.static_decode.Decoders.sample`, the third way, and give the same completions from
the same generator: one uniform number decides each token. Call them without gradients.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from fstsim.llm.rollouts import from_left
from fstsim.llm.shared_prompts import repeat, run_prompts
from fstsim.llm.tree import Frontier, draw

_FRONTIER_ROW = 64  # places in a row while sampling: shorter than in scoring, rows grow

Sampled = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""``completions, mask, logprobs (B, T)``, as `Rollouts` has them"""


def sample_rows(
    model: PreTrainedModel,
    tokens: torch.Tensor,
    mask: torch.Tensor,
    prompt_of: torch.Tensor,
    generator: torch.Generator,
    *,
    new: int,
    temperature: float,
    ends: tuple[int, ...],
    pad: int,
) -> Sampled:
    """A row a rollout after the prompts ``tokens, mask (P, S)``, with a growing cache: works with every model.

    ``prompt_of (B,)`` says whose prompt each completion continues, for at most ``new`` tokens; ``temperature`` 0 is greedy.
    """
    device = tokens.device
    unpadded = bool(mask.all())
    every = torch.arange(len(prompt_of), device=device)
    last = torch.tensor(ends, device=device)
    out = run_prompts(model, tokens, mask, None if unpadded else mask)
    cache, logits = repeat(out.past_key_values, prompt_of), out.logits[:, -1][prompt_of]
    length, whole = mask.sum(1)[prompt_of], mask[prompt_of]
    alive = torch.ones(len(prompt_of), dtype=torch.bool, device=device)
    written, kept, logps = [], [], []
    for t in range(new):
        logp = torch.log_softmax(logits.float() / (temperature or 1.0), -1)
        chosen = logp.argmax(-1) if temperature == 0.0 else draw(logp, every, generator)
        written.append(torch.where(alive, chosen, pad))
        logps.append(torch.where(alive, logp.gather(-1, chosen[:, None])[:, 0], 0.0))
        kept.append(alive)
        alive = alive & ~torch.isin(chosen, last)
        # on an accelerator the question costs a synchronisation: ask it every eighth token
        if t + 1 == new or ((device.type == "cpu" or t % 8 == 7) and not bool(alive.any())):
            break
        whole = torch.cat((whole, torch.ones_like(whole[:, :1])), 1)
        out = model(
            written[-1][:, None],
            attention_mask=None if unpadded else whole,
            position_ids=(length + t)[:, None],
            past_key_values=cache,
            use_cache=True,
        )
        cache, logits = out.past_key_values, out.logits[:, -1]
    return torch.stack(written, 1), torch.stack(kept, 1), torch.stack(logps, 1)


def sample_tree(
    model: PreTrainedModel,
    tokens: torch.Tensor,
    mask: torch.Tensor,
    prompt_of: torch.Tensor,
    generator: torch.Generator,
    *,
    new: int,
    temperature: float,
    ends: tuple[int, ...],
    pad: int,
) -> Sampled:
    """The same as `sample_rows`, each prefix once however many rollouts have it."""
    last = torch.tensor(ends, device=tokens.device)
    frontier = Frontier(model, *from_left(tokens, mask), width=_FRONTIER_ROW)
    node = frontier.node[prompt_of]
    alive = torch.ones(len(prompt_of), dtype=torch.bool, device=tokens.device)
    written, kept, logps = [], [], []
    for t in range(new):
        logp = torch.log_softmax(frontier.logits.float() / (temperature or 1.0), -1)
        chosen = logp.argmax(-1)[node] if temperature == 0.0 else draw(logp, node, generator)
        written.append(torch.where(alive, chosen, pad))
        logps.append(torch.where(alive, logp[node, chosen], 0.0))
        kept.append(alive)
        alive = alive & ~torch.isin(chosen, last)
        if t + 1 == new or not bool(alive.any()):
            break
        node = frontier.grow(node, chosen, alive)
    return torch.stack(written, 1), torch.stack(kept, 1), torch.stack(logps, 1)
