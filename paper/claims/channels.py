"""Whether a system that forgets nothing also goes on learning: relearning of its bare weights, and in the channel that it adapts in.

What is predicted was written before the runs (`fstsim.paper.records.claim_runs`). Cases had been tried once before, on digits:plus,
one seed, fewer steps and problems: 2 steps from an empty bank, not within 12 from a bank of another rule's cases.
"""

from __future__ import annotations

import numpy as np

from fstsim.paper.claims.claim import Claim, Finding, Outcome, above, all_of
from fstsim.paper.claims.evidence import Evidence
from fstsim.paper.claims.recorded import CLAIM_RUNS, when_recorded
from fstsim.paper.experiments.numbers import Curves, estimate
from fstsim.paper.records.claim_runs import CHANNEL, CHANNELS

_SYSTEMS = tuple(name for name in CHANNELS if name != "sft")
_SLOWER = 1.5
"""times as many steps as from an empty state: more is lost plasticity"""


def _ends(c: Curves, column: str) -> str:
    """Mean steps from the start and from the end of the run."""
    return f"{c[column][:, 0].mean():.3g} to {c[column][:, -1].mean():.3g}"


def _bare(e: Evidence) -> Finding:
    parts, same = [], []
    for name in CHANNELS:
        c = e.curves(f"channel-{name}", CLAIM_RUNS)
        parts.append(f"{name} {_ends(c, 'relearn')}")
        if name in _SYSTEMS:
            same.append(bool((c["relearn"][:, 0] == c["relearn"][:, -1]).all()))
    return Finding(
        f"supervised steps of the bare weights to half on another rule of {CHANNEL}'s family, before and after: {', '.join(parts)}",
        all_of(same),
    )


def _own(e: Evidence) -> Finding:
    parts = []
    kept: dict[str, bool | None] = {}
    for name in _SYSTEMS:
        c = e.curves(f"channel-{name}", CLAIM_RUNS)
        steps = c["relearn_state"]
        ratio = estimate(np.log((steps[:, -1] + 1.0) / (steps[:, 0] + 1.0)))
        parts.append(
            f"{name} {_ends(c, 'relearn_state')} (ratio {np.exp(ratio.value):.3g} "
            f"[{np.exp(ratio.low):.3g}, {np.exp(ratio.high):.3g}]; reward on the first task {estimate(c['reward'][:, -1])})"
        )
        lost = above(ratio.low, ratio.high, float(np.log(_SLOWER)))
        kept[name] = None if lost is None else not lost
    said = f"steps of its own learner to half on another rule, from an empty state and from what it had learned (61: not within 60): {'; '.join(parts)}"
    outcome = all_of(list(kept.values()))
    slower = ", ".join(name for name, value in kept.items() if value is False)
    why = f"what is stored does not answer in the new one's place, as it does for {slower}" if slower else ""
    if slower and outcome is Outcome.OPEN:
        why = f"{slower} lose plasticity; {', '.join(name for name, value in kept.items() if value is None)} cannot be told"
    return Finding(said, outcome, why)


_RUNS = tuple(f"channel-{name}" for name in CHANNELS)

CLAIMS = (
    Claim(
        "The bare weights of a system with frozen weights learn as if nothing had been learned",
        "SoftCoT, proxy-tuning, VOYAGER, Memento",
        f"{CHANNEL}, 60 steps, then supervised steps of the bare weights on another rule; SFT beside them; 3 seeds",
        "the base's number to the step; more after SFT",
        when_recorded(_bare, _RUNS),
    ),
    Claim(
        "A system that forgets nothing also stays plastic in its own channel",
        "own, against the systems' headline",
        f"the same runs: steps of the system's own learner, counted as lost plasticity beyond {_SLOWER} times those from an empty state",
        "skills as fast as from an empty library (what is verified cannot be in the way); soft tokens and the expert slower, as weights are; cases slower, as those of another rule are nearest to the same prompts",
        when_recorded(_own, _RUNS),
    ),
)
