"""The conversion of records: it restores what was taken away, changes nothing else, and nothing the second time."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from small_chapters import small_chapters

from fstsim import InputError
from fstsim.llm.policy.policy import Policy
from fstsim.llm.validation import validate
from fstsim.paper import DATA
from fstsim.paper.records.convert import convert_predictions
from fstsim.records import read_json, write_json

NAMES = ("predictions.json", "validation.json")


@pytest.fixture(autouse=True)
def _predicted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is predicted today is asked for by several tests."""

    def chapters(scale: str, base: object) -> object:
        assert (scale, isinstance(base, Policy)) == ("small", True)
        return small_chapters()

    monkeypatch.setattr(validate, "all_chapters", chapters)


def without_labels(out: Path) -> None:
    """The recorded validation as it was written before predictions had labels."""
    for name in NAMES:
        record = read_json(DATA / "validation" / name)
        for row in record["predictions"] if name == "predictions.json" else record:
            del row["label"]
        write_json(out / name, record)


def test_labels_are_restored_and_nothing_else_is_touched(tmp_path: Path) -> None:
    without_labels(tmp_path)
    assert convert_predictions(tmp_path) == 216
    for name in NAMES:
        assert (tmp_path / name).read_bytes() == (DATA / "validation" / name).read_bytes()
    assert convert_predictions(tmp_path) == 0


def test_a_prediction_that_is_not_made_any_more_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no .*predictions\.json"):
        convert_predictions(tmp_path)
    without_labels(tmp_path)
    judged = read_json(tmp_path / "validation.json")
    write_json(tmp_path / "validation.json", [{**judged[0], "name": "tea"}])
    shutil.copy(tmp_path / "validation.json", tmp_path / "before")
    with pytest.raises(InputError, match="no prediction is called tea any more"):
        convert_predictions(tmp_path)
    assert (tmp_path / "validation.json").read_bytes() == (tmp_path / "before").read_bytes()
