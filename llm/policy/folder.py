"""A model's folder before anything of it is loaded: what is there, whether it can be read, and whether it is what can be used.

Only ordinary files are opened (a FIFO would be waited for without end), only those of the folder itself, and of weights
only safetensors, whose headers say what they hold.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from fstsim.errors import InputError
from fstsim.llm.policy.declared import LENGTHS

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
ADAPTER = "adapter_config.json"
_INDEX = "model.safetensors.index.json"
_WEIGHTS = "model.safetensors"
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers")
_LARGEST = 64 << 20  # bytes of a file in JSON
_DEEPEST = 100
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})


def check_folder(folder: Path) -> None:
    """InputError, one line, unless ``folder`` holds a full model in safetensors, a tokenizer, and nothing that cannot be read."""
    names = _files(folder)
    if ADAPTER in names:
        raise InputError(
            f"{folder} is an adapter ({ADAPTER}): give the full model that it was trained on, or the two merged"
        )
    if not any(name.endswith(".safetensors") for name in names):
        raise InputError(f"model {folder} has no weights: a *.safetensors file is missing")
    if not any(name in names for name in TOKENIZERS):
        raise InputError(f"model {folder} has no tokenizer: one of {', '.join(TOKENIZERS)} is missing")
    if "config.json" not in names:
        raise InputError(f"model {folder} has no config.json")
    held = {name: _json(folder / name) for name in sorted(names) if name.endswith(".json")}
    for name, value in held.items():
        if not isinstance(value, dict) and name in (
            "config.json",
            "generation_config.json",
            "tokenizer_config.json",
            _INDEX,
        ):
            raise InputError(f"{folder / name} must be an object in JSON, not {type(value).__name__}")
    if not held.get("tokenizer.json", True):
        raise InputError(f"{folder / 'tokenizer.json'} is empty")
    config = held["config.json"]
    _check_config(folder / "config.json", config)
    _check_weights(folder, config, held.get(_INDEX), names)


def _files(folder: Path) -> set[str]:
    """Names of the files; InputError where one is no file, or cannot be opened."""
    try:
        if not folder.is_dir():
            hint = ": fstsim model makes a folder of it" if folder.suffix == ".gguf" else ""
            raise InputError(f"model {folder} is not a folder{hint}")
        names = set()
        for entry in sorted(os.listdir(folder)):
            mode = os.stat(folder / entry).st_mode
            if stat.S_ISDIR(mode):
                continue
            if not stat.S_ISREG(mode):
                raise InputError(f"model {folder}: {entry!r} is not an ordinary file")
            with (folder / entry).open("rb"):
                names.add(entry)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"model {folder} cannot be read: {_said(error)}") from error
    return names


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _json(path: Path) -> Any:
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(f"{path} has more than {_LARGEST >> 20} MB")
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} cannot be read as JSON: {_said(error)}") from error


def _check_config(path: Path, config: Mapping[str, Any]) -> None:
    if not isinstance(config.get("model_type"), str):
        raise InputError(f"{path} names no model_type: it is not the config of a model of transformers")
    quantised = config.get("quantization_config")
    if quantised:
        kind = quantised.get("quant_method", "") if isinstance(quantised, dict) else ""
        raise InputError(
            f"model {path.parent} is quantised{f' ({kind})' if kind else ''}: give the model with its full weights"
        )
    for key in ("_attn_implementation", "attn_implementation", "experts_implementation"):
        if "/" in str(config.get(key, "")):
            raise InputError(f"{path}: {key} {config[key]!r} names code of somebody's repository, which is not run")


def _check_weights(folder: Path, config: Mapping[str, Any], index: Any, names: set[str]) -> None:
    """Of every file: its header. Layers that the config declares cannot be more than there are tensors."""
    files = {_WEIGHTS}
    if _WEIGHTS not in names:
        if index is None:
            raise InputError(f"model {folder} has neither {_WEIGHTS} nor {_INDEX}")
        files = set(_indexed(folder / _INDEX, index))
    found: dict[str, str] = {}
    for name in sorted(files):
        if name not in names:
            raise InputError(f"{folder / _INDEX} names {name!r}, which is not in the folder")
        found |= _header(folder / name)
    if index is not None and _WEIGHTS not in names:
        for key in index["weight_map"]:
            if key not in found:
                raise InputError(f"{folder / _INDEX} names {key!r}, which is in none of its files")
    if not found:
        raise InputError(f"the weights of {folder} hold no tensor")
    for key, dtype in found.items():
        # buffers of older files, masks for example, are no floats, and are not read
        if (key.endswith("weight") and dtype not in _FLOATS) or dtype.startswith(("F8", "F6", "F4", "C")):
            raise InputError(
                f"model {folder} is quantised: {key} is stored as {dtype}; give the model with its full weights"
            )
    for key, value in _numbers(config):
        if key in LENGTHS and value < 1:
            raise InputError(f"{folder / 'config.json'}: {key} must be at least 1, got {value}")
        if key in _LAYERS and value > len(found):
            raise InputError(f"{folder / 'config.json'}: {key} is {value}, but the weights have {len(found)} tensors")


def _indexed(path: Path, index: Mapping[str, Any]) -> Iterator[str]:
    where = index.get("weight_map")
    if not isinstance(where, dict) or not where:
        raise InputError(f"{path} has no weight_map")
    for key, name in where.items():
        if (
            not isinstance(name, str)
            or name != os.path.basename(name)
            or "\\" in name
            or not name.endswith(".safetensors")
        ):
            raise InputError(f"{path} has {key!r} in {name!r}, which is no name of a *.safetensors file of the folder")
        yield name


def _header(path: Path) -> dict[str, str]:
    """Type of every tensor, by its name."""
    try:
        with safe_open(path, "pt") as opened:
            return {key: opened.get_slice(key).get_dtype() for key in opened.keys()}  # noqa: SIM118 -- it is no mapping
    except Exception as error:  # whatever a wrong byte leads to
        raise InputError(f"weights {path} cannot be loaded: {_said(error)}") from error


def _numbers(held: Any, depth: int = 0) -> Iterator[tuple[str, int]]:
    if isinstance(held, dict) and depth < _DEEPEST:
        for key, value in held.items():
            if isinstance(value, int) and not isinstance(value, bool):
                yield key, value
            else:
                yield from _numbers(value, depth + 1)


def weights_digest(folder: Path, more: str = "") -> str:
    """SHA-256, in hex, of ``more`` and the files of weights in ``folder``, in the order of their names."""
    digest = hashlib.sha256(more.encode())
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(
                hashlib.file_digest(file, "sha256").digest() if hasattr(hashlib, "file_digest") else file.read()
            )
    return digest.hexdigest()
