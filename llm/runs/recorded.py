"""Reads the files of a training run that are for people and tables: whatever was damaged is one line that names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fstsim.columns import COLUMNS
from fstsim.reading import check_object, check_rows
from fstsim.records import read_json, read_rows

_NUMBERS = ("task", "samples", *(column.name for column in COLUMNS))
_NUMBER = (int, float)


def checked_rows(path: Path, rows: Any) -> list[dict[str, Any]]:
    """Rows of metrics that came from ``path``; InputError unless every column that tables and pictures read is of numbers."""
    return check_rows(path, rows, _NUMBERS, needed=("step", "samples"))


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """``metrics.jsonl`` of a run. Raises InputError if it is missing or damaged."""
    return checked_rows(run / "metrics.jsonl", read_rows(run / "metrics.jsonl"))


def read_summary(run: Path) -> dict[str, Any]:
    """``summary.json`` of a run. Raises InputError if it is missing or damaged."""
    path = run / "summary.json"
    held = check_object(path, read_json(path), {"prompts": list, "seconds": _NUMBER})
    for name in ("probe_share", "relearn_share", "rollouts_per_second"):
        check_object(path, {name: held.get(name)}, {name: (*_NUMBER, type(None))})
    failed = held.get("verifier_errors")
    if failed is not None:
        check_object(path, failed, {"count": int, "first": str})
    if not held["prompts"] or not all(isinstance(prompt, str) for prompt in held["prompts"]):
        check_object(path, {"prompts": None}, {"prompts": list})
    return held | {"rollouts_per_second": held.get("rollouts_per_second")}
