"""Claims: what is read from rows, against numbers put into them; and that every claim can be judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_chapters import small_chapters

from fstsim.errors import InputError
from fstsim.llm.experiments.plan import Scale
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.tasks.rules import parse_rules
from fstsim.llm.validation.claim import Ahead, Claim, Records, settled, steps_to
from fstsim.llm.validation.distance import binned_slope, old_answers, old_prompts
from fstsim.llm.validation.kinds import Label
from fstsim.llm.validation.prediction import Prediction
from fstsim.llm.validation.times import calibration_step
from fstsim.llm.validation.validate import CHAPTERS, Trained, _predicted, _write_down, all_chapters, validate
from fstsim.records import read_json, write_json
from fstsim.theory import ALL_STATEMENTS


@pytest.fixture(scope="module")
def base() -> Policy:
    policy = Policy.load("base")
    policy.model.eval()
    return policy


def put(out: Path, name: str, seed: int, rows: list[dict[str, Any]]) -> None:
    place = out / "runs" / name / f"seed-{seed}"
    place.mkdir(parents=True)
    (place / "metrics.jsonl").write_text("".join(json.dumps({"samples": 0, **row}) + "\n" for row in rows))
    (place / "summary.json").write_text("{}")


def test_rows_without_a_measurement_are_passed_over(base: Policy, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"step": s, "reward": r} for s, r in ((0, 0.1), (1, None), (4, 0.5), (8, 0.7))]
    assert steps_to([*rows, {"step": 9}], 0.5) == pytest.approx(4.0)
    put(tmp_path, "a", 0, rows)
    assert settled("a", "reward")(Records(tmp_path, 1, base)) == [0.7]


def test_calibration_takes_the_first_loss_of_a_fifth() -> None:
    steps = np.array([0.0, 2.0, 4.0, 8.0, 12.0, 16.0])
    assert calibration_step(steps, np.array([1.0, 0.9, 0.7, 0.5, 0.2, 0.1])) == (2, 4)
    assert calibration_step(steps, np.ones(6)) is None
    assert calibration_step(steps, np.array([1.0, 1.0, 1.0, 1.0, 0.5, 0.1])) is None


def test_the_slope_of_a_power_law_is_found() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-8.0, -1.0, 4000)
    assert binned_slope(x, np.exp(0.7 * x)) == pytest.approx(0.7, abs=0.05)
    assert np.isnan(binned_slope(x, -np.ones(4000)))


def test_overlap_is_a_coefficient_and_old_answers_are_what_was_asked(base: Policy) -> None:
    task = parse_rules("digits:plus")
    own, overlap, prompts = old_prompts(base, task, 3)
    assert ((overlap > 0.0) & (overlap <= 1.0)).all()
    assert own == pytest.approx(old_answers(base, prompts))
    assert np.exp(own).mean() > 0.9  # the base follows the rules that are written
    assert all(old != new for *_, old, new in prompts)
    assert "plus" not in {word for word, *_ in prompts}


@pytest.mark.parametrize("scale", ["smoke", "small"])
def test_every_claim_can_be_judged(base: Policy, scale: Any) -> None:
    chapters = small_chapters() if scale == "small" else all_chapters(scale, base)
    runs = {run.name: run for chapter in chapters.values() for run in chapter.runs}
    slugs = {statement.slug for statement in ALL_STATEMENTS}
    claims = [claim for chapter in chapters.values() for claim in chapter.claims]
    names = [claim.prediction.name for claim in claims]
    assert len(names) == len(set(names))
    for claim in claims:
        p = claim.prediction
        assert p.statement in slugs, p.name
        assert set(claim.needs) <= set(runs), p.name
        assert (claim.calibrated is None) == (p.calibration == ""), p.name
        if claim.calibrated is None and claim.ahead is None:
            assert p.low <= p.value <= p.high, p.name
        else:
            assert np.isnan(p.value), p.name
    # a run of one name has one configuration, whoever asks for it
    for chapter in chapters.values():
        for run in chapter.runs:
            assert run == runs[run.name]
            assert run.after is None or run.after in runs


def claim(name: str, value: float, needs: tuple[str, ...]) -> Claim:
    return Claim(Prediction(name, Label("replay"), "s", "q", value, value, value, 1.0), needs, lambda _: [value] * 3)


def write_down(claims: list[Claim], out: Path, scale: Scale = "smoke") -> dict[str, Prediction]:
    """What `validate` does with the predictions of ``claims`` before it runs anything."""
    about = {"model": "base", "scale": scale, "adapter": ""}
    return _write_down(_predicted(about, out), claims, about, Ahead(out, {}))


def test_what_was_written_stands_and_latecomers_are_refused(tmp_path: Path) -> None:
    first = write_down([claim("a", 0.5, ("one",))], tmp_path)
    assert first["a"].value == 0.5
    put(tmp_path, "one", 0, [])
    later = write_down([claim("a", 0.9, ("one",)), claim("late", 0.1, ("one",)), claim("new", 0.2, ("two",))], tmp_path)
    assert later["a"].value == 0.5
    assert "late" not in later
    assert later["new"].value == 0.2
    assert [p["name"] for p in read_json(tmp_path / "predictions.json")["predictions"]] == ["a", "new"]


def test_a_calibrated_prediction_is_written_without_a_value(tmp_path: Path) -> None:
    nan = float("nan")
    late = Claim(
        Prediction("c", Label("replay"), "s", "q", nan, nan, nan, 1.0, "a clock"),
        ("one",),
        lambda _: [1.0],
        lambda _: None,
    )  # type: ignore[arg-type,return-value]
    write_down([late], tmp_path)
    row = read_json(tmp_path / "predictions.json")["predictions"][0]
    assert row["value"] is None
    assert row["calibration"] == "a clock"
    assert np.isnan(write_down([late], tmp_path)["c"].value)


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="chapter 'nothing' is unknown; allowed: dead-groups, replay"):
        next(validate("smoke", "base", 3, tmp_path, only=("nothing",)))
    assert not list(tmp_path.iterdir())
    write_down([claim("a", 0.5, ("one",))], tmp_path)
    record = read_json(tmp_path / "predictions.json")
    del record["predictions"][0]["label"]
    write_json(tmp_path / "predictions.json", record)
    with pytest.raises(InputError, match=r"prediction a has no label: add it with python -m fstsim\.paper"):
        next(validate("smoke", "base", 3, tmp_path))
    (tmp_path / "predictions.json").unlink()
    write_down([], tmp_path, "small")
    with pytest.raises(InputError, match="holds a validation with scale small, not smoke"):
        next(validate("smoke", "base", 3, tmp_path))
    assert "dead-groups" in CHAPTERS
    (tmp_path / "predictions.json").unlink()
    with pytest.raises(InputError, match="--adapter must be lora:r=16"):
        next(validate("smoke", "base", 3, tmp_path, trained=Trained(adapter="lora:rank=3")))
    with pytest.raises(
        InputError, match=r"--adapter writes no whole models, and relearn-.* start from such: name other chapters"
    ):
        next(validate("small", "base", 3, tmp_path, only=("relearning",), trained=Trained(adapter="lora:r=4")))
    assert not list(tmp_path.iterdir())


def test_with_an_adapter_the_runs_are_others_and_the_predictions_the_same(tmp_path: Path) -> None:
    """Where a run rests does not depend on which weights move; a directory is of one kind."""
    events = validate("smoke", "base", 3, tmp_path / "lora", only=("replay",), trained=Trained(adapter="lora:r=4"))
    next(events)
    events.close()
    whole = validate("smoke", "base", 3, tmp_path / "whole", only=("replay",))
    next(whole)
    whole.close()
    found = [read_json(tmp_path / name / "predictions.json") for name in ("lora", "whole")]
    assert found[0]["predictions"] == found[1]["predictions"]
    assert [record["adapter"] for record in found] == ["lora:r=4", ""]
    with pytest.raises(InputError, match="precision must be one of float32, bfloat16; got 'float16'"):
        Trained(precision="float16")  # type: ignore[arg-type]
    half = validate("smoke", "base", 3, tmp_path / "lora", trained=Trained(adapter="lora:r=4", precision="bfloat16"))
    with pytest.raises(InputError, match="holds a validation with precision float32, not bfloat16"):
        next(half)
    config = Trained(adapter="lora:r=4", precision="bfloat16").config(TrainConfig(method="sft", tasks=("digits:sort",)))
    assert (config.adapter, config.precision, config.lr) == ("lora:r=4", "bfloat16", 10.0 * TrainConfig.lr)
    config = Trained(precision="bfloat16").config(TrainConfig(method="gepa", tasks=("digits:sort",)))
    assert config.precision == "float32", "nothing is trained"
    with pytest.raises(InputError, match="holds a validation with adapter lora:r=4, not "):
        next(validate("smoke", "base", 3, tmp_path / "lora", only=("replay",)))


def test_dead_groups_need_no_runs_and_match_the_base(base: Policy, tmp_path: Path) -> None:
    chapter = CHAPTERS["dead-groups"]("smoke", base)
    records = Records(tmp_path, 3, base)
    for found in chapter.claims:
        measured = found.measured(records)
        spread = np.sqrt(found.prediction.value * (1.0 - found.prediction.value) / 64)
        assert np.mean(measured) == pytest.approx(found.prediction.value, abs=5 * spread)
