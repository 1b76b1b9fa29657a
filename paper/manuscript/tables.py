"""Tables of the manuscript, from the same records as those of the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from fstsim.errors import InputError
from fstsim.number_text import MISSING, ratio_number, table_number
from fstsim.paper.experiments.shown import SHOWN
from fstsim.paper.experiments.tables import QUOTED
from fstsim.paper.figures.catalogue import figure_of
from fstsim.paper.manuscript.maths import typst_maths, typst_parts
from fstsim.paper.manuscript.prose import prose, readable
from fstsim.records import read_json
from fstsim.theory import METHOD_TABLE, SECTIONS
from fstsim.theory.statements.statement import STATUS_NAMES
from fstsim.tightness import Wording, tightness

_EXPERIMENTS = "paper/data/experiments"
_SECTION_TITLES = {  # where the name of a section in the theory is not its title
    "tool": "Tools", "forward": "Forward KL", "reverse": "Reverse KL", "convergence": "Reverse KL: drift and convergence",
    "replay": "Replay and leashes", "starvation": "Replay and starvation under reverse KL", "sdft": "SDFT", "ttt": "TTT-Discover",
    "oapl": "OAPL", "map": "One map for all methods", "fast slow": "Fast and slow channels", "noise": "Finite batches",
    "modes": "Several modes, any covariances", "group normalised": "Group-normalised advantages", "adam": "Adam's clock",
    "group batches": "Groups: contexts, caps and waits", "sequences": "Answers of several decisions", "clipping": "Clipped gradients",
    "leash as a loss": "A KL leash as a loss", "KL estimators": "Estimators of KL", "coarse adam": "Coarse Adam",
}  # fmt: skip


@dataclass(frozen=True)
class Cells:
    """A table as text: the first ``names`` columns together name the row."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    source: str
    names: int = 1
    title: str = ""


def _cells(table: Table) -> Cells:
    """The text of a console table; rows that quote the paper's numbers are left to the text."""
    columns = [[str(cell) for cell in column.cells] for column in table.columns]
    cells = zip(table.rows, zip(*columns, strict=True), strict=True)
    rows = [tuple(map(readable, row)) for line, row in cells if line.style != QUOTED]
    names = next((k for k in range(1, len(columns)) if len({row[:k] for row in rows}) == len(rows)), 1)
    header = tuple(str(column.header) for column in table.columns)
    return Cells(header, tuple(rows), _EXPERIMENTS, names, str(table.title))


def experiment_cells(data: Path) -> dict[str, Cells]:
    """The tables of ``fstsim experiment --show``, by name; InputError where an experiment has not been recorded."""
    out = data / "experiments"
    found = {name: _cells(table) for shown in SHOWN for name, table in zip(shown.names, shown.tables(out), strict=True)}
    for name, table in found.items():
        if not table.rows:
            raise InputError(
                f"{out} holds no runs for the table of {name}: record them with fstsim.paper.records.record_runs"
            )
    return found


def _number(value: float | None) -> str:
    return readable(table_number(value))


def _interval(low: float | None, high: float | None) -> str:
    ends = (_number(low), _number(high))
    return MISSING if MISSING in ends else f"[{ends[0]}, {ends[1]}]"


def verdict_rows(folder: Path) -> list[dict[str, Any]]:
    """One row a prediction of a recorded validation, in the order of the record; falsified ones stay."""
    return [
        {
            "quantity": prose(row["quantity"]),
            "statement": row["statement"],
            "calibration": row.get("calibration", ""),
            "predicted": f"{_number(row['value'])} {_interval(row['low'], row['high'])}",
            "measured": f"{_number(row['measured'])} {_interval(row['measured_low'], row['measured_high'])}",
            "seeds": str(row["seeds"]),
            "verdict": row["verdict"],
        }
        for row in read_json(folder / "validation.json")
    ]


_WORDING = Wording(
    "↑",
    "↓",
    " ",
    "sign",
    "{low} to {high} %",
    lambda x: readable(ratio_number(x)),
    lambda x: readable(f"{x:+.2g}"),
)


def statement_rows(data: Path) -> list[dict[str, Any]]:
    """All statements in paper order, numbered, with their formulas as Typst and the recorded check.

    Raises InputError if a formula cannot be set, or if the record lacks a statement.
    """
    checks = {check["slug"]: check for check in read_json(data / "checks.json")["checks"]}
    placed = [(_SECTION_TITLES.get(name, name.capitalize()), s) for name, statements in SECTIONS for s in statements]
    missing = [s.slug for _, s in placed if s.slug not in checks]
    if missing:
        raise InputError(f"{data / 'checks.json'} lacks {', '.join(missing)}: run `make nightly-check`")
    return [
        {
            "number": number,
            "slug": s.slug,
            "section": section,
            "title": prose(s.title),
            "hypotheses": prose(s.hypotheses),
            "parts": typst_parts(s.latex),
            "status": s.status,
            "status_name": STATUS_NAMES[s.status],
            "violations": "–" if s.kind == "approximation" else str(checks[s.slug]["violations"]),
            "instances": f"{checks[s.slug]['examples']:,}",
            "tightness": tightness(checks[s.slug], _WORDING),
            "figure": figure_of(s.slug),
        }
        for number, (section, s) in enumerate(placed, start=1)
    ]


def method_rows() -> list[dict[str, Any]]:
    """The classification of methods: map, whether it has an interior fixed point, old mass, condition for retention."""
    return [
        {
            "title": prose(row.title),
            "map": typst_maths(row.map),
            "interior": row.interior,
            "old_mass": typst_maths(row.old_mass),
            "retention": typst_maths(row.retention),
        }
        for row in METHOD_TABLE
    ]


def as_json(tables: Mapping[str, Cells]) -> dict[str, dict[str, Sequence[Any]]]:
    """For ``json()`` of Typst."""
    return {name: {"header": table.header, "rows": table.rows} for name, table in tables.items()}
