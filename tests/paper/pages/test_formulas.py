"""Formulas become MathML that Markdown leaves alone; every formula of the documentation can be converted."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from fstsim import InputError
from fstsim.paper.pages.formulas import mathml, with_mathml

pytest.importorskip("latex2mathml", reason="of the extra docs")

DOCS = Path(__file__).resolve().parents[3] / "paper/docs"


def test_a_fraction() -> None:
    made = mathml(r"\frac{a_i}{2}")
    tree = ElementTree.fromstring(made)
    names = [element.tag.rpartition("}")[2] for element in tree.iter()]
    assert "mfrac" in names
    assert "msub" in names
    assert "".join(tree.itertext()) == "ai2"


@pytest.mark.parametrize(
    "tex", [r"a_b*c", r"|x|\Vert y", r"\Big\lbrace\frac12\Big\rbrace", r"s' < 1", r"\arg\min_q\ell"]
)
def test_nothing_is_left_that_markdown_takes_for_its_own(tex: str) -> None:
    made = mathml(tex, display=True)
    ElementTree.fromstring(made)
    assert re.findall(r"[*_`\\\[\]|~^]", re.sub(r"<[^>]*>", "", made)) == []
    assert "\n" not in made


def test_braces_lose_their_backslash() -> None:
    assert "".join(ElementTree.fromstring(mathml(r"\Big\lbrace x\Big\rbrace")).itertext()) == "{x}"


def test_an_unknown_command_is_named() -> None:
    with pytest.raises(InputError, match=r"holds \\nosuchthing"):
        mathml(r"\nosuchthing x")


def test_code_and_prices_are_left_alone() -> None:
    text = "`$x$` costs $5 and $6\n```python\ncost = '$y$'\n```\n"
    assert with_mathml(text) == text


def test_a_paragraph_that_begins_with_a_formula_is_one_paragraph() -> None:
    found = with_mathml("$a$ as one, $b$ as *another*")
    assert found.startswith("<span><math")
    assert found.count("<span>") == 1
    markdown = pytest.importorskip("markdown")
    assert markdown.markdown(found).count("<p>") == 1
    assert "<em>another</em>" in markdown.markdown(found)


def test_a_formula_on_its_own_lines_is_a_block_that_scrolls() -> None:
    made = with_mathml("before\n\n$$\nx = 1\n$$\n\nafter $y$.")
    assert made.count("<math ") == 2
    assert '<div class="formula" tabindex="0"><math ' in made


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.name)
def test_every_formula_of_the_documentation(page: Path) -> None:
    made = with_mathml(page.read_text(encoding="utf-8"))
    for formula in re.findall(r"<math .*?</math>", made):
        ElementTree.fromstring(formula)
