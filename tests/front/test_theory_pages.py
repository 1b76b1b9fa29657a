"""The pages of the theory: one anchor for what code refers to, one place for each statement, a proof for each proved one.

References are read from the sources as text: "theory 1.3", "sections 8.1 and 8.2", P-labels, and statements by their slug.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import fstsim
import fstsim.theory
from fstsim.theory import ALL_STATEMENTS

ROOT = Path(__file__).resolve().parents[2]
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "paper/docs/theory").glob("*.md"))}
ANCHOR = re.compile(r'<a id="([^"]+)"></a>')
ANCHORS = {name: ANCHOR.findall(text) for name, text in PAGES.items()}
EVERYWHERE = {anchor for anchors in ANCHORS.values() for anchor in anchors}
STATEMENT = re.compile(r"^\*\*\[([TAN])\]\*\* `([^`]+)`", re.M)
SLUGS = {statement.slug for statement in ALL_STATEMENTS}
FOLLOWS = {"T": "*Proof.*", "A": "*Argument.*", "N": "*Observed*"}

NUMBER = r"1?\d(?:\.\d)?(?:[a-e]\b)?'?"
SECTIONS = re.compile(
    rf"(?:\b[Tt]heory(?:\.md)?|\bsections?)\s+({NUMBER}(?:(?:, | and |-| to ){NUMBER}(?![\w-]))*)(?![\w-])"
)
LABEL = re.compile(r"\bP(?:1[0-2]|[1-9])\b")
SLUG_LIST = re.compile(r"\b[Ss]tatements?\s+(`[a-zA-Z-]+\*?`(?:(?:, | and |, and )`[a-zA-Z-]+\*?`)*)")
CALL = re.compile(r"(?:--statement |find_statements\(\")([a-z][a-zA-Z-]+)\b")

# names that begin like those of statements and of nothing else, wherever they stand in quotes
FAMILY = re.compile(
    r"[`\"]((?:mass-forgetting|reverse-weight|replay-forward|replay-reverse|ttt-discover|exp-family|finite-batch|"
    r"group-normalised)-[a-zA-Z-]+\*?)[`\"]"
)


def sources() -> Iterator[tuple[str, str]]:
    """Relative path and text of the code, tests, README and other pages (not of the theory's pages and not of this file)."""
    for folder in ("fstsim", "theory", "llm", "paper", "tests"):
        for path in sorted((ROOT / folder).rglob("*")):
            inside = path.relative_to(ROOT)
            skipped = (
                path == Path(__file__) or "data" in inside.parts or inside.parts[:3] == ("paper", "docs", "theory")
            )
            if path.suffix in {".py", ".md", ".typ"} and not skipped:
                yield str(inside), path.read_text(encoding="utf-8")
    yield "README.md", (ROOT / "README.md").read_text(encoding="utf-8")


def section_numbers(text: str) -> list[str]:
    return [number for match in SECTIONS.finditer(text) for number in re.findall(NUMBER, match[1])]


def is_statement(name: str) -> bool:
    return any(slug.startswith(name[:-1]) for slug in SLUGS) if name.endswith("*") else name in SLUGS


def after(slug: str) -> str:
    """What a page says of a statement: from its mark to the next statement or heading."""
    (text,) = (page for page in PAGES.values() if f"]** `{slug}`" in page)
    start = text.index(f"]** `{slug}`")
    ends = [match.start() for match in re.finditer(r"^#+ |^\*\*\[[TAN]\]\*\* ", text, re.M) if match.start() > start]
    return text[start : min(ends, default=len(text))]


def test_the_readers_of_references_find_what_they_should() -> None:
    assert section_numbers("(theory 1.3 b, d), Theory 12c, theory 12, 16.1 and theory 12c'") == [
        *("1.3", "12c", "12", "16.1", "12c'"),
    ]
    assert section_numbers("Statements of sections 8.1 and 8.2; sections 0-5") == ["8.1", "8.2", "0", "5"]
    assert [m[1] for m in SLUG_LIST.finditer("Statements `sdft`, `sdft-*` and `oapl`.")] == [
        "`sdft`, `sdft-*` and `oapl`"
    ]
    assert is_statement("sdft-*")
    assert not is_statement("sdft-nothing")


def test_sections_that_are_cited_exist() -> None:
    cited = [(path, number) for path, text in sources() for number in section_numbers(text)]
    assert len(cited) > 150
    assert [(path, number) for path, number in cited if number not in EVERYWHERE] == []


def test_predictions_that_are_cited_exist() -> None:
    cited = [(path, label) for path, text in sources() if path.endswith(".py") for label in LABEL.findall(text)]
    assert {label for _, label in cited} <= set(ANCHORS["predictions.md"])
    assert [f"P{i}" for i in range(1, 13)] == [a for a in ANCHORS["predictions.md"] if LABEL.fullmatch(a)]


def test_statements_that_are_cited_exist() -> None:
    cited = []
    for path, text in sources():
        names = [name for match in SLUG_LIST.finditer(text) for name in re.findall(r"`([^`]+)`", match[1])]
        names += [name for name in CALL.findall(text) if name not in ("no-such-statement", "merged-escap")]
        names += FAMILY.findall(text)
        cited += [(path, name) for name in names]
    assert len(cited) > 60
    assert [(path, name) for path, name in cited if not is_statement(name)] == []


def test_nothing_refers_to_a_document_that_is_not_here() -> None:
    assert [path for path, text in sources() if re.search(r"\btheory\.md\b", text, re.I)] == []


def test_each_statement_stands_on_one_page_with_its_status() -> None:
    marked = [(slug, status) for text in PAGES.values() for status, slug in STATEMENT.findall(text)]
    assert sorted(marked) == sorted((statement.slug, statement.status) for statement in ALL_STATEMENTS)
    for name, text in PAGES.items():
        here = {slug for _, slug in STATEMENT.findall(text)}
        assert here <= set(ANCHORS[name])
        assert {slug for slug in SLUGS if f"`{slug}`" in text} == here, name


@pytest.mark.parametrize("slug", [statement.slug for statement in ALL_STATEMENTS])
def test_each_statement_is_followed_by_its_proof_argument_or_observation(slug: str) -> None:
    (status,) = (statement.status for statement in ALL_STATEMENTS if statement.slug == slug)
    assert FOLLOWS[status] in after(slug)


def test_anchors_are_unique_and_links_resolve() -> None:
    for name, text in PAGES.items():
        assert len(ANCHORS[name]) == len(set(ANCHORS[name])), name
        for target in re.findall(r"\]\(([^)]+)\)", formulas(text)[1]):
            page, _, anchor = target.partition("#")
            assert page in {"", *PAGES}, (name, target)
            assert not anchor or anchor in ANCHORS[page or name], (name, target)
    named = [anchor for anchors in ANCHORS.values() for anchor in anchors]
    assert len(named) == len(set(named))  # a section number or slug alone is an address


def test_pages_are_listed_in_the_contents() -> None:
    assert [name for name in PAGES if name != "index.md" and f"]({name})" not in PAGES["index.md"]] == []


def formulas(text: str) -> tuple[list[str], str]:
    """The formulas of a page and what remains without them and without code."""
    text = re.sub(r"`[^`\n]*`", "", text)
    shown = re.findall(r"^\$\$\n(.*?)\n\$\$$", text, re.M | re.S)
    text = re.sub(r"^\$\$\n.*?\n\$\$$", "", text, flags=re.M | re.S)
    inline = re.compile(r"\$(?=\S)([^$\n]+?)(?<=\S)\$(?!\d)")
    return [*shown, *inline.findall(text)], inline.sub("", text)


@pytest.mark.parametrize("name", PAGES)
def test_formulas_survive_a_forge_and_mathjax_alike(name: str) -> None:
    """No character that Markdown takes for its own: escaped punctuation, stars, tags; and every dollar has its partner."""
    inside, outside = formulas(PAGES[name])
    assert "$" not in outside
    assert [f for f in inside if re.search(r"\\[^a-zA-Z ]|\*|<[a-zA-Z/]", f)] == []
    assert [f for f in inside if f.count("{") != f.count("}") or f.count(r"\lbrace") != f.count(r"\rbrace")] == []
    rows = [line for line in PAGES[name].splitlines() if line.startswith("|")]
    assert [row for row in rows if any("|" in f for f in formulas(row)[0])] == []


@pytest.mark.parametrize("name", [name for name, text in PAGES.items() if "## In code" in text])
def test_names_of_the_code_exist(name: str) -> None:
    for found in re.findall(r"`([\w.]+)`", PAGES[name].partition("## In code")[2]):
        module, _, last = found.rpartition(".")
        where = importlib.import_module(module) if module else fstsim.theory
        assert hasattr(where, last) or hasattr(fstsim, last), found


def test_files_that_pages_name_exist() -> None:
    named = {
        found for text in PAGES.values() for found in re.findall(r"`((?:llm|paper|theory|fstsim)/[\w./-]+)`", text)
    }
    assert named
    assert [found for found in named if not (ROOT / found).exists()] == []
