"""Fenced blocks of Markdown pages, and what it means that they work: for the tests of README and of the how-to pages.

Python blocks are executed, each on its own (with `>>>` their output is compared). Of shell blocks, lines that start with
`fstsim ` are executed in the given folder, and each `make` target and `cd` folder has to exist; lines that start with one
of the words of `SETUP` are left to the reader, and files written by `cat > FILE <<'END'` are written. In console blocks with prompts, commands follow `$ ` and the rest is output. A
block after a line `<!-- not run -->` is skipped.
"""

from __future__ import annotations

import doctest
import functools
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

from fstsim.__main__ import main

ROOT = Path(__file__).resolve().parents[1]
HEREDOC = re.compile(r"^cat > (?P<name>\S+) <<'END'\n(?P<text>.*?)^END\n", re.M | re.S)
SETUP = {"git", "pip", "python", "python3", "source", ".", "open", "xdg-open"}


class Block(NamedTuple):
    language: str
    line: int
    text: str
    page: str = "README.md"


def blocks(markdown: str, page: str = "README.md") -> list[Block]:
    pattern = re.compile(r"(?P<skip><!-- not run -->\n)?^```(?P<language>bash|console|python)\b[^\n]*\n(?P<text>.*?)^```", re.M | re.S)  # fmt: skip
    return [
        Block(match["language"], markdown[: match.start("text")].count("\n"), match["text"], page)
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


def run_fstsim(words: list[str], folder: Path) -> None:
    """The command line in this process, with a relearning probe of three steps in place of sixty: it is tested on its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        if words[0] == "train":
            import fstsim.llm.runs.run as train_run
            from fstsim.llm.runs.relearning import relearn_steps

            patch.setattr(train_run, "relearn_steps", functools.partial(relearn_steps, most=3, batch=4))
        assert main(words) == 0, f"fstsim {shlex.join(words)}"


def check_shell(block: Block, folder: Path) -> None:
    for match in HEREDOC.finditer(block.text):
        (folder / match["name"]).write_text(match["text"], encoding="utf-8")
    for command in commands(block):
        first, *words = shlex.split(command, comments=True)
        if first == "fstsim":
            run_fstsim(words, folder)
        elif first == "make":
            targets = [word for word in words if "=" not in word]
            assert set(targets) <= make_targets(), f"{block.page}:{block.line}: no such target in {command!r}"
        elif first == "cd":
            assert words == ["fstsim"], f"{block.page}:{block.line}: the repository is called fstsim"
        else:
            assert first in SETUP, f"{block.page}:{block.line}: cannot check {command!r}"


def check_python(block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    if ">>>" not in block.text:
        code = compile(block.text, f"{block.page}:{block.line}", "exec", dont_inherit=True)
        exec(code, {"__name__": "page"})
        return
    test = doctest.DocTestParser().get_doctest(block.text, {}, block.page, block.page, block.line)
    result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS).run(test)
    assert result.failed == 0


def check_block(block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if block.language == "python":
        check_python(block, folder, monkeypatch)
    else:
        check_shell(block, folder)
