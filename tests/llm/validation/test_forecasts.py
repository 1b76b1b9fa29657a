"""Forecasts as claims: written before the runs with the declared margins, held against runs by what was read off their weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from fstsim.llm.experiments.plan import Planned
from fstsim.llm.experiments.run import run_planned
from fstsim.llm.forecast.agreement import r_squared
from fstsim.llm.learners.sft import SupervisedFineTuning
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.validation.claim import Ahead, Records
from fstsim.llm.validation.forecasts import ceiling, forecasts, forecasts_further
from fstsim.llm.validation.forecasts.chapters import FORETOLD, FURTHER
from fstsim.llm.validation.forecasts.foretold import NATS, R2, REWARD, SHARE, Foretold, claims_of, forecast_of, held
from fstsim.paper import DATA
from fstsim.records import read_json

MakeModel = Callable[..., PreTrainedModel]


def test_no_recorded_run_has_a_pair_of_task_and_rate_that_is_forecast() -> None:
    fresh = {(told.config.method, told.config.tasks[0], told.config.lr) for told in (*FORETOLD, *FURTHER)}
    used = set()
    for place in DATA.glob("*/runs/*/seed-*/config.json"):
        if not place.parent.parent.name.startswith("forecast-"):
            found = read_json(place)
            used |= {(found["method"], task, found["lr"]) for task in found["tasks"]}
    assert len(used) > 20
    assert not fresh & used
    assert len({told.name for told in (*FORETOLD, *FURTHER)}) == len(FORETOLD) + len(FURTHER)


def test_the_smallest_scale_has_one_run_and_nothing_is_forecast_before_it_is_chosen() -> None:
    small = forecasts("small", None)  # type: ignore[arg-type]
    smoke = forecasts("smoke", None)  # type: ignore[arg-type]
    assert [run.name for run in smoke.runs] == [FORETOLD[0].name]
    assert [run.name for run in small.runs] == [told.name for told in FORETOLD]
    assert len(small.claims) == 3 * sum(len(told.at) for told in FORETOLD)
    further = forecasts_further("small", None)  # type: ignore[arg-type]
    for claim in (*small.claims, *further.claims):
        assert claim.ahead is not None
        assert np.isnan(claim.prediction.value)
    for told in (*FORETOLD, *FURTHER):
        assert not set(told.config.old) & set(told.config.tasks)
        assert told.config.probe.relearn == 0


def test_from_forecast_to_measurement(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """On a tiny model: margins around the forecast's own numbers; what is measured is what the weights of the run say."""
    make_model(seed=0, initializer_range=0.1).save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    model, out = str(tmp_path / "m"), tmp_path / "out"
    config = TrainConfig(
        method="sft", tasks=("strings:reverse",), old=("digits:negate",), model=model, steps=4, lr=1e-3,
        learner=SupervisedFineTuning(16), probe=ProbeConfig(every=4, problems=8, exam=2, early=1000, relearn=0),
    )  # fmt: skip
    told = Foretold("told", config, (2, 4))
    ahead = Ahead(out, {told.name: Planned(told.name, config)})
    claims = {c.prediction.name: c for step in told.at for c in claims_of(told, step)}
    found = forecast_of(told, ahead)
    for step in told.at:
        for kind, margin in (("reward", lambda _: REWARD), ("old", lambda v: max(NATS, SHARE * abs(v)))):
            made = claims[f"told-{kind}-{step}"].ahead(ahead)  # type: ignore[misc]
            value = found.row(step)["reward" if kind == "reward" else "log_old_mass"]["value"]
            assert made.value == pytest.approx(value)
            assert (made.low, made.high) == pytest.approx((value - margin(value), value + margin(value)))
        made = claims[f"told-r2-{step}"].ahead(ahead)  # type: ignore[misc]
        assert (made.low, made.high) == (R2, 1.0)
    for seed in range(2):
        run_planned(Planned(told.name, config), seed, out)
    records = Records(out, 2, Policy.load(model))
    each = [held(records, told, seed) for seed in range(2)]
    before = {p: p.read_bytes() for p in (out / "forecasts").glob("*.json")}
    measured = claims["told-reward-4"].measured(records)
    assert measured == pytest.approx([rows[-1]["reward"] for rows in records.rows("told")])
    for seed, value in enumerate(claims["told-r2-4"].measured(records)):
        changes = each[seed]["rows"][1]["changes"].values()
        pair = [np.concatenate([v[which] for v in changes]) for which in ("forecast", "run")]
        assert value == pytest.approx(r_squared(*pair))
    assert {p: p.read_bytes() for p in before} == before  # read again, not made again
    runs = [np.concatenate([v["run"] for v in h["rows"][0]["changes"].values()]) for h in each]
    assert ceiling(each, 2) == pytest.approx((r_squared(*runs) + r_squared(*runs[::-1])) / 2)
    assert np.isnan(ceiling(each[:1], 2))
