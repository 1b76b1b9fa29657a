"""How close a claim came to the exact value: what the record of a check says, for all tables that show it.

A record is a row of ``fstsim check --json``: ``upper`` holds the least, median and largest ratio of an upper bound (or an
approximation) to the actual value, ``lower`` of the actual value to a lower bound; None where nothing is claimed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Wording:
    """How a table says it: names of ``upper`` and ``lower`` bounds, what is written ``between`` them, text where only a sign
    is claimed, a format of ``{low}``, ``{middle}`` and ``{high}`` for approximations, and how numbers are written."""

    upper: str
    lower: str
    between: str
    sign: str
    deviations: str
    ratio: Callable[[float], str]
    percent: Callable[[float], str]


def deviations(check: Mapping[str, Any]) -> tuple[float, float, float] | None:
    """Least, median and largest deviation of an approximation from the actual value, in percent; None for other kinds."""
    if check["kind"] != "approximation" or check["upper"] is None:
        return None
    low, middle, high = (100.0 * (ratio - 1.0) for ratio in check["upper"])
    return low, middle, high


def tightness(check: Mapping[str, Any], wording: Wording) -> str:
    """Closest and median ratio of a bound (1 is tight), or the deviations of an approximation; an identity is ``equal``."""
    if check["kind"] == "identity":
        return "equal"
    off = deviations(check)
    if off is not None:
        low, middle, high = map(wording.percent, off)
        return wording.deviations.format(low=low, middle=middle, high=high)
    parts = [
        f"{name} {wording.ratio(check[side][0])}–{wording.ratio(check[side][1])}"
        for side, name in (("upper", wording.upper), ("lower", wording.lower))
        if check[side] is not None
    ]
    return wording.between.join(parts) or wording.sign
