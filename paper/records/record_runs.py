"""``python -m fstsim.paper.records.record_runs SOURCE TARGET``: run directories cut down to what tables and figures read.

Keeps configurations, environments, summaries, prompts, decompositions, predictions and verdicts, and of the metrics the
rows that the probes measured, to six digits, with the counts of all others that tables add up; a validation also gets the masses of its base, so that the bridge figure is
drawn without the weights. Weights and checkpoints stay behind. Unfinished runs are left out and named.

With ``--add`` a validation of further chapters (`fstsim validate --only`), or of more seeds, joins one that is recorded: its
judged predictions and runs that the record does not have, and in the place of a verdict the same prediction judged on more
seeds. What else stands in the record stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from fstsim.errors import InputError
from fstsim.front.console import show
from fstsim.front.entry import run_module
from fstsim.places import published
from fstsim.reading import understood
from fstsim.records import plain, prepare_directory, read_json, read_rows, write_json, write_rows

_SUMMED = ("shown", "fast_rollouts", "reused")
"""counts of a step that tables add up over all steps, measured or not"""
_OF_A_RUN = ("config.json", "environment.json", "summary.json", "decomposition.json")


@dataclass(frozen=True)
class Config:
    """Copy the finished runs of an experiment or a validation, cut down to what tables and figures read."""

    source: tyro.conf.Positional[Path]
    """directory of `fstsim experiment` or `fstsim validate`"""
    target: tyro.conf.Positional[Path]
    """directory to write; a run that is there already is replaced"""
    add: bool = False
    """add what the target, a recorded validation, does not have yet: predictions, runs, and verdicts on more seeds"""


@dataclass(frozen=True)
class Recorded:
    """What `record` wrote: files, their bytes, finished runs, and the runs that were left out because they are not finished."""

    files: int
    size: int
    runs: int
    unfinished: tuple[str, ...]


def rounded(value: Any) -> Any:
    """The same with six significant digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return value


def _check(source: Path, target: Path) -> None:
    if not source.is_dir():
        raise InputError(f"there is no directory {source}")
    if not (source / "runs").is_dir():
        raise InputError(f"{source} holds no runs/: give a directory of fstsim experiment or fstsim validate")
    if target.resolve() == source.resolve() or source.resolve() in target.resolve().parents:
        raise InputError(f"{target} lies in {source}: choose a target outside of it")
    if (source / "predictions.json").exists() and not (source / "validation.json").exists():
        raise InputError(f"{source} has predictions but no validation.json: let fstsim validate come to its end")


def _kept(row: dict[str, Any]) -> dict[str, Any]:
    """A measured row whole; of another one what is added up, with its place; nothing where there is no such count."""
    if row.get("reward") is not None:
        return row
    counts = {name: row[name] for name in _SUMMED if row.get(name)}
    return {name: row[name] for name in ("step", "samples", "task") if name in row} | counts if counts else {}


def _record_run(run: Path, place: Path) -> list[Path]:
    written = []
    for name in _OF_A_RUN:
        if (run / name).exists():
            write_json(place / name, rounded(published(read_json(run / name))))
            written.append(place / name)
    tables = {"metrics.jsonl": [kept for row in read_rows(run / "metrics.jsonl") if (kept := _kept(row))]}
    if (run / "prompts.jsonl").exists():
        tables["prompts.jsonl"] = read_rows(run / "prompts.jsonl")
    for name, rows in tables.items():
        write_rows(place / name, [rounded(row) for row in rows])
        written.append(place / name)
    return written


