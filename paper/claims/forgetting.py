"""Claims on how much is forgotten, by which method, and what forgetting goes with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fstsim.association import over_groups, quadratic_r2
from fstsim.number_text import short_number
from fstsim.paper.claims.claim import Claim, Finding, Outcome, above, all_of
from fstsim.paper.claims.evidence import Evidence, counted, rank_correlation

_V = "validation"
_RAZOR = 0.71
"""R² that RL's Razor reports for language models."""


def _judged(*kinds: str, why: str = "") -> Callable[[Evidence], Finding]:
    """A finding by the judged predictions of these kinds: holds where all are confirmed, fails where all are falsified."""

    def find(e: Evidence) -> Finding:
        rows = e.judged(*kinds)
        verdicts = {"confirmed": True, "falsified": False, "undecided": None}
        return Finding(counted(rows), all_of([verdicts[row.verdict] for row in rows]), why)

    return find


def _collapse(e: Evidence) -> Finding:
    runs = {"digits:plus": "sft-new-only", "strings:rotate": "sft-new-strings"}
    logs = {task: np.log10(e.curves(name, _V)["old_mass"][:, -1]) for task, name in runs.items()}
    said = ", ".join(f"{task} 10^{short_number(float(x.mean()))}" for task, x in logs.items())
    return Finding(
        f"old mass at the end of SFT on new answers: {said}", all_of([bool((x < -2.0).all()) for x in logs.values()])
    )


def _rl_keeps(e: Evidence) -> Finding:
    leashed = e.judged("tilt-old")
    free = np.log10(np.concatenate([e.curves(name, _V)["old_mass"][:, -1] for name in ("plus-rl", "rotate-rl")]))
    kept = all(row.verdict == "confirmed" for row in leashed)
    lost = bool((free < -2.0).all())
    said = f"with a leash {counted(leashed)}; without one the old mass ends at 10^{short_number(float(free.min()))} to 10^{short_number(float(free.max()))}"
    if kept and lost:
        return Finding(
            said,
            Outcome.PARTLY,
            "the target holds the old mode: with a leash to the base; reward alone does not keep it",
        )
    return Finding(said, Outcome.HOLDS if kept else Outcome.FAILS)


def _drift(e: Evidence) -> Finding:
    """A theorem of the mixture, and what a network makes of it."""
    rows = e.judged("overlap")
    said = f"in the model {counted(rows)}"
    if all(row.verdict == "falsified" for row in rows):
        why = "a mode has its own parameters, as in the mixture, where it is a theorem: in a network what old skills lose does not follow the overlap of their prompts with the new task's"
        return Finding(said, Outcome.PARTLY, why)
    return Finding(said, all_of([{"confirmed": True, "falsified": False}.get(row.verdict) for row in rows]))


def _quadratic(e: Evidence) -> Finding:
    ends = [end for end in e.ends if "drift" in end.last and np.isfinite(end.bare("kl_from_base"))]
    kl = np.array([end.bare("kl_from_base") for end in ends])
    drift = np.array([end.last["drift"] for end in ends])
    rank = rank_correlation(kl.tolist(), drift.tolist(), [end.run for end in ends])
    r2, low, high = map(float, over_groups(quadratic_r2, kl, drift, [end.run for end in ends]))
    shown = f"{short_number(r2)} [{short_number(low)}, {short_number(high)}]"
    said = f"{len(kl)} ends of runs: R² of a quadratic in KL(base ‖ now) {shown}, rank correlation {rank}"
    outcome = all_of([above(low, high, _RAZOR)])
    why = "runs of one KL lose unlike shares of old skills" if outcome is Outcome.FAILS else ""
    return Finding(said, outcome, why)


