"""Workers end with the process that started them, and one that is killed is said in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fstsim.workers import in_processes

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX systems")

WORK = """
import os, sys, time
from pathlib import Path
from fstsim.workers import in_processes

def work(place, name):
    for k in range(600):
        (place / f"{name}-{os.getpid()}").write_text(str(k))
        time.sleep(0.05)
"""
SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from slow_work import work
from fstsim.front.entry import exit_code
from fstsim.workers import in_processes
place = Path(sys.argv[1])
sys.exit(exit_code(lambda: len(list(in_processes(work, [(place / "out", k) for k in range(2)], 2))), lambda: "continue with: X"))
"""


def test_results_come_as_they_are_finished() -> None:
    assert sorted(in_processes(abs, [(-1,), (2,), (-3,)], 2)) == [1, 2, 3]
    assert list(in_processes(abs, [], 2)) == []


def begun(tmp_path: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """A process with two workers that write every 50 ms, and their ids."""
    (tmp_path / "slow_work.py").write_text(WORK)
    (tmp_path / "out").mkdir()
    path = {**os.environ, "PYTHONPATH": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], stderr=subprocess.PIPE, text=True, env=path
    )
    deadline = time.monotonic() + 60.0
    while len(list((tmp_path / "out").iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    return process, [int(path.name.rpartition("-")[2]) for path in (tmp_path / "out").iterdir()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked up in /proc")
def test_kill_9_of_the_parent_ends_the_workers(tmp_path: Path) -> None:
    process, workers = begun(tmp_path)
    assert len(workers) == 2
    assert all(map(alive, workers))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 10.0
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(alive, workers))


def test_a_killed_worker_is_one_line(tmp_path: Path) -> None:
    process, workers = begun(tmp_path)
    os.kill(workers[0], signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err == "fstsim: error: a worker process was killed, for want of memory perhaps; continue with: X\n"
