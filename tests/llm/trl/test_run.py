"""A run on TRL's engine as a run directory: what it holds, that it goes on after an interruption, and our own curve."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_ind
from transformers import PreTrainedModel

from fstsim.errors import InputError
from fstsim.llm.contexts.prompt_evolution import PromptEvolution
from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.pretraining.tokenizer import build_tokenizer
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.runs.recorded import read_metrics, read_summary
from fstsim.llm.runs.run import run_training
from fstsim.llm.tasks.parse import parse_task
from fstsim.llm.trl.run import run_training_on_trl
from fstsim.llm.trl.run_trainer import RunTrainer
from fstsim.llm.types import Problem, Score, Split
from fstsim.records import read_json, read_rows

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("quiet_trainers")]
CONFIG = TrainConfig(
    method="fst",
    learner=PolicyGradient(problems=2, rollouts=4, updates=2, max_new_tokens=6),
    fast=PromptEvolution(contexts=2, rollout_budget=48, validation=4, shown=3, max_new_tokens=6),
    slow_steps_per_round=2,
    steps=2,
    probe=ProbeConfig(every=1, problems=2, exam=1, relearn=0),
    engine="trl",
)
FILES = {
    "checkpoint.safetensors",
    "config.json",
    "environment.json",
    "metrics.jsonl",
    "model",
    "prompts.jsonl",
    "summary.json",
}


class Letters:
    """Rewards early letters, so that a random model has a signal; ``failing``: a verifier that raises on about every second answer."""

    exact = False

    def __init__(self, family: str, failing: bool = False) -> None:
        self.name, self._task, self._failing = f"letters of {family}", parse_task(family), failing

    def problems(self, split: Split) -> Sequence[Problem]:
        """Those of the family."""
        return self._task.problems(split)

    def score(self, problem: Problem, completion: str) -> Score:
        """The share of characters in the first half of the alphabet."""
        if self._failing and sum(map(ord, problem.text + completion)) % 2:
            raise ValueError("no such file")
        return Score(sum(c < "n" for c in completion.lower()) / max(1, len(completion)), "early letters are right")


@pytest.fixture(scope="module")
def config(make_model: Callable[..., PreTrainedModel], tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """A run of one small random model."""
    place = tmp_path_factory.mktemp("model")
    make_model(num_hidden_layers=1, max_position_embeddings=80).save_pretrained(place)
    build_tokenizer().save_pretrained(place)
    return replace(CONFIG, model=str(place))


class Stopped(Exception):
    """What kills a run between two steps."""


def test_a_run_that_was_stopped_is_the_run_that_was_not(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [Letters("strings:next"), Letters("digits:negate")]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    told: list[int] = []
    rows = run_training_on_trl(config, whole, tasks=tasks, measured=lambda row: told.append(row["step"]))
    assert {path.name for path in whole.iterdir()} == FILES
    assert rows == read_metrics(whole)
    assert told == [row["step"] for row in rows] == list(range(5))
    assert [row["task"] for row in rows] == [0] * 3 + [1] * 2
    rounds = read_rows(whole / "prompts.jsonl")
    assert [(held["step"], held["task"]) for held in rounds] == [(0, 0), (2, 1)]
    assert [row["step"] for row in rows if "fast_best" in row] == [1, 3]
    assert rows[-1]["samples"] == 4 * 8 + sum(row.get("fast_rollouts", 0) for row in rows)
    assert any(row["loss"] != 0.0 for row in rows[1:])
    assert read_summary(whole)["prompts"] == rounds[-1]["prompts"]

    def stop(step: int, _: str) -> None:
        if step == 3:
            raise Stopped

    with pytest.raises(Stopped):
        run_training_on_trl(config, parts, stop, tasks=tasks)
    (left,) = (parts / "trl").glob("checkpoint-*")
    assert left.name == "checkpoint-4"  # two optimizer steps a slow step; the third has not been saved
    assert len(read_metrics(parts)) == 3
    (parts / "trl/checkpoint-6").mkdir()  # half a checkpoint, as a kill leaves it
    assert run_training_on_trl(config, parts, tasks=tasks) == rows
    for name in ("metrics.jsonl", "prompts.jsonl", "model/model.safetensors"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()
    assert {path.name for path in parts.iterdir()} == FILES

    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}
    monkeypatch.setattr(RunTrainer, "__init__", lambda *_, **__: pytest.fail("nothing is left to do"))
    assert run_training_on_trl(config, whole, tasks=tasks) == rows
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()} == before
    with pytest.raises(InputError, match="engine trl, not own"):
        run_training(replace(config, engine="own"), whole, tasks=tasks)
    own = tmp_path / "own"
    own.mkdir()
    held = read_json(whole / "config.json")
    (own / "config.json").write_text(json.dumps({**held, "engine": "own"}))
    with pytest.raises(InputError, match="engine own, not trl"):
        run_training_on_trl(config, own, tasks=tasks)


def test_a_verifier_that_fails_is_counted(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, method="rl", fast=None, reflector=None, steps=1)
    run_training_on_trl(config, tmp_path / "run", tasks=[Letters("strings:next", failing=True)], write_model=False)
    summary = read_summary(tmp_path / "run")
    assert summary["verifier_errors"]["count"] == sum(
        row.get("verifier_errors", 0) for row in read_metrics(tmp_path / "run")
    )
    assert summary["verifier_errors"]["count"] > 0
    assert "no such file" in summary["verifier_errors"]["first"]
    assert not (tmp_path / "run/model").exists()


@pytest.mark.slow
def test_the_curve_is_that_of_our_loop(tmp_path: Path) -> None:
    """Held-out reward on the way: Welch's test at each measured step over independent seeds, and both engines learn."""
    config = TrainConfig(
        learner=PolicyGradient(problems=12, rollouts=8),
        tasks=("strings:next",),
        steps=24,
        lr=1e-3,
        probe=ProbeConfig(every=8, early=8, problems=64, exam=2, relearn=0),
    )
    curves: dict[str, list[list[float]]] = {"own": [], "trl": []}
    for seed in range(5):
        for engine, train, seeded in (("own", run_training, seed), ("trl", run_training_on_trl, 100 + seed)):
            rows = train(replace(config, engine=engine, seed=seeded), tmp_path / f"{engine}-{seed}", write_model=False)
            curves[engine].append([row["reward"] for row in rows if "reward" in row])
    own, trl = (np.array(curves[engine]) for engine in ("own", "trl"))
    assert own.shape == trl.shape == (5, 5)
    for curve in (own, trl):
        assert curve[:, -1].mean() > curve[:, 0].mean() + 0.1
    found = ttest_ind(own[:, 1:], trl[:, 1:], equal_var=False)
    assert found.pvalue.min() > 0.01 / 4, (own.mean(0), trl.mean(0))
