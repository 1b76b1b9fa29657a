"""The table of the last `make attack` on the page about security, from paper/data/attack.json."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from fstsim.paper import DATA
from fstsim.reading import check_object, understood
from fstsim.records import read_json

RECORD = DATA / "attack.json"


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
        lines += [f"- {escape(r['group'])}: `{code(r['name'])}`: {escape(r['fault'])}" for r in record["not_clean"]]
    return "\n".join(lines)


def _worked(record: Mapping[str, Any]) -> str:
    return f" ({record['cpu_seconds'] / 60:.0f} of one core)" if "cpu_seconds" in record else ""


def _part(record: Mapping[str, Any]) -> str:
    if "cpu_seconds" not in record:  # until then two groups had one share
        return f"of the malformed values and the damaged directories one in {record['share']} of all that there are"
    return f"of the damaged directories one in {record['share']} of all that there are, of the other groups more"


def code(text: str) -> str:
    """``text`` as it may stand between the quotes of code on a page."""
    return text.replace("`", "'").replace("\n", " ")


def recorded_attack() -> str:
    """The table of the record. Raises InputError where it is missing or damaged."""
    held = check_object(RECORD, read_json(RECORD), {"groups": list, "not_clean": list, "environment": dict})
    with understood(RECORD):
        return attack_table(held)
