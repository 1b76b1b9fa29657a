"""What a command says is said word for word: markup and control characters in names, answers and errors do nothing."""

from __future__ import annotations

import pytest
from rich.table import Table

from fstsim.front.console import Progress, complain, printable, show

HOSTILE = "a[red]b[/b] \x1b[31mc\x1b]0;title d\u202ee :smile:"
HARMLESS = "a[red]b[/b] \ufffd[31mc\ufffd]0;title d\ufffde :smile:"


def test_lines_and_tables_are_printed_word_for_word(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(title=HOSTILE, caption=HOSTILE)
    table.add_column(HOSTILE, no_wrap=True)
    table.add_row(HOSTILE)
    show(HOSTILE, table, "two\nlines")
    said = capsys.readouterr().out
    assert said.startswith(HARMLESS + "\n")
    assert said.endswith("\ntwo\nlines\n")
    assert said.count(HARMLESS) == 5
    assert "\x1b" not in said


def test_errors_and_progress_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    complain(f"error: {HOSTILE}\nmore")
    progress = Progress("work", 2, "parts")
    progress.add(1, HOSTILE)
    progress.close()
    complained, worked = capsys.readouterr().err.splitlines()
    assert complained == f"fstsim: error: {HARMLESS} more"
    assert worked.endswith(f"({HARMLESS})")


def test_what_people_write_stays() -> None:
    text = "Grüße, ‖ ← λ ✓ 漢字\n"
    assert printable(text) == text
    assert printable("\ud800") == "\ufffd"
