"""``python -m fstsim.paper.manuscript --out DIR``: the manuscript as PDF, from the records alone.

Needs Typst from its PyPI package (the extra ``paper``) and no TeX installation, no network and no fonts of the system.
Writes ``fstsim.pdf`` and ``numbers.json``, in which every number of the text names the record it was read from.
"""

from __future__ import annotations

from fstsim.front.console import show
from fstsim.front.entry import run_module
from fstsim.paper.manuscript.build import Config, build


def build_and_show(config: Config) -> int:
    """Make the manuscript and say where it is."""
    path = build(config)
    show(f"{path}, and {path.with_name('numbers.json')}: where each of its numbers comes from")
    return 0


def main() -> int:
    """Command line; returns the exit code."""
    return run_module("fstsim.paper.manuscript", Config, build_and_show)


if __name__ == "__main__":
    raise SystemExit(main())
