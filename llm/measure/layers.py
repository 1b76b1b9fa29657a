"""How far the weights of a model have moved, layer by layer, and a fingerprint of weights."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

import torch
from torch import nn

Pairs = Iterable[tuple[str, torch.Tensor, torch.Tensor]]
"""``(name, weight now, weight of the base)``."""
_LAYER = re.compile(r"\.(?:layers|h|blocks|block)\.(\d+)\.")


def layer_of(name: str) -> str:
    """The layer that a parameter is of: ``layer 3``, or its module's own name outside of the layers."""
    found = _LAYER.search(f".{name}")
    return f"layer {found[1]}" if found else name.removesuffix(".weight").rpartition(".")[2] or name


@torch.no_grad()
def distances(pairs: Pairs) -> dict[str, float]:
    r"""\(\lVert w - w_0 \rVert / \lVert w_0 \rVert\) of every layer and, as ``all``, of the whole model, in its order."""
    moved: dict[str, float] = {}
    size: dict[str, float] = {}
    for name, weight, start in pairs:
        before = start.double()
        for group in (layer_of(name), "all"):
            moved[group] = moved.get(group, 0.0) + float((weight.double() - before).square().sum())
            size[group] = size.get(group, 0.0) + float(before.square().sum())
    order = [*(group for group in moved if group != "all"), "all"]
    return {group: (moved[group] / size[group]) ** 0.5 if size[group] else float("nan") for group in order}


def weight_distances(now: nn.Module, base: nn.Module) -> dict[str, float]:
    """`distances` of two models with the same names of weights."""
    start = dict(base.named_parameters())
    return distances((name, weight, start[name]) for name, weight in now.named_parameters())


@torch.no_grad()
def hash_weights(named: Iterable[tuple[str, torch.Tensor]]) -> str:
    """SHA-256 of names, shapes and bits of weights."""
    digest = hashlib.sha256()
    for name, weight in named:
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}\n".encode())
        held = weight.detach().cpu().contiguous()
        digest.update(held.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def weights_hash(model: nn.Module) -> str:
    """`hash_weights` of all weights of a model."""
    return hash_weights(model.named_parameters())
