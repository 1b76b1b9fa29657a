"""Records of forecasts: made before the runs, joined by the runs, and never changed afterwards; and what page and picture make of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fstsim.errors import InputError
from fstsim.llm.forecast.agreement import r_squared
from fstsim.llm.forecast.config import ForecastConfig
from fstsim.llm.forecast.reading import OLD, Reading
from fstsim.llm.forecast.result import Forecast, Look, Replicate
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.validation.forecasts import FORECASTS
from fstsim.paper.pages.forecast import cost_table, coverage, forecast_table, league_table, verdict_rows
from fstsim.paper.records.forecast_evidence import draw, points
from fstsim.paper.records.record_forecasts import Config, losses, record
from fstsim.records import plain, read_json, write_json

SKILLS = {OLD: 3, "strings:sort": 4}
STEPS = (2, 4)


def reading(shift: float) -> Reading:
    old = {k: -1.0 - shift * np.arange(1, n + 1) for k, n in SKILLS.items()}
    flat = np.full(3, shift)
    return Reading(1.0 - np.exp(-flat), -flat, old, {"strings:sort": np.exp(old["strings:sort"])}, flat, flat)


def put(source: Path, shift: float = 1.0) -> Forecast:
    """A forecast in which old prompts lose ``shift`` nats a place and step."""
    train = TrainConfig(method="sft", tasks=("strings:mirror",), old=("strings:sort",), steps=4, lr=1e-4)
    looks = [Look(step, reading(shift * step), reading(shift * step)) for step in STEPS]
    found = Forecast(ForecastConfig(train, STEPS), reading(0.0), [Replicate(looks), Replicate(looks)])
    place = source / FORECASTS / "forecast-sft-mirror"
    write_json(place / "config.json", found.config.to_dict())
    write_json(place / "environment.json", {"commit": "abc"})
    write_json(place / "forecast.json", plain(found.to_dict()))
    return found


def hold(source: Path, found: Forecast, seed: int, factor: float) -> None:
    """A run that lost ``factor`` times what was forecast."""
    rows: list[dict[str, Any]] = []
    for step in STEPS:
        changes = {k: {"forecast": v.tolist(), "run": (factor * v).tolist()} for k, v in found.change(step).items()}
        mean = {"run": 0.5, "inside": seed == 0}
        means = dict.fromkeys(("reward", "log_old_mass", "kl_to_base"), mean)
        prompts = {"all": {"r2": 1.0 - 0.1 * seed, "rank": 1.0}}
        rows.append({"step": step, "means": means, "prompts": prompts, "changes": changes})
    write_json(source / FORECASTS / f"forecast-sft-mirror-seed-{seed}.json", {"rows": rows})


def test_before_and_after_the_runs(tmp_path: Path) -> None:
    source, target = tmp_path / "out", tmp_path / "data" / "forecast"
    with pytest.raises(InputError, match="holds no finished forecast"):
        record(Config(source, target))
    found = put(source)
    (written,) = record(Config(source, target))
    before = read_json(written)
    assert before["commit"] == "abc"
    assert "runs" not in before
    assert before["changes"]["4"]["strings:sort"] == [-4.0, -8.0, -12.0, -16.0]
    assert "| – | – | – |" in forecast_table(tmp_path / "data")
    for seed, factor in enumerate((1.0, 0.5)):
        hold(source, found, seed, factor)
    row = {"label": {"run": "forecast-sft-mirror", "kind": "forecast-old", "x": 4.0}, "verdict": "falsified", "value": -2.0, "measured": -5.0}  # fmt: skip
    write_json(source / "validation.json", [row, {**row, "label": {**row["label"], "run": "other"}}])
    record(Config(source, target))
    after = read_json(written)
    assert {key: after[key] for key in before} == before
    assert after["verdicts"] == [row]
    step = after["runs"]["steps"]["2"]
    assert step["r2"] == [1.0, 0.9]
    assert step["changes"]["strings:sort"][1] == [-1.0, -2.0, -3.0, -4.0]
    whole = np.concatenate(list(found.change(2).values()))
    both = r_squared(whole, 0.5 * whole), r_squared(0.5 * whole, whole)
    assert step["ceiling"] == pytest.approx(np.mean(both), rel=1e-5)
    assert step["r2_mean"] == pytest.approx(r_squared(whole, 0.75 * whole), rel=1e-5)
    assert coverage(tmp_path / "data") == (4, 8)
    assert "| log old mass within 15 % or half a nat | 0 | 1 | 0 | forecast-sft-mirror step 4 (" in verdict_rows(
        tmp_path / "data"
    )
    assert "SFT strings:mirror" in cost_table(tmp_path / "data")
    put(source, 2.0)
    with pytest.raises(InputError, match="recorded before the runs with another rows"):
        record(Config(source, target))
    assert read_json(written) == after


def test_losses_are_summed_before_the_step() -> None:
    rows = [{"step": 0}, *({"step": k, "loss": float(k * k)} for k in range(1, 5))]
    assert losses(rows, 0.1, (2, 4)) == pytest.approx({2: 0.3, 4: 1.0})


def test_picture_and_table_of_the_league(tmp_path: Path) -> None:
    source, target = tmp_path / "out", tmp_path / "data" / "forecast"
    found = put(source)
    hold(source, found, 0, 1.0)
    (written,) = record(Config(source, target))
    whole = read_json(written)
    overlap = {k: [1.0] * n for k, n in SKILLS.items()}
    entry = {"fitted": 0, "r2": [0.75], "rank": [0.5]}
    whole["league"] = {"entries": {"forecast": entry, "kl": {**entry, "rank": [None]}}, "at_base": {"overlap": overlap}}
    write_json(written, whole)
    assert "| forecast (coarse Adam) | 0 | 0.75; 0.5 |" in league_table(tmp_path / "data")
    assert "| 0.75; – |" in league_table(tmp_path / "data")
    drawn = points(whole)
    assert drawn.r2(drawn.forecast) == pytest.approx(1.0)
    assert drawn.r2(drawn.overlap) < 0.5  # it says the same of every prompt
    assert len(draw([whole]).axes) == 2
