"""How gradients become a path: the run's optimizer over a piece between two aims, and the learning rate of its every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fstsim.errors import InputError
from fstsim.llm.forecast.aim import Aim, Tensors
from fstsim.llm.forecast.shadow import averaged
from fstsim.llm.runs.config import TrainConfig
from fstsim.theory.coarse_adam import SGD, AdamW, Moments, adam_piece, adam_ramp, sgd_piece
from fstsim.theory.step_nodes import ROUGH

Array = NDArray[np.float64]

_PARTS = 16  # of a piece of SGD, in each of which the gradient is constant
_HALF = "adamw-bf16-moments"  # its rounding has mean 0: the path is AdamW's


@dataclass(frozen=True)
class Rule:
    """``optimizer`` with the learning rates ``rates (steps,)`` of all slow steps of a run."""

    optimizer: AdamW | SGD
    rates: Array

    @classmethod
    def of(cls, config: TrainConfig) -> Rule:
        """The optimizer of a run of ``config``. Raises InputError if it is one that has no rule here."""
        total = config.steps * len(config.tasks)
        held = config.optimizer
        rates = np.array([held.rate(config.lr, step, total) for step in range(total)])
        if held.kind in ("adamw", _HALF):
            return cls(AdamW(held.beta1, held.beta2, held.epsilon, held.weight_decay), rates)
        if held.kind == "sgd":
            return cls(SGD(held.momentum, held.weight_decay), rates)
        raise InputError(f"optimizer {held.kind!r} cannot be forecast; adamw and sgd can")

    def go(self, weights: torch.Tensor, moments: Moments, piece: Piece, k: int, rates: Array) -> Any:
        """Weights and moments of parameter ``k`` after ``piece``, ``rates`` those of its slow steps."""
        start, end = piece.start, piece.end
        rates = at_pace(rates, piece.pace)
        if end is None:
            if isinstance(self.optimizer, SGD):
                return sgd_piece(weights, moments, start.g[k], rates, self.optimizer)
            return adam_piece(weights, moments, start.g[k], start.q[k], rates, self.optimizer, ROUGH)
        # optimizer step j (from 0) has the gradient at the weights after j of them
        shares = np.minimum(np.arange(rates.size) / max(rates.size, 1) * (piece.length / piece.reach), 1.0)
        ends = (start.g[k], start.q[k]), (end.g[k], end.q[k])
        if isinstance(self.optimizer, AdamW):
            return adam_ramp(weights, moments, *ends, shares, rates, self.optimizer)
        for part in np.array_split(np.arange(rates.size), min(rates.size, _PARTS)):
            share = float(shares[part].mean())
            g = (1.0 - share) * start.g[k] + share * end.g[k]
            weights, moments = sgd_piece(weights, moments, g, rates[part], self.optimizer)
        return weights, moments

    def kick(self, by: torch.Tensor, moments: Moments, rates: Array) -> Any:
        """How far a gradient ``by`` more in every step moves a parameter in the end, its momentum run out.

        ``moments`` are those at the end of the piece: Adam's direction there is what each gradient is divided by.
        """
        held = self.optimizer
        if isinstance(held, SGD):
            return -float(rates.sum()) / (1.0 - held.momentum) * by
        second = moments.second / (1.0 - held.beta2**moments.age)
        return -float(rates.sum()) * by / (second.sqrt() + held.eps)


@dataclass
class Station:
    """Where a path stands: ``step`` slow steps are made, weights and moments by parameter, and optimizer steps so far."""

    step: int
    weights: Tensors
    first: Tensors
    second: Tensors
    shadow: Tensors = field(default_factory=list)
    """a second copy of the weights that follows them (`fstsim.llm.forecast.shadow`); empty where the learner has none"""
    age: int = 0

    @classmethod
    def start(cls, parameters: Sequence[torch.Tensor], *, shadowed: bool = False) -> Station:
        """At the weights ``parameters``, of which it makes a copy, without memory; the shadow, if there is one, at them too."""
        return cls(
            0,
            [p.detach().clone() for p in parameters],
            [torch.zeros_like(p, requires_grad=False) for p in parameters],
            [torch.zeros_like(p, requires_grad=False) for p in parameters],
            [p.detach().clone() for p in parameters] if shadowed else [],
        )


@dataclass(frozen=True)
class Piece:
    """``length`` slow steps from the aim at their beginning towards ``end``, the aim at step ``reach`` of the piece.

    Without ``end`` the gradient stays that of ``start`` (predicted); with it mean and mean square go over from one to the
    other (corrected, `fstsim.theory.coarse_adam.adam_ramp`).
    """

    start: Aim
    length: int
    end: Aim | None = None
    reach: int = 0
    noise: Sequence[torch.Tensor] = ()
    """what is added to the gradient of every slow step, by parameter (`Rule.kick`); empty for nothing"""

    @property
    def pace(self) -> float:
        """Optimizer steps a slow step, mean over the piece."""
        if self.end is None:
            return self.start.updates_a_step
        share = min(self.length / self.reach, 1.0) / 2.0
        return (1.0 - share) * self.start.updates_a_step + share * self.end.updates_a_step


@torch.no_grad()
def go(
    rule: Rule,
    station: Station,
    piece: Piece,
    into: Sequence[torch.Tensor],
    *,
    stay: bool,
    follower: tuple[Sequence[torch.Tensor], float] = ((), 0.0),
) -> int:
    """Make ``piece`` from ``station``: the weights at its end are written to ``into``; returns the optimizer steps made.

    ``follower`` is where the shadow at its end is written, and the rate at which it follows. Unless it is to ``stay``, the station itself goes there too, parameter by parameter, so that no second copy is held.
    """
    rates = rule.rates[station.step : station.step + piece.length]
    made, (shadow, rate) = station.age, follower
    kept, share = averaged(rate, piece.length)
    for k, target in enumerate(into):
        weights = station.weights[k]
        moments = Moments(station.first[k], station.second[k], station.age)
        weights, moments = rule.go(weights, moments, piece, k, rates)
        if piece.noise:
            weights = weights + rule.kick(piece.noise[k], moments, rates)
        made = moments.age
        target.copy_(weights)
        if shadow:
            began = station.weights[k]
            shadow[k].copy_(kept * station.shadow[k] + (1.0 - kept) * began + share * (weights - began))
        if not stay:
            if shadow:
                station.shadow[k].copy_(shadow[k])
            station.weights[k].copy_(weights)
            station.first[k], station.second[k] = moments.first, moments.second
    if not stay:
        station.step, station.age = station.step + piece.length, made
    return made - (station.age if stay else 0)


def at_pace(rates: Array, pace: float) -> Array:
    """Learning rates of the optimizer steps in slow steps of ``rates``, ``pace`` optimizer steps each: more, or fewer."""
    if pace == 1.0:
        return rates
    count = round(len(rates) * pace)
    if count == 0:
        return rates[:0]
    return rates[np.minimum((np.arange(count) + 0.5) / count * len(rates), len(rates) - 1).astype(int)]
