r"""Core parameters as pure functions of weights: which they are, how far two cores overlap, how tuned copies are merged.

Weights and cores are tensors by name, as `fstsim.llm.policy.adapters.own_weights` gives them: tied ones are there once. The core
of a task is the share p of all entries that its tuning moved furthest, \(|\theta_i - \theta_0|\). Source: 2508.21741; what it leaves
open is a setting here (`Merging`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from fstsim.errors import InputError

Tensors = Mapping[str, torch.Tensor]
Mask = Mapping[str, torch.Tensor]
"""Booleans of the shapes of the weights."""
SlerpOn = Literal["weights", "vectors"]
Backbone = Literal["last", "start"]
Contested = Literal["larger", "mean"]


def core(start: Tensors, tuned: Tensors, share: float) -> dict[str, torch.Tensor]:
    r"""The ``share`` of all entries with the largest \(|\theta - \theta_0|\), rounded to a whole number of entries."""
    moved = torch.cat([(tuned[name] - own).detach().abs().flatten() for name, own in start.items()])
    return _of_flat(start, torch.topk(moved, round(share * moved.numel())).indices, moved.numel())


def random_core(start: Tensors, share: float, seed: int) -> dict[str, torch.Tensor]:
    """As many entries as `core` has, any of them with the same chance."""
    count = sum(own.numel() for own in start.values())
    generator = torch.Generator().manual_seed(seed)
    return _of_flat(start, torch.randperm(count, generator=generator)[: round(share * count)], count)


def _of_flat(shapes: Tensors, chosen: torch.Tensor, count: int) -> dict[str, torch.Tensor]:
    flat = torch.zeros(count, dtype=torch.bool, device=chosen.device)
    flat[chosen] = True
    parts = flat.split([own.numel() for own in shapes.values()])
    return {name: part.view(own.shape).to(own.device) for (name, own), part in zip(shapes.items(), parts, strict=True)}


def union(shapes: Tensors, cores: Sequence[Mask]) -> dict[str, torch.Tensor]:
    """The entries of any of ``cores``; of none, no entry."""
    out = {name: torch.zeros(own.shape, dtype=torch.bool, device=own.device) for name, own in shapes.items()}
    for each in cores:
        for name, mask in each.items():
            out[name] |= mask
    return out


def share_of(mask: Mask) -> float:
    """The share of all entries that is in ``mask``."""
    return sum(int(part.sum()) for part in mask.values()) / sum(part.numel() for part in mask.values())


def jaccard(one: Mask, other: Mask) -> float:
    """Entries in both cores over entries in either; 0 where both are empty. Of random cores of share p about p / (2 - p)."""
    both = sum(int((one[name] & other[name]).sum()) for name in one)
    either = sum(int((one[name] | other[name]).sum()) for name in one)
    return both / either if either else 0.0


def overlap_groups(cores: Sequence[Mask], least: float) -> list[list[int]]:
    """Numbers of the tasks in groups: two whose cores overlap by at least ``least``, and whoever is joined to them by others."""
    group = list(range(len(cores)))
    for i in range(len(cores)):
        for j in range(i):
            if jaccard(cores[i], cores[j]) >= least:
                group = [group[j] if g == group[i] else g for g in group]
    return [[i for i, g in enumerate(group) if g == name] for name in dict.fromkeys(group)]


def slerp(one: torch.Tensor, other: torch.Tensor, share: float, flat_angle: float = 1e-4) -> torch.Tensor:
    r"""From ``one`` (share 0) to ``other`` (share 1) along the arc between them: a tensor of entries is one vector.

    \(\frac{\sin((1-t)\varphi)}{\sin\varphi} a + \frac{\sin(t\varphi)}{\sin\varphi} b\), \(\varphi\) the angle between them; linear where it is below
    ``flat_angle`` radians or within that of opposite directions, or where one of them is 0. Of equal ones the same, to the bit.
    """
    a, b = one.double().flatten(), other.double().flatten()
    size = float(a.norm()), float(b.norm())
    if not (size[0] > 0.0 and size[1] > 0.0):
        return one + share * (other - one)
    u, v = a / size[0], b / size[1]
    angle = 2.0 * math.atan2(float((u - v).norm()), float((u + v).norm()))  # arccos loses half the digits of small ones
    if angle < flat_angle or math.pi - angle < flat_angle:
        return one + share * (other - one)
    mixed = (math.sin((1.0 - share) * angle) * a + math.sin(share * angle) * b) / math.sin(angle)
    return mixed.view(one.shape).to(one)


@dataclass(frozen=True)
class Merging:
    """What becomes of the tuned copies: whether cores are transplanted, and how everything else is merged."""

    transplant: bool = True
    """write every task's own values into its core"""
    slerp: bool = True
    """merge what is outside of all cores (without transplant, all entries); without it the backbone stays there"""
    omega: float = 0.5
    """weight of each other copy, 1 - omega that of the backbone: 0.5 is equal shares"""
    slerp_on: SlerpOn = "weights"
    backbone: Backbone = "last"
    contested: Contested = "larger"
    flat_angle: float = 1e-4

    def __post_init__(self) -> None:
        if not 0.0 <= self.omega <= 1.0:
            raise InputError(f"omega must lie in [0, 1], got {self.omega}")
        if not 0.0 <= self.flat_angle < math.pi:
            raise InputError(f"flat_angle must lie in [0, pi), got {self.flat_angle}")
        for name, kind in (("slerp_on", SlerpOn), ("backbone", Backbone), ("contested", Contested)):
            if getattr(self, name) not in get_args(kind):
                raise InputError(f"{name} must be one of {', '.join(get_args(kind))}; got {getattr(self, name)!r}")