def record(config: Config) -> Recorded:
    """Copy the finished runs of ``source`` and its tables to ``target``, each file whole or not at all.

    Raises InputError, before anything is written, where ``source`` is no directory of runs, has none that is finished or has
    predictions without verdicts, or where ``target`` lies in it.
    """
    source, target = config.source, config.target
    _check(source, target)
    runs = sorted(path.parent for path in (source / "runs").glob("*/seed-*/config.json"))
    finished = [run for run in runs if (run / "summary.json").exists() and (run / "metrics.jsonl").exists()]
    unfinished = tuple(f"{run.parent.name}/{run.name}" for run in runs if run not in finished)
    if not finished:
        raise InputError(f"{source} holds no finished run (one with summary.json)")
    if config.add:
        return _add(source, target, finished, unfinished)
    prepare_directory(target)
    written = []
    for path in sorted(source.glob("*.json")):  # predictions, verdicts and what else the whole directory is about
        write_json(target / path.name, rounded(published(read_json(path))))
        written.append(target / path.name)
    for run in finished:
        written += _record_run(run, target / run.relative_to(source))
    if (source / "validation.json").exists():
        from fstsim.paper.bridge.numbers import RECORDED_MASSES, masses_to_record

        masses = masses_to_record(source)
        if masses:
            write_json(target / RECORDED_MASSES, rounded(plain(masses)))
            written.append(target / RECORDED_MASSES)
    return Recorded(len(written), sum(path.stat().st_size for path in written), len(finished), unfinished)


def _add(source: Path, target: Path, finished: list[Path], unfinished: tuple[str, ...]) -> Recorded:
    """`record` of what the validation in ``target`` lacks; InputError where it has a run of that name, or is of another base."""
    for place in (source, target):
        if not (place / "validation.json").exists():
            raise InputError(f"{place} holds no validation.json: --add joins two directories of fstsim validate")
    ours, theirs = (read_json(place / "predictions.json") for place in (target, source))
    for name in ("model", "scale"):
        if published(ours[name]) != published(theirs[name]):
            raise InputError(f"{target} is a validation of {name} {ours[name]}, {source} of {theirs[name]}")
    verdicts = read_json(target / "validation.json")
    judged = read_json(source / "validation.json")
    more = {row["name"]: row for row in judged if any(_on_more_seeds(target, held, row) for held in verdicts)}
    known = {row["name"] for row in (*ours["predictions"], *verdicts)}
    new = [row for row in judged if row["name"] not in known]
    names = {row["name"] for row in new}
    taken = [run for run in finished if (target / run.relative_to(source)).exists()]
    if taken and not more:
        raise InputError(
            f"{target} has runs/{taken[0].parent.name}/{taken[0].name} already: nothing recorded is replaced"
        )
    finished = [run for run in finished if run not in taken]
    verdicts = [more.get(row["name"], row) for row in verdicts]
    written = [path for run in finished for path in _record_run(run, target / run.relative_to(source))]
    ours["predictions"] += [row for row in theirs["predictions"] if row["name"] in names]
    for name, value in (("predictions.json", ours), ("validation.json", [*verdicts, *new])):
        write_json(target / name, rounded(value))
        written.append(target / name)
    return Recorded(len(written), sum(path.stat().st_size for path in written), len(finished), unfinished)


def _on_more_seeds(target: Path, held: dict[str, Any], row: dict[str, Any]) -> bool:
    """Whether ``row`` judges the prediction recorded as ``held`` on more seeds; InputError where it is another prediction."""
    if row["name"] != held["name"] or row["seeds"] <= held["seeds"]:
        return False
    for name in ("value", "low", "high", "resolution"):
        if not row.get("calibration") and rounded(row[name]) != rounded(held[name]):
            raise InputError(f"{target} recorded {row['name']} with {name} {held[name]}, not {row[name]}")
    return True


def record_and_show(config: Config) -> int:
    """Record, and say what was written and what was left out."""
    with understood(config.source):
        done = record(config)
    show(f"{config.target}: {done.files} files of {done.runs} runs, {done.size / 1e6:.2f} MB")
    if done.unfinished:
        show(f"left out, not finished: {', '.join(done.unfinished)}")
    return 0


def main() -> int:
    """Command line; returns the exit code."""
    return run_module("fstsim.paper.records.record_runs", Config, record_and_show)


if __name__ == "__main__":
    raise SystemExit(main())
