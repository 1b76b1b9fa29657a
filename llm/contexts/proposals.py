"""What a chat model wrote when it was asked for a context, made into one: thoughts, fences, JSON and labels are taken off.

Whoever writes may be small, cautious or cut off in the middle of a word. What is no context raises `UnusableProposal`,
which is counted and shown: a round without a usable proposal is not the same as a round without a better one.
"""

from __future__ import annotations

import json
import re
from typing import Any

_THOUGHT = re.compile(r"<(think|thinking|reasoning)>.*?</\1>", re.DOTALL | re.IGNORECASE)
_THOUGHT_END = re.compile(r"^.*</(?:think|thinking|reasoning)>", re.DOTALL | re.IGNORECASE)
_THOUGHT_BEGIN = re.compile(r"<(?:think|thinking|reasoning)>.*$", re.DOTALL | re.IGNORECASE)
_FENCE = "```"
_TAG = re.compile(r"[A-Za-z0-9_+-]{0,20}[ \t]*\n")
_CUT_JSON = re.compile(r'[\[{]\s*(?:"[^"]{0,80}"\s*:\s*)?"((?:[^"\\]|\\.)*)')
_LABEL = re.compile(
    r"^[\s*#>_-]*(?:here(?:'s| is)[^:\n]{0,60}|(?:the )?(?:new |improved |updated |revised |final )?(?:instruction|context|prompt|rule)s?)"
    r"\s*[*_]*\s*:[*_]*\s*",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"^[\W_]*(?:(?:i'?m|i am) (?:very |so |truly )?sorry|sorry\b|i apologi[sz]e|my apologies|i (?:cannot|can'?t|can not|won'?t)\b"
    r"|(?:i'?m|i am) (?:unable|not able)|as an (?:ai|artificial)|unfortunately,? i\b)",
    re.IGNORECASE,
)
_SHOWN = 120  # characters of what was written, in a message
_DEEPEST = 8


class UnusableProposal(Exception):
    """What a reflector wrote is no context: ``why``, what it ``wrote``, and the rollouts of the policy that it ``cost``."""

    def __init__(self, why: str, wrote: str, cost: int = 0) -> None:
        shown = " ".join(wrote.split())
        super().__init__(f"{why}: {shown[:_SHOWN]!r}" if shown else why)
        self.why, self.wrote, self.cost = why, wrote, cost


def context_from(wrote: str, present: str = "", cost: int = 0) -> str:
    """The context in what a chat model ``wrote`` in place of ``present``. Raises UnusableProposal where there is none."""
    text = _THOUGHT_BEGIN.sub("", _THOUGHT_END.sub("", _THOUGHT.sub("", wrote))).strip()
    if not text:
        raise UnusableProposal("thoughts and no text" if wrote.strip() else "an empty text", wrote, cost)
    text = _plain(_from_json(_fenced(text)))
    if not text:
        raise UnusableProposal("no words", wrote, cost)
    if _REFUSAL.match(text):
        raise UnusableProposal("a refusal", wrote, cost)
    if text == present.strip():
        raise UnusableProposal("the present context again", wrote, cost)
    return text


def _fenced(text: str) -> str:
    """What is between the first fence and the last; of one fence alone, which was cut off, the longer side."""
    if _FENCE not in text:
        return text
    before, _, rest = text.partition(_FENCE)
    inside, closed, _ = rest.rpartition(_FENCE)
    if not closed:
        opened = _TAG.match(rest)
        inside = rest if opened or len(rest.strip()) >= len(before.strip()) else before
        if inside is before:
            return before.strip()
    tag = _TAG.match(inside)
    inside = (inside[tag.end() :] if tag else inside).strip()
    return inside or text.replace(_FENCE, " ").strip()


def _from_json(text: str) -> str:
    """The longest text in a JSON value; of one that was cut off, the first; anything else as it is."""
    if text[:1] not in ("{", "["):
        return text
    try:
        return max(_texts(json.loads(text), 0), key=len, default="")
    except (ValueError, RecursionError):
        found = _CUT_JSON.match(text)
        if found is None:
            return text
        try:
            return str(json.loads(f'"{found[1]}"'))
        except ValueError:
            return found[1]


def _texts(value: Any, depth: int) -> list[str]:
    if isinstance(value, str):
        return [value]
    if depth == _DEEPEST:
        return []
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for one in inner for text in _texts(one, depth + 1)]


def _plain(text: str) -> str:
    """Without a label before it, quotation marks around it, and what no tokenizer writes."""
    text = text.encode("utf-8", "replace").decode().replace("\0", "").strip()
    text = _LABEL.sub("", text, count=1).strip()
    for opening, closing in (('"', '"'), ("“", "”"), ("'", "'"), ("**", "**"), ("`", "`")):
        inner = text[len(opening) : -len(closing)]
        if text.startswith(opening) and text.endswith(closing) and inner and opening not in inner:
            text = inner.strip()
    return text if any(c.isalnum() for c in text) else ""
