r"""Formulas of Markdown as MathML: browsers draw it themselves, so that pages need no script, no font and no network.

A formula is ``$...$`` on one line, or stands between two lines ``$$``; code is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape, unescape

from fstsim.errors import InputError

_CODE = re.compile(r"^(?P<fence>```+|~~~+).*?^(?P=fence)[ \t]*$|(?P<tick>`+)(?!`).+?(?<!`)(?P=tick)(?!`)", re.M | re.S)
_SHOWN = re.compile(r"^\$\$\n(.*?)\n\$\$$", re.M | re.S)
_INLINE = re.compile(r"\$(?=\S)([^$\n]+?)(?<=\S)\$(?!\d)")
_WORDS = {
    r"\lbrace": r"\{",
    r"\rbrace": r"\}",
    r"\arg": r"\operatorname{arg}",
}  # what the converter knows under another name
# characters that Markdown would take for its own, between tags
_OWN = {ord(character): f"&#{ord(character)};" for character in r"*_`\[]|~^"}


def mathml(tex: str, display: bool = False) -> str:
    """``tex`` as one line of MathML, safe inside Markdown; InputError if it cannot be converted."""
    from latex2mathml.converter import convert

    known = re.sub(r"\\[a-z]+", lambda match: _WORDS.get(match[0], match[0]), tex)
    try:
        made: str = convert(known, display="block" if display else "inline")
    except Exception as error:  # whatever the converter raises, the page has to name the formula
        raise InputError(f"formula {tex!r} cannot be converted: {type(error).__name__}: {error}") from error
    if unknown := re.search(r"<m(?:i|text|o)[^>]*>(\\[a-zA-Z]+)", made):
        raise InputError(f"formula {tex!r} holds {unknown[1]}, which has no MathML")
    return re.sub(r">([^<]*)<", lambda match: f">{_plain(match[1])}<", made.replace("\n", " "))


def _plain(text: str) -> str:
    """The text between two tags, in characters that neither HTML nor Markdown takes for its own; large braces keep no backslash."""
    found = unescape(text)
    return escape(found[1:] if found in (r"\{", r"\}") else found, quote=False).translate(_OWN)


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """``text`` with ``change`` applied to what is not code, fenced or in backticks."""
    parts, last = [], 0
    for match in _CODE.finditer(text):
        parts += [change(text[last : match.start()]), match[0]]
        last = match.end()
    return "".join([*parts, change(text[last:])])


def with_mathml(text: str) -> str:
    """A page with its formulas as MathML; InputError where one cannot be converted."""

    def change(part: str) -> str:
        part = _SHOWN.sub(
            lambda match: f'\n<div class="formula" tabindex="0">{mathml(match[1], display=True)}</div>\n', part
        )
        # a line that begins with <math> is a block of HTML to Markdown, and its paragraph falls apart
        part = re.sub(rf"^{_INLINE.pattern}", lambda match: f"<span>{mathml(match[1])}</span>", part, flags=re.M)
        return _INLINE.sub(lambda match: mathml(match[1]), part)

    return outside_code(text, change)
