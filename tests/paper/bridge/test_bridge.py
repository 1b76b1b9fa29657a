"""The figure with toy and model on the same axes: its numbers against closed forms, its pictures of full and empty records."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import expit, logit

from fstsim import InputError
from fstsim.llm.validation.kinds import Label
from fstsim.llm.validation.prediction import BaseMasses, tilted
from fstsim.paper.bridge import numbers, toy
from fstsim.paper.bridge.course import read_course
from fstsim.paper.bridge.figure import draw_bridge, main, save_bridge
from fstsim.paper.bridge.numbers import (
    RECORDED_MASSES,
    base_masses,
    log_interval,
    of_kind,
    old_decisions,
    read_escapes,
    read_forgetting,
    read_verdicts,
)
from fstsim.paper.experiments.numbers import Curves
from fstsim.paper.records.record_runs import Config, record, rounded
from fstsim.records import read_json, read_rows, write_json, write_rows
from fstsim.theory import group_escape_time, mass_forgetting_separated

OLD = np.array([0.2, 0.3, 0.45])
NEW = np.array([0.05, 0.1, 0.3])


def verdict(
    name: str, value: float | None, measured: float | None, label: Label | None = None, **more: Any
) -> dict[str, Any]:
    low, high = (None, None) if measured is None else (measured - 0.01, measured + 0.01)
    row = {
        "name": name,
        "label": asdict(label or Label("without-signal")),
        "statement": "replay-forward",
        "quantity": "old mass",
        "value": value,
        "low": value,
        "high": value,
    }
    row |= {
        "resolution": 0.1,
        "measured": measured,
        "measured_low": low,
        "measured_high": high,
        "seeds": 3,
        "verdict": "confirmed",
    }
    return row | more


def run(out: Path, name: str, task: str, method: str, rewards: Any, masses: Any, seeds: int = 3) -> None:
    """A finished run whose rewards and old masses are these; the model's weights are nowhere."""
    for seed in range(seeds):
        place = out / "runs" / name / f"seed-{seed}"
        config = {
            "model": "/nowhere/model",
            "method": method,
            "tasks": [task],
            "steps": 40,
            "seed": seed,
            "probe": {"problems": 3},
        }
        config |= {"learner": {"problems": 64} if name.startswith("replay") else {"rollouts": 8, "problems": 16}}
        write_json(place / "config.json", config)
        write_json(place / "environment.json", {"commit": "abc", "device": "cpu", "versions": {"numpy": "2"}})
        write_json(place / "summary.json", {"seconds": 1.0})
        rows = [
            {"step": 2 * k, "samples": 100 * k, "reward": r, "old_mass": m * (1.0 + 0.01 * seed), "grad_norm": 2.0}
            for k, (r, m) in enumerate(zip(rewards, masses, strict=True))
        ]
        # a row that no probe measured, and more digits than anyone reads
        write_rows(place / "metrics.jsonl", [*rows, {"step": 99, "samples": 5000, "train_reward": 0.123456789}])


@pytest.fixture
def full(tmp_path: Path) -> Path:
    out = tmp_path / "validation"
    rows = []
    for share in (0.1, 0.02):
        run(out, f"replay-{share:g}", "digits:plus", "sft", (0.1, 0.5), (0.3, share))
        rows.append(verdict("a", share, share, Label("replay", run=f"replay-{share:g}", x=share)))
    for tau in (0.5, 1.0):
        run(out, f"tilt-{tau:g}", "digits:plus", "rl", (0.1, 0.5), (0.3, 0.2))
        new, old = (Label(f"tilt-{which}", run=f"tilt-{tau:g}", x=tau) for which in ("new", "old"))
        rows += [verdict("b", 0.4, 0.45, new), verdict("c", 0.2, 0.25, old, verdict="undecided")]
    easiest = {"escape-plus": "escape-negate", "escape-sort": "escape-rotate"}
    for task, p0 in (("digits:negate", 0.2), ("digits:plus", 0.1), ("strings:rotate", 0.1), ("strings:sort", 0.05)):
        name = f"escape-{task.partition(':')[2]}"
        run(out, name, task, "rl", (p0, 0.6), (0.3, 0.1))
        if name in easiest:
            labels = [Label(f"escape-{clock}", name, easiest[name], law=clock) for clock in ("group", "adam")]
            rows += [verdict("d", 0.7, 0.6, label) for label in labels]
    mass = 0.3 * np.exp(-0.2 * np.arange(20))
    run(out, "sft-new-only", "digits:plus", "sft", np.linspace(0.1, 0.9, 20), mass)
    rows += [
        verdict("e", -2.0, -7.0, Label("forgetting", "sft-new-only", law=law), verdict="falsified")
        for law in ("logit", "fisher")
    ]
    rows.append(verdict("f", -6.9, -7.0, Label("forgetting-adam", "sft-new-only", law="adam-tokens")))
    rows.append(verdict("g", None, None, Label("relearn-group"), verdict="undecided"))
    write_json(out / "validation.json", rows)
    write_json(out / "predictions.json", {"model": "base", "scale": "small", "predictions": []})
    columns: dict[str, Any] = {"new": NEW.tolist(), "old": OLD.tolist(), "same": [False, False, False]}
    columns["tokens"] = [[0.4, 0.5, 1.0], [0.5, 0.6, 1.0], [0.5, 0.9, 1.0]]
    tasks = ("digits:plus", "digits:negate", "strings:rotate", "strings:sort")
    write_json(out / RECORDED_MASSES, dict.fromkeys(tasks, columns))
    return out


