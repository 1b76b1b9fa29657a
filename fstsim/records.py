"""Run directories: the one thing that passes between the rooms.

A run directory holds ``config.json``, ``environment.json``, ``metrics.jsonl`` (one row a measurement) and
checkpoints. Every file is written beside its place and renamed, so that a reader never meets half of one.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from fstsim.errors import InputError
from fstsim.locks import LOCKS, alone_in, temporary_file, temporary_folder
from fstsim.reading import is_there, parse_json, read_bytes, read_text

_PACKAGES = ("fstsim", "numpy", "scipy", "sympy", "matplotlib", "numba", "torch", "transformers", "gepa")


def prepare_directory(path: Path) -> list[Path]:
    """Make directory ``path``, with its parents; returns those that are new, innermost first.

    InputError, and nothing is made, if it cannot be made or written.
    """
    nearest, new = path, []
    try:
        while not nearest.exists() and nearest != nearest.parent:
            new.append(nearest)
            nearest = nearest.parent
        if not nearest.is_dir():
            raise InputError(f"{nearest} is not a directory: choose another --out")
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except InputError:
        raise
    except OSError as error:
        _remove_empty(new)
        raise InputError(f"cannot write in {path}: {error.strerror}") from error
    except ValueError as error:  # a zero byte
        raise InputError(f"{str(path)!r} is no name of a directory") from error
    return new


def _remove_empty(folders: Iterable[Path]) -> None:
    for folder in folders:
        with suppress(OSError):  # something is in it, or it was never made
            folder.rmdir()


@contextmanager
def working_in(path: Path) -> Iterator[None]:
    """Make directory ``path`` and work in it as the only process; InputError if it cannot be made, or another one does.

    Where the work ends before it has written anything, the directory is as if it had never been made.
    """
    new = prepare_directory(path)
    try:
        with alone_in(path):
            yield
    finally:
        _remove_empty(new)


def check_contents(path: Path, kind: str, ours: Callable[[Path], bool]) -> None:
    """InputError if directory ``path`` exists and holds anything but what is ``ours`` and what a killed write left."""
    try:
        strange = path.is_dir() and not all(ours(inside) or inside.suffix == ".tmp" for inside in path.iterdir())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if strange:
        raise InputError(f"{path} is not empty and holds no {kind}: choose a new or an empty --out")


def check_settings(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any], kind: str) -> None:
    """InputError if what was ``found`` in directory ``path`` differs from a setting that is ``wanted``."""
    for name, was, value in _differences(found, plain(wanted)):
        raise InputError(f"{path} holds a {kind} with {name} {was}, not {value}: choose another --out")


def check_directory(
    path: Path,
    config: Mapping[str, Any],
    kind: str,
    defaults: Mapping[str, Any] | None = None,
    name: str = "config.json",
) -> None:
    """InputError if ``path`` holds something of this ``kind`` with another configuration, or something else.

    The configuration is in file ``name``. Settings that it was recorded without, because they did not exist yet, count as
    their ``defaults``.
    """
    file = path / name
    if not is_there(file):
        check_contents(path, kind, lambda _: False)
        return
    found = read_json(file)
    if defaults is not None and isinstance(found, dict) and found.keys() & defaults.keys():
        found = _completed(found, plain(defaults))
    if not isinstance(found, dict) or found.keys() != config.keys():
        raise InputError(f"{file} is not the configuration of a {kind}: choose another --out")
    check_settings(path, found, config, kind)


def _differences(
    found: Mapping[str, Any], wanted: Mapping[str, Any], group: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """``(name, found, wanted)`` of settings that differ, in groups of settings by the setting itself."""
    for name, value in wanted.items():
        was = found.get(name)
        if isinstance(was, Mapping) and isinstance(value, Mapping) and was.keys() == value.keys():
            yield from _differences(was, value, f"{group}{name}.")
        elif was != value:
            yield f"{group}{name}", was, value


def _completed(found: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """``found`` with what it lacks taken from ``defaults``, in groups of settings too."""
    whole = {**defaults, **found}
    for name, value in defaults.items():
        if isinstance(value, Mapping) and isinstance(whole[name], Mapping):
            whole[name] = _completed(whole[name], value)
    return whole


@contextmanager
def claimed_directory(
    path: Path,
    config: Mapping[str, Any],
    record: Mapping[str, Any],
    kind: str,
    defaults: Mapping[str, Any] | None = None,
    name: str = "config.json",
) -> Iterator[None]:
    """Work in ``path``, the directory of what ``config`` describes, as the only process.

    Writes ``config`` (to file ``name``) and ``environment.json`` (``record``) into a new directory; clears what a killed
    write left in an old one. Raises InputError, before anything is written, as `check_directory` does, and if another process
    works there.
    """
    check_directory(path, config, kind, defaults, name)
    with working_in(path):
        check_directory(path, config, kind, defaults, name)  # another process may have been faster
        if not (path / name).exists():
            write_json(path / name, plain(config))
        if not (path / "environment.json").exists():
            write_json(path / "environment.json", record)
        yield


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Call ``write`` on a temporary file in the same folder, then rename it to ``path``.

    Raises InputError if ``path`` is there and is no plain file: a rename would put a file in the place of a device or a pipe;
    and if its folder is no folder.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is there and is not a file: choose another name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{path.parent} is there and is not a directory: choose another --out") from error
    with temporary_file(path) as (file, temporary):
        write(file)
        file.flush()
        os.fsync(file.fileno())
        if not LOCKS:  # Windows renames no file that is open
            file.close()
        os.replace(temporary, path)


def write_folder(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write`` on a temporary folder beside ``path``, which is not there or empty, then rename it to ``path``."""
    with temporary_folder(path) as temporary:
        write(temporary)
        os.replace(temporary, path)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_atomically(path, lambda f: f.write(text.encode()))


