"""`DriftCallback`: KL, forgetting and flips of a training against its base, measured while any Trainer trains."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, broadcast_object_list
from torch import nn
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from fstsim.errors import InputError
from fstsim.llm.measure.config import MeasureSettings
from fstsim.llm.tasks.parse import parse_task
from fstsim.llm.trl.drift_run import DriftRun
from fstsim.llm.trl.models import BaseModel, lent_models
from fstsim.llm.trl.undisturbed import undisturbed
from fstsim.llm.types import Task

_SHARDED = {DistributedType.FSDP, DistributedType.MEGATRON_LM}


class DriftCallback(TrainerCallback):
    """Measures the model at the start, every ``every`` optimizer steps and at the end; with ``every=None`` after each evaluation.

    ``new`` is what is trained, shown without context, ``old`` what should not be forgotten, shown in its own: each a task by
    name (a JSONL file, as for `fstsim measure`) or an object. ``out`` is a directory, by default ``drift`` in the trainer's
    output directory. The base is the model without its adapter (peft), else a copy of the model at the start, which costs
    its memory once more; ``base`` names or is another one. Numbers go to the trainer's log as ``drift/new/kl_to_base`` and
    so on, means without standard errors, and whole to ``measure.json``, ``picture.png`` and ``card.html``.

    Training is not disturbed: weights are those of a training without it, to the bit. Of several processes the main one
    measures while the others wait. Raises InputError if a setting is wrong, or when training starts if the base, a
    tokenizer or the directory does not fit, or if weights are sharded over processes.
    """

    def __init__(
        self,
        *,
        new: str | Task = "",
        old: str | Task = "",
        every: int | None = 100,
        out: str | Path | None = None,
        base: BaseModel = None,
        settings: MeasureSettings | None = None,
    ) -> None:
        if every is not None and every < 1:
            raise InputError(f"every must be at least 1, or None, got {every}")
        given = {"new": new, "old": old}
        self._tasks = {n: parse_task(task) if isinstance(task, str) else task for n, task in given.items() if task}
        if not self._tasks:
            raise InputError("there is nothing to measure on: give new, old or both")
        self._every, self._out, self._base = every, out, base
        self._settings = settings or MeasureSettings()
        self._trainer: Any = None
        self._run: DriftRun | None = None
        self._last: int | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Measure the base and the model as it is."""
        self._trainer = calling_trainer()
        check_whole_weights(self._trainer)
        model = self._model()

        def start() -> int | None:
            out = Path(self._out) if self._out is not None else Path(str(args.output_dir)) / "drift"
            if self._run is not None:  # of a training that was interrupted
                self._run.claim.close()
            with undisturbed(model):
                models = lent_models(model, text_tokenizer(self._trainer), self._base, state.global_step)
                self._run = DriftRun.open(out, models, self._tasks, self._settings, state.global_step)
            return self._run.last

        self._last = on_main(self._trainer.accelerator, start)
        self._measure(state, control)

    def on_step_end(
        self,
        args: TrainingArguments,  # noqa: ARG002 -- as the trainer calls it
        state: TrainerState,
        control: TrainerControl,
        **_: Any,
    ) -> None:
        """Measure if it is due, or the last step."""
        due = self._every is not None and state.global_step % self._every == 0
        if due or state.global_step >= state.max_steps:
            self._measure(state, control)

    def on_evaluate(
        self,
        args: TrainingArguments,  # noqa: ARG002 -- as the trainer calls it
        state: TrainerState,
        control: TrainerControl,
        **_: Any,
    ) -> None:
        """Measure if that is when it is due."""
        if self._every is None and self._trainer is not None:
            self._measure(state, control)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Measure the last step of a training that was stopped early, draw, and let go of the models."""
        if not args.load_best_model_at_end:  # by now the model would be that of an earlier step
            self._measure(state, control)
        if self._run is not None:
            self._run.draw()
            self._run.claim.close()
        self._trainer, self._run = None, None

    def _model(self) -> nn.Module:
        model: nn.Module = self._trainer.accelerator.unwrap_model(self._trainer.model, keep_torch_compile=False)
        return model

    def _measure(self, state: TrainerState, control: TrainerControl) -> None:
        if state.global_step == self._last:
            return
        model = self._model()

        def measure() -> dict[str, float]:
            assert self._run is not None
            with undisturbed(model):
                return self._run.measure(state.global_step)

        row = on_main(self._trainer.accelerator, measure)
        self._last = state.global_step
        # not the trainer's own log: TRL's would take the averages of its running metrics with it
        due = control.should_log
        transformers.Trainer.log(self._trainer, row)
        self._trainer.control.should_log = due


def calling_trainer() -> Any:
    """The Trainer that has called a callback: transformers hands over the model and not the trainer, whose log we write to.

    Raises InputError if no Trainer is among the callers.
    """
    frame = sys._getframe(1)
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, transformers.Trainer):
            return caller
        frame = frame.f_back  # type: ignore[assignment]
    raise InputError("DriftCallback is for a Trainer of transformers or TRL: give it in callbacks=[...]")


def check_whole_weights(trainer: Any) -> None:
    """InputError if no process has all weights."""
    sharded = trainer.accelerator.distributed_type in _SHARDED
    for weight in trainer.model.parameters():
        sharded |= hasattr(weight, "ds_id") or hasattr(weight, "placements")  # ZeRO-3; a DTensor
    if sharded:
        raise InputError(
            "weights are sharded over processes, so that none can measure: use fstsim measure on saved checkpoints"
        )


def text_tokenizer(trainer: Any) -> PreTrainedTokenizerBase:
    """The tokenizer of a trainer's ``processing_class``; InputError if it has none."""
    found = getattr(trainer.processing_class, "tokenizer", trainer.processing_class)
    if not isinstance(found, PreTrainedTokenizerBase):
        raise InputError("the trainer has no tokenizer: give it one as processing_class")
    return found


class MainProcessFailed(InputError):
    """Work that only the main process does has failed there, which that process itself says."""


def on_main(accelerator: Accelerator | PartialState, work: Callable[[], Any]) -> Any:
    """What ``work`` returns on the main process, on all processes; if it fails there, all fail."""
    held: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            held[0] = work()
        except Exception as error:
            held[1] = f"{type(error).__name__}: {error}"
            broadcast_object_list(held)
            raise
    broadcast_object_list(held)
    if held[1] is not None:
        raise MainProcessFailed(f"the main process has failed: {held[1]}")
    return held[0]
