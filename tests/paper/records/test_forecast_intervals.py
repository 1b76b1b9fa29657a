"""Recorded forecasts made again: the same values, intervals as they are now, and a count of the runs within."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from fstsim.errors import InputError
from fstsim.llm.forecast.config import ForecastConfig
from fstsim.llm.forecast.forecast import forecast
from fstsim.llm.forecast.settings import ForecastSettings
from fstsim.llm.learners.sft import SupervisedFineTuning
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.validation.forecasts import FORECASTS
from fstsim.paper.pages.forecast import coverage_line, coverage_of
from fstsim.paper.records.forecast_intervals import ASKED, Config, record_and_show
from fstsim.paper.records.record_forecasts import Config as Recorded
from fstsim.paper.records.record_forecasts import record
from fstsim.records import read_json, write_json

MakeModel = Callable[..., PreTrainedModel]


def test_recorded_forecasts_have_intervals_again(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_model(seed=0, initializer_range=0.1).save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    train = TrainConfig(
        method="sft", tasks=("strings:reverse",), old=("digits:negate",), model=str(tmp_path / "m"), steps=4, lr=1e-3,
        learner=SupervisedFineTuning(16), probe=ProbeConfig(every=4, problems=8, exam=2, early=1000, relearn=0),
    )  # fmt: skip
    source, data = tmp_path / "out", tmp_path / "data"
    place = source / FORECASTS / "forecast-told"
    found = forecast(ForecastConfig(train, (2, 4), ForecastSettings(control=4)), place)
    rows = []
    for step in found.steps:
        row = found.row(step)
        runs = {name: {"run": row[name]["value"], "inside": True} for name in ASKED}
        changes = {k: {"forecast": v.tolist(), "run": v.tolist()} for k, v in found.change(step).items()}
        rows.append({"step": step, "means": runs, "prompts": {"all": {"r2": 1.0, "rank": 1.0}}, "changes": changes})
    far = [
        {**row, "means": {k: {"run": v["run"] + 50.0, "inside": False} for k, v in row["means"].items()}}
        for row in rows
    ]
    for seed, held in enumerate((rows, far)):
        write_json(source / FORECASTS / f"forecast-told-seed-{seed}.json", {"rows": held})
    (written,) = record(Recorded(source, data / "forecast"))
    # the tiny model is no published one: what stands for it is put back
    whole = read_json(written)
    whole["config"]["train"]["model"] = str(tmp_path / "m")
    write_json(written, whole)
    config = Config(data, data / "forecast-intervals.json", tmp_path / "work")
    assert "4 of 8 rewards" in coverage_line(data)
    assert record_and_show(config) == 0
    assert "all: 4 of 8 numbers of runs within" in capsys.readouterr().out
    (held_now,) = read_json(config.target)
    for step in found.steps:
        now = held_now["steps"][str(step)]["log_old_mass"]
        assert now["low"] == pytest.approx(found.row(step)["log_old_mass"]["low"], rel=1e-4)
        assert len(now["one_path"]) == 2
        assert now["one_path"][0]["high"] > now["one_path"][0]["low"]
    assert coverage_of([held_now])[1:4:2] == (8, 16)
    assert "4 of 8 do" in coverage_line(data)
    whole["rows"][0]["log_old_mass"]["value"] -= 1.0
    write_json(written, whole)
    assert held_now["same"]
    assert record_and_show(config) == 0
    assert not read_json(config.target)[0]["same"]
    with pytest.raises(InputError, match="no forecast with runs of the name other"):
        record_and_show(Config(data, only=("other",)))
