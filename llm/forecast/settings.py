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
    shortest: int = 2
    """slow steps of the shortest piece; with 1 a forecast never loses its way, and may cost more than the run"""
    longest: int | None = None
    """slow steps of the longest piece, None for no limit"""
    control: int = 24
    """prompts of each kind (to be learned, old) that the error is measured on"""
    replicates: int = 2
    """independent forecasts from different batches: their mean is the forecast, their spread the noise of aims"""
    seed: int = 1000
    """batches and rollouts of the aims; a run's own seeds begin at 0"""

    def __post_init__(self) -> None:
        if not 0.0 < self.tolerance < math.inf:
            raise InputError(f"tolerance must be positive and finite, got {self.tolerance}")
        if not 1 <= self.batches <= self.most_batches:
            raise InputError(f"batches must lie between 1 and most-batches {self.most_batches}, got {self.batches}")
        if self.longest is not None and self.longest < self.shortest:
            raise InputError(f"longest must be at least shortest {self.shortest}, got {self.longest}")
        for name, least in (("shortest", 1), ("control", 2), ("replicates", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name} must be at least {least}, got {getattr(self, name)}")
