"""What a model's config declares, wherever it stands: in the config itself, or in the part on text of one that sees pictures too."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

_WINDOW = re.compile(r"window|chunk_size|block_size|local_attention", re.IGNORECASE)
_NO_WINDOW = re.compile(r"sliding|layers|pattern|mamba|_len_|conv", re.IGNORECASE)  # those that slide, the cache tells
LENGTHS = ("max_position_embeddings", "max_seq_len", "n_positions", "n_ctx")
"""names under which configs say how many tokens a row may have"""
_STRETCHED = ("dynamic", "longrope")  # frequencies that depend on the longest row of the batch


def text_config(model: PreTrainedModel) -> PreTrainedConfig:
    """The config of the decoder."""
    return model.config.get_text_config(decoder=True)


def vocabulary_size(model: PreTrainedModel) -> int:
    """Number of logits of a next token."""
    size = getattr(text_config(model), "vocab_size", None)
    return size if isinstance(size, int) else int(model.get_output_embeddings().weight.shape[0])


def padding_counted(model: PreTrainedModel) -> int | None:
    """The token that positions leave out, and begin after (RoBERTa and its kin number a row's tokens that are no padding); None elsewhere."""
    for module in model.modules():
        padding = getattr(module, "padding_idx", None)
        if isinstance(padding, int) and hasattr(module, "create_position_ids_from_input_ids"):
            return padding
    return None


def position_limit(model: PreTrainedModel) -> int | None:
    """How many tokens a row may have, None where nothing says so.

    Where the frequencies of rotary positions change beyond a length (dynamic, longrope), it is that length: beyond it the
    numbers of a row would depend on the longest row of its batch, and a cache would hold those of both kinds.
    """
    config = text_config(model)
    limits = [value for name in LENGTHS if type(value := getattr(config, name, None)) is int and value > 0]
    for rope in _ropes(getattr(config, "rope_parameters", None)):
        if rope.get("rope_type", rope.get("type")) in _STRETCHED:
            own = rope.get("original_max_position_embeddings")
            limits += [int(own)] if isinstance(own, int | float) else []
    if limits and (padding := padding_counted(model)) is not None:
        return min(limits) - padding - 1
    return min(limits, default=None)


def _ropes(held: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(held, Mapping):
        yield held
        for each in held.values():
            yield from _ropes(each)


def local_attention(model: PreTrainedModel) -> bool:
    """Whether the config names a window, a chunk or a block that attention keeps to, other than by a cache that forgets (`shared_prompts.can_share`).

    Such a band is one of places in a row (GPT-Neo), which positions and masks that are given to the model do not move: tokens
    must stand in rows as they were written.
    """
    for name, value in text_config(model).to_dict().items():
        if _WINDOW.search(name) and not _NO_WINDOW.search(name) and _positive(value):
            return True
    return False


def _positive(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_positive, value))
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
