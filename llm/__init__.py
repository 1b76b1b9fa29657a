"""The language-model laboratory: the same measurements on real training runs.

What others use has its name here: the contracts (`Task`, `Demonstrated`), a run (`TrainConfig`, `run_training`), the slow
learners and the fast one. A name's module, and torch with it, is loaded when the name is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fstsim.llm.contexts.chat_endpoint import ChatEndpoint as ChatEndpoint
    from fstsim.llm.contexts.prompt_evolution import PromptEvolution as PromptEvolution
    from fstsim.llm.contexts.reflection import Reflector as Reflector
    from fstsim.llm.contexts.reflection import SelfReflection as SelfReflection
    from fstsim.llm.contexts.reflectors import LocalChat as LocalChat
    from fstsim.llm.contexts.reflectors import ReflectorConfig as ReflectorConfig
    from fstsim.llm.learners import LEARNERS as LEARNERS
    from fstsim.llm.learners.distill import Distillation as Distillation
    from fstsim.llm.learners.isolate import Isolation as Isolation
    from fstsim.llm.learners.mixture import MixtureDistillation as MixtureDistillation
    from fstsim.llm.learners.oapl import OAPL as OAPL
    from fstsim.llm.learners.policy_gradient import PolicyGradient as PolicyGradient
    from fstsim.llm.learners.sdft import SDFT as SDFT
    from fstsim.llm.learners.sft import SupervisedFineTuning as SupervisedFineTuning
    from fstsim.llm.learners.ttt import TTTDiscover as TTTDiscover
    from fstsim.llm.learners.weights import Diverged as Diverged
    from fstsim.llm.learners.weights import Weights as Weights
    from fstsim.llm.policy.policy import Policy as Policy
    from fstsim.llm.policy.rollouts import Rollouts as Rollouts
    from fstsim.llm.runs.config import METHODS as METHODS
    from fstsim.llm.runs.config import PRESETS as PRESETS
    from fstsim.llm.runs.config import TrainConfig as TrainConfig
    from fstsim.llm.runs.probes import Probe as Probe
    from fstsim.llm.runs.probes import ProbeConfig as ProbeConfig
    from fstsim.llm.runs.run import run_training as run_training
    from fstsim.llm.tasks.parse import parse_task as parse_task
    from fstsim.llm.tasks.rules import RuleTask as RuleTask
    from fstsim.llm.types import Demonstrated as Demonstrated
    from fstsim.llm.types import Population as Population
    from fstsim.llm.types import Problem as Problem
    from fstsim.llm.types import Score as Score
    from fstsim.llm.types import Task as Task

_MODULES = {
    "ChatEndpoint": "contexts.chat_endpoint",
    "Demonstrated": "types",
    "Distillation": "learners.distill",
    "Diverged": "learners.weights",
    "Isolation": "learners.isolate",
    "LEARNERS": "learners",
    "LocalChat": "contexts.reflectors",
    "METHODS": "runs.config",
    "MixtureDistillation": "learners.mixture",
    "OAPL": "learners.oapl",
    "PRESETS": "runs.config",
    "Policy": "policy.policy",
    "PolicyGradient": "learners.policy_gradient",
    "Population": "types",
    "Probe": "runs.probes",
    "ProbeConfig": "runs.probes",
    "Problem": "types",
    "PromptEvolution": "contexts.prompt_evolution",
    "Reflector": "contexts.reflection",
    "ReflectorConfig": "contexts.reflectors",
    "Rollouts": "policy.rollouts",
    "RuleTask": "tasks.rules",
    "SDFT": "learners.sdft",
    "Score": "types",
    "SelfReflection": "contexts.reflection",
    "SupervisedFineTuning": "learners.sft",
    "TTTDiscover": "learners.ttt",
    "Task": "types",
    "TrainConfig": "runs.config",
    "Weights": "learners.weights",
    "parse_task": "tasks.parse",
    "run_training": "runs.run",
}
"""Public name -> module; the imports above say the same to type checkers, and a test compares."""

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    """The public name ``name``, from its module."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """Public names too before they are loaded, so that completion lists them."""
    return sorted({*globals(), *_MODULES})
