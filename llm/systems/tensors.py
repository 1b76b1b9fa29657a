"""Tensors of a state, given back to the system that they are of."""

from __future__ import annotations

from collections.abc import Mapping

import torch


@torch.no_grad()
def copy_into(own: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]) -> None:
    """Give each of ``own`` its value, all or none. Raises ValueError if names, shapes or types differ, or a value is not finite."""
    if set(own) != set(tensors):
        raise ValueError(f"its tensors are {sorted(set(own) ^ set(tensors))[:3]} and more, not those of this system")
    for name, value in tensors.items():
        if value.shape != own[name].shape or value.dtype != own[name].dtype:
            raise ValueError(f"{name} is {tuple(value.shape)}, not {tuple(own[name].shape)}")
        if not torch.isfinite(value).all():
            raise ValueError(f"{name} is not finite")
    for name, value in tensors.items():
        own[name].copy_(value)
