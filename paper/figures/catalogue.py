"""Every figure of the paper, in paper order; each is declared in the module that draws it.

`FIGURES` is the list; `save_figure` writes one as PNG and PDF. Nothing here touches pyplot, so figures can be drawn
in threads (one at a time: matplotlib's style is global).
"""

from __future__ import annotations

from pathlib import Path

from fstsim.paper.figures import (
    convergence,
    fast_slow,
    forward,
    joint,
    methods,
    phase,
    plasticity,
    replay,
    retention,
    reverse,
    starvation,
)
from fstsim.paper.figures.drawing import drawing_style
from fstsim.paper.figures.figure import Figure
from fstsim.records import write_atomically

_ALL = (
    forward.MASS_FORGETTING,
    forward.GEOMETRY,
    joint.JOINT_FORWARD_FLOW,
    reverse.MISASSIGNMENT_BOUNDS,
    reverse.DRIFT_VS_SEPARATION,
    reverse.DRIFT_VS_TIME,
    phase.PHASE_PORTRAIT,
    convergence.LOCAL_GEOMETRY,
    replay.REPLAY_AND_LEASHES,
    starvation.STARVATION,
    methods.METHODS,
    retention.RETENTION_REGIONS,
    fast_slow.FAST_SLOW,
    plasticity.PLASTICITY,
)

FIGURES: dict[str, Figure] = {figure.name: figure for figure in _ALL}


def figure_of(slug: str) -> str:
    """Name of the first figure that shows a statement; empty if none does."""
    return next((figure.name for figure in _ALL if slug in figure.slugs), "")


def save_figure(figure: Figure, out_dir: Path) -> list[Path]:
    """Draw ``figure`` and write ``NAME.png`` (150 dpi) and ``NAME.pdf`` to ``out_dir``; the same bytes every time."""
    drawing = figure.draw()
    paths = []
    # no dates and no version of matplotlib inside the files: a rerun that changes nothing leaves them as they are
    metadata: dict[str, dict[str, str | None]] = {
        "png": {"Software": None, "Title": figure.title},
        "pdf": {"Creator": None, "Producer": None, "CreationDate": None, "Title": figure.title},
    }
    with drawing_style():
        for extension, entries in metadata.items():
            path = out_dir / f"{figure.name}.{extension}"

            def write(file: object, extension: str = extension, entries: dict[str, str | None] = entries) -> None:
                drawing.savefig(file, format=extension, metadata=entries)  # type: ignore[arg-type]

            write_atomically(path, write)
            paths.append(path)
    return paths
