"""Every column that a recorded run holds is declared, and a name leads to the declaration that it begins with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fstsim.columns import COLUMNS, find_column
from fstsim.trajectory import COLUMNS as MIXTURE

RECORDED = Path(__file__).parents[2] / "paper" / "data"


def test_recorded_columns_are_declared() -> None:
    names = set()
    for path in RECORDED.rglob("seed-0/metrics.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            names |= json.loads(line).keys()
    assert len(names) > 50
    for name in names:
        column = find_column(name)
        assert column is not None, name
        assert column.model is not None, name


@pytest.mark.parametrize(
    ("name", "declared"),
    [
        ("reward_task1_own_context_se", "reward"),
        ("reward_no_context_se", "reward_no_context"),
        ("kl_from_base_no_context_token", "kl_from_base"),
        ("kl_to_base_token", "kl_to_base_token"),
        ("accuracy_star_graph_3", "accuracy_{family}_{rules}"),
        ("old_mass_digits", "old_mass_{family}"),
        ("old_mass_se", "old_mass"),
    ],
)
def test_a_name_leads_to_its_declaration(name: str, declared: str) -> None:
    column = find_column(name)
    assert column is not None
    assert column.name == declared


@pytest.mark.parametrize("name", ["", "tea", "_se", "reward_", "reward_twice", "accuracy", "tea_se"])
def test_what_is_not_declared_is_not_found(name: str) -> None:
    assert find_column(name) is None


def test_declarations() -> None:
    assert len({column.name for column in COLUMNS}) == len(COLUMNS)
    assert all(column.mixture or column.model for column in COLUMNS)
    assert all(column.model for column in COLUMNS if column.table or column.legend)
    assert MIXTURE[:3] == ("step", "time", "samples")
