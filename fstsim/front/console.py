"""What a person sees in the terminal: tables that fit one screen, progress with a rate, errors of one line."""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median, stdev
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from fstsim.columns import COLUMNS
from fstsim.sweep import AXES

_WIDTH = 100
_ROWS = 30  # of a table that could be long
_QUIET_SECONDS = 10.0  # between lines of progress where there is no terminal


def show(*tables: Table | str) -> None:
    """Print tables and lines on stdout, at most 100 columns wide."""
    console = Console(highlight=False)
    console.width = min(_WIDTH, console.width) if sys.stdout.isatty() else _WIDTH
    for table in tables:
        console.print(table if isinstance(table, Table) else Text(table, overflow="fold"))


def complain(message: str) -> None:
    """Print one line on stderr, whatever ``message`` holds."""
    sys.stderr.write(f"fstsim: {' '.join(message.split())}\n")


def unboxed(text: str) -> str:
    """The one line that an error box of tyro says: what is wrong, then what is allowed."""
    parts: list[list[str]] = [[]]
    for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines():
        inside = line.strip("│ ")
        if line.startswith("│") and set(inside) == {"─"}:
            parts.append([])
        elif line.startswith("│") and not inside.startswith("For full helptext"):
            parts[-1].append(inside)
    what, *more = [part for part in parts if part] or [["malformed command line"]]
    said = " ".join(what).removeprefix("Error parsing ").rstrip(".")
    if not more:
        return said
    first, *rest = more[0]
    if first.startswith("Argument helptext"):
        return f"{said}; expected {rest[0]}"
    if first.startswith("Perhaps you meant"):
        return f"{said}; perhaps you meant {rest[0]}"
    return f"{said}; {' '.join(more[0])}"


class Progress:
    """A bar on stderr with rate, time left and a note; without a terminal, a line every ten seconds.

    Nothing is drawn before the first :meth:`at`, so that an error in the input stays the only line.
    """

    def __init__(self, what: str, total: float, unit: str) -> None:
        self._what, self._total, self._unit = what, total, unit
        self._bar: tqdm[Any] | None = None
        self._start = self._spoken = time.monotonic()
        self._first = self._done = 0.0
        self._note = ""

    def at(self, done: float, note: str = "") -> None:
        """``done`` of the total is done; the first call says where the work begins. An empty note keeps the last one."""
        self._done, self._note = done, note or self._note
        if sys.stderr.isatty():
            if self._bar is None:
                self._bar = tqdm(
                    total=self._total,
                    initial=done,
                    desc=self._what,
                    unit=self._unit,
                    unit_scale=True,
                    smoothing=0.05,
                    dynamic_ncols=True,
                    leave=False,
                )
            self._bar.set_postfix_str(self._note, refresh=False)
            self._bar.update(done - self._bar.n)
        elif self._spoken == self._start:
            self._first = done
            self._speak()
        elif time.monotonic() - self._spoken > _QUIET_SECONDS:
            self._speak()

    def add(self, amount: float, note: str = "") -> None:
        """``amount`` more is done."""
        self.at(self._done + amount, note)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()

    def _speak(self) -> None:
        self._spoken = time.monotonic()
        elapsed, made = self._spoken - self._start, self._done - self._first
        left = f", {(self._total - self._done) * elapsed / made:.0f} s left" if made > 0.0 else ""
        where = f"{self._what}: {self._done:,.0f} of {self._total:,.0f} {self._unit.strip()}"
        sys.stderr.write(f"{where}{left}{f' ({self._note})' if self._note else ''}\n")
        sys.stderr.flush()


def _table(first: str, padding: int = 1) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, padding, 0, 0), show_edge=False)
    table.add_column(first, no_wrap=True)
    return table


def _number(value: float | None) -> str:
    """Three significant digits in at most seven characters."""
    if value is None or math.isnan(value):
        return "-"
    if value != 0.0 and math.isfinite(value) and not 1e-3 <= abs(value) < 1e4:
        mantissa, exponent = f"{value:.0e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def _spread(check: Mapping[str, Any], name: str) -> str:
    values = check[name]
    if values is None:
        return "-"
    if check["kind"] == "approximation":  # how far approximation / actual is from 1
        low, middle, high = (abs(100.0 * (v - 1.0)) for v in values)
        return f"{_number(middle)}% {_number(max(low, high))}%"
    return " ".join(map(_number, values))


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
        return _number(row[name]) + (f" ± {error:.1g}" if error is not None else "")

    chosen = (rows[0], rows[len(rows) // 2], rows[-1])
    for column in COLUMNS:
        if column.mixture:
            cells = (cell(row, column.name, column.count) for row in chosen)
            table.add_row(column.name, *cells, str(column.mixture))
    return table


def sweep_table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """Ends of the first trajectories of a sweep: what varies between them, then what was measured."""
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
        end = [str(int(row[name])) if name == "seed" else _number(row[name]) for name in names]
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
        return _number(sum(there) / len(there)) + error

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
            cells = (str(entry["step"]) if k == 0 else "", _number(score), prompt or "(empty)")
            table.add_row(*map(Text, cells), Text("-" if came is None else came or "(empty)"))
    return table


def tasks_table(rows: Sequence[Mapping[str, Any]], model: str) -> Table:
    """Success of a model on each task before training, without and with the rules in context; of ``/share`` the mean share."""
    table = _table("task")
    sampled = max((row["sampled"] for row in rows), default=0)
    what = "expected reward" if sampled else "success probability"
    table.title, table.title_justify = f"{model}: {what} on test problems", "left"
    if sampled:
        table.caption = (
            f"/share: mean share of right symbols in {sampled} sampled completions a problem; "
            "other tasks: probability of the right answer, without sampling"
        )
    for name in ("no context", "rules in context", "dead groups of 8"):
        table.add_column(name, justify="right")
    for row in rows:
        told = f"{row['told']:.3f} ± {row['told_se']:.3f}" if "told" in row else "no word for it"
        table.add_row(row["task"], f"{row['empty']:.4f} ± {row['empty_se']:.4f}", told, f"{row['dead']:.2f}")
    return table


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