# --- the toy is the theory ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_replay_ends_at_its_share(share: float) -> None:
    mean, low, high = toy.replay(share, 0.3, 200, 64)
    error = (high - low) / 2.0 / stats.t.ppf(0.975, toy.RUNS - 1)
    assert abs(mean - share) < 4.0 * error  # once in a thousand for 15 degrees of freedom; the seed is fixed
    assert error < 0.05 * share + 0.002


def test_replay_is_read_from_the_last_quarter() -> None:
    """On the way there the mean over the last quarter is that of the EM step, which takes a tenth of the way to the share."""
    masses = 0.3 + 0.6 * 0.9 ** np.arange(1, 41)
    mean, low, high = toy.replay(0.3, 0.9, 40, 4000)
    error = (high - low) / 2.0 / stats.t.ppf(0.975, toy.RUNS - 1)
    assert abs(mean - np.mean(masses[-10:])) < 4.0 * error + 1e-4
    assert abs(np.mean(masses[-30:]) - np.mean(masses[-10:])) > 10.0 * error, "another window would be seen"


@pytest.mark.parametrize("temperature", [0.35, 1.0])
def test_the_leash_ends_at_the_tilt_of_every_prompt(temperature: float) -> None:
    base = BaseMasses(NEW, OLD, np.array([False, False, False]))
    new, old = toy.leash(base, temperature)
    odds = NEW / (1.0 - NEW) * np.exp(1.0 / temperature)
    assert new == pytest.approx((odds / (1.0 + odds)).mean(), abs=0.01)
    assert old == pytest.approx(tilted(base, temperature)[1].mean(), abs=0.01)


def test_equal_prompts_escape_by_the_group_law() -> None:
    middle, low, high = toy.escape(np.full(5, 0.02), np.full(5, 0.2), 8, 32)
    times = group_escape_time(logit([0.02, 0.2]), 0.0, 1.0, 8)
    assert low < middle < high
    assert middle == pytest.approx(float(times[0] / times[1]), rel=0.06)  # steps of 0.1 in place of a flow


def test_forgetting_follows_both_clocks() -> None:
    time = np.linspace(0.0, 4.0, 9)
    plain = np.mean([mass_forgetting_separated(b, time) for b in OLD], axis=0) / OLD.mean()
    np.testing.assert_allclose(toy.forgetting(OLD[:, None], time, "logit"), plain, rtol=0.01)
    np.testing.assert_allclose(toy.forgetting(OLD[:, None], time, "fisher"), np.exp(-time), rtol=0.03)


def test_an_answer_of_two_tokens_is_their_product() -> None:
    time = np.linspace(0.0, 4.0, 9)
    tokens = np.array([[0.5, 0.8], [0.4, 1.0]])
    one, two, three = (mass_forgetting_separated(b, time) for b in (0.5, 0.8, 0.4))
    expected = (one * two + three) / (0.4 + 0.4)
    np.testing.assert_allclose(toy.forgetting(tokens, time, "logit"), expected, rtol=0.01)


def test_the_first_gradient_says_what_clipping_lets_through() -> None:
    """The row of step 0 has none; that of step 1, over seeds, is the first: later ones are of a model that has learned."""
    norms = np.array([[np.nan, 3.0, 0.1, 0.1], [np.nan, 5.0, 0.1, 0.1]])
    steps = np.arange(4.0)
    assert numbers._clip_share(Curves("run", steps, {"grad_norm": norms})) == pytest.approx(1.0 / 4.0)
    assert numbers._clip_share(Curves("run", steps, {"grad_norm": norms / 10.0})) == 1.0, "nothing was clipped"
    assert numbers._clip_share(Curves("run", steps, {})) == 1.0


