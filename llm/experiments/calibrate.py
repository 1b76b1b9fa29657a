"""The declared sweep, and the settings that it chooses for the experiments that take them from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fstsim.llm.experiments.plan import EASY, LEARNING_RATES, Planned, Scale, Settings, training
from fstsim.llm.runs.recorded import read_metrics

LEASHES = (0.0, 0.02)


def runs(scale: Scale, chosen: Settings | None = None) -> list[Planned]:  # noqa: ARG001
    """Every learning rate with every leash, for RL and for FST, on the easy task of the first family."""
    return [
        Planned(
            f"calibrate-{method}-lr{lr:g}-leash{leash:g}",
            training(scale, method, (EASY["strings"],), lr, leash),
            leash=leash,
        )
        for method in ("rl", "fst")
        for lr in LEARNING_RATES
        for leash in LEASHES
    ]


def best_settings(out: Path) -> dict[str, tuple[float, float]]:
    """``{method: (learning rate, leash)}`` of the declared sweep with the highest reward averaged over its whole course.

    Over the seeds that every run of the sweep has finished, whatever the number of seeds asked for now: more seeds of an
    experiment must not change its settings. Empty where the sweep has not been run to its end: then the defaults hold.
    """
    best: dict[str, tuple[float, float, float]] = {}
    sweep = runs("small")
    seeds = min(len(list((out / "runs" / p.name).glob("seed-*/summary.json"))) for p in sweep)
    if not seeds:
        return {}
    for planned in sweep:
        rewards = []
        for seed in range(seeds):
            rows = read_metrics(out / "runs" / planned.name / f"seed-{seed}")
            rewards += [row["reward"] for row in rows if row.get("reward") is not None]
        method, mean = planned.method, float(np.mean(rewards))
        if method not in best or mean > best[method][0]:
            best[method] = (mean, planned.lr, planned.leash)
    return {method: (lr, leash) for method, (_, lr, leash) in best.items()}
