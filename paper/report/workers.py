"""Checks and figures as independent pieces of work, spread over the cores: what `reproduce` and the nightly check run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fstsim.records import plain
from fstsim.workers import in_processes


def check_one(slug: str, examples: int, seed: int) -> dict[str, Any]:
    """JSON-ready result of checking one statement."""
    from fstsim.theory import check_statement, find_statements

    result: dict[str, Any] = plain(check_statement(find_statements(slug)[0], examples, seed).to_dict())
    return result


def draw_one(name: str, out: Path) -> list[Path]:
    """Draw one figure into ``out`` and return its files."""
    from fstsim.paper.figures.catalogue import FIGURES, save_figure

    return save_figure(FIGURES[name], out)


def _work(piece: tuple[str, ...], out: Path, examples: int, seed: int) -> tuple[tuple[str, ...], Any]:
    kind, name = piece
    return piece, (check_one(name, examples, seed) if kind == "check" else draw_one(name, out))


def work_through(
    pieces: Sequence[tuple[str, ...]], out: Path, examples: int, seed: int, jobs: int = -1
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """``(piece, result)`` as they are finished; a piece is ``("check", slug)`` or ``("figure", name)``, started in this order."""
    return in_processes(_work, [(piece, out, examples, seed) for piece in pieces], jobs)
