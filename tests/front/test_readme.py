"""Every fenced bash, console and python block of README.md works as it stands.

Python blocks are executed, each on its own (with `>>>` their output is compared). Of shell blocks, lines that start with
`fstsim ` are executed in an empty folder, and each `make` target and `cd` folder has to exist; lines that start with one
of the words of `SETUP` are left to the reader, and files written by `cat > FILE <<'END'` are written. In console blocks with prompts, commands follow `$ ` and the rest is output. A
block after a line `<!-- not run -->` is skipped.
"""

from __future__ import annotations

import doctest
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
HEREDOC = re.compile(r"^cat > (?P<name>\S+) <<'END'\n(?P<text>.*?)^END\n", re.M | re.S)
SETUP = {"git", "pip", "python", "python3", "source", ".", "open", "xdg-open"}


class Block(NamedTuple):
    language: str
    line: int
    text: str


def blocks(markdown: str) -> list[Block]:
    pattern = re.compile(r"(?P<skip><!-- not run -->\n)?^```(?P<language>bash|console|python)\b[^\n]*\n(?P<text>.*?)^```", re.M | re.S)  # fmt: skip
    return [
        Block(match["language"], markdown[: match.start("text")].count("\n"), match["text"])
        for match in pattern.finditer(markdown)
        if not match["skip"]
    ]


def commands(block: Block) -> list[str]:
    lines = HEREDOC.sub("", block.text).replace("\\\n", " ").splitlines()
    if block.language == "console" and "$ " in block.text:
        return [line.removeprefix("$ ").strip() for line in lines if line.startswith("$ ")]
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))


def test_what_the_commands_write_is_ignored() -> None:
    """Pictures of recorded runs are drawn beside them, in the checkout; records themselves are tracked."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    command = ["git", "check-ignore", "paper/data/experiments/core.png", "paper/data/experiments/runs/x/config.json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["paper/data/experiments/core.png"]


def run_fstsim(words: list[str], folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fstsim", *words], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"fstsim {shlex.join(words)}\n{done.stderr}"


def check_shell(block: Block, folder: Path) -> None:
    for match in HEREDOC.finditer(block.text):
        (folder / match["name"]).write_text(match["text"], encoding="utf-8")
    for command in commands(block):
        first, *words = shlex.split(command, comments=True)
        if first == "fstsim":
            run_fstsim(words, folder)
        elif first == "make":
            targets = [word for word in words if "=" not in word]
            assert set(targets) <= make_targets(), f"README.md:{block.line}: no such target in {command!r}"
        elif first == "cd":
            assert words == ["fstsim"], f"README.md:{block.line}: the repository is called fstsim"
        else:
            assert first in SETUP, f"README.md:{block.line}: cannot check {command!r}"


def check_python(block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    if ">>>" not in block.text:
        exec(compile(block.text, f"README.md:{block.line}", "exec"), {"__name__": "readme"})
        return
    test = doctest.DocTestParser().get_doctest(block.text, {}, "README", "README.md", block.line)
    result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS).run(test)
    assert result.failed == 0


BLOCKS = blocks(README.read_text(encoding="utf-8")) if README.exists() else []


def test_readme_exists_and_shows_both_commands() -> None:
    assert README.exists()
    text = README.read_text(encoding="utf-8")
    assert "make reproduce" in text
    assert "make test" in text
    assert BLOCKS


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"line{block.line}")
def test_block(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if block.language == "python":
        check_python(block, tmp_path, monkeypatch)
    else:
        check_shell(block, tmp_path)


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
