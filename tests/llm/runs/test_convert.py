"""Configurations of older runs: every one that is recorded is read, and an old one says the same as it did."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from fstsim.llm.learners import LEARNERS
from fstsim.llm.runs.config import METHODS, TrainConfig
from fstsim.llm.runs.convert import convert, converted, is_old
from fstsim.paper import DATA
from fstsim.records import plain, read_json, write_json

RECORDED = sorted(DATA.rglob("config.json"))


def old_config(method: str) -> dict[str, Any]:
    """As a run was recorded until 2026-11-26, some of its settings changed."""
    return {
        "method": method,
        "tasks": ["digits:plus"],
        "lr": 0.001,
        "steps": 7,
        "seed": 2,
        "model": "base",
        "context": "plus" if method == "distill" else "",
        "device": "cpu",
        "slow_steps_per_round": 3,
        "slow": {"problems": 5, "rollouts": 4, "leash_reward": 0.02},
        "demonstrations": {"problems": 6, "replay": 0.25},
        "sdft": {"problems": 7, "anchor": 0.3, "anchor_sees": "demonstration"},
        "ttt": {"problems": 8, "budget": 0.4},
        "oapl": {"problems": 9, "anchor": 0.9},
        "mixture": {"problems": 10, "alpha": 0.4},
        "distillation": {"problems": 11, "teacher_context": ""},
        "fast": {"budget": 99, "contexts": 3, "reflector": {"temperature": 1.0}},
        "reflector": {"kind": "self", "budget": 77},
        "probe": {"every": 9, "problems": 12, "exam": 3, "max_new_tokens": 8},
    }


WANTED: dict[str, dict[str, Any]] = {
    "rl": {"problems": 5, "rollouts": 4, "leash_reward": 0.02},
    "fst": {"problems": 5, "rollouts": 4, "leash_reward": 0.02},
    "sft": {"problems": 6, "replay_share": 0.25},
    "sdft": {"problems": 7, "teacher_share": 0.3, "base_sees": "demonstration"},
    "ttt": {"problems": 8, "entropy_budget": 0.4},
    "oapl": {"problems": 9, "lagged_share": 0.9},
    "mixture": {"problems": 10, "alpha": 0.4},
    "distill": {"problems": 11},
}


def holds(whole: Any, part: Any) -> bool:
    """Whether ``whole`` says all that ``part`` says, at every depth."""
    if isinstance(whole, dict) and isinstance(part, dict):
        return all(name in whole and holds(whole[name], value) for name, value in part.items())
    return bool(whole == part)


def test_there_are_recorded_configurations() -> None:
    assert len(RECORDED) > 300


def test_every_recorded_configuration_is_read_and_written_the_same() -> None:
    for path in RECORDED:
        config = read_json(path)
        assert not is_old(config), f"{path}: python -m fstsim.paper.records.convert"
        read = plain(asdict(TrainConfig.from_dict(config)))
        assert holds(read, config), path  # what did not exist yet has its default
        assert read.keys() == plain(asdict(TrainConfig(method=config["method"]))).keys()


@pytest.mark.parametrize("method", [name for name in METHODS if name in {*WANTED, "gepa"}])  # those that there were
def test_an_old_configuration_is_that_of_the_one_learner_that_ran(method: str) -> None:
    new = converted(old_config(method))
    config = TrainConfig.from_dict(new)
    assert plain(asdict(config)) == new
    assert (config.lr, config.steps, config.seed, config.tasks) == (0.001, 7, 2, ("digits:plus",))
    assert (config.probe.every, config.clip) == (9, 1.0)  # clip did not exist: its default
    if method == "gepa":
        assert config.learner is None
    else:
        assert type(config.learner) is METHODS[method].learner
        assert WANTED[method].items() <= asdict(config.learner).items()
    if method in ("fst", "gepa"):
        assert config.fast is not None
        assert config.reflector is not None
        assert (config.fast.rollout_budget, config.fast.contexts, config.reflector.call_budget) == (99, 3, 77)
    else:
        assert config.fast is None
        assert config.reflector is None


def test_a_configuration_holds_the_learner_that_runs_alone() -> None:
    """A changed default of one learner makes no recorded run of another one a stranger."""
    for method in LEARNERS:
        recorded = plain(asdict(TrainConfig(method=method)))
        assert recorded["fast"] is None
        others = {cls for name, cls in LEARNERS.items() if name != method}
        assert not any(cls.__name__.lower() in recorded for cls in others)
        assert set(recorded["learner"]) == set(asdict(LEARNERS[method]()))


def test_files_are_rewritten_once(tmp_path: Path) -> None:
    write_json(tmp_path / "a" / "config.json", old_config("sft"))
    write_json(tmp_path / "model" / "config.json", {"hidden_size": 3})
    assert convert([tmp_path]) == [tmp_path / "a" / "config.json"]
    assert convert([tmp_path]) == []
    assert read_json(tmp_path / "model" / "config.json") == {"hidden_size": 3}
    assert read_json(tmp_path / "a" / "config.json") == converted(old_config("sft"))
