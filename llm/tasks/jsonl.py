"""A task from a file of JSON lines: one problem a line, with its right answers.

Each line is an object with ``prompt`` (text) or ``messages`` (a chat: a list of objects with ``role`` and ``content``, the
last of the user), and ``answer`` (text) or ``answers`` (a list: each of them earns 1, the first is shown as the right one).
Optional are ``old_answer`` (what the model writes before training; in every line or in none), ``split`` (train, validation
or test; in every line or in none, where none the hash of the prompt decides) and ``context``: the task's own context, in which
it is measured as an old skill and which says its rule in words; one for the whole file.

A completion is right if it equals an answer exactly once white space at both ends is taken off.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fstsim.errors import InputError
from fstsim.llm.tasks.splits import split_by_hash
from fstsim.llm.types import SPLITS, Problem, Score, Split

_KEYS = ("prompt", "messages", "answer", "answers", "old_answer", "context", "split")
_ROLES = ("system", "user", "assistant")
_SHOWN = 200  # characters of a completion in its feedback


@dataclass(frozen=True)
class JsonlTask:
    """Problems of a file, each with the answers that are right; ``name`` is the file's path."""

    name: str
    by_split: Mapping[Split, Sequence[Problem]] = field(repr=False)
    answers: Mapping[str, tuple[str, ...]] = field(repr=False)
    """right answers of each problem, by its ``uid``"""
    context: str | None = None
    """the task's own context"""

    @property
    def exact(self) -> bool:
        """Whether every problem has one right answer."""
        return all(len(answers) == 1 for answers in self.answers.values())

    def problems(self, split: Split) -> Sequence[Problem]:
        """The problems of a split, in the order of the file."""
        return self.by_split[split]

    def answer(self, problem: Problem) -> str:
        """The first of its right answers."""
        return self.answers[problem.uid][0]

    def rule_words(self, template: str) -> str | None:  # noqa: ARG002 -- the file has one context for every model
        """The task's own context, if the file has one."""
        return self.context

    def score(self, problem: Problem, completion: str) -> Score:
        """1 if the completion is a right answer, else 0."""
        wrote = completion.strip()
        right = wrote in self.answers[problem.uid]
        verdict = "correct" if right else "wrong"
        return Score(float(right), f"{verdict}. wrote: {wrote[:_SHOWN]} right: {self.answer(problem)}")


@dataclass(frozen=True)
class JsonlTaskWithOld(JsonlTask):
    """One that also says what the model writes before training: ``old``, by the ``uid`` of a problem."""

    old: Mapping[str, str] = field(default_factory=dict, repr=False)

    def old_answer(self, problem: Problem) -> str:
        """The old behaviour's completion."""
        return self.old[problem.uid]


@dataclass(frozen=True)
class _Line:
    problem: Problem
    answers: tuple[str, ...]
    old_answer: str | None
    context: str | None
    split: Split | None


def read_jsonl(path: str) -> JsonlTask:
    """The task of file ``path``. Raises InputError that names the line where one is wrong (see the module for what is right)."""
    lines = list(_lines(path))
    if not lines:
        raise InputError(f"{path} is empty: a task needs one JSON object a line, with a prompt and an answer")
    seen: dict[str, _Line] = {}
    for line in lines:
        first = seen.setdefault(line.problem.uid, line)
        if first is not line:
            both = f" ({first.split} and {line.split})" if first.split != line.split else ""
            raise InputError(
                f"{line.problem.where}: the same prompt as {first.problem.where}{both}: give each prompt once, with all its answers"
            )
    for what in ("old_answer", "split"):
        lacking = [line for line in lines if getattr(line, what) is None]
        if 0 < len(lacking) < len(lines):
            raise InputError(
                f"{lacking[0].problem.where}: has no {what}, other lines have: give it in all lines or in none"
            )
    contexts = {line.context: line for line in lines if line.context is not None}
    if len(contexts) > 1:
        raise InputError(
            f"{list(contexts.values())[1].problem.where}: the context differs from that of earlier lines: a file has one context"
        )
    problems = [line.problem for line in lines]
    if lines[0].split is None:
        by_split = split_by_hash(problems, path)
    else:
        by_split = {split: [line.problem for line in lines if line.split == split] for split in SPLITS}
    answers = {line.problem.uid: line.answers for line in lines}
    old = {line.problem.uid: line.old_answer for line in lines if line.old_answer is not None}
    context = next(iter(contexts), None)
    if old:
        return JsonlTaskWithOld(path, by_split, answers, context, old)
    return JsonlTask(path, by_split, answers, context)


