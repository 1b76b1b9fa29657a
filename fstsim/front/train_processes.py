"""`fstsim train --engine trl` in several processes: which of them speaks, and what is said when one has ended."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

from fstsim.errors import InputError
from fstsim.front.console import complain
from fstsim.records import working_in

_PATIENCE = (
    3.0  # seconds: a launcher ends all processes soon after the first that fails, which is then the one that speaks
)


def speaks() -> bool:
    """Whether this process is the main one of those that a launcher has started (accelerate, torchrun), or the only one."""
    return os.environ.get("RANK", "0") == "0"


def working_for_all(out: Path) -> AbstractContextManager[None]:
    """`working_in` directory ``out``, as the main process; the others write nothing."""
    return working_in(out) if speaks() else nullcontext()


def in_processes(work: Callable[[], int], out: Path) -> int:
    """Exit code of ``work``, done by every process of a training into directory ``out``: what is wrong with it is said once.

    1 with one line where another process has ended, or a launcher ends this one.
    """
    from fstsim.llm.trl.processes import ProcessLost, as_lost, end_processes

    def ended(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 -- what signal asks for
        raise ProcessLost("the training was ended from outside")

    before = signal.signal(signal.SIGTERM, ended)
    try:
        code = work()
        end_processes()
        return code
    except InputError:
        if not speaks():
            time.sleep(_PATIENCE)
        raise
    except RuntimeError as error:
        lost: Any = error if isinstance(error, ProcessLost) else as_lost(error)
        if lost is None:
            raise
        if os.environ.get("RANK", "0") in ("0", "1"):  # one of them is there, unless both have ended
            complain(f"error: {lost}; the last checkpoint is kept in {out}: the same command continues")
        sys.stdout.flush()
        os._exit(1)  # whoever waits for a process that is gone would wait at the end as well
    finally:
        signal.signal(signal.SIGTERM, before)
