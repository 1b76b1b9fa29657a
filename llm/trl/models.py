"""The policy that a trainer trains and the base that it started from: a second model, or the same one without its adapter."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fstsim.errors import InputError
from fstsim.llm.measure.layers import Pairs, distances, hash_weights, weight_distances
from fstsim.llm.measure.loading import beside, check_same_architecture, check_same_tokenizer, is_adapter
from fstsim.llm.policy.next_tokens import NextTokens
from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.rollouts import Rollouts

BaseModel = str | PreTrainedModel | None
"""A name as for ``--base``, a loaded model, or None: the trained model without its adapter, else a copy of it at the start."""


@dataclass(frozen=True)
class AdapterOff(Policy):
    """The policy of an adapted model (peft) with its adapter switched off: the base, without a second copy."""

    adapted: Any = None

    def sample(self, *args: Any, **named: Any) -> Rollouts:
        """As `Policy.sample`."""
        with self.adapted.disable_adapter():
            return super().sample(*args, **named)

    def next_tokens(self, rollouts: Rollouts) -> NextTokens:
        """As `Policy.next_tokens`."""
        with self.adapted.disable_adapter():
            return super().next_tokens(rollouts)


@dataclass(frozen=True)
class Models:
    """``now``, which is trained, and ``base``; ``name`` says what the base is."""

    now: Policy
    base: Policy
    name: str

    def weight_distances(self) -> dict[str, float]:
        """Relative distance of every layer and of all, as `fstsim measure` reports it of the saved and merged checkpoint."""
        if isinstance(self.base, AdapterOff):
            return distances(adapter_pairs(self.base.adapted))
        return weight_distances(self.now.model, self.base.model)

    def base_hash(self) -> str:
        """SHA-256 of the base's weights."""
        if isinstance(self.base, AdapterOff):
            return hash_weights((name, weight) for name, _, weight in adapter_pairs(self.base.adapted))
        return hash_weights(self.base.model.named_parameters())


def lent_policy(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> Policy:
    """The policy of a trainer's unwrapped ``model``; call it within `undisturbed`. InputError if it can be no policy."""
    lent: Any = model
    adapted = hasattr(model, "peft_config")
    if adapted and any(config.is_prompt_learning for config in lent.peft_config.values()):
        raise InputError("the adapter learns prompts, not weights: its drift cannot be measured; use one such as LoRA")
    trained = lent.get_base_model() if adapted else lent
    # the trainer's tokenizer stays as it is, and no graphs of a GPU's memory are kept in somebody else's training
    return replace(Policy.of(trained, copy.deepcopy(tokenizer)), static=False)


def lent_models(model: nn.Module, tokenizer: PreTrainedTokenizerBase, base: BaseModel, step: int) -> Models:
    """Both policies of a trainer's unwrapped ``model`` at optimizer step ``step``; call it within `undisturbed`.

    Raises InputError if no base can be had, or it differs from the model in more than its weights.
    """
    adapted = hasattr(model, "peft_config")
    now = lent_policy(model, tokenizer)
    trained = now.model
    if base is None and adapted:
        held = {each.name: getattr(now, each.name) for each in fields(now) if each.init}
        off = AdapterOff(**held, adapted=model)
        return Models(now, off, _name(trained, "the model without its adapter"))
    if base is None and step > 0:
        raise InputError(f"training goes on at step {step}, where the model is not the base any more: give base=")
    if base is None:
        return Models(now, beside(now, _frozen(copy.deepcopy(trained))), _name(trained, "the model at the start"))
    if adapted:
        raise InputError("the base of an adapted model is the model without its adapter: leave base= out")
    if isinstance(base, str):
        if is_adapter(base):
            raise InputError(f"{base} is an adapter: base= must be a full model")
        given = Policy.load(base, str(now.device), str(trained.dtype).removeprefix("torch."))
        check_same_tokenizer(base, given.tokenizer, now.tokenizer)
        base = given.model
    check_same_architecture("base=", base, trained)
    there: Any = base
    return Models(now, beside(now, _frozen(there.to(now.device))), _name(base, "base="))


def _frozen(model: PreTrainedModel) -> PreTrainedModel:
    model.requires_grad_(False)
    return model


def _name(model: PreTrainedModel, otherwise: str) -> str:
    return getattr(model.config, "_name_or_path", "") or otherwise


def adapter_pairs(adapted: Any) -> Pairs:
    """Every weight of an adapted model by the name it has without adapter: with the adapter merged, and without it.

    One layer at a time is copied and merged, the model itself is left alone. Raises InputError for parts that peft trains
    in another way.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper, ModulesToSaveWrapper

    seen: set[int] = set()
    inside: str | None = None

    def fresh(pairs: Pairs) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
        for pair in pairs:
            if id(pair[2]) not in seen:  # tied weights count once, as in `named_parameters`
                seen.add(id(pair[2]))
                yield pair

    for name, module in adapted.get_base_model().named_modules():
        if inside is not None and name.startswith(inside):
            continue
        if isinstance(module, BaseTunerLayer):
            inside = f"{name}."
            merged: Any = copy.deepcopy(module)
            merged.merge()
            yield from fresh(_parameters(name, merged.get_base_layer(), module.get_base_layer()))
        elif isinstance(module, ModulesToSaveWrapper):
            inside = f"{name}."
            now = module.modules_to_save[module.active_adapters[0]]
            yield from fresh(_parameters(name, now, module.original_module))
        elif isinstance(module, AuxiliaryTrainingWrapper):
            raise InputError(f"the adapter trains {name} as a {type(module).__name__}, which cannot be measured")
        else:
            own = module.named_parameters(recurse=False)
            yield from fresh((f"{name}.{key}".lstrip("."), weight, weight) for key, weight in own)


def _parameters(name: str, now: nn.Module, then: nn.Module) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    start = dict(then.named_parameters())
    for key, weight in now.named_parameters():
        yield f"{name}.{key}", weight, start[key]