def _lines(path: str) -> Iterator[_Line]:
    if Path(path).exists() and not Path(path).is_file():
        raise InputError(f"task {path} is not a regular file")
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"task {path} cannot be read: {said}") from error
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: a JSON string may hold other line separators
        if line.strip():
            yield _line(line, f"{path}:{number}")


def _line(text: str, where: str) -> _Line:
    try:
        held = json.loads(text)
        text.encode()
        json.dumps(held, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: holds half of a surrogate pair, which is no text") from error
    except (ValueError, RecursionError) as error:
        said = error.msg if isinstance(error, json.JSONDecodeError) else "a number too long, or nested too deeply"
        raise InputError(f"{where}: not JSON ({said}): a task needs one JSON object a line") from error
    if not isinstance(held, dict):
        raise InputError(f"{where}: not a JSON object: a task needs one object a line, with a prompt and an answer")
    unknown = [key for key in held if key not in _KEYS]
    if unknown:
        raise InputError(f"{where}: key {unknown[0]!r} is unknown; allowed: {', '.join(_KEYS)}")
    for one, other in (("prompt", "messages"), ("answer", "answers")):
        if (one in held) == (other in held):
            has = f"both {one} and {other}" if one in held else f"neither {one} nor {other}"
            raise InputError(f"{where}: has {has}: give one of them")
    for key in ("prompt", "answer", "old_answer", "context"):
        if key in held and not isinstance(held[key], str):
            raise InputError(f"{where}: {key} must be text, got {type(held[key]).__name__}")
    split = held.get("split")
    if "split" in held and split not in SPLITS:
        raise InputError(f"{where}: split must be one of {', '.join(SPLITS)}; got {split!r}")
    answers = [held["answer"]] if "answer" in held else held["answers"]
    if not (isinstance(answers, list) and answers and all(isinstance(answer, str) for answer in answers)):
        raise InputError(f"{where}: answers must be a list of texts, at least one")
    stripped = tuple(dict.fromkeys(answer.strip() for answer in answers))
    if not all(stripped):
        raise InputError(f"{where}: an answer is empty")
    messages = _messages(held["messages"], where) if "messages" in held else ()
    prompt = held["prompt"] if "prompt" in held else _as_text(messages)
    if not prompt.strip():
        raise InputError(f"{where}: the prompt is empty")
    return _Line(
        Problem("jsonl", prompt, prompt, messages, where),
        stripped,
        held["old_answer"].strip() if "old_answer" in held else None,
        held.get("context"),
        split,
    )


def _messages(held: Any, where: str) -> tuple[tuple[str, str], ...]:
    fine = isinstance(held, list) and all(
        isinstance(m, dict)
        and m.keys() == {"role", "content"}
        and m["role"] in _ROLES
        and isinstance(m["content"], str)
        for m in held
    )
    if not (fine and held and held[-1]["role"] == "user"):
        raise InputError(
            f"{where}: messages must be a list of objects with role ({', '.join(_ROLES)}) and content (text), the last of the user"
        )
    return tuple((m["role"], m["content"]) for m in held)


def _as_text(messages: tuple[tuple[str, str], ...]) -> str:
    """A chat for models without a chat template; one message stands for itself."""
    if len(messages) == 1:
        return messages[0][1]
    return "\n".join(f"{role.capitalize()}: {content}" for role, content in messages)
