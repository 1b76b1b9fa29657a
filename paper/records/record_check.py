"""``make nightly-check``: a million random instances of every statement, recorded in ``paper/data/checks.json``.

One statement a process at a time, written after each, so that an interrupted night goes on where it stopped.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from fstsim.front.console import Progress, show
from fstsim.front.tables import check_summary, check_table
from fstsim.paper import DATA
from fstsim.paper.report.workers import work_through
from fstsim.records import environment, read_json, write_json
from fstsim.theory import ALL_STATEMENTS, examples_of


@dataclass(frozen=True)
class Config:
    """What to record."""

    examples: int = 1_000_000
    """Random instances of each statement (fewer where every instance is a flow of its own)."""
    seed: int = 1
    """Seed of the instances."""
    jobs: int = -1
    """Processes (-1: one a core)."""
    out: Path = DATA / "checks.json"
    """Where the results go; statements that stand there with the same seed and at least as many are not run again."""


def record(config: Config) -> list[dict[str, Any]]:
    """Run what is missing and return all results in paper order; the file is rewritten after every statement."""
    done: dict[str, dict[str, Any]] = {}
    before: dict[str, dict[str, Any]] = {}
    commands = [f"python -m fstsim.paper.records.record_check --examples {config.examples} --seed {config.seed}"]
    least = {s.slug: examples_of(s, config.examples) for s in ALL_STATEMENTS}
    if config.out.exists():
        old = read_json(config.out)
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


def main() -> int:
    """Command line of the record; 1 if a statement was violated."""
    checks = record(tyro.cli(Config))
    show(check_table(checks), check_summary(checks))
    return int(any(check["violations"] for check in checks))


if __name__ == "__main__":
    raise SystemExit(main())
