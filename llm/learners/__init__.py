"""Slow learners: a file each, declared once in `LEARNERS`, and what two or more of them use (`weights`, `groups`, `losses`)."""

from __future__ import annotations

from collections.abc import Mapping

from fstsim.llm.learners.cases import CaseMemory
from fstsim.llm.learners.distill import Distillation
from fstsim.llm.learners.isolate import Isolation
from fstsim.llm.learners.learner import Learner
from fstsim.llm.learners.mixture import MixtureDistillation
from fstsim.llm.learners.oapl import OAPL
from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.learners.proxy import ProxyTuning
from fstsim.llm.learners.sdft import SDFT
from fstsim.llm.learners.sft import SupervisedFineTuning
from fstsim.llm.learners.skills import SkillLibrary
from fstsim.llm.learners.soft import SoftTokens
from fstsim.llm.learners.ttt import TTTDiscover

LEARNERS: Mapping[str, type[Learner]] = {
    "rl": PolicyGradient,
    "sft": SupervisedFineTuning,
    "sdft": SDFT,
    "ttt": TTTDiscover,
    "oapl": OAPL,
    "mixture": MixtureDistillation,
    "distill": Distillation,
    "isolate": Isolation,
    "proxy": ProxyTuning,
    "soft": SoftTokens,
    "cases": CaseMemory,
    "skills": SkillLibrary,
}
"""Every slow learner by the name of its method."""
