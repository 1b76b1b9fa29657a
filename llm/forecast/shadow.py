r"""A second copy of the weights on a path: it follows the weights as the run's learner lets it, and stays while aims are taken.

An average of rate \(\rho\) has a closed form where weights go straight from \(\theta_0\) to \(\theta_n\) in n steps:
\(\bar\theta_n = \kappa^n \bar\theta_0 + (1 - \kappa^n)\,\theta_0 + c\,(\theta_n - \theta_0)\), with \(\kappa = 1 - \rho\) and
\(c = \rho \sum_{j=1}^n \kappa^{n-j} j/n\). A copy that is made anew now and then jumps: pieces end there.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import torch

from fstsim.llm.forecast.start import moving
from fstsim.llm.learners.learner import Learner
from fstsim.llm.learners.shadow import ShadowedWeights
from fstsim.llm.learners.weights import Weights


class StillShadow(ShadowedWeights):
    """A shadow that stays where it is put: a learner's own step would move it between two batches of one aim."""

    def follow(self, rate: float) -> None:
        """Nothing."""


def held_still(weights: Weights) -> Weights:
    """``weights`` whose shadow, where they have one, stays."""
    if not isinstance(weights, ShadowedWeights):
        return weights
    parts: Any = {entry.name: getattr(weights, entry.name) for entry in fields(weights)}
    return StillShadow(**parts)


def shadow_of(weights: Weights) -> list[torch.nn.Parameter]:
    """The shadow's weights, in the order of those that it follows; empty where there is none."""
    return moving(weights.shadow) if isinstance(weights, ShadowedWeights) else []


def averaged(rate: float, steps: int) -> tuple[float, float]:
    r"""\((\kappa^n, c)\) of an average that goes a share ``rate`` of the way after each of ``steps`` steps."""
    kept = (1.0 - rate) ** np.arange(steps - 1, -1, -1)
    return float((1.0 - rate) ** steps), float(rate * (kept * np.arange(1, steps + 1)).sum() / max(steps, 1))


def next_jump(learner: Learner, step: int, until: int) -> int:
    """The first slow step after ``step`` at whose end the shadow becomes the policy, at most ``until``."""
    return next((made for made in range(step + 1, until) if learner.follows(made) == 1.0), until)
