"""A model and its tokenizer from a name: the shipped base, one that `fstsim model` fetched, a folder, or the hub; and what is said of one that cannot be had.

Only safetensors are read, and no code from a model's repository is run. What looks like a path is a path; the hub is asked
for names ``owner/model`` only, once and shortly, where they are not in its cache (never with HF_HUB_OFFLINE=1).
"""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from fstsim.errors import InputError
from fstsim.llm.policy.folder import check_folder
from fstsim.llm.policy.pretrained import SOURCES, cached_path

SHIPPED = "base"
"""Name of the base model that comes with the package."""
PACKAGED = (SHIPPED, "tiny", "scratch")
"""Names that are kept for the package's own folders: the base; a smaller one of the same world, the expert of proxy-tuning; and
``scratch``, trained on from the base so that it writes chains."""
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_OURS = "out"  # where our commands write by default
_HUB_SECONDS = 5.0  # for a first answer: whoever mistyped a name, or has no network, is not kept waiting
_HUB_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")


def shipped_path(name: str = SHIPPED) -> Path:
    """Folder of the model ``name``, one of `PACKAGED`, that comes with the package."""
    return Path(str(files("fstsim.llm"))) / name


def named_models() -> tuple[str, ...]:
    """Names that stand for models, for messages: those that the package holds, and those that `fstsim model` fetches."""
    return (*(name for name in PACKAGED if shipped_path(name).is_dir()), *SOURCES)


def check_device(device: str) -> None:
    """InputError unless torch can use ``device``."""
    try:
        torch.zeros(1, device=device).item()  # `meta` makes tensors without numbers
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        raise InputError(f"device {device!r} cannot be used here: {str(error).splitlines()[0]}") from error


def is_path(name: str) -> bool:
    """Whether ``name`` means a folder here rather than a model of the hub.

    It does if it is there, has another form than ``owner/model``, or begins with a folder that is there, or with the one that our
    commands write to (``out``).
    """
    if os.path.exists(name) or not _HUB_NAME.fullmatch(name) or ".." in name:
        return True
    first = name.partition("/")[0]
    return first == _OURS or os.path.exists(first)


def find_model(name: str) -> Path:
    """The folder of the model called ``name``, fetched from the hub if it is one of its names. Raises InputError if there is none."""
    if name in PACKAGED:
        if not shipped_path(name).is_dir():
            raise InputError(
                f"model {name} is not in this package: make it with fstsim pretrain --preset {name} --out DIR, and give --model DIR"
            )
        return shipped_path(name)
    if name in SOURCES:
        if not cached_path(name).exists():
            raise InputError(f"model {name} is not on this machine: run fstsim model {name}")
        return cached_path(name)
    if is_path(name):
        if not name or not os.path.exists(name):
            shown = repr(name if len(name) <= 200 else f"{name[:200]}...")
            raise InputError(
                f"there is no model at {shown}: give a path, {', '.join(named_models())}, or a hub name owner/model"
            )
        return Path(name)
    return _from_hub(name)


def _from_hub(name: str) -> Path:
    """From the cache of the hub, or by asking it. Files of weights that are pickles are not fetched."""
    from huggingface_hub import HfApi, snapshot_download

    try:
        kept = Path(snapshot_download(name, allow_patterns=list(_HUB_FILES), local_files_only=True))
        check_folder(kept)
        return kept
    except InputError:
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
            raise
    except Exception:
        pass
    try:
        HfApi().model_info(name, timeout=_HUB_SECONDS)
        return Path(snapshot_download(name, allow_patterns=list(_HUB_FILES)))
    except Exception as error:  # whatever a network does
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"there is no model at {name!r}, and the hub cannot be asked for it ({said}): give a path, "
            f"{', '.join(named_models())}, or a hub name owner/model"
        ) from error


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of the model called ``name``, whose weights are left alone. Raises InputError as `load_model`."""
    where = find_model(name)
    check_folder(where)
    with _refused(name):
        tokenizer: Any = AutoTokenizer.from_pretrained(where, trust_remote_code=False, local_files_only=True)
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise InputError(f"the tokenizer of {name!r} cannot be loaded: it is {tokenizer!r}")
    return tokenizer


@contextlib.contextmanager
def _refused(name: str) -> Iterator[None]:
    """In which a model is read: InputError for whatever goes wrong. Readers raise what a wrong byte or type leads to, panics of Rust too."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"model {name!r} cannot be loaded: {said}") from error


def load_model(name: str, device: str, dtype: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model called ``name`` with weights of ``dtype`` on ``device``, and its tokenizer.

    Raises InputError if there is no such model, its folder cannot be used (`folder.check_folder`), or its weights are not
    whole, not those of its architecture or not finite.
    """
    tokenizer = load_tokenizer(name)
    check_device(device)
    with _refused(name):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            find_model(name),
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    model, found = loaded
    _check_keys(name, model, found)
    check_finite(name, model)
    model.to(device)
    return model, tokenizer


def _check_keys(name: str, model: PreTrainedModel, found: dict[str, Any]) -> None:
    """InputError unless the weights are those of the architecture: transformers would put random numbers where they are missing."""
    mismatched = [key[0] for key in found.get("mismatched_keys", ())]
    wrong = {
        "lack": sorted(found.get("missing_keys", ())),
        "have in another shape": sorted(mismatched),
        "have beside those of its architecture": sorted(found.get("unexpected_keys", ())),
    }
    for what, keys in wrong.items():
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise InputError(
                f"the weights of {name!r} are not those of {type(model).__name__}, which its config.json declares: "
                f"they {what} {', '.join(keys[:3])}{more}"
            )
    declared = [each for each in getattr(model.config, "architectures", None) or () if isinstance(each, str)]
    others = [each for each in declared if each in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()]
    if others and type(model).__name__ not in declared:
        raise InputError(
            f"config.json of {name!r} names {others[0]}, but its model_type makes it a {type(model).__name__}"
        )


def check_finite(name: str, model: PreTrainedModel) -> None:
    """InputError if a weight of the model called ``name`` is not a number or infinite, or a buffer beside them (of routers, say) not a number."""
    with torch.no_grad():
        for key, weight in model.named_parameters():
            # the sum is enough in nearly all cases; it may overflow where no weight is infinite
            if not torch.isfinite(weight.sum(dtype=torch.float32)) and not torch.isfinite(weight).all():
                raise InputError(f"the weights of {name!r} are not finite: {key} has a value that is nan or infinite")
        for key, held in model.named_buffers():  # a mask may be infinite
            if torch.isnan(held).any():
                raise InputError(f"the weights of {name!r} are not finite: {key} has a value that is nan")
