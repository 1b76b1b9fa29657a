"""FST on a sequence of tasks with a reflector that stays as it was at the start, beside the policy as its own reflector."""

from __future__ import annotations

from dataclasses import replace

from fstsim.llm.contexts.reflectors import ReflectorConfig
from fstsim.llm.experiments import continual
from fstsim.llm.experiments.plan import Planned, Scale, Settings

FROZEN = ReflectorConfig("local", model="base")
"""The base before any training, which the policy is at step 0: the two differ by what training did to the policy, and in nothing else."""


def runs(scale: Scale, chosen: Settings | None = None) -> list[Planned]:
    """Both reflectors at every declared learning rate, one after the other; of their own, so that both arms are of one day's code."""
    found = []
    for run in continual.runs(scale, chosen):
        if run.method == "fst":
            for kind, config in (("self", run.config), ("frozen", replace(run.config, reflector=FROZEN))):
                found.append(replace(run, name=f"reflectors-{kind}-lr{run.lr:g}", config=config, kind=kind))
    return found
