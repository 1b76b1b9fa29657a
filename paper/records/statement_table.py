"""The table of statements, generated from the statements themselves and a recorded check."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fstsim.errors import InputError
from fstsim.number_text import ratio_number
from fstsim.paper import DATA, ROOM
from fstsim.paper.figures.catalogue import figure_of
from fstsim.paper.pages.blocks import table
from fstsim.records import read_json
from fstsim.theory import ALL_STATEMENTS, Statement
from fstsim.theory.statements.statement import STATUS_NAMES
from fstsim.tightness import Wording, tightness

_WORDING = Wording(
    "upper",
    "lower",
    "; ",
    "sign only",
    "{low} / {middle} / {high} %",
    lambda x: ratio_number(x).replace("e+", "e"),
    "{:+.2g}".format,
)


def pages_of_statements() -> dict[str, str]:
    """``{slug: page}``: the page of paper/docs/theory on which each statement is proved."""
    mark = re.compile(r"^\*\*\[[TAN]\]\*\* `([^`]+)`", re.M)
    pages = sorted((ROOM / "docs" / "theory").glob("*.md"))
    return {slug: page.name for page in pages for slug in mark.findall(page.read_text(encoding="utf-8"))}


def _row(statement: Statement, check: Mapping[str, Any], page: str) -> list[str]:
    shown = figure_of(statement.slug)
    violations = "–" if check["kind"] == "approximation" else f"{check['violations']} / {check['examples']:,}"
    return [
        f"[`{statement.slug}`](theory/{page}#{statement.slug})",
        statement.title,
        f"[{statement.status}]",
        violations,
        tightness(check, _WORDING),
        f"`{shown}`" if shown else "",
        f"`{statement.test.removeprefix('tests/theory/')}`",
    ]


def statement_table(checks: Sequence[Mapping[str, Any]]) -> str:
    """Markdown table of all statements, each with a link to its proof, with the results of ``checks`` (the JSON of ``fstsim check --json``)."""
    found = {check["slug"]: check for check in checks}
    missing = [s.slug for s in ALL_STATEMENTS if s.slug not in found]
    if missing:
        raise InputError(f"the recorded check lacks {', '.join(missing)}: run `make nightly-check`")
    status = ", ".join(f"[{key}] {name}" for key, name in STATUS_NAMES.items())
    pages = pages_of_statements()
    head = (
        f"{len(ALL_STATEMENTS)} statements. Status: {status}. Tightness: closest and median ratio of upper bound to actual "
        "value, or of actual value to lower bound (1 is tight); for approximations the least, median and largest deviation. "
        "Tests are in `tests/theory`.\n\n"
    )
    columns = ("statement", "claim", "status", "violations", "tightness", "figure", "test")
    return head + table(columns, [_row(s, found[s.slug], pages[s.slug]) for s in ALL_STATEMENTS])


def recorded_table() -> str:
    """The table of the recorded check; InputError where the record lacks a statement."""
    return statement_table(read_json(DATA / "checks.json")["checks"])
