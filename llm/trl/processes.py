"""The processes of a training: how they begin together, and what is known when one of them ends before the others."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from typing import Any

import torch
from accelerate import PartialState
from torch import distributed

from fstsim.errors import InputError

_GONE = re.compile(r"gloo|nccl|closed by peer|reset by peer|broken pipe|socket|store", re.IGNORECASE)


class ProcessLost(RuntimeError):
    """Another process of the training has ended, so that this one cannot go on."""


def begin_processes(device: str, timeout: int) -> PartialState:
    """This process and those that its launcher has started with it; they wait ``timeout`` seconds for each other.

    Raises InputError if one process sees several GPUs, of which it would use one.
    """
    on_cpu = device == "cpu"
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    if not on_cpu and alone and torch.cuda.device_count() > 1:
        raise InputError(
            f"{torch.cuda.device_count()} GPUs are visible to one process: start with accelerate launch --num_processes N -m fstsim train ..., "
            "or set CUDA_VISIBLE_DEVICES to one of them"
        )
    more: dict[str, Any] = {} if alone else {"timeout": timedelta(seconds=timeout)}
    if on_cpu and not alone:
        more["backend"] = "gloo"
    return PartialState(cpu=on_cpu, **more)


def as_lost(error: RuntimeError) -> ProcessLost | None:
    """``error`` as the end of another process, if that is what it tells of."""
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return None
    if isinstance(error, distributed.DistError) or _GONE.search(str(error)):
        return ProcessLost("another process of the training has ended")
    return None


def end_processes() -> None:
    """Let go of the others, where there are any."""
    if distributed.is_initialized():
        distributed.destroy_process_group()
