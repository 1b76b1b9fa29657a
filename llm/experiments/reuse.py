"""FST whose slow steps reuse the rollouts of the fast rounds before them, beside FST as it is (runs of core)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fstsim.llm.contexts.prompt_evolution import PromptEvolution
from fstsim.llm.experiments.plan import EASY, TASKS, Planned, Scale, Settings, setting, training

REUSE: Mapping[str, str] = {
    "strings-easy": EASY["strings"],
    "digits-easy": EASY["digits"],
    "star_graph-hard": TASKS["star_graph"],
}
"""Two tasks that contexts solve alone, and the one on which weights carry most."""


def runs(scale: Scale, chosen: Settings | None = None) -> list[Planned]:
    """Both at the setting of FST, one after the other on each task."""
    lr, leash = setting("fst", chosen)
    found = []
    for name, task in REUSE.items():
        config = training(scale, "fst", (task,), lr, leash)
        reusing = replace(config, fast=PromptEvolution(reuse=True))
        found.append(Planned(f"{name}-fst", config, kind="plain", leash=leash))
        found.append(Planned(f"{name}-fst-reuse", reusing, kind="reuse", leash=leash))
    return found