def test_the_models_optimizer_is_that_of_torch() -> None:
    s = torch.tensor([logit(0.3)], dtype=torch.float64, requires_grad=True)
    optimizer, masses = torch.optim.AdamW([s], lr=0.2, weight_decay=0.0), [0.3]
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.softplus(s).sum().backward()
        optimizer.step()
        masses.append(float(torch.sigmoid(s.detach())[0]))
    found = toy.forgetting(np.array([[0.3]]), 0.2 * np.arange(31), "adam")
    np.testing.assert_allclose(found, np.array(masses) / 0.3, rtol=1e-4)


# --- reading -------------------------------------------------------------------------------------------------------------


def test_rows_are_read_in_order_and_checked(full: Path, tmp_path: Path) -> None:
    rows = read_verdicts(full)
    shares, replayed = of_kind(rows, "replay")
    assert shares.tolist() == [row.value for row in replayed] == [0.02, 0.1]
    assert [row.label.run for row in of_kind(rows, "tilt-new")[1]] == ["tilt-0.5", "tilt-1"]
    assert np.isnan(next(row for row in rows if row.name == "g").value)
    with pytest.raises(InputError, match=r"no .*validation\.json: make it with fstsim validate"):
        read_verdicts(tmp_path / "none")
    write_json(tmp_path / "validation.json", [{"name": "x"}])
    with pytest.raises(InputError, match=r"row 0: no .*verdict"):
        read_verdicts(tmp_path)
    write_json(tmp_path / "validation.json", [{**verdict("x", 0.1, 0.1), "label": {"kind": "tea"}}])
    with pytest.raises(InputError, match="row 0: kind of prediction 'tea' is unknown"):
        read_verdicts(tmp_path)
    write_json(tmp_path / "validation.json", {"name": "x"})
    with pytest.raises(InputError, match="must be the table"):
        read_verdicts(tmp_path)


def test_masses_are_recorded_ones_or_those_of_a_mean_prompt(full: Path) -> None:
    np.testing.assert_array_equal(base_masses(full, "tilt-0.5").new, NEW)
    (full / RECORDED_MASSES).unlink()
    mean = base_masses(full, "tilt-0.5")
    assert (mean.new.tolist(), mean.old.tolist(), mean.same.tolist()) == ([0.1], [0.3], [False])


def test_escapes_are_compared_within_their_family(full: Path) -> None:
    families = read_escapes(full, read_verdicts(full))
    assert [[e.run for e in family] for family in families] == [
        ["escape-negate", "escape-plus"],
        ["escape-rotate", "escape-sort"],
    ]
    easiest, hard = families[0]
    assert (easiest.p0, hard.p0) == (pytest.approx(0.2), pytest.approx(0.1))
    assert (easiest.ratio("measured"), hard.ratio("measured")) == (1.0, pytest.approx(np.exp(0.6)))
    assert hard.ratio("value", "adam") == pytest.approx(np.exp(0.7))


def test_interval_of_a_mass_is_that_of_its_logarithm() -> None:
    values = np.array([[0.1], [0.2], [0.4]])
    middle, low, high = log_interval(values)
    logs = np.log(values[:, 0])
    expected = stats.t.interval(0.95, 2, loc=logs.mean(), scale=stats.sem(logs))
    np.testing.assert_allclose([middle[0], low[0], high[0]], np.exp([logs.mean(), *expected]))
    assert np.isnan(log_interval(values[:1])[1]).all()


def test_each_law_passes_through_its_calibration(full: Path) -> None:
    found = read_forgetting(full, old_decisions(full, "sft-new-only"))
    assert found is not None
    assert found.clip == 0.5  # the first gradient was 2, one gets through
    at = int(found.calibrated)
    step = int(np.flatnonzero(found.step == at)[0])
    assert found.mass[step] < 0.8 * found.mass[0] <= found.mass[step - 1]
    for law, curve in found.theory.items():
        assert curve[at] == pytest.approx(found.mass[step], rel=1e-6), law
    # one clock a seed: the mean over seeds is a mean of exponents
    np.testing.assert_allclose(
        found.theory["fisher"], found.mass[0] * np.exp(-found.clock["fisher"] * found.grid), rtol=1e-6
    )


