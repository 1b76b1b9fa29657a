"""fstsim: exact two-mode mixtures that predict forgetting, drift and fast-slow training.

``import fstsim`` needs numpy and scipy only. The theory's statements and bounds are in `fstsim.theory`, the
language-model laboratory in `fstsim.llm`, the figures in `fstsim.paper`.
"""

import fstsim.interrupts  # noqa: F401 -- first, so that it is there while the rest is imported
from fstsim.errors import InputError
from fstsim.method_loops import Regression, Teacher, simulate_oapl, simulate_sdft
from fstsim.method_objectives import OAPL, SDFT, TTTDiscover
from fstsim.mixtures import GaussianMixture
from fstsim.objectives import ForwardKL, Objective, ReverseKL
from fstsim.optimizers import SGD, AdamW, GradientDescent, GradientFlow
from fstsim.replay_objectives import KLLeash, ReverseKLReplay
from fstsim.simulate import Part, gradient_flow, simulate
from fstsim.trajectory import Trajectory
from fstsim.two_mode import TwoModeProblem, TwoModeState

__version__ = "0.1.0"

# everything that `simulate` knows how to minimise, in paper order
OBJECTIVES = (ForwardKL, ReverseKL, KLLeash, ReverseKLReplay, SDFT, TTTDiscover, OAPL)

__all__ = [
    "OAPL",
    "OBJECTIVES",
    "SDFT",
    "SGD",
    "AdamW",
    "ForwardKL",
    "GaussianMixture",
    "GradientDescent",
    "GradientFlow",
    "InputError",
    "KLLeash",
    "Objective",
    "Part",
    "Regression",
    "ReverseKL",
    "ReverseKLReplay",
    "TTTDiscover",
    "Teacher",
    "Trajectory",
    "TwoModeProblem",
    "TwoModeState",
    "__version__",
    "gradient_flow",
    "simulate",
    "simulate_oapl",
    "simulate_sdft",
]
