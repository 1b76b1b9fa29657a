"""Modules with a command line of their own speak and exit as `fstsim` does, from whatever folder they are run in."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from fstsim.errors import InputError
from fstsim.front.entry import run_module
from fstsim.paper import DATA, IMAGES, check_recorded, checkout
from fstsim.paper.bridge import figure

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Flags:
    """Say a number."""

    number: int = 3
    """the number"""


def work(flags: Flags) -> int:
    """An exit code, or an error, by the number."""
    if flags.number < 0:
        raise InputError("number must be at least 0")
    if flags.number == 5:
        raise PermissionError("not allowed here")
    if flags.number == 6:
        raise KeyboardInterrupt
    return flags.number


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        ("", 3, ""),
        ("--number 1", 1, ""),
        ("--number -1", 2, "fstsim: error: number must be at least 0\n"),
        ("--number many", 2, "fstsim: error: --number: 'many' is not a whole number; expected --number INT"),
        ("--nmber 1", 2, "fstsim: error: unknown: --nmber, 1; perhaps you meant --number INT"),
        ("--number 5", 1, "fstsim: error: not allowed here\n"),
        ("--number 6", 130, "fstsim: stopped; start again with: python -m a.module --number 6\n"),
    ],
)
def test_exit_codes(
    words: str, code: int, line: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["module", *words.split()])
    assert run_module("a.module", Flags, work) == code
    err = capfd.readouterr().err
    assert line in err
    assert err.count("\n") == (1 if line else 0)


def test_an_error_is_the_same_line_without_utf_8(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the terminal has no box characters tyro draws other boxes; under capsys it finds none."""
    monkeypatch.setattr(sys, "argv", ["module", "--number", "many"])
    assert run_module("a.module", Flags, work) == 2
    assert capsys.readouterr().err == "fstsim: error: --number: 'many' is not a whole number; expected --number INT\n"


def test_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["module", "--help"])
    assert run_module("a.module", Flags, work) == 0
    said = capsys.readouterr().out
    assert "usage: python -m a.module" in said
    assert "the number (default: 3)" in said


def test_places_of_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert checkout() == ROOT
    assert (DATA, IMAGES) == (ROOT / "paper" / "data", ROOT / "paper" / "images")
    check_recorded(DATA, "--data")
    with pytest.raises(InputError, match=r"no recorded runs at .*none.* name a folder of records with --data"):
        check_recorded(tmp_path / "none", "--data")


def test_recorded_runs_are_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = []
    monkeypatch.setattr(figure, "save_bridge", lambda directory, path: drawn.append(directory) or path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["bridge", "--out", "here"])
    assert figure.main() == 0
    assert drawn == [ROOT / "paper" / "data" / "validation"]
    assert capsys.readouterr().out == "picture: here/bridge.png\n"
