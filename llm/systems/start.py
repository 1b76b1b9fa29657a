"""A run that begins with the state that another run has trained: its bank of cases, its library of skills."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from fstsim.errors import InputError
from fstsim.llm.runs.checkpoint import read_checkpoint
from fstsim.llm.systems.system import STATE, Deployed
from fstsim.reading import is_there

_S = TypeVar("_S", bound=Deployed)


def started(run: str, flag: str, system: _S) -> _S:
    """``system`` with the state of the run in directory ``run``, in place; as it is where ``run`` is empty.

    Raises InputError, named by ``flag``, if there is no such state, it is damaged, or it is of another model or system.
    """
    if not run:
        return system
    # here and not above: it imports the learners, and learners import this
    from fstsim.llm.systems.weights import restore_system

    path = Path(run) / STATE
    if not is_there(path):
        raise InputError(f"{flag} {run}: there is no {STATE}; give the directory of one seed of a run that has ended")
    tensors, meta = read_checkpoint(path)
    restore_system(system, tensors, meta, path)
    return system
