"""RL, FST and GEPA on a hard and an easy task of each family."""

from __future__ import annotations

from fstsim.llm.experiments.plan import EASY, TASKS, Planned, Scale, Settings, families, setting, training


def runs(scale: Scale, chosen: Settings | None = None) -> list[Planned]:
    """RL and FST on every task; GEPA, for which nothing is chosen, on the hard ones."""
    found = []
    for kind, tasks in (("hard", TASKS), ("easy", EASY)):
        for family in families(scale):
            for method in ("rl", "fst", "gepa"):
                if method == "gepa" and kind == "easy":
                    continue
                lr, leash = setting(method, chosen)
                config = training(scale, method, (tasks[family],), lr, leash)
                found.append(Planned(f"{family}-{kind}-{method}", config, kind=kind, leash=leash))
    return found
