"""From a command line to an exit code: what `fstsim` and the modules with a command line of their own share."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any, TypeVar

import tyro

from fstsim import interrupts
from fstsim.errors import InputError
from fstsim.front.command import AGAIN
from fstsim.front.console import complain
from fstsim.workers import WorkerKilled

_T = TypeVar("_T")
# what is wrong with a place that was named, other than what can become of a disk
_PLACE = (PermissionError, IsADirectoryError, NotADirectoryError, FileNotFoundError, FileExistsError)
_PLACE_NUMBERS = {errno.ENAMETOOLONG, errno.ELOOP, errno.EROFS}
_PLACES = ("--out", "--model", "--base", "--data")  # an empty path would mean the working directory


_NONE = "'None'"


def _choices(found: re.Match[str]) -> str:
    """Choices without the None of a flag that may be left out; tyro gives those in no order."""
    words = found[1].split(", ")
    return f"; allowed: {', '.join(sorted(set(words) - {_NONE})) if _NONE in words else found[1]}"


# tyro's words and Python's, in ours
_REWORDED: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"^Error parsing ", ""),
    (r"invalid literal for int\(\) with base 10: ('.*')", r"\1 is not a whole number"),
    (r"could not convert string to float: ('.*')", r"\1 is not a number"),
    (r"Could not find valid parse for arguments: \[(.*)\]", r"cannot read \1"),
    (r"^invalid choice ('.*') for argument '(.*)'\. Expected one of \((.*)\)", r"\2: \1 is unknown; allowed: \3"),
    (r"; allowed: (.*)", _choices),
    (r"no type matching \{None\}\|.* - <class '(?:int|float)'>: ", ""),
    (r"no type matching \{None\}\|.* (cannot read [^\]]*)\].*; ", r"\1; "),
    (r"\{None\}\|\{\[(\w+) .*", r"\1 [\1 ...]"),
    (r"^Missing value for argument '(.*)'\. Expected \d+ values?", r"\1 needs a value"),
    (r"^Missing from (.*?): (\S+) .*", r"\1 needs \2; see \1 --help"),
    (r"^Unrecognized options: (.*); Available subcommands: ", r"there is no command \1; commands: "),
    (r"^Unrecognized options: ", "unknown: "),
    (r"^Expected one of \{(.*)\}", r"name a command: \1"),
)


def unboxed(text: str) -> str:
    """The one line that an error box of tyro says: what is wrong, then what is allowed."""
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()]
    if any(line.startswith("│") for line in lines):
        lines = [line.strip("│ ") for line in lines if line.startswith("│")]
    else:  # without UTF-8 a box is its title, a rule, and what is in it
        lines = lines[2:]
    parts: list[list[str]] = [[]]
    for line in lines:
        if line and set(line) <= {"─", "-"}:
            parts.append([])
        elif line and not line.startswith("For full helptext"):
            parts[-1].append(line)
    what, *more = [part for part in parts if part] or [["malformed command line"]]
    said = " ".join(what).rstrip(".")
    if more:
        first, *rest = more[0]
        if first.startswith("Argument helptext"):
            said = f"{said}; expected {rest[0]}"
        elif first.startswith("Perhaps you meant"):
            said = f"{said}; perhaps you meant {rest[0]}"
        else:
            said = f"{said}; {' '.join(more[0])}"
    for pattern, words in _REWORDED:
        said = re.sub(pattern, words, said)
    return said


def parse(
    kind: Any, arguments: Sequence[str], program: str, description: str | None, by_flag: Mapping[str, str] | None = None
) -> Any:
    """A value of ``kind``, whose fields are the flags; InputError with one line instead of tyro's box.

    ``by_flag`` says, by command, which flag a bare word may have been meant for.
    Raises SystemExit after ``--help`` has been printed.
    """
    for flag, value in itertools.pairwise([*arguments, "-"]):
        if (flag in _PLACES and not value) or flag in {f"{name}=" for name in _PLACES}:
            raise InputError(f"{flag.rstrip('=')} is empty: name a place")
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                kind,
                prog=program,
                description=description,
                args=arguments,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        cause: BaseException | None = stop
        while cause is not None:
            if isinstance(cause, InputError):
                raise cause from None
            cause = cause.__cause__ or cause.__context__
        raise InputError(_with_what_is_taken(unboxed(said.getvalue()), arguments, program, by_flag or {})) from None


def _with_what_is_taken(said: str, arguments: Sequence[str], program: str, by_flag: Mapping[str, str]) -> str:
    """``said``, where it says nothing but that words are unknown, with what the command takes and where that is listed."""
    word = said.removeprefix("unknown: ")
    if word == said or ";" in word:
        return said
    command = program if word.startswith(arguments[0]) else f"{program} {arguments[0]}"
    hint = f"{by_flag[arguments[0]]}; " if arguments[0] in by_flag and not word.startswith("-") else ""
    return f"{said}; {hint}what it takes is listed by {command} --help"


def missing_package(error: ModuleNotFoundError) -> str:
    """What to install where a package is not there: the extra of fstsim that brings it, by what fstsim's metadata say."""
    name = (error.name or "").partition(".")[0]
    try:
        lines = metadata.requires("fstsim") or []
    except metadata.PackageNotFoundError:
        lines = []
    for line in lines:
        found = re.match(r"([\w.-]+).*extra == [\"'](?!test)([\w-]+)[\"']", line)
        if found and found[1].replace("-", "_") == name.replace("-", "_"):
            return f"this needs the package {name}, which is not installed: pip install 'fstsim[{found[2]}]'"
    return f"a package is missing: {' '.join(str(error).split())}; the language models need: pip install 'fstsim[llm]'"


