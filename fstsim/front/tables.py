"""Tables of the terminal: one a command, each fits a screen 100 columns wide. `fstsim.front.console` prints them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median, stdev
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from fstsim.columns import COLUMNS
from fstsim.number_text import terminal_number
from fstsim.tightness import deviations

_ROWS = 30  # of a table that could be long


def _table(first: str, padding: int = 1) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, padding, 0, 0), show_edge=False)
    table.add_column(first, no_wrap=True)
    return table


def _spread(check: Mapping[str, Any], name: str) -> str:
    values = check[name]
    if values is None:
        return "-"
    off = deviations(check)
    if off is not None:  # how far approximation / actual is from 1
        low, middle, high = map(abs, off)
        return f"{terminal_number(middle)}% {terminal_number(max(low, high))}%"
    return " ".join(map(terminal_number, values))


def check_table(checks: Sequence[Mapping[str, Any]]) -> Table:
    """One row a statement, from `CheckResult.to_dict`."""
    table = _table("statement", padding=0)
    table.add_column("", no_wrap=True)
    for name in ("examples", "violated", "upper / actual", "actual / lower"):
        table.add_column(name, justify="right")
    for c in checks:
        bad = c["violations"] > 0
        count = "-" if c["kind"] == "approximation" and not bad else f"{c['violations']:,}"
        cells = (c["slug"], f"[{c['status']}]", f"{c['examples']:,}", count, _spread(c, "upper"), _spread(c, "lower"))
        table.add_row(*map(Text, cells), style="bold red" if bad else None)
    return table


def section_table(sections: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    """One row a section of the theory: the same as `check_table` on one screen, however many statements there are."""
    table = _table("section")
    for name in ("statements", "[T]", "[A]", "[N]", "examples", "violated", "upper / actual", "actual / lower"):
        table.add_column(Text(name), justify="right")
    for section, checks in sections.items():
        bad = sum(c["violations"] for c in checks)
        marks = [sum(c["status"] == mark for c in checks) for mark in "TAN"]
        counts = [f"{n:,}" for n in (len(checks), *marks, sum(c["examples"] for c in checks), bad)]
        spreads = []
        for name in ("upper", "lower"):
            values = [c[name] for c in checks if c[name] is not None and c["kind"] != "approximation"]
            whole = (
                (min(v[0] for v in values), median(v[1] for v in values), max(v[2] for v in values)) if values else None
            )
            spreads.append(_spread({"kind": "bound", name: whole}, name))
        table.add_row(section, *counts, *spreads, style="bold red" if bad else None)
    return table


def check_summary(checks: Sequence[Mapping[str, Any]]) -> str:
    """What the table adds up to, how to read it, and an instance of each violation, to the last digit."""
    drawn, skipped, violations = (sum(c[name] for c in checks) for name in ("examples", "skipped", "violations"))
    seconds = sum(c["seconds"] for c in checks)
    lines = [
        f"{len(checks)} statements, {drawn:,} examples ({skipped:,} skipped), {violations:,} violations, {seconds:.1f} s.",
        "[T] proved, [A] asymptotic, [N] numeric only. Ratios: min, median, max; 1 is tight. Approximations",
        "cannot be violated: median and largest deviation. Skipped: nothing is claimed there.",
    ]
    return "\n".join([*lines, *violating_instances(checks)])


def violating_instances(checks: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for each violated statement: an instance that violates it, to the last digit."""
    return [
        f"violated: {c['slug']} at " + ", ".join(f"{name} = {value!r}" for name, value in c["worst"].items())
        for c in checks
        if c["violations"]
    ]


