"""Pieces of HTML that the report is made of: numbers for people, embedded images, tables that become cards on a phone."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from rich.table import Table

from fstsim.errors import InputError
from fstsim.number_text import MISSING, html_number

_LEAST_SCALE = 0.55  # labels of 8.5 points at 150 dots an inch stay readable; a wider figure scrolls in its frame


def interval(low: float | None, high: float | None) -> str:
    """Two numbers in brackets; a dash where there is no interval."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return MISSING
    return f"[{html_number(low)}, {html_number(high)}]"


def image(path: Path, alt: str, missing: str) -> str:
    """A PNG inside the page, in a frame that scrolls on narrow screens; InputError ``missing`` if there is no file."""
    try:
        png = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(missing) from error
    width, height = (int.from_bytes(png[start : start + 4], "big") for start in (16, 20))  # the PNG header
    data = base64.b64encode(png).decode()
    size = f'width="{width}" height="{height}" style="min-width: {_LEAST_SCALE * width:.0f}px"'
    return f'<div class="frame" tabindex="0"><img src="data:image/png;base64,{data}" {size} alt="{escape(alt)}"></div>'


def table(head: Sequence[str], rows: Sequence[str], css: str = "checks") -> str:
    """A table from its column names and finished rows (`row`); on a phone every row becomes a card."""
    first, *others = (escape(name) for name in head)
    columns = f'<th scope="col">{first}</th>' + "".join(
        f'<th scope="col" class="number">{name}</th>' for name in others
    )
    body = "\n".join(rows)
    return f'<div class="wide" tabindex="0"><table class="{css}"><thead><tr>{columns}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def row(name: str, cells: Sequence[tuple[str, str]], css: str = "") -> str:
    """One row: a finished heading and ``(label, finished text)`` of every cell."""
    body = "".join(f'<td class="number" data-label="{escape(label)}"><span>{text}</span></td>' for label, text in cells)
    return f'<tr{f" class={css}" if css else ""}><th scope="row">{name}</th>{body}</tr>'


def table_of(drawn: Table) -> str:
    """A terminal table as HTML: title, rows, caption; nothing if it has no rows."""
    if not drawn.row_count:
        return ""
    head = [str(column.header) for column in drawn.columns]
    cells = list(zip(*([str(cell) for cell in column.cells] for column in drawn.columns), strict=True))
    rows = [
        row(escape(line[0]), [(label, escape(text)) for label, text in zip(head[1:], line[1:], strict=True)])
        for line in cells
    ]
    caption = f'<p class="note">{escape(str(drawn.caption))}</p>' if drawn.caption else ""
    return f"<h4>{escape(str(drawn.title))}</h4>{table(head, rows)}{caption}"
