"""`fstsim prompts`: how the contexts of a run evolved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from fstsim.errors import InputError
from fstsim.front.command import AGAIN
from fstsim.front.console import show
from fstsim.front.tables import prompts_table
from fstsim.reading import understood
from fstsim.records import read_rows


@dataclass(frozen=True)
class Prompts:
    """Show how the contexts of a run evolved: every fast round, the population and where each context came from."""

    run_directory: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
    """run directory of one seed"""
    stopped: ClassVar[str] = AGAIN

    def run(self) -> int:
        """Show them."""
        if not (self.run_directory / "prompts.jsonl").exists():
            seeds = sorted(path.parent.name for path in self.run_directory.glob("seed-*/prompts.jsonl"))
            where = f": name one of {', '.join(seeds)} in it" if seeds else ": only runs of method fst or gepa have one"
            raise InputError(f"{self.run_directory} holds no prompts.jsonl{where}")
        path = self.run_directory / "prompts.jsonl"
        with understood(path):
            rounds = read_rows(path)
            table = prompts_table(rounds, str(self.run_directory))
            unusable = [str(text) for entry in rounds for text in entry.get("unusable", ())]
        show(table)
        if unusable:
            show(f"{len(unusable)} texts of the reflector were no context; first: {unusable[0]}")
        return 0
