"""Docstrings as Markdown: examples are fenced, roles are code, the rest stays."""

from __future__ import annotations

import pytest

pytest.importorskip("griffe", reason="of the extra docs")

from fstsim.paper.pages.docstrings import readable


def test_an_example_is_fenced_up_to_the_next_empty_line() -> None:
    text = "It doubles.\n\n>>> double(2)\n4\n\nSource: :func:`double` of :meth:`~a.b`."
    assert readable(text) == "It doubles.\n\n\n```pycon\n>>> double(2)\n4\n```\n\nSource: `double` of `a.b`."


def test_an_example_at_the_end_is_closed() -> None:
    assert readable(">>> [[1]]\n[[1]]").splitlines()[-1] == "```"


def test_text_without_examples_is_left_alone() -> None:
    assert readable("a\n\nb") == "a\n\nb"
