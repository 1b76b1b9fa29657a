"""The explorer: one self-contained page in which the theory's parameters are moved by hand.

The page computes every curve itself, by the same closed forms and one-dimensional integrals as the package
(`tests/paper/report/test_explorer.py` compares the two in a real browser). It needs no server and no network.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import fstsim
from fstsim.records import write_text


def write_explorer(path: Path) -> Path:
    """Write the page to ``path``, whole or not at all."""
    page = resources.files("fstsim.paper").joinpath("explorer.html").read_text(encoding="utf-8")
    write_text(path, page.replace("__VERSION__", fstsim.__version__))
    return path
