r"""A forecast as numbers: quantities at each step with intervals, prompt by prompt, and what they cost.

The interval of a quantity is where one new run is expected: the noise of its batches, that of the forecast's, and the error
of the pieces (`fstsim.llm.forecast.interval`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fstsim.llm.forecast.config import ForecastConfig
from fstsim.llm.forecast.control import Layout
from fstsim.llm.forecast.interval import carried, half_width
from fstsim.llm.forecast.path import Spent
from fstsim.llm.forecast.reading import OLD, Reading
from fstsim.llm.forecast.rule import Rule

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Look:
    """Readings at one step: of the corrected path, and of the predicted one."""

    step: int
    reading: Reading
    predicted: Reading


@dataclass
class Replicate:
    """One path: its looks, what it cost, its pieces, and the step from which on it claims nothing."""

    looks: list[Look] = field(default_factory=list)
    spent: Spent = field(default_factory=Spent)
    pieces: list[dict[str, Any]] = field(default_factory=list)
    lost: int | None = None
    seconds: float = 0.0
    said: str = ""
    """why it was lost"""
    control: Layout | None = None
    """what the controls are that errors and noise of pieces are told of; None of old forecasts, and of tasks without answers"""


LIMITS = {"reward": (0.0, 1.0), "log_old_mass": (-math.inf, 0.0)}
"""Where an interval ends whatever its error, by quantity."""


@dataclass(frozen=True)
class Value:
    """A quantity with the ends of its interval."""

    value: float
    low: float
    high: float


def quantities(base: Reading) -> dict[str, Callable[[Reading], float]]:
    """Scalars of a reading by name: reward, log of the old mass, KL, reward lost on each old skill and on all."""
    found: dict[str, Callable[[Reading], float]] = {
        "reward": lambda r: float(r.reward.mean()),
        "kl_to_base": lambda r: float(r.kl_to_base.mean()),
        "kl_from_base": lambda r: float(r.kl_from_base.mean()),
    }
    if OLD in base.old:
        found["log_old_mass"] = lambda r: r.log_old_mass
    for name in base.skill_reward:
        found[f"forgotten {name}"] = lambda r, n=name: float(base.skill_reward[n].mean() - r.skill_reward[n].mean())  # type: ignore[misc]
    if base.skill_reward:
        found["forgotten"] = lambda r: base.skills - r.skills
    return found


@dataclass(frozen=True)
class Forecast:
    """What `fstsim.llm.forecast.forecast.forecast` returns; ``base`` is the reading at step 0."""

    config: ForecastConfig
    base: Reading
    replicates: Sequence[Replicate]

    @cached_property
    def steps(self) -> tuple[int, ...]:
        """Steps that every replicate has come to."""
        common = set(self.config.at).intersection(*({look.step for look in r.looks} for r in self.replicates))
        return tuple(sorted(common))

    @cached_property
    def _rates(self) -> Array:
        """Learning rates of the run."""
        return Rule.of(self.config.train).rates

    @property
    def lost(self) -> int | None:
        """The step from which on nothing is claimed, None if there is none."""
        return min((r.lost for r in self.replicates if r.lost is not None), default=None)

    def at(self, step: int) -> list[Look]:
        """The looks of all replicates at a step."""
        return [look for r in self.replicates for look in r.looks if look.step == step]

    def value(self, of: Callable[[Reading], float], step: int) -> Value:
        """A scalar of a reading at a step, with its interval."""
        looks = self.at(step)
        values = np.array([of(look.reading) for look in looks])
        errors = [of(look.predicted) - of(look.reading) for look in looks]
        on_the_way = [carried(r.pieces, r.control, of, step, self._rates) for r in self.replicates]
        half, mean = half_width(values, errors, on_the_way), float(values.mean())
        return Value(mean, mean - half, mean + half)

    def change(self, step: int) -> dict[str, Array]:
        """Change of the log-probability of every old prompt since the start, by skill, mean over replicates; nats."""
        looks = self.at(step)
        return {k: np.mean([look.reading.old[k] for look in looks], axis=0) - then for k, then in self.base.old.items()}

    def row(self, step: int) -> dict[str, Any]:
        """Step, and value and interval of each quantity."""
        found: dict[str, Any] = {"step": step}
        for name, of in quantities(self.base).items():
            value = self.value(of, step)
            least, most = LIMITS.get(name, (-math.inf, math.inf))
            value = Value(value.value, max(value.low, least), min(value.high, most))
            found[name] = asdict(value)
        return found

    @property
    def cost(self) -> dict[str, Any]:
        """Gradients, rollouts and readings of the forecast, and the gradients (slow steps) of the run."""
        spent = [r.spent for r in self.replicates]
        return {
            "gradients": sum(s.gradients for s in spent),
            "rollouts": sum(s.rollouts for s in spent),
            "control_readings": sum(s.controls for s in spent),
            "full_readings": 1 + 2 * sum(len(r.looks) for r in self.replicates),
            "prompts_in_full_reading": sum(len(v) for v in (self.base.reward, *self.base.old.values())),
            "seconds": sum(r.seconds for r in self.replicates),
            "aims": sum(1 + len(r.pieces) for r in self.replicates),
            "run_gradients": self.config.train.steps,
        }

    def to_dict(self) -> dict[str, Any]:
        """What is in ``forecast.json``."""
        return {
            "base": reading_dict(self.base),
            "start": {name: of(self.base) for name, of in quantities(self.base).items()},
            "rows": [self.row(step) for step in self.steps],
            "replicates": [replicate_dict(r) for r in self.replicates],
            "lost": self.lost,
            "why_lost": next((r.said for r in self.replicates if r.said), ""),
            "cost": self.cost,
        }

    @classmethod
    def from_dict(cls, config: ForecastConfig, held: Mapping[str, Any]) -> Forecast:
        """From what `to_dict` made; raises KeyError or TypeError where it is none."""
        return cls(config, reading_from(held["base"]), [replicate_from(r) for r in held["replicates"]])


def reading_dict(reading: Reading) -> dict[str, Any]:
    """A reading as JSON can hold it, without loss."""
    lists: Callable[[Mapping[str, Array]], dict[str, Any]] = lambda held: {k: v.tolist() for k, v in held.items()}  # noqa: E731
    return {
        name: lists(value) if isinstance(value, Mapping) else value.tolist() for name, value in vars(reading).items()
    }


def _array(values: Any) -> Array:
    return np.array([math.nan if v is None else v for v in values], dtype=np.float64)


def reading_from(held: Mapping[str, Any]) -> Reading:
    """From what `reading_dict` made."""
    arrays = {
        name: {k: _array(v) for k, v in value.items()} if isinstance(value, Mapping) else _array(value)
        for name, value in held.items()
    }
    return Reading(**arrays)  # type: ignore[arg-type]


def replicate_dict(replicate: Replicate) -> dict[str, Any]:
    """A replicate as JSON can hold it, without loss."""
    looks = [
        {"step": k.step, "reading": reading_dict(k.reading), "predicted": reading_dict(k.predicted)}
        for k in replicate.looks
    ]
    control = None if replicate.control is None else replicate.control.to_dict()
    return {**vars(replicate), "looks": looks, "spent": asdict(replicate.spent), "control": control}


def replicate_from(held: Mapping[str, Any]) -> Replicate:
    """From what `replicate_dict` made."""
    looks = [Look(k["step"], reading_from(k["reading"]), reading_from(k["predicted"])) for k in held["looks"]]
    control = Layout.from_dict(held["control"]) if held.get("control") else None
    return Replicate(**{**held, "looks": looks, "spent": Spent(**held["spent"]), "control": control})
