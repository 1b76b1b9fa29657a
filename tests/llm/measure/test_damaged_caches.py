"""What fstsim faithful and fstsim layers have kept, damaged: one line that names the file, before anything is shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fstsim.errors import InputError
from fstsim.llm.measure.faithful.run import measured_from
from fstsim.llm.measure.faithful.scores import CURVES, OF_CHAINS
from fstsim.llm.measure.restored_runs import rows_from

Change = Callable[[Any], Any]


def _measured() -> dict[str, Any]:
    return {"columns": {name: [1.0, None] for name in OF_CHAINS}, "curves": {name: [0.5, 1.0] for name in CURVES}}


def _rows() -> list[dict[str, Any]]:
    row = {"part": "nothing", "kind": "none", "depth": 0, "parameters": 0, "reward": 0.5, "old_mass": None}
    return [row, {**row, "part": "everything", "kind": "all", "parameters": 9}]


def _set(held: Any, *way: Any, to: Any = None) -> Any:
    for key in way[:-1]:
        held = held[key]
    if to is None:
        del held[way[-1]]
    else:
        held[way[-1]] = to
    return None


_MEASURED: dict[str, Change] = {
    "a list": lambda _: [],
    "null": lambda _: "null",
    "no columns": lambda held: _set(held, "columns"),
    "a column gone": lambda held: _set(held, "columns", "early"),
    "a column of text": lambda held: _set(held, "columns", "chain", to=["x", "y"]),
    "a column of other length": lambda held: _set(held, "columns", "chain", to=[1.0]),
    "a column that is a number": lambda held: _set(held, "columns", "chain", to=3),
    "a column in a column": lambda held: _set(held, "columns", "chain", to=[[1.0], [2.0]]),
    "curves of text": lambda held: _set(held, "curves", CURVES[0], to="x"),
    "a curve gone": lambda held: _set(held, "curves", CURVES[0]),
    "a strange curve": lambda held: _set(held, "curves", "strange", to=[1.0]),
    "curves a list": lambda held: _set(held, "curves", to=[1]),
}
_ROWS: dict[str, Change] = {
    "an object": lambda _: {},
    "empty": lambda _: [],
    "a row gone": lambda rows: rows[:1],
    "a row of text": lambda rows: [*rows[:1], "x"],
    "no part": lambda rows: _set(rows, 0, "part"),
    "reward of text": lambda rows: _set(rows, 1, "reward", to="x"),
    "no reward": lambda rows: _set(rows, 1, "reward"),
    "a column in one row alone": lambda rows: _set(rows, 1, "old_mass"),
    "depth of text": lambda rows: _set(rows, 0, "depth", to="deep"),
    "parameters a list": lambda rows: _set(rows, 0, "parameters", to=[1]),
}


@pytest.mark.parametrize("damage", [None, *_MEASURED])
def test_what_faithful_has_kept(tmp_path: Path, damage: str | None) -> None:
    held = _measured()
    changed = _MEASURED[damage](held) if damage else None
    (tmp_path / "one.json").write_text(json.dumps(held if changed is None else changed))
    if damage is None:
        assert measured_from(tmp_path / "one.json", 2) == held
        return
    with pytest.raises(InputError, match=r"one\.json") as told:
        measured_from(tmp_path / "one.json", 2)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("damage", [None, *_ROWS])
def test_what_layers_has_kept(tmp_path: Path, damage: str | None) -> None:
    rows: Any = _rows()
    changed = _ROWS[damage](rows) if damage else None
    (tmp_path / "rows-0.json").write_text(json.dumps(rows if changed is None else changed))
    if damage is None:
        assert rows_from(tmp_path / "rows-0.json", 2) == rows
        return
    with pytest.raises(InputError, match=r"rows-0\.json") as told:
        rows_from(tmp_path / "rows-0.json", 2)
    assert "\n" not in str(told.value)
