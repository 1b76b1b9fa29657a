"""Random search for a violation of the statements: the engine of ``fstsim check``."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fstsim.errors import InputError
from fstsim.theory.statements.statement import Sample, Statement

Array = NDArray[np.float64]
Spread = tuple[float, float, float]

_FLOOR = 1e-290  # far below any value that matters: what is left there is rounding, and has no ratio
_BLOCK = 2000  # instances evaluated together: bounds memory, and how long the progress bar stands still


@dataclass(frozen=True)
class CheckResult:
    """What a search over random instances of one statement found.

    ``skipped`` counts instances about which the statement says nothing (no certificate). ``upper`` is
    ``(min, median, max)`` of upper bound / actual, ``lower`` the same of actual / lower bound: at least 1 where the
    statement holds, and near 1 where it is tight. For an approximation ``upper`` is approximation / actual and nothing
    can be violated. ``worst`` is the instance nearest to a violation (or the worst violation).
    """

    slug: str
    title: str
    status: str
    kind: str
    examples: int
    skipped: int
    violations: int
    seconds: float
    upper: Spread | None
    lower: Spread | None
    worst: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As a JSON-ready dict."""
        return asdict(self)


def examples_of(statement: Statement, examples: int) -> int:
    """How many instances a check of ``statement`` draws when ``examples`` are asked for."""
    return examples if statement.max_examples is None else min(examples, statement.max_examples)


def _ratios(statement: Statement, sample: Sample) -> tuple[Array, Array, Array]:
    """``(upper / actual, actual / lower, violated)`` over the instances that the statement speaks about."""
    exact = np.asarray(statement.exact(**sample), dtype=np.float64)
    lower, upper = statement.bound(**sample)
    spoken = np.isfinite(exact)
    for bound in (lower, upper):
        if bound is not None:
            spoken &= ~np.isnan(bound)
    nothing = np.full(exact.shape, np.nan)
    # rounding of a quantity that may vanish: relative to the value, with a floor far below any value that matters
    slack = statement.tolerance * np.abs(exact) + _FLOOR
    violated = np.zeros(exact.shape, dtype=bool)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if upper is None:
            above = nothing
        else:
            above = np.where(spoken & (np.maximum(np.abs(exact), np.abs(upper)) > _FLOOR), upper / exact, np.nan)
        below = nothing if lower is None else np.where(spoken & (np.abs(lower) > _FLOOR), exact / lower, np.nan)
        if statement.kind != "approximation":
            if upper is not None:
                violated |= spoken & (exact > upper + slack)
            if lower is not None:
                violated |= spoken & (exact < lower - slack)
    # a non-finite exact value is a failure of the code, unless the statement marked it as nan
    violated |= np.isinf(exact)
    return above, below, violated


def _spread(values: Array) -> Spread | None:
    finite = values[~np.isnan(values)]
    if finite.size == 0:
        return None
    return float(finite.min()), float(np.median(finite)), float(finite.max())


def _closeness(above: Array, below: Array, kind: str) -> Array:
    """Larger is closer to a violation; nan where nothing is said."""
    if kind == "approximation":
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.abs(np.log(above))
    return -np.fmin(above, below)


def check_statement(
    statement: Statement,
    examples: int,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> CheckResult:
    """Draw ``examples`` random instances of ``statement`` and compare exact values with bounds.

    ``progress(k)`` is called with the number of instances just done. The same ``seed`` gives the same instances.
    Raises InputError unless ``examples >= 1``.
    """
    if examples < 1:
        raise InputError(f"examples must be at least 1, got {examples}")
    start = time.perf_counter()
    examples = examples_of(statement, examples)
    # the slug is part of the seed, so that a statement meets the same instances alone or among others
    rng = np.random.default_rng([seed, *statement.slug.encode()])
    above_parts, below_parts = [], []
    violations, done = 0, 0
    worst: dict[str, Any] = {}
    worst_key = -np.inf
    while done < examples:
        n = min(_BLOCK, examples - done)
        sample = statement.sample(rng, n)
        above, below, violated = _ratios(statement, sample)
        violations += int(violated.sum())
        above_parts.append(above)
        below_parts.append(below)
        key = np.where(violated, 1e300, np.nan_to_num(_closeness(above, below, statement.kind), nan=-np.inf))
        best = int(np.argmax(key))
        if key[best] > worst_key:
            worst_key = float(key[best])
            worst = {name: np.asarray(value)[best].tolist() for name, value in sample.items()}
        done += n
        if progress is not None:
            progress(n)
    above, below = np.concatenate(above_parts), np.concatenate(below_parts)
    return CheckResult(
        statement.slug,
        statement.title,
        statement.status,
        statement.kind,
        examples,
        int((np.isnan(above) & np.isnan(below)).sum()),
        violations,
        time.perf_counter() - start,
        _spread(above),
        None if statement.kind == "approximation" else _spread(below),
        worst,
    )
