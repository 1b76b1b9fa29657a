"""`fstsim tasks`: what a model can do before training. torch is imported when it runs."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import tyro

from fstsim.errors import InputError
from fstsim.front.command import AGAIN, quiet
from fstsim.front.console import Progress, complain, show
from fstsim.front.tables import tasks_caption, tasks_table

_Tasks = Annotated[
    tuple[str, ...],
    tyro.conf.arg(
        metavar="TASK [TASK ...]",
        help_behavior_hint="(default: all of the world that the model was trained on; of other models, the language suite)",
    ),
]


@dataclass(frozen=True)
class Tasks:
    """Show what a model can do on each task before any training: success, and the old behaviour, without context and with the rule in it."""

    model: str = "base"
    """the shipped base model, or any causal LM by path or hub name"""
    task: _Tasks = ()
    """only these, named as for fstsim train --task: a family with rules, language:plural:bare and the like, a file, a Python
    object, a reasoning-gym data set"""
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
        from fstsim.llm.runs.run_input import check_readable, check_splits
        from fstsim.llm.tasks.guarded import VerifierErrors, guarded
        from fstsim.llm.tasks.jsonl import JsonlTask
        from fstsim.llm.tasks.language import suite_tasks
        from fstsim.llm.tasks.parse import parse_task
        from fstsim.llm.tasks.python import source_hash
        from fstsim.llm.tasks.table import measure_tasks, table_tasks
        from fstsim.llm.tasks.wrapped import bare
        from fstsim.llm.types import TO_STATE_A_RULE, rule_words

        quiet()
        errors = VerifierErrors()
        named = [guarded(parse_task(name), errors) for name in self.task]
        for task in named:
            check_splits(task, ("test",))
        policy = Policy.load(self.model, self.device)
        for task in named:
            check_readable(policy, task, self.model)
        tasks = named or (suite_tasks() if policy.template != "world" else table_tasks(policy.sizes))
        rows: list[dict[str, Any]] = []
        with contextlib.closing(Progress("tasks", len(tasks), "tasks")) as progress:
            for task in tasks:
                progress.add(0, task.name)
                rows += measure_tasks(policy, [task], self.problems)
                # row by row: with a large model each takes a while
                progress.aside(tasks_table(rows[-1:], self.model, [t.name for t in tasks], header=len(rows) == 1))
                progress.add(1)
        if errors.count:
            complain(f"the verifier failed {errors.count} times, each scored 0; first: {errors.first[0]}")
        show(tasks_caption(rows))
        users = [task for task in named if isinstance(bare(task), JsonlTask) or source_hash(bare(task))]
        silent = [task.name for task in users if rule_words(task, policy.template) is None]
        if silent:
            show(f"no rule in words: {', '.join(silent)}; {TO_STATE_A_RULE}")
        return 0
