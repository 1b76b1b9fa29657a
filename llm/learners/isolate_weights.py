"""Weights of which a part is frozen, to the bit, and what core isolation keeps beside them: tuned copies, cores, stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fstsim.errors import InputError
from fstsim.llm.learners.isolate_cores import Mask, Tensors
from fstsim.llm.learners.weights import Weights
from fstsim.llm.policy.adapters import own_weights


@dataclass(frozen=True)
class IsolatedWeights(Weights):
    """`Weights` with ``frozen`` entries that no update moves, and the state of core isolation.

    ``start`` are the weights that the run began with, ``tuned`` the copies that are still to be merged, ``cores`` those of the
    tasks so far, ``stages`` the groups of tasks in their order, ``age`` the slow steps made.
    """

    start: Tensors = field(kw_only=True)
    tuned: tuple[Tensors, ...] = ()
    cores: tuple[Mask, ...] = ()
    stages: tuple[tuple[int, ...], ...] = ()
    frozen: Mask | None = None
    age: int = 0

    @classmethod
    def begin(cls, weights: Weights) -> IsolatedWeights:
        """At the start of a run: nothing is tuned, nothing frozen."""
        held = {entry.name: getattr(weights, entry.name) for entry in fields(weights)}
        return cls(**held, start=copy_of(weights))

    def apply(self, what: str) -> float:
        """One optimizer step; entries in ``frozen`` are put back after it.

        The gradient alone would not do: weight decay moves an entry without one, and so do moments from before it was frozen.
        """
        if self.frozen is None:
            return super().apply(what)
        own = own_weights(self.policy)
        kept = {name: own[name].detach()[mask] for name, mask in self.frozen.items() if bool(mask.any())}
        norm = super().apply(what)
        with torch.no_grad():
            for name, values in kept.items():
                own[name][self.frozen[name]] = values
        return norm

    def extras(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """The copies, and a bit for every entry of a core."""
        tensors = {f"tuned.{k}.{name}": value for k, copy in enumerate(self.tuned) for name, value in copy.items()}
        masks = {f"core.{k}": each for k, each in enumerate(self.cores)}
        if self.frozen is not None:
            masks["frozen"] = self.frozen
        for label, mask in masks.items():
            tensors |= {f"{label}.{name}": _packed(part) for name, part in mask.items()}
        counts = {"tuned": len(self.tuned), "cores": len(self.cores), "stages": self.stages, "age": self.age}
        return tensors, {"isolation": {**counts, "frozen": self.frozen is not None}}

    def with_extras(self, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any], path: Path) -> IsolatedWeights:
        """With what `extras` gave. Raises InputError where it is of another model."""
        held = meta["isolation"]

        def of(label: str, *, packed: bool) -> dict[str, torch.Tensor]:
            out = {}
            for name, own in self.start.items():
                found = tensors.get(f"{label}.{name}")
                size = (own.numel() + 7) // 8 if packed else own.numel()
                if found is None or found.numel() != size:
                    raise InputError(f"{path} has no {label} of the model's {name}: another model?")
                out[name] = _unpacked(found, own) if packed else found.to(own.device)
            return out

        return replace(
            self,
            tuned=tuple(of(f"tuned.{k}", packed=False) for k in range(held["tuned"])),
            cores=tuple(of(f"core.{k}", packed=True) for k in range(held["cores"])),
            stages=tuple(tuple(stage) for stage in held["stages"]),
            frozen=of("frozen", packed=True) if held["frozen"] else None,
            age=held["age"],
        )


def copy_of(weights: Weights) -> dict[str, torch.Tensor]:
    """The policy's own weights as they are now."""
    return {name: own.detach().clone() for name, own in own_weights(weights.policy).items()}


@torch.no_grad()
def put(weights: Weights, values: Tensors) -> None:
    """Give the policy these weights, in place."""
    for name, own in own_weights(weights.policy).items():
        own.copy_(values[name])


def _packed(mask: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.packbits(mask.cpu().numpy().reshape(-1)))


def _unpacked(bits: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    flat = np.unpackbits(bits.cpu().numpy(), count=like.numel()).astype(bool)
    return torch.from_numpy(flat).view(like.shape).to(like.device)
