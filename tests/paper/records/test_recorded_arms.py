"""Recorders of core isolation and of resets: what is recorded is kept, what is missing is made, other settings are refused."""

import json
from pathlib import Path

import pytest

from fstsim.errors import InputError
from fstsim.paper import DATA
from fstsim.paper.records import isolation_runs, reset_runs
from fstsim.paper.records.isolation_runs import FIRST, SEEDS, SETS, VARIANTS


def test_nothing_recorded_leaves_every_run_and_the_declared_order():
    todo = isolation_runs.missing({name: {} for name in SETS})
    assert len(todo) == len(set(todo)) == len(SETS) * len(SEEDS) * len(VARIANTS)
    assert {variant for *_, variant in todo[: len(SETS) * len(SEEDS) * 2]} == set(FIRST[0])


def test_recorded_runs_are_not_made_again():
    held = {"families": {"stages": [{"seed": 1}, {"seed": 3}]}, "conflict": {}}
    todo = isolation_runs.missing(held)
    assert (2, "families", "stages") in todo
    assert not {(1, "families", "stages"), (3, "families", "stages")} & set(todo)
    assert (1, "conflict", "stages") in todo
    assert reset_runs.missing({"resets": [{"seed": s} for s in reset_runs.SEEDS], "none": [{"seed": 2}]}) == [
        ("none", 1),
        ("none", 3),
    ]


def test_the_records_are_of_todays_settings_and_others_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, tasks in SETS.items():
        assert isolation_runs.recorded_runs(name, tasks)["stages"][0]["seed"] == SEEDS[0]
    monkeypatch.setattr(isolation_runs, "DATA", tmp_path)
    monkeypatch.setattr(reset_runs, "DATA", tmp_path)
    (tmp_path / "resets").mkdir()
    (tmp_path / "resets" / "resets.json").write_text((DATA / "resets" / "resets.json").read_text())
    assert reset_runs.record(reset_runs.Config(out=tmp_path, predict=True)) == 0

    (tmp_path / "isolation").mkdir()
    found = json.loads((DATA / "isolation" / "families.json").read_text())
    found["config"]["learner"]["sample"] = 17
    (tmp_path / "isolation" / "families.json").write_text(json.dumps(found))
    found = json.loads((DATA / "resets" / "resets.json").read_text())
    (tmp_path / "resets" / "resets.json").write_text(json.dumps({**found, "tau": 2.0}))
    with pytest.raises(InputError, match="other settings"):
        isolation_runs.recorded_runs("families", SETS["families"])
    with pytest.raises(InputError, match="other settings"):
        reset_runs.record(reset_runs.Config(out=tmp_path, predict=True))
