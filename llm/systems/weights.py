"""The weights of a run that trains a system: the base stays, and what moves is the system's state."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from fstsim.llm.learners.weights import Weights
from fstsim.llm.systems.system import Deployed


@dataclass(frozen=True)
class SystemWeights(Weights):
    """`Weights` whose ``policy`` and ``base`` are the same frozen model, with the ``system`` that is deployed.

    The optimizer is one over the system's parameters; where it has none, over nothing.
    """

    system: Deployed = field(kw_only=True)

    def trained(self) -> list[torch.nn.Parameter]:
        """The system's."""
        return self.system.parameters()


def trainable(system: Deployed) -> list[torch.nn.Parameter]:
    """What the optimizer of a system is made of: its parameters, or an empty one, as an optimizer of nothing cannot be."""
    return system.parameters() or [torch.nn.Parameter(torch.zeros(0))]
