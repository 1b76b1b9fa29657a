"""Two outputs of lm-eval's ``--log_samples``, base and checkpoint, paired by document: what flipped on each task, with the exact test.

A folder holds ``samples_TASK_DATE.jsonl``, at any depth; of several dates of a task the last counts. A line is a document
under one filter, with its metrics by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fstsim.errors import InputError
from fstsim.llm.measure.paired import flips, mean_se
from fstsim.reading import read_text

_FILE = re.compile(r"samples_(.+)_(\d{4}-\d\d-\d\dT[\d.-]+)\.jsonl")
Documents = dict[tuple[str, int], Mapping[str, Any]]
"""By hash of the document and, where documents are equal, their number among the equal ones."""


@dataclass(frozen=True)
class Pairs:
    """The same documents of both outputs, in one order; ``only`` counts those that one of them lacks."""

    base: list[Mapping[str, Any]]
    now: list[Mapping[str, Any]]
    only: int


def compare_lm_eval(base: str, checkpoint: str) -> dict[str, Any]:
    """A row for every task, filter and metric that both folders have: means, paired change, flips, p, documents.

    Flips are of metrics that are 0 or 1 for every document. Raises InputError if a folder has no samples, a line is not one
    of lm-eval's, or the folders share no task.
    """
    files = [sample_files(Path(folder)) for folder in (base, checkpoint)]
    rows: list[dict[str, Any]] = []
    for task in sorted(files[0].keys() & files[1].keys()):
        sides = [read_samples(held[task]) for held in files]
        for name in sorted(sides[0].keys() & sides[1].keys()):
            pairs = paired(sides[0][name], sides[1][name])
            rows += [{"task": task, "filter": name, **row} for row in _metrics(pairs)]
    if not rows:
        raise InputError(f"{base} and {checkpoint} have no document of a task in common: nothing can be paired")
    alone = sorted(files[0].keys() ^ files[1].keys())
    return {"base": base, "checkpoint": checkpoint, "rows": rows, "tasks_of_one_only": alone}


def sample_files(folder: Path) -> dict[str, Path]:
    """Task -> its last file of samples below ``folder``; InputError if there is none."""
    if not folder.is_dir():
        raise InputError(
            f"there is no folder {folder}: give one that lm-eval wrote with --output_path and --log_samples"
        )
    last: dict[str, tuple[str, Path]] = {}
    for path in sorted(folder.rglob("samples_*.jsonl")):
        if match := _FILE.fullmatch(path.name):
            task, date = match.groups()
            if task not in last or last[task][0] < date:
                last[task] = (date, path)
    if not last:
        raise InputError(f"{folder} holds no samples_TASK_DATE.jsonl: run lm-eval with --log_samples")
    return {task: path for task, (_, path) in last.items()}


def read_samples(path: Path) -> dict[str, Documents]:
    """Filter -> its documents. Raises InputError that names the line if one is not of lm-eval."""
    found: dict[str, Documents] = {}
    lines = []
    text = read_text(path)
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            lines.append(_sample(line, f"{path}:{number}"))
    if not lines:
        raise InputError(f"{path} is empty")
    for held in sorted(lines, key=lambda line: line["doc_id"]):
        documents = found.setdefault(str(held.get("filter", "none")), {})
        digest, copy = str(held.get("doc_hash", held["doc_id"])), 0
        while (digest, copy) in documents:
            copy += 1
        documents[digest, copy] = held
    return found


def _sample(line: str, where: str) -> dict[str, Any]:
    try:
        held = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON: lm-eval's samples have one object a line") from error
    if not isinstance(held, dict) or not isinstance(held.get("doc_id"), int):
        raise InputError(f"{where}: not a sample of lm-eval: doc_id is missing")
    return held


def paired(base: Documents, now: Documents) -> Pairs:
    """The documents that both have."""
    both = [key for key in base if key in now]
    return Pairs([base[k] for k in both], [now[k] for k in both], len(base.keys() ^ now.keys()))


def _metrics(pairs: Pairs) -> list[dict[str, Any]]:
    """A row for every number that all documents have in both."""
    if not pairs.base:
        return []
    prompts = [(a.get("prompt_hash"), b.get("prompt_hash")) for a, b in zip(pairs.base, pairs.now, strict=True)]
    about = {
        "documents": len(pairs.base),
        "unpaired": pairs.only,
        "other_prompts": sum(ours != theirs for ours, theirs in prompts),
    }
    rows = []
    for name in pairs.base[0].get("metrics", _numbers(pairs.base[0])):
        both = [[held.get(name) for held in side] for side in (pairs.base, pairs.now)]
        if not all(isinstance(value, (int, float)) for side in both for value in side):
            continue
        before, after = (np.array(side, np.float64) for side in both)
        row: dict[str, Any] = {"metric": name, **about}
        row["base"], row["base_se"] = mean_se(before)
        row["now"], row["now_se"] = mean_se(after)
        row["change"], row["change_se"] = mean_se(after - before)
        if np.isin([before, after], (0.0, 1.0)).all():
            row |= flips(before == 1.0, after == 1.0)
        rows.append(row)
    return rows


def _numbers(sample: Mapping[str, Any]) -> list[str]:
    """Metrics of a sample whose list of them is missing, as before 2025."""
    return [key for key, value in sample.items() if key != "doc_id" and isinstance(value, (int, float))]
