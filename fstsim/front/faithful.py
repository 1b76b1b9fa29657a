"""`fstsim faithful`: whether a model's answers follow from the chains that it writes before them. torch is imported when it runs."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import tyro
from rich import box
from rich.table import Table
from rich.text import Text

from fstsim.front.command import Directory, in_own_directory, quiet
from fstsim.front.console import Progress, show
from fstsim.number_text import terminal_number

_Target = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL|RUN")]
_Tasks = Annotated[tuple[str, ...], tyro.conf.arg(metavar="TASK [TASK ...]")]
_Base = Annotated[str, tyro.conf.arg(metavar="MODEL", help_behavior_hint="(default: of a run, what it started from)")]


@dataclass(frozen=True)
class Faithful:
    """Test whether answers follow from the chain before them: cut it, fill it, rephrase it, corrupt it; and what a training changed of that."""

    target: _Target
    """a model, for example scratch, or a finished run (the directory of one seed, or of all), whose base is measured too"""
    base: _Base = ""
    """the model that MODEL came from: then changes are reported"""
    task: _Tasks = ("scratch:strings:any3", "scratch:strings:any4")
    """scratch tasks: scratch:family:anyK has K random rules in each problem, scratch:family:rule+rule these; a direct answer has
    a shortcut under 2 rules and none under 4"""
    problems: int = 64
    """test problems of each task"""
    out: Directory = Path("out/faithful")
    """directory; what is measured in it is not measured again"""
    device: str = "cpu"
    """torch device"""
    stopped: ClassVar[str] = "stopped; what is measured is kept, continue with"

    @in_own_directory
    def run(self) -> int:
        """Measure and show."""
        from fstsim.llm.measure.faithful.run import FaithfulConfig, measurements, run_faithful
        from fstsim.paper.records.faithful.picture import save_faithful_picture

        quiet()
        config = FaithfulConfig(self.target, self.base, self.task, self.problems, self.device)
        with contextlib.closing(Progress("faithful", measurements(config), "measurements")) as progress:
            found = run_faithful(config, self.out, progress.at)
        picture = save_faithful_picture(found, self.out / "picture.png")
        said = f"picture: {picture}; " if picture is not None else ""
        show(faithful_table(found), *faithful_notes(found), f"{said}all numbers: {self.out / 'faithful.json'}")
        return 0


def faithful_table(found: Mapping[str, Any]) -> Table:
    """A column a task (its base, its change), a row a score; what the gates refuse says so in place of a number."""
    from fstsim.llm.measure.faithful.scores import SCORES

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    runs = len(found["models"]) - 1
    against = f"{found['target']} against {found['base']}, {runs} model{'s' * (runs > 1)}" if runs else found["base"]
    table.title, table.title_justify = Text(f"faithfulness of chains: {against}"), "left"
    table.add_column("", no_wrap=True)
    tasks = [task for task in found["tasks"] if task["asked"]]
    for task in tasks:
        name = task["task"].removeprefix("scratch:")
        table.add_column(Text(name), justify="right", overflow="fold")
        if runs:
            table.add_column(Text("change"), justify="right", overflow="fold")
    for score in SCORES:
        cells = [cell for task in tasks for cell in _cells(task, score.name, score.tested, bool(runs))]
        if any(cell != "-" for cell in cells):
            table.add_row(score.text, *cells)
    return table


def faithful_notes(found: Mapping[str, Any]) -> list[str]:
    """Lines below the table: what is not measurable and why, the four first ones, and what ± and changes are."""
    tasks = [task for task in found["tasks"] if task["asked"]]
    notes = [
        f"{task['task']}, {row['name']}: not measurable, {row['not_measurable']}"
        for task in tasks
        for row in task["models"]
        if row["not_measurable"]
    ]
    for task in tasks:
        reason = task.get("change_not_measurable")
        if reason and not any(row["not_measurable"] for row in task["models"]):
            notes.append(f"{task['task']}: change not measurable, {reason}")
    more = [f"and {len(notes) - 4} more in faithful.json"] if len(notes) > 4 else []
    changes = "; change: paired difference ± half its 95 % interval" if len(found["models"]) > 1 else ""
    return [*notes[:4], *more, f"± one standard error over problems{changes}"]


def _cells(task: Mapping[str, Any], name: str, tested: bool, changes: bool) -> list[str]:
    first = task["models"][0]
    cells = ["not measurable" if tested and first["not_measurable"] else _mean(first["scores"].get(name))]
    if changes:
        refused = tested and task["change_not_measurable"]
        cells.append("not measurable" if refused else _change(task["change"].get(name)))
    return cells


def _mean(values: Mapping[str, Any] | None) -> str:
    if values is None or values["mean"] is None:
        return "-"
    error = values["se"]
    return terminal_number(values["mean"]) + (f" ± {error:.1g}" if error is not None else "")


def _change(values: Mapping[str, Any] | None) -> str:
    if values is None or values["mean"] is None:
        return "-"
    half = None if values["low"] is None else (values["high"] - values["low"]) / 2.0
    return f"{values['mean']:+.2f}" + (f" ± {half:.2f}" if half is not None else "")
