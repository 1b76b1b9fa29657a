"""The directory of a training that is measured while it runs: what `fstsim measure` writes, with a checkpoint for every measured step.

It holds ``config.json``, ``environment.json``, ``cache/`` (what the base wrote), ``measure.json``, ``picture.png`` and ``card.html``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fstsim.errors import InputError
from fstsim.llm.measure.cache import cache_key, read_measured, write_measured
from fstsim.llm.measure.config import MeasureSettings
from fstsim.llm.measure.measure import problem_sets
from fstsim.llm.measure.quantities import Measured, ProblemSet, measure_against, measure_alone, measure_base
from fstsim.llm.tasks.guarded import VerifierErrors
from fstsim.llm.trl.models import Models
from fstsim.llm.types import Task
from fstsim.paper.records.measure_card import write_measure_card
from fstsim.paper.records.measure_curve import few_of, save_measure_curve
from fstsim.records import claimed_directory, environment, plain, read_json, write_json

KIND = "drift of a training"
_FILE = "measure.json"
_SECONDS = 60.0  # between pictures before the last one
_LOGGED = (
    "kl_to_base",
    "kl_to_base_token",
    "kl_from_base",
    "reward",
    "reward_change",
    "old_mass",
    "answer_nll",
    "entropy",
    "lost",
    "gained",
)
"""Columns of a set in a trainer's log."""


@dataclass
class DriftRun:
    """Measures ``models`` on ``sets`` and keeps rows; make it by `open`, within `undisturbed`."""

    out: Path
    models: Models
    settings: MeasureSettings
    sets: list[ProblemSet]
    errors: VerifierErrors
    then: dict[str, Measured] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    claim: ExitStack = field(init=False, default_factory=ExitStack)
    """closed when the training ends: until then the directory is this process's own"""
    _drawn: float = field(init=False, default_factory=time.monotonic)

    @classmethod
    def open(
        cls, out: Path, models: Models, tasks: Mapping[str, Task], settings: MeasureSettings, step: int
    ) -> DriftRun:
        """Measure the base, or read what directory ``out`` holds of it; rows after ``step``, where training starts, are dropped.

        Raises InputError, before anything is written, if a task does not fit the model or ``out`` holds something else.
        """
        errors = VerifierErrors()
        sets = problem_sets(tasks, models.base, settings, errors)
        digest = models.base_hash()
        hashes = {given.name: given.digest for given in sets}
        record = {"base_sha256": digest, "settings": asdict(settings), "problems_sha256": hashes}
        run = cls(out, models, settings, sets, errors)
        environs = environment(settings.seed, str(models.now.device))
        run.claim.enter_context(claimed_directory(out, record, environs, KIND))
        run.result = {"base": models.name, "base_sha256": digest, "sets": {}, "checkpoints": []}
        for given in sets:
            path = out / "cache" / f"base-{cache_key((digest,), given, settings)}.safetensors"
            if not path.exists():
                write_measured(path, measure_alone(models.base, given, settings))
            held = run.then[given.name] = read_measured(path, models.base.device)
            about = {"task": given.task.name, "context": given.context, "problems": len(given.problems)}
            run.result["sets"][given.name] = {**about, "base": measure_base(models.base, given, held)}
        if (out / _FILE).exists():
            run.result["checkpoints"] = [row for row in _rows(out / _FILE) if row["step"] <= step]
        return run

    @property
    def last(self) -> int | None:
        """The last step that was measured."""
        rows = self.result["checkpoints"]
        return rows[-1]["step"] if rows else None

    def measure(self, step: int) -> dict[str, float]:
        """Measure, write, and return columns for a trainer's log; once a step."""
        models = self.models
        weights = models.weight_distances()
        row = {
            "checkpoint": f"step {step}",
            "step": step,
            "sets": {
                given.name: measure_against(models.now, models.base, given, self.then[given.name], self.settings)
                for given in self.sets
            },
            "weights": weights,
            "weights_order": list(weights),
        }
        self.result["checkpoints"].append(row)
        if self.errors.count:
            self.result["verifier_errors"] = {"count": self.errors.count, "first": self.errors.first[0]}
        write_json(self.out / _FILE, plain(self.result))
        if time.monotonic() - self._drawn > _SECONDS:
            self.draw()
        return log_columns(row)

    def draw(self) -> None:
        """Picture and report card of what is measured so far."""
        self._drawn, result = time.monotonic(), plain(self.result)
        picture = save_measure_curve(result, self.out / "picture.png")
        write_measure_card(
            {**result, "checkpoints": few_of(result["checkpoints"])}, None, picture, self.out / "card.html"
        )


def log_columns(row: Mapping[str, Any]) -> dict[str, float]:
    """The main columns of a row, under names that a tracker groups: ``drift/new/kl_to_base``, ``drift/old/pass@4``, ``drift/weights``."""
    columns: dict[str, Any] = {}
    for name, values in row["sets"].items():
        columns |= {f"drift/{name}/{key}": values.get(key) for key in _LOGGED}
        columns |= {f"drift/{name}/pass@{k}": held["mean"] for k, held in values["pass_at"].items()}
    columns["drift/weights"] = row["weights"]["all"]
    return {key: value for key, value in plain(columns).items() if value is not None}


def _rows(file: Path) -> list[dict[str, Any]]:
    held = read_json(file)
    try:
        return [row for row in held["checkpoints"] if isinstance(row["step"], int)]
    except (KeyError, TypeError) as error:
        raise InputError(f"{file} is not that of a {KIND}: choose another out") from error
