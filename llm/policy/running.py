"""How a policy's model runs: with which adapter, and whether activations are kept or computed again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

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

    They do so in training mode, which ends where their computation begins: nothing is dropped out, neither by their parts nor
    by the layers themselves (OPT, Falcon, the Bart family), and no layer is left out.
    """
    layers = recomputable(model)
    usual = [layer._gradient_checkpointing_func for layer in layers]
    for layer, run in zip(layers, usual, strict=True):
        layer.training, layer._gradient_checkpointing_func = True, partial(_without_dropout, layer, run)
    try:
        yield
    finally:
        for layer, run in zip(layers, usual, strict=True):
            layer.training, layer._gradient_checkpointing_func = False, run


def recomputable(model: PreTrainedModel) -> list[Any]:
    """The layers of ``model`` that can compute their numbers a second time."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def _without_dropout(layer: Any, run: Callable[..., Any], work: Callable[..., Any], *args: Any) -> Any:
    def quiet(*inputs: Any) -> Any:
        training, layer.training = layer.training, False
        try:
            return work(*inputs)
        finally:
            layer.training = training

    return run(quiet, *args)
