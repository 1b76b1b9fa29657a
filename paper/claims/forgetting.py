"""Claims on how much is forgotten, by which method, and what forgetting goes with."""

from __future__ import annotations

import numpy as np

from fstsim.number_text import short_number
from fstsim.paper.claims.claim import Claim, Finding, Outcome, above, all_of
from fstsim.paper.claims.evidence import Evidence, counted, rank_correlation
from fstsim.paper.experiments.numbers import Estimate

_V = "validation"


def _judged(*kinds: str, why: str = "", outcome: Outcome | None = None):  # type: ignore[no-untyped-def]
    """A finding by the judged predictions of these kinds: holds where all are confirmed, fails where all are falsified."""

    def find(e: Evidence) -> Finding:
        rows = e.judged(*kinds)
        verdicts = {"confirmed": True, "falsified": False, "undecided": None}
        found = outcome or all_of([verdicts[row.verdict] for row in rows])
        return Finding(counted(rows), found, why)

    return find


def _collapse(e: Evidence) -> Finding:
    runs = {"digits:plus": "sft-new-only", "strings:rotate": "sft-new-strings"}
    logs = {task: np.log10(e.curves(name, _V)["old_mass"][:, -1]) for task, name in runs.items()}
    said = ", ".join(f"{task} 10^{short_number(float(x.mean()))}" for task, x in logs.items())
    return Finding(f"old mass at the end of SFT on new answers: {said}", all_of([bool((x < -2.0).all()) for x in logs.values()]))


def _rl_keeps(e: Evidence) -> Finding:
    leashed = e.judged("tilt-old")
    free = np.log10(np.concatenate([e.curves(name, _V)["old_mass"][:, -1] for name in ("plus-rl", "rotate-rl")]))
    kept = all(row.verdict == "confirmed" for row in leashed)
    lost = bool((free < -2.0).all())
    said = f"with a leash {counted(leashed)}; without one the old mass ends at 10^{short_number(float(free.min()))} to 10^{short_number(float(free.max()))}"
    if kept and lost:
        return Finding(said, Outcome.PARTLY, "the target holds the old mode: with a leash to the base; reward alone does not keep it")
    return Finding(said, Outcome.HOLDS if kept else Outcome.FAILS)


def _drift_law(e: Evidence) -> Finding:
    return _judged("overlap", why="loss of old skills does not follow the overlap of their prompts with the new task's")(e)  # type: ignore[no-any-return]


def _quadratic(e: Evidence) -> Finding:
    ends = [end for end in e.ends if "drift" in end.last]
    kl = np.array([end.bare("kl_from_base") for end in ends])
    drift = np.array([end.last["drift"] for end in ends])
    finite = np.isfinite(kl) & np.isfinite(drift)
    kl, drift = kl[finite], drift[finite]
    names = [end.run for end, keep in zip(ends, finite, strict=True) if keep]
    rank = rank_correlation(kl, drift, names)
    x = np.sqrt(np.maximum(kl, 0.0))  # the relation of the source is quadratic the other way round too: any power is a rank
    fit = np.polyfit(kl, drift, 2)
    r2 = 1.0 - np.var(drift - np.polyval(fit, kl)) / np.var(drift)
    del x
    within = _within(e)
    said = (
        f"{len(kl)} ends of runs: R² of a quadratic in KL(base ‖ now) {short_number(float(r2))}, rank correlation {rank}; "
        f"between runs of one task, one method at several learning rates, {within}"
    )
    outcome = Outcome.HOLDS if r2 >= 0.7 else Outcome.FAILS
    return Finding(said, outcome, "" if outcome is Outcome.HOLDS else "KL on the new task's prompts does not say what old skills lose")


def _within(e: Evidence) -> Estimate:
    chosen = [end for end in e.ends if end.method in ("rl", "fst") and end.tasks == ("strings:rotate",) and end.run.startswith("calibrate")]
    return rank_correlation([end.bare("kl_from_base") for end in chosen], [end.last["drift"] for end in chosen], [end.run for end in chosen])


def _rl_less_than_sft(e: Evidence) -> Finding:
    pairs = {"digits:plus": ("plus-rl", "sft-new-only"), "strings:rotate": ("rotate-rl", "sft-new-strings")}
    parts, holds = [], []
    for task, (rl, sft) in pairs.items():
        ours, other = e.end(rl, "drift", _V), e.end(sft, "drift", _V)
        parts.append(f"{task} RL {ours}, SFT {other}")
        holds.append(True if ours.high < other.low else False if ours.low > other.high else None)
    why = "at these learning rates (RL 3e-4, SFT 1e-4) RL loses no less: Adam moves the weights as far in each step, whatever the gradient says"
    outcome = all_of(holds)
    return Finding(f"old skills lost at the end, both at reward above .99: {'; '.join(parts)}", outcome, "" if outcome is Outcome.HOLDS else why)


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
        "loss of old skills against the overlap that was measured on the base before the runs",
        "order by overlap, exponent of the bound",
        _drift_law,
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
        _judged("sdft", why="the teacher follows slowly enough: at .3 the mixture's rest is missed, see the log"),
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
        _judged("oapl", "oapl-exact", why="the periods are solved to their end: 5 rows ask for the exact optimum, which finite steps miss"),
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
