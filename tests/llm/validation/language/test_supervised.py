"""A run of supervised training beside its forecast: every seed is compared once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fstsim.llm.forecast.agreement import agreement
from fstsim.llm.forecast.reading import OLD, Reading
from fstsim.llm.forecast.result import Value
from fstsim.llm.validation.claim import Ahead, Records
from fstsim.llm.validation.language import supervised
from fstsim.llm.validation.language.scale import SKILL
from fstsim.llm.validation.language.supervised import SFT, Compared, training
from fstsim.paper import DATA
from fstsim.records import read_json

NO_BASE: Any = None


def test_a_seed_is_compared_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    held = agreement({"old": np.array([-1.0, -2.0])}, {"old": np.array([-1.0, -2.0])})
    row = {
        "step": 4,
        "means": {"reward": {"run": 0.5}},
        "prompts": {k: vars(v) for k, v in held.items()},
        "changes": {"old": {"run": [-1.0, -2.0]}},
    }
    calls: list[Path] = []
    monkeypatch.setattr(supervised, "forecast", lambda *_: None)
    monkeypatch.setattr(
        supervised,
        "compare",
        lambda _, place: calls.append(place) or {"rows": [{"step": 2}, row]},  # type: ignore[func-returns-value]
    )
    monkeypatch.setattr(supervised, "ForecastConfig", SimpleNamespace(from_dict=dict))
    (tmp_path / "forecast").mkdir()
    (tmp_path / "forecast" / "config.json").write_text("{}")
    compared, records = Compared(), Records(tmp_path, 2, NO_BASE)
    assert compared.mean("reward")(records) == [0.5, 0.5]
    assert compared.change("old")(records) == [-1.5, -1.5]
    assert compared.agreement("old")(records) == [1.0, 1.0]
    assert len(calls) == 2


def found_at(*steps: int) -> Any:
    """What claims read off a forecast that came to ``steps``."""
    base = Reading(np.array([0.1]), np.zeros(1), {OLD: np.log([0.5]), SKILL: np.zeros(2)}, {}, np.zeros(1), np.zeros(1))
    held = Value(0.6, 0.5, 0.7)
    return SimpleNamespace(
        base=base, steps=steps, value=lambda *_: held, change=lambda _: {SKILL: np.array([-3.0, -5.0])}
    )


def test_claims_get_their_numbers_from_the_forecast_of_the_run_as_planned(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    planned = training("smoke", NO_BASE)
    config = planned.runs[0].config
    run = replace(planned.runs[0], config=replace(config, model="elsewhere"))
    asked: list[tuple[str, Path]] = []
    for steps in ((config.steps // 2, config.steps), (config.steps // 2,), ()):
        monkeypatch.setattr(
            supervised,
            "made",
            lambda asks, place, steps=steps: asked.append((asks.train.model, place)) or found_at(*steps),
        )
        assert all(claim.ahead is not None and np.isnan(claim.prediction.value) for claim in planned.claims)
        told = {c.prediction.name: c.ahead(Ahead(tmp_path, {SFT: run})) for c in planned.claims if c.ahead is not None}
        assert len(told) == 5
        reward = told[f"{SFT}-reward"]
        if not steps:
            assert np.isnan(reward.value)
            continue
        assert (reward.value, reward.low, reward.high) == pytest.approx((0.6, 0.45, 0.75))
        assert reward.label.x == steps[-1]
        assert f"after {steps[-1]} steps" in reward.quantity
        change = told[f"{SFT}-skill-change"]
        assert (change.value, change.low, change.high) == pytest.approx((-4.0, -5.1, -2.9))
        assert told[f"{SFT}-old-prompts"].low == 0.5
    assert set(asked) == {("elsewhere", tmp_path / supervised.FORECAST)}


def test_predictions_recorded_before_claims_were_made_ahead_have_the_same_names_and_words() -> None:
    recorded = {p["name"]: p for p in read_json(DATA / "validation-smollm2" / "predictions.json")["predictions"]}
    for claim in training("smoke", NO_BASE).claims:
        p, was = claim.prediction, recorded[claim.prediction.name]
        assert p.quantity == was["quantity"]
        assert (p.statement, p.resolution) == (was["statement"], was["resolution"])
        assert vars(p.label) == was["label"]
