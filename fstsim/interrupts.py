"""Ctrl-C on the command line, at any moment from the first import on: one line and exit code 130.

Does nothing where fstsim is used as a library: its interrupts are its user's.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys

_PROGRAM = "fstsim"
_begun = _pressed = False


def is_program() -> bool:
    """Whether this process is ``fstsim ...`` or ``python -m fstsim ...``."""
    called = os.path.basename(sys.argv[0]) if sys.argv else ""
    return called == _PROGRAM or sys.orig_argv[1:3] == ["-m", _PROGRAM]


def begin() -> None:
    """The command line takes over: from here on Ctrl-C is a KeyboardInterrupt, so that what is under way is put in order."""
    global _begun, _pressed
    _begun, _pressed = True, False


def pressed() -> bool:
    """Whether Ctrl-C was pressed: modules in C turn the KeyboardInterrupt into an ImportError of theirs."""
    return _pressed


def _handle(number: int, frame: object) -> None:  # noqa: ARG001 -- what signal asks for
    global _pressed  # noqa: PLW0603
    _pressed = True
    if _begun:
        raise KeyboardInterrupt
    words = sys.argv[1:] if os.path.basename(sys.argv[0]) == _PROGRAM else sys.orig_argv[3:]
    line = f"fstsim: stopped; start again with: {shlex.join([_PROGRAM, *words])}\n"
    os.write(2, line.encode("ascii", "backslashreplace"))
    os._exit(130)


if is_program() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _handle)
