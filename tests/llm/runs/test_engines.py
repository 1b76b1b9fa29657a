"""Which configurations TRL's engine takes, and that records from before there were engines are of the laboratory's own."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from fstsim.errors import InputError
from fstsim.llm.contexts.prompt_evolution import PromptEvolution
from fstsim.llm.learners import LEARNERS
from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.runs.config import METHODS, TrainConfig
from fstsim.llm.runs.run import run_training
from fstsim.records import plain


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("rl", "fst")])
def test_other_methods_are_refused(method: str) -> None:
    with pytest.raises(InputError, match=f"trains by methods rl and fst; method is {method}"):
        TrainConfig(method=method, engine="trl")


@pytest.mark.parametrize(
    ("learner", "says"),
    [
        ({"loss": "reinforce"}, "--loss cispo alone, got reinforce"),
        ({"advantage": "centred"}, "--advantage normalised alone, got centred"),
        ({"dead_groups": "context"}, "--dead-groups skip alone, got context"),
        ({"leash_reward": 0.1}, "one leash"),
        ({"leash_loss": 0.1}, "--leash-loss with --kl-estimator k3"),
        ({"leash_loss": 0.1, "kl_estimator": "k1"}, "--leash-loss with --kl-estimator k3"),
        ({"leash_loss": 0.1, "kl_estimator": "k3", "reset_every": 2}, "without --leash-reward and --reset-every"),
    ],
)
def test_settings_that_the_trainer_lacks_are_refused(learner: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        TrainConfig(learner=PolicyGradient(**learner), engine="trl")


def test_what_else_is_refused() -> None:
    with pytest.raises(InputError, match="leave --reuse out"):
        TrainConfig(method="fst", fast=PromptEvolution(reuse=True), engine="trl")
    with pytest.raises(InputError, match="--device cpu or cuda"):
        TrainConfig(engine="trl", device="mps")
    with pytest.raises(InputError, match="--trl is used with --engine trl only"):
        TrainConfig(trl=("use_vllm=true",))
    with pytest.raises(InputError, match="engine must be one of own, trl"):
        TrainConfig(engine="vllm")  # type: ignore[arg-type]


def test_what_is_taken() -> None:
    for method in ("rl", "fst"):
        TrainConfig(method=method, engine="trl", device="cuda", adapter="lora:r=2", precision="bfloat16")
    TrainConfig(learner=PolicyGradient(leash_loss=0.1, kl_estimator="k3", kl_estimator_ratio=True), engine="trl")
    assert type(TrainConfig(engine="trl").learner) is LEARNERS["rl"]


def test_a_configuration_is_read_back_and_older_ones_are_of_our_loop() -> None:
    config = TrainConfig(method="fst", engine="trl", trl=("use_vllm=true", "vllm_mode=colocate"))
    held = plain(asdict(config))
    assert TrainConfig.from_dict(held) == config
    del held["engine"], held["trl"]
    assert TrainConfig.from_dict(held) == TrainConfig(method="fst")


def test_our_loop_runs_no_other_engine(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run_training_on_trl"):
        run_training(TrainConfig(engine="trl"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
