"""Every statement, whatever it says: it derives, its random instances hold, and a wrong bound would be noticed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fstsim import InputError
from fstsim.theory import ALL_STATEMENTS, Statement, check_statement, examples_of, find_statements

ROOT = Path(__file__).parents[3]
EACH = pytest.mark.parametrize("statement", ALL_STATEMENTS, ids=lambda s: s.slug)

# Statements whose instances each need a flow cost milliseconds an instance; the others microseconds.
EXAMPLES = 300
# the dearest of them, of which 4000 are looked at by the slow tests only
FLOWS = {"reverse-weight-flow", "replay-reverse"}


@EACH
def test_derivation_is_proved_or_says_that_it_proves_nothing(statement: Statement) -> None:
    derivation = statement.derive()
    assert derivation.claims
    assert derivation.proved == (derivation.method != "none")


@EACH
def test_random_instances_hold(statement: Statement) -> None:
    result = check_statement(statement, EXAMPLES, seed=1)
    assert result.violations == 0, result.worst
    assert result.examples == examples_of(statement, EXAMPLES)
    assert result.skipped < result.examples  # it speaks about something


@EACH
def test_description_is_complete(statement: Statement) -> None:
    assert statement.latex
    assert statement.hypotheses
    assert statement.source
    assert statement.status in {"T", "A", "N"}
    assert (ROOT / statement.test).is_file(), statement.test


def test_slugs_are_unique() -> None:
    slugs = [s.slug for s in ALL_STATEMENTS]
    assert len(slugs) == len(set(slugs))
    assert find_statements(slugs[3]) == (ALL_STATEMENTS[3],)
    with pytest.raises(InputError, match="allowed: logistic-normal"):
        find_statements("no-such-statement")


# What a bound that is wrong by the given factor must lead to: the search is worth something only if it finds it.
@pytest.mark.parametrize(
    "statement",
    [
        pytest.param(s, marks=pytest.mark.slow) if s.slug in FLOWS else s
        for s in ALL_STATEMENTS
        if s.kind != "approximation" and s.max_examples is None
    ],
    ids=lambda s: s.slug,
)
def test_a_broken_bound_is_found(statement: Statement) -> None:
    exact: list[Any] = []
    bounds: list[Any] = []

    def kept(function: Callable[..., Any], values: list[Any]) -> Callable[..., Any]:
        def call(**instances: np.ndarray) -> Any:
            values.append(function(**instances))
            return values[-1]

        return call

    # the same seed gives the same instances: what is dear is computed once
    tight = check_statement(
        replace(statement, exact=kept(statement.exact, exact), bound=kept(statement.bound, bounds)), 4000, seed=2
    )
    # break whichever side comes closest to the exact value, by twice its distance from it
    upper = tight.upper[0] if tight.upper else np.inf
    lower = tight.lower[0] if tight.lower else np.inf
    margin = min(upper, lower)
    assert margin < 3.0, "no instance comes near the bound: the sample is too easy to find an error"

    def broken(**_: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
        low, high = bounds.pop(0)
        factor = 1.05 * margin
        return (
            None if low is None or upper < lower else low * factor,
            None if high is None or upper > lower else high / factor,
        )

    again = replace(statement, exact=lambda **_: exact.pop(0), bound=broken)
    assert check_statement(again, 4000, seed=2).violations > 0
    assert not exact
    assert not bounds


def test_same_seed_same_result_and_independent_of_the_company() -> None:
    statement = find_statements("misassignment")[0]
    first, second = check_statement(statement, 2500, seed=7), check_statement(statement, 2500, seed=7)
    assert (first.upper, first.lower, first.worst) == (second.upper, second.lower, second.worst)
    assert check_statement(statement, 2500, seed=8).worst != first.worst


def test_infinite_exact_value_is_a_violation() -> None:
    statement = find_statements("misassignment")[0]
    broken = replace(statement, exact=lambda log_odds, delta: np.full(delta.shape, np.inf))  # noqa: ARG005
    assert check_statement(broken, 10).violations == 10


def test_examples_must_be_positive() -> None:
    with pytest.raises(InputError, match="examples must be at least 1"):
        check_statement(ALL_STATEMENTS[0], 0)
