"""How a command speaks: text and tables on stdout, progress with a rate and errors of one line on stderr."""

from __future__ import annotations

import sys
import time
import unicodedata
from typing import Any

from rich.console import Console
from rich.segment import Segment, Segments
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

_WIDTH = 100
_CONTROLS = {"Cc", "Cf", "Cs"}  # control, invisible (writing direction), half of a pair
_QUIET_SECONDS = 10.0  # between lines of progress where there is no terminal


class _Console(Console):
    """One that leaves it to the command line to say that the reader of stdout has gone."""

    def on_broken_pipe(self) -> None:
        """Raise BrokenPipeError, where rich ends the program."""
        raise BrokenPipeError


def printable(text: str) -> str:
    """``text`` with each control character but the end of a line replaced: names and answers cannot steer a terminal."""
    return "".join(c if c == "\n" or unicodedata.category(c) not in _CONTROLS else "\ufffd" for c in text)


def show(*tables: Table | str) -> None:
    """Print tables and lines on stdout, at most 100 columns wide, word for word: neither markup nor control characters act."""
    console = _Console(highlight=False, markup=False, emoji=False)
    console.width = min(_WIDTH, console.width) if sys.stdout.isatty() else _WIDTH
    for table in tables:
        drawn = console.render(table if isinstance(table, Table) else Text(table, overflow="fold"))
        console.print(Segments([Segment(printable(text), style) for text, style, _ in drawn]), end="")


def complain(message: str) -> None:
    """Print one line on stderr, whatever ``message`` holds."""
    sys.stderr.write(f"fstsim: {printable(' '.join(message.split()))}\n")


class Progress:
    """A bar on stderr with rate, time left and a note; without a terminal, a line every ten seconds.

    Nothing is drawn before the first :meth:`at`, so that an error in the input stays the only line.
    """

    def __init__(self, what: str, total: float, unit: str) -> None:
        self._what, self._total, self._unit = what, total, unit
        self._bar: tqdm[Any] | None = None
        self._start = self._spoken = time.monotonic()
        self._first = self._done = self._said = 0.0
        self._note = ""

    def at(self, done: float, note: str = "") -> None:
        """``done`` of the total is done; the first call says where the work begins. An empty note keeps the last one."""
        self._done, self._note = done, printable(note) or self._note
        if sys.stderr.isatty():
            if self._bar is None:
                self._bar = tqdm(
                    total=self._total,
                    initial=done,
                    desc=self._what,
                    unit=self._unit,
                    unit_scale=True,
                    smoothing=0.05,
                    dynamic_ncols=True,
                    leave=False,
                )
            self._bar.set_postfix_str(self._note, refresh=False)
            self._bar.update(done - self._bar.n)
        elif self._spoken == self._start:
            self._first = done
            self._speak()
        elif time.monotonic() - self._spoken > _QUIET_SECONDS:
            self._speak()

    def add(self, amount: float, note: str = "") -> None:
        """``amount`` more is done."""
        self.at(self._done + amount, note)

    def aside(self, *tables: Table | str) -> None:
        """`show` them while the work goes on."""
        if self._bar is not None:
            self._bar.clear()
        show(*tables)
        sys.stdout.flush()
        if self._bar is not None:
            self._bar.refresh()

    def close(self) -> None:
        """Remove the bar; without a terminal, say how far the work has come if that was not said last."""
        if self._bar is not None:
            self._bar.close()
        elif self._spoken != self._start and self._said != self._done:
            self._speak()

    def _speak(self) -> None:
        self._spoken, self._said = time.monotonic(), self._done
        elapsed, made = self._spoken - self._start, self._done - self._first
        left = f", {(self._total - self._done) * elapsed / made:.0f} s left" if made > 0.0 else ""
        where = f"{self._what}: {self._done:,.0f} of {self._total:,.0f} {self._unit.strip()}"
        sys.stderr.write(f"{where}{left}{f' ({self._note})' if self._note else ''}\n")
        sys.stderr.flush()
