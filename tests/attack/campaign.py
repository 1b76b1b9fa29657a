"""Cases and how many of them are tried at a time; each is a process of its own with a folder of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_LIMIT = 400.0  # seconds for one case with everything around its command


@dataclass(frozen=True)
class Case:
    """``attack(folder)`` returns what was wrong, empty if the product did as promised. ``group`` is a line of the table."""

    group: str
    name: str
    attack: Callable[[Path], str]


@dataclass(frozen=True)
class Result:
    """A case that was tried, and its fault, empty where there is none."""

    group: str
    name: str
    fault: str
    seconds: float


def campaign(cases: Sequence[Case], jobs: int, end: float = float("inf")) -> Iterator[Result]:
    """Results of all cases as they end; none is begun after moment ``end``."""
    waiting = list(reversed(cases))
    running: dict[int, tuple[Case, Path, float]] = {}
    while waiting or running:
        if time.monotonic() > end:
            waiting.clear()
        while waiting and len(running) < jobs:
            case = waiting.pop()
            folder = Path(tempfile.mkdtemp(prefix="fstsim-attack-"))
            folder.chmod(0o755)
            running[_begin(case, folder)] = (case, folder, time.monotonic())
        for child, (case, folder, start) in list(running.items()):
            done, status = os.waitpid(child, os.WNOHANG)
            late = time.monotonic() - start > _LIMIT
            if not done and late:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
                done, status = os.waitpid(child, 0)
            if done:
                del running[child]
                said = folder / "fault"
                if said.exists():
                    fault = said.read_text(encoding="utf-8")
                else:
                    fault = "hung" if late else f"the attack itself failed with status {status}"
                shutil.rmtree(folder, ignore_errors=True)
                yield Result(case.group, case.name, fault, time.monotonic() - start)
        time.sleep(0.01)


def _begin(case: Case, folder: Path) -> int:
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    try:
        try:
            (folder / "work").mkdir()
            (folder / "work").chmod(0o777)
            fault = case.attack(folder / "work")
        except BaseException:
            fault = f"the attack itself failed: {traceback.format_exc().strip()[-600:]}"
        (folder / "fault.new").write_text(fault, encoding="utf-8", errors="replace")
        (folder / "fault.new").rename(folder / "fault")
    finally:
        os._exit(0)


def table(results: Sequence[Result]) -> list[dict[str, object]]:
    """Tried and clean of every group, in the order in which the groups came first."""
    tried = Counter(result.group for result in results)
    clean = Counter(result.group for result in results if not result.fault)
    return [{"group": group, "tried": count, "clean": clean[group]} for group, count in tried.items()]
