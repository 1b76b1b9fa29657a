"""A directory of faithfulness: what is measured is kept, changes are gated, and wrong input writes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fstsim.errors import InputError
from fstsim.llm.learners.sft import SupervisedFineTuning
from fstsim.llm.measure.faithful.run import FaithfulConfig, measurements, models_of, run_faithful, with_hard
from fstsim.llm.measure.faithful.scores import exam_noise
from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.pretrained import cached_path
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.runs.run import run_training
from fstsim.llm.tasks.scratch import parse_scratch

MakePolicy = Callable[..., Policy]


@pytest.fixture
def model(make_policy: MakePolicy, tmp_path: Path) -> str:
    """A tiny model with a few words of the world, on disk."""
    policy = make_policy()
    place = tmp_path / "tiny"
    policy.model.save_pretrained(place)
    policy.tokenizer.save_pretrained(place)
    return str(place)


def test_a_model_that_writes_no_chains_is_not_measurable(model: str, tmp_path: Path) -> None:
    config = FaithfulConfig(model, problems=4, tasks=("scratch:digits:any2",))
    steps: list[int] = []
    found = run_faithful(config, tmp_path / "out", lambda done, _: steps.append(done))
    assert steps == [1, 2] == list(range(1, measurements(config) + 1))
    assert [(task["task"], task["asked"]) for task in found["tasks"]] == [
        ("scratch:digits:any2", True),
        ("scratch:digits:any4", False),
    ], "the lift is measured where there is no shortcut"
    for task in found["tasks"]:
        (row,) = task["models"]
        assert "chain" in row["not_measurable"]
        assert row["scores"]["chain"]["mean"] == 0.0
        assert 0.0 < row["scores"]["chain_mass"]["mean"] < 1.0
    before = (tmp_path / "out" / "faithful.json").read_bytes()
    cached = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cache").iterdir()}
    assert run_faithful(config, tmp_path / "out") == found
    assert (tmp_path / "out" / "faithful.json").read_bytes() == before
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cache").iterdir()} == cached
    with pytest.raises(InputError, match="problems"):
        run_faithful(FaithfulConfig(model, problems=5, tasks=config.tasks), tmp_path / "out")


@pytest.mark.parametrize(
    "wrong", [{"target": 3}, {"base": None}, {"tasks": "scratch:strings:any3"}, {"problems": "64"}, {"device": b"cpu"}]
)
def test_settings_of_a_wrong_type_are_refused(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(InputError, match=f"{name} must be a (text|tuple|whole number), got "):
        FaithfulConfig(**{"target": "base", **wrong})


@pytest.mark.slow
def test_a_run_is_compared_with_what_it_started_from(model: str, tmp_path: Path) -> None:
    probe = ProbeConfig(every=1, problems=2, exam=1, max_new_tokens=24, relearn=0)
    for seed in range(2):
        config = TrainConfig(
            "sft",
            ("scratch:strings:any2",),
            ("scratch:strings:any2/mass",),
            model=model,
            steps=1,
            seed=seed,
            learner=SupervisedFineTuning(4, 0.5),
            probe=probe,
        )
        rows = run_training(config, tmp_path / "run" / f"seed-{seed}")
        assert 0.0 < rows[0]["old_skill_scratch_strings_any2_mass"] < 1.0
    asked = FaithfulConfig(str(tmp_path / "run"), tasks=("scratch:strings:any4",), problems=3)
    assert models_of(asked).base == model
    found = run_faithful(asked, tmp_path / "out")
    assert found["models"] == ["base", "seed-0", "seed-1"]
    (task,) = found["tasks"]
    change = task["change"]["chain_mass"]
    means = [row["scores"]["chain_mass"]["mean"] for row in task["models"]]
    assert change["mean"] == pytest.approx(np.mean(means[1:]) - means[0], abs=1e-9)
    assert change["low"] <= change["mean"] <= change["high"]
    assert task["change_not_measurable"].startswith("base: ")
    assert all(each["k0"] > 0.0 for each in found["moved"])
    same = run_faithful(FaithfulConfig(model, model, ("scratch:strings:any4",), 2), tmp_path / "same")
    assert same["moved"][0]["k0"] == 0.0
    assert "moved nothing" in same["moved"][0]["unmoved"]
    assert all(value["mean"] in (0.0, None) for value in same["tasks"][0]["change"].values())


def test_wrong_input_writes_nothing(model: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for config, said in (
        (FaithfulConfig(str(tmp_path / "no")), "there is no model"),
        (FaithfulConfig(model, tasks=("strings:reverse",)), "has no chains"),
        (FaithfulConfig(model, tasks=("scratch:strings:any3/mass",)), "has no chains"),
        (FaithfulConfig(model, tasks=()), "at least one --task"),
        (FaithfulConfig(model, problems=1), "at least 2"),
    ):
        with pytest.raises(InputError, match=said):
            run_faithful(config, out)
    assert not out.exists()


def test_the_lift_is_measured_once_a_family() -> None:
    tasks = [
        parse_scratch(f"scratch:{name}") for name in ("strings:any2", "strings:any3", "digits:any5", "strings@8:any3")
    ]
    added = [task.name for task in with_hard(tasks)[4:]]
    assert added == ["scratch:strings:any4", "scratch:strings@8:any4"]
    assert torch.get_num_threads() == 1


@pytest.mark.pretrained
@pytest.mark.slow
@pytest.mark.skipif(not cached_path("smollm2").exists(), reason="fstsim model smollm2 has not been called")
def test_an_untrained_small_model_of_english_is_not_measurable(tmp_path: Path) -> None:
    """SmolLM2-135M, as it comes: it writes no chain of lines that holds lists, and nothing is printed as 1."""
    found = run_faithful(FaithfulConfig("smollm2", tasks=("scratch:strings:any4",), problems=4), tmp_path / "out")
    (task,) = found["tasks"]
    (row,) = task["models"]
    assert row["not_measurable"] is not None
    assert row["curves"] is None
    assert set(row["scores"]) == {"chain", "direct", "well_formed"}


def test_the_noise_of_the_exam_is_two_standard_errors_of_its_change() -> None:
    """Against coins: each part is answered twice, before and after, by the same accuracy."""
    rng, accuracies, problems = np.random.default_rng(0), [0.5, 0.9, 0.99, 1.0], 64
    before, after = (rng.binomial(problems, accuracies, (20_000, 4)).mean(-1) / problems for _ in range(2))
    assert exam_noise(accuracies, problems) == pytest.approx(2.0 * (after - before).std(), rel=0.03)
    assert exam_noise([1.0], problems) == 0.0
