"""``python -m fstsim.paper.manuscript --out DIR``: the manuscript as PDF, from the records alone.

Needs Typst from its PyPI package (the extra ``paper``) and no TeX installation, no network and no fonts of the system.
Writes ``fstsim.pdf`` and ``numbers.json``, in which every number of the text names the record it was read from.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import joblib
import tyro

from fstsim.console import Progress, complain, show
from fstsim.errors import InputError
from fstsim.paper import manuscript_numbers, manuscript_tables
from fstsim.paper.bridge_figure import save_bridge
from fstsim.paper.drawing import drawing_style
from fstsim.paper.experiment_figures import draw_continual
from fstsim.paper.figures import FIGURES
from fstsim.paper.manuscript_figures import draw_core, draw_decomposition
from fstsim.paper.manuscript_prose import prose
from fstsim.records import prepare_directory, read_json, write_atomically, write_json

SOURCES = Path(__file__).with_name("manuscript")
SIMULATED = (
    "mass-forgetting",
    "joint-forward-flow",
    "drift-vs-separation",
    "drift-vs-time",
    "replay-and-leashes",
    "methods",
    "fast-slow",
    "plasticity",
)
"""Figures of the simulator that the text shows, in its order."""
PAGE_WIDE: dict[str, Callable[[Path, Path], None]] = {"core": draw_core, "decomposition": draw_decomposition}
"""Figures of the experiments that are laid out for a page, as PDF."""
MEASURED = (*PAGE_WIDE, "continual", "bridge")
"""Figures of the experiments and of the validation, drawn from run directories; the last two are those of the report."""


@dataclass(frozen=True)
class Config:
    """Where the manuscript goes, and the records that it is made from."""

    out: Path = Path("out")
    """directory for fstsim.pdf and numbers.json"""
    data: Path = Path("paper/data")
    """recorded runs: checks.json, experiments, validation"""
    jobs: int = -1
    """processes (-1: one a core)"""


def write_records(folder: Path, data: Path) -> None:
    """Put everything but the figures into ``folder``: Typst sources, numbers, statements and tables.

    Raises InputError where a record is missing or a formula cannot be set.
    """
    for source in sorted(SOURCES.iterdir()):
        if source.suffix in (".typ", ".yml"):
            shutil.copy(source, folder)
    tables = manuscript_tables.experiment_cells(data)
    numbers = manuscript_numbers.all_numbers(data, tables)
    write_json(folder / "numbers.json", manuscript_numbers.as_json(numbers))
    write_json(folder / "tables.json", manuscript_tables.as_json(tables))
    write_json(folder / "statements.json", manuscript_tables.statement_rows(data))
    write_json(folder / "methods.json", manuscript_tables.method_rows())
    write_json(folder / "verdicts.json", manuscript_tables.verdict_rows(data))
    figures = {name: {"title": f.title, "caption": prose(f.caption)} for name, f in FIGURES.items()}
    write_json(folder / "figures.json", figures)


def draw(name: str, folder: Path, data: Path) -> None:
    """Draw the figure ``name`` of `SIMULATED` or `MEASURED` into ``folder / "figures"``.

    Raises InputError where nothing has been recorded for it.
    """
    place = folder / "figures" / f"{name}.pdf"
    if name in PAGE_WIDE:
        PAGE_WIDE[name](data / "experiments", place)
    elif name == "continual":
        if draw_continual(data / "experiments", place.with_suffix(".png")) is None:
            raise InputError(f"{data / 'experiments'} holds no runs of the experiment continual")
    elif name == "bridge":
        save_bridge(data / "validation", place.with_suffix(".png"))
    else:
        drawing = FIGURES[name].draw()
        metadata = {"Creator": None, "Producer": None, "CreationDate": None}
        with drawing_style():
            write_atomically(place, lambda file: drawing.savefig(file, format="pdf", metadata=metadata))


def _make(piece: str, folder: Path, data: Path) -> str:
    """One independent piece of work: ``records``, or a figure by its name."""
    if piece == "records":
        write_records(folder, data)
    else:
        draw(piece, folder, data)
    return piece


def compile_pdf(folder: Path) -> bytes:
    """The PDF of the sources in ``folder``; the same bytes for the same records.

    Raises InputError if Typst is not installed, or does not accept the sources (a missing number, an unknown label).
    """
    try:
        import typst
    except ImportError as error:
        raise InputError("the manuscript needs Typst: pip install 'fstsim[paper]'") from error
    try:
        pdf = typst.compile(str(folder / "main.typ"), root=str(folder), ignore_system_fonts=True, timestamp=0)
    except typst.TypstError as error:
        raise InputError(f"Typst does not accept the manuscript: {error}") from error
    return bytes(pdf)


def build(config: Config) -> Path:
    """Make the manuscript; returns the path of the PDF. Errors are raised before anything is written to ``out``."""
    prepare_directory(config.out)
    pieces = ("records", *MEASURED, *SIMULATED)
    progress = Progress("manuscript", len(pieces) + 1, "pieces")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        work = joblib.Parallel(n_jobs=config.jobs, return_as="generator_unordered")
        for piece in work(joblib.delayed(_make)(piece, folder, config.data) for piece in pieces):
            progress.add(1, piece)
        pdf = compile_pdf(folder)
        numbers = read_json(folder / "numbers.json")
    progress.close()
    write_json(config.out / "numbers.json", numbers)
    write_atomically(config.out / "fstsim.pdf", lambda file: file.write(pdf))
    return config.out / "fstsim.pdf"


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
