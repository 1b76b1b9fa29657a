"""Tightness in words, from records written by hand."""

from __future__ import annotations

from typing import Any

import pytest

from fstsim.tightness import Wording, deviations, tightness

WORDING = Wording("above", "below", ", ", "sign", "{low}..{high} around {middle}", "{:.2f}".format, "{:+.0f}".format)


def check(kind: str, upper: Any = None, lower: Any = None) -> dict[str, Any]:
    """The columns of a record that are read."""
    return {"kind": kind, "upper": upper, "lower": lower}


@pytest.mark.parametrize(
    ("record", "wanted"),
    [
        (check("identity", (1.0, 1.0, 1.0), (1.0, 1.0, 1.0)), "equal"),
        (check("bound", (1.0, 1.5, 9.0)), "above 1.00–1.50"),
        (check("bound", (1.0, 1.5, 9.0), (1.25, 2.0, 8.0)), "above 1.00–1.50, below 1.25–2.00"),
        (check("bound"), "sign"),
        (check("approximation", (0.5, 1.0, 1.25)), "-50..+25 around +0"),
    ],
)
def test_every_kind_of_claim(record: dict[str, Any], wanted: str) -> None:
    assert tightness(record, WORDING) == wanted


def test_only_approximations_deviate() -> None:
    assert deviations(check("approximation", (0.5, 1.0, 1.25))) == (-50.0, 0.0, 25.0)
    assert deviations(check("bound", (1.0, 1.5, 9.0))) is None
