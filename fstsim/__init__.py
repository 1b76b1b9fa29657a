"""fstsim: exact two-mode mixtures that predict forgetting, drift and fast-slow training.

``import fstsim`` needs numpy and scipy only. The theory's statements and bounds are in `fstsim.theory`, the
language-model laboratory in `fstsim.llm`, the figures in `fstsim.paper`.
"""

from fstsim.errors import InputError
from fstsim.mixtures import GaussianMixture
from fstsim.objectives import OBJECTIVES, ForwardKL, Objective, ReverseKL
from fstsim.optimizers import SGD, GradientDescent, GradientFlow
from fstsim.simulate import gradient_flow, simulate
from fstsim.trajectory import Trajectory
from fstsim.two_mode import TwoModeProblem, TwoModeState

__version__ = "0.1.0"

__all__ = [
    "OBJECTIVES",
    "SGD",
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
