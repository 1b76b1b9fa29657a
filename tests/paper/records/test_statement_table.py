"""The table of statements is the recorded check, and the record is of these statements."""

from __future__ import annotations

from pathlib import Path

import pytest

from fstsim import InputError
from fstsim.paper.records.statement_table import pages_of_statements, statement_table
from fstsim.records import read_json
from fstsim.theory import ALL_STATEMENTS

ROOT = Path(__file__).resolve().parents[3]


def test_nothing_is_violated_in_the_record() -> None:
    checks = read_json(ROOT / "paper" / "data" / "checks.json")["checks"]
    assert sum(check["violations"] for check in checks) == 0
    table = statement_table(checks)
    assert table.startswith(f"{len(ALL_STATEMENTS)} statements. ")
    assert table.count("\n| [`") == len(ALL_STATEMENTS)


def test_every_statement_links_to_its_proof() -> None:
    assert set(pages_of_statements()) == {statement.slug for statement in ALL_STATEMENTS}


def test_every_test_that_a_statement_names_exists() -> None:
    for statement in ALL_STATEMENTS:
        assert (ROOT / statement.test).is_file()


def test_a_record_that_lacks_a_statement_is_named() -> None:
    with pytest.raises(InputError, match="lacks logistic-normal"):
        statement_table([])
