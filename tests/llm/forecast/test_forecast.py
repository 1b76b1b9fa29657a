"""Forecasts of tiny random models: as directories that go on where they were stopped, and against the run itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from fstsim.errors import InputError
from fstsim.llm.forecast.agreement import agreement, r_squared, spearman
from fstsim.llm.forecast.compare import compare
from fstsim.llm.forecast.config import ForecastConfig, default_steps
from fstsim.llm.forecast.forecast import forecast
from fstsim.llm.forecast.interval import carried, half_width
from fstsim.llm.forecast.reading import OLD
from fstsim.llm.forecast.recommend import recommend
from fstsim.llm.forecast.result import Forecast, quantities
from fstsim.llm.forecast.settings import ForecastSettings
from fstsim.llm.learners.sft import SupervisedFineTuning
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.runs.run import run_training

MakeModel = Callable[..., PreTrainedModel]
STEPS = 6
SETTINGS = ForecastSettings(control=4, replicates=2)


@pytest.fixture(scope="module")
def models(make_model: MakeModel, tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models")
    for name, seed in (("base", 0), ("other", 1)):
        make_model(seed=seed, initializer_range=0.1).save_pretrained(place / name)
        tokenizer.save_pretrained(place / name)
    return place


@pytest.fixture(scope="module")
def train(models: Path) -> TrainConfig:
    return TrainConfig(
        method="sft",
        tasks=("strings:reverse",),
        old=("digits:negate", "strings:sort"),
        model=str(models / "base"),
        steps=STEPS,
        lr=1e-3,
        learner=SupervisedFineTuning(32),
        probe=ProbeConfig(every=2, problems=12, exam=2, relearn=0),
    )


@pytest.fixture(scope="module")
def run(train: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "seed-0"
    run_training(train, out)
    return out


@pytest.fixture(scope="module")
def found(train: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[Forecast, Path]:
    out = tmp_path_factory.mktemp("forecast") / "out"
    return forecast(ForecastConfig(train, (2, 4, STEPS), SETTINGS), out), out


def _timeless(file: Path) -> object:
    held = json.loads(file.read_text())
    held["cost"].pop("seconds")
    for replicate in held["replicates"]:
        replicate.pop("seconds")
    return held


def test_interrupted_equals_uninterrupted(train: TrainConfig, found: tuple[Forecast, Path], tmp_path: Path) -> None:
    config, stops = ForecastConfig(train, (2, 4, STEPS), SETTINGS), 0

    def stop(step: int, note: str) -> None:  # noqa: ARG001
        raise KeyboardInterrupt

    while not (tmp_path / "f" / "forecast.json").exists():
        try:
            forecast(config, tmp_path / "f", stop)
        except KeyboardInterrupt:
            stops += 1
        assert stops < 20
    assert stops > 2
    assert _timeless(tmp_path / "f" / "forecast.json") == _timeless(found[1] / "forecast.json")
    assert sorted(p.name for p in (tmp_path / "f").iterdir()) == ["config.json", "environment.json", "forecast.json"]
    again = forecast(config, tmp_path / "f", stop)  # only loaded
    assert again.steps == found[0].steps
    whole = json.loads((tmp_path / "f" / "forecast.json").read_text())
    del whole["replicates"][0]["looks"][0]["step"]
    (tmp_path / "f" / "forecast.json").write_text(json.dumps(whole))
    with pytest.raises(InputError, match="is damaged"):
        forecast(config, tmp_path / "f")
    with pytest.raises(InputError, match="lr"):
        forecast(replace(config, train=replace(train, lr=2e-3)), tmp_path / "f")


def test_against_the_run(found: tuple[Forecast, Path], run: Path) -> None:
    """Every column of the run that has a forecast is held against it; with --rerun prompts at every step."""
    held = compare(found[0], run, rerun=True)
    assert [row["step"] for row in held["rows"]] == [2, 4, STEPS]
    for row in held["rows"]:
        assert {"reward", "kl_to_base", "log_old_mass", "forgotten digits:negate"} <= set(row["means"])
        assert row["prompts"][OLD]["prompts"] == len(found[0].base.old[OLD])
    last = held["rows"][-1]
    assert last["prompts"]["all"]["r2"] > 0.7
    assert last["prompts"]["all"]["rank"] > 0.7
    alone = compare(found[0], run)  # weights are there at the end alone
    assert ["prompts" in row for row in alone["rows"]] == [False, False, True]
    np.testing.assert_allclose(alone["rows"][-1]["prompts"]["all"]["r2"], last["prompts"]["all"]["r2"], rtol=1e-5)


def test_a_run_of_something_else_is_refused(
    found: tuple[Forecast, Path], run: Path, models: Path, tmp_path: Path
) -> None:
    first, config = found[0], found[0].config
    for change, said in (
        ({"lr": 2e-3}, "lr 0.001, the forecast with 0.002"),
        ({"learner": SupervisedFineTuning(31)}, "learner.problems 32, the forecast with 31"),
        ({"model": str(models / "other")}, "model"),
        ({"problems_sha256": (("strings:reverse", "0"),)}, "other problems of strings:reverse"),
        ({"probe": ProbeConfig(problems=13)}, "12 problems"),
    ):
        other = replace(first, config=replace(config, train=replace(config.train, **change)))
        if "problems_sha256" in change:
            whole = json.loads((run / "config.json").read_text())
            whole["problems_sha256"] = [["strings:reverse", "1"]]
            (tmp_path / "config.json").write_text(json.dumps(whole))
            place = tmp_path
        else:
            place = run
        with pytest.raises(InputError, match=said):
            compare(other, place)
    with pytest.raises(InputError, match="no file"):
        compare(first, tmp_path / "nothing")


def test_an_adapter_is_forecast_and_compared(train: TrainConfig, tmp_path: Path) -> None:
    """Each replicate draws its own random factors; the run made again has those of its seed; an interruption changes nothing."""
    pytest.importorskip("peft")
    config = replace(train, adapter="lora:r=2", lr=1e-2, old=("digits:negate",), seed=1)
    run_training(config, tmp_path / "run")
    asked = ForecastConfig(config, (2, STEPS), replace(SETTINGS, tolerance=2.0))
    found = forecast(asked, tmp_path / "whole")
    one, two = (look.reading.log_right for look in found.at(2))
    assert not np.allclose(one, two, rtol=1e-6)
    held = compare(found, tmp_path / "run", rerun=True)
    assert held["rows"][-1]["prompts"]["all"]["r2"] > 0.5
    alone = compare(found, tmp_path / "run")
    np.testing.assert_allclose(
        alone["rows"][-1]["prompts"]["all"]["r2"], held["rows"][-1]["prompts"]["all"]["r2"], rtol=1e-5
    )

    def stop(step: int, note: str) -> None:  # noqa: ARG001
        raise KeyboardInterrupt

    for _ in range(20):
        try:
            forecast(asked, tmp_path / "cut", stop)
            break
        except KeyboardInterrupt:
            continue
    assert _timeless(tmp_path / "cut" / "forecast.json") == _timeless(tmp_path / "whole" / "forecast.json")


def test_old_mass_is_compared_where_both_answers_agree_on_some_prompts(train: TrainConfig, tmp_path: Path) -> None:
    config = replace(
        train, tasks=("digits:lead",), old=(), steps=2, probe=ProbeConfig(every=2, problems=24, exam=2, relearn=0)
    )
    run_training(config, tmp_path / "run")
    found = forecast(ForecastConfig(config, (1, 2), replace(SETTINGS, replicates=1)))
    assert len(found.base.old[OLD]) < len(found.base.reward)
    rows = compare(found, tmp_path / "run", rerun=True)["rows"]
    for row in rows:
        change = np.array(row["changes"][OLD]["run"])
        wanted = np.log(np.exp(found.base.old[OLD] + change).mean())
        assert row["means"]["log_old_mass"]["run"] == pytest.approx(wanted)


def test_the_interval_holds_spread_and_error(found: tuple[Forecast, Path]) -> None:
    first = found[0]
    of = quantities(first.base)["reward"]
    one, two = (look for look in first.at(STEPS))
    values = np.array([of(one.reading), of(two.reading)])
    error = np.mean([abs(of(k.predicted) - of(k.reading)) for k in (one, two)])
    ways = [carried(r.pieces, r.control, of, STEPS, np.full(STEPS, 1e-3)) for r in first.replicates]
    assert all(way.run > 0.0 and way.path > 0.0 for way in ways)
    half = half_width(values, [of(k.predicted) - of(k.reading) for k in (one, two)], ways)
    before = np.sqrt(12.7062**2 * values.var(ddof=1) * 1.5 + error**2)
    old = replace(first, replicates=[replace(r, control=None) for r in first.replicates]).value(of, STEPS)
    assert old.high - old.low == pytest.approx(2.0 * before, rel=1e-4)
    value = first.value(of, STEPS)
    np.testing.assert_allclose(
        [value.value, value.low, value.high], [values.mean(), values.mean() - half, values.mean() + half]
    )
    assert half > 0.0
    assert first.cost["gradients"] == sum(r.spent.gradients for r in first.replicates) > 0


def test_recommendation_learns_most_within_the_budget(found: tuple[Forecast, Path]) -> None:
    first = found[0]
    free = recommend({"a": first}, 10.0)
    assert free is not None
    rewards = {step: first.value(quantities(first.base)["reward"], step).value for step in first.steps}
    assert free.reward.value == pytest.approx(max(rewards.values()), abs=1e-3)
    assert recommend({"a": first}, 0.0) is None or recommend({"a": first}, 0.0).forgotten.high <= 0.0  # type: ignore[union-attr]
    with pytest.raises(InputError, match="at-most-forgetting"):
        recommend({}, -1.0)


def test_agreement(rng: np.random.Generator) -> None:
    m = rng.normal(size=50)
    p = 0.9 * m + 0.2 * rng.normal(size=50)
    p[:4], m[:4] = 0.0, 0.0
    assert r_squared(p, m) == pytest.approx(1.0 - np.mean((m - p) ** 2) / m.var())
    assert spearman(p, m) == pytest.approx(spearmanr(p, m).statistic)
    assert np.isnan(spearman(p, np.ones(50)))
    found = agreement({"a": p, "b": m}, {"a": m, "b": m})
    assert found["b"].r2 == 1.0
    assert found["all"].prompts == 100


def test_bad_input(train: TrainConfig) -> None:
    for wrong, said in (
        (lambda: ForecastConfig(replace(train, method="fst", learner=None)), "moves contexts too"),
        (lambda: ForecastConfig(replace(train, method="isolate", learner=None)), "second copy"),
        (lambda: ForecastConfig(replace(train, method="rl", learner=None, engine="trl")), "--engine trl"),
        (lambda: ForecastConfig(replace(train, tasks=("strings:reverse", "strings:sort"))), "one task"),
        (lambda: ForecastConfig(train, (2, 7)), r"1\.\.6"),
        (lambda: ForecastConfig(train, (4, 2)), "ascend"),
        (lambda: ForecastSettings(batches=0), "batches"),
        (lambda: ForecastSettings(tolerance=0.0), "tolerance"),
        (lambda: ForecastSettings(longest=1), "longest"),
    ):
        with pytest.raises(InputError, match=said):
            wrong()
    assert default_steps(100) == (6, 12, 25, 50, 75, 100)
    assert default_steps(1) == (1,)
