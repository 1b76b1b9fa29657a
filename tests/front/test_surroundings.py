"""Outputs that are full or closed, terminals without UTF-8, and Ctrl-C while modules are imported: one line, the right code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a shell and the devices of Linux")

CHECK = "-m fstsim check --examples 3 --statement drift-along-flow"


def shell(after: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f'"$0" {CHECK} {after}; exit ${{PIPESTATUS[0]}}', sys.executable],
        env={**os.environ, **variables}, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("after", "code", "says"),
    [("> /dev/full", 1, "the output cannot be written: No space left"), (">&-", 0, ""), (">&- 2>&-", 0, ""), ("| true", 1, "")],
)  # fmt: skip
def test_outputs_that_take_nothing(after: str, code: int, says: str) -> None:
    done = shell(after)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("check: ")]
    assert done.returncode == code
    assert len(lines) == (1 if says else 0)
    assert says in done.stderr


def test_a_terminal_without_these_characters() -> None:
    done = shell("", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "drift-along-flow" in done.stdout


@pytest.mark.parametrize("seconds", [0.05, 0.5])
def test_ctrl_c_while_modules_are_imported(seconds: float) -> None:
    # it says so when it imports numpy, which it does after its own first module: how long Python takes to start is not ours
    code = (
        "import sys, runpy, signal; sys.orig_argv[1:3] = ['-m', 'fstsim']; told = []\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # where pytest itself runs without Ctrl-C
        "def hook(event, args):\n"
        "    if event == 'import' and args[0] == 'numpy' and not told:\n"
        "        told.append(1); print(flush=True)\n"
        "sys.addaudithook(hook); runpy.run_module('fstsim', run_name='__main__', alter_sys=True)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "check", "--examples", "9999999"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    lines = [line for line in err.splitlines() if not line.startswith("check: ")]
    assert process.returncode == 130
    assert lines == ["fstsim: stopped; start again with: fstsim check --examples 9999999"]
