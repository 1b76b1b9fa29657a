"""The pages as the builder gets them: all are in the menu, links that leave the documentation are text, none leads nowhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from page_blocks import ROOT

from fstsim import InputError
from fstsim.paper.pages import site
from fstsim.paper.pages.api import rooms
from fstsim.paper.pages.site import DOCS, _moved_links, menu, sources

pytest.importorskip("latex2mathml", reason="of the extra docs")


def test_every_page_is_in_the_menu_once() -> None:
    texts = dict(sources())
    listed = json.dumps(menu(texts))
    assert [name for name in texts if listed.count(f'"{name}"') != 1] == []


def test_a_page_that_nobody_listed_is_a_how_to_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "measure-my-run.md").write_text("# Measure")
    (tmp_path / "choose.md").write_text("# Choose")
    monkeypatch.setattr(site, "DOCS", tmp_path)
    assert site.how_to_pages()[-1] == "measure-my-run.md"


def test_a_page_that_the_menu_names_must_be_there() -> None:
    texts = dict(sources())
    del texts["choose.md"]
    with pytest.raises(InputError, match=r"lacks choose\.md"):
        menu(texts)


def test_links_that_leave_the_documentation() -> None:
    page = DOCS / "own-task.md"
    assert _moved_links("[log](../LOG.md#x) `[a](b)`", page) == "[log](log.md#x) `[a](b)`"
    assert _moved_links("![p](../images/bridge.png)", page) == "![p](images/bridge.png)"
    assert _moved_links("[names](names.md#all)", page) == "[names](names.md#all)"
    assert _moved_links("[types](../../llm/types.py)", page) == "types (`llm/types.py`)"
    assert _moved_links("[log](../../LOG.md)", DOCS / "theory" / "index.md") == "[log](../log.md)"
    with pytest.raises(InputError, match=r"own-task\.md leads to gone\.md, which is not there"):
        _moved_links("[x](gone.md)", page)


def test_public_names_have_their_pages() -> None:
    texts = {room.module: room.text() for room in rooms()}
    assert "::: fstsim.TwoModeProblem" in texts["fstsim"]
    assert "::: fstsim.testing.check_claim" in texts["fstsim.testing"]
    assert "::: fstsim.llm.run_training" in texts["fstsim.llm"]
    assert texts["fstsim.theory"].count("::: ") > 150


def test_a_folder_with_something_else_in_it_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    command = [sys.executable, "-m", "fstsim.paper.pages.site", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "holds something that is no documentation" in done.stderr
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.slow
def test_the_site_is_built(tmp_path: Path) -> None:
    pytest.importorskip("zensical", reason="of the extra docs")
    assert site.build(tmp_path / "docs") > 40
    assert "unpkg.com" not in (tmp_path / "docs" / "index.html").read_text(encoding="utf-8")
