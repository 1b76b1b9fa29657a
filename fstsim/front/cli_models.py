"""Commands on models themselves: `pretrain` and `tasks`. Parsed by `fstsim.__main__`; torch is imported when one runs."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import tyro

from fstsim.errors import InputError
from fstsim.front.cli import AGAIN, CONTINUE, Directory
from fstsim.front.console import Progress, complain, show, tasks_table

_T = TypeVar("_T")
OfPreset = Annotated[_T | None, tyro.conf.arg(help_behavior_hint="(default: the preset's)")]
"""A flag that takes the place of a setting of the preset where it is given."""
_Tasks = Annotated[
    tuple[str, ...],
    tyro.conf.arg(
        metavar="TASK [TASK ...]",
        help_behavior_hint="(default: the whole table, at the sizes the model was trained on)",
    ),
]


def quiet() -> None:
    """No bars and warnings of transformers between ours."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def given(command: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """The flags among ``names`` that the user gave."""
    return {name: getattr(command, name) for name in names if getattr(command, name) is not None}


@dataclass(frozen=True)
class Pretrain:
    """Train the base model of the laboratory from scratch, or continue a training that was stopped."""

    preset: Literal["smoke", "small", "medium"] = "small"
    """smoke: seconds, to see it run; small: the shipped model, 15 minutes on 2 cores; medium: for a GPU"""
    out: Directory = Path("out/base")
    """directory of the model"""
    steps: OfPreset[int] = None
    """updates"""
    seed: int = 0
    """seed of weights and data"""
    precision: OfPreset[Literal["float32", "bfloat16"]] = None
    """of activations; every preset has bfloat16"""
    device: str = "cpu"
    """torch device, for example cuda"""
    stopped: ClassVar[str] = CONTINUE

    def run(self) -> int:
        """Train it."""
        from fstsim.llm.policy.loading import check_device
        from fstsim.llm.pretraining.pretrain import PRESETS, pretrain

        quiet()
        check_device(self.device)
        config = replace(PRESETS[self.preset], seed=self.seed, **given(self, ("steps", "precision")))
        with contextlib.closing(Progress("pretrain", config.steps, "steps")) as progress:
            pretrain(config, self.out, device=self.device, progress=progress.at)
        show((self.out / "README.md").read_text(encoding="utf-8").split("---\n", 2)[2], f"model: {self.out}")
        return 0


@dataclass(frozen=True)
class Tasks:
    """Show what a model can do on each task before any training: success without context and with the rules in context."""

    model: str = "base"
    """the shipped base model, or any causal LM by path or hub name"""
    task: _Tasks = ()
    """only these, named as for fstsim train --task: a family with rules, a file, a Python object, a reasoning-gym data set"""
    problems: int = 128
    """test problems of each task"""
    device: str = "cpu"
    """torch device"""
    stopped: ClassVar[str] = AGAIN

    def run(self) -> int:
        """Measure and show."""
        if self.problems < 2:
            raise InputError(f"problems must be at least 2, got {self.problems}")
        from fstsim.llm.policy.policy import Policy
        from fstsim.llm.runs.run_input import check_splits
        from fstsim.llm.tasks.guarded import VerifierErrors, guarded
        from fstsim.llm.tasks.parse import parse_task
        from fstsim.llm.tasks.table import measure_tasks, table_tasks

        quiet()
        errors = VerifierErrors()
        named = [guarded(parse_task(name), errors) for name in self.task]
        for task in named:
            check_splits(task, ("test",))
        policy = Policy.load(self.model, self.device)
        tasks = named or table_tasks(policy.sizes)
        rows = []
        with contextlib.closing(Progress("tasks", len(tasks), "tasks")) as progress:
            for task in tasks:
                progress.add(0, task.name)
                rows += measure_tasks(policy, [task], self.problems)
                progress.add(1)
        if errors.count:
            complain(f"the verifier failed {errors.count} times, each scored 0; first: {errors.first[0]}")
        show(tasks_table(rows, self.model))
        return 0
