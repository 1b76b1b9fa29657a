"""What all figures share: the style, the colours, the marks of what is proved, and replicated SGD runs.

One convention in every figure: solid lines are exact, dashed lines proved bounds [T], dotted lines asymptotic laws
[A]; open markers are the deterministic simulator (flow or descent), filled markers with error bars the mean of
independent SGD runs and its standard error. Series differ by luminance and by marker, not by hue alone.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import matplotlib.figure
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from fstsim import SGD, Objective, Trajectory, TwoModeProblem, TwoModeState, simulate
from fstsim.records import write_atomically

Array = NDArray[np.float64]
Drawing = matplotlib.figure.Figure

STYLE = Path(__file__).with_name("fstsim.mplstyle")
_STYLE_LOCK = threading.RLock()


class Series(NamedTuple):
    """Look of one series. `SERIES` is ordered by luminance, so that the order survives greyscale."""

    color: str
    marker: str


# Okabe-Ito, the blue and the vermillion darkened until the five luminances are evenly spread (L* = 0, 37, 48, 58, 71).
BLACK, BLUE, VERMILLION, GREEN, ORANGE = (
    Series("#000000", "o"),
    Series("#005A9E", "s"),
    Series("#C44E00", "^"),
    Series("#009E73", "D"),
    Series("#E69F00", "v"),
)
SERIES = (
    BLACK,
    BLUE,
    VERMILLION,
    GREEN,
    ORANGE,
)
GREY = "#666666"

BOUND = (0, (4.5, 1.8))  # dashed: proved bound
LAW = (0, (1.0, 1.4))  # dotted: asymptotic law
DASH_DOT = (0, (4.0, 1.5, 1.0, 1.5))

TIME = "time $t$ (1/learning rate)"


@contextmanager
def drawing_style() -> Iterator[None]:
    """The project's style and nothing of the user's; matplotlib's settings are global, so one thread at a time."""
    with _STYLE_LOCK, matplotlib.style.context(["default", STYLE]):
        yield


def styled(draw: Callable[[], Drawing]) -> Callable[[], Drawing]:
    """Draw in the project's style wherever the function is called from."""

    @functools.wraps(draw)
    def wrapped() -> Drawing:
        with drawing_style():
            return draw()

    return wrapped


def save_pdf(figure: Drawing, path: Path, title: str | None = None) -> Path:
    """Write ``figure`` as PDF, whole or not at all; returns ``path``. The same figure gives the same bytes."""
    from matplotlib.backends.backend_pdf import (
        FigureCanvasPdf,  # fonts of a PDF take as long as a PNG, which commands write
    )

    # Where a figure has a layout engine, savefig draws it twice, the first time only to run the engine.
    figure.set_dpi(72)  # that of the PDF backend, whose lengths of text the layout then uses
    figure.set_canvas(FigureCanvasPdf(figure))
    with drawing_style():
        engine = figure.get_layout_engine()
        if engine is not None:
            engine.execute(figure)
            figure.set_layout_engine("none")
        _write(figure, path, "pdf", {"Creator": None, "Producer": None, "CreationDate": None, "Title": title})
    return path


def save_png(figure: Drawing, path: Path, title: str | None = None) -> Path:
    """Write ``figure`` as PNG in the project's style, whole or not at all; returns ``path``. The same figure gives the same bytes."""
    with drawing_style():
        _write(figure, path, "png", {"Software": None, "Title": title})
    return path


def _write(figure: Drawing, path: Path, kind: str, metadata: dict[str, str | None]) -> None:
    # None leaves out what matplotlib would write: dates and versions, which would change the bytes of every rerun
    write_atomically(path, lambda file: figure.savefig(file, format=kind, metadata=metadata))


def panel(ax: Axes, letter: str, title: str, xlabel: str, ylabel: str) -> None:
    """Letter, title and axis labels of one panel."""
    ax.set_title(rf"$\bf{{{letter}}}$  {title}")
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)


def key(
    linestyle: object = "none", marker: str = "", color: str = GREY, filled: bool = False, label: str = ""
) -> Line2D:
    """A legend entry for a kind of mark (which all series share), so in grey."""
    return Line2D(
        [],
        [],
        linestyle=linestyle,  # type: ignore[arg-type]  # dash tuples are allowed, the stubs know names only
        marker=marker,
        color=color,
        markerfacecolor=color if filled else "white",
        label=label,
    )


def legend_below(figure: Drawing, handles: Sequence[Line2D], columns: int) -> None:
    """One legend for the whole figure, outside the panels, where it can cover nothing."""
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)


def legend_in_rows(figure: Drawing, names: Sequence[Line2D], kinds: Sequence[Line2D]) -> None:
    """The same with two rows: what the series are, then what the kinds of mark are."""
    columns = max(len(names), len(kinds))
    rows = [[*row, *[key(label=" ")] * (columns - len(row))] for row in (names, kinds)]
    # matplotlib fills a legend column by column
    legend_below(figure, [handle for pair in zip(*rows, strict=True) for handle in pair], columns)


class Points(NamedTuple):
    """What independent SGD runs gave: flow time, mean over the runs, standard error of that mean."""

    time: Array
    mean: Array
    error: Array


def sgd_runs(
    problem: TwoModeProblem,
    objective: Objective,
    initial: TwoModeState,
    optimizer: SGD,
    steps: int,
    runs: int,
    seed: int,
) -> Trajectory:
    """``runs`` independent SGD runs from one initial state, as the batch axis of one trajectory."""
    mean_shape = (runs, problem.dimension)
    batch = TwoModeState(
        np.full(runs, initial.log_odds),
        np.broadcast_to(initial.mean_old, mean_shape),
        np.broadcast_to(initial.mean_new, mean_shape),
    )
    return simulate(problem, objective, batch, optimizer, steps, np.random.default_rng(seed))


def summarise(rows: NDArray[np.int64], lr: float, values: Array) -> Points:
    """``values (T+1, runs)`` at ``rows``: mean and standard error; step k is time ``lr k`` of the flow."""
    chosen = values[rows]
    error = chosen.std(axis=1, ddof=1) / np.sqrt(chosen.shape[1])
    return Points(np.multiply(lr, rows, dtype=np.float64), chosen.mean(axis=1), error)


def log_rows(first: int, last: int, count: int) -> NDArray[np.int64]:
    """``count`` steps evenly spaced in the logarithm, duplicates dropped."""
    return np.unique(np.rint(np.geomspace(first, last, count)).astype(np.int64))


def draw_points(ax: Axes, points: Points, series: Series) -> None:
    """SGD means with standard errors."""
    ax.errorbar(
        points.time, points.mean, points.error, fmt=series.marker, color=series.color, ms=4, elinewidth=0.9, zorder=4
    )


def draw_exact(ax: Axes, x: ArrayLike, y: ArrayLike, series: Series) -> None:
    """Samples of the deterministic simulator."""
    ax.plot(x, y, series.marker, color=series.color, mfc="white", ms=4.5, zorder=3)
