"""Forecasts of recorded runs: from their configuration alone, beside what the seeds measured then."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fstsim.errors import InputError
from fstsim.llm.learners.oapl import OAPL
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.runs.run import run_training
from fstsim.paper.pages.forecast import afterwards_table
from fstsim.paper.records.forecast_recorded import Config, record_and_show
from fstsim.records import read_json, read_rows


def test_a_run_without_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = TrainConfig(
        method="oapl", tasks=("strings:reverse",), steps=4, lr=1e-4,
        learner=OAPL(problems=4, rollouts=4, period=2), probe=ProbeConfig(every=2, problems=8, exam=2, relearn=0),
    )  # fmt: skip
    place = tmp_path / "data" / "validation" / "runs" / "oapl" / "seed-0"
    run_training(train, place)
    for name in ("checkpoint.safetensors", "model"):
        shutil.rmtree(place / name) if (place / name).is_dir() else (place / name).unlink()
    source = tmp_path / "data" / "validation"
    config = Config(source, source / "forecast", ("oapl",), (2, 4), tmp_path / "work", tolerance=5.0, replicates=1)
    assert record_and_show(config) == 0
    assert "oapl step 4: reward" in capsys.readouterr().out
    held = read_json(source / "forecast" / "oapl.json")
    rows = {row["step"]: row for row in read_rows(place / "metrics.jsonl")}
    assert held["runs"]["4"]["reward"] == pytest.approx([rows[4]["reward"]], rel=1e-5)
    assert "OAPL strings:reverse" in afterwards_table(tmp_path / "data")
    assert "yet" in afterwards_table(tmp_path / "nothing")
    for other, said in (
        (Config(source, source, ("sft",), (2,)), "no run sft"),
        (Config(source, source, ("oapl",), (3,)), "step 3"),
    ):
        with pytest.raises(InputError, match=said):
            record_and_show(other)
