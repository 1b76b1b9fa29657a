"""`fstsim figures`: the figures of the theory."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from fstsim.errors import InputError
from fstsim.front.command import AGAIN, Directory, in_own_directory
from fstsim.front.console import Progress, show
from fstsim.front.tables import figure_table

_Names = Annotated[tuple[str, ...], tyro.conf.arg(metavar="[NAME ...]", help_behavior_hint="(default: all)")]


@dataclass(frozen=True)
class Figures:
    """Draw the figures NAME ..., or all of them, as PNG and PDF."""

    names: tyro.conf.Positional[_Names] = ()
    """figures to draw; an unknown name lists those that exist"""
    out: Directory = Path("out/figures")
    """directory to write to"""
    stopped: ClassVar[str] = AGAIN

    @in_own_directory
    def run(self) -> int:
        """Draw them."""
        from fstsim.paper.figures.catalogue import FIGURES, save_figure

        unknown = [name for name in self.names if name not in FIGURES]
        if unknown:
            raise InputError(f"figure {unknown[0]!r} is unknown; allowed: {', '.join(FIGURES)}")
        wanted = [FIGURES[name] for name in dict.fromkeys(self.names or FIGURES)]
        drawn = []
        with contextlib.closing(Progress("figures", len(wanted), "figures")) as progress:
            for figure in wanted:
                progress.add(0, figure.name)
                drawn.append((figure.name, figure.title, save_figure(figure, self.out)))
                progress.add(1)
        show(figure_table(drawn))
        return 0
