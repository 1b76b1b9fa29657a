"""``python -m fstsim.paper.records.attack_table``: the table of `make attack` in paper/docs/security.md, from paper/data/attack.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from fstsim.errors import InputError
from fstsim.front.console import show
from fstsim.front.entry import run_module
from fstsim.paper import DATA, checkout
from fstsim.reading import check_object, read_text, understood
from fstsim.records import read_json, write_text

RECORD = DATA / "attack.json"
PAGE = DATA.parent / "docs" / "security.md"


@dataclass(frozen=True)
class Config:
    """Rewrite the table of the last attack in paper/docs/security.md."""


def attack_table(record: Mapping[str, Any]) -> str:
    """Tried and clean by group, when and of which version, and every case that was not clean."""
    made = record["environment"]
    lines = ["| group | tried | clean |", "|---|---:|---:|"]
    lines += [f"| {escape(row['group'])} | {row['tried']:,} | {row['clean']:,} |" for row in record["groups"]]
    tried, clean = (sum(row[name] for row in record["groups"]) for name in ("tried", "clean"))
    lines += [
        f"| **all** | **{tried:,}** | **{clean:,}** |",
        "",
        (
            f"{escape(record['date'])}, commit {escape(str(made['commit'])[:12])}, Python {escape(made['python'])}, "
            f"{record['seconds'] / 60:.0f} minutes on {made['cores']} cores{_worked(record)}; {_part(record)}"
            + (f"; time ended after {tried:,} of {record['chosen']:,} cases." if tried < record["chosen"] else ".")
        ),
    ]
    if record["not_clean"]:
        lines += ["", "Not clean:", ""]
        lines += [f"- {escape(r['group'])}: `{_code(r['name'])}`: {escape(r['fault'])}" for r in record["not_clean"]]
    return "\n".join(lines)


def _worked(record: Mapping[str, Any]) -> str:
    return f" ({record['cpu_seconds'] / 60:.0f} of one core)" if "cpu_seconds" in record else ""


def _part(record: Mapping[str, Any]) -> str:
    if "cpu_seconds" not in record:  # until then two groups had one share
        return f"of the malformed values and the damaged directories one in {record['share']} of all that there are"
    return f"of the damaged directories one in {record['share']} of all that there are, of the other groups more"


def _code(text: str) -> str:
    return text.replace("`", "'").replace("\n", " ")


def with_table(page: str, table: str) -> str:
    """``page`` with ``table`` between the marks of the attack. Raises InputError if it has none."""
    return between_marks(page, table, "attack")


def between_marks(page: str, table: str, name: str) -> str:
    """``page`` with ``table`` between the comments ``NAME: begin`` and ``NAME: end``. Raises InputError if it has none."""
    opening, closing = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, begin, rest = page.partition(opening)
    _, end, after = rest.partition(closing)
    if not begin or not end:
        raise InputError(f"the page has no {opening} and {closing}")
    return f"{before}{begin}\n{table}\n{end}{after}"


def write_page(page: Path = PAGE, record: Path = RECORD) -> Path:
    """Rewrite ``page`` from ``record``; returns its path."""
    held = check_object(record, read_json(record), {"groups": list, "not_clean": list, "environment": dict})
    with understood(record):
        text = with_table(read_text(page), attack_table(held))
    write_text(page, text)
    return page


def write_and_show(_: Config) -> int:
    """Rewrite it, and say where."""
    checkout()
    show(f"written: {write_page()}")
    return 0


def main() -> int:
    """Command line; returns the exit code."""
    return run_module("fstsim.paper.records.attack_table", Config, write_and_show)


if __name__ == "__main__":
    raise SystemExit(main())
