"""``python -m fstsim.paper.records.mutant_table``: the table of `make mutants` in paper/docs/security.md, from paper/data/mutants.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from fstsim.front.console import show
from fstsim.front.entry import run_module
from fstsim.paper import DATA, checkout
from fstsim.paper.records.attack_table import PAGE, between_marks
from fstsim.reading import check_object, read_text, understood
from fstsim.records import read_json, write_text

RECORD = DATA / "mutants.json"
_COLUMNS = ("tried", "killed", "equivalent", "undecided", "alive")


@dataclass(frozen=True)
class Config:
    """Rewrite the table of the last campaign of mutants in paper/docs/security.md."""


def mutant_table(record: Mapping[str, Any]) -> str:
    """Tried, killed, equivalent, undecided and alive by room; the share that was killed; and every mutant that lives."""
    rooms, campaign, made = record["rooms"], record["campaign"], record["environment"]
    total = {name: sum(row[name] for row in rooms) for name in _COLUMNS}
    counted = max(1, total["tried"] - total["equivalent"] - total["undecided"])
    lines = [f"| room | {' | '.join(_COLUMNS)} |", f"|---|{'---:|' * len(_COLUMNS)}"]
    lines += [f"| `{escape(row['room'])}/` | {' | '.join(f'{row[name]:,}' for name in _COLUMNS)} |" for row in rooms]
    lines += [
        f"| **all** | {' | '.join(f'**{total[name]:,}**' for name in _COLUMNS)} |",
        "",
        (
            f"{escape(record['date'])}, commit {escape(str(campaign['commit'])[:12])}, Python {escape(made['python'])}, "
            f"{campaign['each']} mutants of each room drawn with seed {campaign['seed']}, {total['tried']:,} of them tried in "
            f"the time there was: {total['killed'] / counted:.0%} of those that are decided and not equivalent are killed, "
            f"{len(record['killed_since'])} of them only since, by tests that were written for them or are asked now."
        ),
    ]
    for title, kind in (("Alive", "alive"), ("Undecided, their tests are too slow", "undecided")):
        if record[kind]:
            lines += ["", f"{title}:", "", *(f"- `{_code(row['name'])}`" for row in record[kind])]
    return "\n".join(lines)


def _code(text: str) -> str:
    return text.replace("`", "'").replace("\n", " ")


def write_page(page: Path = PAGE, record: Path = RECORD) -> Path:
    """Rewrite ``page`` from ``record``; returns its path."""
    held = check_object(record, read_json(record), {"rooms": list, "campaign": dict, "environment": dict})
    with understood(record):
        text = between_marks(read_text(page), mutant_table(held), "mutants")
    write_text(page, text)
    return page


def write_and_show(_: Config) -> int:
    """Rewrite it, and say where."""
    checkout()
    show(f"written: {write_page()}")
    return 0


def main() -> int:
    """Command line; returns the exit code."""
    return run_module("fstsim.paper.records.mutant_table", Config, write_and_show)


if __name__ == "__main__":
    raise SystemExit(main())
