"""A second copy of the weights that moves with the run: SDFT's averaged teacher, OAPL's lagged sampler.

It is part of the state of a run, not of a learner: a learner stays a frozen set of settings, and a checkpoint that holds
policy, shadow and age holds everything.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from fstsim.llm.learners.weights import Weights
from fstsim.llm.policy.adapters import own_weights, shadow_of
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.checkpoint import put_parameters

_SHADOW = "shadow.model"
"""What the names of the shadow's weights begin with in a checkpoint."""


@dataclass(frozen=True)
class ShadowedWeights(Weights):
    """`Weights` with a ``shadow`` that no optimizer sees, and ``age``, the slow steps made so far."""

    shadow: Policy = field(kw_only=True)
    age: int = 0

    @classmethod
    def start(cls, weights: Weights) -> ShadowedWeights:
        """With a shadow that is the policy as it is now."""
        held = {entry.name: getattr(weights, entry.name) for entry in fields(weights)}
        if weights.policy.adapter is not None:
            return cls(**held, shadow=shadow_of(weights.policy))
        shadow = copy.deepcopy(weights.policy.model).requires_grad_(False).eval()
        return cls(**held, shadow=replace(weights.policy, model=shadow))

    @torch.no_grad()
    def follow(self, rate: float) -> None:
        r"""Move the shadow towards the policy, in place: \(\bar\theta \leftarrow \bar\theta + \rho(\theta - \bar\theta)\).

        ``rate`` 0 leaves it, 1 makes it the policy, exactly.
        """
        if rate == 0.0:
            return
        targets = own_weights(self.policy)
        for name, own in own_weights(self.shadow).items():
            own.lerp_(targets[name], rate)

    def extras(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """The shadow, and the age."""
        tensors, meta = super().extras()
        tensors |= {f"{_SHADOW}.{name}": weight for name, weight in own_weights(self.shadow).items()}
        return tensors, {**meta, "age": self.age}

    def with_extras(self, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any], path: Path) -> ShadowedWeights:
        """With the shadow's weights put into it, and the age."""
        super().with_extras(tensors, meta, path)
        put_parameters(own_weights(self.shadow), tensors, path, _SHADOW)
        return replace(self, age=meta["age"])
