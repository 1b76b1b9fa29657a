"""Claims on what a drifted model can still learn, on leashes, and on entropy: read from all recorded runs of two tasks."""

from __future__ import annotations

import itertools

import numpy as np

from fstsim.association import over_groups, partial_spearman
from fstsim.number_text import short_number
from fstsim.paper.claims.claim import Claim, Finding, Outcome, above, all_of
from fstsim.paper.claims.evidence import End, Evidence, rank_correlation
from fstsim.paper.experiments.numbers import estimate


def _drifted(e: Evidence) -> Finding:
    """Runs of one task, so that the next task and its start are the same for all."""
    parts, holds = [], []
    for task in ("digits:plus", "strings:rotate"):
        ends = [x for x in e.ends if x.tasks == (task,) and "relearn" in x.last and x.first["relearn"] <= 3]
        kept = np.array([x.last["relearn"] for x in ends if x.last["drift"] <= 0.3], float)
        gone = np.array([x.last["relearn"] for x in ends if x.last["drift"] > 0.3], float)
        lost = [int((v > 60).sum()) for v in (kept, gone)]
        rank = rank_correlation(
            [x.last["drift"] for x in ends], [x.last["relearn"] for x in ends], [x.run for x in ends]
        )
        parts.append(
            f"{task}: median {np.median(kept):.0f} steps up to 30 % ({len(kept)} runs, {lost[0]} not within 60), "
            f"{np.median(gone):.0f} beyond ({len(gone)}, {lost[1]} not within 60); rank correlation {rank}"
        )
        holds.append(bool(lost[1] > len(gone) / 2 and lost[0] <= len(kept) / 2))
    why = "relearning from demonstrations slows down with drift, and most runs beyond 30 % still learn; fresh RL is another matter (plasticity, above)"
    outcome = all_of(holds)
    return Finding(f"steps to half on a new task: {'; '.join(parts)}", outcome, "" if outcome is Outcome.HOLDS else why)


def _leash(e: Evidence) -> Finding:
    parts, holds = [], []
    for rate in ("0.0001", "0.0003", "0.001"):
        free, held = (e.end(f"calibrate-rl-lr{rate}-leash{x}", "relearn") for x in ("0", "0.02"))
        parts.append(f"lr {rate}: {free} without, {held} with")
        holds.append(True if held.high < free.low else False if held.low > free.high else None)
    strong = [x for x in e.ends if x.run.startswith("tilt-")]
    none = [x for x in e.ends if x.run == "plus-rl"]
    tilt, rl = (estimate([x.last["relearn"] for x in rows]) for rows in (strong, none))
    said = f"steps to half on a new task after RL, leash .02: {'; '.join(parts)}; leashes of .25 to 1 on digits:plus {tilt}, none {rl}"
    gained = [estimate([x.last["reward"] for x in rows]).value for rows in (strong, none)]
    said += f", at a mean reward on the task itself of {short_number(gained[0])} and {short_number(gained[1])}"
    if tilt.high < rl.low and not any(holds):
        return Finding(
            said,
            Outcome.PARTLY,
            "it is strong enough to hold back learning as well: .02 changes nothing that is resolved, .25 and more do",
        )
    return Finding(said, all_of(holds))


def _one_shot(e: Evidence) -> Finding:
    by: dict[float, list[End]] = {}
    for end in sorted((x for x in e.ends if x.run.startswith("tilt-") or x.run == "plus-rl"), key=lambda x: -x.leash):
        by.setdefault(end.leash, []).append(end)
    points = [
        (float(np.mean([x.last["kl_to_base"] for x in ends])), estimate([x.last["reward"] for x in ends]))
        for ends in by.values()
    ]
    alone = ", ".join(f"{kl:.2g} nats {reward}" for kl, reward in points)
    rewards = [reward.value for _, reward in points]
    apart = [below.high < beyond.low for (_, below), (_, beyond) in itertools.pairwise(points)]
    fst, near = (e.end("plus-fst", name, "validation") for name in ("reward", "kl_to_base_no_context"))
    said = f"final reward on digits:plus by KL(now ‖ base), weights alone: {alone}; with a context, {near} nats: {fst}"
    if sorted(rewards) != rewards:
        return Finding(said, Outcome.FAILS)
    if not all(apart):
        return Finding(said, Outcome.OPEN)
    if fst.high >= rewards[-1] - 0.01 and near.high < points[-1][0]:
        return Finding(
            said, Outcome.PARTLY, "the weights alone must carry the task; with a context the same reward costs less"
        )
    return Finding(said, Outcome.HOLDS)


def _entropy(e: Evidence) -> Finding:
    parts: list[str] = []
    holds: list[bool | None] = []
    beyond: list[bool | None] = []
    for task in ("digits:plus", "strings:rotate"):
        ends = [x for x in e.ends if x.tasks == (task,) and "relearn" in x.last and x.first["relearn"] <= 3]
        entropy = [x.bare("entropy") for x in ends]
        gained = [x.last.get("reward_no_context", x.last["reward"]) for x in ends]
        steps = [x.last["relearn"] for x in ends]
        names = [x.run for x in ends]
        costs, needs = rank_correlation(gained, entropy, names), rank_correlation(entropy, steps, names)
        parts.append(f"{task}: reward of the weights with entropy {costs}, entropy with steps to relearn {needs}")
        lost = np.array([x.last["drift"] for x in ends])
        mean, low, high = map(float, over_groups(partial_spearman, np.stack([entropy, lost], 1), steps, names))
        shown = f"{short_number(mean)} [{short_number(low)}, {short_number(high)}]"
        parts[-1] += f"; the latter at a fixed loss of old skills {shown}"
        holds += [above(-costs.high, -costs.low, 0.0), above(-needs.high, -needs.low, 0.0)]
        beyond.append(above(-high, -low, 0.0))
    said = f"rank correlations over runs: {'; '.join(parts)}"
    if all_of(holds) is Outcome.HOLDS and not all(beyond):
        why = "going together is meant: at a fixed loss of old skills entropy does not tell in every task how fast is learned"
        return Finding(said, Outcome.PARTLY, why)
    return Finding(said, all_of(holds))


CLAIMS = (
    Claim(
        "Models that drift beyond about 30 % lose plasticity",
        "a note's paraphrase",
        "all recorded runs of two tasks: supervised steps to half on a new task against accuracy lost",
        "",
        _drifted,
    ),
    Claim(
        "KL regularisation keeps a model trainable",
        "ProRL 2505.24864 and notes",
        "steps to half on a new task after RL with and without a leash",
        "",
        _leash,
    ),
    Claim(
        "For a one-shot deployment more drift is the better trade",
        "a note",
        "best final reward against the KL that is allowed",
        "the tilt's reward at each leash",
        _one_shot,
    ),
    Claim(
        "Specialisation costs entropy, and entropy is what learning needs",
        "a note",
        "entropy without context, reward and relearning over all recorded runs of two tasks",
        "",
        _entropy,
    ),
)
