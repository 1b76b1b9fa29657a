"""How closely a forecast follows the path: tolerance, batches an aim, and how long a piece may be."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fstsim.errors import InputError


@dataclass(frozen=True)
class ForecastSettings:
    """Accuracy and cost of a forecast."""

    tolerance: float = 0.2
    """most nats between predicted and corrected log-probabilities of answers, root mean square over control prompts, for a
    piece to be accepted; an answer that has already moved by more than 3.3 nats may differ by 6 % of that"""
    batches: int = 2
    """batches of the run's size at each aim"""
    most_batches: int = 6
    """batches at an aim whose mean gradient is within its noise"""
    control: int = 24
    """prompts of each kind (to be learned, old) that the error is measured on"""
    replicates: int = 1
    """independent forecasts from different batches: their spread is the noise of aims"""
    seed: int = 1000
    """batches and rollouts of the aims; a run's own seeds begin at 0"""

    def __post_init__(self) -> None:
        if not 0.0 < self.tolerance < math.inf:
            raise InputError(f"tolerance must be positive and finite, got {self.tolerance}")
        if not 1 <= self.batches <= self.most_batches:
            raise InputError(f"batches must lie between 1 and most-batches {self.most_batches}, got {self.batches}")
        for name, least in (("control", 2), ("replicates", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name} must be at least {least}, got {getattr(self, name)}")
