"""What moves in a forecast, and where it begins: all weights of a model, or an adapter whose random factors each seed draws anew."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch

from fstsim.llm.policy.adapters import own_weights, with_adapter
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.checkpoint import put_parameters, read_checkpoint
from fstsim.llm.runs.config import TrainConfig


def moving(policy: Policy) -> list[torch.nn.Parameter]:
    """The weights of ``policy`` that training moves, in one order."""
    return list(own_weights(policy).values())


def policy_and_base(config: TrainConfig) -> tuple[Policy, Policy]:
    """The policy that a run of ``config`` trains, as it begins, and its base; raises InputError where they cannot be had."""
    policy = Policy.load(config.model, config.device)
    if config.adapter:
        return with_adapter(policy, config.adapter, config.seed)
    return policy, Policy.of(copy.deepcopy(policy.model).requires_grad_(False), policy.tokenizer)


def starting(config: TrainConfig, base: Policy, seed: int) -> Sequence[torch.Tensor]:
    """The weights that a run of ``config`` with ``seed`` begins with: those of ``base``, or of a new adapter."""
    if not config.adapter:
        return list(base.model.parameters())
    return moving(with_adapter(Policy.load(config.model, config.device), config.adapter, seed)[0])


@torch.no_grad()
def put_back(policy: Policy, start: Sequence[torch.Tensor]) -> None:
    """Copy ``start`` into the weights that move."""
    for own, wanted in zip(moving(policy), start, strict=True):
        own.copy_(wanted)


def trained(config: TrainConfig, base: Policy, run: Path) -> Policy:
    """The policy at the end of ``run``: from its last checkpoint, which has the weights whether or not a model was written.

    Raises InputError if there is none, or it is of another model.
    """
    tensors, _ = read_checkpoint(run / "checkpoint.safetensors")
    if config.adapter:
        policy = with_adapter(Policy.load(config.model, config.device), config.adapter, config.seed)[0]
    else:
        policy = Policy.of(copy.deepcopy(base.model), base.tokenizer)
    put_parameters(own_weights(policy), tensors, run / "checkpoint.safetensors")
    return policy
