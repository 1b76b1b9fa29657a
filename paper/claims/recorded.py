"""A finding where the runs that it needs are recorded, and that they are not where they are not."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fstsim.paper.claims.claim import Finding, Outcome
from fstsim.paper.claims.evidence import Evidence

CLAIM_RUNS = "claims"
"""folder of the runs that were made for single claims (`fstsim.paper.records.claim_runs`)"""


def when(
    there: Callable[[Evidence], bool], find: Callable[[Evidence], Finding], missing: str
) -> Callable[[Evidence], Finding]:
    """``find`` where what it needs is ``there``, else that nothing can be said, because of what is ``missing``."""
    return lambda e: find(e) if there(e) else Finding("–", Outcome.UNTESTABLE, missing)


def when_recorded(
    find: Callable[[Evidence], Finding], names: Sequence[str], where: str = CLAIM_RUNS
) -> Callable[[Evidence], Finding]:
    """``find``, or that nothing can be said because not every one of these runs is recorded."""
    return when(lambda e: e.has(names, where), find, "not every run of it is recorded")
