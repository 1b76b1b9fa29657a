r"""How well a prediction of many changes agrees with what was measured: \(R^2\), Spearman's rank correlation, by skill and pooled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

Array = NDArray[np.float64]

POOLED = "all"


def r_squared(predicted: ArrayLike, measured: ArrayLike) -> float:
    r"""\(1 - \sum (m - p)^2 / \sum (m - \bar m)^2\), ``(n,)`` each; at most 1, no line is fitted; nan if nothing varies."""
    p, m = np.asarray(predicted, dtype=np.float64), np.asarray(measured, dtype=np.float64)
    spread = ((m - m.mean()) ** 2).sum()
    return float(1.0 - ((m - p) ** 2).sum() / spread) if spread > 0.0 else float("nan")


def spearman(predicted: ArrayLike, measured: ArrayLike) -> float:
    """Correlation of ranks, ties at their mean rank; nan if one of both does not vary."""
    p, m = (rankdata(np.asarray(values, dtype=np.float64)) for values in (predicted, measured))
    if p.std() == 0.0 or m.std() == 0.0:
        return float("nan")
    return float(np.corrcoef(p, m)[0, 1])


@dataclass(frozen=True)
class Agreement:
    """Of predicted with measured changes of log-probabilities: ``error`` is the root mean square difference, nats."""

    prompts: int
    r2: float
    rank: float
    error: float
    predicted: float
    """mean change"""
    measured: float
    """mean change"""


def agreement(predicted: Mapping[str, Array], measured: Mapping[str, Array]) -> dict[str, Agreement]:
    """By skill and over all of them (``all``). Both hold the same skills and prompts."""
    found = {name: _agreement(predicted[name], measured[name]) for name in measured}
    whole = [np.concatenate([held[name] for name in measured]) for held in (predicted, measured)]
    return {POOLED: _agreement(whole[0], whole[1]), **found}


def _agreement(p: Array, m: Array) -> Agreement:
    error = float(np.sqrt(np.mean((p - m) ** 2)))
    return Agreement(len(m), r_squared(p, m), spearman(p, m), error, float(p.mean()), float(m.mean()))
