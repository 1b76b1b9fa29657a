"""The record of a campaign of mutants, and its table: counts add up, what lives is named."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

import fstsim.paper.records.mutant_table as module
from fstsim.errors import InputError
from fstsim.paper.records.mutant_table import mutant_table, recorded_mutants
from fstsim.records import write_json

MUTATION = Path(__file__).resolve().parents[2] / "mutation"


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Six mutants: one killed at once, one since, one by nothing, one equivalent, two undecided, of which one was killed since."""
    monkeypatch.syspath_prepend(str(MUTATION))
    mutants, record = (importlib.import_module(name) for name in ("mutants", "record"))

    def fate(name: str, kind: str, by: str = "") -> Any:
        return mutants.Fate(name, 1, kind, by)

    fates = [
        fate("theory/a.py: 1", "killed", "t"),
        fate("theory/a.py: 2", "lives"),
        fate("theory/b.py: <b>`3`", "lives"),
        fate("llm/c.py: 4", "lives"),
        fate("llm/c.py: 5", "undecided"),
        fate("llm/c.py: 6", "undecided"),
    ]
    since = {(f.name, 1): f for f in (fate("theory/a.py: 2", "killed", "u"), fate("llm/c.py: 6", "killed", "v"))}
    campaign = {"commit": "0" * 40, "each": 3, "seed": 0}
    made = {"date": "2026-11-27", "campaign": campaign, "environment": {"python": "3.11.7"}}
    return {**record.summary(fates, since, {"llm/c.py: 4": "a width"}, ("theory", "llm")), **made}


def test_each_mutant_is_counted_once(recorded: dict[str, Any]) -> None:
    assert recorded["rooms"] == [
        {"room": "theory", "tried": 3, "killed": 2, "equivalent": 0, "undecided": 0, "alive": 1},
        {"room": "llm", "tried": 3, "killed": 1, "equivalent": 1, "undecided": 1, "alive": 0},
    ]
    assert [row["by"] for row in recorded["killed_since"]] == ["u", "v"]
    assert recorded["equivalent"] == [{"name": "llm/c.py: 4", "why": "a width"}]
    assert recorded["alive"] == [{"name": "theory/b.py: <b>`3`"}]
    assert recorded["undecided"] == [{"name": "llm/c.py: 5"}]


def test_the_table(recorded: dict[str, Any]) -> None:
    text = mutant_table(recorded)
    assert "| **all** | **6** | **3** | **1** | **1** | **1** |" in text
    assert "75% of those that are decided and not equivalent are killed, 2 of them only since, by tests" in text
    assert "Alive:\n\n- `theory/b.py: <b>'3'`" in text
    assert "too slow:\n\n- `llm/c.py: 5`" in text


def test_a_damaged_record_is_named(recorded: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = tmp_path / "mutants.json"
    monkeypatch.setattr(module, "RECORD", record)
    write_json(record, recorded)
    assert recorded_mutants() == mutant_table(recorded)
    write_json(record, {**recorded, "rooms": [{}]})
    with pytest.raises(InputError, match=r"mutants\.json is damaged"):
        recorded_mutants()
