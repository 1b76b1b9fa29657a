"""What a run takes for the old behaviour of a task that declares none: the base model's own greedy completions, without context.

They are made once, from the base, and kept in the run directory (old_answers.json) with the hash of the problems that
they answer, so that a continued run measures the same thing. A file that does not fit is refused, never overwritten.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fstsim.errors import InputError
from fstsim.llm.policy.policy import Policy
from fstsim.llm.tasks.parse import problems_hash
from fstsim.llm.tasks.wrapped import Wrapped
from fstsim.llm.types import Answered, Demonstrated, Problem, Task
from fstsim.records import read_json, write_json

FILE = "old_answers.json"
_NEW = 64  # tokens after which a greedy completion that goes on is left
_AT_ONCE = 32
_KEYS = ("old_answers", "cut", "problems_sha256")


@dataclass(frozen=True)
class WithOldAnswers(Wrapped):
    """``task`` with what the base writes by itself as the old behaviour: ``old``, by the ``uid`` of a problem, filled by `known`."""

    task: Answered
    old: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    def answer(self, problem: Problem) -> str:
        """That of the task."""
        return self.task.answer(problem)

    def old_answer(self, problem: Problem) -> str:
        """The base's greedy completion."""
        return self.old[problem.uid]


def with_old_answers(tasks: Sequence[Task], policy: Policy) -> list[Task]:
    """``tasks``, those with answers and no old ones as tasks with both, which `known` fills; in the world all stay as they are."""
    if policy.template == "world":
        return list(tasks)
    needs = [isinstance(task, Answered) and not isinstance(task, Demonstrated) for task in tasks]
    return [WithOldAnswers(task) if need else task for task, need in zip(tasks, needs, strict=True)]  # type: ignore[arg-type]


def known(tasks: Sequence[Task], base: Policy, out: Path, problems: int, *, shown: bool) -> list[Task]:
    """``tasks`` with the old answers of the first ``problems`` test problems, and, if they are ``shown``, of all to train on.

    From ``out``/old_answers.json or, once, from ``base``. A task of which more than half of the completions do not end
    within 64 tokens has no old behaviour that can be measured, and stays as it was, unless its old answers are ``shown``.
    Raises InputError if the file is of other problems, lacks some, or was changed.
    """
    wanted = {task.name: task for task in tasks if isinstance(task, WithOldAnswers)}
    if not wanted:
        return list(tasks)
    asked = {
        name: {p.uid: p for p in [*task.problems("test")[:problems], *(task.problems("train") if shown else ())]}
        for name, task in wanted.items()
    }
    hashes = {name: problems_hash(task.task) for name, task in wanted.items()}
    path = out / FILE
    if path.exists():
        held = _read(path, hashes, asked)
    else:
        made = {name: _greedy(base, list(asked[name].values())) for name in wanted}
        held = {
            "old_answers": {name: texts for name, (texts, _) in made.items()},
            "cut": {name: cut for name, (_, cut) in made.items()},
            "problems_sha256": hashes,
        }
        write_json(path, {**held, "sha256": _digest(held)})
    for name, task in wanted.items():
        task.old.update(held["old_answers"][name])
    endless = {name for name in wanted if 2 * held["cut"][name] > len(asked[name]) and not shown}
    return [t.task if isinstance(t, WithOldAnswers) and t.name in endless else t for t in tasks]


def _greedy(base: Policy, problems: Sequence[Problem]) -> tuple[dict[str, str], int]:
    """Greedy completions by the ``uid`` of a problem, and how many of them were cut off."""
    texts: list[str] = []
    cut = 0
    for first in range(0, len(problems), _AT_ONCE):
        prompts = [base.encode("", p) for p in problems[first : first + _AT_ONCE]]
        limit = getattr(base.model.config, "max_position_embeddings", None)
        new = _NEW if limit is None else max(1, min(_NEW, limit - max(map(len, prompts))))
        rollouts = base.sample(prompts, 1, torch.Generator(base.device), max_new_tokens=new, temperature=0.0)
        last = rollouts.completions.gather(1, rollouts.mask.sum(1, keepdim=True) - 1)[:, 0]
        cut += sum(token not in base.end_tokens for token in last.tolist())
        texts += [text.strip() for text in base.decode(rollouts)]
    return {p.uid: text for p, text in zip(problems, texts, strict=True)}, cut


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _read(path: Path, hashes: Mapping[str, str], asked: Mapping[str, Mapping[str, Problem]]) -> dict[str, Any]:
    held = read_json(path)
    body: dict[str, Any] = {key: held.get(key) for key in _KEYS} if isinstance(held, dict) else {}
    if not body or held.get("sha256") != _digest(body):
        raise InputError(f"{path} was changed or is something else: choose another --out, or delete it to make it anew")
    for name, value in hashes.items():
        if body["problems_sha256"].get(name) != value:
            raise InputError(f"{path} is of other problems of {name}: choose another --out")
        lacking = [uid for uid in asked[name] if uid not in body["old_answers"][name]]
        if lacking:
            raise InputError(f"{path} lacks the old answer of problem {lacking[0]!r} of {name}: choose another --out")
    return body
