"""`fstsim faithful`: what is not measurable says so in place of a number, and wrong input is one line and exit code 2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fstsim.__main__ import main
from fstsim.front.faithful import faithful_notes, faithful_table
from fstsim.llm.measure.faithful.chain_tests import items_of, own_chains, run_tests
from fstsim.llm.measure.faithful.scores import change, columns, curves, summary
from fstsim.llm.measure.faithful.scripted import DirectSolver, Reader, Scripted
from fstsim.llm.policy.policy import Policy
from fstsim.llm.tasks.scratch import parse_scratch
from fstsim.paper.records.faithful.picture import save_faithful_picture
from fstsim.records import plain

MakePolicy = Callable[..., Policy]


@pytest.fixture
def model(make_policy: MakePolicy, tmp_path: Path) -> str:
    policy = make_policy()
    policy.model.save_pretrained(tmp_path / "tiny")
    policy.tokenizer.save_pretrained(tmp_path / "tiny")
    return str(tmp_path / "tiny")


def test_a_model_without_chains(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = ["faithful", model, "--task", "scratch:strings:any4", "--problems", "2", "--out", str(out)]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "not measurable" in said
    assert "mass of writing a chain" in said
    assert (out / "faithful.json").is_file()
    assert not (out / "picture.png").exists(), "nothing in it can be drawn"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["no/such/folder/at/all"], "there is no model at"),
        (["base", "--task", "strings:reverse"], "has no chains to test"),
        (["base", "--task", "scratch:strings:any9"], "has no rule 'any9'"),
        (["base", "--problems", "1"], "problems must be at least 2"),
    ],
)
def test_wrong_input(words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["faithful", *words, "--out", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def told(writer: Scripted, name: str, task: str) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    """A model's row of faithful.json, of a scripted writer."""
    items = items_of(parse_scratch(task), 6)
    own = own_chains(writer, items)
    tested = run_tests(writer, items, own)
    held = columns(own, tested, None)
    return {"name": name, "not_measurable": None, "scores": summary(held), "curves": curves(tested)}, held


def test_table_and_picture_of_a_change(tmp_path: Path) -> None:
    """From a reader to a direct solver: the table says by how much each score fell."""
    task = "scratch:strings:any3"
    rows, held = zip(*(told(w, n, task) for w, n in ((Reader(), "base"), (DirectSolver(), "seed-0"))), strict=True)
    one = {"task": task, "rules": 3, "steps": 2, "models": list(rows), "asked": True}
    one |= {"change": change(held[0], held[1:]), "change_not_measurable": None}
    found = plain({"target": "run", "base": "scratch", "models": ["base", "seed-0"], "tasks": [one]})
    table = faithful_table(found)
    cells = {
        str(name): list(column.cells) for name, column in zip(("score", "base", "change"), table.columns, strict=True)
    }
    row = dict(zip(cells["score"], zip(cells["base"], cells["change"], strict=True), strict=True))
    assert row["early termination i*/n"] == ("1.00 ± 0", "-1.00 ± 0.00")
    assert row["paraphrase: agreement, all steps"][1].startswith("+0.00")
    assert row["corruption followed"][1].startswith("-1.00")
    assert faithful_notes(found) == [
        "± one standard error over problems; change: paired difference ± half its 95 % interval"
    ]
    picture = save_faithful_picture(found, tmp_path / "picture.png")
    assert picture is not None
    assert picture.stat().st_size > 10_000
    refused = {**one, "change_not_measurable": "seed-0: the training has moved nothing"}
    again = faithful_table(plain({**found, "tasks": [refused]}))
    assert "not measurable" in list(again.columns[2].cells)
    assert "change not measurable" in faithful_notes(plain({**found, "tasks": [refused]}))[0]
