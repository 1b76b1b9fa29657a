"""Checkpoints: one safetensors file with weights, optimizer state and, as JSON, everything else needed to go on exactly.

One file, written whole or not at all: weights, moments, step and generator can never disagree. Nothing is unpickled.
It is written straight from the tensors, one after the other, so that a checkpoint needs no memory of its own.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from torch.optim import Optimizer

from fstsim.errors import InputError
from fstsim.reading import check_file, is_there, understood
from fstsim.records import write_atomically

Tensors = dict[str, torch.Tensor]


_TYPES = {
    torch.float64: "F64",
    torch.int64: "I64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Names of types in a safetensors file."""
_CHECKSUM = "crc32_of_all"
_UNKNOWN = "0" * 8
"""Where the checksum will stand: it is known when everything has been written."""


def write_checkpoint(path: Path, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> None:
    """Write ``tensors`` and the JSON-ready ``meta`` to ``path``, atomically.

    The format is that of safetensors: the length of a JSON header, the header, the bytes of each tensor.
    """
    # large types first: then every tensor begins at a multiple of its type's size, as readers want it
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    text = json.dumps(meta)
    header: dict[str, Any] = {"__metadata__": {_CHECKSUM: _UNKNOWN, "meta": text}}
    start = 0
    for name in names:
        end = start + tensors[name].numel() * tensors[name].element_size()
        described = {"dtype": _TYPES[tensors[name].dtype], "shape": list(tensors[name].shape)}
        header[name] = {**described, "data_offsets": [start, end]}
        start = end
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    place = 8 + raw.index(_UNKNOWN.encode())

    def write(file: IO[bytes]) -> None:
        file.write(len(raw).to_bytes(8, "little") + raw)
        total = zlib.crc32(text.encode())
        for name in names:
            data = _bytes(tensors[name])  # of a tensor on an accelerator the one copy that there is
            total = zlib.crc32(data, zlib.crc32(_described(name, tensors[name]), total))
            file.write(data)
        file.seek(place)
        file.write(f"{total:08x}".encode())

    write_atomically(path, write)


def read_checkpoint(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """Read what `write_checkpoint` wrote; InputError when the file is missing, cut off or something else."""
    if not is_there(path):
        raise InputError(f"no checkpoint at {path}")
    check_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            held = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- not a dict
        if not _is_whole(tensors, held):
            raise InputError(
                f"{path} is damaged: its checksum is not that of its content; start the run anew in another --out"
            )
        with understood(path):
            meta = json.loads(held["meta"])
            return tensors, dict(meta)
    except (SafetensorError, KeyError, OSError) as error:
        raise InputError(f"{path} is not a checkpoint of fstsim: {error}") from error


def _is_whole(tensors: Mapping[str, torch.Tensor], held: Mapping[str, str]) -> bool:
    """Whether the CRC-32 of every byte is as written: a flipped bit is no other learning rate, and no other model.

    Older files have it over the tensors in the order of their names (``crc32``), or have none.
    """
    total = zlib.crc32(held["meta"].encode())
    if _CHECKSUM in held:
        for name in sorted(tensors, key=lambda name: (-tensors[name].element_size(), name)):
            total = zlib.crc32(_described(name, tensors[name]), total)
            total = zlib.crc32(_bytes(tensors[name]), total)
        return held[_CHECKSUM] == f"{total:08x}"
    for name in sorted(tensors):
        total = zlib.crc32(_bytes(tensors[name]), zlib.crc32(name.encode(), total))
    return held.get("crc32", "") in ("", f"{total:08x}")


def _described(name: str, tensor: torch.Tensor) -> bytes:
    return f"{name} {_TYPES.get(tensor.dtype)} {list(tensor.shape)}".encode()


def _bytes(tensor: torch.Tensor) -> memoryview:
    """The bytes of ``tensor``: its own memory where it is on the CPU and in one piece."""
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data


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
    put_parameters(dict(model.named_parameters()), tensors, path)


def put_parameters(
    parameters: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor], path: Path, prefix: str = "model"
) -> None:
    """Copy checkpoint weights called ``prefix.<name>`` into ``parameters``; InputError names the first that does not fit."""
    for name, parameter in parameters.items():  # all of them before the first is touched
        found = tensors.get(f"{prefix}.{name}")
        if found is None or found.shape != parameter.shape:
            has = "nothing" if found is None else f"shape {tuple(found.shape)}"
            raise InputError(f"{path} has {has} for {name}, the model {tuple(parameter.shape)}: another model?")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"{prefix}.{name}"])
