"""`fstsim forecast` from end to end on a tiny random model: what it writes, a grid, a check, and one line for a mistake."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerFast

import fstsim.llm.runs.run as train_run
from fstsim.__main__ import main
from fstsim.errors import InputError
from fstsim.front.forecast import Forecast
from fstsim.front.forecast_flags import with_grid
from fstsim.llm.runs.relearning import relearn_steps
from fstsim.records import read_json

MakeModel = Callable[..., PreTrainedModel]
SMALL = ("--model", "start", "--preset", "smoke", "--method", "sft", "--task", "strings:reverse", "--problems", "8")
SMALL = (*SMALL, "--probe-problems", "8")


@pytest.fixture(autouse=True)
def _here(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train_run, "relearn_steps", functools.partial(relearn_steps, most=1, batch=2))
    make_model(initializer_range=0.1).save_pretrained("start")
    tokenizer.save_pretrained("start")


def forecast(*flags: str) -> int:
    return main(["forecast", *SMALL, "--steps", "4", *flags])


def test_table_picture_and_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setting = ("--old", "digits:negate", "--lr", "1e-3", "--at", "2", "4", "--replicates", "1", "--out", "out")
    assert forecast(*setting) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 100
    assert said.count("\n") <= 30
    assert "log mass of old answers" in said
    assert "lost on digits:negate" in said
    assert "gradients" in said
    assert (tmp_path / "out" / "picture.png").read_bytes().startswith(b"\x89PNG")
    held = read_json(tmp_path / "out" / "forecast.json")
    assert [row["step"] for row in held["rows"]] == [2, 4]
    run = ["train", *SMALL, "--steps", "4", "--lr", "1e-3", "--old", "digits:negate", "--seeds", "1", "--out", "run"]
    assert main(run) == 0
    capsys.readouterr()
    assert forecast(*setting, "--check", "run/seed-0") == 0
    said = capsys.readouterr().out
    assert "all old prompts" in said
    assert max(map(len, said.splitlines())) <= 100
    assert (tmp_path / "out" / "check.png").read_bytes().startswith(b"\x89PNG")
    assert read_json(tmp_path / "out" / "check.json")["rows"][-1]["prompts"]["all"]["prompts"] >= 14
    assert forecast(*setting[:2], "--lr", "2e-3", "--out", "other", "--check", "run/seed-0") == 2
    assert "lr 0.001, the forecast with 0.002" in capsys.readouterr().err
    for damaged in ("{}", "null", '{"base": [], "replicates": 3}', json.dumps({**held, "replicates": [{}]})):
        (tmp_path / "out" / "forecast.json").write_text(damaged)
        assert forecast(*setting) == 2
        assert "forecast.json is damaged" in capsys.readouterr().err


def test_grid_and_recommendation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = (
        "--lr",
        "1e-3",
        "--replay-share",
        "0",
        "0.5",
        "--steps",
        "2",
        "--at",
        "2",
        "--replicates",
        "1",
        "--out",
        "grid",
    )
    assert forecast(*grid, "--at-most-forgetting", "0.9") == 0
    said = capsys.readouterr().out
    assert "recommended: replay-share-" in said
    names = sorted(p.name for p in (tmp_path / "grid").iterdir())
    assert names == ["replay-share-0", "replay-share-0.5"]


def test_what_is_wrong_is_said_before_any_work() -> None:
    """Without the parser: building its flags takes seconds."""
    command = with_grid(Forecast)
    base = {
        "model": "start",
        "method": "sft",
        "task": ("strings:reverse",),
        "steps": 4,
        "lr": (1e-3,),
        "out": Path("out"),
    }
    for change, said in (
        ({"at": (9,)}, r"1\.\.4"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"batches": 0}, "batches"),
        ({"tolerance": float("nan")}, "tolerance"),
        ({"method": "gepa", "lr": ()}, "cannot be forecast"),
        ({"old": ("strings:fly",)}, "fly"),
        ({"rerun": True}, "--check"),
        ({"lr": (1e-3, 1e-4), "check": Path("run")}, "one value"),
        ({"lr": (1e-3, 1e-3)}, "twice"),
        ({"at_most_forgetting": -1.0}, "at-most-forgetting"),
        ({"check": Path("nowhere")}, "nowhere"),
        ({"task": ("strings:reverse", "strings:sort")}, "one task"),
    ):
        with pytest.raises(InputError, match=said):
            command(**{**base, **change}).run()
        assert not Path("out").exists()
