"""Puts the manuscript together: records to numbers and tables, figures to PDF, Typst to pages."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from fstsim.errors import InputError
from fstsim.front.console import Progress
from fstsim.paper import DATA, check_recorded
from fstsim.records import prepare_directory, read_json, write_atomically, write_json
from fstsim.workers import in_processes

SOURCES = Path(__file__).parent


@dataclass(frozen=True)
class Config:
    """Make the manuscript as PDF from recorded runs: fstsim.pdf, and numbers.json, which names the record of every number."""

    out: Path = Path("out")
    """directory for fstsim.pdf and numbers.json"""
    data: Path = DATA
    """folder of records: checks.json, experiments/ and validation/"""
    jobs: int = -1
    """processes; -1 uses every core"""


def simulated() -> tuple[str, ...]:
    """Figures of the simulator that the text shows, in its order."""
    from fstsim.paper.figures.catalogue import FIGURES

    return tuple(name for name, figure in FIGURES.items() if figure.manuscript)


def measured() -> tuple[str, ...]:
    """Figures of the experiments that the text shows, and the bridge: drawn from run directories."""
    from fstsim.paper.experiments.shown import PICTURES

    return (*(picture.name for picture in PICTURES if picture.manuscript), "bridge")


def write_records(folder: Path, data: Path) -> None:
    """Put everything but the figures into ``folder``: Typst sources, numbers, statements and tables.

    Raises InputError where a record is missing or a formula cannot be set.
    """
    from fstsim.paper.figures.catalogue import FIGURES
    from fstsim.paper.manuscript import numbers as manuscript_numbers
    from fstsim.paper.manuscript import tables as manuscript_tables
    from fstsim.paper.manuscript.prose import prose
    from fstsim.paper.records.verdict_summary import pretrained_folders

    for source in sorted(SOURCES.iterdir()):
        if source.suffix in (".typ", ".yml"):
            shutil.copy(source, folder)
    tables = manuscript_tables.experiment_cells(data)
    numbers = manuscript_numbers.all_numbers(data, tables)
    write_json(folder / "numbers.json", manuscript_numbers.as_json(numbers))
    write_json(folder / "tables.json", manuscript_tables.as_json(tables))
    write_json(folder / "statements.json", manuscript_tables.statement_rows(data))
    write_json(folder / "methods.json", manuscript_tables.method_rows())
    write_json(folder / "verdicts.json", manuscript_tables.verdict_rows(data / "validation"))
    pretrained = [row for place in pretrained_folders(data) for row in manuscript_tables.verdict_rows(place)]
    write_json(folder / "pretrained.json", pretrained)
    figures = {name: {"title": f.title, "caption": prose(f.caption)} for name, f in FIGURES.items()}
    write_json(folder / "figures.json", figures)


def draw_measured(name: str, folder: Path, data: Path) -> None:
    """Draw the figure ``name`` of `measured` into ``folder / "figures"``.

    Raises InputError where nothing has been recorded for it.
    """
    from fstsim.paper.bridge.figure import save_bridge
    from fstsim.paper.experiments.shown import PICTURES

    if name == "bridge":
        save_bridge(data / "validation", folder / "figures" / "bridge.png")
        return
    picture = next(picture for picture in PICTURES if picture.name == name)
    if picture.draw_page(data / "experiments", folder / "figures") is None:
        raise InputError(f"{data / 'experiments'} holds no runs for the figure {name}")


def draw_simulated(name: str, folder: Path) -> None:
    """Draw the figure ``name`` of `simulated` into ``folder / "figures"``."""
    from fstsim.paper.figures.catalogue import FIGURES
    from fstsim.paper.figures.drawing import save_pdf

    save_pdf(FIGURES[name].draw(), folder / "figures" / f"{name}.pdf")


def _make(piece: str, folder: Path, data: Path) -> str:
    """One piece of work: a figure of `simulated`, or ``measured``, all that is read from records; returns its name."""
    if piece != "measured":
        draw_simulated(piece, folder)
        return piece
    write_records(folder, data)
    for name in measured():
        draw_measured(name, folder, data)
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
    check_recorded(config.data, "--data")
    prepare_directory(config.out)
    # The longest first, so that no core waits for another at the end: the text's later figures take longer. What is
    # read from records is one piece: the modules of the language models take longer to import than its parts to make,
    # and so one process alone imports them, and this one none of what only the pieces need.
    pieces = ("measured", *reversed(simulated()))
    progress = Progress("manuscript", 1 + len(pieces), "pieces")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for made in in_processes(_make, [(piece, folder, config.data) for piece in pieces], config.jobs):
            progress.add(1, made)
        pdf = compile_pdf(folder)
        numbers = read_json(folder / "numbers.json")
    progress.close()
    write_json(config.out / "numbers.json", numbers)
    write_atomically(config.out / "fstsim.pdf", lambda file: file.write(pdf))
    return config.out / "fstsim.pdf"
