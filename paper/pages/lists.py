"""Lists that the code already has: commands and columns, as Markdown tables."""

from __future__ import annotations

import inspect

from fstsim.columns import COLUMNS
from fstsim.paper.pages.blocks import table


def command_table() -> str:
    """Markdown: every command of ``fstsim`` with the first sentence of its help."""
    from fstsim.__main__ import COMMANDS

    rows = []
    for name, command in COMMANDS.items():
        about = " ".join(inspect.cleandoc(command.__doc__ or "").partition("\n\n")[0].split())
        rows.append([f"`fstsim {name}`", about])
    return table(("command", "what it does"), rows)


def column_table() -> str:
    """Markdown: every column of ``metrics.jsonl`` with its meaning in the mixture and in a model's run."""
    rows = [
        [f"`{column.name}`", *(str(meaning) if meaning else "–" for meaning in (column.mixture, column.model))]
        for column in COLUMNS
    ]
    return table(
        ("column", "in the mixture", "in a model's run"), [[cell.replace("||", "‖") for cell in r] for r in rows]
    )
