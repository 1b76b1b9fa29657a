"""A model and its tokenizer from a name: the shipped base, one that `fstsim model` fetched, a folder, or the hub; and what is said of one that cannot be had.

Only safetensors are read, and no code from a model's repository is run.
"""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from fstsim.errors import InputError
from fstsim.llm.policy.pretrained import SOURCES, cached_path

SHIPPED = "base"
"""Name of the base model that comes with the package."""
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def shipped_path() -> Path:
    """Folder of the base model that comes with the package."""
    return Path(str(files("fstsim.llm"))) / "base"


def check_device(device: str) -> None:
    """InputError unless torch can use ``device``."""
    try:
        torch.zeros(1, device=device).item()  # `meta` makes tensors without numbers
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        raise InputError(f"device {device!r} cannot be used here: {str(error).splitlines()[0]}") from error


def load_model(name: str, device: str, dtype: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model called ``name`` with weights of ``dtype`` on ``device``, and its tokenizer.

    Raises InputError if there is no such model, or its weights are missing, not whole or not safetensors.
    """
    where = str(shipped_path()) if name == SHIPPED else str(cached_path(name)) if name in SOURCES else name
    if name in SOURCES and not Path(where).exists():
        raise InputError(f"model {name} is not on this machine: run fstsim model {name}")
    if Path(where).exists() and not list(Path(where).glob("*.safetensors")):
        raise InputError(f"model {where} has no weights: a *.safetensors file is missing")
    if not Path(where).exists() and not _HUB_NAME.fullmatch(name):
        raise InputError(
            f"there is no model at {name!r}: give a path, {', '.join((SHIPPED, *SOURCES))}, or a hub name owner/model"
        )
    if Path(where).exists() and not any((Path(where) / file).exists() for file in _TOKENIZERS):
        raise InputError(f"model {where} has no tokenizer: one of {', '.join(_TOKENIZERS)} is missing")
    check_device(device)
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            where,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(f"model {name!r} cannot be loaded: {str(error).splitlines()[0]}") from error
    model, found = loaded
    wrong = [*found["missing_keys"], *(key[0] for key in found["mismatched_keys"])]
    if wrong:  # transformers would put random numbers there
        raise InputError(f"the weights of {name!r} lack {wrong[0]}, or have it in another shape")
    model.to(device)
    return model, tokenizer
