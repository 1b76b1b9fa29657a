"""The tables of `fstsim forecast`: what is forecast at each step, a grid with its recommendation, a run held against it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from fstsim.number_text import terminal_number

_NAMES = {
    "reward": "held-out reward",
    "log_old_mass": "log mass of old answers",
    "kl_to_base": "KL(now || base)",
    "kl_from_base": "KL(base || now)",
    "forgotten": "lost on old skills, mean",
}
_STEPS = 3  # columns of a table that fit on a screen


def _name(key: str) -> str:
    return _NAMES.get(key) or f"  lost on {key.removeprefix('forgotten ')}"


def _table(first: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column(first)
    return table


def _cell(value: Mapping[str, Any]) -> str:
    half = None if value["high"] is None or value["low"] is None else (value["high"] - value["low"]) / 2.0
    return terminal_number(value["value"]) + ("" if half is None else f" ± {half:.1g}")


def forecast_tables(found: Mapping[str, Any], title: str) -> list[Table | str]:
    """One row a quantity, one column a step, at most three of them in a table; the start first, what it cost last."""
    rows = found["rows"]
    tables: list[Table] = []
    for first in range(0, max(len(rows), 1), _STEPS):
        shown, table = rows[first : first + _STEPS], _table("")
        for name in ("start", *(f"step {row['step']:,}" for row in shown)):
            table.add_column(name, justify="right", no_wrap=True)
        for key in found["start"]:
            start = "" if key.startswith("forgotten") else terminal_number(found["start"][key])
            table.add_row(Text(_name(key)), start, *(_cell(row[key]) for row in shown))
        tables.append(table)
    tables[0].title, tables[0].title_justify = Text(title), "left"
    return [*tables, _caption(found)]


def _caption(found: Mapping[str, Any]) -> str:
    cost = found["cost"]
    said = (
        "KL and logarithms in nats a sequence. ± where a new run is expected: the noise of its batches and of the forecast's, "
        f"and the error of pieces (95 %). Cost: {cost['gradients']:,} gradients in {cost['aims']:,} aims, "
        f"{cost['control_readings'] + cost['full_readings']:,} readings, {cost['seconds']:.0f} s; "
        f"the run: {cost['run_gradients']:,} gradients"
    )
    if cost["rollouts"]:
        said += f"; {cost['rollouts']:,} rollouts"
    if found["lost"] is not None:
        said += f". From step {found['lost']:,} on nothing is claimed: {found['why_lost']}"
    return said


def grid_table(found: Mapping[str, Any], budget: float | None, choice: Any) -> list[Table | str]:
    """Reward and forgetting of each setting at its last step, and the recommendation."""
    from fstsim.llm.forecast.recommend import forgotten
    from fstsim.llm.forecast.result import quantities

    table = _table("setting")
    for name in ("step", "held-out reward", "forgotten", "gradients"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, each in found.items():
        for step in each.steps:
            reward, lost = each.value(quantities(each.base)["reward"], step), forgotten(each, step)
            style = "bold" if choice is not None and (choice.setting, choice.step) == (name, step) else None
            cells = (f"{step:,}", _cell(vars(reward)), _cell(vars(lost)), f"{each.cost['gradients']:,}")
            table.add_row(Text(name or "as given"), *cells, style=style)
    if budget is None:
        return [table]
    if choice is None:
        return [
            table,
            f"no setting stays within {budget:g}: lower --lr, more --replay-share, or look at earlier steps (--at)",
        ]
    said = (
        f"recommended: {choice.setting or 'as given'}, {choice.step:,} steps: reward {choice.reward.value:.3f}, "
        f"forgotten {choice.forgotten.value:.3f} (at most {choice.forgotten.high:.3f}, allowed {budget:g})"
    )
    return [table, said]


def check_table(held: Mapping[str, Any], title: str) -> Table:
    """Forecast against run: means with verdicts, then agreement prompt by prompt."""
    table = _table("step")
    table.title, table.title_justify = Text(title), "left"
    table.add_column("quantity")
    for name in ("forecast", "run", "R2", "rank", "prompts"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in held["rows"]:
        shown = f"{row['step']:,}"
        for key, value in row["means"].items():
            mark = "" if value["inside"] else " outside"
            table.add_row(shown, Text(_name(key)), _cell(value), terminal_number(value["run"]) + mark)
            shown = ""
        for skill, a in row.get("prompts", {}).items():
            name = "change of log p, all old prompts" if skill == "all" else f"  {skill}"
            numbers = (a["predicted"], a["measured"], a["r2"], a["rank"])
            table.add_row(shown, Text(name), *map(terminal_number, numbers), str(a["prompts"]))
            shown = ""
    if held["lost"] is not None:
        table.caption = f"from step {held['lost']:,} on the forecast claims nothing"
    return table
