"""Loading torch and transformers: most of what a command on a model does before its work."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """A block that imports torch and transformers for a command, in a fifth less time: the garbage collector waits.

    What modules are made of stays until the end, and there is so much of it that the collector walks through it dozens of times and
    finds nothing. Afterwards it leaves that part alone. Nothing changes where torch is there already or nobody collects.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
