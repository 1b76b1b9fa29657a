"""What a simulation returns: every array has one row a step, the initial state included."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr, expit, ndtr

from fstsim import columns
from fstsim.divergences import two_mode_kl
from fstsim.errors import InputError
from fstsim.reading import check_file
from fstsim.records import write_atomically
from fstsim.two_mode import TwoModeProblem, TwoModeState
from fstsim.whitened import Whitened

Array = NDArray[np.float64]

COLUMNS = tuple(column.name for column in columns.COLUMNS if column.mixture)
_RELEARN_TARGET = 0.9


def _logit_policy_gradient_time(s: Array) -> Array:
    """``F(s) = 2 s + 2 sinh s``: time of ``ds/dt = sigmoid'(s)`` from 0 to ``s``."""
    with np.errstate(over="ignore"):
        return 2.0 * s + 2.0 * np.sinh(s)


@dataclass(frozen=True, eq=False)
class Trajectory:
    r"""Learner states along a simulation of T steps, with the measurements of a run as properties.

    ``step``, ``time`` (units of 1/lr for a flow, else the step) and ``samples`` are ``(T+1,)``; ``log_odds`` is
    ``(T+1, *batch)``, the means ``(T+1, *batch, D)``. ``status`` is ``completed`` or ``diverged`` (the arrays then
    hold nan from the first non-finite step on). Measurements are ``(T+1, *batch)``, exact, and computed when asked for:

    - ``old_mass``: weight beta of the old component;
    - ``old_region_mass``: mass of the half-space nearer to the target's old mean, the metric that cannot be fooled by
      an old *component* that was overwritten (theory 1.6);
    - ``reward``: success on the new task, the mass of the other half-space;
    - ``drift``: Mahalanobis distance of the old component's mean from the target's old mean;
    - ``kl_to_base``, ``kl_from_base``: KL(q_t || q_0) and KL(q_0 || q_t), nats;
    - ``entropy``: of the mode choice, nats;
    - ``relearn``: time of the logit policy gradient ``ds/dt = sigmoid'(s)`` back to old mass 0.9, 0 if it is there
      (units of 1/(learning rate x reward gap); theory `plasticity`).
    """

    problem: TwoModeProblem
    step: NDArray[np.int64]
    time: Array
    samples: NDArray[np.int64]
    log_odds: Array
    mean_old: Array
    mean_new: Array
    status: str = "completed"

    @property
    def steps(self) -> int:
        """Number of steps T."""
        return self.step.size - 1

    @property
    def states(self) -> TwoModeState:
        """All states as one batch ``(T+1, *batch)``; InputError if the run diverged."""
        return TwoModeState(self.log_odds, self.mean_old, self.mean_new)

    def state(self, index: int = -1) -> TwoModeState:
        """State at row ``index`` (the last one by default)."""
        return TwoModeState(self.log_odds[index], self.mean_old[index], self.mean_new[index])

    @property
    def old_mass(self) -> Array:
        """Weight of the old component."""
        return expit(self.log_odds)

    @property
    def old_region_mass(self) -> Array:
        """``Q_t(A)``, A the half-space nearer to the target's old mean: ``sum_k w_k Phi(signed distance of mean_k)``."""
        whiten = self.problem.whiten
        old, new = whiten(self.problem.mean_old), whiten(self.problem.mean_new)
        direction = (old - new) / self.problem.separation
        middle = 0.5 * (old + new)
        inside_old = ndtr((whiten(self.mean_old) - middle) @ direction)
        inside_new = ndtr((whiten(self.mean_new) - middle) @ direction)
        return self.old_mass * inside_old + expit(-self.log_odds) * inside_new

    @property
    def reward(self) -> Array:
        """Mass of the half-space nearer to the target's new mean."""
        return 1.0 - self.old_region_mass

    @property
    def drift(self) -> Array:
        """Mahalanobis distance of the old component's mean from the target's old mean."""
        return np.linalg.norm(self.problem.whiten(self.mean_old - self.problem.mean_old), axis=-1)

    @property
    def kl_to_base(self) -> Array:
        """``KL(q_t || q_0)`` in nats."""
        return self._kl(two_mode_kl)

    @property
    def kl_from_base(self) -> Array:
        """``KL(q_0 || q_t)`` in nats."""
        return self._kl(lambda now, base: two_mode_kl(base, now))

    def _kl(self, divergence: Callable[[Whitened, Whitened], Array]) -> Array:
        now = Whitened(self.log_odds, self.problem.whiten(self.mean_old), self.problem.whiten(self.mean_new))
        out = np.full(self.log_odds.shape, np.nan)
        good = np.isfinite(self.log_odds) & np.isfinite(now.old).all(axis=-1) & np.isfinite(now.new).all(axis=-1)
        base = Whitened(*(np.broadcast_to(x[0], x.shape)[good] for x in now))
        out[good] = np.maximum(divergence(Whitened(*(x[good] for x in now)), base), 0.0)  # 0 up to rounding at the base
        return out

    @property
    def entropy(self) -> Array:
        """Entropy of the mode choice, nats."""
        return entr(self.old_mass) + entr(expit(-self.log_odds))

    @property
    def relearn(self) -> Array:
        """Time to bring the old mass back to 0.9."""
        target = np.log(_RELEARN_TARGET / (1.0 - _RELEARN_TARGET))
        wait = _logit_policy_gradient_time(np.asarray(target)) - _logit_policy_gradient_time(self.log_odds)
        return np.maximum(wait, 0.0)

    def columns(self) -> dict[str, Array]:
        """The measurement table: `COLUMNS` in order, each ``(T+1,)`` or ``(T+1, *batch)``."""
        return {name: np.asarray(getattr(self, name)) for name in COLUMNS}

    def save(self, path: str | Path, generator: str = "") -> None:
        """Write to ``path`` (.npz, no pickle); the file appears whole or not at all.

        ``generator`` is kept in the same file for whoever continues the run: the state of the random generator.
        """
        p = self.problem
        arrays = {
            "step": self.step,
            "time": self.time,
            "samples": self.samples,
            "log_odds": self.log_odds,
            "mean_old": self.mean_old,
            "mean_new": self.mean_new,
            "problem_mean_old": p.mean_old,
            "problem_mean_new": p.mean_new,
            "problem_covariance": p.covariance,
            "generator": np.array(generator),
            "header": np.array(json.dumps({"format": 1, "alpha": p.alpha, "status": self.status})),
        }
        write_atomically(Path(path), lambda f: np.savez_compressed(f, allow_pickle=False, **arrays))

    @staticmethod
    def load(path: str | Path) -> Trajectory:
        """Read what :meth:`save` wrote; InputError if the file is missing or is something else."""
        check_file(Path(path))
        try:
            with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as data:
                header = json.loads(str(data["header"]))
                problem = TwoModeProblem(
                    header["alpha"], data["problem_mean_old"], data["problem_mean_new"], data["problem_covariance"]
                )
                names = ("step", "time", "samples", "log_odds", "mean_old", "mean_new")
                return Trajectory(problem, **{name: data[name] for name in names}, status=header["status"])
        # AttributeError: a plain array is no context manager, in the words of Python 3.10
        except (OSError, ValueError, TypeError, AttributeError, KeyError, EOFError, BadZipFile, zlib.error) as error:
            raise InputError(f"{path} is not a trajectory saved by fstsim") from error

    def then(self, later: Trajectory) -> Trajectory:
        """This trajectory continued by ``later``, whose first state is this one's last."""
        return Trajectory(
            self.problem,
            np.concatenate([self.step, self.step[-1] + later.step[1:]]),
            np.concatenate([self.time, self.time[-1] + later.time[1:]]),
            np.concatenate([self.samples, self.samples[-1] + later.samples[1:]]),
            np.concatenate([self.log_odds, later.log_odds[1:]]),
            np.concatenate([self.mean_old, later.mean_old[1:]]),
            np.concatenate([self.mean_new, later.mean_new[1:]]),
            later.status,
        )
