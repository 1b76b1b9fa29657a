"""Roles of the language suite: what they are called, and their table."""

from __future__ import annotations

import pytest

from fstsim.paper.records.language_roles import role, roles_table

ROW = {"task": "language:plural:x", "empty": 0.001, "empty_se": 0.0001, "log_empty": -7.0, "sampled": 0}
ROWS = [
    {**ROW, "told": 0.3, "told_se": 0.1, "old": 0.2, "old_told": 1e-9},
    {**ROW, "task": "language:text", "kind": "nll", "empty": 4.1234},
]


@pytest.mark.parametrize(
    ("empty", "told", "expected"),
    [
        (0.03, 0.3, "RL finds it"),
        (0.01, 0.0, "RL finds it"),
        (0.001, 0.2, "a context carries it"),
        (1e-7, 0.01, "weights alone reach it"),
    ],
)
def test_roles(empty: float, told: float, expected: str) -> None:
    assert role({"empty": empty, "told": told}) == expected
    assert role({"empty": empty}) == ("old skill" if empty >= 0.01 else "old skill that it lacks")
    assert role({"empty": empty, "kind": "nll"}) == "old skill", "nats, not a probability"


def test_the_table() -> None:
    table = roles_table(ROWS)
    assert "| `language:plural:x` | 0.001 ± 1e-04 | -7.0 | 0.300 | 0.200 | 1e-09 | a context carries it |" in table
    assert "| `language:text` | 4.123 ± 1e-04 nats a token |" in table
