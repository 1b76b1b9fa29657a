"""The table of the last attack: what is in the record, escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import fstsim.paper.records.attack_table as module
from fstsim.errors import InputError
from fstsim.paper.records.attack_table import attack_table, recorded_attack
from fstsim.records import write_json

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


def test_a_damaged_record_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = tmp_path / "attack.json"
    monkeypatch.setattr(module, "RECORD", record)
    write_json(record, RECORDED)
    assert recorded_attack() == attack_table(RECORDED)
    write_json(record, {**RECORDED, "seconds": "x"})
    with pytest.raises(InputError, match=r"attack\.json is damaged"):
        recorded_attack()
