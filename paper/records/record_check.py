"""``make nightly-check``: a million random instances of every statement, recorded in ``paper/data/checks.json``.

One statement a process at a time, written after each, so that an interrupted night goes on where it stopped.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fstsim.front.command import CONTINUE, check_numbers
from fstsim.front.console import Progress, show
from fstsim.front.entry import run_module
from fstsim.front.tables import check_summary, check_table
from fstsim.paper import DATA, checkout
from fstsim.paper.report.workers import work_through
from fstsim.reading import check_object
from fstsim.records import environment, prepare_directory, read_json, write_json
from fstsim.theory import ALL_STATEMENTS, examples_of


@dataclass(frozen=True)
class Config:
    """Check every statement on many random instances and record the results, or continue where that was stopped."""

    examples: int = 1_000_000
    """random instances of each statement (fewer where every instance is a flow of its own)"""
    seed: int = 1
    """seed of the instances"""
    jobs: int = -1
    """processes; -1 uses every core"""
    out: Path = DATA / "checks.json"
    """file to write; a statement that it holds with the same seed and at least as many instances is not checked again"""


def record(config: Config) -> list[dict[str, Any]]:
    """Run what is missing and return all results in paper order; the file is rewritten after every statement."""
    done: dict[str, dict[str, Any]] = {}
    before: dict[str, dict[str, Any]] = {}
    commands = [f"python -m fstsim.paper.records.record_check --examples {config.examples} --seed {config.seed}"]
    least = {s.slug: examples_of(s, config.examples) for s in ALL_STATEMENTS}
    if config.out.exists():
        old = check_object(config.out, read_json(config.out), {"seed": int, "checks": list, "commands": list})
        if old["seed"] == config.seed:
            before = {c["slug"]: c for c in old["checks"]}
            done = {slug: c for slug, c in before.items() if c["examples"] >= least.get(slug, np.inf)}
            commands = list(dict.fromkeys([*old["commands"], *commands]))
    order = [s.slug for s in ALL_STATEMENTS]
    missing = [slug for slug in order if slug not in done]
    progress = Progress("nightly check", len(order), "statements")
    progress.at(len(order) - len(missing))
    # The cheapest first, by the smaller check that stands: an interrupted night has then finished the most statements.
    cost = {slug: c["seconds"] / c["examples"] * least[slug] for slug, c in before.items() if slug in least}
    pieces = [("check", slug) for slug in sorted(missing, key=lambda slug: cost.get(slug, 0.0))]
    for _, result in work_through(pieces, config.out.parent, config.examples, config.seed, config.jobs):
        done[result["slug"]] = result
        progress.add(1, result["slug"])
        write_json(
            config.out,
            {
                # A smaller check stands until the larger one is done: an interrupted night loses nothing.
                "checks": [{**before, **done}[slug] for slug in order if slug in {**before, **done}],
                "commands": commands,
                "date": datetime.date.today().isoformat(),
                "environment": environment(config.seed),
                "seed": config.seed,
            },
        )
    progress.close()
    return [done[slug] for slug in order]


def record_and_show(config: Config) -> int:
    """Record and print the table; 1 if a statement was violated."""
    check_numbers(config.examples, config.seed)
    if config.out == DATA / "checks.json":
        checkout("--out")
    prepare_directory(config.out.parent)
    checks = record(config)
    show(check_table(checks), check_summary(checks))
    return int(any(check["violations"] for check in checks))


def main() -> int:
    """Command line; returns the exit code."""
    return run_module("fstsim.paper.records.record_check", Config, record_and_show, CONTINUE)


if __name__ == "__main__":
    raise SystemExit(main())
