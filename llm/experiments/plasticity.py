"""Fresh RL on a second task, conflicting or not, from the base, and from the ends of RL and of FST on a first one."""

from __future__ import annotations

from collections.abc import Mapping

from fstsim.llm.experiments.plan import EASY, Planned, Scale, Settings, setting, training

FIRST = EASY["strings"]
SECOND: Mapping[str, str] = {"": EASY["digits"], "conflict-": "strings:sort"}
"""What is learned after `FIRST`: a task of another family, and one of the same prompts with other answers."""


def runs(scale: Scale, chosen: Settings | None = None) -> list[Planned]:
    """The first task is learned in runs of core."""
    found = []
    for mark, task in SECOND.items():
        lr, leash = setting("rl", chosen)
        config = training(scale, "rl", (task,), lr, leash)
        for start, after in (("base", None), ("rl", "strings-easy-rl"), ("fst", "strings-easy-fst")):
            found.append(Planned(f"plasticity-{mark}from-{start}", config, after, start, leash))
    return found
