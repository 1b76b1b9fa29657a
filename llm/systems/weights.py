"""The weights of a run that trains a system: the base stays, and what moves is the system's state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fstsim.errors import InputError
from fstsim.llm.learners.weights import Weights
from fstsim.llm.systems.system import Deployed

_SYSTEM = "system"
"""What the names of a system's tensors begin with in a file."""


@dataclass(frozen=True)
class SystemWeights(Weights):
    """`Weights` whose ``policy`` and ``base`` are the same frozen model, with the ``system`` that is deployed.

    The optimizer is one over the system's parameters; where it has none, over nothing.
    """

    system: Deployed = field(kw_only=True)

    def trained(self) -> list[torch.nn.Parameter]:
        """The system's."""
        return self.system.parameters()

    def kept(self) -> Mapping[str, torch.Tensor]:
        """None: the model is the base, which stays."""
        return {}

    def extras(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """The system's state."""
        return packed(self.system)

    def with_extras(self, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any], path: Path) -> SystemWeights:
        """With the system's state put into it, in place."""
        restore_system(self.system, tensors, meta, path)
        return self


def trainable(system: Deployed) -> list[torch.nn.Parameter]:
    """What the optimizer of a system is made of: its parameters, or an empty one, as an optimizer of nothing cannot be."""
    return system.parameters() or [torch.nn.Parameter(torch.zeros(0))]


def packed(system: Deployed) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The state of ``system`` as named tensors and a JSON-ready rest."""
    tensors = {f"{_SYSTEM}.{name}": value for name, value in system.tensors().items()}
    return tensors, {_SYSTEM: dict(system.notes())}


def restore_system(system: Deployed, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any], path: Path) -> None:
    """Give ``system`` the state that `packed` made and ``path`` holds, in place; InputError if it is of another system."""
    own = {name: value for key, value in tensors.items() if (name := key.removeprefix(f"{_SYSTEM}.")) != key}
    if _SYSTEM not in meta:
        raise InputError(f"{path} holds no state of a system: a run of another method?")
    try:
        system.restore(own, meta[_SYSTEM])
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        reason = f"there is no {reason}" if isinstance(error, KeyError) else reason
        raise InputError(f"{path} holds the state of another system: {reason}") from error