def test_a_forecast_is_met_where_the_interval_comes_within_its_margin(full: Path) -> None:
    found = read_forgetting(full, old_decisions(full, "sft-new-only"))
    assert found is not None
    assert read_course(full, "sft-new-only") is None
    near, far = (float(np.log(found.low[k])) for k in (2, 4))  # every second step is measured
    rows = [{"step": 4, "log_old_mass": value(near - 0.4)}, {"step": 8, "log_old_mass": value(far - 0.7)}]
    rows.append({"step": 777, "log_old_mass": value(-3.0)})  # the run was not measured there
    write_json(full / "forecast" / "sft-new-only.json", {"start": {"log_old_mass": -1.2}, "rows": rows})
    course = read_course(full, "sft-new-only")
    assert course is not None
    assert course.step.tolist() == [0, 4, 8, 777]
    np.testing.assert_allclose(course.mass[:2], np.exp([-1.2, near - 0.4]))
    assert course.met(found) == (1, 2)


def value(log: float) -> dict[str, float]:
    return {"value": log, "low": log - 0.1, "high": log + 0.1}


# --- the picture ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulator's part is tested above; here a stand-in saves its seconds."""
    monkeypatch.setattr(toy, "escape", lambda *_: (2.0, 1.9, 2.1))
    monkeypatch.setattr(toy, "leash", lambda *_: (0.4, 0.2))


def texts(figure: Any) -> str:
    axes = figure.axes
    return " ".join(t.get_text() for ax in axes for t in (*ax.texts, ax.title, ax.get_xaxis().label))


@pytest.mark.usefixtures("quick")
def test_a_full_record_fills_every_panel(full: Path, tmp_path: Path) -> None:
    figure = draw_bridge(full)
    assert len(figure.axes) == 6
    words = " ".join([texts(figure), *(t.get_text() for ax in figure.axes for t in [ax.title])])
    assert "not recorded" not in words
    assert "logit: falsified" in words
    assert "AdamW, by token: confirmed" in words
    assert "logit, by token" not in words  # it was not judged
    legend = [t.get_text() for t in figure.legends[0].get_texts()]
    assert {"falsified (2)", "undecided (2)"} <= set(legend)
    drawn = [ax.get_title("left") for ax in figure.axes]
    assert [title.partition("}$")[2].strip() for title in drawn][4:] == [
        "all 6 masses and shares",
        "all 7 other numbers",
    ]
    save_bridge(full, tmp_path / "images" / "bridge.png")
    assert (tmp_path / "images" / "bridge.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["bridge.png"]


def test_panels_without_runs_say_so(tmp_path: Path) -> None:
    write_json(tmp_path / "validation.json", [verdict("dead-groups-8", 0.4, 0.41)])
    assert texts(draw_bridge(tmp_path)).count("not recorded") == 5


def test_two_seeds_have_no_interval_and_are_drawn(tmp_path: Path) -> None:
    run(tmp_path, "replay-0.1", "digits:plus", "sft", (0.1, 0.5), (0.3, 0.1), seeds=2)
    label = Label("replay", run="replay-0.1", x=0.1)
    row = verdict("a", 0.1, 0.12, label, measured_low=None, measured_high=None, verdict="undecided", seeds=2)
    write_json(tmp_path / "validation.json", [row])
    assert texts(draw_bridge(tmp_path)).count("not recorded") == 4


def test_bad_input_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["bridge", "--validation", str(tmp_path), "--out", str(tmp_path / "images")])
    assert main() == 2
    assert capsys.readouterr().err.count("\n") == 1
    write_json(tmp_path / "validation.json", [verdict("a", 0.1, 0.1, Label("replay", run="replay-0.1", x=0.1))])
    with pytest.raises(InputError, match=r"replay-0\.1 holds no run"):
        draw_bridge(tmp_path)


# --- records -------------------------------------------------------------------------------------------------------------


def test_a_recorded_validation_is_whole_and_small(full: Path, tmp_path: Path) -> None:
    (full / "runs" / "tilt-0.5" / "seed-0" / "model").mkdir()
    (full / "runs" / "tilt-0.5" / "seed-0" / "model" / "config.json").write_text("{}")
    (full / "runs" / "tilt-0.5" / "seed-0" / "checkpoint.safetensors").write_bytes(bytes(10_000))
    run(full, "half", "digits:plus", "rl", (0.1,), (0.3,), seeds=1)
    (full / "runs" / "half" / "seed-0" / "summary.json").unlink()
    target = tmp_path / "record"
    done = record(Config(full, target))
    assert done.unfinished == ("half/seed-0",)
    assert done.runs == len(list(full.glob("runs/*/seed-*"))) - 1 == len(list(target.glob("runs/*/seed-*")))
    files = [path for path in target.rglob("*") if path.is_file()]
    assert (len(files), sum(path.stat().st_size for path in files)) == (done.files, done.size)
    assert not [path for path in files if "model" in path.parts or path.suffix == ".safetensors"]
    for name in ("predictions.json", "validation.json", RECORDED_MASSES):
        assert read_json(target / name) == rounded(read_json(full / name))
    rows = read_rows(target / "runs" / "tilt-0.5" / "seed-0" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 2]  # the row that no probe measured stays behind
    assert record(Config(full, target)) == done  # again: the same


