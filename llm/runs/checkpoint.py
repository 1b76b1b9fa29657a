"""Checkpoints: one safetensors file with weights, optimizer state and, as JSON, everything else needed to go on exactly.

One file, written whole or not at all: weights, moments, step and generator can never disagree. Nothing is unpickled.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch.optim import Optimizer

from fstsim.errors import InputError
from fstsim.reading import check_file, is_there, understood
from fstsim.records import write_atomically

Tensors = dict[str, torch.Tensor]


def write_checkpoint(path: Path, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> None:
    """Write ``tensors`` and the JSON-ready ``meta`` to ``path``, atomically."""
    # safetensors wants each tensor to own its memory: tied weights are cloned
    held = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    text = json.dumps(meta)
    data = save(held, metadata={"meta": text, "crc32": _checksum(held, text)})
    write_atomically(path, lambda file: file.write(data))


def read_checkpoint(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """Read what `write_checkpoint` wrote; InputError when the file is missing, cut off or something else."""
    if not is_there(path):
        raise InputError(f"no checkpoint at {path}")
    check_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            held = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- not a dict
        if held.get("crc32", "") not in ("", _checksum(tensors, held["meta"])):  # files of before have none
            raise InputError(
                f"{path} is damaged: its checksum is not that of its content; start the run anew in another --out"
            )
        with understood(path):
            meta = json.loads(held["meta"])
            return tensors, dict(meta)
    except (SafetensorError, KeyError, OSError) as error:
        raise InputError(f"{path} is not a checkpoint of fstsim: {error}") from error


def _checksum(tensors: Mapping[str, torch.Tensor], meta: str) -> str:
    """CRC-32 of every byte that a checkpoint holds: a flipped bit is no other learning rate, and no other model."""
    total = zlib.crc32(meta.encode())
    for name in sorted(tensors):
        total = zlib.crc32(name.encode(), total)
        total = zlib.crc32(tensors[name].contiguous().view(-1).view(torch.uint8).numpy().data, total)
    return f"{total:08x}"


def pack_optimizer(optimizer: Optimizer, prefix: str) -> tuple[Tensors, dict[str, Any]]:
    """State of an optimizer as tensors named ``prefix.<parameter>.<name>`` and a JSON-ready rest."""
    state = optimizer.state_dict()
    tensors: Tensors = {}
    numbers: dict[str, Any] = {}
    for index, entry in state["state"].items():
        for name, value in entry.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{prefix}.{index}.{name}"] = value
            else:
                numbers[f"{index}.{name}"] = value
    return tensors, {"groups": state["param_groups"], "numbers": numbers}


def unpack_optimizer(optimizer: Optimizer, prefix: str, tensors: Mapping[str, torch.Tensor], rest: Any) -> None:
    """Put a packed state back into an optimizer over the same parameters."""
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        if key.startswith(f"{prefix}."):
            index, name = key[len(prefix) + 1 :].split(".", 1)
            state.setdefault(int(index), {})[name] = tensor
    for key, value in rest["numbers"].items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": rest["groups"]})


def weights_of(model: torch.nn.Module) -> Tensors:
    """Trainable and fixed weights by name, without buffers that the model makes itself; tied ones once."""
    return {f"model.{name}": parameter for name, parameter in model.named_parameters()}


def put_weights(model: torch.nn.Module, tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Copy checkpoint weights into ``model``; InputError names the first that does not fit."""
    for name, parameter in model.named_parameters():  # all of them before the first is touched
        found = tensors.get(f"model.{name}")
        if found is None or found.shape != parameter.shape:
            has = "nothing" if found is None else f"shape {tuple(found.shape)}"
            raise InputError(f"{path} has {has} for {name}, the model {tuple(parameter.shape)}: another model?")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[f"model.{name}"])