def keep_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically, unless the file holds it already. Raises InputError if something else is in its place."""
    if is_there(path) and read_bytes(path) == text.encode():
        return
    write_text(path, text)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def row_line(row: Mapping[str, Any]) -> str:
    """One row as a line of JSON; nan and inf become null."""
    return json.dumps(plain(row)) + "\n"


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as JSON lines, atomically."""
    write_text(path, "".join(map(row_line, rows)))


def read_json(path: Path) -> Any:
    """Read JSON; InputError if the file is missing or malformed."""
    try:
        return parse_json(read_text(path))
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from error


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines, an object each; InputError if the file is missing or malformed."""
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line:
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            raise InputError(f"{path} is not JSON lines: line {number}: {error}") from error
        if not isinstance(row, dict):
            raise InputError(f"{path} is not JSON lines of objects: line {number} is {line[:40]!r}")
        rows.append(row)
    return rows


def plain(value: Any) -> Any:
    """``value`` as JSON can hold it: numpy scalars as Python ones, non-finite numbers as None."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


@functools.cache
def _commit() -> str | None:
    """Commit of the checkout that this code runs from, with ``+dirty`` when it has changes; None outside of one.

    Asked once a process: later changes are not what it runs.
    """
    here = Path(__file__).resolve().parent
    try:
        commit = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
        tracked = subprocess.run(
            ["git", "-C", str(here), "ls-files", "--error-unmatch", __file__],
            check=False,
            capture_output=True,
            timeout=10,
        )
        if tracked.returncode != 0:
            return None
        changes = subprocess.run(
            ["git", "-C", str(here), "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+dirty" if changes else "")


def environment(seed: int | None = None, device: str = "cpu") -> dict[str, Any]:
    """Versions, platform, device, commit and seed of this process, for ``environment.json``."""
    about = {
        "cores": os.cpu_count(),
        "device": device,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "seed": seed,
        "versions": dict(_versions()),
    }
    return {"commit": _commit(), **about}


@functools.cache
def _versions() -> Mapping[str, str]:
    """Of the packages that numbers depend on, where they are installed; once a process, which has loaded them."""
    found = {}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
