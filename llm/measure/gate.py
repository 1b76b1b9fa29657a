"""Limits on drift and forgetting: what makes a measurement a test that passes or fails."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fstsim.errors import InputError


@dataclass(frozen=True)
class Limits:
    """``kl``: most nats a sequence of KL(now || base) on any set; ``forgetting``: most reward lost on the old set."""

    kl: float | None = None
    forgetting: float | None = None

    @property
    def set(self) -> bool:
        """Whether there is any."""
        return self.kl is not None or self.forgetting is not None

    def check(self, sets: Sequence[str]) -> None:
        """InputError unless they are numbers that can be held against these sets."""
        for name, value in (("at-most-kl", self.kl), ("at-most-forgetting", self.forgetting)):
            if value is not None and not (math.isfinite(value) and value >= 0.0):
                raise InputError(f"--{name} must be finite and at least 0, got {value}")
        if self.forgetting is not None and "old" not in sets:
            raise InputError("--at-most-forgetting is about the old set: give --old")

    def passed(self, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """One line for every limit that a checkpoint passed; ``rows`` as in measure.json."""
        said = []
        for row in rows:
            for name, values in row["sets"].items():
                kl = values["kl_to_base"]
                if self.kl is not None and not kl <= self.kl:
                    said.append(
                        f"{row['checkpoint']}: KL to the base on the {name} set is {kl:.4g} ± {values['kl_to_base_se']:.2g} "
                        f"nats a sequence, above --at-most-kl {self.kl:g}"
                    )
            if self.forgetting is not None:
                values = row["sets"]["old"]
                lost = -values["reward_change"]
                if not lost <= self.forgetting:
                    said.append(
                        f"{row['checkpoint']}: the reward lost on the old set is {lost:.4g} ± "
                        f"{values['reward_change_se']:.2g}, above --at-most-forgetting {self.forgetting:g}"
                    )
        return said
