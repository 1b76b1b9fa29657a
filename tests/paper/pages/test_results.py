"""The lines of the first screen: eight, each with numbers of the records, and none of them typed."""

from __future__ import annotations

import inspect
import re

from fstsim.paper.pages import results
from fstsim.paper.pages.results import LINES, Records, result_lines


def test_there_are_eight_and_each_has_a_number() -> None:
    lines = result_lines().splitlines()
    assert len(lines) == len(LINES) == 8
    assert [line for line in lines if not re.search(r"\d", line)] == []


def test_no_number_is_typed() -> None:
    for line in LINES:
        text = re.findall(r'f?"([^"]*)"', inspect.getsource(line))
        words = " ".join(re.sub(r"\{[^}]*\}", "", part) for part in text if " " in part)
        assert re.findall(r"\d", words) == [], line.__name__


def test_they_follow_the_records() -> None:
    records = Records()
    (worst,) = [row for row in records.verdicts if row.name == records.kind("replay")[-1].name]
    assert f"{worst.measured:.3f}" in results._rest(records)
    assert records.cells["speed"].rows[3][4].split()[0] in results._fast_slow(records)