def _rl_less_than_sft(e: Evidence) -> Finding:
    pairs = {
        "digits:plus": ("plus-rl", "sft-new-only", "replay-0.02"),
        "strings:rotate": ("rotate-rl", "sft-new-strings"),
    }
    parts, less = [], []
    for task, (rl, *others) in pairs.items():
        rates = {name: e.rate(name, _V) for name in (rl, *others)}
        lost = {name: e.end(name, "drift", _V) for name in rates}
        for name in others:
            what = "SFT with little replay" if name.startswith("replay") else "SFT"
            parts.append(
                f"{task}, {what} at {rates[name] / rates[rl]:.2g} of RL's learning rate: RL {lost[rl]}, {what} {lost[name]}"
            )
            less.append(
                (rates[name] == rates[rl], above(lost[name].low - lost[rl].high, lost[name].high - lost[rl].low, 0.0))
            )
    said = f"old skills lost at the end, no leash: {'; '.join(parts)}"
    same, slower = ([value for level, value in less if level is kind] for kind in (True, False))
    why = "under Adam old skills go with how far the weights are moved, whoever's data moves them: at a lower rate SFT loses less"
    if all_of(same) is Outcome.HOLDS and all_of(slower) is not Outcome.HOLDS:
        return Finding(said, Outcome.PARTLY, f"both have the same learning rate: {why}")
    return Finding(said, all_of([*same, *slower]), "" if all_of([*same, *slower]) is Outcome.HOLDS else why)


CLAIMS = (
    Claim(
        "Forward KL (SFT) on new data alone drives the old mass to 0",
        "2603.12163",
        "SFT on new answers, shipped model, 3 seeds",
        "exactly 0 in the limit ([mass-forgetting](theory/01-mass-forgetting.md))",
        _collapse,
    ),
    Claim(
        "Reverse KL (RL) keeps the old mass",
        "2603.12163",
        "RL with and without a leash in KL to the base",
        "with a leash the tilt of the base; with reward alone nothing holds it",
        _rl_keeps,
    ),
    Claim(
        "Drift of what is already right decays exponentially in the separation of the modes",
        "2603.12163",
        "proved for the two-mode mixture ([drift-along-flow](theory/04-drift-along-flow.md#drift-along-flow)); in the model: loss of old skills against the overlap that was measured on the base before the runs",
        "order by overlap, exponent of the bound",
        _drift,
    ),
    Claim(
        "Replay must change the training distribution to change where forward KL rests",
        "2603.12163",
        "SFT with shares of old answers from .02 to .5",
        "the share itself ([replay-forward](theory/06-replay-forward.md))",
        _judged("replay"),
    ),
    Claim(
        "SDFT keeps the old mass when its teacher is held to the demonstrations",
        "2603.12163, 2601.19897",
        "SDFT at four strengths of the anchor",
        "a fixed point per strength",
        _judged(
            "sdft",
            why="the anchor is weak: stronger ones rest lower than the mixture does, as the teacher is not at its level (sdft-response)",
        ),
    ),
    Claim(
        "TTT-Discover's entropic objective keeps old mass up to a horizon that its budget sets",
        "2603.12163, 2601.16175",
        "TTT-Discover at three budgets",
        "the tilt by the budget",
        _judged("ttt", "ttt-exact"),
    ),
    Claim(
        "OAPL keeps the old mass only if it is anchored",
        "2603.12163, 2602.19362",
        "OAPL with and without anchor, periods",
        "log-odds after each period",
        _judged(
            "oapl",
            "oapl-exact",
            why="its periods are solved to their end: with the steps of a period that are usual, new mass lags behind more and more",
        ),
    ),
    Claim(
        "Forgetting is a quadratic function of KL to the base on the new task",
        "RL's Razor 2509.04259",
        "every recorded run of the shipped model: accuracy lost on old skills against KL(base ‖ now) without context",
        "R² .96 in its toy, .71 on language models",
        _quadratic,
    ),
    Claim(
        "RL forgets less than SFT",
        "2510.18874",
        "the same tasks to the same reward, no leash",
        "on-policy data moves less of what is not asked",
        _rl_less_than_sft,
    ),
)
