"""Seconds of a run, by what they were spent on, and when a checkpoint is worth its time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

_UNSAVED_SECONDS = 30.0  # between measurements too, a run that is killed loses no more than that
_SAVING = 10.0  # at most one part in so many of a run's time goes into checkpoints
_QUICK_SECONDS = 0.5  # unless a checkpoint takes no more than that: then every measurement has one
DISK = 5e8  # bytes a second: what the first checkpoint is expected to take


class Clock:
    """Seconds of a run by what they were ``spent`` on, on top of those before an interruption."""

    def __init__(self, spent: dict[str, float], saving: float) -> None:
        self.spent, self.before = spent, spent["seconds"]
        self.start = self.saved = time.perf_counter()
        self.saving = saving
        """seconds that a checkpoint takes, as far as is known"""

    @contextlib.contextmanager
    def on(self, what: str) -> Iterator[None]:
        """What is done here counts as ``what`` too."""
        started = time.perf_counter()
        yield
        self.spent[what] += time.perf_counter() - started

    def elapsed(self) -> float:
        """Since the run was started or continued."""
        return time.perf_counter() - self.start

    def stop(self) -> None:
        """Bring ``seconds`` up to date, for a checkpoint that is written now."""
        self.spent["seconds"] = self.before + self.elapsed()

    def due(self, measured: bool) -> bool:
        """Whether a checkpoint is worth its time now: at measurements, and where much is unsaved, but for its share of the run."""
        unsaved = time.perf_counter() - self.saved
        wanted = measured or unsaved > _UNSAVED_SECONDS
        return wanted and (self.saving <= _QUICK_SECONDS or unsaved >= (_SAVING - 1.0) * self.saving)

    @contextlib.contextmanager
    def checkpoint(self) -> Iterator[None]:
        """A checkpoint is written here: how long that takes says when the next one is due."""
        started = time.perf_counter()
        yield
        self.saved = time.perf_counter()
        self.saving = self.saved - started
