"""Runs that single claims of the ledger are held against (``python -m fstsim.paper.records.claim_runs``): which they are, and their record.

Small runs of the shipped model, three or five seeds each, at the preset smoke's steps and problems, probed seldom: most of the time of
a system with frozen weights is probing. Finished runs are kept, missing ones made, all of them recorded in paper/data/claims.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from fstsim.errors import InputError
from fstsim.front.command import Directory, check_jobs
from fstsim.front.console import Progress
from fstsim.front.entry import run_module
from fstsim.llm.contexts.prompt_evolution import PromptEvolution
from fstsim.llm.experiments.plan import LR, SIZES, Planned, training
from fstsim.llm.experiments.run import run_all
from fstsim.llm.learners.cases import CaseMemory
from fstsim.llm.learners.learner import Learner
from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.learners.proxy import ProxyTuning
from fstsim.llm.learners.sft import SupervisedFineTuning
from fstsim.llm.learners.skills import SkillLibrary
from fstsim.llm.learners.soft import SoftTokens
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.systems.curriculum import Curriculum
from fstsim.paper import DATA
from fstsim.paper.records import record_runs

HARD = "strings:reverse+next"
"""Two rules that the base never follows untold: with RL every group is dead."""
TWO_RULES, SWITCH = "digits:negate+shift", "strings:rotate~sort"
CHANNEL = "strings:rotate"
DEEP = "strings:sort+next+rotate+mirror"
"""Four rules, of which the base writes at most two at once."""
EDITS = (1, 4)
_SIZE = SIZES["smoke"]


def _trained(method: str, task: str, **settings: Any) -> TrainConfig:
    """A run of preset smoke that is measured at its beginning, halfway and at its end, without relearning."""
    config = training("smoke", method, (task,))
    probe = replace(config.probe, every=config.steps // 2, early=config.steps + 1, relearn=0)
    return replace(config, probe=probe, **settings)


def dead_groups() -> list[Planned]:
    """P2O beside RL and FST on a task whose groups are all dead at the start."""
    asked_again = PolicyGradient(problems=_SIZE.problems, dead_groups="context")
    configs = {
        "rl": _trained("rl", HARD),
        "fst": _trained("fst", HARD),
        "p2o": _trained("fst", HARD, learner=asked_again, fast=PromptEvolution(dead_only=True)),
    }
    return [Planned(f"dead-groups-{name}", config, write_model=False) for name, config in configs.items()]


def edits() -> list[Planned]:
    """A document edited by at most so many words at a time, and a population, within the same rollouts."""
    plans = {f"{TWO_RULES}-{most}": (TWO_RULES, PromptEvolution(edits=most)) for most in EDITS}
    plans |= {f"{task}-population": (task, PromptEvolution()) for task in (TWO_RULES, SWITCH)}
    plans[f"{SWITCH}-{EDITS[-1]}"] = (SWITCH, PromptEvolution(edits=EDITS[-1]))
    return [Planned(edits_name(name), _trained("gepa", task, fast=fast)) for name, (task, fast) in plans.items()]


def edits_name(name: str) -> str:
    """Name of the run of ``TASK-L`` or ``TASK-population``, in which a task's marks are spelt out."""
    return f"edits-{name.replace(':', '-').replace('~', '-or-').replace('+', '-')}"


_SHOWN = 12
"""Problems a step in the runs on channels: a probe of relearning is as many steps as a run, twice."""
CHANNELS: Mapping[str, tuple[Learner, float]] = {
    "sft": (SupervisedFineTuning(problems=_SHOWN), LR),
    "soft": (SoftTokens(problems=_SHOWN), SoftTokens.rate),
    "proxy": (ProxyTuning(problems=_SHOWN), ProxyTuning.rate),
    "cases": (CaseMemory(problems=_SHOWN), LR),
    "skills": (SkillLibrary(), LR),
}
"""Learner and rate of every channel by its method: the weights, by SFT, and systems that leave them as they are."""


def channels() -> list[Planned]:
    """Each system on a task, and how long it and its bare weights then take for another one on the same prompts."""
    probe = ProbeConfig(every=_SIZE.steps, problems=32, exam=8, early=_SIZE.steps + 1)
    return [
        Planned(
            f"channel-{method}",
            TrainConfig(method, (CHANNEL,), steps=_SIZE.steps, lr=lr, learner=learner, probe=probe),
            write_model=False,
        )
        for method, (learner, lr) in CHANNELS.items()
    ]


ORDERS: Mapping[str, SkillLibrary] = {
    **{kind: SkillLibrary(curriculum=kind) for kind in get_args(Curriculum)},
    "novelty-no-gate": SkillLibrary(curriculum="novelty", no_gate=True),
}
"""Every order of practice; by novelty also with the first program of an attempt stored unverified."""


def curricula() -> list[Planned]:
    """A skill library on a task that is too deep to be written at once, with every order of practice."""
    probe = ProbeConfig(every=40, problems=16, exam=2, early=64, relearn=0)
    return [
        Planned(
            f"curriculum-{name}",
            TrainConfig("skills", (DEEP,), steps=40, learner=learner, probe=probe),
            write_model=False,
        )
        for name, learner in ORDERS.items()
    ]


Set = Literal["dead-groups", "edits", "channels", "curricula"]
SETS: Mapping[Set, list[Planned]] = {
    "dead-groups": dead_groups(),
    "edits": edits(),
    "channels": channels(),
    "curricula": curricula(),
}
SEEDS: Mapping[Set, int] = {"dead-groups": 3, "edits": 3, "channels": 3, "curricula": 5}


@dataclass(frozen=True)
class Config:
    """Make the runs that single claims are held against, or go on with them, and record them in paper/data/claims."""

    out: Directory = Path("out/claims")
    """where the run directories are"""
    only: tuple[Set, ...] = get_args(Set)
    """sets of runs"""
    jobs: int = 1
    """runs at a time, one thread each"""


def record(config: Config) -> int:
    """Make what is missing, then write the record of everything in ``out``."""
    check_jobs(config.jobs)
    progress = Progress("claims", sum(len(SETS[name]) * SEEDS[name] for name in config.only), "runs")
    for name in config.only:
        for what, failure in run_all(SETS[name], SEEDS[name], config.out, config.jobs):
            if failure:
                raise InputError(f"{what}: {failure}")
            progress.add(1, what)
    progress.close()
    record_runs.record(record_runs.Config(config.out, DATA / "claims"))
    return 0


if __name__ == "__main__":
    raise SystemExit(run_module("fstsim.paper.records.claim_runs", Config, record))
