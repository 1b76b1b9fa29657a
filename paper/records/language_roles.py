"""What a pretrained model does on the language suite before any training: recorded in paper/data/language, shown in docs/language.md.

``python -m fstsim.paper.records.language_roles`` measures what is missing, a task at a time, so that an interrupted run goes
on where it stopped; ``make readme`` writes the page again from the record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fstsim.errors import InputError
from fstsim.front.command import CONTINUE
from fstsim.front.console import Progress, show
from fstsim.front.entry import run_module
from fstsim.front.tables import tasks_table
from fstsim.paper import DATA, checkout
from fstsim.records import environment, prepare_directory, read_json, write_json

_FOUND, _CARRIED = 0.01, 0.02


@dataclass(frozen=True)
class Config:
    """Measure a model on the language suite, or continue where that was stopped."""

    model: str = "smollm2"
    """a pretrained chat model"""
    problems: int = 16
    """test problems of each task"""


def role(row: Mapping[str, Any]) -> str:
    """What can be expected to reach the new behaviour, from its probabilities before training.

    RL where sampling finds it without context (.01 or more: a group of 8 has one in 8 % of cases), else a context where
    one makes it probable (.02 or more), else nothing but demonstrations.
    """
    if "told" not in row:
        return "old skill" if row.get("kind") == "nll" or row["empty"] >= _FOUND else "old skill that it lacks"
    if row["empty"] >= _FOUND:
        return "RL finds it"
    return "a context carries it" if row["told"] >= _CARRIED else "weights alone reach it"


def record(config: Config, path: Path) -> dict[str, Any]:
    """The record at ``path`` with every task of the suite measured; the file is rewritten after each."""
    from fstsim.llm.policy.policy import Policy
    from fstsim.llm.tasks.language import suite_tasks
    from fstsim.llm.tasks.parse import problems_hash
    from fstsim.llm.tasks.table import measure_tasks

    tasks = suite_tasks()
    hashes = {task.name: problems_hash(task) for task in tasks}
    held: dict[str, Any] = read_json(path) if path.exists() else {"rows": []}
    same = {"model": config.model, "problems": config.problems}
    there = {
        row["task"]: row
        for row in held["rows"]
        if hashes.get(row["task"]) == row["problems_sha256"] and all(held.get(key) == same[key] for key in same)
    }
    missing = [task for task in tasks if task.name not in there]
    policy = Policy.load(config.model) if missing else None
    progress = Progress("language suite", len(tasks), "tasks")
    progress.at(len(there))
    for task in missing:
        assert policy is not None
        (row,) = measure_tasks(policy, [task], config.problems)
        there[task.name] = {**row, "problems_sha256": hashes[task.name]}
        held = {
            **same,
            "environment": environment(),
            "rows": [there[name] for name in hashes if name in there],
        }
        write_json(path, held)
        progress.aside(tasks_table([row], config.model, list(hashes), header=False))
        progress.add(1)
    progress.close()
    return held


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if value >= 0.0005 else f"{value:.0e}" if value > 0.0 else "0"


def roles_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: one row a task, new behaviours first."""
    head = (
        "| task | new, no context | mean log | new, rule and example in context | old, no context | old, in that context | role |\n"
        "|---|---|---|---|---|---|---|\n"
    )
    lines = []
    for row in rows:
        unit = " nats a token" if row.get("kind") == "nll" else ""
        log = f"{row['log_empty']:.1f}" if "log_empty" in row else ""
        cells = (
            f"`{row['task']}`",
            f"{_number(row['empty'])} ± {_number(row['empty_se'])}{unit}",
            log,
            *(_number(row.get(name)) for name in ("told", "old", "old_told")),
            role(row),
        )
        lines.append(f"| {' | '.join(cells)} |\n")
    return head + "".join(lines)


def recorded_roles() -> str:
    """The table of the recorded model, and what it was measured with; InputError without a record."""
    record = read_json(DATA / "language" / f"{Config.model}.json")
    made = record["environment"]
    said = (
        f"Model `{record['model']}`, {record['problems']} test problems a task, commit {str(made['commit'])[:12]}, "
        f"transformers {made['versions'].get('transformers', '?')}.\n\n"
    )
    return said + roles_table(record["rows"])


def record_and_show(config: Config) -> int:
    """Do it; InputError outside a checkout."""
    checkout()
    if config.problems < 2:
        raise InputError(f"problems must be at least 2, got {config.problems}")
    path = DATA / "language" / f"{Path(config.model).name}.json"
    prepare_directory(path.parent)
    held = record(config, path)
    show(f"{len(held['rows'])} tasks: {path}")
    return 0


def main() -> int:
    """Command line; returns the exit code."""
    return run_module("fstsim.paper.records.language_roles", Config, record_and_show, CONTINUE)


if __name__ == "__main__":
    raise SystemExit(main())
