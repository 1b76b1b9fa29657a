"""The path of the weights by pieces: predict, aim at the end, correct, and let the error say how long the next piece is.

A piece is predicted with the gradient at its start, the aim at its predicted end is taken, and the piece is made again with
the gradient going over from one to the other; the aim is kept as the start of the next. The error of a piece is how far
predicted and corrected weights differ in what they say on control prompts, so that step control costs no gradient. Above
the tolerance the piece is halved (and then predicted with what the failed aim told), below a third of it the next one
grows. Late in a run the mean gradient is within its noise: more batches are drawn there, and what remains noise moves
nothing.

The noise of a run is not that of a path, where a batch speaks for a whole piece: beside every piece stands what its noise does
to the controls in one run, from the difference of the batches of its aims (`fstsim.llm.forecast.interval`).

Memory beside that of a run (weights, base, moments, gradient): the weights at the start of the piece, and two aims of three
tensors each, which the corrector and the noise need; a trial holds a third aim while it is tested.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fstsim.llm.forecast.aim import Aim, Tensors, contrast, joined, take_aim
from fstsim.llm.forecast.control import odds
from fstsim.llm.forecast.rule import Piece, Rule, Station, go
from fstsim.llm.forecast.settings import ForecastSettings
from fstsim.llm.forecast.shadow import next_jump, shadow_of
from fstsim.llm.forecast.start import moving
from fstsim.llm.learners.learner import Learner
from fstsim.llm.learners.weights import Weights
from fstsim.llm.types import Population, Task

Array = NDArray[np.float64]

_FIRST = 2  # steps of the first piece
_GROW = 2.0  # most that a piece grows by
_SHRINK = 0.7  # the least that a refused piece shrinks by
_SAFE = 0.7  # of the length at which the error is expected to be the tolerance
_RELATIVE = 0.3  # of the tolerance, a nat that an answer has moved
_NOISY = 0.5  # share of a mean gradient that is noise, above which more batches are drawn


@dataclasses.dataclass(frozen=True)
class Field:
    """What decides the gradients: the learner of a run, its contexts and task, on ``weights`` that hold the moving policy."""

    weights: Weights
    learner: Learner
    context: Population
    task: Task

    @property
    def parameters(self) -> list[Any]:
        """Of the moving policy."""
        return moving(self.weights.policy)


@dataclasses.dataclass
class Spent:
    """What a path has cost: ``gradients`` of the run's batch size, ``rollouts``, and readings of the control prompts."""

    gradients: int = 0
    rollouts: int = 0
    controls: int = 0


