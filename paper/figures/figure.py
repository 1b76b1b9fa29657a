"""What a figure of the simulator is: how it is called, what it shows, and how it is drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fstsim.paper.figures.drawing import Drawing


@dataclass(frozen=True)
class Figure:
    """One figure. ``slugs`` are the statements of `fstsim.theory.ALL_STATEMENTS` that it shows.

    The caption is plain text and says what to see; [T], [A], [N] mark what is proved, asymptotic, numeric only. A figure
    with ``manuscript`` is in the manuscript, the others are in the report alone.
    """

    name: str
    title: str
    caption: str
    slugs: tuple[str, ...]
    draw: Callable[[], Drawing]
    manuscript: bool = False
