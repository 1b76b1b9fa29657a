"""Three families one after the other in one uninterrupted run, at every declared learning rate."""

from __future__ import annotations

from fstsim.llm.experiments.plan import LEARNING_RATES, LR, Planned, Scale, Settings, training

SEQUENCE = ("strings:rotate", "digits:plus", "star_graph:cross")


def runs(scale: Scale, chosen: Settings | None = None) -> list[Planned]:  # noqa: ARG001
    """RL and FST. What is best on one task need not be on a sequence, so that nothing is taken over from the sweep."""
    return [
        Planned(f"continual-{m}" + ("" if lr == LR else f"-lr{lr:g}"), training(scale, m, SEQUENCE, lr))
        for m in ("rl", "fst")
        for lr in LEARNING_RATES
    ]
