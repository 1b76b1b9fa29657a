"""Every experiment is shown, each under names of its own, and no module that shows one spells the name of a run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import fstsim.paper
from fstsim.llm.experiments import CORE, EXPERIMENTS, ZERO
from fstsim.paper import DATA
from fstsim.paper.experiments.planned import grouped, kind_and_task
from fstsim.paper.experiments.shown import PICTURES, SHOWN, Shown
from fstsim.records import read_json


def test_every_experiment_is_shown() -> None:
    assert [shown.experiment for shown in SHOWN] == list(EXPERIMENTS)


@pytest.mark.parametrize("shown", SHOWN, ids=lambda shown: shown.experiment.name)
def test_the_records_have_each_table_under_one_name(shown: object) -> None:
    assert shown in SHOWN
    tables = shown.tables(DATA / "experiments")  # type: ignore[attr-defined]
    assert len(tables) == len(shown.names)  # type: ignore[attr-defined]
    assert all(table.row_count for table in tables)


@pytest.mark.parametrize("shown", SHOWN, ids=lambda shown: shown.experiment.name)
def test_the_preset_of_the_page_is_that_of_the_recorded_runs(shown: Shown) -> None:
    for planned in shown.experiment.runs(shown.preset):
        config = read_json(DATA / "experiments" / "runs" / planned.name / "seed-0" / "config.json")
        assert (config["steps"], config["probe"]["problems"]) == (planned.config.steps, planned.config.probe.problems)


def test_names_are_not_given_twice() -> None:
    names = [name for shown in SHOWN for name in shown.names]
    assert len(names) == len(set(names))
    assert len(PICTURES) == len({picture.name for picture in PICTURES})


def test_an_empty_directory_has_no_pictures(tmp_path: Path) -> None:
    for picture in PICTURES:
        assert picture.draw(tmp_path, tmp_path / "x.png") is None
        assert picture.draw_page(tmp_path, tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_runs_are_grouped_in_their_order() -> None:
    found = grouped(CORE, kind_and_task)
    assert [kind for kind, _ in found] == ["hard"] * 3 + ["easy"] * 3
    assert [[run.method for run in runs] for runs in found.values()] == [["rl", "fst", "gepa"]] * 3 + [
        ["rl", "fst"]
    ] * 3
    assert list(grouped(ZERO, lambda run: run.method)) == ["rl", "fst"]


def _strings(folder: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted(folder.rglob("*.py")):
        for text in re.findall(r'f?"([^"\n]*)"', path.read_text(encoding="utf-8")):
            yield path, text


def test_no_name_of_a_run_is_spelled() -> None:
    """Tables and figures ask the declarations; the page that quotes settings and the ledger name the runs that they are about."""
    names = {run.name for experiment in EXPERIMENTS for run in experiment.runs("small") if "-" in run.name}
    for path, text in _strings(Path(fstsim.paper.__file__).parent):
        if path.parts[-2:] != ("manuscript", "numbers.py") and path.parent.name != "claims":
            assert text not in names, path
