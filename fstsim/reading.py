"""Reads what may have been damaged: every file of a run directory comes in through here, or is an InputError that names it."""

from __future__ import annotations

import contextlib
import json
import math
import os
import stat
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from fstsim.errors import InputError

_DEEPEST = 64  # lists and objects in one another: nothing of ours has more than ten
_LARGEST = 2**64  # of a whole number: seeds and counts are below it

_OTHER_FORM = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BadZipFile,
    EOFError,
    LookupError,
    MemoryError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What code raises that meets data of another form than it was written for."""


@contextlib.contextmanager
def understood(what: Path | str) -> Iterator[None]:
    """InputError that names ``what`` if the code inside meets data of another form than fstsim writes."""
    try:
        yield
    except InputError:
        raise
    except _OTHER_FORM as error:
        said = " ".join(str(error).split())
        if isinstance(error, KeyError):
            said = f"there is no {said}"
        raise InputError(
            f"{what} is damaged, or not what fstsim writes: {said[:200] or type(error).__name__}"
        ) from error


def check_file(path: Path) -> None:
    """InputError unless ``path`` is a plain file that can be read; a pipe, which nobody writes to, is not opened."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path} is not a file")
        if not os.access(path, os.R_OK):
            raise InputError(f"{path} cannot be read: permission denied")
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # a zero byte in the name
        raise InputError(f"{str(path)!r} is no name of a file") from error


def is_there(path: Path) -> bool:
    """Whether there is something at ``path``; InputError where the system does not let us look."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    return True


def read_bytes(path: Path) -> bytes:
    """Content of a plain file; InputError if there is none, or it cannot be read."""
    check_file(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def read_text(path: Path) -> str:
    """UTF-8 text of a plain file; InputError if there is none, or it is something else."""
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error


def _whole(digits: str) -> int:
    value = int(digits[:40])  # more digits than any number of ours: int would refuse thousands of them
    if len(digits) > 40 or abs(value) > _LARGEST:
        raise ValueError(f"a number of {len(digits)} digits")
    return value


_DECODER = json.JSONDecoder(parse_int=_whole)  # made once: json.loads would make one for every line
_PLAIN = frozenset((int, float, type(None)))


def parse_json(text: str) -> Any:
    """JSON as fstsim writes it; ValueError for what is none, for numbers beyond 64 bits and for deep nesting."""
    try:
        value = _DECODER.decode(text)
    except RecursionError as error:
        raise ValueError("lists in lists without end") from error
    _check_depth(value)
    return value


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while level:
        if depth > _DEEPEST:
            raise ValueError(f"more than {_DEEPEST} lists or objects in one another")
        held = [v for v in level if isinstance(v, (dict, list))]
        level = [item for v in held for item in (v.values() if isinstance(v, dict) else v)]
        depth += 1


def check_rows(
    path: Path, rows: Any, numbers: Sequence[str], needed: Sequence[str] = ("step",)
) -> list[dict[str, Any]]:
    """``rows`` of metrics, from file ``path``; InputError unless they are objects, and their ``numbers`` numbers or null.

    The columns that are ``needed`` must be there, at least in one row, and finite.
    """
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{path} holds no rows")
    asked = frozenset(numbers)
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise InputError(f"{path}, row {number} is no object")
        for name, value in row.items():
            if type(value) not in _PLAIN and name in asked:
                raise InputError(f"{path}, row {number}: {name} must be a number, got {str(value)[:40]!r}")
        for name in needed:
            if not isinstance(row.get(name), (int, float)) or not math.isfinite(row[name]):
                raise InputError(f"{path}, row {number}: {name} must be a number, got {str(row.get(name))[:40]!r}")
    return rows


def check_object(path: Path, value: Any, kinds: Mapping[str, type | tuple[type, ...]]) -> dict[str, Any]:
    """``value``, read from file ``path``; InputError unless it is an object with these keys, of these types."""
    if not isinstance(value, dict):
        raise InputError(f"{path} must be an object, got {str(value)[:40]!r}")
    for name, kind in kinds.items():
        if name not in value:
            raise InputError(f"{path} has no {name}")
        if not isinstance(value[name], kind):
            raise InputError(f"{path}: {name} must not be {str(value[name])[:40]!r}")
    return value
