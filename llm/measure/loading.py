"""Checkpoints that are compared with a base: full models, and adapters (PEFT) merged into a copy of it.

Only safetensors are read. Both sides write prompts with the base's tokenizer and stop at the base's end tokens, so that a
distance is one of weights alone.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from fstsim.errors import InputError
from fstsim.llm.policy.declared import vocabulary_size
from fstsim.llm.policy.loading import check_finite, load_model, load_tokenizer
from fstsim.llm.policy.policy import Policy
from fstsim.reading import parse_json, read_text

_ADAPTER = "adapter_config.json"
_ADAPTER_WEIGHTS = "adapter_model.safetensors"
_TRIED = ("The capital of France is Paris.", "  x = [1, 23, 456]\n", "Größe, naïve, 日本, 🙂")


def is_adapter(name: str) -> bool:
    """Whether ``name`` is the folder of an adapter."""
    return (Path(name) / _ADAPTER).is_file()


def load_base(name: str, device: str) -> Policy:
    """The model that others are compared with. Raises InputError if there is none, or it is an adapter or quantised."""
    if is_adapter(name):
        raise InputError(f"{name} is an adapter: --base must be the full model that it was trained on")
    policy = Policy.load(name, device)
    policy.model.requires_grad_(False)
    return policy


def load_checkpoint(name: str, base: Policy) -> Policy:
    """A full model, or an adapter on ``base``, as a policy that differs from ``base`` in its weights alone.

    Raises InputError if there is none, or architecture, shapes, vocabulary or tokenizer are not those of ``base``.
    """
    if is_adapter(name):
        model = _merged(name, base)
    else:
        model, tokenizer = load_model(name, str(base.device), "float32")
        check_same_architecture(name, model, base.model)
        check_same_tokenizer(name, tokenizer, base.tokenizer)
    return beside(base, model)


def beside(base: Policy, model: PreTrainedModel) -> Policy:
    """``model`` as a policy with everything else of ``base``."""
    return replace(base, model=model.eval())


def check_same_architecture(name: str, model: PreTrainedModel, base: PreTrainedModel) -> None:
    """InputError unless both models have the same weights by name and shape."""
    if model.config.model_type != base.config.model_type:
        raise InputError(
            f"{name} is of architecture {model.config.model_type}, the base of {base.config.model_type}: they must be the same"
        )
    theirs, ours = vocabulary_size(model), vocabulary_size(base)
    if theirs != ours:
        raise InputError(f"{name} has a vocabulary of {theirs}, the base of {ours}: they must be the same")
    shapes = [{key: tuple(weight.shape) for key, weight in each.named_parameters()} for each in (model, base)]
    for key in sorted(shapes[0].keys() | shapes[1].keys()):
        has, wants = (each.get(key, "nothing") for each in shapes)
        if has != wants:
            raise InputError(f"{name} has {has} for {key}, the base {wants}: the architectures must be the same")


def check_tokenizers(flag: str, name: str, model: str) -> None:
    """InputError, by tokenizers alone, unless the models called ``name``, given as ``flag``, and ``model`` have the same one."""
    if name != model:
        check_same_tokenizer(f"{flag} {name}", load_tokenizer(name), load_tokenizer(model))


def check_same_tokenizer(name: str, tokenizer: PreTrainedTokenizerBase, base: PreTrainedTokenizerBase) -> None:
    """InputError unless both tokenizers have the same vocabulary and cut the same texts in the same way."""
    theirs, ours = tokenizer.get_vocab(), base.get_vocab()
    if theirs != ours:
        word = min(theirs.items() ^ ours.items())[0]
        raise InputError(
            f"{name} has another tokenizer than the base ({word!r} is not the same token): use one for both"
        )
    for text in _TRIED:
        if tokenizer(text)["input_ids"] != base(text)["input_ids"]:
            raise InputError(
                f"{name} has another tokenizer than the base (it cuts {text!r} otherwise): use one for both"
            )


def _merged(name: str, base: Policy) -> PreTrainedModel:
    """A copy of ``base`` with the adapter ``name`` added to its weights."""
    try:
        from peft import PeftConfig, PeftModel
    except ImportError as error:
        raise InputError(f"{name} is an adapter, for which peft is needed: pip install 'fstsim[adapters]'") from error
    if not (Path(name) / _ADAPTER_WEIGHTS).is_file():
        raise InputError(f"adapter {name} has no weights: {_ADAPTER_WEIGHTS} is missing")
    tokenizers = [file for file in ("tokenizer.json", "tokenizer.model") if (Path(name) / file).is_file()]
    try:
        if PeftConfig.from_pretrained(name).is_prompt_learning:
            raise InputError(f"adapter {name} learns prompts, not weights: give one that can be merged, such as LoRA")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft still uses names that transformers gives up
            held: Any = PeftModel.from_pretrained(copy.deepcopy(base.model), name)
            model = held.merge_and_unload()
        if tokenizers:
            check_same_tokenizer(name, AutoTokenizer.from_pretrained(name, trust_remote_code=False), base.tokenizer)
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        trained_on = _trained_on(name)
        raise InputError(
            f"adapter {name} does not fit the base: {str(error).splitlines()[0]}"
            + (f" (it was trained on {trained_on}: give that as --base)" if trained_on else "")
        ) from error
    check_same_architecture(name, model, base.model)
    check_finite(name, model)
    return model.requires_grad_(False)


def _trained_on(adapter: str) -> str:
    """The model that an adapter says it was trained on, empty where it does not."""
    try:
        return str(parse_json(read_text(Path(adapter) / _ADAPTER))["base_model_name_or_path"] or "")
    except (InputError, ValueError, KeyError, TypeError):
        return ""
