r"""The interval of a forecast: where one new run is expected, not the mean of several.

Half of it is :math:`\sqrt{4 V + e^2}`.

*Error* ``e``: predicted and corrected path differ at the step itself by what the readings there say, and on the way by what
every piece before left behind: differences add up with their signs in log-odds of the control answers,
:math:`E = \sum_k (\ell^{pred}_k - \ell^{corr}_k)`, and a quantity is read off the controls with and without them. Both parts are
added. It is the error of the predicted path, one order below the one that is reported; pieces neither enlarge nor forget what
earlier ones did.

*Variance* ``V``: the larger of two estimates.

- From the batches: piece k of n steps moves the controls of one run by a noise :math:`\nu_k` (`Path.next_piece`), and those of a path,
  where b batches speak for n steps, by :math:`\sqrt{n/b}` times that. With :math:`\Delta_k` the change of the quantity,
  :math:`V = \sum_k \Delta_k^2 (1 + n_k / (b_k R))`: the run, and the mean of R paths.
- From the paths: :math:`s^2 (1 + 1/R)`, with R - 1 degrees of freedom; it has what noise grows to on the way, and where pieces
  are long it is that of a path and not of a run.

Nothing in it is fitted to any run. Forecasts from before 2026-11-27 have the readings at the step and the second estimate only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fstsim.llm.forecast.control import Layout, from_odds, odds
from fstsim.llm.forecast.reading import Reading

Array = NDArray[np.float64]
Of = Callable[[Reading], float]
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Carried:
    """What pieces before a step leave in a quantity there: their ``error`` (with sign), and the variance in a ``run`` and a ``path``."""

    error: float = 0.0
    run: float = 0.0
    path: float = 0.0


def carried(pieces: Rows, layout: Layout | None, of: Of, step: int) -> Carried:
    """The error and the noise of ``pieces`` at ``step`` in the quantity ``of``; 0 where the controls do not know it."""
    before = [row for row in pieces if row["from"] < step]
    if layout is None or not before or "odds" not in before[-1]:
        return Carried()
    last = before[-1]
    share = min((step - last["from"]) / last["steps"], 1.0)
    began = np.array(before[-2]["odds"]) if len(before) > 1 else odds(layout.start)
    at = (1.0 - share) * began + share * np.array(last["odds"])

    def changed(by: Array) -> float:
        try:
            then, now = (of(layout.reading(from_odds(where))) for where in (at, at + by))
        except KeyError:  # an old skill without answers is none of the controls
            return 0.0
        return now - then if math.isfinite(now - then) else 0.0

    error = changed(np.sum([row["drift"] for row in before[:-1]], axis=0)) if len(before) > 1 else 0.0
    run = path = 0.0
    for row in before:
        part = share if row is last else 1.0
        square = part * changed(np.array(row["noise"])) ** 2
        run += square
        path += square * part * row["steps"] / ((row["batches"] + row["started_from"]) / 2.0)
    return Carried(error, run, path)


def half_width(values: Array, errors: Sequence[float], on_the_way: Sequence[Carried]) -> float:
    """Half of the interval of a quantity that R paths give ``values (R,)``; ``errors`` are those of the readings at the step."""
    count = len(values)
    spread = float(values.var(ddof=1)) * (1.0 + 1.0 / count) if count > 1 else 0.0
    noise = float(np.mean([c.run + c.path / count for c in on_the_way]))
    error = float(np.mean([abs(e) + abs(c.error) for e, c in zip(errors, on_the_way, strict=True)]))
    return math.sqrt(4.0 * max(spread, noise) + error**2)
