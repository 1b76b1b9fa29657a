"""From next to no reward, where words do not solve the task: RL and FST at every declared learning rate, no leash."""

from __future__ import annotations

from fstsim.llm.experiments.plan import LEARNING_RATES, TASKS, Planned, Scale, Settings, training

TASK = TASKS["star_graph"]


def runs(scale: Scale, chosen: Settings | None = None) -> list[Planned]:  # noqa: ARG001
    """The declared sweep is on an easy task; what is best there need not be where the weights have to carry most."""
    return [
        Planned(f"zero-{m}-lr{lr:g}", training(scale, m, (TASK,), lr)) for m in ("rl", "fst") for lr in LEARNING_RATES
    ]
