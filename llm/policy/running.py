"""How a policy's model runs: with which adapter, and whether activations are kept or computed again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

TRAINED, SHADOW = "default", "shadow"
"""Names of the adapters of a run within peft; the first is what peft reads back without being told a name."""


@dataclass(frozen=True)
class Switch:
    """Which adapter of ``peft_model`` a policy runs with: ``name``, or none of them."""

    peft_model: Any
    name: str | None

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """Within it the model runs with this adapter; the trained one is on before and after."""
        if self.name == TRAINED:
            yield
            return
        layers = [module for module in self.peft_model.modules() if hasattr(module, "_disable_adapters")]
        # by the layers' own fields: peft's methods also say which weights want a gradient, which stays as it is here
        try:
            for layer in layers:
                layer._disable_adapters = self.name is None
                layer._active_adapter = [self.name or TRAINED]
            yield
        finally:
            for layer in layers:
                layer._disable_adapters, layer._active_adapter = False, [TRAINED]


@contextlib.contextmanager
def recomputed(model: PreTrainedModel) -> Iterator[None]:
    """Within it layers keep their inputs alone, and compute the rest again in the backward pass.

    Layers do so in training mode; their parts stay in evaluation mode, so that nothing is dropped out.
    """
    layers = [m for m in model.modules() if getattr(m, "gradient_checkpointing", None) is not None and m is not model]
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False
