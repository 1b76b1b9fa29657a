"""Lists of the documentation have what the code has, in its order."""

from __future__ import annotations

import re

from fstsim.__main__ import COMMANDS
from fstsim.columns import COLUMNS
from fstsim.paper.pages.lists import column_table, command_table


def test_every_command_is_listed_with_its_help() -> None:
    rows = re.findall(r"^\| `fstsim (\S+)` \| (.+) \|$", command_table(), re.M)
    assert [name for name, _ in rows] == list(COMMANDS)
    assert [name for name, about in rows if len(about) < 20] == []


def test_every_column_is_listed() -> None:
    names = re.findall(r"^\| `(\S+)` \|", column_table(), re.M)
    assert names == [column.name for column in COLUMNS]
    assert "&#124;" not in column_table()
