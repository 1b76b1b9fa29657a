"""``python -m fstsim.paper.manuscript --out DIR``: the manuscript as PDF, from the records alone.

Needs Typst from its PyPI package (the extra ``paper``) and no TeX installation, no network and no fonts of the system.
Writes ``fstsim.pdf`` and ``numbers.json``, in which every number of the text names the record it was read from.
"""

from __future__ import annotations

import tyro

from fstsim.errors import InputError
from fstsim.front.console import complain, show
from fstsim.paper.manuscript.build import Config, build


def main() -> int:
    """Command line; 2 for bad input, in one line."""
    try:
        path = build(tyro.cli(Config, description=__doc__))
    except InputError as error:
        complain(str(error))
        return 2
    show(f"{path}, and {path.with_name('numbers.json')}: where each of its numbers comes from")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
