"""Runs commands as a user would, many of them: this process imports everything once, and each command is a fork of it.

`Outcome.fault` says what a user would complain about: a traceback, an error that is not one line with exit code 2, a hang, or
a text that says nothing.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_MEMORY = 12 << 30  # bytes of address space of one command
# progress, and the notes that come before an error
_PROGRESS = re.compile(r"^[a-z][\w -]*: [\d,]+ of [\d,]+ ")


_NEEDED = (
    "fstsim.__main__",
    "fstsim.front.train_flags",
    "fstsim.llm.experiments.run",
    "fstsim.llm.forecast.forecast",
    "fstsim.llm.measure.faithful",
    "fstsim.llm.measure.layers",
    "fstsim.llm.measure.measure",
    "fstsim.llm.pretraining.pretrain",
    "fstsim.llm.runs.run",
    "fstsim.llm.validation.validate",
    "fstsim.paper.experiments.shown",
    "fstsim.paper.records.measure_card",
    "fstsim.paper.records.measure_picture",
    "fstsim.paper.records.run_picture",
    "fstsim.paper.records.sweep_picture",
    "fstsim.paper.records.train_picture",
    "fstsim.paper.report.report",
    "fstsim.theory",
)


@dataclass(frozen=True)
class Outcome:
    """How a command ended: exit code (negative: by that signal), what it wrote, seconds."""

    code: int
    out: str
    err: str
    seconds: float
    hung: bool = False

    @property
    def complaint(self) -> list[str]:
        """Lines on stderr without those of progress."""
        return [line for line in self.err.splitlines() if line and not _PROGRESS.match(line)]

    def fault(self, allowed: Sequence[int] = (0, 2)) -> str:
        """What is wrong with it, in a few words; empty if it was as promised."""
        if self.hung:
            return f"hung for {self.seconds:.0f} s"
        if "Traceback (most recent call last)" in self.err:
            return f"traceback: {self.err.strip().splitlines()[-1][:200]}"
        if self.code not in allowed:
            return f"exit code {self.code}: {' / '.join(self.complaint)[:200]}"
        if self.code and (len(self.complaint) != 1 or not self.complaint[0].startswith("fstsim: ")):
            return f"{len(self.complaint)} lines: {' / '.join(self.complaint)[:200]}"
        if self.code and len(self.complaint[0]) < 30:
            return f"says nothing: {self.complaint[0]}"
        return ""


def warm() -> None:
    """Import what every command needs, so that the forks have it."""
    import matplotlib as mpl

    mpl.use("Agg")
    import torch

    torch.set_num_threads(1)
    for name in _NEEDED:
        importlib.import_module(name)


def run(
    work: Callable[[], int], where: Path, limit: float = 60.0, variables: Mapping[str, str] | None = None
) -> Outcome:
    """``work()`` in a process of its own in folder ``where``; what it returns is the exit code."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.monotonic()
        child = begin(work, where, (out.fileno(), err.fileno()), variables)
        code, hung = wait(child, limit)
        seconds = time.monotonic() - start
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
    return Outcome(code, *texts, seconds, hung)


def command(
    arguments: Sequence[str], where: Path, limit: float = 60.0, variables: Mapping[str, str] | None = None
) -> Outcome:
    """``fstsim ARGUMENTS`` in folder ``where``."""
    return run(lambda: main(arguments), where, limit, variables)


MODULES = {
    "report": "fstsim.paper.report.report",
    "record_runs": "fstsim.paper.records.record_runs",
    "convert": "fstsim.paper.records.convert",
}
"""Commands that are modules, by the word that stands for them here."""


def main(arguments: Sequence[str]) -> int:
    """Exit code of ``fstsim ARGUMENTS``, or of a module of `MODULES`, in this process."""
    import fstsim.__main__

    if arguments[:1] and arguments[0] in MODULES:
        import runpy

        sys.argv = [arguments[0], *arguments[1:]]
        if arguments[0] == "report":
            module = importlib.import_module(MODULES["report"])
            module.FIGURES = {}  # they are drawn of nothing that could be damaged
            _without_recorded()
            return int(module.main())
        try:
            runpy.run_module(MODULES[arguments[0]], run_name="__main__", alter_sys=True)
        except SystemExit as stop:
            return int(stop.code or 0)
    return fstsim.__main__.main(arguments)


def _without_recorded() -> None:
    """The report of the directory alone, without the recorded runs that it shows beside."""
    from fstsim.paper.report import models, runs

    runs.sources.__defaults__ = (Path("/nowhere"),)
    models._bridge = lambda *_: ""  # type: ignore[assignment]  # drawn from many runs: it takes a minute


def begin(
    work: Callable[[], int], where: Path, files: tuple[int, int], variables: Mapping[str, str] | None = None
) -> int:
    """Start ``work`` in a process of its own; returns its id."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()
        os.chdir(where)
        os.environ.update(variables or {})
        with contextlib.suppress(ValueError):
            resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (files[0], 1), (files[1], 2)):
            os.dup2(source, target)
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code & 0xFF)


def wait(child: int, limit: float) -> tuple[int, bool]:
    """Exit code of ``child``, and whether it had to be ended after ``limit`` seconds."""
    end, pause, hung = time.monotonic() + limit, 0.001, False
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), hung
        if time.monotonic() > end and not hung:
            hung = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
        time.sleep(pause)
        pause = min(0.05, 1.5 * pause)