@dataclasses.dataclass
class Path:
    """A path under ``rule`` through ``field``; ``control`` reads log-probabilities of answers off the policy."""

    field: Field
    rule: Rule
    settings: ForecastSettings
    control: Callable[[], Array]
    rng: np.random.Generator
    station: Station
    aim: Aim | None = None
    length: int = _FIRST
    """slow steps of the next piece, if its error allows"""
    start: Array | None = None
    """the control at the start of the run"""
    spent: Spent = dataclasses.field(default_factory=Spent)
    made: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    """what is worth knowing of every piece"""

    def next_piece(self, until: int) -> Piece:
        """The next piece, at most to step ``until``, its error within the tolerance or its length the shortest; the station stays.

        Raises `weights.Diverged` where the learner does.
        """
        if self.start is None:
            self.start = self._read()
        if self.aim is None:
            self.aim = self._take()
        first, hint, most = self.aim, None, next_jump(self.field.learner, self.station.step, until) - self.station.step
        wanted = max(self.length, self.settings.shortest)
        length = min(wanted, most, self.settings.longest or most)
        while True:
            self._go(Piece(first, length) if hint is None else Piece(first, length, *hint))
            there = self._read()
            end = self._take()
            piece = Piece(first, length, end, length)
            self._go(piece)
            now = self._read()
            error = self._error(there, now)
            if error <= self.settings.tolerance or length <= self.settings.shortest:
                break
            hint = (end, length)
            length = wanted = max(int(length * min(self._factor(error), _SHRINK)), self.settings.shortest)
        # a piece that was cut at the end of the run says nothing about longer ones
        self.length = max(round(wanted * self._factor(error)), self.settings.shortest) if length == wanted else wanted
        row = {"from": self.station.step, "steps": length, "error": error, "batches": end.batches}
        row |= {"noise_share": end.noise_share, "started_from": first.batches}
        self.made.append({**row, **self._odds(there, now), "noise": self._noise(piece, now)})
        return piece

    @staticmethod
    def _odds(there: Array, now: Array) -> dict[str, list[float]]:
        """Log-odds of the controls at the end of a piece, and by how much the predicted ones differ."""
        found = odds(now)
        return {"odds": found.tolist(), "drift": (odds(there) - found).tolist()}

    def _noise(self, piece: Piece, now: Array) -> list[float]:
        r"""By how much the noise of ``piece`` moves the controls of one run, log-odds: a draw, from a contrast of batches.

        The noise of n steps adds up to :math:`\sqrt n` times that of one: the contrast over :math:`\sqrt n` in every step.
        """
        first, end = piece.start, piece.end
        assert end is not None
        if not first.updates + end.updates:
            return [0.0] * len(now)
        apart = first.apart or end.apart or contrast(first, end)
        share = 1.0 / math.sqrt(piece.length)
        self._go(dataclasses.replace(piece, noise=[share * t for t in apart]))
        return (odds(self._read()) - odds(now)).tolist()

    def advance(self, piece: Piece) -> None:
        """Go to the end of ``piece``; the aim there begins the next one, unless the shadow jumps: then there is another."""
        self._go(piece, stay=False)
        self.aim = piece.end
        if self._shadow and self.field.learner.follows(self.station.step) == 1.0:
            for held in (self._shadow, self.station.shadow):
                for own, wanted in zip(held, self.station.weights, strict=True):
                    own.data.copy_(wanted)
            if self.station.step < len(self.rule.rates):
                self.aim = self._take()

    @property
    def lost(self) -> int | None:
        """The step from which on nothing is claimed: where the error of a shortest piece was above the tolerance."""
        return next((row["from"] for row in self.made if not row["error"] <= self.settings.tolerance), None)

    def stay_at(self, piece: Piece) -> None:
        """Put the policy, and its shadow, where ``piece`` ends, without going there."""
        self._go(piece, stay=True)

    @property
    def _shadow(self) -> Tensors:
        return list(shadow_of(self.field.weights))

    def _go(self, piece: Piece, *, stay: bool = True) -> None:
        rate = self.field.learner.follows(self.station.step + 1)
        follower = self._shadow, 0.0 if rate == 1.0 else rate  # what jumps does so between two pieces
        go(self.rule, self.station, piece, self.field.parameters, stay=stay, follower=follower)

    def _read(self) -> Array:
        self.spent.controls += 1
        return self.control()

    def _take(self) -> Aim:
        """The aim at the weights that the policy has now; more batches while its mean is within its noise."""
        f, most = self.field, self.settings.most_batches
        found = take_aim(f.weights, f.learner, f.context, f.task, self.rng, batches=self.settings.batches)
        while found.batches < most and found.noise_share > _NOISY:
            found = joined(found, take_aim(f.weights, f.learner, f.context, f.task, self.rng, batches=1))
        self.spent.gradients += found.batches
        self.spent.rollouts += found.samples
        return found

    def _factor(self, error: float) -> float:
        """By how much the next piece may be longer: predicted and corrected differ by the square of the length."""
        return min(_SAFE * float(np.sqrt(self.settings.tolerance / error)), _GROW) if error > 0.0 else _GROW

    def _error(self, there: Array, now: Array) -> float:
        """Root mean square of differences in nats, those of answers that have moved far as a share of it."""
        assert self.start is not None
        if not (np.isfinite(there).all() and np.isfinite(now).all()):
            return float("inf")
        far = np.maximum(1.0, _RELATIVE * np.abs(now - self.start))
        return float(np.sqrt(np.mean(((there - now) / far) ** 2)))
