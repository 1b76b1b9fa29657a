"""Claims on what forgetting follows: KL on which prompts, in which direction, how closely."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fstsim.association import over_groups, spearman
from fstsim.paper.claims.claim import Claim, Finding, Outcome, above, all_of
from fstsim.paper.claims.evidence import Array, Evidence, rank_correlation
from fstsim.paper.experiments.forgetting import Points, read_points

_RANK = 0.946
"""Rank correlation of lost capability with KL from the original model that 2607.11020 reports."""
_DIRECTIONS = ("KL(now ‖ base)", "KL(base ‖ now)")


def _of_points(find: Callable[[Points], Finding]) -> Callable[[Evidence], Finding]:
    """``find`` on the recorded runs of the experiment, or that none is recorded."""

    def found(e: Evidence) -> Finding:
        points = read_points(e.data / "experiments")
        if points is None:
            return Finding("–", Outcome.UNTESTABLE, "no run of the experiment forgetting is recorded")
        return find(points)

    return found


def _difference(both: Array, lost: Array) -> float:
    """Rank correlation with the first column less that with the second."""
    return spearman(both[:, 0], lost) - spearman(both[:, 1], lost)


def _old_prompts(points: Points) -> Finding:
    parts, better = [], []
    for direction in _DIRECTIONS:
        names = [f"{direction}, {which} prompts" for which in ("old", "new")]
        seen = np.isfinite(np.stack([points.by[name] for name in names])).all(0) & np.isfinite(points.lost)
        both, lost = np.stack([points.by[name][seen] for name in names], axis=-1), points.lost[seen]
        runs = [run for run, there in zip(points.run, seen, strict=True) if there]
        old, new = (rank_correlation(both[:, k].tolist(), lost.tolist(), runs) for k in (0, 1))
        _, low, high = map(float, over_groups(_difference, both, lost, runs))
        parts.append(
            f"{direction}: rank correlation {old} on old prompts, {new} on new ones, difference [{low:.2g}, {high:.2g}]"
        )
        better.append(above(low, high, 0.0))
    outcome = all_of(better)
    return Finding("; ".join(parts), outcome, "it is compared in one direction" if outcome is Outcome.PARTLY else "")


def _in_rank(points: Points) -> Finding:
    parts, reached = [], []
    for direction in _DIRECTIONS:
        x, lost, runs = points.of(f"{direction}, new prompts")
        rank = rank_correlation(x.tolist(), lost.tolist(), runs)
        parts.append(f"{direction} {rank}")
        reached.append(rank.high >= _RANK)
    said = f"rank correlation over all measurements, without context: {'; '.join(parts)}"
    outcome = all_of(reached)
    why = {
        Outcome.PARTLY: "the direction is the right one",
        Outcome.FAILS: "it follows, but less closely over ways to train than that",
    }
    return Finding(said, outcome, why.get(outcome, ""))


CLAIMS = (
    Claim(
        "The KL that forgetting follows is that on prompts of earlier tasks, not of the new one",
        "RL Forgets! 2607.04364",
        "every measurement of six ways to train at two rates on two tasks: accuracy lost on old skills against exact KL on both sets",
        "a higher rank correlation on old prompts, in both directions",
        _of_points(_old_prompts),
    ),
    Claim(
        f"Loss of capability follows the KL from the original model in rank, at a correlation of {_RANK}",
        "O'Neill 2607.11020",
        "the same runs: accuracy lost against KL on prompts of the new task",
        f"rank correlation {_RANK}",
        _of_points(_in_rank),
    ),
)
