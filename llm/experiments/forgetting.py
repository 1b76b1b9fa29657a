"""What forgetting follows: six ways to train, at two learning rates on two tasks, with every distance that is said to predict it.

Old skills are the exam of the world; distances are KL in both directions on prompts of the new task and on prompts of old
skills, the distance of the weights, and what is lost of the old behaviour and of entropy. Every measurement of a run is a
point, not its end alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from fstsim.llm.experiments.plan import EASY, LR, SIZES, Planned, Scale, Settings, Size, training
from fstsim.llm.learners.learner import Learner
from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.learners.sdft import SDFT
from fstsim.llm.learners.sft import SupervisedFineTuning

RATES = (1e-4, LR)
LEASH = 0.25
FAMILIES = ("digits", "strings")


@dataclass(frozen=True)
class Way:
    """A method, what it is called in tables, and its learner's settings where they are not those of the scale."""

    method: str
    label: str
    learner: Learner | None = None


def ways(size: Size) -> Mapping[str, Way]:
    """Every way to train by the name that its runs have."""
    shown = SupervisedFineTuning(problems=size.problems)
    return {
        "rl": Way("rl", "RL"),
        "leash": Way("rl", "RL, leash", PolicyGradient(problems=size.problems, leash_reward=LEASH)),
        "sft": Way("sft", "SFT", shown),
        "replay": Way("sft", "SFT, replay", replace(shown, replay_share=0.2)),
        "sdft": Way("sdft", "SDFT", SDFT(problems=size.problems)),
        "fst": Way("fst", "FST"),
    }


def runs(scale: Scale, chosen: Settings | None = None) -> list[Planned]:  # noqa: ARG001 -- rates are a part of the question
    """Every way at every learning rate on both tasks."""
    planned = []
    for family in FAMILIES:
        for name, way in ways(SIZES[scale]).items():
            for lr in RATES:
                config = training(scale, way.method, (EASY[family],), lr)
                if way.learner is not None:
                    config = replace(config, learner=way.learner)
                planned.append(
                    Planned(
                        f"forgetting-{family}-{name}-lr{lr:g}",
                        config,
                        kind=way.label,
                        leash=LEASH if name == "leash" else 0.0,
                        write_model=False,
                    )
                )
    return planned
