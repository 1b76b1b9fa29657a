"""Runs of the methods that train a system: interrupted and continued to the same state, and what they refuse before any work."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from fstsim.errors import InputError
from fstsim.llm.policy.adapters import save_policy
from fstsim.llm.policy.loading import shipped_path
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.runs.run import run_training
from fstsim.llm.systems.state import load_system
from fstsim.llm.systems.system import STATE
from fstsim.records import read_json

PROBE = ProbeConfig(every=3, problems=2, exam=1, relearn=0, early=100)
METHODS: dict[str, dict[str, Any]] = {
    "cases": {"problems": 6, "capacity": 8, "updates": 2, "write": 0.5},
    "skills": {"curriculum": "novelty", "rounds": 2},
}


def config_of(method: str, steps: int = 4, **more: Any) -> TrainConfig:
    config = TrainConfig(method=method, tasks=("strings:sort+next",), steps=steps, probe=PROBE)
    assert config.learner is not None
    return replace(config, learner=replace(config.learner, **(METHODS[method] | more)))


class Stopped(Exception):
    """As Ctrl-C would."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each method from beginning to end."""
    folder = tmp_path_factory.mktemp("runs")
    for method in METHODS:
        run_training(config_of(method), folder / method)
    return {method: folder / method for method in METHODS}


@pytest.mark.parametrize("method", METHODS)
def test_a_continued_run_has_the_same_state(method: str, runs: dict[str, Path], tmp_path: Path) -> None:
    def stop(step: int, note: str) -> None:  # noqa: ARG001 -- as it is called
        if step == 3:
            raise Stopped

    with pytest.raises(Stopped):
        run_training(config_of(method), tmp_path / "cut", stop)
    run_training(config_of(method), tmp_path / "cut")
    for name in ("metrics.jsonl", STATE):
        assert (tmp_path / "cut" / name).read_bytes() == (runs[method] / name).read_bytes()


@pytest.mark.parametrize("method", METHODS)
def test_weights_and_old_behaviour_stay(method: str, runs: dict[str, Path]) -> None:
    summary = read_json(runs[method] / "summary.json")
    first, last = summary["first"], summary["last"]
    assert last["old_mass"] == first["old_mass"]
    assert last["kl_to_base_no_context"] == 0.0
    assert last["drift"] == 0.0
    system = load_system(runs[method])
    assert system.size.stored == last["bytes_stored"]


@pytest.mark.parametrize(("method", "setting"), [("proxy", "expert_base"), ("soft", "assistant")])
def test_a_model_of_another_tokenizer_is_refused_before_any_is_loaded(
    method: str, setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(shipped_path("tiny"), tmp_path / "other")
    file = tmp_path / "other" / "tokenizer.json"
    held = json.loads(file.read_text())
    words = held["model"]["vocab"]
    words["rotate"], words["reverse"] = words["reverse"], words["rotate"]
    file.write_text(json.dumps(held))

    def never(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", never)
    flag = f"--{setting.replace('_', '-')}"
    for name, said in (
        (str(tmp_path / "other"), f"{flag} {tmp_path / 'other'} has another tokenizer than the base ('re"),
        ("nosuch", "there is no model at 'nosuch'"),
    ):
        config = TrainConfig(method=method, probe=PROBE)
        assert config.learner is not None
        with pytest.raises(InputError, match=re.escape(said)) as error:
            run_training(replace(config, learner=replace(config.learner, **{setting: name})), tmp_path / "out")
        assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("method", "flag"), [("cases", "bank"), ("skills", "library")])
def test_a_run_begins_with_the_state_of_another(method: str, flag: str, runs: dict[str, Path], tmp_path: Path) -> None:
    config = config_of(method, steps=1, **{flag: str(runs[method])})
    assert config.learner is not None
    base = Policy.load()
    assert config.learner.deploy(base, 0).notes() == load_system(runs[method]).notes()
    cut = tmp_path / "cut"
    cut.mkdir()
    (cut / STATE).write_bytes((runs[method] / STATE).read_bytes()[:-9])
    save_policy(base, tmp_path / "other")
    other = Policy.load(str(tmp_path / "other"))
    other.model.get_input_embeddings().weight.data[0, 0] += 1.0
    save_policy(other, tmp_path / "moved")
    for changed, said in (
        ({flag: str(cut)}, f"{STATE} is"),
        ({flag: str(tmp_path)}, f"--{flag}"),
        ({flag: str(runs["skills" if method == "cases" else "cases"])}, "another system"),
    ):
        with pytest.raises(InputError, match=said) as error:
            run_training(config_of(method, steps=1, **changed), tmp_path / "out")
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="another model"):
        run_training(replace(config, model=str(tmp_path / "moved")), tmp_path / "out")
    assert not (tmp_path / "out").exists()
