"""What a claim of the ledger is, and what can come out of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fstsim.paper.claims.evidence import Evidence


class Outcome(Enum):
    """A claim holds in what was recorded, does not, holds under a condition that is named, or the records cannot tell."""

    HOLDS = "holds"
    FAILS = "does not hold"
    PARTLY = "holds only if"
    OPEN = "not resolved"
    UNTESTABLE = "not testable here"


@dataclass(frozen=True)
class Finding:
    """``measured``: numbers with 95 % intervals; ``outcome``, and ``why``: the condition, or what is missing."""

    measured: str
    outcome: Outcome
    why: str = ""

    @property
    def verdict(self) -> str:
        """The outcome in words."""
        if not self.why:
            return self.outcome.value
        joint = " " if self.outcome is Outcome.PARTLY else ": "
        return f"{self.outcome.value}{joint}{self.why}"


@dataclass(frozen=True)
class Claim:
    """``text``, who says it (``source``), how it is ``tested`` here, what the theory or the source ``predicted``, and what came out."""

    text: str
    source: str
    tested: str
    predicted: str
    find: Callable[[Evidence], Finding]


def untested(why: str) -> Callable[[Evidence], Finding]:
    """A finding of what is not tested, and why."""
    return lambda e: Finding("–", Outcome.UNTESTABLE, why)  # noqa: ARG005 -- nothing is recorded


def all_of(holds: Sequence[bool | None]) -> Outcome:
    """HOLDS where every comparison does, FAILS where none does, PARTLY where some do; OPEN where one is not resolved (None)."""
    if any(value is None for value in holds):
        return Outcome.OPEN
    if all(holds):
        return Outcome.HOLDS
    return Outcome.PARTLY if any(holds) else Outcome.FAILS


def above(low: float, high: float, level: float) -> bool | None:
    """Whether an interval lies above ``level``: None where it holds it."""
    if low > level:
        return True
    return False if high < level else None
