"""Where a frozen model is asked for no token but for a vector: mean last hidden states, by which cases and skills are found."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, cast

import torch

from fstsim.llm.policy.blocks import block_size
from fstsim.llm.policy.policy import Policy


@torch.no_grad()
def embed(policy: Policy, rows: Sequence[Sequence[int]]) -> torch.Tensor:
    r"""Unit vectors ``(N, H)``, float32: the mean over tokens of the model's last hidden state, over its length.

    Rows are padded on the right: in a causal model no token sees what follows it, and padding is left out of the mean.
    A dot product of two is their cosine.
    """
    found = []
    size = block_size(policy, max(map(len, rows), default=1))
    for first in range(0, len(rows), size):
        block = rows[first : first + size]
        longest = max(map(len, block))
        tokens = torch.tensor([[*row, *[0] * (longest - len(row))] for row in block], device=policy.device)
        there = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in block], device=policy.device)
        with policy.running():
            held = policy.model.base_model(input_ids=tokens, attention_mask=there, use_cache=False).last_hidden_state
        mean = (held.float() * there[..., None]).sum(1) / there.sum(1, keepdim=True)
        found.append(torch.nn.functional.normalize(mean, dim=-1))
    return torch.cat(found) if found else torch.zeros(0, width(policy), device=policy.device)


def width(policy: Policy) -> int:
    """Numbers in an embedding: the width of the model's hidden states."""
    return int(input_table(policy).shape[1])


def input_table(policy: Policy) -> torch.Tensor:
    """The model's input embeddings ``(V, width)``."""
    table: Any = policy.model.get_input_embeddings()
    return cast(torch.Tensor, table.weight)


def model_mark(policy: Policy) -> str:
    """What tells one model's embeddings from another's: the CRC-32 of its input embeddings and of its last norm or layer."""
    total = 0
    parameters = dict(policy.model.base_model.named_parameters())
    for weight in (input_table(policy), parameters[list(parameters)[-1]]):
        total = zlib.crc32(weight.detach().float().cpu().contiguous().view(-1).view(torch.uint8).numpy().data, total)
    return f"{total:08x}"
