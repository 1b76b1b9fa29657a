"""Tasks of the reasoning-gym package: ``reasoning_gym:NAME?size=1000&seed=0&key=value``, with its own problems and verifiers.

``size`` questions are made from one ``seed``, which makes no other question at the same index; the splits are ranges of
that index: the first 80 % to train, 10 % to validate, the last 10 % to test. A question that was already asked is left
out, so that no question is in two splits. Other keys are settings of the data set. Source: arXiv 2505.24760.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from fstsim.errors import InputError
from fstsim.llm.types import SPLITS, Problem, Score, Split

PREFIX = "reasoning_gym:"
_SIZE = 1000
_MOST = 1_000_000
_SHOWN = 200  # characters of a completion in its feedback


@dataclass(frozen=True)
class GymTask:
    """Questions of one data set; ``entries`` are what its verifier asks for, by the ``uid`` of a problem."""

    name: str
    by_split: Mapping[Split, Sequence[Problem]] = field(repr=False)
    entries: Mapping[str, dict[str, Any]] = field(repr=False)
    dataset: Any = field(repr=False, compare=False)
    exact: bool = False
    """its verifiers may accept several ways of writing an answer, and reward some answers in part"""

    def problems(self, split: Split) -> Sequence[Problem]:
        """The problems of a split, in the order of the index."""
        return self.by_split[split]

    def score(self, problem: Problem, completion: str) -> Score:
        """Reward of the data set's own verifier."""
        entry, wrote = self.entries[problem.uid], completion.strip()
        reward = float(self.dataset.score_answer(wrote, entry))
        verdict = "correct" if reward == 1.0 else "wrong"
        return Score(reward, f"{verdict}. wrote: {wrote[:_SHOWN]} right: {entry['answer']}")


@dataclass(frozen=True)
class AnsweredGymTask(GymTask):
    """One of a data set that gives an answer to every question."""

    def answer(self, problem: Problem) -> str:
        """The data set's answer."""
        return str(self.entries[problem.uid]["answer"])


def load_gym(name: str) -> GymTask:
    """The task called ``name``. Raises InputError if the package is not there, or it has no such data set or setting."""
    try:
        import reasoning_gym
    except ImportError as error:
        raise InputError(f"task {name} needs the package reasoning-gym: pip install 'fstsim[reasoning-gym]'") from error
    dataset_name, _, asked = name.removeprefix(PREFIX).partition("?")
    settings = _settings(asked, name)
    size, seed = settings.pop("size", _SIZE), settings.pop("seed", 0)
    for what, value, low in (("size", size, 10), ("seed", seed, 0)):
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= _MOST:
            raise InputError(f"task {name}: {what} must be a whole number in {low}..{_MOST:,}, got {value}")
    try:
        dataset = reasoning_gym.create_dataset(dataset_name, size=size, seed=seed, **settings)
        entries = [dataset[k] for k in range(size)]
    except Exception as error:  # it has no exceptions of its own
        raise InputError(f"task {name}: reasoning_gym says {' '.join(str(error).split())}") from error
    return _task(name, dataset, entries)


def _settings(asked: str, name: str) -> dict[str, Any]:
    try:
        pairs = parse_qsl(asked, keep_blank_values=True, strict_parsing=bool(asked))
    except ValueError as error:
        raise InputError(f"task {name}: after ? there must be key=value&key=value, got {asked!r}") from error
    return {key: _value(value) for key, value in pairs}


def _value(text: str) -> Any:
    """A number, a list or a truth value as JSON writes them; else text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _task(name: str, dataset: Any, entries: Sequence[dict[str, Any]]) -> GymTask:
    edges = (0, len(entries) * 8 // 10, len(entries) * 9 // 10, len(entries))
    known: dict[str, dict[str, Any]] = {}
    by_split: dict[Split, list[Problem]] = {split: [] for split in SPLITS}
    for split, first, last in zip(SPLITS, edges, edges[1:], strict=False):
        for entry in entries[first:last]:
            problem = Problem("reasoning_gym", entry["question"], entry["question"])
            if problem.uid not in known:
                known[problem.uid] = entry
                by_split[split].append(problem)
    if min(map(len, by_split.values())) < 1 or len(by_split["test"]) < 2:
        raise InputError(
            f"task {name} has {len(known)} different questions in {len(entries)}: too few for three splits"
        )
    asked = [problem.text for problems in by_split.values() for problem in problems]
    assert len(set(asked)) == len(asked), "no question is in two splits"
    kind = AnsweredGymTask if all(isinstance(entry.get("answer"), str) for entry in entries) else GymTask
    return kind(name, by_split, known, dataset)
