"""Which setting learns most while it forgets no more than allowed: a choice among forecasts, stopping early included."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fstsim.errors import InputError
from fstsim.llm.forecast.reading import OLD
from fstsim.llm.forecast.result import Forecast, Value, quantities


@dataclass(frozen=True)
class Choice:
    """``setting`` stopped after ``step`` steps: its reward, and what it forgets."""

    setting: str
    step: int
    reward: Value
    forgotten: Value


def forgotten(found: Forecast, step: int) -> Value:
    """Reward lost on the old skills, mean over them; without any, old mass lost as a share of what there was.

    Raises InputError if the forecast has neither.
    """
    known = quantities(found.base)
    if "forgotten" in known:
        return found.value(known["forgotten"], step)
    if OLD not in found.base.old:
        raise InputError("there is nothing to forget: the task names no old answers; give --old")
    start = math.exp(found.base.log_old_mass)
    return found.value(lambda r: 1.0 - math.exp(r.log_old_mass) / start, step)


def recommend(forecasts: Mapping[str, Forecast], budget: float) -> Choice | None:
    """The choice of highest reward whose forgetting, upper end of its interval, is within ``budget``; None if there is none.

    Of equal rewards (to a thousandth) the one that forgets least. Raises InputError unless the budget is a number of at
    least 0.
    """
    if not (math.isfinite(budget) and budget >= 0.0):
        raise InputError(f"--at-most-forgetting must be finite and at least 0, got {budget}")
    choices = [
        Choice(name, step, found.value(quantities(found.base)["reward"], step), forgotten(found, step))
        for name, found in forecasts.items()
        for step in found.steps
    ]
    within = [choice for choice in choices if choice.forgotten.high <= budget]
    return max(within, key=lambda c: (round(c.reward.value, 3), -c.forgotten.value, -c.step), default=None)
