"""FST on a sequence of tasks with a reflector that stays as it was at the start, beside the policy as its own (runs of continual)."""

from __future__ import annotations

from dataclasses import replace

from fstsim.llm.contexts.reflection import ReflectorConfig
from fstsim.llm.experiments import continual
from fstsim.llm.experiments.plan import Planned, Scale, Settings

FROZEN = ReflectorConfig("local", model="base")
"""The base before any training, which the policy is at step 0: the two differ by what training did to the policy, and in nothing else."""


def runs(scale: Scale, chosen: Settings | None = None) -> list[Planned]:
    """Both reflectors at every declared learning rate, one after the other."""
    found = []
    for run in continual.runs(scale, chosen):
        if run.method == "fst":
            found.append(replace(run, kind="self"))
            frozen = replace(run.config, reflector=FROZEN)
            found.append(replace(run, name=f"{run.name}-frozen", config=frozen, kind="frozen"))
    return found
