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
    if again := measured.get("relearn"):
        table.add_row(Text(f"relearning {again['task']}, learning rate {again['lr']:g}", style="bold"))
        counts = [again["base"], *(row["relearn_steps"] for row in rows)]
        table.add_row(f"steps to probability {again['level']:g}", *(steps_text(n, again["most"]) for n in counts))
    table.add_row(Text("weights", style="bold"))
    table.add_row("relative distance", "", *(terminal_number(row["weights"]["all"]) for row in rows))
    return table


def steps_text(steps: int, most: int) -> str:
    """A number of steps, or that there were not enough."""
    return str(steps) if steps <= most else f"> {most}"


def lm_eval_table(compared: Mapping[str, Any]) -> Table:
    """One row a task, filter and metric of two outputs of lm-eval, paired by document."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.title, table.title_justify = Text(f"{compared['checkpoint']} against {compared['base']}"), "left"
    table.add_column("task, metric", overflow="fold")
    for name in ("documents", "base", "now", "change", "lost", "gained", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in compared["rows"]:
        name = f"{row['task']}, {row['metric']}" + (f" ({row['filter']})" if row["filter"] != "none" else "")
        flips = [str(row["lost"]), str(row["gained"]), terminal_number(row["flip_p"])] if "lost" in row else ["-"] * 3
        means = [terminal_number(row["base"]), terminal_number(row["now"])]
        table.add_row(Text(name), str(row["documents"]), *means, _cell(row, "change"), *flips)
    notes = ["p: McNemar's exact test, two-sided; ± one standard error of the paired change"]
    if unpaired := sum({row["task"]: row["unpaired"] for row in compared["rows"]}.values()):
        notes.append(f"{unpaired} documents are in one output only and are left out")
    if others := sum({row["task"]: row["other_prompts"] for row in compared["rows"]}.values()):
        notes.append(f"{others} documents were asked with other prompts: the change is not of the weights alone")
    if alone := compared["tasks_of_one_only"]:
        notes.append(f"tasks in one output only: {', '.join(alone)}")
    table.caption, table.caption_justify = Text("; ".join(notes)), "left"
    return table


def _end(name: str) -> str:
    return name if len(name) <= 18 else f"…{name[-17:]}"


def _cell(values: Mapping[str, Any], key: str) -> str:
    if values.get(key) is None:
        return "-"
    error = values.get(f"{key}_se")
    return terminal_number(values[key]) + (f" ± {error:.1g}" if error is not None else "")
