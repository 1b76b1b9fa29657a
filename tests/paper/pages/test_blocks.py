"""Generated parts: each page shows what the code and the records say now, and what cannot be placed is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from page_blocks import ROOT

from fstsim import InputError
from fstsim.paper.pages.blocks import Block, rewrite_pages, table
from fstsim.paper.pages.generated import BLOCKS


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
def test_the_page_shows_what_is_recorded(block: Block) -> None:
    page = (ROOT / block.page).read_text(encoding="utf-8")
    assert block.filled(page) == page, "run `make readme`"


def test_only_what_is_between_the_markers_is_written(tmp_path: Path) -> None:
    first, second = Block("a", "page.md", lambda: "one\n\n"), Block("b", "page.md", lambda: "two")
    (tmp_path / "page.md").write_text("x\n" + "\n".join([*first.markers, "kept", *second.markers]) + "\ny\n")
    assert rewrite_pages(tmp_path, [first, second]) == [tmp_path / "page.md"]
    (a, end_a), (b, end_b) = first.markers, second.markers
    assert (tmp_path / "page.md").read_text() == f"x\n{a}\none\n{end_a}\nkept\n{b}\ntwo\n{end_b}\ny\n"


@pytest.mark.parametrize("lines", [(), (0,), (1, 0), (0, 1, 0, 1)])
def test_markers_are_needed_once_and_in_order(lines: tuple[int, ...], tmp_path: Path) -> None:
    block = Block("a", "page.md", lambda: "one")
    text = "\n".join(block.markers[k] for k in lines)
    (tmp_path / "page.md").write_text(text)
    with pytest.raises(InputError, match=r"page\.md must hold the lines <!-- a: generated"):
        rewrite_pages(tmp_path, [block])
    assert (tmp_path / "page.md").read_text() == text


def test_a_page_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.md is missing"):
        rewrite_pages(tmp_path, [Block("a", "none.md", lambda: "")])


def test_a_bar_does_not_end_a_cell() -> None:
    assert table(["a", "b"], [["x | y", "z"]]) == "| a | b |\n| --- | --- |\n| x &#124; y | z |\n"
