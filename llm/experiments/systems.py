"""Everywhere that adaptation can be put, on the same two tasks: a stream of three families, and a switch within one.

On the stream a problem shows which rule holds by its family; on the switch by its first symbol, for which the shipped model has no
words. The same learning rate for all that train the whole model, so that methods and not rates are compared; systems that train
other numbers have the rate that their learner declares. Core isolation trains tasks one after the other and is compared on its own page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from fstsim.llm.experiments.plan import LR, SIZES, Planned, Scale, Settings, Size, training
from fstsim.llm.learners.cases import CaseMemory
from fstsim.llm.learners.learner import Learner
from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.learners.proxy import ProxyTuning
from fstsim.llm.learners.sft import SupervisedFineTuning
from fstsim.llm.learners.skills import SkillLibrary
from fstsim.llm.learners.soft import SoftTokens

TASKS: Mapping[str, str] = {
    "stream": "stream:strings:rotate,digits:plus,star_graph:cross",
    "switch": "strings:rotate~sort",
}


@dataclass(frozen=True)
class Arm:
    """A way to adapt: its method, its label, its learner's settings (None: the method's own) and its learning rate."""

    method: str
    label: str
    learner: Learner | None = None
    lr: float = LR


def arms(size: Size) -> dict[str, Arm]:
    """Every arm by the name that its runs have."""
    shown = SupervisedFineTuning(problems=size.problems)
    return {
        "rl": Arm("rl", "RL"),
        "rl-leash": Arm("rl", "RL, leash", PolicyGradient(problems=size.problems, leash_reward=0.25)),
        "sft": Arm("sft", "SFT", shown),
        "replay": Arm("sft", "SFT, replay", replace(shown, replay_share=0.2)),
        "gepa": Arm("gepa", "GEPA"),
        "fst": Arm("fst", "FST"),
        "soft": Arm("soft", "soft tokens", SoftTokens(problems=size.problems), SoftTokens.rate),
        "soft-bias": Arm(
            "soft", "soft tokens, bias", SoftTokens(problems=size.problems, thoughts="bias"), SoftTokens.rate
        ),
        "proxy": Arm("proxy", "proxy", ProxyTuning(problems=size.problems), ProxyTuning.rate),
        "cases": Arm("cases", "cases", CaseMemory(problems=size.problems)),
        "cases-near": Arm("cases", "cases, similarity", CaseMemory(problems=size.problems, read="similarity")),
        "skills": Arm("skills", "skills", SkillLibrary()),
    }


def runs(scale: Scale, chosen: Settings | None = None) -> list[Planned]:  # noqa: ARG001 -- rates are the same for all
    """Every arm on both tasks."""
    found = []
    for kind, task in TASKS.items():
        for name, arm in arms(SIZES[scale]).items():
            config = training(scale, arm.method, (task,), arm.lr)
            # relearning in a system's own channel costs more than the run that it is measured on
            config = replace(config, probe=replace(config.probe, relearn=0))
            if arm.learner is not None:
                config = replace(config, learner=arm.learner)
            leash = arm.learner.leash_reward if isinstance(arm.learner, PolicyGradient) else 0.0
            found.append(Planned(f"systems-{kind}-{name}", config, kind=arm.label, leash=leash, write_model=False))
    return found
