"""Configurations built in Python: a value of a wrong type is an InputError at every setting of every channel."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch

from fstsim.errors import InputError
from fstsim.llm.contexts.prompt_evolution import PromptEvolution
from fstsim.llm.contexts.reflectors import ReflectorConfig
from fstsim.llm.learners import LEARNERS
from fstsim.llm.measure.config import MeasureSettings
from fstsim.llm.pretraining.config import PretrainConfig
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.optimizer import OptimizerConfig
from fstsim.llm.runs.probes import ProbeConfig

KINDS: list[Any] = [
    TrainConfig, *LEARNERS.values(), ProbeConfig, PromptEvolution, ReflectorConfig, OptimizerConfig, PretrainConfig, MeasureSettings,
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "value",
    [object(), b"x", {}, {1}, float("nan"), 10**400, "\ud800"],
    ids=["object", "bytes", "mapping", "set", "nan", "huge", "surrogate"],
)
def test_wrong_types_are_refused(kind: Callable[..., Any], value: object) -> None:
    for entry in dataclasses.fields(kind):  # type: ignore[arg-type]  # dataclasses, all of them
        with pytest.raises(InputError, match=entry.metadata.get("flag") or entry.name):
            kind(**{entry.name: value})


def test_defaults_that_recorded_commands_rely_on() -> None:
    """A command that does not say its learning rate means this one, in the log and in everybody's notes."""
    config = TrainConfig()
    assert (config.lr, config.clip, config.steps, config.seed) == (3e-4, 1.0, 200, 0)
    adamw = inspect.signature(torch.optim.AdamW).parameters
    assert (config.optimizer.beta1, config.optimizer.beta2) == adamw["betas"].default
    assert config.optimizer.epsilon == adamw["eps"].default