def test_further_chapters_join_a_record(full: Path, tmp_path: Path) -> None:
    """Only what the record lacks; a row that both have stays the record's; a second time nothing is left to add."""
    target, later = tmp_path / "record", tmp_path / "later"
    record(Config(full, target))
    before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    written, judged = read_json(target / "predictions.json"), read_json(target / "validation.json")
    run(later, "alternate-x", "digits:plus", "rl", (0.1, 0.5), (0.3, 0.1), seeds=2)
    new = verdict("alternate-x", 0.4, 0.5)
    write_json(later / "validation.json", [{**judged[0], "measured": 0.123}, new])
    not_run = verdict("not-run", 0.1, None)
    write_json(later / "predictions.json", {**written, "predictions": [judged[0], not_run, new]})
    done = record(Config(later, target, add=True))
    assert (done.runs, done.files) == (2, 2 * len(list((target / "runs" / "alternate-x" / "seed-0").iterdir())) + 2)
    assert read_json(target / "validation.json") == [*judged, rounded(new)]
    assert read_json(target / "predictions.json")["predictions"] == [*written["predictions"], rounded(new)]
    changed = {target / "validation.json", target / "predictions.json"}
    assert all(path.read_bytes() == content for path, content in before.items() if path not in changed)
    with pytest.raises(InputError, match="has runs/alternate-x/seed-0 already"):
        record(Config(later, target, add=True))
    write_json(later / "predictions.json", {**written, "scale": "paper"})
    with pytest.raises(InputError, match="is a validation of scale"):
        record(Config(later, target, add=True))
    (later / "validation.json").unlink()
    (later / "predictions.json").unlink()
    with pytest.raises(InputError, match="--add joins"):
        record(Config(later, target, add=True))


def test_a_verdict_on_more_seeds_takes_the_place_of_one_on_fewer(full: Path, tmp_path: Path) -> None:
    """Runs that the record has stay as they are, further seeds join them; the prediction has to be the recorded one."""
    target, later = tmp_path / "record", tmp_path / "later"
    named = [{**row, "name": str(k)} for k, row in enumerate(read_json(full / "validation.json"))]
    write_json(full / "validation.json", named)
    record(Config(full, target))
    before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    judged = read_json(target / "validation.json")
    first = judged[0]
    run(later, "tilt-0.5", "digits:plus", "rl", (0.1, 0.5), (0.3, 0.1), seeds=first["seeds"] + 2)
    more = {**first, "measured": 0.1234, "seeds": first["seeds"] + 2, "verdict": "falsified"}
    write_json(later / "predictions.json", read_json(target / "predictions.json"))
    write_json(later / "validation.json", [{**more, "low": more["low"] - 0.5}])
    with pytest.raises(InputError, match="with low"):
        record(Config(later, target, add=True))
    write_json(later / "validation.json", [more, {**judged[1], "measured": 7.0}])
    assert record(Config(later, target, add=True)).runs == 2
    assert read_json(target / "validation.json") == [rounded(more), *judged[1:]]
    assert all(path.read_bytes() == was for path, was in before.items() if path.name != "validation.json")
    assert len(list((target / "runs" / "tilt-0.5").glob("seed-*"))) == first["seeds"] + 2


def test_what_cannot_be_recorded_is_refused_before_anything_is_written(full: Path, tmp_path: Path) -> None:
    target = tmp_path / "record"
    with pytest.raises(InputError, match="there is no directory"):
        record(Config(tmp_path / "none", target))
    with pytest.raises(InputError, match="holds no runs/"):
        record(Config(tmp_path, target))
    with pytest.raises(InputError, match="choose a target outside"):
        record(Config(full, full / "record"))
    for summary in full.rglob("summary.json"):
        summary.unlink()
    with pytest.raises(InputError, match="holds no finished run"):
        record(Config(full, target))
    (full / "validation.json").unlink()
    with pytest.raises(InputError, match="predictions but no validation"):
        record(Config(full, target))
    assert not target.exists()


def test_rounding_keeps_six_digits() -> None:
    assert rounded({"a": [1.23456789, 3, "x", None], "b": expit(-20.0)}) == {
        "a": [1.23457, 3, "x", None],
        "b": 2.06115e-09,
    }
