"""Figures, tables, report and manuscript: what reads run directories. `DATA` are the runs that come with the repository."""

from __future__ import annotations

from pathlib import Path

ROOM = Path(__file__).parent
DATA = ROOM / "data"
"""Recorded runs and checks, made on the machines that their environment.json names; not part of an installed package."""
IMAGES = ROOM / "images"
"""Pictures that the README shows."""
