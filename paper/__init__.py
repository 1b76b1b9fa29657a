"""Figures, tables, report and manuscript: what reads run directories. `DATA` are the runs that come with the repository."""

from __future__ import annotations

from pathlib import Path

from fstsim.errors import InputError

ROOM = Path(__file__).parent
DATA = ROOM / "data"
"""Recorded runs and checks, made on the machines that their environment.json names; not part of an installed package."""
IMAGES = ROOM / "images"
"""Pictures that the README shows."""


def checkout(flag: str | None = None) -> Path:
    """Root of the checkout that this code runs from.

    Raises InputError in an installed package, where there is no README to write and no place for records; ``flag`` is the
    one that names another place, if there is one.
    """
    root = ROOM.parent
    if not (root / "pyproject.toml").is_file():
        other = f", or name another place with {flag}" if flag else ""
        raise InputError(f"{root} is an installed package: run this in a checkout of the repository{other}")
    return root


def check_recorded(records: Path, flag: str) -> None:
    """InputError unless the folder ``records`` is there; ``flag`` is the one that names another."""
    if not records.is_dir():
        raise InputError(
            f"there are no recorded runs at {records}: run this in a checkout of the repository, which holds some, "
            f"or name a folder of records with {flag}"
        )
