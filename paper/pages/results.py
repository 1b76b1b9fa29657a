"""Results in words: lines whose every number is read from the records, for the first screen and the page of results."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import fisher_exact

from fstsim.number_text import short_number
from fstsim.paper import DATA
from fstsim.paper.bridge.numbers import Verdict, read_verdicts
from fstsim.paper.experiments.shown import SHOWN
from fstsim.paper.manuscript.numbers import statement_numbers, verdict_numbers
from fstsim.paper.manuscript.tables import Cells, experiment_cells
from fstsim.paper.pages.blocks import table
from fstsim.paper.pages.forecast import recorded_forecasts
from fstsim.paper.records.verdict_summary import PRETRAINED, pretrained_folders
from fstsim.records import read_json

_SOLVED = "seeds above 1/2"  # a column of the table


def _numbers(rows: Sequence[Verdict], name: str) -> str:
    return ", ".join(short_number(getattr(row, name)) for row in rows)


def _worst(rows: Sequence[Verdict]) -> str:
    return short_number(float(np.nanmax([abs(row.measured - row.value) for row in rows])))


def _cell(cells: Cells, row: str, column: str) -> str:
    """The cell of the row whose name begins with ``row``."""
    k = cells.header.index(column)
    (found,) = (line[k] for line in cells.rows if ", ".join(line[: cells.names]) == row)
    return found


@functools.lru_cache(maxsize=2)
def _cells(data: Path) -> dict[str, Cells]:
    """The tables of the experiments; their bootstraps take seconds, and two blocks read them."""
    return experiment_cells(data)


class Records:
    """What the lines read, loaded once."""

    def __init__(self, data: Path = DATA) -> None:
        self.verdicts = read_verdicts(data / "validation")
        self.pretrained = [row for folder in pretrained_folders(data) for row in read_verdicts(folder)]
        self.model = str(read_json(data / PRETRAINED / "predictions.json")["model"])
        self.cells = _cells(data)
        self.forecasts = recorded_forecasts(data)
        found = statement_numbers(data) | verdict_numbers(data)
        self.numbers = {name: number.text for name, number in found.items()}

    def kind(self, *kinds: str) -> list[Verdict]:
        """The judged rows of these kinds."""
        return [row for row in self.verdicts if row.label.kind in kinds]


def _statements(r: Records) -> str:
    n = r.numbers
    return (
        f"[{n['statements.count']} statements](paper/docs/statements.md), {n['statements.proved']} proved: "
        f"{n['checks.violations']} violations in {n['checks.instances']} random instances."
    )


def _predictions(r: Records) -> str:
    n = r.numbers
    return (
        f"[{n['verdicts.count']} predictions](paper/docs/verdicts.md) for a language model, written down before the runs: "
        f"{n['verdicts.confirmed']} confirmed, {n['verdicts.falsified']} falsified, {n['verdicts.undecided']} undecided. "
        "What is falsified stays."
    )


def _rest(r: Records) -> str:
    replay, leash = r.kind("replay"), r.kind("tilt-new", "tilt-old")
    strengths = len({row.label.x for row in leash})
    return (
        f"SFT with replay rests at the share of old data: predicted {_numbers(replay, 'value')}, measured {_numbers(replay, 'measured')}. "
        f"Where RL with a KL leash rests is predicted from the base model alone: {len(leash)} masses at {strengths} strengths, largest error {_worst(leash)}."
    )


def _pretrained(r: Records) -> str:
    verdicts = [row.verdict for row in r.pretrained]
    # of the first record: a second one, with an adapter, has the same kinds
    old = next(row for row in r.pretrained if row.label.kind == "training-log-old-mass")
    saved = next(row for row in r.pretrained if row.label.kind == "context-kl-saved")
    return (
        f"On a pretrained model (`{r.model}`): {len(verdicts)} predictions, {verdicts.count('confirmed')} confirmed, {verdicts.count('falsified')} falsified, "
        f"{verdicts.count('undecided')} undecided in short runs. The forecast of what SFT does to the old behaviour, {short_number(old.value)} nats, came to "
        f"{short_number(old.measured)}; a rule in the context saves {short_number(saved.measured)} of RL's KL at one reward, {short_number(saved.value)} predicted."
    )


def _sft(r: Records) -> str:
    rows = r.kind("forgetting")
    judged = [row["verdict"] for found in r.forecasts for row in found.get("verdicts", [])]
    made = [
        (found["config"]["train"], [float(np.mean(step["r2"])) for step in found["runs"]["steps"].values()])
        for found in r.forecasts
        if "runs" in found
    ]
    worst, low = min(((train, float(np.median(r2))) for train, r2 in made), key=lambda pair: pair[1])
    middle = float(np.median([value for _, r2 in made for value in r2]))
    return (
        f"*When* SFT forgets no clock of the theory predicts (log old mass {short_number(max(row.value for row in rows))} to "
        f"{short_number(min(row.value for row in rows))} nats, "
        f"{short_number(max(row.measured for row in rows))} to {short_number(min(row.measured for row in rows))} measured). "
        f"[A forecast](paper/docs/forecast.md) that integrates the optimizer's path before the run: {judged.count('confirmed')} of {len(judged)} predictions "
        f"confirmed, {judged.count('falsified')} falsified, the rest undecided; R² of the change of every old prompt: median over the steps of {len(made)} trainings {short_number(middle)}, "
        f"of the worst training (`{worst['tasks'][0]}`, {worst['method']}) {short_number(low)}."
    )


def _conflict(r: Records) -> str:
    stage = [row for row in r.kind("alternate-rl") if row.measured < 0.5]
    fst = r.kind("alternate-fst")
    return (
        f"Of two conflicting tasks in turn RL does not learn the second (reward at most {short_number(max(row.measured for row in stage))}); "
        f"fast-slow training does (at least {short_number(min(row.measured for row in fst))})."
    )


def _fast_slow(r: Records) -> str:
    task = "strings:rotate"
    ratio, cells = _cell(r.cells["speed"], task, "RL / FST"), r.cells["kl"]
    return (
        f"Fast-slow training reaches RL's level on `{task}` with {ratio.replace(' [', ' times fewer samples [')}, and ends "
        f"{_cell(cells, task, 'FST end, no context')} nats from the base (without context) where RL ends {_cell(cells, task, 'RL end')} away."
    )


def _plasticity(r: Records) -> str:
    cells, task = r.cells["plasticity"], "strings:sort"
    base, rl, fst = (_cell(cells, f"{task}, {start}", _SOLVED) for start in ("base", "rl", "fst"))
    (a, n), (b, m) = ([int(x) for x in cell.split(" of ")] for cell in (fst, rl))
    chance = float(fisher_exact(np.array([[a, n - a], [b, m - b]])).pvalue)
    return (
        f"Fresh RL on a second task over the same prompts (`{task}`) succeeds in {base} seeds from the base, {rl} from RL's weights, "
        f"{fst} from those of fast-slow training (the last two: p = {chance:.2f})."
    )


LINES: tuple[Callable[[Records], str], ...] = (
    _sft, _statements, _predictions, _rest, _pretrained, _conflict, _fast_slow, _plasticity,
)  # fmt: skip
"""The lines of the first screen, in their order."""


def result_lines(data: Path = DATA) -> str:
    """Markdown: the lines of the first screen, with 95 % intervals over seeds where there are any."""
    records = Records(data)
    return "\n".join(f"- {line(records)}" for line in LINES) + "\n"


def experiment_tables(data: Path = DATA) -> str:
    """Markdown: the tables of every experiment, as ``fstsim experiment NAME --show`` prints them, with 95 % intervals over seeds."""
    cells = _cells(data)
    parts = []
    for shown in SHOWN:
        parts.append(f"### {shown.experiment.name}\n\n`{shown.command} --preset {shown.preset}`\n")
        for name in shown.names:
            found = cells[name]
            head = [column or "quantity" for column in found.header]
            parts.append(f"{found.title}\n\n{table(head, [list(row) for row in found.rows])}")
    return "\n".join(parts).replace("||", "‖")
