"""Logits of the tokens of given completions, in one pass with gradients: a row a completion, every prefix once, or the prompt of a group once.

They return the logits from which each token of ``Rollouts`` was (or would be) drawn, before the temperature: ``(B, T, V)``, of
trees the distinct ones.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from fstsim.llm.policy.rollouts import Rollouts, from_left, positions_of
from fstsim.llm.policy.shared_prompts import repeat, run_prompts
from fstsim.llm.policy.static_decode import answer_seen, prompt_seen
from fstsim.llm.policy.tree import attention_mask, tree_logits


def score_rows(model: PreTrainedModel, r: Rollouts) -> torch.Tensor:
    """Prompt and completion of every rollout as a row of its own: works with every model."""
    whole = torch.cat((r.prompts[r.prompt_of], r.completions), 1)
    mask = torch.cat((r.prompt_mask[r.prompt_of], r.mask), 1)
    out = model(whole, attention_mask=mask, position_ids=positions_of(mask), use_cache=False)
    return out.logits[:, r.prompts.shape[1] - 1 : -1]


def score_tree(model: PreTrainedModel, r: Rollouts) -> tuple[torch.Tensor, torch.Tensor]:
    """Each prefix once however many rollouts have it: distinct logits ``(n, V)``, and which ``(B, T)`` are each token's."""
    prompts, size = from_left(r.prompts, r.prompt_mask)
    start = size[r.prompt_of][:, None]
    here = torch.arange(r.completions.shape[1], device=r.completions.device)
    room = r.completions.new_zeros(len(r), len(here) - 1)
    sequences = torch.cat((prompts[r.prompt_of], room), 1).scatter(1, start + here[:-1], r.completions[:, :-1])
    wanted = start - 1 + torch.where(r.mask, here, 0)
    return tree_logits(model, sequences, start[:, 0] + r.mask.sum(1) - 1, wanted)


def score_groups(model: PreTrainedModel, r: Rollouts, given: bool) -> torch.Tensor:
    """The prompts once, their cache repeated for the completions.

    ``given``: the model takes any mask and is given one, since on an accelerator the question whether it needs one costs
    a synchronisation.
    """
    tokens, mask = r.completions, r.prompt_mask
    unpadded = not given and bool(mask.all())
    seen: torch.Tensor | None = None
    if not unpadded:
        seen = attention_mask(model, prompt_seen(mask)) if given else mask
    out = run_prompts(model, r.prompts, mask, seen)
    first = out.logits[:, -1:][r.prompt_of]
    if tokens.shape[1] == 1:
        return first
    places = mask.sum(1)[r.prompt_of][:, None] + torch.arange(tokens.shape[1] - 1, device=tokens.device)
    # padding on the right needs no mask: no token of a completion comes after it
    if given:
        seen = attention_mask(model, answer_seen(mask[r.prompt_of], tokens.shape[1] - 1))
    elif not unpadded:
        seen = torch.cat((mask[r.prompt_of], torch.ones_like(r.mask[:, 1:])), 1)
    rest = model(
        tokens[:, :-1],
        attention_mask=seen,
        position_ids=places,
        past_key_values=repeat(out.past_key_values, r.prompt_of),
        use_cache=True,
    ).logits
    return torch.cat((first, rest), 1)
