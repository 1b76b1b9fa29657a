"""What the base wrote on a set, kept in one safetensors file: the next checkpoint is measured without sampling it again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fstsim.llm.measure.config import MeasureSettings
from fstsim.llm.measure.quantities import Answers, Measured, ProblemSet, Sampled
from fstsim.llm.policy.rollouts import Rollouts
from fstsim.llm.runs.checkpoint import Tensors, read_checkpoint, write_checkpoint
from fstsim.reading import understood

_TENSORS = [field.name for field in fields(Rollouts) if field.name != "temperature"]


def cache_key(models: tuple[str, ...], given: ProblemSet, settings: MeasureSettings) -> str:
    """Name of what was measured of these models (hashes of weights) on a set with these settings."""
    told = [models, given.digest, given.context, asdict(settings)]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:24]


def write_measured(path: Path, held: Measured) -> None:
    """Write it whole or not at all."""
    tensors = {f"{k}.{name}": getattr(part, name) for k, part in enumerate(held.sampled.parts) for name in _TENSORS}
    for name in ("rewards", "solved", "greedy"):
        tensors[name] = torch.from_numpy(getattr(held.sampled, name))
    for name, values in _answers(held.answers).items():
        tensors[name] = torch.from_numpy(values)
    write_checkpoint(path, tensors, {"parts": len(held.sampled.parts)})


def read_measured(path: Path, device: torch.device) -> Measured:
    """What `write_measured` wrote. Raises InputError if the file is something else."""
    tensors, meta = read_checkpoint(path)
    with understood(path):
        return _measured(tensors, meta, device)


def _measured(tensors: Tensors, meta: Mapping[str, Any], device: torch.device) -> Measured:
    parts = tuple(_part(tensors, k, device) for k in range(meta["parts"]))
    rewards, solved, greedy = (tensors[name].numpy() for name in ("rewards", "solved", "greedy"))
    answers = (tensors[name].numpy() if name in tensors else None for name in ("right", "length", "old"))
    return Measured(Sampled(parts, rewards, solved, greedy), Answers(*answers))


def _part(tensors: Tensors, k: int, device: torch.device) -> Rollouts:
    held: dict[str, Any] = {name: tensors[f"{k}.{name}"].to(device) for name in _TENSORS}
    return Rollouts(**held)


def _answers(answers: Answers) -> dict[str, np.ndarray[Any, Any]]:
    return {name: values for name, values in vars(answers).items() if values is not None}
