r"""Property tests for *your* forgetting bound or objective, with Hypothesis.

Strategies draw problems, states, mixtures and gaps that satisfy the package's own hypotheses; `check_claim` compares a
claim with the exact value on many of them and reports violations, the simplest violating instance and the tightness.

Example: is ``exp(-delta^2 / 8)`` an upper bound on the probability that the mixture takes an old sample for a new one?

>>> import math
>>> from hypothesis import strategies as st
>>> from fstsim.overlap import misassignment_probability
>>> from fstsim.testing import check_claim, log_odds, separations
>>> report = check_claim(
...     claim=lambda s, delta: math.exp(-(delta**2) / 8),
...     exact=lambda s, delta: misassignment_probability(s, delta),
...     instances=st.fixed_dictionaries({"s": log_odds(), "delta": separations()}),
...     kind="upper",
... )
>>> report.holds  # no: it forgets the odds of the old mode
False
>>> report = check_claim(
...     claim=lambda s, delta: 0.5 * math.exp(-s / 2 - delta**2 / 8),
...     exact=lambda s, delta: misassignment_probability(s, delta),
...     instances=st.fixed_dictionaries({"s": log_odds(), "delta": separations()}),
...     kind="upper",
... )
>>> report.holds
True

An objective of your own (anything with the methods of `fstsim.Objective`) is tested by `check_gradient`, which compares
its gradient with differences of its value. Needs the `hypothesis` package (``pip install fstsim[test]``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import strategies as st
from scipy.special import logit

from fstsim.errors import InputError
from fstsim.mixtures import GaussianMixture
from fstsim.objectives import Objective
from fstsim.two_mode import TwoModeProblem, TwoModeState

Kind = Literal["upper", "lower", "equal"]


def log_odds(limit: float = 7.0) -> st.SearchStrategy[float]:
    """Log-odds of the old mode in [-limit, limit]."""
    return st.floats(-limit, limit)


def masses(least: float = 0.01) -> st.SearchStrategy[float]:
    """Weights in [least, 1 - least]."""
    return st.floats(least, 1.0 - least)


def separations(least: float = 0.1, most: float = 12.0) -> st.SearchStrategy[float]:
    """Mahalanobis separations."""
    return st.floats(least, most)


def reward_gaps(limit: float = 5.0) -> st.SearchStrategy[float]:
    """Reward of the new behaviour minus that of the old one, in [-limit, limit]."""
    return st.floats(-limit, limit)


def temperatures(least: float = 0.05, most: float = 20.0) -> st.SearchStrategy[float]:
    """Positive temperatures and KL weights."""
    return st.floats(least, most)


def _covariance(draw: st.DrawFn, dimension: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A well-conditioned covariance: identity plus a random Gram matrix."""
    entries = draw(st.lists(st.floats(-1.0, 1.0), min_size=dimension**2, max_size=dimension**2))
    root = np.array(entries).reshape(dimension, dimension)
    return 0.5 * np.eye(dimension) + root @ root.T


