"""``python tests/mutation/record.py FATES``: what a campaign of mutants came to, by room, into paper/data/mutants.json.

FATES is the file of ``mutants.py --fates``; ``--since`` one of the same mutants tried again on tests that were written after it.
"""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mutants import KNOWN, ROOMS, ROOT, Fate, read_fates

Key = tuple[str, int]


def summary(
    fates: Sequence[Fate], since: Mapping[Key, Fate], known: Mapping[str, str], rooms: Sequence[str] = ROOMS
) -> dict[str, Any]:
    """Tried, killed, equivalent, undecided and alive by room, and the names of what was not killed at once.

    A mutant that a later test killed counts as killed, and is named under ``killed_since``.
    """
    rows: dict[str, dict[str, int]] = {
        room: dict.fromkeys(("tried", "killed", "equivalent", "undecided", "alive"), 0) for room in rooms
    }
    named: dict[str, list[dict[str, Any]]] = {"killed_since": [], "equivalent": [], "undecided": [], "alive": []}
    for fate in fates:
        now = since.get((fate.name, fate.line), fate)
        kind = now.fate if now.fate in ("killed", "undecided") else "equivalent" if fate.name in known else "alive"
        row = rows[fate.name.split("/", 1)[0]]
        row["tried"] += 1
        row[kind] += 1
        if kind != "killed" or fate.fate != "killed":
            why = {"by": now.by} if kind == "killed" else {"why": known[fate.name]} if kind == "equivalent" else {}
            named["killed_since" if kind == "killed" else kind].append({"name": fate.name, **why})
    return {"rooms": [{"room": room, **row} for room, row in rows.items()], **named}


def main() -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python tests/mutation/record.py", description=__doc__)
    parser.add_argument("fates", type=Path, help="what became of each, of mutants.py --fates")
    parser.add_argument("--since", type=Path, default=None, help="the same of those that were tried again")
    parser.add_argument("--commit", required=True, help="commit that the campaign was of")
    parser.add_argument("--each", type=int, required=True, help="its mutants of each room")
    parser.add_argument("--seed", type=int, default=0, help="its seed of the draw")
    parser.add_argument("--out", type=Path, default=ROOT / "paper" / "data" / "mutants.json", help="record")
    options = parser.parse_args()
    from fstsim.records import environment, write_json

    known = json.loads(KNOWN.read_text(encoding="utf-8"))
    write_json(
        options.out,
        {
            **summary(list(read_fates(options.fates).values()), read_fates(options.since), known),
            "date": datetime.date.today().isoformat(),
            "campaign": {"commit": options.commit, "each": options.each, "seed": options.seed},
            "environment": environment(),
        },
    )
    print(f"written: {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
