"""Every fenced bash, console and python block of README.md works as it stands (`page_blocks` says how that is tested)."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from page_blocks import ROOT, Block, blocks, check_block, check_shell, commands

README = ROOT / "README.md"


def test_what_the_commands_write_is_ignored() -> None:
    """Pictures of recorded runs are drawn beside them, in the checkout; records themselves are tracked."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    command = ["git", "check-ignore", "paper/data/experiments/core.png", "paper/data/experiments/runs/x/config.json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["paper/data/experiments/core.png"]


BLOCKS = blocks(README.read_text(encoding="utf-8")) if README.exists() else []


def test_readme_exists_and_shows_both_commands() -> None:
    assert README.exists()
    text = README.read_text(encoding="utf-8")
    assert "make reproduce" in text
    assert "make test" in text
    assert BLOCKS


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"line{block.line}")
def test_block(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_block(block, tmp_path, monkeypatch)


def test_it_is_one_page() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 125


def test_every_page_of_the_first_screen_is_linked() -> None:
    """What a reader can do, choose and look up: all pages of paper/docs but the first, which says the same."""
    text = README.read_text(encoding="utf-8")
    pages = {path.name for path in (ROOT / "paper/docs").glob("*.md")} - {"index.md"}
    linked = set(re.findall(r"\(paper/docs/([\w-]+\.md)\)", text))
    assert linked - {"index.md"} <= pages
    assert {
        "choose.md",
        "commands.md",
        "statements.md",
        "verdicts.md",
        "results.md",
        "columns.md",
        "methods.md",
    } <= linked


def test_links_lead_somewhere() -> None:
    text = re.sub(r"^```.*?^```", "", README.read_text(encoding="utf-8"), flags=re.M | re.S)
    targets = re.findall(r"\]\(([^)#\s]+)", text) + re.findall(r'src="([^"]+)"', text)
    missing = [target for target in targets if "://" not in target and not (ROOT / target).exists()]
    assert missing == []


SAMPLE = """
```bash
# a comment
make reproduce OUT=here
fstsim check \\
  --examples 5
```
<!-- not run -->
```bash
rm -rf /
```
```console
$ fstsim --version
fstsim 0.1.0
```
```python
>>> 1 + 1
2
```
"""


def test_files_of_a_block_are_written(tmp_path: Path) -> None:
    block = Block("bash", 1, "cat > a.jsonl <<'END'\n{}\nfstsim chek\nEND\nmake test\n")
    assert commands(block) == ["make test"]
    check_shell(block, tmp_path)
    assert (tmp_path / "a.jsonl").read_text(encoding="utf-8") == "{}\nfstsim chek\n"


def test_blocks_are_found() -> None:
    found = blocks(SAMPLE)
    assert [block.language for block in found] == ["bash", "console", "python"]
    assert [" ".join(shlex.split(c)) for c in commands(found[0])] == [
        "make reproduce OUT=here",
        "fstsim check --examples 5",
    ]
    assert commands(found[1]) == ["fstsim --version"]


@pytest.mark.parametrize("command", ["make no-such-target", "curl example.org", "fstsim chek", "cd elsewhere"])
def test_what_does_not_work_is_noticed(command: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        check_shell(Block("bash", 1, command + "\n"), tmp_path)
