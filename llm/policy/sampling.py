"""Completions of left-padded prompts, token by token: a row a rollout, or every prefix once.

With `fstsim.llm.policy.static_decode.Decoders.sample` these are three ways to the same completions: one uniform number of the
generator decides each token. Call them without gradients.
"""

from __future__ import annotations

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
    device, prompt_of = ask.prompts.device, ask.prompt_of
    unpadded = bool(ask.mask.all())
    every = torch.arange(len(prompt_of), device=device)
    last = torch.tensor(ask.ends, device=device)
    out = run_prompts(model, ask.prompts, ask.mask, None if unpadded else ask.mask)
    cache, logits = repeat(out.past_key_values, prompt_of), out.logits[:, -1][prompt_of]
    length, whole = ask.mask.sum(1)[prompt_of], ask.mask[prompt_of]
    alive = torch.ones(len(prompt_of), dtype=torch.bool, device=device)
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
