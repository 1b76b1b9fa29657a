"""What is measured of given checkpoints: sets of problems, how many samples, and from which numbers they are drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fstsim.errors import InputError
from fstsim.settings import check_types

RELEARN_LEVEL, RELEARN_MOST = 0.5, 60
"""Plasticity is the number of supervised steps to this probability of right answers, and at most that many."""


@dataclass(frozen=True)
class MeasureSettings:
    """How a policy is measured on a set of problems. Equal settings and equal models give equal numbers."""

    problems: int = 64
    """test problems of each set"""
    samples: int = 8
    """completions of each problem: KL, entropy and pass@k are of them"""
    max_new_tokens: int = 64
    """longest completion, tokens"""
    seed: int = 0
    """random numbers of sampling, the same for every model"""

    def __post_init__(self) -> None:
        check_types(self)
        for name, least in (("problems", 2), ("samples", 1), ("max_new_tokens", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name} must be at least {least}, got {getattr(self, name)}")


@dataclass(frozen=True)
class MeasureConfig:
    """Checkpoints against ``base``; ``new`` and ``old`` name tasks as `parse_task` reads them.

    Problems of ``new`` are shown without context, those of ``old`` in their own context (the rule in words, or that of the
    file), as in a training run.
    """

    base: str = "base"
    new: str = ""
    old: str = ""
    settings: MeasureSettings = MeasureSettings()
    device: str = "cpu"
    relearn: str = ""
    """task that base and checkpoints learn anew, each in a copy"""
    relearn_lr: float = 1e-3
    """learning rate of that"""

    @property
    def sets(self) -> dict[str, str]:
        """Name of a set -> its task."""
        return {name: task for name, task in (("new", self.new), ("old", self.old)) if task}

    def __post_init__(self) -> None:
        check_types(self)
        if not (math.isfinite(self.relearn_lr) and self.relearn_lr > 0.0):
            raise InputError(f"--relearn-lr must be finite and above 0, got {self.relearn_lr}")
        if not self.sets:
            raise InputError("there is nothing to measure on: give --new, --old or both")
