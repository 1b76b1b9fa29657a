r"""The interval of a forecast: where one new run is expected in 93 to 95 of 100 cases, not the mean of several.

Half of it is :math:`\sqrt{w^2 + e^2}`, noise and error of the pieces.

*Noise* ``w``: the smaller of two bounds (one path has the second alone). Each has 95 %; the smaller of both has 93 % where the
second is exact (the tests draw such runs), since two paths now and then agree by chance.

- Between R paths, Student's interval for one more draw: :math:`t_{R-1}\, s \sqrt{1 + 1/R}`. It has everything that happens to
  noise on the way; of two paths t is 12.7.
- From the batches: piece k of n steps moves the controls of one run by a noise :math:`\nu_k` (`Path.next_piece`), and those of a
  path, where b batches speak for n steps, by :math:`\sqrt{n/b}` times that. With :math:`\Delta_k` the change of the quantity,
  :math:`w^2 = 4 \sum_k \Delta_k^2 (1 + n_k / (b_k R))`: the run, and the mean of R paths. A bound, since noise in directions that
  training restores is counted as if it stayed.

*Error* ``e``: by how much predicted and corrected readings differ at the step itself, and what every piece before has left behind:
:math:`E = \sum_k \rho_k \tfrac56 z_k (\ell^{pred}_k - \ell^{corr}_k)` in log-odds of the control answers, with their signs; a
quantity is read off the controls with and without it. The factor is that of :math:`\dot y = -\lambda y` in pieces of
:math:`z = \lambda h`: they differ by :math:`z^2 y/2`, and the corrected one errs by :math:`z^3 y/6`, and by :math:`z^3 y/4` more since
it starts with the aim that was taken at the predicted end of the piece before. A piece of length :math:`|\Delta\ell|` tells its own z:
twice the difference over the length, at most 1 (root mean squares over the answers of one name).

*Propagation* :math:`\rho_k`: on a path :math:`d\ell/dt = f(\ell)`, t the sum of learning rates, a small lead or lag is carried on
at the speed of the path, :math:`\delta(t) = \delta(s) f(\ell(t)) / f(\ell(s))`. Speeds are those of the pieces, root mean squares
over the answers of one name. Where a run rests, speeds are noise and :math:`\rho` about 1.

Nothing in it is fitted to any run. Forecasts from before 2026-11-27 have no controls: their error is that at the step alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t

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


def carried(pieces: Rows, layout: Layout | None, of: Of, step: int, rates: Array) -> Carried:
    """The error and the noise of ``pieces`` at ``step`` in the quantity ``of``; 0 where the controls do not know it.

    ``rates (steps,)`` are the learning rates of the run.
    """
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

    moved = _moved(before, layout)
    far = [float(rates[row["from"] : row["from"] + row["steps"]].sum()) for row in before]
    speeds = [size / max(d, 1e-300) for size, d in zip(moved, far, strict=True)]
    ratios = [_over(speeds[-1], v) for v in speeds]
    left = [
        ratio * _err(np.array(row["drift"]), size, layout)
        for ratio, size, row in zip(ratios[:-1], moved[:-1], before[:-1], strict=True)
    ]
    error = changed(np.sum(left, axis=0)) if left else 0.0
    run = path = 0.0
    for ratio, row in zip(ratios, before, strict=True):
        part = share if row is last else 1.0
        square = part * changed(ratio * np.array(row["noise"])) ** 2
        run += square
        path += square * part * row["steps"] / ((row["batches"] + row["started_from"]) / 2.0)
    return Carried(error, run, path)


def _moved(pieces: Rows, layout: Layout) -> list[Array]:
    """How far the controls move in each piece, log-odds: root mean squares over the answers of one name, ``(n,)`` each."""
    ends = [odds(layout.start), *(np.array(row["odds"]) for row in pieces)]
    return [layout.sizes(b - a) for a, b in itertools.pairwise(ends)]


def _err(drift: Array, moved: Array, layout: Layout) -> Array:
    """Error of the corrected controls at the end of a piece, from how far the predicted ones are from them."""
    z = np.minimum(2.0 * _over(layout.sizes(drift), moved), 1.0)
    return np.asarray(5.0 / 6.0 * z * drift)


def _over(one: Array, other: Array) -> Array:
    """The ratio, 1 where there is nothing to divide by."""
    return np.divide(one, other, out=np.ones_like(one), where=other > 0.0)


def half_width(values: Array, errors: Sequence[float], on_the_way: Sequence[Carried]) -> float:
    """Half of the interval of a quantity that R paths give ``values (R,)``; ``errors`` are those of the readings at the step."""
    count = len(values)
    bounds = []
    if count > 1:
        bounds.append(float(values.var(ddof=1)) * (1.0 + 1.0 / count) * float(student_t.ppf(0.975, count - 1)) ** 2)
    if any(c.run > 0.0 for c in on_the_way):
        bounds.append(4.0 * float(np.mean([c.run + c.path / count for c in on_the_way])))
    error = float(np.mean([abs(e) + abs(c.error) for e, c in zip(errors, on_the_way, strict=True)]))
    return math.sqrt(min(bounds, default=0.0) + error**2)
