"""The estimate of a run's memory: counted by hand on a tiny model, and refused in one line where there is not enough."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from pathlib import Path

import pytest
from transformers import PreTrainedModel

import fstsim.llm.runs.memory as module
from fstsim.errors import InputError
from fstsim.llm.policy.adapters import own_weights, with_adapter
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.memory import check_memory, free_memory, memory_of, shapes_of
from fstsim.llm.runs.optimizer import OptimizerConfig
from fstsim.llm.runs.probes import ProbeConfig


@pytest.mark.parametrize("kind", ["qwen3", "llama"])
def test_weights_are_counted_without_loading_them(
    make_model: Callable[..., PreTrainedModel], make_policy: Callable[..., Policy], kind: str, tmp_path: Path
) -> None:
    model = make_model(kind)
    model.save_pretrained(tmp_path)
    shapes = shapes_of(tmp_path)
    count = sum(p.numel() for p in model.parameters())
    assert sum(map(prod, shapes.values())) == count
    parts = memory_of(TrainConfig(method="sdft"), shapes)
    assert {name: parts[name] / count for name in ("weights", "base", "shadow", "gradients", "moments")} == {
        "weights": 4.0,
        "base": 4.0,
        "shadow": 4.0,
        "gradients": 4.0,
        "moments": 8.0,
    }
    assert "relearning" not in parts
    half = TrainConfig(optimizer=OptimizerConfig("adamw-bf16-moments"), probe=ProbeConfig(relearn=5))
    parts = memory_of(half, shapes)
    assert (parts["moments"] / count, parts["relearning"] / count) == (4.0, 16.0)
    assert "shadow" not in parts
    pytest.importorskip("peft")
    policy, _ = with_adapter(make_policy(kind), "lora:r=3", seed=0)
    trained = sum(p.numel() for p in own_weights(policy).values())
    parts = memory_of(TrainConfig(adapter="lora:r=3"), shapes)
    assert (parts["adapter"], parts["moments"]) == (4.0 * trained, 8.0 * trained)
    assert "base" not in parts


def test_too_little_memory_is_said_in_one_line(
    make_model: Callable[..., PreTrainedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model().save_pretrained(tmp_path)
    config = TrainConfig(model=str(tmp_path))
    monkeypatch.setattr(module, "free_memory", lambda: 5e8)
    check_memory(config)  # a small model fits everywhere
    monkeypatch.setattr(module, "_SMALL", 0.0)
    with pytest.raises(InputError, match=r"needs about 1\.2 GB .* and 0\.5 GB are free: take --adapter") as caught:
        check_memory(config)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(module, "free_memory", lambda: 1e12)
    check_memory(config)


def test_what_is_no_model_is_left_to_who_loads_it(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    assert shapes_of(tmp_path) == {}
    check_memory(TrainConfig(model=str(tmp_path)))
    check_memory(TrainConfig(model="owner/model"))


def test_free_memory_is_of_this_machine() -> None:
    free = free_memory()
    assert free is None or 1e8 < free < 1e15
