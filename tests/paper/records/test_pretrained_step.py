"""The parts of a step add up to the step, and every way to train makes one."""

from __future__ import annotations

import time

import pytest
import torch

from fstsim.llm.policy.policy import Policy
from fstsim.paper.records import pretrained_step
from fstsim.paper.records.pretrained_step import WAYS, step_seconds, weights_of


@pytest.mark.parametrize("way", WAYS)
def test_parts_of_a_step_add_up(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained_step, "TASK", "digits:plus")
    policy = Policy.load("base")
    weights = weights_of(policy, way, {})
    before = {name: value.clone() for name, value in policy.model.state_dict().items()}
    began = time.process_time()
    found = step_seconds(weights, 1)
    whole = time.process_time() - began
    assert set(found) == {"sampling", "passes", "update"}
    assert min(found.values()) > 0.0
    assert sum(found.values()) <= whole
    assert weights.optimizer.state  # an update was made, every group had a signal
    assert all(torch.equal(value, before[name]) for name, value in policy.model.state_dict().items())  # on a copy