def merge(start: Tensors, tuned: Sequence[Tensors], cores: Sequence[Mask], how: Merging) -> dict[str, torch.Tensor]:
    """One model of the ``tuned`` copies of ``start``, in the order of their stages: of one copy, that copy (backbone last)."""
    out = {}
    for name, began in start.items():
        copies = [copy[name] for copy in tuned]
        masks = [each[name] for each in cores] if how.transplant else []
        value = (copies[-1] if how.backbone == "last" else began).detach().clone()
        others = copies[:-1] if how.backbone == "last" else copies
        outside = torch.ones_like(value, dtype=torch.bool)
        for mask in masks:
            outside &= ~mask
        if how.slerp and others:
            value[outside] = _folded(began[outside], value[outside], [other[outside] for other in others], how)
        if masks:
            _transplant(value, began, copies, masks, how.contested)
        out[name] = value
    return out


def _folded(began: torch.Tensor, backbone: torch.Tensor, others: Sequence[torch.Tensor], how: Merging) -> torch.Tensor:
    """One copy after the other joins, so that with linear steps all have the weights that `Merging.omega` says."""
    origin = began if how.slerp_on == "vectors" else torch.zeros_like(began)
    at, weight = backbone - origin, 1.0 - how.omega
    for other in others:
        weight += how.omega
        share = how.omega / weight if weight > 0.0 else 0.0
        at = slerp(at, other - origin, share, how.flat_angle)
    return origin + at


def _transplant(
    value: torch.Tensor,
    began: torch.Tensor,
    copies: Sequence[torch.Tensor],
    masks: Sequence[torch.Tensor],
    contested: Contested,
) -> None:
    """Write the copies' own values into their cores, in place."""
    stack, mask = torch.stack(list(copies)), torch.stack(list(masks))
    if contested == "mean":
        owners = mask.sum(0)
        mean = torch.where(mask, stack - began, 0.0).sum(0) / owners.clamp(min=1)
        # one owner: its own value to the bit, which start + (tuned - start) is not
        own = torch.where(mask, stack, 0.0).sum(0)
        written = torch.where(owners > 1, began + mean, own)
    else:
        moved = torch.where(mask, (stack - began).abs(), -1.0)
        written = stack.gather(0, moved.argmax(0, keepdim=True))[0]
    core_of_any = mask.any(0)
    value[core_of_any] = written[core_of_any]


def drive_shares(gradient: Tensors, mask: Mask) -> tuple[float, float]:
    r"""Shares of the drive that ``mask`` holds: of \(\lVert g\rVert_1\), what counts under Adam, and of \(\lVert g\rVert_2^2\), under SGD.

    Statement `isolation-clock`. Both are 0 where there is no gradient.
    """
    held, total = [0.0, 0.0], [0.0, 0.0]
    for name, each in gradient.items():
        size = each.detach().double().abs()
        for k, drive in enumerate((size, size**2)):
            held[k] += float(drive[mask[name]].sum())
            total[k] += float(drive.sum())
    return (held[0] / total[0] if total[0] else 0.0, held[1] / total[1] if total[1] else 0.0)
