"""Saved figures: the same bytes from every drawing and every style around, and nothing of dates or versions inside."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pytest

from fstsim.paper.figures.drawing import Drawing, drawing_style, save_pdf, save_png


def drawn() -> Drawing:
    """A small figure with text."""
    with drawing_style():
        figure = Drawing(figsize=(2.0, 1.5))
        figure.subplots().set_title("title")
    return figure


@pytest.mark.parametrize("save", [save_png, save_pdf])
def test_the_same_figure_is_the_same_file(tmp_path: Path, save: object) -> None:
    assert callable(save)
    first = save(drawn(), tmp_path / "a").read_bytes()
    with matplotlib.rc_context({"savefig.dpi": 33, "savefig.facecolor": "red"}):
        second = save(drawn(), tmp_path / "b").read_bytes()
    assert first == second
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a", "b"]
    assert matplotlib.__version__.encode() not in first
    assert b"Date" not in first


def test_a_png_has_the_style_s_resolution_and_its_title(tmp_path: Path) -> None:
    png = save_png(drawn(), tmp_path / "figure.png", "What it shows").read_bytes()
    size = [int.from_bytes(png[at : at + 4], "big") for at in (16, 20)]  # the PNG header
    assert size == [300, 225]
    assert b"Title\x00What it shows" in png
