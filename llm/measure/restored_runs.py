"""`run_restore` of several runs as a directory: what is measured in it is not measured again; and means over its runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fstsim.errors import InputError
from fstsim.intervals import student_interval
from fstsim.llm.measure.restore import COLUMNS, GROUPS, Group, count_parts, run_restore
from fstsim.llm.policy.folder import weights_digest
from fstsim.llm.policy.loading import find_model
from fstsim.places import published
from fstsim.reading import check_object, check_rows
from fstsim.records import claimed_directory, environment, read_json, write_json

Notes = Callable[[int, str], None]
KIND = "restoring of layers"


def runs_in(given: Sequence[Path]) -> list[Path]:
    """Run directories of single seeds: those given, and the ``seed-*`` of those that hold some."""
    found: list[Path] = []
    for path in given:
        seeds = sorted(path.glob("seed-*"), key=lambda p: (len(p.name), p.name))
        found += [p for p in seeds if p.is_dir()] or [path]
    return found


def restore_runs(
    given: Sequence[Path],
    out: Path,
    progress: Notes | None = None,
    *,
    model: str | None = None,
    groups: Sequence[Group] = GROUPS,
) -> dict[str, Any]:
    """Restore the parts of ``groups`` in every run; writes and returns ``out/layers.json``: a name and the rows of each run.

    All runs must be of one training, their seeds apart. Raises InputError before anything is measured if they are not, or
    `run_restore` would.
    """
    runs = runs_in(given)
    if not runs:
        raise InputError("there is nothing to restore: give a run directory")
    totals = [
        count_parts(run, model, groups) for run in runs
    ]  # all are read once, so that the last one's mistake is said first
    settings = [_settings(run) for run in runs]
    for run, held in zip(runs[1:], settings[1:], strict=True):
        if held != settings[0]:
            other = next(name for name in settings[0] if held.get(name) != settings[0][name])
            raise InputError(f"{run} and {runs[0]} are runs of two trainings ({other} differs): call it once for each")
    names = [run.name for run in runs]
    record: dict[str, Any] = {"runs": names, "sha256": [_digest(run) for run in runs], "model": published(model)}
    if model != record["model"]:  # a path of this machine: which model it is, its weights say
        record["model_sha256"] = weights_digest(find_model(str(model)))
    if set(groups) != set(GROUPS):
        record["parts"] = sorted(set(groups))
    with claimed_directory(out, record, environment(), KIND):
        result = []
        for k, run in enumerate(runs):
            cached = out / f"rows-{k}.json"
            if not cached.exists():
                before = sum(totals[:k])
                note = None if progress is None else lambda n, what, before=before: progress(before + n, what)
                write_json(cached, run_restore(run, note, model=model, groups=groups))
            elif progress is not None:
                progress(sum(totals[: k + 1]), run.name)
            result.append({"run": run.name, "rows": rows_from(cached, totals[k])})
        found = {"tasks": settings[0]["tasks"], "method": settings[0]["method"], "runs": result}
        write_json(out / "layers.json", found)
    return found


def rows_from(path: Path, parts: int) -> list[dict[str, Any]]:
    """What `run_restore` found for so many ``parts``, kept in file ``path``; InputError if the file is another."""
    rows = check_rows(path, read_json(path), ("depth", "parameters", *COLUMNS), ("depth", "parameters", "reward"))
    for row in rows:
        check_object(path, row, {"part": str, "kind": str, "depth": int, "parameters": int, "reward": (int, float)})
    if len(rows) != parts or any(row.keys() != rows[0].keys() for row in rows):
        raise InputError(f"{path} has not a row with the same numbers for each of {parts} parts: remove it")
    return rows


def total_parts(given: Sequence[Path], model: str | None = None, groups: Sequence[Group] = GROUPS) -> int:
    """Measurements that `restore_runs` makes."""
    return sum(count_parts(run, model, groups) for run in runs_in(given))


def means(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a part: its name, kind, depth and size, and (mean, low, high) over the runs of every column; nan of one run."""
    first = found["runs"][0]["rows"]
    rows = []
    for k, part in enumerate(first):
        row = {name: part[name] for name in ("part", "kind", "depth", "parameters")}
        for name in COLUMNS:
            if name in part:
                interval = student_interval([run["rows"][k][name] for run in found["runs"]])
                row[name] = tuple(map(float, interval))
        rows.append(row)
    return rows


def forgotten_column(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """What stands for forgetting: what the runs' own old skills lost, else the exam of the laboratory's world, else nothing."""
    return next((name for name in ("old_skills_drift", "drift") if name in rows[0]), None)


def _settings(run: Path) -> dict[str, Any]:
    return {name: value for name, value in read_json(run / "config.json").items() if name not in ("seed", "device")}


def _digest(run: Path) -> str:
    """Of the trained weights' files and the configuration."""
    config = json.dumps(read_json(run / "config.json"), sort_keys=True)
    return weights_digest(run / "model", config)
