"""One process at a time in a directory, and temporary files that are told from what a dead process left.

Both are locks of the kernel on an open file (flock): it takes them back when their process ends, however that ends, so that
there is no file to clear and a dead owner is in nobody's way. Where a system or a file system has no such locks, none are
taken, and no temporary file is cleared.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fstsim.errors import InputError

LOCKS = os.name == "posix"
"""Whether this system has them; Windows has others."""
if LOCKS:
    import fcntl

_PATIENCE = 2.0  # seconds: workers of a killed parent need a moment to end
_TEMPORARY = re.compile(r"\..*\.\d+-[0-9a-f]{8}\.tmp")
_NAME = 40  # characters of a file's name in that of its temporary file, which must not get too long
_BUSY = {errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK}

_held: set[tuple[int, int, int]] = set()  # (thread, device, inode) of the directories that this process works in


@contextlib.contextmanager
def alone_in(path: Path, patience: float | None = None) -> Iterator[None]:
    """Work in directory ``path`` as the only process; temporary files that dead processes left in it are removed first.

    Within a thread it may be asked for again. Raises InputError if another process still works there after ``patience``
    seconds (2 by default).
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        told = os.fstat(handle)
        mine = (threading.get_ident(), told.st_dev, told.st_ino)
        if mine in _held:
            yield
            return
        if not _locked(handle, _PATIENCE if patience is None else patience):
            raise InputError(f"another process is working in {path}: wait until it has ended, or choose another --out")
        _held.add(mine)
        try:
            remove_leftovers(path)
            yield
        finally:
            _held.discard(mine)
    finally:
        os.close(handle)


def _locked(handle: int, patience: float = 0.0) -> bool:
    """Whether the open file ``handle`` is ours alone; True where there are no locks."""
    if not LOCKS:
        return True
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _BUSY:  # a file system without locks
                return True
        else:
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(0.02)


@contextlib.contextmanager
def temporary_file(path: Path) -> Iterator[tuple[IO[bytes], Path]]:
    """A new file beside ``path`` to write to, and its place; it is locked until the end, and removed if it is still there.

    Whoever renames it to ``path`` does so inside, so that it is never taken for what a dead process left.
    """
    while True:
        temporary = path.parent / f".{path.name[:_NAME]}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
        # by os.open and not by tempfile, whose files nobody else may read: who may, the umask says
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        _locked(handle)
        if os.fstat(handle).st_nlink:
            break
        os.close(handle)  # it was cleared in the moment before it was locked
    try:
        with os.fdopen(handle, "wb") as file:
            yield file, temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """As `temporary_file`, a folder: who may read it, the umask says; what is still there at the end is removed."""
    handle = -1
    while True:
        temporary = path.parent / f".{path.name[:_NAME]}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
        temporary.mkdir()
        if not LOCKS:
            break
        with contextlib.suppress(FileNotFoundError):  # it was cleared in the moment before it was locked
            handle = os.open(temporary, os.O_RDONLY)
            _locked(handle)
            if temporary.exists():
                break
            os.close(handle)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if LOCKS:
            os.close(handle)


def remove_leftovers(path: Path) -> None:
    """Remove temporary files and folders in ``path`` and in its folders whose process has ended; those that are being written stay."""
    if not LOCKS:
        return
    for leftover in (*path.glob(".*.tmp"), *path.glob("*/.*.tmp")):
        if not _TEMPORARY.fullmatch(leftover.name):
            continue
        with contextlib.suppress(OSError):  # renamed or removed meanwhile
            kind = leftover.lstat().st_mode
            if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
                continue
            handle = os.open(leftover, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if stat.S_ISDIR(kind):
                    shutil.rmtree(leftover, ignore_errors=True)
                else:
                    leftover.unlink()
            finally:
                os.close(handle)
