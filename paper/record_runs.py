"""``python -m fstsim.paper.record_runs SOURCE TARGET``: run directories cut down to what tables and figures read.

Keeps configurations, environments, summaries, prompts, decompositions, predictions and verdicts, and of the metrics the
rows that the probes measured, to six digits. Weights and checkpoints stay behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from fstsim.errors import InputError
from fstsim.records import read_json, read_rows, write_json, write_rows

_KEPT = ("config.json", "environment.json", "summary.json", "decomposition.json", "predictions.json", "validation.json")


@dataclass(frozen=True)
class Config:
    """What to cut down, and where to put it."""

    source: tyro.conf.Positional[Path]
    """directory of `fstsim experiment` or `fstsim validate`"""
    target: tyro.conf.Positional[Path]
    """directory to write"""


def rounded(value: Any) -> Any:
    """The same with six significant digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return value


def record(config: Config) -> int:
    """Copy the finished runs; returns how many files were written."""
    if not (config.source / "runs").is_dir():
        raise InputError(f"{config.source} holds no runs")
    count = 0
    for path in sorted(config.source.rglob("*.json*")):
        place = config.target / path.relative_to(config.source)
        if "model" in path.parts or not (path.parent == config.source or (path.parent / "summary.json").exists()):
            continue
        if path.name in _KEPT:
            write_json(place, rounded(read_json(path)))
        elif path.name == "metrics.jsonl":
            write_rows(place, [rounded(row) for row in read_rows(path) if row.get("reward") is not None])
        elif path.name == "prompts.jsonl":
            write_rows(place, [rounded(row) for row in read_rows(path)])
        else:
            continue
        count += 1
    return count


def main() -> int:
    """Command line."""
    count = record(tyro.cli(Config))
    return int(count == 0)


if __name__ == "__main__":
    raise SystemExit(main())
