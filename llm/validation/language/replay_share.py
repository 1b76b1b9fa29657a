"""Replay on a chat model (P2): the old behaviour ends at the share of demonstrations that show it."""

from __future__ import annotations

from collections.abc import Callable

from fstsim.llm.experiments.plan import Planned, Scale
from fstsim.llm.learners.sft import SupervisedFineTuning
from fstsim.llm.policy.policy import Policy
from fstsim.llm.validation.claim import Chapter, Claim, Records
from fstsim.llm.validation.kinds import Label
from fstsim.llm.validation.language.scale import FORM, SIZES, old_among_both, rest_claim, run_config
from fstsim.llm.validation.prediction import Prediction


def share_at_end(name: str) -> Callable[[Records], list[float]]:
    """Of the old behaviour among both, mean over the last two measurements."""
    return lambda records: [float(old_among_both(rows)[-2:].mean()) for rows in records.rows(name)]


def replay(scale: Scale, base: Policy) -> Chapter:  # noqa: ARG001 -- the law needs nothing of the base
    r"""P2: the old behaviour's share among both ends at the share of demonstrations that show it, from wherever it began."""
    size = SIZES[scale]
    claims, runs = [], []
    for share in size.shares:
        name = f"language-replay-{share:g}"
        learner = SupervisedFineTuning(problems=size.shown, replay_share=share)
        runs.append(Planned(name, run_config(size, size.replay_steps, FORM, "replay", learner), write_model=False))
        what = f"old among old and new after SFT with {share:.0%} old demonstrations"
        prediction = Prediction(
            name,
            Label("replay-share", run=name, x=share),
            "replay-forward",
            what,
            share,
            share - 0.05,
            share + 0.05,
            0.2,
        )
        claims += [
            Claim(prediction, (name,), share_at_end(name)),
            rest_claim(name, "replay-forward", what, old_among_both),
        ]
    return Chapter(tuple(claims), tuple(runs))
