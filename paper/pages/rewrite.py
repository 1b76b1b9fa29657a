"""Write the generated parts of README and documentation again: what ``make readme`` runs."""

from __future__ import annotations

from dataclasses import dataclass

from fstsim.front.console import show
from fstsim.front.entry import run_module
from fstsim.paper import checkout
from fstsim.paper.pages.blocks import rewrite_pages
from fstsim.paper.pages.generated import BLOCKS


@dataclass(frozen=True)
class Config:
    """Write the generated parts of the checkout's README.md and paper/docs again, from the code and the records in paper/data."""


def rewrite(_: Config) -> int:
    """Do it; InputError outside a checkout, or where a record lacks a statement."""
    root = checkout()
    pages = rewrite_pages(root, BLOCKS)
    show(f"{len(BLOCKS)} generated parts in {', '.join(str(page.relative_to(root)) for page in pages)}")
    return 0


def main() -> int:
    """Command line; returns the exit code."""
    return run_module("fstsim.paper.pages.rewrite", Config, rewrite)


if __name__ == "__main__":
    raise SystemExit(main())
