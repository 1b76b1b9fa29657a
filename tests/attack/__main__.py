"""``make attack``: tries what users, files, servers and signals can do to the product, and records how often it did as promised.

Prints tried and clean by group, and what was not clean; writes ``paper/data/attack.json``. Exit code 1 if something was not.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import json
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
# how many times as many of a group are tried as of the damaged files, which are most of all cases
_MORE = {"malformed values": 5, "models": 5, "pages in a browser": 20, "surroundings": 30, "damaged directories": 1}


def _cases(groups: list[str], pristine: Path, share: int, killed: int) -> list[Case]:
    found: list[Case] = []
    if {"directories", "pages"} & set(groups) and not (pristine / "directories-made").exists():
        directories.make_pristine(pristine, ROOT / "paper" / "data")
        (pristine / "directories-made").touch()
    if "values" in groups:
        found += values.cases()
    if "directories" in groups:
        found += directories.cases(pristine)
    if "kills" in groups:
        (pristine / "kills").mkdir(exist_ok=True)
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
    chosen = [case for case in found if dice.random() * share < _MORE.get(case.group, share)]
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
        help="try one in so many of the damaged files, more of the other groups (1: all)",
    )
    parser.add_argument("--kills", type=int, default=3, help="runs of each command that are killed")
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS), help="groups")
    parser.add_argument("--matching", default="", help="cases whose name has this in it; nothing is recorded")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no new case after so many")
    parser.add_argument("--out", type=Path, default=ROOT / "paper" / "data" / "attack.json", help="record")
    parser.add_argument(
        "--place",
        type=Path,
        default=None,
        help="a folder for what is prepared and found: called again, it goes on there",
    )
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        if options.place is None:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fstsim-pristine-")))
        else:
            place = options.place.absolute()
            place.mkdir(exist_ok=True)
        place.chmod(0o755)
        return _carry_out(options, place)


def _carry_out(options: argparse.Namespace, place: Path) -> int:
    """All that `main` does, with what it needs and has found in ``place``."""
    from fstsim.records import environment, write_json

    start, held, version = time.monotonic(), place / "results.jsonl", place / "commit"
    made = environment()
    if version.exists() and version.read_text(encoding="utf-8") != str(made["commit"]):
        print(f"{place} is of another commit: choose another --place")
        return 2
    version.write_text(str(made["commit"]), encoding="utf-8")
    harness.warm()
    results, before = [], {"seconds": 0.0, "cpu": 0.0}
    if held.exists():
        for line in held.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            before = row.pop("spent", before)
            results += [Result(**row)] if row else []
        print(f"{len(results)} cases were tried before", flush=True)
    known = {(result.group, result.name) for result in results}
    cases = [c for c in _cases(options.only, place, options.share, options.kills) if options.matching in c.name]
    print(f"{len(cases)} cases, {time.monotonic() - start:.0f} s to prepare", flush=True)
    rest = [case for case in cases if (case.group, case.name) not in known]
    with held.open("a", encoding="utf-8") as file:
        for result in campaign(rest, options.jobs, start + 60.0 * options.minutes):
            results.append(result)
            file.write(json.dumps(dataclasses.asdict(result)) + "\n")
            file.flush()
            if result.fault:
                print(f"{result.group}: {result.name}: {ascii(result.fault)[1:-1][:400]}", flush=True)
        seconds, worked = time.monotonic() - start + before["seconds"], _worked() + before["cpu"]
        file.write(json.dumps({"spent": {"seconds": seconds, "cpu": worked}}) + "\n")
    groups = table(results)
    for row in groups:
        print(f"{row['group']!s:22}{row['tried']!s:>6} tried{row['clean']!s:>6} clean")
    print(f"{seconds / 60:.1f} minutes, {worked / 60:.1f} of one core")
    if not options.matching and set(options.only) == set(GROUPS):
        record = {
            "chosen": len(cases),
            "cpu_seconds": round(worked),
            "date": datetime.date.today().isoformat(),
            "environment": made,
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


def _worked() -> float:
    """Seconds of a core that this process and those that it has waited for have used."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime + time.process_time()


if __name__ == "__main__":
    sys.exit(main())
