"""The names that others import from `fstsim` and `fstsim.llm`: changing these lists is changing the contract."""

from __future__ import annotations

import ast
import rlcompleter
from pathlib import Path

import pytest

import fstsim
import fstsim.llm
from fstsim.llm.learners.mixture import MixtureDistillation
from fstsim.llm.runs.run import run_training
from fstsim.llm.types import Task

PUBLIC = [
    "OAPL",
    "SDFT",
    "KLLeash",
    "ReverseKLReplay",
    "TTTDiscover",
    "simulate_oapl",
    "simulate_sdft",
    "Part",
    "Regression",
    "Teacher",
    "OBJECTIVES",
    "SGD",
    "AdamW",
    "ForwardKL",
    "GaussianMixture",
    "GradientDescent",
    "GradientFlow",
    "InputError",
    "Objective",
    "ReverseKL",
    "Trajectory",
    "TwoModeProblem",
    "TwoModeState",
    "__version__",
    "gradient_flow",
    "simulate",
]


def test_public_names() -> None:
    assert sorted(fstsim.__all__) == sorted(PUBLIC)


def test_public_names_exist() -> None:
    missing = [name for name in PUBLIC if not hasattr(fstsim, name)]
    assert missing == []


LABORATORY = {
    "ChatEndpoint",
    "Demonstrated",
    "Distillation",
    "Diverged",
    "Isolation",
    "LEARNERS",
    "LocalChat",
    "METHODS",
    "MixtureDistillation",
    "OAPL",
    "PRESETS",
    "Policy",
    "PolicyGradient",
    "Population",
    "Probe",
    "ProbeConfig",
    "Problem",
    "PromptEvolution",
    "Reflector",
    "ReflectorConfig",
    "Rollouts",
    "RuleTask",
    "SDFT",
    "Score",
    "SelfReflection",
    "SupervisedFineTuning",
    "TTTDiscover",
    "Task",
    "TrainConfig",
    "Weights",
    "parse_task",
    "run_training",
}


def test_names_of_the_laboratory() -> None:
    assert set(fstsim.llm.__all__) == LABORATORY
    assert len(fstsim.llm.__all__) == len(LABORATORY)


@pytest.mark.parametrize("name", sorted(LABORATORY))
def test_a_name_of_the_laboratory_is_what_its_module_defines(name: str) -> None:
    thing = getattr(fstsim.llm, name)
    if not name.isupper() or name in ("OAPL", "SDFT"):  # else a table
        assert (thing.__name__, thing.__module__.startswith("fstsim.llm.")) == (name, True)


def test_names_of_the_laboratory_are_the_objects_themselves() -> None:
    assert fstsim.llm.Task is Task
    assert fstsim.llm.MixtureDistillation is MixtureDistillation
    assert fstsim.llm.run_training is run_training


def test_completion_lists_the_laboratory() -> None:
    completer = rlcompleter.Completer({"llm": fstsim.llm})
    listed = []
    while (found := completer.complete("llm.", len(listed))) is not None:
        listed.append(found.removeprefix("llm.").removesuffix("(").removesuffix("()"))
    assert set(listed) >= LABORATORY


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"'fstsim\.llm' has no attribute 'Polcy'"):
        fstsim.llm.Polcy  # noqa: B018


def test_type_checkers_are_told_the_same() -> None:
    """The imports under TYPE_CHECKING name each public name once, from the module that it is loaded from."""
    tree = ast.parse(Path(fstsim.llm.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    told = [
        (alias.asname, f"{node.module}")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    assert sorted(told) == sorted((name, f"fstsim.llm.{module}") for name, module in fstsim.llm._MODULES.items())
