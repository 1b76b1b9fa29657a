"""What a measurement needs in memory, from the sizes in the files, before anything is loaded."""

from __future__ import annotations

from math import prod
from pathlib import Path

import torch

from fstsim.errors import InputError
from fstsim.llm.measure.config import MeasureSettings
from fstsim.llm.measure.quantities import LOGITS_AT_ONCE, PROBLEMS_AT_ONCE
from fstsim.llm.policy.loading import PACKAGED, check_device, shipped_path
from fstsim.llm.policy.pretrained import SOURCES, cached_path
from fstsim.llm.runs.memory import shapes_of
from fstsim.reading import parse_json, read_text

_BYTES = 4  # float32
_LOGITS = 6  # copies of a block of logits: two models, their log-softmax, KL and entropy
_GIGABYTE = 1e9


def count_weights(folder: Path) -> int:
    """Numbers in the safetensors files of a folder, read from their headers; 0 where there are none."""
    return sum(map(prod, shapes_of(folder).values()))


def needed_bytes(base: str, settings: MeasureSettings, relearn: bool) -> int:
    """Bytes for ``base``, a checkpoint beside it and a block of logits; with ``relearn`` a copy that is trained with AdamW.

    0 for a model that is not on this machine, whose size nobody knows yet.
    """
    where = shipped_path(base) if base in PACKAGED else cached_path(base) if base in SOURCES else Path(base)
    weights = count_weights(where)
    if not weights:
        return 0
    models = 2 + 4 * relearn  # the copy, its gradients, two moments
    block = PROBLEMS_AT_ONCE * settings.samples * settings.max_new_tokens * _vocabulary(where)
    return _BYTES * (models * weights + _LOGITS * min(LOGITS_AT_ONCE, block))


def _vocabulary(folder: Path) -> int:
    try:
        config = parse_json(read_text(folder / "config.json"))
        return int(config.get("text_config", config)["vocab_size"])
    except (InputError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return 0  # loading says what is wrong


def free_bytes(device: str) -> int | None:
    """Bytes that may be had on ``device``; None where nobody says."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None
    return min(free, _left_to_group())


def _left_to_group() -> int:
    """What a container's limit leaves: its file cache can be given back."""
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        held = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return limit - used + int(held["inactive_file"])
    except (OSError, ValueError, KeyError):  # no container, or "max"
        return 2**62


def check_memory(base: str, device: str, settings: MeasureSettings, relearn: bool) -> None:
    """InputError if what is needed is more than what is free on ``device``."""
    check_device(device)
    needed, free = needed_bytes(base, settings, relearn), free_bytes(device)
    if free is not None and needed > free:
        smaller = "leave --relearn out, or " if relearn else ""
        raise InputError(
            f"measuring {base} takes about {needed / _GIGABYTE:.1f} GB on {device} (two models in float32 and a block of "
            f"logits{', and a trained copy' * relearn}), but {free / _GIGABYTE:.1f} GB are free: {smaller}use a larger machine"
        )
