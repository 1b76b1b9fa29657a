"""What is forecast: a training run, the steps at which it is looked at, and how closely; checked before any work."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fstsim.errors import InputError
from fstsim.llm.forecast.settings import ForecastSettings
from fstsim.llm.learners.learner import Learner
from fstsim.llm.runs.config import METHODS, Method, TrainConfig

_SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1.0)


def _why_not(method: Method) -> str:
    """Why a method cannot be forecast; empty where it can."""
    learner = method.learner
    if learner is None or learner.deploys:
        return "leaves the weights as they are"
    if method.evolves:
        return "moves contexts too"
    moves = learner.shadowed and learner.follows is Learner.follows
    return "moves a second copy of the weights in a way of its own" if moves else ""


FORECAST = tuple(name for name, method in METHODS.items() if not _why_not(method))
"""Methods that can be forecast: one policy, contexts that stay, a second copy of the weights that follows the first, or none."""


def default_steps(steps: int) -> tuple[int, ...]:
    """Where a run of ``steps`` slow steps is looked at: at 1/16, 1/8, 1/4, 1/2, 3/4 of it and at its end."""
    return tuple(sorted({max(1, round(steps * share)) for share in _SHARES}))


@dataclass(frozen=True)
class ForecastConfig:
    """The run ``train``, which need not exist, at steps ``at`` (left out: `default_steps`).

    ``contexts`` is a population that stays: fast-slow training from where its fast channel has come to, method ``rl``.
    """

    train: TrainConfig
    at: tuple[int, ...] = ()
    settings: ForecastSettings = field(default_factory=ForecastSettings)
    contexts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        train = self.train
        if train.method not in FORECAST:
            why = _why_not(METHODS[train.method])
            raise InputError(f"method {train.method} cannot be forecast, it {why}; allowed: {', '.join(FORECAST)}")
        if train.engine != "own":
            raise InputError(
                f"a run on --engine {train.engine} cannot be forecast: its trainer draws batches of its own"
            )
        if train.learner is not None and train.learner.copies(1) and not train.learner.shadowed:
            raise InputError(
                f"--reset-every cannot be forecast: method {train.method} then moves a second copy of the weights"
            )
        if len(train.tasks) != 1:
            raise InputError(f"one task is forecast at a time, got {len(train.tasks)}: {', '.join(train.tasks)}")
        if not self.at:
            object.__setattr__(self, "at", default_steps(train.steps))
        if list(self.at) != sorted(set(self.at)) or not 1 <= self.at[0] <= self.at[-1] <= train.steps:
            shown = " ".join(map(str, self.at))
            raise InputError(
                f"steps to forecast must ascend and lie in 1..{train.steps}, the steps of the run; got {shown}"
            )

    @classmethod
    def from_dict(cls, recorded: Mapping[str, Any]) -> ForecastConfig:
        """From what JSON made of `dataclasses.asdict`. Raises InputError, TypeError or KeyError where it is none."""
        held = dict(recorded)
        held["train"] = TrainConfig.from_dict(held["train"])
        held["settings"] = ForecastSettings(**held["settings"])
        return cls(**{**held, "at": tuple(held["at"]), "contexts": tuple(held["contexts"])})

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return dataclasses.asdict(self)
