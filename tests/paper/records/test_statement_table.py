"""The README's table of statements is the recorded check, and the record is of these statements."""

from __future__ import annotations

from pathlib import Path

import pytest

from fstsim import InputError
from fstsim.paper.records.statement_table import BEGIN, END, statement_table, with_table
from fstsim.records import read_json
from fstsim.theory import ALL_STATEMENTS

ROOT = Path(__file__).resolve().parents[3]


def test_readme_shows_the_recorded_check() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    checks = read_json(ROOT / "paper" / "data" / "checks.json")["checks"]
    assert with_table(readme, statement_table(checks)) == readme, "run `make readme`"
    assert sum(check["violations"] for check in checks) == 0


def test_every_test_that_a_statement_names_exists() -> None:
    for statement in ALL_STATEMENTS:
        assert (ROOT / statement.test).is_file()


def test_a_record_that_lacks_a_statement_is_named() -> None:
    with pytest.raises(InputError, match="lacks logistic-normal"):
        statement_table([])


def test_markers_are_needed() -> None:
    with pytest.raises(InputError, match="must hold the markers"):
        with_table("no markers", "table")
    assert with_table(f"a {BEGIN} old {END} b", "new\n") == f"a {BEGIN}\nnew\n{END} b"
