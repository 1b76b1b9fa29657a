"""The summary of verdicts: one line a kind of prediction, generated from the recorded validation, in ``paper/docs/verdicts.md``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fstsim.llm.validation.kinds import KINDS
from fstsim.number_text import short_number
from fstsim.paper import DATA
from fstsim.paper.bridge.numbers import Verdict, read_verdicts
from fstsim.records import read_json

_MOST = 6  # pairs of numbers shown of one kind


def grouped(rows: Sequence[Verdict]) -> list[tuple[str, list[Verdict]]]:
    """Title and judged rows of each kind that has any, in the order of `KINDS`."""
    found = [(kind.title, [row for row in rows if row.label.kind == name]) for name, kind in KINDS.items()]
    return [(title, own) for title, own in found if own]


def _row(title: str, rows: Sequence[Verdict]) -> str:
    counts = Counter(row.verdict for row in rows)
    words = ", ".join(
        f"{'**' if verdict == 'falsified' else ''}{counts[verdict]} {verdict}{'**' if verdict == 'falsified' else ''}"
        for verdict in ("confirmed", "falsified", "undecided")
        if counts[verdict]
    )
    predicted, measured = (
        ", ".join(short_number(value) for value in values[:_MOST]) + (", …" if len(values) > _MOST else "")
        for values in ([row.value for row in rows], [row.measured for row in rows])
    )
    slugs = ", ".join(f"`{slug}`" for slug in dict.fromkeys(row.statement for row in rows))
    return f"| {title} ({slugs}) | {predicted} | {measured} | {words} |"


def verdict_summary(rows: Sequence[Verdict]) -> str:
    """Markdown: how many predictions stood, then one line a kind."""
    counts = Counter(row.verdict for row in rows)
    seeds = sorted({row.seeds for row in rows if row.seeds})
    head = (
        f"{len(rows)} predictions: {counts['confirmed']} confirmed, {counts['falsified']} falsified, {counts['undecided']} undecided "
        f"({_seeds(seeds)}).\n\n"
        "| prediction (statement) | predicted | measured | verdict |\n|---|---|---|---|\n"
    )
    return head + "\n".join(_row(title, own) for title, own in grouped(rows)) + "\n"


def _seeds(seeds: Sequence[int]) -> str:
    most = seeds[-1] if seeds else 0
    return (
        f"{most} seeds, 95 % intervals"
        if most >= 3
        else f"{most or 'no'} seed{'s' * (most > 1)}: fewer than 3 decide nothing"
    )


PRETRAINED = "validation-smollm2"
"""Folder of the recorded validation of the pretrained model, at scale smoke; others of it, at another scale or with an adapter, begin alike."""
LATER = "validation-smoke"
"""Folder of chapters that came after the recorded validation and were run at scale smoke; there may be none."""


def pretrained_folders(data: Path = DATA) -> list[Path]:
    """Recorded validations of the pretrained model, the first one first."""
    return sorted(path.parent for path in data.glob(f"{PRETRAINED}*/validation.json"))


def later_verdicts(data: Path = DATA) -> tuple[Verdict, ...]:
    """Judged rows of the chapters that came later: of kinds that the recorded validation has none of."""
    if not (data / LATER / "validation.json").exists():
        return ()
    kinds = {row.label.kind for row in read_verdicts(data / "validation")}
    return tuple(row for row in read_verdicts(data / LATER) if row.label.kind not in kinds)


def recorded_summary() -> str:
    """The summary of the recorded validation, then of later chapters and of the pretrained model where they are recorded; InputError without the first."""
    parts = [verdict_summary(read_verdicts(DATA / "validation"))]
    if later := later_verdicts():
        parts.append(
            f"## Chapters that came later\n\n{command_of(DATA / LATER)}, shipped model. {verdict_summary(later)}"
        )
    for k, folder in enumerate(pretrained_folders()):
        head = "" if k else "## A pretrained model\n\n"
        said = f"{command_of(folder)}, on the [language suite](language.md). "
        parts.append(f"{head}{said}{verdict_summary(read_verdicts(folder))}")
    return "\n".join(parts)


def command_of(folder: Path) -> str:
    """What made a recorded validation, as Markdown."""
    made = read_json(folder / "predictions.json")
    adapter = f" --adapter {made['adapter']}" if made.get("adapter") else ""
    half = f" --precision {made['precision']}" if made.get("precision", "float32") != "float32" else ""
    return f"`fstsim validate --model {made['model']} --preset {made['scale']}{adapter}{half}`"
