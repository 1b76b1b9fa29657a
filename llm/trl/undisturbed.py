"""A model lent by its trainer: whatever is done with it within a block, training goes on as if nothing had been done."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Within it ``model`` is in evaluation mode, without gradients and autocast; after it everything is as before.

    Kept are the mode of every module, ``requires_grad`` of every weight (peft resets it when an adapter is switched) and
    the global random numbers of Python, numpy and torch. What a trainer has put in place of ``forward`` (accelerate:
    autocast) is taken off meanwhile: a distance is one of the weights as they are, as it is for a saved checkpoint.
    """
    modes = [(module, module.training) for module in model.modules()]
    trained = [(weight, weight.requires_grad) for weight in model.parameters()]
    device = next(model.parameters()).device
    draws, numpy_draws = random.getstate(), np.random.get_state()  # noqa: NPY002 -- a verifier may use them
    others = [] if device.type == "cpu" else [device]
    kind = "cuda" if device.type == "cpu" else device.type
    whole = [each for each in model.modules() if each is model or isinstance(each, PreTrainedModel)]
    # a hook of accelerate moves inputs between devices: that one stays
    replaced = [(each, each.__dict__.pop("forward", None)) for each in whole if not hasattr(each, "_hf_hook")]
    try:
        with (
            torch.random.fork_rng(others, device_type=kind),
            torch.autocast(device.type, enabled=False),
            torch.no_grad(),
        ):
            model.eval()
            yield
    finally:
        random.setstate(draws)
        np.random.set_state(numpy_draws)  # noqa: NPY002
        for each, forward in replaced:
            if forward is not None:
                each.__dict__["forward"] = forward
        for module, mode in modes:
            module.training = mode
        for weight, flag in trained:
            weight.requires_grad_(flag)
