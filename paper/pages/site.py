"""``make docs``: the pages of paper/docs, the log and the public names as a site that opens offline, in any browser.

The pages are put together in a folder of their own (formulas as MathML, links to files of the repository as text) and built
strictly: a link that leads nowhere, an anchor that is not there or a name that does not exist stops the build.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fstsim.errors import InputError
from fstsim.front.console import show
from fstsim.front.entry import run_module
from fstsim.paper import ROOM, checkout
from fstsim.paper.pages.api import rooms
from fstsim.paper.pages.formulas import outside_code, with_mathml
from fstsim.paper.pages.links import problems_of

DOCS = ROOM / "docs"
HOW_TO = "How to"
SECTIONS: Mapping[str, Sequence[str]] = {
    HOW_TO: ("own-bound.md", "own-objective.md", "own-task.md", "own-model.md", "own-learner.md", "new-statement.md", "new-figure.md"),
    "Choose": ("choose.md", "leash.md", "methods.md", "neighbours.md"),
    "Results": ("verdicts.md", "claims.md", "forecast.md", "faithful.md", "isolation.md", "layers.md", "resets.md", "results.md", "statements.md", "growth.md", "log.md"),
    "Reference": ("commands.md", "columns.md", "names.md"),
}  # fmt: skip
"""Pages of the menu; a page of paper/docs that is on none of these lists is a how-to page."""
FIRST = "index.md"

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)")
_TITLE = re.compile(r"^# (.+)$", re.M)
_SHIM = "https://unpkg.com/iframe-worker/shim"


def how_to_pages() -> list[str]:
    """The how-to pages: those of the list, then those that nobody listed."""
    listed = {page for pages in SECTIONS.values() for page in pages} | {FIRST}
    others = sorted(path.name for path in DOCS.glob("*.md") if path.name not in listed)
    return [*SECTIONS[HOW_TO], *others]


def _title(text: str, name: str) -> str:
    found = _TITLE.search(text)
    if found is None:
        raise InputError(f"{name} must begin with a title: a line that starts with one #")
    return found[1]


def _moved_links(text: str, page: Path) -> str:
    """Links of ``page`` (a file of the checkout) as they have to be in the site; InputError where a file is not there."""
    root = checkout()

    def change(match: re.Match[str]) -> str:
        picture, words, target = match.groups()
        path, _, anchor = target.partition("#")
        if "://" in target or not path:
            return match[0]
        there = (page.parent / path).resolve()
        if not there.exists():
            raise InputError(f"{page.relative_to(root)} leads to {target}, which is not there")
        up = "../" * (len(page.relative_to(DOCS).parts) - 1) if page.is_relative_to(DOCS) else ""
        if there == ROOM / "LOG.md":
            return f"[{words}]({up}log.md{'#' if anchor else ''}{anchor})"
        if there.is_relative_to(ROOM / "images"):
            return f"{picture}[{words}]({up}images/{there.name})"
        if there.is_relative_to(DOCS):
            return match[0] if page.is_relative_to(DOCS) else f"[{words}]({there.relative_to(DOCS).as_posix()})"
        return f"{words} (`{there.relative_to(root).as_posix()}`)"

    return outside_code(text, lambda part: _LINK.sub(change, part))


def sources() -> Iterator[tuple[str, str]]:
    """``(place in the site, Markdown)`` of every page."""
    for path in sorted(DOCS.rglob("*.md")):
        yield path.relative_to(DOCS).as_posix(), _moved_links(with_mathml(path.read_text(encoding="utf-8")), path)
    log = ROOM / "LOG.md"
    yield "log.md", _moved_links(log.read_text(encoding="utf-8"), log)
    for room in rooms():
        yield room.page, room.text()


def menu(texts: Mapping[str, str]) -> list[dict[str, object]]:
    """The list of pages as the builder wants it."""
    sections = {name: list(how_to_pages() if name == HOW_TO else pages) for name, pages in SECTIONS.items()}
    sections["Reference"] += [room.page for room in rooms()]
    theory = [name for name in texts if name.startswith("theory/") and name != "theory/index.md"]
    sections["Theory"] = ["theory/index.md", *theory]
    missing = [page for pages in sections.values() for page in pages if page not in texts]
    if missing:
        raise InputError(
            f"the documentation lacks {', '.join(missing)}, which the menu of fstsim.paper.pages.site names"
        )
    listed: list[dict[str, object]] = [{"Home": FIRST}]
    return listed + [
        {name: [{re.sub(r"[`*]", "", _title(texts[page], page)): page} for page in pages]}
        for name, pages in sections.items()
    ]


def assemble(folder: Path) -> None:
    """Put everything that the builder reads into ``folder``."""
    texts = dict(sources())
    for name, text in texts.items():
        path = folder / "docs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    shutil.copytree(DOCS / "assets", folder / "docs" / "assets")
    shutil.copytree(ROOM / "images", folder / "docs" / "images")
    settings = (DOCS / "mkdocs.yml").read_text(encoding="utf-8")
    listed = json.dumps(menu(texts), ensure_ascii=False)  # JSON is YAML
    (folder / "mkdocs.yml").write_text(f"{settings}nav: {listed}\n", encoding="utf-8")
    # mkdocstrings reads sources, and the rooms are folders beside the package that they belong to
    package = folder / "code" / "fstsim"
    package.mkdir(parents=True)
    for path in (checkout() / "fstsim").iterdir():
        (package / path.name).symlink_to(path)
    for room in ("theory", "llm", "paper"):
        (package / room).symlink_to(checkout() / room)


def _local_search(site: Path) -> None:
    """The search of pages opened as files, without the script from elsewhere that the theme asks for."""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        up = "../" * (len(page.relative_to(site).parts) - 1)
        page.write_text(text.replace(_SHIM, f"{up}assets/worker.js"), encoding="utf-8")


def build(out: Path) -> int:
    """Build the site as ``out``, whole or not at all; returns the number of pages. InputError where anything leads nowhere."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".docs-") as name:
        folder = Path(name).resolve()
        assemble(folder)
        environment = {**os.environ, "NO_COLOR": "1"}
        command = [
            sys.executable,
            "-m",
            "zensical",
            "build",
            "--clean",
            "--strict",
            "--config-file",
            str(folder / "mkdocs.yml"),
        ]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stdout + done.stderr).partition("Traceback")[0]
            raise InputError(f"the documentation was not built: {said or done.stderr}")
        site = folder / "site"
        _local_search(site)
        found = problems_of(site)
        if found:
            raise InputError("the documentation was not written:\n" + "\n".join(found))
        if out.exists():
            shutil.rmtree(out)
        site.rename(out)
    return len(list(out.rglob("*.html")))


@dataclass(frozen=True)
class Config:
    """Build the documentation, strictly and offline: how-to pages, theory, results, log and all public names."""

    out: Path = Path("out/docs")
    """directory of the site, replaced; open its index.html"""


def write(config: Config) -> int:
    """Do it and say where."""
    checkout()
    if config.out.exists() and any(config.out.iterdir()) and not (config.out / "index.html").exists():
        raise InputError(f"{config.out} holds something that is no documentation: name another --out")
    pages = build(config.out)
    show(f"{pages} pages: open {config.out / 'index.html'}")
    return 0


def main() -> int:
    """Command line; returns the exit code."""
    return run_module("fstsim.paper.pages.site", Config, write)


if __name__ == "__main__":
    raise SystemExit(main())
