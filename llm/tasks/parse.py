"""From the name that a user gives to a task: one of the three families, or a source of one's own."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fstsim.errors import InputError
from fstsim.llm.tasks import language, rules, stream, switch
from fstsim.llm.tasks.families import FAMILIES
from fstsim.llm.tasks.jsonl import read_jsonl
from fstsim.llm.tasks.python import load_task, objects_of, source_hash
from fstsim.llm.tasks.reasoning_gym import PREFIX, load_gym
from fstsim.llm.tasks.scratch import PREFIX as SCRATCH
from fstsim.llm.tasks.scratch import parse_scratch
from fstsim.llm.types import SPLITS, Answered, Demonstrated, Problem, Task

_PYTHON = re.compile(r".+\.py:\w+|[^\W\d]\w*(\.[^\W\d]\w*)+:\w+")


def parse_task(name: str) -> Task:
    """The task that ``--task`` and ``--old`` name. Raises InputError if there is none, or its file or module is wrong.

    ``family[@size][:rule[+rule ...]][/reward]``, ``family:rules~rules`` (a switch), ``stream:TASK,TASK``,
    ``scratch:family[@size]:rule+rule[/chain]``, ``language:RELATION[@ASK][:BEHAVIOUR][/normalised]``, ``file.jsonl``,
    ``module.py:object``, ``package.module:object`` or ``reasoning_gym:NAME?size=..&key=..``.
    """
    if rules.names_rules(name):
        return switch.parse_switch(name) if switch.MARK in name else rules.parse_rules(name)
    if name.startswith(stream.PREFIX):
        return stream.parse_stream(name, parse_task)
    if name.startswith(language.PREFIX):
        return language.language_task(name)
    if name.startswith(SCRATCH):
        return parse_scratch(name)
    if name.startswith(PREFIX):
        return load_gym(name)
    if name.endswith(".jsonl"):
        return read_jsonl(name)
    if _PYTHON.fullmatch(name):
        return load_task(name)
    if name.endswith(".py") and Path(name).is_file():
        there = objects_of(name)
        raise InputError(
            f"task {name} names no object of the file: "
            + (f"give one of {', '.join(there)}" if there else "it has none that is a task, a class or a function")
        )
    raise InputError(
        f"task {name!r} is unknown; a task is family:rule+rule, family@size:rule+rule, or either with /share, "
        f"with family one of {', '.join(FAMILIES)}; family:rules~rules, {stream.PREFIX}TASK,TASK, {SCRATCH}NAME, file.jsonl, "
        f"module.py:object, package.module:object, {PREFIX}NAME or {language.PREFIX}NAME"
    )


def own_problems(names: Sequence[str], tasks: Sequence[Task]) -> dict[str, str]:
    """SHA-256 of the problems of every task that its name alone does not fix: that are all but the families'.

    ``names`` are what the tasks were asked for by, and the keys.
    """
    return {name: problems_hash(task) for name, task in zip(names, tasks, strict=True) if not _fixes(name, task)}


def _fixes(name: str, task: Task) -> bool:
    """Whether ``task`` is all that ``name`` can mean: problems of families follow from it."""
    return (rules.names_rules(name) or name.startswith(SCRATCH)) and parse_task(name) == task


def problems_hash(task: Task) -> str:
    """SHA-256 of all that a task shows: problems by split, answers and old answers where it has them, and of a user's own source."""
    digest = hashlib.sha256(source_hash(task).encode())
    answers: list[Callable[[Problem], str]] = []
    if isinstance(task, Answered):
        answers.append(task.answer)
    if isinstance(task, Demonstrated):
        answers.append(task.old_answer)
    for split in SPLITS:
        for problem in task.problems(split):
            shown: list[Any] = [split, problem.family, problem.stated, problem.question, problem.messages]
            shown += [answer(problem) for answer in answers]
            digest.update(json.dumps(shown).encode() + b"\n")
    return digest.hexdigest()
