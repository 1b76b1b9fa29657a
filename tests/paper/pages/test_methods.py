"""What the page of methods brings together exists, and its numbers are those of the records."""

from __future__ import annotations

import fstsim
from fstsim.llm import METHODS as OF_MODELS
from fstsim.llm.validation.kinds import KINDS
from fstsim.paper import DATA
from fstsim.paper.bridge.numbers import read_verdicts
from fstsim.paper.pages.methods import (
    METHODS,
    choose_table,
    counted,
    errors,
    judged_rows,
    method_table,
    of_kinds,
    references,
    statements_of,
)
from fstsim.theory import METHOD_TABLE

JUDGED = read_verdicts(DATA / "validation")


def test_everything_that_is_named_exists() -> None:
    for method in METHODS:
        assert not method.paper or method.paper in references()
        assert not method.objective or hasattr(fstsim, method.objective)
        assert statements_of(method.pages)
        assert set(method.kinds) <= set(KINDS)
        words = method.command.split()
        assert not words or words[1] in OF_MODELS


def test_every_row_of_the_classification_has_one_owner() -> None:
    owned = [row for method in METHODS for row in method.rows]
    assert sorted(owned) == sorted(row.method for row in METHOD_TABLE)


def test_tables_have_a_line_for_each() -> None:
    assert method_table().count("\n") == len(METHODS) + 2
    assert choose_table().count("\n") == len(METHOD_TABLE) + 2
    assert r"\," not in choose_table()


def test_counts_and_errors() -> None:
    replay = of_kinds(JUDGED, ("replay",))
    assert counted(replay) == f"{len(replay)} of {len(replay)} confirmed"
    assert counted([]) == errors([]) == "–"
    worst = max(abs(row.measured - row.value) for row in replay)
    assert errors(replay).endswith(f"at most {worst:.3f}")
    # chapters that came later count too
    own = of_kinds(judged_rows(), ("own-replay", "own-replay-slow"))
    assert own
    assert not of_kinds(JUDGED, ("own-replay",))
    both = errors(of_kinds(JUDGED, ("replay", "escape-adam")))
    assert both.endswith(" nats")
    assert both.count("at most") == 2
