"""``make attack``: tries what users, files, servers and signals can do to the product, and records how often it did as promised.

Prints tried and clean by group, and what was not clean; writes ``paper/data/attack.json``. Exit code 1 if something was not.
"""

from __future__ import annotations

import argparse
import datetime
import os
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

import fstsim  # before the folder of tests, which has a folder of that name, is on the path

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests"))

from attack import directories, harness, kills, model_directories, pages, servers, surroundings, values  # noqa: E402
from attack.campaign import Case, Result, campaign, table  # noqa: E402

GROUPS = ("values", "directories", "kills", "servers", "pages", "surroundings", "models")
_CHEAPER = 5  # values and models are a tenth of the damaged files: five times as many of them are tried


def _cases(groups: list[str], pristine: Path, share: int, killed: int) -> list[Case]:
    found: list[Case] = []
    if {"directories", "pages"} & set(groups):
        directories.make_pristine(pristine, ROOT / "paper" / "data")
    if "values" in groups:
        found += values.cases()
    if "directories" in groups:
        found += directories.cases(pristine)
    if "kills" in groups:
        (pristine / "kills").mkdir()
        found += kills.cases(pristine / "kills", killed)
    if "servers" in groups:
        found += servers.cases()
    if "pages" in groups:
        found += pages.cases(pristine)
    if "surroundings" in groups:
        found += surroundings.cases()
    if "models" in groups:
        found += model_directories.attacks()
    # one in ``share`` of the many, drawn anew with each version, all of the few
    dice = random.Random(f"{fstsim.__version__} {share}")
    shares = {"damaged directories": share, "malformed values": share / _CHEAPER, "models": share / _CHEAPER}
    chosen = [case for case in found if dice.random() * shares.get(case.group, 1.0) < 1.0]
    dice.shuffle(chosen)  # where time ends first, every group has had its part
    return chosen


def main() -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python tests/attack", description=__doc__)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cases at a time")
    parser.add_argument(
        "--share",
        type=int,
        default=30,
        help=f"try one in so many of the damaged files, and {_CHEAPER} times as many of the values and models (1: all)",
    )
    parser.add_argument("--kills", type=int, default=3, help="runs of each command that are killed")
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS), help="groups")
    parser.add_argument("--matching", default="", help="cases whose name has this in it; nothing is recorded")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no new case after so many")
    parser.add_argument("--out", type=Path, default=ROOT / "paper" / "data" / "attack.json", help="record")
    options = parser.parse_args()
    start = time.monotonic()
    harness.warm()
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="fstsim-pristine-") as name:
        pristine = Path(name)
        pristine.chmod(0o755)
        cases = [c for c in _cases(options.only, pristine, options.share, options.kills) if options.matching in c.name]
        print(f"{len(cases)} cases, {time.monotonic() - start:.0f} s to prepare", flush=True)
        for result in campaign(cases, options.jobs, start + 60.0 * options.minutes):
            results.append(result)
            if result.fault:
                print(f"{result.group}: {result.name}: {ascii(result.fault)[1:-1][:400]}", flush=True)
    groups = table(results)
    for row in groups:
        print(f"{row['group']!s:22}{row['tried']!s:>6} tried{row['clean']!s:>6} clean")
    seconds = time.monotonic() - start
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    worked = spent.ru_utime + spent.ru_stime + time.process_time()
    print(f"{seconds / 60:.1f} minutes, {worked / 60:.1f} of one core")
    if not options.matching and set(options.only) == set(GROUPS):
        from fstsim.records import environment, write_json

        record = {
            "chosen": len(cases),
            "cpu_seconds": round(worked),
            "date": datetime.date.today().isoformat(),
            "environment": environment(),
            "groups": groups,
            "not_clean": [
                {"group": r.group, "name": ascii(r.name)[1:-1], "fault": ascii(r.fault)[1:-1][:200]}
                for r in results
                if r.fault
            ],
            "seconds": round(seconds),
            "share": options.share,
        }
        write_json(options.out, record)
    return int(any(result.fault for result in results))


if __name__ == "__main__":
    sys.exit(main())
