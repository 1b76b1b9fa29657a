"""Claims of single systems that leave the model as it is: soft tokens, proxy-tuning, a skill library, case memory.

On the stream and the switch of the experiment on systems. What is predicted here was written before the runs were made.
"""

from __future__ import annotations

import numpy as np

from fstsim.paper.claims.claim import Claim, Finding, Outcome, above, all_of, untested
from fstsim.paper.claims.evidence import Evidence
from fstsim.paper.claims.system_runs import better, end, recorded, when_all_recorded
from fstsim.paper.experiments.numbers import estimate

_GAP = 0.88
"""share of the gap to direct tuning that 2401.08565 reports for its largest model, the smaller of its two"""


def _instance(e: Evidence) -> Finding:
    said, holds = better(e, "soft", "soft-bias")
    worth = []
    for task in recorded(e):
        c = e.curves(f"systems-{task}-soft")
        worth.append(f"{task} {estimate(c['reward'][:, -1] - c['reward_shuffled'][:, -1])}")
    said += f". The same vectors less those of another problem: {', '.join(worth)}"
    why = "the trained vectors are of their problem, but a constant vector of its own training is not resolved to be worse"
    outcome = all_of(holds)
    return Finding(
        f"reward with thoughts of the problem at hand, against a constant vector, {said}",
        outcome,
        why if outcome is Outcome.OPEN else "",
    )


def _memory(e: Evidence) -> Finding:
    said, holds = better(e, "cases", "cases-near")
    outcome = all_of(holds)
    why = (
        "branches of one family are told apart; families are, by the look of a problem"
        if outcome is Outcome.PARTLY
        else ""
    )
    return Finding(f"reward with a learned router and with the nearest case, {said}", outcome, why)


def _proxy(e: Evidence) -> Finding:
    parts, shares = [], []
    for task in recorded(e):
        steered, direct = (e.curves(f"systems-{task}-{arm}")["reward"] for arm in ("proxy", "sft"))
        base = steered[:, 0]
        share = estimate((steered[:, -1] - base) / (direct[:, -1] - base))
        ends = [estimate(rewards[:, -1]) for rewards in (steered, direct)]
        parts.append(f"{task}: {base.mean():.3g} to {ends[0]}, directly tuned {ends[1]}: {share} of the gap")
        shares.append(above(share.low, share.high, _GAP))
    return Finding("; ".join(parts), all_of(shares))


def _old_skills(e: Evidence) -> Finding:
    """What stands in for knowledge in a world without facts: single rules in words, asked of what is deployed."""
    parts: list[str] = []
    holds: list[bool | None] = []
    for task in recorded(e):
        steered, direct = end(e, task, "proxy", "drift_deployed"), end(e, task, "sft", "drift")
        parts.append(f"{task}: {steered} steered, {direct} tuned")
        holds.append(above(direct.low - steered.high, direct.high - steered.low, 0.0))
    return Finding(
        f"old skills lost with the steering left on, and by direct tuning: {'; '.join(parts)}", all_of(holds)
    )


def _library(e: Evidence) -> Finding:
    parts: list[str] = []
    holds: list[bool | None] = []
    for task in recorded(e):
        c = e.curves(f"systems-{task}-skills")
        skills, reward = c["skills"][:, -1].mean(), estimate(c["reward"][:, -1])
        kept = float(np.abs(c["old_mass"][:, -1] - c["old_mass"][:, 0]).max()) < 1e-9
        parts.append(f"{task}: {skills:.3g} skills, reward {c['reward'][:, 0].mean():.3g} to {reward}")
        holds.append(kept)
        if "skills_found" in c.columns:
            found = estimate(c["skills_found"][:, -1])
            parts[-1] += f", stored skills that examples of what they do find first {found}"
            holds.append(bool(found.value == 1.0))
    said = f"{'; '.join(parts)}; with the library off the old mass is {'the base’s' if all(holds) else 'another'}"
    why = "libraries of a few skills are meant: the largest here is a skill for each of three families"
    outcome = all_of(holds)
    return Finding(said, Outcome.PARTLY if outcome is Outcome.HOLDS else outcome, why)


CLAIMS = (
    Claim(
        "The soft thoughts of an instance matter, not just a constant prompt",
        "SoftCoT 2502.12134",
        "soft tokens from the problem against a bias alone",
        "on the switch yes; on the stream yes, as families need different rules",
        when_all_recorded(_instance),
    ),
    Claim(
        "Proxy-tuning closes nine tenths of the gap to direct tuning",
        "2401.08565",
        "an expert of a tenth of the size, alpha 1, by SFT, against SFT of the model itself",
        "less here: the small expert's errors are imported",
        when_all_recorded(_proxy),
    ),
    Claim(
        "A growing library does not forget",
        "VOYAGER 2305.16291",
        "skill library on the stream and the switch: whether what was stored is still found, and the bare model's old mass",
        "every stored skill is found; old mass with the library off equals the base's; the switch is no program and is not solved",
        when_all_recorded(_library),
    ),
    Claim(
        "A learned memory is better than the nearest case",
        "AgentFly / Memento 2508.16153",
        "case memory with a learned router against similarity",
        "equal on the stream, better on the switch",
        when_all_recorded(_memory),
    ),
    Claim(
        "Steered by a small pair, a model keeps of what it knew more than direct tuning leaves",
        "2401.08565",
        "single rules in words (old skills) asked of the steered model, against SFT of the model itself",
        "less lost (the source: truthfulness above direct tuning's)",
        when_all_recorded(_old_skills),
    ),
    Claim(
        "Proxy-tuning beats direct tuning where facts count",
        "2401.08565",
        "–",
        "",
        untested(
            "the world has no facts, and SmolLM2-135M, the one pretrained model in reach, has no smaller one of its vocabulary: "
            "with itself as the anti-expert it is at alpha 1 the tuned model itself, so that the two cannot differ"
        ),
    ),
)
