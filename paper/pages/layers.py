"""The table of the page on layers: what the base's weights of one layer give back, and what they take."""

from __future__ import annotations

import numpy as np

from fstsim.intervals import student_interval
from fstsim.number_text import short_number
from fstsim.paper import DATA
from fstsim.paper.claims.layers import Restored, read_restored
from fstsim.paper.pages.blocks import table
from fstsim.paper.records.layers.overview import PICTURE


def layers_block() -> str:
    """A row a training, and the picture that `fstsim.paper.records.layers.runs` drew."""
    rows = [_row(found) for found in read_restored(DATA)]
    head = ("training", "lost on old skills", "comes back with the lowest layer", "of the new task then stays",
            "most that another layer gives back", "lower half less upper half")  # fmt: skip
    told = f"![Share of the loss that each layer gives back, and of the new task that stays, against depth](../images/{PICTURE})"
    return f"{table(head, rows)}\n{told}\n"


def _row(found: Restored) -> list[str]:
    other = 1 + int(found.back[:, 1:].mean(0).argmax())
    mean, low, high = found.difference
    return [
        f"{found.about}, {len(found.lost)} seeds",
        _mean(found.lost),
        _mean(found.back[:, 0]),
        _mean(found.kept[:, 0]),
        f"{_mean(found.back[:, other])} (layer {other})",
        f"{short_number(mean)} [{short_number(low)}, {short_number(high)}]",
    ]


def _mean(values: np.ndarray) -> str:
    mean, low, high = map(float, student_interval(values))
    return f"{short_number(mean)} [{short_number(low)}, {short_number(high)}]"
