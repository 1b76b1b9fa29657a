"""The context-free policy towards its context-conditioned self, from the end of FST."""

from __future__ import annotations

from fstsim.llm.experiments.plan import TASKS, Planned, Scale, Settings, training


def runs(scale: Scale, chosen: Settings | None = None) -> list[Planned]:  # noqa: ARG001
    """One run, from where a run of core ended."""
    config = training(scale, "distill", (TASKS["strings"],))
    return [Planned("distill", config, after="strings-hard-fst")]
