"""The runs of the experiment on systems as its claims read them."""

from __future__ import annotations

from collections.abc import Callable

from fstsim.llm.experiments.plan import SIZES
from fstsim.llm.experiments.systems import TASKS, arms
from fstsim.paper.claims.claim import Finding
from fstsim.paper.claims.evidence import Evidence
from fstsim.paper.claims.recorded import when
from fstsim.paper.experiments.numbers import Estimate

LABELS = {name: arm.label for name, arm in arms(SIZES["smoke"]).items()}
"""Every arm as it is called in words."""
TIE = 0.02
"""rewards that differ by less are equal"""


def end(e: Evidence, task: str, arm: str, column: str) -> Estimate:
    """A column at the end of an arm on a task, over seeds."""
    return e.end(f"systems-{task}-{arm}", column)


def recorded(e: Evidence) -> list[str]:
    """The tasks of the experiment of which every arm is recorded."""
    return [
        t for t in TASKS if all((e.data / "experiments" / "runs" / f"systems-{t}-{arm}").is_dir() for arm in LABELS)
    ]


def when_all_recorded(find: Callable[[Evidence], Finding]) -> Callable[[Evidence], Finding]:
    """``find``, or that nothing is recorded: of a part of the arms nothing is said."""
    return when(lambda e: bool(recorded(e)), find, "not every arm of the experiment is recorded")


def better(e: Evidence, arm: str, other: str) -> tuple[str, list[bool | None]]:
    """Rewards of two arms, task by task, and whether the first is better; two that differ by less than .02 are equal."""
    parts: list[str] = []
    holds: list[bool | None] = []
    for task in recorded(e):
        one, two = (end(e, task, name, "reward") for name in (arm, other))
        parts.append(f"{task}: {one} against {two}")
        equal = abs(one.value - two.value) < TIE
        holds.append(False if equal or one.high < two.low else True if one.low > two.high else None)
    return "; ".join(parts), holds
