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
    kl_estimators,
    length_bias,
    methods,
    phase,
    plasticity,
    replay,
    retention,
    reverse,
    starvation,
)
from fstsim.paper.figures.drawing import save_pdf, save_png
from fstsim.paper.figures.figure import Figure

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
    kl_estimators.KL_ESTIMATORS,
    length_bias.LENGTH_BIAS,
)

FIGURES: dict[str, Figure] = {figure.name: figure for figure in _ALL}


def figure_of(slug: str) -> str:
    """Name of the first figure that shows a statement; empty if none does."""
    return next((figure.name for figure in _ALL if slug in figure.slugs), "")


def save_figure(figure: Figure, out_dir: Path) -> list[Path]:
    """Draw ``figure`` and write ``NAME.png`` (150 dpi) and ``NAME.pdf`` to ``out_dir``; the same bytes every time."""
    drawing = figure.draw()
    png, pdf = (out_dir / f"{figure.name}.{extension}" for extension in ("png", "pdf"))
    return [save_png(drawing, png, figure.title), save_pdf(drawing, pdf, figure.title)]