def exit_code(work: Callable[[], int], stopped: Callable[[], str]) -> int:
    """What ``work`` returns; 2 for bad input, 1 for what the system refuses, 130 after Ctrl-C, each with one line on stderr.

    ``stopped`` is asked for that line after Ctrl-C.
    """
    _prepare_streams()
    interrupts.begin()
    try:
        code = _told(work, stopped)
    except Exception:
        if not interrupts.pressed():
            raise
        complain(stopped())
        return 130
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()
        return code or 1
    except OSError as error:
        _forget_stdout()
        complain(f"error: the output cannot be written: {error.strerror}")
        return code or 1
    return code


def _prepare_streams() -> None:
    """Output that is closed goes nowhere; a character that the terminal does not have is replaced, not an error."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 -- until the end
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _forget_stdout() -> None:
    """Write the rest nowhere, so that the interpreter does not complain at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _told(work: Callable[[], int], stopped: Callable[[], str]) -> int:
    try:
        return work()
    except SystemExit as stop:
        if not stop.code:  # --help has been printed
            return 0
        complain(f"error: the program was ended with {stop.code!r}")
        return 1
    except InputError as error:
        complain(f"error: {error}")
        return 2
    except ModuleNotFoundError as error:
        if interrupts.pressed():
            raise
        complain(f"error: {missing_package(error)}")
        return 2
    except KeyboardInterrupt:
        complain(stopped())
        return 130
    except WorkerKilled as error:
        complain(f"error: {error}; {stopped()}")
        return 1
    except BrokenPipeError:  # the reader of stdout has gone, as in `fstsim check | head`
        _forget_stdout()
        return 1
    except OSError as error:
        if error.errno == errno.ENOSPC and error.filename is None:
            _forget_stdout()
            complain(f"error: the output cannot be written: {error.strerror}")
            return 1
        if isinstance(error, _PLACE) or error.errno in _PLACE_NUMBERS:
            complain(f"error: {error.filename!r} cannot be used: {error.strerror}")
            return 2
        complain(f"error: {error}")
        return 1


def run_module(module: str, config: type[_T], work: Callable[[_T], int], stopped: str = AGAIN) -> int:
    """Exit code of ``python -m MODULE``: its command line, whose flags are the fields of ``config``, given to ``work``."""
    arguments, program = sys.argv[1:], f"python -m {module}"
    return exit_code(
        lambda: work(parse(config, arguments, program, None)), lambda: f"{stopped}: {program} {shlex.join(arguments)}"
    )
