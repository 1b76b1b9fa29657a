"""The names that others import from `fstsim`: changing this list is changing the contract."""

from __future__ import annotations

import fstsim

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
