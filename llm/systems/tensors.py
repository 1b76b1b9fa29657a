"""Tensors of a state, checked and given back to the system that they are of."""

from __future__ import annotations

from collections.abc import Mapping

import torch


def check_tensors(
    shapes: Mapping[str, tuple[int, ...]], types: Mapping[str, torch.dtype], tensors: Mapping[str, torch.Tensor]
) -> None:
    """Raises ValueError unless ``tensors`` have these names, ``shapes`` and ``types``, and every value is finite."""
    if set(shapes) != set(tensors):
        name = sorted(set(shapes) ^ set(tensors))[0]
        raise ValueError(f"it {'lacks' if name in shapes else 'has'} a tensor {name[:60]!r}")
    for name, value in tensors.items():
        if tuple(value.shape) != shapes[name]:
            raise ValueError(f"{name} has shape {tuple(value.shape)}, not {shapes[name]}")
        if value.dtype != types[name]:
            raise ValueError(f"{name} is of type {value.dtype}, not {types[name]}")
        if not torch.isfinite(value).all():
            raise ValueError(f"{name} is not finite")


@torch.no_grad()
def copy_into(own: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]) -> None:
    """Give each of ``own`` its value, all or none. Raises ValueError if names, shapes or types differ, or a value is not finite."""
    check_tensors(
        {name: tuple(t.shape) for name, t in own.items()}, {name: t.dtype for name, t in own.items()}, tensors
    )
    for name, value in tensors.items():
        own[name].copy_(value)
