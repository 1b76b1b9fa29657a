"""What a training run must hold to go on exactly, in one file: its state, its random generator, and what it has recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fstsim.errors import InputError
from fstsim.fast_slow import FastSlowState
from fstsim.llm.learners.weights import Weights
from fstsim.llm.runs.checkpoint import (
    Tensors,
    pack_optimizer,
    put_parameters,
    read_checkpoint,
    unpack_optimizer,
    write_checkpoint,
)
from fstsim.llm.runs.recorded import checked_rows
from fstsim.llm.types import Population
from fstsim.reading import understood

State = FastSlowState[Weights, Population]

_SPENT = ("seconds", "probe_seconds", "relearn_seconds")
_COUNTERS = ("step", "task", "step_in_task", "slow_samples", "fast_samples")


@dataclass(frozen=True)
class RunRecord:
    """``rows`` of metrics, the population after each of the fast ``rounds``, seconds ``spent`` (in all, on probes, on relearning).

    ``errors`` holds the first message of a verifier that failed, if one did.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    rounds: list[dict[str, Any]] = field(default_factory=list)
    spent: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_SPENT, 0.0))
    errors: list[str] = field(default_factory=list)


def save_run(path: Path, state: State, record: RunRecord, rng: np.random.Generator) -> None:
    """Write ``state``, ``record`` and the generator to ``path``, whole or not at all."""
    tensors, rest = pack_optimizer(state.weights.optimizer, "optimizer")
    meta: dict[str, Any] = {
        "counters": {name: getattr(state, name) for name in _COUNTERS},
        "generator": rng.bit_generator.state,
        "optimizer": rest,
        "population": state.context.to_dict(),
        "rounds": record.rounds,
        "rows": record.rows,
        "spent": record.spent,
        **({"errors": record.errors} if record.errors else {}),
    }
    tensors |= {f"model.{name}": weight for name, weight in state.weights.kept().items()}
    extras, numbers = state.weights.extras()
    write_checkpoint(path, tensors | extras, meta | numbers)


def load_run(path: Path, fresh: State, rng: np.random.Generator) -> tuple[State, RunRecord]:
    """What `save_run` wrote to ``path``: weights and optimizer of ``fresh`` and ``rng`` are changed in place.

    Raises InputError if it is no checkpoint, or one of another model.
    """
    tensors, meta = read_checkpoint(path)
    with understood(path):
        return _loaded(path, tensors, meta, fresh, rng)


def _loaded(
    path: Path, tensors: Tensors, meta: Mapping[str, Any], fresh: State, rng: np.random.Generator
) -> tuple[State, RunRecord]:
    put_parameters(fresh.weights.kept(), tensors, path)
    weights = fresh.weights.with_extras(tensors, meta, path)
    try:
        unpack_optimizer(weights.optimizer, "optimizer", tensors, meta["optimizer"])
    except ValueError as error:
        raise InputError(f"{path} has an optimizer of another model: {error}") from error
    rng.bit_generator.state = meta["generator"]
    state = replace(fresh, weights=weights, context=Population.from_dict(meta["population"]), **meta["counters"])
    _check_counters(state)
    rows = checked_rows(path, meta["rows"])
    if rows[-1]["step"] != state.step or not all(isinstance(entry["prompts"], list) for entry in meta["rounds"]):
        raise ValueError("rows and counters are of different moments")
    spent = {name: float(value) for name, value in (dict.fromkeys(_SPENT, 0.0) | meta["spent"]).items()}
    return state, RunRecord(rows, list(meta["rounds"]), spent, list(meta.get("errors", [])))


def _check_counters(state: State) -> None:
    for name in _COUNTERS:
        value = getattr(state, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ValueError(f"{name} is {value!r}")
    for prompt in state.context.prompts:
        if not isinstance(prompt, str):
            raise ValueError(f"a context is {prompt!r}")
