"""The table of the last attack: what is in the record, escaped, between the marks of the page, which is up to date."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fstsim.errors import InputError
from fstsim.paper.records.attack_table import PAGE, RECORD, attack_table, with_table, write_page
from fstsim.records import read_json, write_json

RECORDED: dict[str, Any] = {
    "chosen": 1240,
    "date": "2026-11-26",
    "environment": {"commit": None, "python": "3.11", "cores": 2},
    "groups": [{"group": "kills", "tried": 40, "clean": 40}, {"group": "<b>", "tried": 1200, "clean": 1199}],
    "not_clean": [{"group": "<b>", "name": "a `b`", "fault": "<script>"}],
    "seconds": 600,
    "share": 3,
}


def test_the_table_adds_up_and_is_escaped() -> None:
    text = attack_table(RECORDED)
    assert "| **all** | **1,240** | **1,239** |" in text
    assert "10 minutes on 2 cores" in text
    assert "time ended" not in text
    assert "directories one in 3 of all that there are." in text
    newer = attack_table({**RECORDED, "cpu_seconds": 420})
    assert "10 minutes on 2 cores (7 of one core); of the damaged directories one in 3" in newer
    assert "time ended after 1,240 of 2,000 cases" in attack_table({**RECORDED, "chosen": 2000})
    assert "<b>" not in text
    assert "- &lt;b&gt;: `a 'b'`: &lt;script&gt;" in text
    assert "Not clean" not in attack_table({**RECORDED, "not_clean": []})


def test_only_what_is_between_the_marks_changes(tmp_path: Path) -> None:
    page, record = tmp_path / "page.md", tmp_path / "attack.json"
    page.write_text("before\n<!-- attack: begin -->\nold\n<!-- attack: end -->\nafter\n")
    write_json(record, RECORDED)
    write_page(page, record)
    assert page.read_text() == with_table(page.read_text(), attack_table(RECORDED))
    assert page.read_text().startswith("before\n<!-- attack: begin -->\n| group |")
    assert page.read_text().endswith("<!-- attack: end -->\nafter\n")
    assert "old" not in page.read_text()
    with pytest.raises(InputError, match="has no"):
        with_table("no marks", "")
    write_json(record, {**RECORDED, "seconds": "x"})
    with pytest.raises(InputError, match=r"attack\.json is damaged"):
        write_page(page, record)


def test_the_page_shows_the_record() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert with_table(page, attack_table(read_json(RECORD))) == page
