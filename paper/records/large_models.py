"""The tables on the page about large models, from what was measured.

``paper/data/benchmarks/large-models.json`` holds the measurements: CPU seconds, which other work on the machine changes
least, and gigabytes; before and after, on the same machine. ``pretrained-step.json`` is written by a command
(``python -m fstsim.paper.records.pretrained_step``).
"""

from __future__ import annotations

from fstsim.paper import DATA
from fstsim.records import read_json


def measured_table() -> str:
    """Markdown: one row a measurement; InputError without the record."""
    record = read_json(DATA / "benchmarks" / "large-models.json")
    rows = [f"| {r['what']} | {r['unit']} | {_cell(r['before'])} | {_cell(r['after'])} |" for r in record["rows"]]
    return "\n".join(["| what | unit | before | after |", "|---|---|---|---|", *rows]) + f"\n\n{record['note']}\n"


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:g}"


def step_table() -> str:
    """Markdown: CPU seconds of one step, a row a way to train, as `fstsim.paper.records.pretrained_step` recorded them."""
    record = read_json(DATA / "benchmarks" / "pretrained-step.json")
    parts = ("sampling", "passes", "update")
    rows = [
        f"| {way} | {sum(spent.values()):.2f} | " + " | ".join(f"{spent[part]:.2f}" for part in parts) + " |"
        for way, spent in record["seconds"].items()
    ]
    head = "| trained in | a step, CPU s | sampling | passes | clipping, AdamW |\n|---|---|---|---|---|"
    return (
        "\n".join([head, *rows])
        + f"\n\n{record['model']}, medians of {record['turns']} steps in turns, one thread, {record['processor']}.\n"
    )
