"""Roles of the language suite: what they are called, and a page that says what the record says."""

from __future__ import annotations

import pytest

from fstsim.errors import InputError
from fstsim.paper import DATA
from fstsim.paper.records.language_roles import BEGIN, END, PAGE, Config, role, roles_table, with_roles
from fstsim.records import read_json

ROW = {"task": "language:plural:x", "empty": 0.001, "empty_se": 0.0001, "log_empty": -7.0, "sampled": 0}
RECORD = {
    "model": "m",
    "problems": 4,
    "environment": {"commit": "0123456789abcdef", "versions": {"transformers": "5"}},
    "rows": [
        {**ROW, "told": 0.3, "told_se": 0.1, "old": 0.2, "old_told": 1e-9},
        {**ROW, "task": "language:text", "kind": "nll", "empty": 4.1234},
    ],
}


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
    table = roles_table(RECORD["rows"])  # type: ignore[arg-type]
    assert "| `language:plural:x` | 0.001 ± 1e-04 | -7.0 | 0.300 | 0.200 | 1e-09 | a context carries it |" in table
    assert "| `language:text` | 4.123 ± 1e-04 nats a token |" in table
    page = with_roles(f"before\n{BEGIN}\nold\n{END}\nafter\n", RECORD)
    assert page.startswith("before\n")
    assert page.endswith("after\n")
    assert "old\n" not in page.replace("old, no context", "").replace("old skill", "")
    assert "commit 0123456789ab," in page
    assert with_roles(page, RECORD) == page
    with pytest.raises(InputError, match="must hold the markers"):
        with_roles("nothing", RECORD)


def test_the_page_shows_the_record() -> None:
    path = DATA / "language" / f"{Config.model}.json"
    page = PAGE.read_text(encoding="utf-8")
    if not path.exists():
        assert f"{BEGIN}\n{END}" in page, "nothing is shown that is not recorded"
        return
    assert page == with_roles(page, read_json(path))