def run_table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """Start, middle and end (of what is finite) of each column of metrics.jsonl, with standard errors if it has them."""
    rows = [row for row in rows if row["old_mass"] is not None]
    table = _table("column")
    table.title, table.title_justify = title, "left"
    for name in ("start", "middle", "end"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("meaning")

    def cell(row: Mapping[str, Any], name: str, count: bool) -> str:
        if count:
            return f"{row[name]:,}"
        error = row.get(f"{name}_se")
        return terminal_number(row[name]) + (f" ± {error:.1g}" if error is not None else "")

    chosen = (rows[0], rows[len(rows) // 2], rows[-1])
    for column in COLUMNS:
        if column.mixture:
            cells = (cell(row, column.name, column.count) for row in chosen)
            table.add_row(column.name, *cells, str(column.mixture))
    return table


def sweep_table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """Ends of the first trajectories of a sweep: what varies between them, then what was measured."""
    from fstsim.sweep import AXES  # joblib comes with it, and this table alone needs it

    varied = [name for name in (*AXES, "seed") if len({row[name] for row in rows}) > 1]
    diverged = sum(row["status"] == "diverged" for row in rows)
    table = _table("index")
    shown = f", of which {_ROWS} here" if len(rows) > _ROWS else ""
    table.title = f"{title}: {len(rows):,} trajectories, {diverged:,} diverged{shown}"
    table.title_justify = "left"
    names = [*varied, "old_mass", "old_region_mass", "drift", "peak_drift", "kl_to_base"]
    for name in names:
        table.add_column(name.replace("_", " "), justify="right")
    for row in rows[:_ROWS]:
        end = [str(int(row[name])) if name == "seed" else terminal_number(row[name]) for name in names]
        table.add_row(str(row["index"]), *end, style="bold red" if row["status"] == "diverged" else None)
    return table


def figure_table(figures: Sequence[tuple[str, str, Sequence[Path]]]) -> Table:
    """Name, title and files of each figure drawn."""
    table = _table("figure")
    for name in ("title", "files"):
        table.add_column(name)
    for name, title, paths in figures:
        table.add_row(name, title, "\n".join(map(str, paths)))
    return table


def training_table(
    runs: Sequence[Sequence[Mapping[str, Any]]], summaries: Sequence[Mapping[str, Any]], title: str
) -> Table:
    """First and last measurement of every column, mean over seeds with its standard error; then cost.

    The last one is of the last step at which every seed has the column: the fast channel's come once a round.
    """
    table = _table("column")
    table.title, table.title_justify = title, "left"
    for name in ("start", "end"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("meaning")

    def cell(values: Sequence[float | None]) -> str:
        there = [v for v in values if v is not None and not math.isnan(v)]
        if len(there) < len(values) or not there:
            return "-"
        error = f" ± {stdev(there) / math.sqrt(len(there)):.1g}" if len(there) > 1 else ""
        return terminal_number(sum(there) / len(there)) + error

    def end(name: str) -> list[float | None]:
        steps = (at for at in zip(*map(reversed, runs), strict=True) if all(name in row for row in at))
        return [row[name] for row in next(steps, ())]

    table.add_row(
        "samples", "0", cell([float(rows[-1]["samples"]) for rows in runs]), "rollouts of both channels, a seed"
    )
    for column in COLUMNS:
        name = column.name
        if column.table and any(name in row for row in runs[0]):
            table.add_row(name, cell([rows[0].get(name) for rows in runs]), cell(end(name)), str(column.model))
    seconds = cell([s["seconds"] for s in summaries])
    probes, relearn = (
        cell([None if s.get(name) is None else 100.0 * s[name] for s in summaries])
        for name in ("probe_share", "relearn_share")
    )
    spent = f"a seed; probes {probes} %, relearn {relearn} %"
    rates = [s["rollouts_per_second"] for s in summaries]
    if None not in rates:
        spent += f"; {cell(rates)} rollouts/s, all included"
    table.add_row("seconds", "", seconds, spent)
    return table


_AS_THEY_COME = ("reward", "old_mass", "kl_to_base", "kl_from_base", "old_skills", "entropy")
"""Columns of the lines that a training run prints while it runs."""


def measurement_heading(row: Mapping[str, Any]) -> str:
    """Names above the lines of `measurement_line`, for a run whose first measurement is ``row``."""
    names = [name for name in _AS_THEY_COME if name in row]
    return f"{'seed':>4} {'step':>6}" + "".join(f"{name.replace('_', ' '):>14}" for name in names)


def measurement_line(seed: int, row: Mapping[str, Any]) -> str:
    """One measurement of a training run, as soon as there is one."""
    values = [row[name] for name in _AS_THEY_COME if name in row]
    cells = ("-" if value is None else terminal_number(value) for value in values)
    return f"{seed:>4} {row['step']:>6}" + "".join(f"{cell:>14}" for cell in cells)


def prompts_table(rounds: Sequence[Mapping[str, Any]], title: str) -> Table:
    """Rounds in which the population changed: its contexts, best first, their scores and what each was written from."""
    table = _table("step")
    table.title, table.title_justify = title, "left"
    table.add_column("score", justify="right")
    table.add_column("context")
    table.add_column("written from")
    before: list[str] | None = None
    for entry in rounds:
        if entry["prompts"] == before:
            continue
        before = entry["prompts"]
        parents = dict(entry["lineage"])
        for k, (prompt, score) in enumerate(zip(entry["prompts"], entry["scores"], strict=True)):
            came = parents.get(prompt)
            cells = (str(entry["step"]) if k == 0 else "", terminal_number(score), prompt or "(empty)")
            table.add_row(*map(Text, cells), Text("-" if came is None else came or "(empty)"))
    return table


def tasks_table(
    rows: Sequence[Mapping[str, Any]], model: str, names: Sequence[str] = (), *, header: bool = True
) -> Table:
    """What a model does on each task before training, without and with the rule in context; `tasks_caption` explains it.

    ``names`` are all tasks of a table that is shown a row at a time: its columns then have the same widths in each part.
    """
    longest = min(40, max((len(name) for name in (*names, *(row["task"] for row in rows))), default=0) + 2)
    table = _table("task")
    table.columns[0].min_width = table.columns[0].max_width = longest
    table.columns[0].no_wrap, table.columns[0].overflow = False, "fold"
    table.show_header = header
    if header:
        sampled = any(row["sampled"] for row in rows)
        what = "expected reward" if sampled else "success probability"
        table.title, table.title_justify = f"{model}: {what} on test problems", "left"
    for name, width in (
        ("no context", 15),
        ("log", 6),
        ("rule in context", 15),
        ("old", 6),
        ("in context", 6),
        ("dead", 4),
    ):
        table.add_column(name, justify="right", min_width=width, max_width=width)
    for row in rows:
        told = f"{row['told']:.3f} ± {row['told_se']:.3f}" if "told" in row else "-"
        name = row["task"] + (" *" if row["sampled"] else " n" if row.get("kind") == "nll" else "")
        old = [f"{row[key]:.3f}" if key in row else "-" for key in ("old", "old_told")]
        log = f"{row['log_empty']:.1f}" if "log_empty" in row else "-"
        dead = f"{row['dead']:.2f}" if "dead" in row else "-"
        empty = f"{row['empty']:.4f} ± {row['empty_se']:.4f}"
        table.add_row(*map(Text, (name, empty, log, told, *old, dead)))
    return table


def tasks_caption(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the columns of `tasks_table` are."""
    lines = [
        "no context, rule in context: probability of the right answer; log: mean log of that without context, nats;",
        "old, in context: probability of the old behaviour, where a task has one; dead: share of groups of 8 rollouts",
        "whose rewards are all the same. -: the task has no rule in words that the model knows, no old behaviour, ...",
    ]
    sampled = max((row["sampled"] for row in rows), default=0)
    if sampled:
        lines.append(f"* mean reward of {sampled} sampled completions a problem; of other tasks nothing is sampled.")
    if any(row.get("kind") == "nll" for row in rows):
        lines.append("n nats a token of text that is read as it stands.")
    return "\n".join(lines)


def verdict_table(judged: Sequence[Any]) -> Table:
    """Prediction, measurement, interval and verdict, one row a prediction; what each means is in validation.json."""
    table = _table("prediction")
    for name in ("predicted", "measured [95 %]", "verdict"):
        table.add_column(name, justify="right", no_wrap=True)
    for j in judged:
        p = j.prediction
        measured = f"{j.measured:.3f} [{j.low:.3f}, {j.high:.3f}]"
        cells = (p.name, f"{p.value:.3f} [{p.low:.3f}, {p.high:.3f}]", measured, j.verdict)
        table.add_row(*map(Text, cells), style="bold" if j.verdict == "falsified" else None)
    counts = {verdict: sum(j.verdict == verdict for j in judged) for verdict in ("confirmed", "falsified", "undecided")}
    table.caption = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    return table