def _vector(draw: st.DrawFn, dimension: int, limit: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array(draw(st.lists(st.floats(-limit, limit), min_size=dimension, max_size=dimension)))


@st.composite
def two_mode_problems(
    draw: st.DrawFn, max_dimension: int = 3, least_separation: float = 0.1, most_separation: float = 10.0
) -> TwoModeProblem:
    """Problems in 1 to ``max_dimension`` dimensions with any covariance and a Mahalanobis separation in the given range."""
    dimension = draw(st.integers(1, max_dimension))
    covariance = _covariance(draw, dimension)
    old = _vector(draw, dimension, 3.0)
    direction = _vector(draw, dimension, 1.0)
    if not np.linalg.norm(direction) > 1e-3:
        direction = np.eye(dimension)[0]
    length = np.sqrt(direction @ np.linalg.solve(covariance, direction))
    new = old + direction * (draw(st.floats(least_separation, most_separation)) / length)
    return TwoModeProblem(draw(masses(0.05)), old, new, covariance)


@st.composite
def two_mode_states(draw: st.DrawFn, problem: TwoModeProblem, largest_error: float = 2.0) -> TwoModeState:
    """Unbatched learners of ``problem`` whose means are off by at most ``largest_error`` in each whitened coordinate."""
    errors = [problem.unwhiten(_vector(draw, problem.dimension, largest_error)) for _ in range(2)]
    return TwoModeState(logit(draw(masses())), problem.mean_old + errors[0], problem.mean_new + errors[1])


@st.composite
def gaussian_mixtures(
    draw: st.DrawFn, max_components: int = 4, max_dimension: int = 3, own_covariance: bool = True
) -> GaussianMixture:
    """Mixtures of 1 to ``max_components`` components, with a covariance each or one for all."""
    components, dimension = draw(st.integers(1, max_components)), draw(st.integers(1, max_dimension))
    raw = np.array(draw(st.lists(st.floats(0.05, 1.0), min_size=components, max_size=components)))
    means = np.stack([_vector(draw, dimension, 4.0) for _ in range(components)])
    if own_covariance:
        covariance = np.stack([_covariance(draw, dimension) for _ in range(components)])
    else:
        covariance = _covariance(draw, dimension)
    return GaussianMixture(raw / raw.sum(), means, covariance)


@dataclass(frozen=True)
class ClaimReport:
    """What a search for a violation found.

    ``tightness`` is (min, median, max) of claim / exact for an upper bound, exact / claim for a lower one, and of the
    relative deviation for an equality; None when no instance had a positive finite ratio. ``worst`` is the instance
    nearest to a violation (or violating most), ``simplest`` the smallest violating instance that Hypothesis could find.
    """

    kind: Kind
    examples: int
    violations: int
    tightness: tuple[float, float, float] | None
    worst: Mapping[str, Any]
    simplest: Mapping[str, Any] | None

    @property
    def holds(self) -> bool:
        """No violation was found (which proves nothing)."""
        return self.violations == 0

    def __str__(self) -> str:
        spread = "no ratios" if self.tightness is None else "{:.3g} / {:.3g} / {:.3g}".format(*self.tightness)
        head = f"{self.kind}: {self.violations} violations in {self.examples} instances, tightness {spread}"
        return head if self.simplest is None else f"{head}; simplest violation {dict(self.simplest)}"


def check_claim(
    claim: Callable[..., Any],
    exact: Callable[..., Any],
    instances: st.SearchStrategy[dict[str, Any]],
    kind: Kind = "upper",
    examples: int = 300,
    tolerance: float = 1e-9,
) -> ClaimReport:
    """Compare ``claim(**instance)`` with ``exact(**instance)`` on ``examples`` instances drawn from ``instances``.

    ``kind`` says what is claimed: an upper bound, a lower bound, or equality. ``tolerance`` is the relative error of the
    numerics on both sides. A nan on either side of an instance is a violation. Raises InputError on an unknown kind,
    ``examples < 1`` or a negative tolerance; errors of the two functions are passed on.
    """
    if kind not in get_args(Kind):
        raise InputError(f"kind must be one of {', '.join(get_args(Kind))}; got {kind!r}")
    if examples < 1 or not tolerance >= 0.0:
        raise InputError(f"examples must be at least 1 and tolerance nonnegative, got {examples} and {tolerance}")
    seen: list[tuple[float, bool, dict[str, Any]]] = []
    last_violation: dict[str, Any] = {}

    def look(instance: dict[str, Any]) -> bool:
        claimed, true = float(claim(**instance)), float(exact(**instance))
        slack = tolerance * max(abs(claimed), abs(true))
        above, below = claimed >= true - slack, claimed <= true + slack
        holds = {"upper": above, "lower": below, "equal": above and below}[kind]
        with np.errstate(divide="ignore", invalid="ignore"):
            if kind == "equal":
                ratio = abs(claimed - true) / max(abs(true), 1e-300)
            else:
                ratio = float(np.float64(claimed) / true if kind == "upper" else np.float64(true) / claimed)
        seen.append((ratio, bool(holds), instance))
        return bool(holds)

    how: dict[str, Any] = {
        "max_examples": examples,
        "deadline": None,
        "database": None,
        "verbosity": Verbosity.quiet,
        "suppress_health_check": list(HealthCheck),
    }

    # first every instance, whatever it shows; then the same claim again, for Hypothesis to shrink a violation
    @settings(**how, phases=[Phase.generate])
    @given(instances)
    def collect(instance: dict[str, Any]) -> None:
        look(instance)

    collect()
    drawn = list(seen)
    violations = sum(not holds for _, holds, _ in drawn)

    @settings(**how, print_blob=False)
    @given(instances)
    def shrink(instance: dict[str, Any]) -> None:
        if not look(instance):
            last_violation.clear()
            last_violation.update(instance)
            raise AssertionError

    if violations:
        with suppress(AssertionError):
            shrink()
    ratios = np.array([ratio for ratio, _, _ in drawn])
    finite = ratios[np.isfinite(ratios) & (ratios > 0.0)]
    closeness = ratios if kind == "equal" else -ratios
    failed = np.array([not holds for _, holds, _ in drawn])
    order = np.where(failed, np.inf, np.nan_to_num(closeness, nan=-np.inf))
    return ClaimReport(
        kind,
        len(drawn),
        violations,
        (float(finite.min()), float(np.median(finite)), float(finite.max())) if finite.size else None,
        drawn[int(np.argmax(order))][2],
        dict(last_violation) or None,
    )


def check_gradient(
    objective: Callable[[TwoModeProblem], Objective], examples: int = 100, tolerance: float = 1e-5
) -> ClaimReport:
    """Compare the gradient of ``objective(problem)`` with central differences of its value, on random problems and states.

    The two derivatives along a random direction must agree to ``tolerance`` relative to the length of the gradient.
    """

    @st.composite
    def places(draw: st.DrawFn) -> dict[str, Any]:
        problem = draw(two_mode_problems(least_separation=0.5))
        state = draw(two_mode_states(problem))
        return {"problem": problem, "state": state, "direction": _vector(draw, 1 + 2 * problem.dimension, 1.0)}

    def pieces(problem: TwoModeProblem, direction: Any) -> tuple[float, Any, Any]:
        d = problem.dimension
        return direction[0], direction[1 : 1 + d], direction[1 + d :]

    def scale(problem: TwoModeProblem, state: TwoModeState) -> float:
        g = objective(problem).gradient(state)
        return float(np.sqrt(g.log_odds**2 + (g.mean_old**2).sum() + (g.mean_new**2).sum())) + 1e-6

    def along(problem: TwoModeProblem, state: TwoModeState, direction: Any) -> float:
        g = objective(problem).gradient(state)
        s, old, new = pieces(problem, direction)
        slope = float(g.log_odds * s + g.mean_old @ old + g.mean_new @ new)
        return 1.0 + slope / scale(problem, state)

    def difference(problem: TwoModeProblem, state: TwoModeState, direction: Any) -> float:
        step = 1e-5
        s, old, new = pieces(problem, direction)
        moved = [
            TwoModeState(state.log_odds + h * s, state.mean_old + h * old, state.mean_new + h * new)
            for h in (step, -step)
        ]
        values = [float(objective(problem).value(m)) for m in moved]
        return 1.0 + (values[0] - values[1]) / (2.0 * step) / scale(problem, state)

    return check_claim(along, difference, places(), "equal", examples, tolerance)
