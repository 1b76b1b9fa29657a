"""What a run writes at its end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fstsim.fast_slow import FastSlowState
from fstsim.llm.learners.weights import Weights
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.rows import write_result
from fstsim.llm.types import Population

MakePolicy = Callable[..., Policy]


def test_a_model_whose_writing_was_stopped_is_written_again(
    make_policy: MakePolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was taken for the whole one: weights without a tokenizer, for good."""
    policy = make_policy()
    weights = Weights(policy, policy, torch.optim.SGD(policy.model.parameters(), lr=0.1))
    state: FastSlowState[Weights, Population] = FastSlowState(weights, Population())

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(type(policy.tokenizer), "save_pretrained", stop)
        with pytest.raises(KeyboardInterrupt):
            write_result(TrainConfig(), policy, state, tmp_path)
    assert list(tmp_path.iterdir()) == []
    write_result(TrainConfig(), policy, state, tmp_path)
    found = load_file(tmp_path / "model" / "model.safetensors")
    assert found.keys() <= policy.model.state_dict().keys()
    assert all(torch.equal(value, policy.model.state_dict()[name]) for name, value in found.items())
    assert Policy.load(str(tmp_path / "model")).tokenizer.get_vocab() == policy.tokenizer.get_vocab()
