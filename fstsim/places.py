"""What records and reports say of places: never where on the machine of whoever made them something lay."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

_ABSOLUTE = re.compile(r"(?:/|~|[A-Za-z]:[\\/]|\\\\).*", re.DOTALL)


def short_names(places: Sequence[str]) -> list[str]:
    """`published` names of ``places``; absolute paths that would have one name in common get as many of their last parts as tell them apart."""
    found = [published(place) for place in places]
    length = 2
    while len(set(found)) < len(set(places)):
        clash = {name for name in found if len({p for p, n in zip(places, found, strict=True) if n == name}) > 1}
        parts = [PurePosixPath(place).parts for place in places]
        if all(len(each) <= length for each, name in zip(parts, found, strict=True) if name in clash):
            return found
        found = [
            "/".join(each[-length:]) if name in clash and _ABSOLUTE.fullmatch(place) else name
            for place, each, name in zip(places, parts, found, strict=True)
        ]
        length += 1
    return found


def published(value: Any) -> Any:
    """``value`` with each absolute path in it, at any depth, cut down: from ``runs/`` on where it is in one, else its name."""
    if isinstance(value, dict):
        return {published(key): published(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [published(item) for item in value]
    if not isinstance(value, str) or not _ABSOLUTE.fullmatch(value):
        return value
    kind = PurePosixPath if value[0] in "/~" else PureWindowsPath
    parts = kind(value).parts
    if "runs" in parts:
        last = len(parts) - 1 - parts[::-1].index("runs")
        return "/".join(parts[last:])
    return parts[-1] if len(parts) > 1 else value
