"""What records and reports say of places: never where on the machine of whoever made them something lay."""

from __future__ import annotations

import re
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

_ABSOLUTE = re.compile(r"(?:/|~|[A-Za-z]:[\\/]|\\\\).*", re.DOTALL)


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
