"""Claims of a library of verified programs (VOYAGER): what is stored, what the gate keeps out, what composition and practice are worth.

Predictions are those of paper/data/systems/predictions-skills.json, from the base alone, and were written before the runs.
"""

from __future__ import annotations

import numpy as np

from fstsim.paper.claims.claim import Claim, Finding, Outcome, above, all_of
from fstsim.paper.claims.evidence import Evidence
from fstsim.paper.claims.recorded import CLAIM_RUNS, when_recorded
from fstsim.paper.experiments.numbers import Estimate, estimate

_SOURCE = "VOYAGER 2305.16291"
_FAMILIES = ("strings", "digits")
_ORDERS = ("novelty", "random", "depth", "none")
_FEWER = 0.5
"""share of items that has to be missed for an order of practice to matter; the source has .93"""


def _right(e: Evidence, name: str, where: str) -> Estimate:
    """Skills at the end that do the task they were stored for."""
    c = e.curves(name, where)
    false = c.columns.get("skills_false")  # none of an empty library
    shares = 0.0 if false is None else np.nan_to_num(false[:, -1])
    return estimate(c["skills"][:, -1] * (1.0 - shares))


def _gate(e: Evidence) -> Finding:
    gated, free = (_right(e, f"curriculum-{name}", CLAIM_RUNS) for name in ("novelty", "novelty-no-gate"))
    false = e.end("curriculum-novelty-no-gate", "skills_false", CLAIM_RUNS)
    said = f"right skills after 40 steps of practice by novelty: {gated} with the gate, {free} without (share of false ones {false})"
    parts = []
    for family in _FAMILIES:
        names = [f"skills-{family}-{arm}" for arm in ("full", "no_gate")]
        rewards = [e.end(name, "reward", "systems") for name in names]
        parts.append(f"{family} {rewards[0]} and {rewards[1]}")
    said += f"; reward on four rules after two of them: {', '.join(parts)}"
    return Finding(said, all_of([above(gated.low - free.high, gated.high - free.low, 0.0)]))


def _composed(e: Evidence) -> Finding:
    parts: list[str] = []
    holds: list[bool | None] = []
    for family in _FAMILIES:
        kept, none = (e.end(f"skills-{family}-{arm}", "reward", "systems") for arm in ("full", "no_library"))
        parts.append(f"{family}: {kept} with stored skills as beginnings, {none} without")
        holds.append(above(kept.low - none.high, kept.high - none.low, 0.0))
    return Finding(f"reward on four rules, after two of them: {'; '.join(parts)}", all_of(holds))


def _practised(e: Evidence) -> Finding:
    stored = {order: _right(e, f"curriculum-{order}", CLAIM_RUNS) for order in _ORDERS}
    solved = {order: e.curves(f"curriculum-{order}", CLAIM_RUNS)["reward"][:, -1] > 0.5 for order in _ORDERS}
    said = ", ".join(
        f"{order} {stored[order]} (task solved in {int(solved[order].sum())} of {len(solved[order])})"
        for order in _ORDERS
    )
    novel, chance = stored["novelty"], stored["random"]
    least, most = 1.0 - chance.high / novel.low, 1.0 - chance.low / novel.high
    outcome = all_of([above(least, most, _FEWER)])
    why = "of a small pool of tasks that are alike in depth any order finds skills" if outcome is Outcome.FAILS else ""
    return Finding(f"right skills after 40 steps by order of practice: {said}", outcome, why)


CLAIMS = (
    Claim(
        "Without self-verification a library does not grow",
        f"{_SOURCE} (73 % fewer items)",
        "the first program of an attempt is stored unverified: practice by novelty, 40 steps, 5 seeds; two rules, then four that contain them, 3 seeds",
        "half as many right skills (the first program of two rules is right in .51 of attempts); four rules not solved",
        when_recorded(_gate, ["curriculum-novelty", "curriculum-novelty-no-gate"]),
    ),
    Claim(
        "Programs that begin with stored ones solve what is not written at once",
        _SOURCE,
        "the same tasks; stored skills are no beginnings",
        "four rules solved in 3 of 3 seeds with the library, in none without",
        when_recorded(_composed, [f"skills-{f}-{arm}" for f in _FAMILIES for arm in ("full", "no_library")], "systems"),
    ),
    Claim(
        "A library practised at random finds far fewer items than one practised by novelty",
        f"{_SOURCE} (93 % fewer)",
        "strings:sort+next+rotate+mirror alone, 40 steps, every second one practice by novelty, at random, by depth, or none; 5 seeds; far fewer: half or less",
        "no order of the three; the task is solved in at most half of the seeds, without practice never",
        when_recorded(_practised, [f"curriculum-{order}" for order in _ORDERS]),
    ),
)
