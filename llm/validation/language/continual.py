r"""Continual RL on a chat model: three behaviours in turn, each on questions of its own, in one uninterrupted run.

Nothing conflicts, so that the theory's reverse KL moves an earlier behaviour only through overlap: what is left of it is
what its own stage made of it, and a later stage finds as many groups with a signal as it would from the base.
"""

from __future__ import annotations

import numpy as np
import torch

from fstsim.llm.experiments.plan import Planned, Scale
from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.behaviour import answer_logprobs
from fstsim.llm.tasks.parse import parse_task
from fstsim.llm.types import Answered
from fstsim.llm.validation.claim import Chapter, Claim, Records
from fstsim.llm.validation.kinds import Label
from fstsim.llm.validation.language.scale import FORM, SIZES, SKILL, TOKENS, Size, free_config
from fstsim.llm.validation.prediction import Array, Prediction

THREE = (FORM, SKILL, "language:opposites")
"""Sampling finds each of them now and then in the base."""
RUN = "language-rl-three"


def continual(scale: Scale, base: Policy) -> Chapter:
    """Whether a stage finds a signal as from the base, and what two more stages leave of the first behaviour."""
    size = SIZES[scale]
    learner = PolicyGradient(problems=size.groups, rollouts=size.rollouts, max_new_tokens=TOKENS)
    claims = [_signal(size, stage, base) for stage in (1, 2)] + [_kept(size, stage) for stage in (0, 1)]
    return Chapter(tuple(claims), (Planned(RUN, free_config(size, learner, THREE), write_model=False),))


@torch.no_grad()
def answer_masses(base: Policy, name: str, problems: int) -> Array:
    """Probability of the right answer to each test problem, ``(problems,)``: sentences of the base have no other behaviour beside them."""
    task = parse_task(name)
    assert isinstance(task, Answered)
    held_out = list(task.problems("test"))[:problems]
    return np.asarray(np.exp(answer_logprobs(base, ("",), held_out, [task.answer(p) for p in held_out])[0]))


def _signal(size: Size, stage: int, base: Policy) -> Claim:
    """The first quarter of a stage: a group is without signal as among the base's own rollouts."""
    masses = answer_masses(base, THREE[stage], size.held)
    value = float(np.mean((1.0 - masses) ** size.rollouts + masses**size.rollouts))
    prediction = Prediction(
        f"{RUN}-signal-{stage + 1}", Label("chat-stage-signal", run=RUN, x=stage + 1), "plasticity-stall",
        f"share of groups without signal in the first quarter of stage {stage + 1} of RL, {THREE[stage]}, as from the base",
        value, value - 0.15, value + 0.15, 0.4,
    )  # fmt: skip
    first = stage * size.free_steps
    last = first + size.free_steps // 4

    def measured(records: Records) -> list[float]:
        return [
            float(np.mean([row["dead_share"] for row in rows if first < row["step"] <= last]))
            for rows in records.rows(RUN)
        ]

    return Claim(prediction, (RUN,), measured)


def _kept(size: Size, stage: int) -> Claim:
    """Of an earlier behaviour nothing goes."""
    prediction = Prediction(
        f"{RUN}-kept-{stage + 1}", Label("chat-stage-kept", run=RUN, x=stage + 1), "drift-along-flow",
        f"change of the success on {THREE[stage]} from the end of its stage of RL to the end of three stages",
        0.0, -0.1, 0.1, 0.3,
    )  # fmt: skip

    def measured(records: Records) -> list[float]:
        changes = []
        for rows in records.rows(RUN):
            at = {row["step"]: row for row in rows}
            own, end = at[(stage + 1) * size.free_steps], at[len(THREE) * size.free_steps]
            changes.append(float(end[f"reward_task{stage}"] - own["reward"]))
        return changes

    return Claim(prediction, (RUN,), measured)
