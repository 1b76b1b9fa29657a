"""Docstrings as Markdown, for mkdocstrings: examples become code, roles become plain code."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_ROLE = re.compile(r":(?:func|meth|class|mod):`~?([^`]+)`")


def readable(text: str) -> str:
    """``text`` with every run of ``>>>`` lines and their output fenced, up to the next empty line."""
    out: list[str] = []
    example = False
    for line in _ROLE.sub(r"`\1`", text).splitlines():
        if not example and line.lstrip().startswith(">>>"):
            out += ["", "```pycon"]
            example = True
        elif example and not line.strip():
            out.append("```")
            example = False
        out.append(line)
    return "\n".join([*out, "```"] if example else out)


class Docstrings(Extension):  # type: ignore[misc, unused-ignore]  # Any where griffe is not installed
    """What mkdocstrings calls for every object that it has read."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Make the docstring of ``obj`` readable as Markdown."""
        if obj.docstring is not None:
            obj.docstring.value = readable(obj.docstring.value)
