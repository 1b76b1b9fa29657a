"""The table of `fstsim measure`: one row a quantity, one column a checkpoint; each set has its block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from fstsim.number_text import terminal_number

_SHOWN = (
    ("kl_to_base", "KL(now || base), nats a sequence"),
    ("kl_to_base_token", "the same, nats a token"),
    ("kl_from_base", "KL(base || now), nats a sequence"),
    ("reward", "reward"),
    ("old_mass", "probability of old answers"),
    ("answer_nll", "NLL of answers, nats"),
    ("entropy", "entropy, nats a sequence"),
)
_MOST = 4  # checkpoints on a screen


def measure_table(measured: Mapping[str, Any]) -> Table:
    """The first four checkpoints of what is in ``measure.json``, means over problems and standard errors."""
    rows = measured["checkpoints"][:_MOST]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("", no_wrap=True)
    for name in ("base", *(_end(str(row["checkpoint"])) for row in rows)):
        table.add_column(Text(name), justify="right", overflow="fold")
    more = len(measured["checkpoints"]) - len(rows)
    table.caption = f"and {more} more in measure.json" if more else None
    table.title, table.title_justify = Text(f"against {measured['base']}, ± one standard error"), "left"
    for name, held in measured["sets"].items():
        table.add_row(Text(f"{name} set: {held['task']}, {held['problems']} problems", style="bold"))
        columns = [held["base"], *(row["sets"][name] for row in rows)]
        for key, text in _SHOWN:
            if any(column.get(key) is not None for column in columns):
                table.add_row(text, *(_cell(column, key) for column in columns))
        top = max(held["base"]["pass_at"], key=int)
        fans = [column["pass_at"] for column in columns]
        table.add_row(
            f"pass@1, pass@{top}", *(" ".join(terminal_number(f[k]["mean"]) for k in ("1", top)) for f in fans)
        )
        flips = [f"{c['lost']} {c['gained']} (p {terminal_number(c['flip_p'])})" for c in columns[1:]]
        table.add_row("greedy flips: lost, gained", "", *flips)
    table.add_row(Text("weights", style="bold"))
    table.add_row("relative distance", "", *(terminal_number(row["weights"]["all"]) for row in rows))
    return table


def _end(name: str) -> str:
    return name if len(name) <= 18 else f"…{name[-17:]}"


def _cell(values: Mapping[str, Any], key: str) -> str:
    if values.get(key) is None:
        return "-"
    error = values.get(f"{key}_se")
    return terminal_number(values[key]) + (f" ± {error:.1g}" if error is not None else "")
