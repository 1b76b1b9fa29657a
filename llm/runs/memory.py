r"""Memory of a training run, estimated before the model is loaded.

With N weights, n of them trained (all, or those of an adapter), in float32: the policy and its frozen base \(4N\) each (with
an adapter one model for both), the shadow of learners that have one \(4n\), gradients \(4n\), the optimizer's moments
`OptimizerConfig.moments` times n, and for passes of a batch a few tensors of logits. Checkpoints need none.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from fstsim.errors import InputError
from fstsim.llm.policy.adapters import LoraSettings
from fstsim.llm.policy.loading import PACKAGED, shipped_path
from fstsim.llm.policy.pretrained import SOURCES, cached_path
from fstsim.llm.runs.config import TrainConfig
from fstsim.reading import check_file, parse_json

_PASSES = 1.2e9
"""Bytes that torch itself and the passes of a batch take, beside the weights."""
_MOST_AXES = 8
_SMALL = 5e7
"""Weights below which nobody runs out of memory."""


def shapes_of(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights in a folder of safetensors files, from their headers alone; none where there are none."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            check_file(path)  # a pipe would be waited for without end
            with path.open("rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                header = parse_json(file.read(min(length, 100_000_000)).decode("utf-8"))
            shapes |= {k: _shape(v["shape"]) for k, v in header.items() if k != "__metadata__"}
        except (InputError, OSError, ValueError, KeyError, TypeError, AttributeError, struct.error):
            return {}  # what is wrong with it is said when it is loaded
    return shapes


def _shape(value: Any) -> tuple[int, ...]:
    if not all(type(size) is int and size >= 0 for size in value) or len(value) > _MOST_AXES:
        raise ValueError(f"{value!r} is no shape")
    return tuple(value)


def memory_of(config: TrainConfig, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, float]:
    """Bytes by what they are for, of a run of ``config`` on a model whose weights have these ``shapes``."""
    weights = sum(map(prod, shapes.values()))
    trained = 0
    if config.learner is not None and config.adapter:
        settings = LoraSettings.parse(config.adapter)
        matrices = [s for name, s in shapes.items() if len(s) == 2 and "embed" not in name and "lm_head" not in name]
        trained = settings.r * sum(map(sum, matrices))
    elif config.learner is not None:
        trained = weights
    copies = config.learner.copies(len(config.tasks)) if config.learner is not None else 0
    relearning = (4.0 + 4.0 + 8.0) * weights if config.probe.relearn else 0.0
    parts = {
        "weights": 4.0 * weights,
        "base": 0.0 if config.adapter else 4.0 * weights,
        "adapter": 4.0 * trained if config.adapter else 0.0,
        "shadow": 4.0 * trained * copies,
        "gradients": 4.0 * trained,
        "moments": config.optimizer.moments * trained,
        "relearning": relearning,
        "passes": _PASSES,
    }
    return {name: size for name, size in parts.items() if size}


def free_memory() -> float | None:
    """Bytes that a process can still get on this machine, where the system says so."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    return None


def check_memory(config: TrainConfig) -> None:
    """InputError, before the model is loaded, if a run of ``config`` on the CPU needs more memory than there is."""
    where = shipped_path(config.model) if config.model in PACKAGED else Path(config.model)
    if config.model in SOURCES:
        where = cached_path(config.model)
    shapes = shapes_of(where) if config.device == "cpu" and where.is_dir() else {}
    free = free_memory()
    if free is None or sum(map(prod, shapes.values())) < _SMALL:
        return
    parts = memory_of(config, shapes)
    if (needed := sum(parts.values())) > free:
        what = ", ".join(f"{name} {size / 1e9:.2g}" for name, size in parts.items())
        raise InputError(
            f"{config.model} needs about {needed / 1e9:.2g} GB ({what}) and {free / 1e9:.2g} GB are free: "
            "take --adapter lora:r=16, --optimizer adamw-bf16-moments or a smaller model"
        )
