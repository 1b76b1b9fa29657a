"""`fstsim explore`: the page in which parameters are moved by hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from fstsim.errors import InputError
from fstsim.front.command import AGAIN
from fstsim.front.console import show
from fstsim.records import prepare_directory


@dataclass(frozen=True)
class Explore:
    """Write a page, for any browser and without a server, in which the parameters are moved by hand."""

    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("out/explorer.html")
    """file to write"""
    stopped: ClassVar[str] = AGAIN

    def run(self) -> int:
        """Write it."""
        if self.out.exists() and not self.out.is_file():
            kind = "a directory" if self.out.is_dir() else "no plain file"
            raise InputError(f"{self.out} is {kind}: --out must name a file")
        from fstsim.paper.report.explorer import write_explorer

        prepare_directory(self.out.parent)
        show(f"open {write_explorer(self.out)}")
        return 0
