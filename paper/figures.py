"""Every figure of the paper, in paper order: what it is called, what it shows, and how to draw it.

`FIGURES` is the list; `save_figure` writes one as PNG and PDF. Nothing here touches pyplot, so figures can be drawn
in threads (one at a time: matplotlib's style is global).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fstsim.paper import forward_figures, joint_figures, reverse_figures
from fstsim.paper.drawing import Drawing, drawing_style
from fstsim.records import write_atomically


@dataclass(frozen=True)
class Figure:
    """One figure. ``slugs`` are the statements of `fstsim.theory.ALL_STATEMENTS` that it shows.

    The caption is plain text and says what to see; [T], [A], [N] mark what is proved, asymptotic, numeric only.
    """

    name: str
    title: str
    caption: str
    slugs: tuple[str, ...]
    draw: Callable[[], Drawing]


_ALL = (
    Figure(
        "mass-forgetting",
        "Forgetting by supervised fine-tuning is algebraic",
        "Old mass β under forward KL on new data only, components held right, from β = 1/2. (a) All separations δ share "
        "the early curve of the no-overlap law (Lambert W, a lower bound [T]), decay like 1/t, and bend to the last "
        "law (2(exp(δ²) − 1)t)^(−1/2) [A], the later the larger δ. Lines: exact time integral [T]; open markers: ODE "
        "solver; filled markers: mean of 32 SGD runs with batches of 32, learning rate 1/2 (standard errors are "
        "smaller than the markers). (b) Local exponent of the exact curve: the window in which 1/t is a fair description "
        "widens with δ, but every curve ends at 1/2.",
        (
            "mass-forgetting",
            "mass-forgetting-rate",
            "mass-forgetting-ultimate",
            "mass-forgetting-sgd",
        ),
        forward_figures.mass_forgetting,
    ),
    Figure(
        "geometry",
        "How fast the old mass goes depends on the geometry of the weight",
        "The same objective descended in four geometries, components held right, δ = 2. (a) Fisher-Rao (natural "
        "gradient) gives exp(−t) exactly, one straight line for δ = 1, 2, 4 [T]. (b) Without overlap (dashed, "
        "[T]) the logit decays like 1/t, complete data (EM) like exp(−t), and the probability reaches 0 at t = 3/8; overlap "
        "slows all of them (logit toward t^(−1/2), EM toward 1/t, probability to an exponential) except Fisher-Rao. Lines: ODE "
        "solver; filled markers: mean of 32 SGD runs with batches of 256; open markers: exact descent.",
        ("mass-forgetting-geometry", "k-mode-natural-gradient"),
        forward_figures.geometry,
    ),
    Figure(
        "joint-forward-flow",
        "With free components the old weight survives and the old mode does not",
        "Forward KL on new data, weight and both means moving. (a) The weight β stops at β∞ > 0, unlike with components held "
        "right (dash-dotted). (b) The old mean is dragged onto the new data instead. (c) What is forgotten is the mass of the "
        "old region A (the half-space nearer to the old mode): it falls to the new data's own share P_n(A) "
        "(broad lines), below Pinsker's bound (dashed, [T]). (d) Both −log β∞ and the logarithm of the time at which "
        "the old mean is half way approach δ²/2 from below [N]; the invariant of the late flow [A], evaluated half way, "
        "already gives the end. Lines in a-c: ODE solver; filled markers: mean of 32 SGD runs with batches of 64.",
        ("joint-collapse", "old-region-mass", "late-collapse", "old-mean-half-time"),
        joint_figures.joint_forward_flow,
    ),
    Figure(
        "misassignment-bounds",
        "How often a mixture assigns an old sample to the new mode",
        "Misassignment probability ε of the old component, with every bound [T], for three old masses w. (a-c) ε "
        "(black) between the best lower and upper bound; the Bhattacharyya bound U1 misses a factor that grows like δ. "
        "(d-f) Ratios bound / actual: the clean bound U2 is within a factor 2.3 everywhere shown and tends to 1, U* is "
        "within 1.4. Filled markers: mean responsibility over 100,000 samples, with standard errors. U3 and U4 exist only "
        "where the saddle point lies inside.",
        ("misassignment", "logistic-normal"),
        reverse_figures.misassignment_bounds,
    ),
    Figure(
        "drift-vs-separation",
        "Drift of the old mean is gated by overlap, with exponent δ²/8",
        "Shift of the old mean in standard deviations against δ². (a) Reverse KL to the target with old mass 1/2: the largest "
        "shift at any time, for three initial errors (open markers: exact descent); dashed: certificate [T], drawn where one "
        "exists. An error of the new mean toward the old one shortens the gap, hence the larger shift. (b) Forward KL "
        "on new data: the shift by time T (open markers: ODE solver) grows almost like √T; dashed: certificate [T]; dotted: leading "
        "order [A]. Grey: exp(−δ²/8).",
        (
            "drift-along-flow",
            "drift-under-forward-KL",
            "forward-drift-force",
            "old-mean-force",
            "old-mean-force-general",
        ),
        reverse_figures.drift_vs_separation,
    ),
    Figure(
        "drift-vs-time",
        "Forward KL never gives the old mean back; reverse KL does",
        "Shift of the old mean at δ = 6. Forward KL on new data (black): grows over five decades, a little slower than the "
        "leading order √t [A] (the more so the larger log t / δ [N]), until the old mean nears the new data. Reverse KL to the target (blue: new mean off by 1 toward the old; orange: old mass 0.2 instead "
        "of 1/2): rises, peaks, and returns to 0. Dashed: certificates [T]; that of forward KL ends where its overlap "
        "condition fails, those of reverse KL hold for all time. Lines: ODE solver; filled markers: mean of 32 SGD runs "
        "with batches of 256, with standard errors.",
        ("forward-drift-leading-order", "forward-drift-saddle", "drift-under-forward-KL", "reverse-kl-target", "drift-along-flow"),
        reverse_figures.drift_vs_time,
    ),
)

FIGURES: dict[str, Figure] = {figure.name: figure for figure in _ALL}


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
