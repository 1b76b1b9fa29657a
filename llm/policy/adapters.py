r"""Adapters (LoRA, by peft): a few weights beside a frozen model, so that policy, base and shadow are one model.

\(W + \frac{\alpha}{r} B A\) in place of every chosen weight W, with A random and B = 0 at the start: the policy begins as the
base, which is the same model with the adapter switched off, to the bit. A run then holds the model once, and gradients,
moments and checkpoints of the adapter alone. A shadow is a second adapter; its average is that of the factors A and B.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fstsim.errors import InputError
from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.running import SHADOW, TRAINED, Switch, recomputable

_FORM = "lora:r=16, with alpha=32 and targets=q_proj+v_proj where they are wanted"


@dataclass(frozen=True)
class LoraSettings:
    """Rank ``r``, ``alpha`` (what the product of the factors is scaled by is alpha / r), and which modules have one."""

    r: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] = ()
    """ends of the names of linear modules; none: all but the output layer"""

    @classmethod
    def parse(cls, text: str) -> LoraSettings:
        """From ``lora:r=16,alpha=32,targets=q_proj+v_proj``; alpha is twice r where it is not given."""
        kind, _, rest = text.partition(":")
        settings = dict(part.partition("=")[::2] for part in rest.split(",") if part)
        wrong = settings.keys() - {"r", "alpha", "targets"}
        if kind != "lora" or wrong:
            raise InputError(f"--adapter must be {_FORM}; got {text!r}")
        try:
            r = int(settings.get("r", 16))
            alpha = float(settings.get("alpha", 2 * r))
        except ValueError as error:
            raise InputError(f"--adapter must be {_FORM}; got {text!r}") from error
        targets = tuple(filter(None, settings.get("targets", "").split("+")))
        if r < 1 or not 0.0 < alpha < float("inf"):
            raise InputError(f"r of --adapter must be at least 1 and alpha positive, got {text!r}")
        return cls(r, alpha, targets)


def check_adapter(text: str) -> LoraSettings:
    """The settings that ``text`` names. Raises InputError where they are none, or peft is missing."""
    settings = LoraSettings.parse(text)
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise InputError("--adapter needs the package peft: pip install 'fstsim[adapters]'") from error
    return settings


def with_adapter(policy: Policy, text: str, seed: int) -> tuple[Policy, Policy]:
    """``policy`` with a new adapter, to be trained, and its base: the same model with the adapter off.

    ``seed`` draws the factor A. Raises InputError if the settings in ``text`` do not fit the model.
    """
    settings = check_adapter(text)
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # any number, although annotated as int
        lora_dropout=0.0,
        target_modules=list(settings.targets) or "all-linear",
        task_type="CAUSAL_LM",
    )
    model = policy.model
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft still uses names that transformers gives up
        torch.manual_seed(seed)
        try:
            held: Any = get_peft_model(model, config)
        except (ValueError, RuntimeError, TypeError) as error:
            reason = " ".join(re.sub(r"[^\S ]+", " ", str(error)).split())[:200]
            raise InputError(f"--adapter {text} does not fit the model: {reason}") from error
    model.eval()
    return replace(policy, adapter=Switch(held, TRAINED)), replace(policy, adapter=Switch(held, None))


def shadow_of(policy: Policy) -> Policy:
    """A copy of the trained adapter as another one of the same model."""
    assert policy.adapter is not None
    held = policy.adapter.peft_model
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        held.add_adapter(SHADOW, held.peft_config[TRAINED])
    held.set_adapter(TRAINED)
    shadow = replace(policy, adapter=Switch(held, SHADOW))
    own = own_weights(policy)
    with torch.no_grad():
        for name, weight in own_weights(shadow).items():
            weight.copy_(own[name])
            weight.requires_grad_(False)
    policy.model.eval()
    return shadow


def own_weights(policy: Policy) -> dict[str, torch.nn.Parameter]:
    """What is a policy's own, by name: all weights of its model, or those of its adapter."""
    if policy.adapter is None:
        return dict(policy.model.named_parameters())
    mark = f".{policy.adapter.name}."
    return {name.replace(mark, "."): p for name, p in policy.model.named_parameters() if mark in f"{name}."}


def save_policy(policy: Policy, place: Path) -> None:
    """Write the model of ``policy``, or its adapter (as a folder of peft), and the tokenizer."""
    if policy.adapter is None:
        policy.model.save_pretrained(place)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            policy.adapter.peft_model.save_pretrained(place, selected_adapters=[TRAINED])
    policy.tokenizer.save_pretrained(place)


def with_checkpointing(policy: Policy) -> Policy:
    """``policy`` that holds less in passes with gradients, in the same model. Raises InputError where its model cannot."""
    if not policy.model.supports_gradient_checkpointing or not recomputable(policy.model):
        raise InputError(f"--gradient-checkpointing: {type(policy.model).__name__} cannot do it")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the newest transformers have another name for it
        policy.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return replace(policy, checkpointing=True)
