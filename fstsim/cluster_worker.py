"""What a worker of a dask cluster does for a command: it is looked at, works in the command's directories, and stops when told."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from fstsim.errors import InputError

_piece = threading.local()  # whether what this thread does is still wanted
_busy = threading.Lock()  # held while this worker works for us: one piece at a time, however many threads it has


@dataclass(frozen=True)
class Place:
    """Where a command works: its working directory, a file in the directory that is to be shared (if any), and what is in it."""

    home: str
    marker: str = ""
    token: str = ""


class Unwanted(RuntimeError):
    """Nobody waits for this piece any more: its command was stopped, or lost sight of this worker."""


class Moved(RuntimeError):
    """A piece has come to another worker than the one it was given to, which has died."""


def installed() -> str:
    """The version of fstsim here."""
    try:
        return metadata.version("fstsim")
    except metadata.PackageNotFoundError:  # run from its sources alone
        return "unknown"


def look(place: Place, probe: Callable[[], str], dask_worker: Any) -> tuple[str, str, str]:
    """On a worker: its identity, its version of fstsim and what ``probe`` says; InputError if it does not see the directory."""
    _check_shared(place)
    return str(dask_worker.id), installed(), probe()


def _check_shared(place: Place) -> None:
    if not place.marker:
        return
    marker = Path(place.home, place.marker)
    try:
        shared = marker.read_text() == place.token
    except (OSError, ValueError):
        shared = False
    if not shared:
        raise InputError(f"{marker.parent} is not the same directory there: --out must be one that all workers share")


def do(identity: str, place: Place, work: Callable[..., Any], piece: tuple[Any, ...]) -> Any:
    """On a worker: the piece, in the directory in which the command was started."""
    from dask.distributed import get_worker

    worker: Any = get_worker()
    if worker.id != identity:
        raise Moved
    key, tasks = worker.get_current_task(), worker.state.tasks

    def wanted() -> bool:
        task = tasks.get(key)
        return task is not None and task.state == "executing" and worker.status.name in ("running", "paused")

    with _busy, _at_home(place.home):
        _check_shared(place)
        _piece.wanted = wanted
        try:
            check_wanted()
            return work(*piece)
        finally:
            del _piece.wanted


def check_wanted(*_: object) -> None:
    """Raises `Unwanted` on a worker of a cluster whose piece nobody waits for any more; long work asks now and then."""
    wanted = getattr(_piece, "wanted", None)
    if wanted is not None and not wanted():
        raise Unwanted("nobody waits for this any more")


def at_work() -> bool:
    """Whether this worker is at a piece of ours."""
    return _busy.locked()


@contextlib.contextmanager
def _at_home(home: str) -> Iterator[None]:
    """Work in directory ``home`` if it is there, so that relative names mean what they meant to who gave them."""
    before = os.getcwd()
    with contextlib.suppress(OSError):
        os.chdir(home)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.chdir(before)
