"""Work in several processes that end with the one that started them.

A process that is killed outright cannot tell its workers; without this they would go on, and write beside whoever continues.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

_T = TypeVar("_T")
_LOOK = 0.1  # seconds between two looks at the parent
_watched = threading.Lock()


class WorkerKilled(RuntimeError):
    """A worker was ended from outside, by the system for want of memory for example."""


def end_with(parent: int) -> None:
    """End this worker as soon as process ``parent``, which started it, is no more."""
    # Not by PR_SET_PDEATHSIG, which acts when the thread ends that started the worker: joblib starts some from others.
    if _watched.acquire(blocking=False):
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os._exit(1)


def _run(parent: int, work: Callable[..., _T], arguments: tuple[Any, ...]) -> _T:
    if os.getpid() != parent:  # joblib runs single pieces in this process
        end_with(parent)
    return work(*arguments)


def ending_with_parent(work: Callable[..., _T], *piece: Any) -> Any:
    """``work(*piece)`` for `joblib.Parallel` with processes of this machine, which end with this one."""
    import joblib  # here and below: commands without workers, which know `WorkerKilled`, do not wait for it

    return joblib.delayed(_run)(os.getpid(), work, piece)


@contextlib.contextmanager
def killed_are_told() -> Iterator[None]:
    """Raises `WorkerKilled` if a process of what is inside was ended from outside."""
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    try:
        yield
    except TerminatedWorkerError as error:
        raise WorkerKilled("a worker process was killed, for want of memory perhaps") from error


def in_processes(work: Callable[..., _T], pieces: Iterable[tuple[Any, ...]], jobs: int = -1) -> Iterator[_T]:
    """``work(*piece)`` for each of ``pieces`` as they are finished, in ``jobs`` processes (-1: one a core).

    Raises `WorkerKilled` if a process was ended from outside.
    """
    import joblib

    parallel = joblib.Parallel(n_jobs=jobs, prefer="processes", return_as="generator_unordered")
    with killed_are_told():
        yield from parallel(ending_with_parent(work, *piece) for piece in pieces)
