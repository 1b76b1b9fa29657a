"""Configurations built in Python: a value of a wrong type is an InputError at every setting of every channel."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from fstsim.errors import InputError
from fstsim.llm.contexts.prompt_evolution import PromptEvolution
from fstsim.llm.contexts.reflection import ReflectorConfig
from fstsim.llm.learners import LEARNERS
from fstsim.llm.measure.config import MeasureSettings
from fstsim.llm.pretraining.pretrain import PretrainConfig
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
