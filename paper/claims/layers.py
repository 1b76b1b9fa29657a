"""Claims on where in a network forgetting sits: the base's weights put back layer by layer (`fstsim layers`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fstsim.intervals import student_interval
from fstsim.llm.measure.restored_runs import forgotten_column
from fstsim.number_text import short_number
from fstsim.paper.claims.claim import Claim, Finding, Outcome, above, all_of
from fstsim.paper.claims.evidence import Array, Evidence
from fstsim.records import read_json

_LEAST = 0.02
"""Accuracy lost on old skills below which there is nothing to give back."""
_SOME = 0.1
"""Share of the loss below which a layer gives nothing back."""


@dataclass(frozen=True)
class Restored:
    """One recorded set: ``back`` and ``kept`` ``(runs, layers)``, shares of what was lost that come back, and of what was learned that stays."""

    name: str
    about: str
    lost: Array
    """accuracy lost on old skills by every run ``(runs,)``"""
    back: Array
    kept: Array

    @property
    def difference(self) -> tuple[float, float, float]:
        """Mean share given back by a layer of the lower half less that of the upper half, with its interval over runs."""
        half = self.back.shape[1] // 2
        low, high = self.back[:, :half].mean(1), self.back[:, self.back.shape[1] - half :].mean(1)
        mean, lower, upper = map(float, student_interval(low - high))
        return mean, lower, upper


def read_restored(data: Path) -> list[Restored]:
    """The recorded sets in which something was lost, by name; of others there is nothing to say."""
    sets = [_restored(path) for path in sorted((data / "layers").glob("*.json"))]
    return [found for found in sets if found.lost.mean() >= _LEAST]


def _restored(path: Path) -> Restored:
    found = read_json(path)
    column = forgotten_column(found["runs"][0]["rows"]) or "drift"

    def of(rows: list[dict[str, Any]], kind: str, name: str) -> Array:
        return np.array([row[name] for row in rows if row["kind"] == kind], dtype=float)

    lost, back, kept = [], [], []
    for run in found["runs"]:
        rows = run["rows"]
        (after,), (start,) = of(rows, "none", column), of(rows, "all", "reward")
        (reward,) = of(rows, "none", "reward")
        lost.append(after)
        back.append(1.0 - of(rows, "layer", column) / after)
        kept.append((of(rows, "layer", "reward") - start) / (reward - start))
    about = f"{found['method']} on {', '.join(found['tasks'])} (old {', '.join(found['config']['old'])}), {found['config']['model']}"
    return Restored(path.stem, about, np.array(lost), np.array(back), np.array(kept))


def _low(e: Evidence) -> Finding:
    sets = read_restored(e.data)
    if not sets:
        return Finding("–", Outcome.UNTESTABLE, "no restoring of layers is recorded")
    parts, better = [], []
    for found in sets:
        mean, low, high = found.difference
        most = short_number(float(found.back.mean(0).max()))
        parts.append(
            f"{found.about}: {short_number(mean)} [{short_number(low)}, {short_number(high)}] (most that one layer gives back: {most})"
        )
        # where no layer gives anything back, the old skills sit in none of them
        better.append(above(low, high, 0.0) if found.back.mean(0).max() >= _SOME else False)
    outcome = all_of(better)
    others = "; ".join(found.about for found, holds in zip(sets, better, strict=True) if not holds)
    return Finding("; ".join(parts), outcome, f"the training is none of {others}" if outcome is Outcome.PARTLY else "")


CLAIMS = (
    Claim(
        "Direct tuning corrupts knowledge in the lower layers",
        "the source texts",
        "ends of SFT on three tasks and of RL on two with the shipped model, of SFT on one with a pretrained model where that is recorded, each layer put back to the base alone: share of the loss on old skills that comes back, lower half of the layers less upper half",
        "above 0 in every training that lost something",
        _low,
    ),
)
