"""What the main process writes of a run on TRL's engine: the same rows, contexts and files as our loop, and where to go on.

A checkpoint of the trainer is whole once it holds ``record.json``, which is written last; older ones are removed after that.
A finished run has none: it holds the one ``checkpoint.safetensors`` that every finished run has.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fstsim.fast_slow import FastSlowState
from fstsim.llm.learners.weights import Weights
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.clock import Clock
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.recorded import checked_rows
from fstsim.llm.runs.rows import measure_row, progress_note, summary_of, write_record, write_result
from fstsim.llm.runs.run_checkpoint import RunRecord, State, save_run
from fstsim.llm.tasks.guarded import VerifierErrors
from fstsim.llm.trl.arguments import checkpoints_of, learner_of
from fstsim.llm.trl.undisturbed import undisturbed
from fstsim.llm.types import UNUSABLE, Population
from fstsim.reading import understood
from fstsim.records import plain, read_json, write_json, write_text

_RECORD = "record.json"
Notes = Callable[[int, str], None]
Rounds = Sequence[Mapping[str, Any]]


def last_checkpoint(out: Path) -> Path | None:
    """The newest whole checkpoint of the trainer in run directory ``out``."""
    whole = [path.parent for path in checkpoints_of(out).glob(f"checkpoint-*/{_RECORD}")]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def read_record(checkpoint: Path) -> RunRecord:
    """What was recorded up to ``checkpoint``. Raises InputError if it is damaged."""
    path = checkpoint / _RECORD
    held = read_json(path)
    with understood(path):
        return RunRecord(checked_rows(path, held["rows"]), held["rounds"], held["spent"], held["errors"])


@dataclass
class Scribe:
    """Measures ``weights`` while ``model``, which they are in, is the trainer's, and writes what `fstsim train` writes."""

    config: TrainConfig
    out: Path
    weights: Weights
    model: nn.Module
    """the trainer's, unwrapped: with its adapter, where it has one"""
    probes: Sequence[Any]
    record: RunRecord
    errors: VerifierErrors
    """of the tasks that this process trains and measures on"""
    clock: Clock
    relearn: Callable[[], dict[str, int]] | None
    progress: Notes | None
    tell: Callable[[dict[str, Any]], None]

    def __post_init__(self) -> None:
        rows = self.record.rows
        self._drawn = rows[-1]["samples"] if rows else 0
        self._asked = time.perf_counter()

    @property
    def _total(self) -> int:
        return self.config.steps * len(self.config.tasks)

    @contextlib.contextmanager
    def _measuring(self, what: str) -> Iterator[None]:
        with self.clock.on(what), undisturbed(self.model):
            yield

    def state(self, step: int, population: Population, rounds: Rounds) -> State:
        """Where the run stands after slow step number ``step`` and the fast ``rounds`` of the trainer."""
        task = min(max(step - 1, 0) // self.config.steps, len(self.config.tasks) - 1)
        learner = learner_of(self.config)
        return FastSlowState(
            self.weights,
            population,
            step,
            task,
            step - task * self.config.steps,
            step * learner.problems * learner.rollouts,
            sum(held["samples"] for held in rounds),
        )

    def begin(self, state: State) -> None:
        """The row of step 0, unless the run goes on; tells all rows with measurements."""
        rows = self.record.rows
        if not rows:
            with self._measuring("probe_seconds"):
                row = {"step": 0, "samples": 0, "task": 0, **measure_row(self.probes, self.policy, state)}
            rows.append(plain({**row, **self.errors.take(), **self._relearned()}))
        self.errors.take()  # of measuring the base anew: the row of step 0 has them
        for row in rows:
            if "reward" in row:
                self.tell(row)

    @property
    def policy(self) -> Policy:
        """What is trained."""
        return self.weights.policy

    def _relearned(self) -> dict[str, int]:
        if self.relearn is None:
            return {}
        with self._measuring("relearn_seconds"), torch.enable_grad():
            return self.relearn()

    def step(self, state: State, metrics: Mapping[str, Any], rounds: Rounds, failed: int) -> bool:
        """The row of the slow step that has led to ``state``; whether a checkpoint is due.

        ``failed`` is how often verifiers failed in the step, on all processes. A round of the trainer came before this step where the last one says so.
        """
        row: dict[str, Any] = {"step": state.step, "samples": state.samples, "task": state.task, **metrics}
        first = (state.step - 1) * learner_of(self.config).updates
        if rounds and rounds[-1]["step"] == first and rounds[-1]["metrics"]:
            told = rounds[-1]["metrics"]
            row |= {key: value for key, value in told.items() if key != UNUSABLE}
            unusable = {key: value for key, value in told.items() if key == UNUSABLE}
            entry = {"step": state.step - 1, "task": state.task, **state.context.to_dict(), **unusable}
            self.record.rounds.append(plain(entry))
        last = state.step == self._total
        probed = self.config.probe.due(state.step_in_task) or state.step_in_task == self.config.steps
        if probed:
            with self._measuring("probe_seconds"):
                row |= measure_row(self.probes, self.policy, state)
        if last:
            row |= self._relearned()
        failed += self.errors.take().get("verifier_errors", 0)
        self.record.rows.append(plain(row | ({"verifier_errors": failed} if failed else {})))
        if probed:
            self.tell(self.record.rows[-1])
        if self.progress is not None:
            rate = (state.samples - self._drawn) / self.clock.elapsed()
            self.progress(state.step, progress_note(self.record.rows, rate))
        self._asked = time.perf_counter()
        return not last and self.clock.due(probed)  # after the last step comes the checkpoint of a finished run

    def kept(self, checkpoint: Path) -> None:
        """The trainer has written ``checkpoint``: say what was recorded up to it, and remove all others."""
        self.clock.stop()
        # rows keep the order of their columns, so that the files of a continued run are those of another
        write_text(checkpoint / _RECORD, json.dumps(plain(asdict(self.record))) + "\n")
        write_record(self.out, self.record)
        for other in checkpoints_of(self.out).glob("checkpoint-*"):
            if other != checkpoint:
                shutil.rmtree(other)
        self.clock.saved = time.perf_counter()
        self.clock.saving = self.clock.saved - self._asked

    def finish(self, state: State, write_model: bool) -> None:
        """The files of a finished run."""
        self.clock.stop()
        rng = np.random.default_rng(self.config.seed)  # nothing is drawn from it: the trainer has generators of its own
        save_run(self.out / "checkpoint.safetensors", state, self.record, rng)
        close_run(self.config, state, self.record, self.out, write_model)


def close_run(config: TrainConfig, state: State, record: RunRecord, out: Path, write_model: bool) -> None:
    """What comes after the last checkpoint of a run; the trainer's own are not needed any more."""
    write_record(out, record)
    if write_model:
        write_result(config, state.weights.policy, state, out)
    if not (out / "summary.json").exists():
        write_json(out / "summary.json", summary_of(config, record, state))
    shutil.rmtree(checkpoints_of(out), ignore_errors=True)
