"""What a planned run is, and the tasks, sizes and settings that the experiments share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.runs.config import METHODS, TrainConfig
from fstsim.llm.runs.probes import ProbeConfig

Scale = Literal["smoke", "small", "paper"]
Settings = Mapping[str, tuple[float, float]]
"""Learning rate and leash of a method."""

# Near zero without context (see `fstsim tasks`). With the rules in context the base solves the first two: context can carry
# nearly everything. On the third (find the way from the centre) it solves 15 % even then: weights have to carry most.
TASKS: Mapping[str, str] = {
    "strings": "strings:reverse+next",
    "digits": "digits:negate+shift",
    "star_graph": "star_graph:forward",
}
# Single rules that the base follows now and then without being told: RL alone learns them.
EASY: Mapping[str, str] = {"strings": "strings:rotate", "digits": "digits:plus", "star_graph": "star_graph:cross"}
LR = 3e-4
"""Where nothing else is declared or chosen."""
LEARNING_RATES = (1e-4, LR, 1e-3)


@dataclass(frozen=True)
class Planned:
    """A run: its name and its configuration; ``after`` names the run whose final weights it starts from.

    ``kind`` and ``leash`` tell it from the other runs of its experiment, with what the configuration says: task, method, lr.
    """

    name: str
    config: TrainConfig
    after: str | None = None
    kind: str = ""
    """in the words of its experiment: ``hard`` or ``easy``; ``base``, ``rl`` or ``fst``, where it starts; ``plain`` or ``reuse``"""
    leash: float = 0.0
    write_model: bool = True
    """keep the trained model beside its checkpoint: what another run starts from, or is to be read as a model"""

    @property
    def method(self) -> str:
        """How it is trained."""
        return self.config.method

    @property
    def task(self) -> str:
        """The task that it is about, the last of a sequence."""
        return self.config.tasks[-1]

    @property
    def lr(self) -> float:
        """Learning rate of the slow channel."""
        return self.config.lr


@dataclass(frozen=True)
class Size:
    """How large the runs of a scale are: slow steps on each task, problems a step, what is measured."""

    steps: int
    problems: int
    probe: ProbeConfig


SIZES: dict[str, Size] = {
    "smoke": Size(60, 24, ProbeConfig(10, 32, 16)),
    "small": Size(120, 48, ProbeConfig(10, 64, 32)),
    "paper": Size(300, 64, ProbeConfig(10, 256, 64)),
}


def training(scale: Scale, method: str, tasks: tuple[str, ...], lr: float = LR, leash: float = 0.0) -> TrainConfig:
    """Configuration of a run of a method on tasks, at the scale's size."""
    size = SIZES[scale]
    groups = PolicyGradient(problems=size.problems, leash_reward=leash)
    return TrainConfig(
        method=method,
        tasks=tasks,
        steps=-(-size.steps // 6) if method == "gepa" else size.steps,
        lr=lr,
        probe=replace(size.probe, every=1) if method == "gepa" else size.probe,
        learner=groups if METHODS[method].learner is PolicyGradient else None,
    )


def families(scale: Scale) -> tuple[str, ...]:
    """Families of an experiment."""
    return ("strings",) if scale == "smoke" else tuple(TASKS)


def setting(method: str, chosen: Settings | None) -> tuple[float, float]:
    """Learning rate and leash of a method: what the sweep chose, or the defaults."""
    return (chosen or {}).get(method, (LR, 0.0))
