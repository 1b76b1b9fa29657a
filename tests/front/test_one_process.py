"""Every command that works in a directory refuses one that another process works in: one line, exit code 2, nothing written.

The other process is real. That the whole command is covered, its picture and tables too, follows from the lock being taken
before anything else: it is refused before it reads what it was given.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fstsim import locks
from fstsim.__main__ import COMMANDS, main

pytestmark = pytest.mark.skipif(os.name != "posix", reason="locks are those of POSIX systems")

HOLD = """
import sys, time
from pathlib import Path
from fstsim.locks import alone_in
with alone_in(Path(sys.argv[1])):
    print("mine", flush=True)
    time.sleep(600)
"""
NEEDED = {"layers": ["no-run"], "faithful": ["no-model"], "experiment": ["core"], "figures": ["geometry"]}
"""Arguments without which a command does not begin; what they name need not be there."""
ELSEWHERE = {"explore": "writes one file, whole or not at all", "model": "makes a folder in another one, tested below"}
WITH_OUT = [name for name, kind in COMMANDS.items() if "out" in {entry.name for entry in dataclasses.fields(kind)}]  # type: ignore[arg-type]  # a command is a dataclass


@pytest.fixture
def taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory that another process works in."""
    monkeypatch.setattr(locks, "_PATIENCE", 0.05)
    place = tmp_path / "taken"
    place.mkdir()
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(place)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "mine\n"
    yield place
    other.kill()
    other.communicate()


def test_every_command_that_works_in_a_directory(taken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tried = [name for name in WITH_OUT if name not in ELSEWHERE]
    assert len(tried) == 12
    for name in tried:
        assert main([name, *NEEDED.get(name, ()), "--out", str(taken)]) == 2, name
        shown = capsys.readouterr()
        (line,) = shown.err.splitlines()
        assert line.startswith(f"fstsim: error: another process is working in {taken}: wait until it has ended"), name
        assert not shown.out, name
        assert not list(taken.iterdir()), name


def test_a_model_is_made_by_one_process(taken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gguf", reason="the package gguf is not installed")
    file = tmp_path / "x.gguf"
    file.write_bytes(b"GGUF")
    assert main(["model", str(file), "--out", str(taken / "model")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"fstsim: error: another process is working in {taken}")
    assert not list(taken.iterdir())


def test_what_ends_before_anything_is_written_leaves_no_directory(tmp_path: Path) -> None:
    assert main(["measure", "--out", str(tmp_path / "new" / "out")]) == 2
    assert not (tmp_path / "new").exists()
