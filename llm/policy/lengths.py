"""Decoders that count places and do not take positions (the Bart and RoBERTa families): prompts of one length at a time, unpadded.

With padding on the left their numbers would depend on the prompts beside them. Whether a model is one of them is tried.
"""

from __future__ import annotations

from collections.abc import Hashable

import torch
from transformers import PreTrainedModel

from fstsim.errors import InputError
from fstsim.llm.policy.declared import padding_counted, vocabulary_size
from fstsim.llm.policy.rollouts import Request, Rollouts, positions_of
from fstsim.llm.policy.sampling import Sampled, sample_rows
from fstsim.llm.policy.tree import draw

_TRIED = (3, 9, 9)  # lengths of prompts
_NEW = 3


def sample_lengths(model: PreTrainedModel, ask: Request) -> Sampled:
    """As `sample_rows`, without padding, masks or positions: a batch for each length of a prompt.

    Where positions leave a token out that is written too, a cache would miscount: such rows are read anew at every token.
    """
    device, size = ask.prompts.device, ask.mask.sum(1)
    shape = (len(ask.prompt_of), ask.new)
    written = torch.full(shape, ask.pad, device=device)
    kept, logps = torch.zeros(shape, dtype=torch.bool, device=device), torch.zeros(shape, device=device)
    last = torch.tensor(ask.ends, device=device)
    anew = padding_counted(model) is not None
    for length in size.unique().tolist():
        rows = torch.nonzero(size[ask.prompt_of] == length)[:, 0]
        if not len(rows):
            continue
        # every row by itself: caches of these models cannot always be repeated
        prompts = ask.prompts[ask.prompt_of[rows], ask.prompts.shape[1] - length :]
        out = model(prompts, use_cache=True)
        cache, logits = out.past_key_values, out.logits[:, -1]
        every, alive = torch.arange(len(rows), device=device), torch.ones(len(rows), dtype=torch.bool, device=device)
        for t in range(ask.new):
            logp = torch.log_softmax(logits.float() / (ask.temperature or 1.0), -1)
            chosen = logp.argmax(-1) if ask.temperature == 0.0 else draw(logp, every, ask.generator)
            written[rows, t] = torch.where(alive, chosen, ask.pad)
            logps[rows, t] = torch.where(alive, logp.gather(-1, chosen[:, None])[:, 0], 0.0)
            kept[rows, t] = alive
            alive = alive & ~torch.isin(chosen, last)
            if t + 1 == ask.new or not bool(alive.any()):
                break
            if anew:
                logits = model(torch.cat((prompts, written[rows, : t + 1]), 1), use_cache=False).logits[:, -1]
                continue
            out = model(written[rows, t][:, None], past_key_values=cache, use_cache=True)
            cache, logits = out.past_key_values, out.logits[:, -1]
    longest = max(1, int(kept.any(0).sum()))
    return written[:, :longest], kept[:, :longest], logps[:, :longest]


def score_lengths(model: PreTrainedModel, r: Rollouts) -> torch.Tensor:
    """As `scoring.score_rows`, a pass for each length of a prompt; padding is on the right only, where no token of a row sees it."""
    size = r.prompt_mask.sum(1)[r.prompt_of]
    parts, order = [], []
    for length in size.unique().tolist():
        rows = torch.nonzero(size == length)[:, 0]
        prompts = r.prompts[r.prompt_of[rows], r.prompts.shape[1] - length :]
        whole = torch.cat((prompts, r.completions[rows]), 1)
        parts.append(model(whole, use_cache=False).logits[:, length - 1 : -1])
        order.append(rows)
    return torch.cat(parts)[torch.cat(order).argsort()]


_TRIED_KINDS: dict[Hashable, bool] = {}


@torch.no_grad()
def check_rows(model: PreTrainedModel) -> bool:
    """Whether rows that are padded on the left give the log-probabilities of plain passes: tried on three prompts.

    False where only unpadded rows do. Raises InputError where neither does: a state in place of a cache, or a model that fails.
    It is the architecture that is tried: copies of a model with other weights are not tried again.
    """
    kind = (
        type(model),
        getattr(model.forward, "__func__", model.forward),
        model.config.to_json_string(),
        model.dtype,
        model.device.type,
    )
    if kind not in _TRIED_KINDS:
        _TRIED_KINDS[kind] = _try_rows(model)
    return _TRIED_KINDS[kind]


def _try_rows(model: PreTrainedModel) -> bool:
    was_training = model.training
    model.eval()
    said = "its cached passes do not give the numbers of plain ones"
    try:
        for padded in (True, False):
            try:
                if _agrees(model, padded):
                    return padded
            except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError) as error:
                said = " ".join(str(error).split())[:200]
    finally:
        model.train(was_training)
    raise InputError(f"{type(model).__name__} cannot be used: {said}")


def _agrees(model: PreTrainedModel, padded: bool) -> bool:
    device, vocabulary, longest = model.device, vocabulary_size(model), max(_TRIED)
    tokens = (torch.arange(len(_TRIED) * longest, device=device).reshape(-1, longest) * 7 + 3) % vocabulary
    mask = torch.arange(longest, device=device) >= longest - torch.tensor(_TRIED, device=device)[:, None]
    prompt_of = torch.tensor([0, 1, 2, 1, 0], device=device)
    ask = Request(tokens, mask, prompt_of, torch.Generator(device), _NEW, 0.0, (), 0)
    wrote, kept, logps = (sample_rows if padded else sample_lengths)(model, ask)
    r = Rollouts(tokens, mask, prompt_of, wrote, kept, logps)
    scored = _scored(model, r) if padded else score_lengths(model, r)
    given = torch.log_softmax(scored.float(), -1).gather(-1, wrote[..., None])[..., 0]
    # wider than where a faster path is chosen: what fails here is refused, and a wrong position is off by far more
    tolerance = 1e-3 if model.dtype == torch.float32 else 0.25
    for row, prompt in enumerate(prompt_of.tolist()):
        shown = tokens[prompt][mask[prompt]]
        logits = model(torch.cat((shown, wrote[row]))[None], use_cache=False).logits[0, len(shown) - 1 : -1]
        plain = torch.log_softmax(logits.float(), -1).gather(-1, wrote[row][:, None])[:, 0]
        for found in (logps[row], given[row]):
            if not bool(((found - plain).abs() <= tolerance * (1.0 + plain.abs())).all()):
                return False
    return True


def _scored(model: PreTrainedModel, r: Rollouts) -> torch.Tensor:
    whole, mask = (
        torch.cat((r.prompts[r.prompt_of], r.completions), 1),
        torch.cat((r.prompt_mask[r.prompt_of], r.mask), 1),
    )
    return model(whole, attention_mask=mask, position_ids=positions_of(mask), use_cache=False).logits[
        :, r.prompts.shape[1] - 1 : -1
    ]
