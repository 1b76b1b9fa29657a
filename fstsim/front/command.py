"""What a command is, and what several of them share: their flags' types, and what is said when one is stopped."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol, TypeVar

import tyro

from fstsim.errors import InputError
from fstsim.records import working_in

AGAIN = "stopped; start again with"
CONTINUE = "stopped; everything up to the last checkpoint is kept, continue with"
_MOST_EXAMPLES = 100_000_000
_MOST_SEEDS = 10_000
_MOST_JOBS = 4096
_LARGEST_SEED = 2**63 - 1

_T = TypeVar("_T")
Directory = Annotated[Path, tyro.conf.arg(metavar="DIR")]
Address = Annotated[str | None, tyro.conf.arg(metavar="ADDRESS", help_behavior_hint="(needed by dask only)")]
OfPreset = Annotated[_T | None, tyro.conf.arg(help_behavior_hint="(default: the preset's)")]
"""A flag that takes the place of a setting of the preset where it is given."""
_HINT = "(default: the preset's)"
OfPresetInt = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint=_HINT)]
OfPresetFloat = Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint=_HINT)]


class Command(Protocol):
    """A subcommand: its flags are its fields; ``stopped`` is said when it is interrupted."""

    stopped: ClassVar[str]

    def run(self) -> int:
        """Do it; returns the exit code."""
        ...


def in_own_directory(run: Callable[[_T], int]) -> Callable[[_T], int]:
    """``run`` of a command, as the only process in its ``out``: pictures and tables there are then of the numbers beside them."""

    @functools.wraps(run)
    def alone(command: _T) -> int:
        with working_in(command.out):  # type: ignore[attr-defined]  # a flag of the commands that this is for
            return run(command)

    return alone


def check_numbers(examples: int, seed: int) -> None:
    """Raises InputError unless ``examples`` instances can be drawn from ``seed``."""
    if not 1 <= examples <= _MOST_EXAMPLES:
        raise InputError(f"examples must lie in 1..{_MOST_EXAMPLES}, got {examples}")
    if seed < 0:
        raise InputError(f"seed must be at least 0, got {seed}")
    if seed > _LARGEST_SEED:
        raise InputError(f"seed must be at most {_LARGEST_SEED}, got {seed}")


def check_seeds(seeds: int) -> None:
    """Raises InputError unless ``seeds`` runs can be made of each configuration."""
    if seeds < 1:
        raise InputError(f"seeds must be at least 1, got {seeds}")
    if seeds > _MOST_SEEDS:
        raise InputError(f"seeds must be at most {_MOST_SEEDS}, got {seeds}")


def check_jobs(jobs: int) -> None:
    """Raises InputError unless ``jobs`` is a number of workers, or -1 for every core."""
    if jobs == 0:
        raise InputError("jobs must not be 0: give a number of workers, or -1 for every core")
    if not -_MOST_JOBS <= jobs <= _MOST_JOBS:
        raise InputError(f"jobs must be at most {_MOST_JOBS}, or -1 for every core; got {jobs}")


def given(command: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """The flags among ``names`` that the user gave."""
    return {name: getattr(command, name) for name in names if getattr(command, name) is not None}


def quiet() -> None:
    """No bars and warnings of transformers between ours."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
