"""Every fenced block of the documentation's own pages works as it stands; blocks of one page share a folder, in their order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from page_blocks import ROOT, blocks, check_block

DOCS = ROOT / "paper/docs"
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md"))}
ELSEWHERE = {
    "measure-a-trl-run.md"
}  # pages whose example has a test of its own: that one wants a GPU, or is told of a CPU
WITH_BLOCKS = [name for name, text in PAGES.items() if blocks(text) and name not in ELSEWHERE]


@pytest.mark.parametrize("name", WITH_BLOCKS)
def test_blocks_of_a_page(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "many-gpus.md":
        pytest.importorskip("trl")
    for block in blocks(PAGES[name], name):
        check_block(block, tmp_path, monkeypatch)


def test_how_to_pages_have_blocks_and_fit_on_a_screen() -> None:
    own = [name for name in PAGES if name.startswith(("own-", "new-"))]
    assert len(own) >= 7
    assert set(own) <= set(WITH_BLOCKS)
    assert {name: n for name in own if (n := len(PAGES[name].splitlines())) > 70} == {}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    text = re.sub(r"^```.*?^```|`[^`\n]*`|\$[^$\n]+\$", "", PAGES[name], flags=re.M | re.S)
    missing = [
        target for target in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in target and not (DOCS / target).exists()
    ]
    assert missing == []
