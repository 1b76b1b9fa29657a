"""The part of ``report.html`` that is about language models: verdicts first, then the experiments."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fstsim.paper.experiment_figures import draw_continual, draw_core, draw_decomposition, draw_plasticity
from fstsim.paper.experiment_tables import continual_table, core_tables, plasticity_table
from fstsim.records import read_json

_PICTURES = (
    (
        draw_core,
        "core.png",
        "Fast-slow training against RL and GEPA",
        (
            "Reward on held-out problems against the samples of both channels, and against the distance of the weights from the base in the "
            "contexts that they work in. Bands: two standard errors over seeds."
        ),
        "fstsim experiment core",
    ),
    (
        draw_decomposition,
        "decomposition.png",
        "What weights and context carry",
        "Success with the base's or the trained weights and with the empty or the evolved context: exact probabilities on 256 test problems.",
        "fstsim experiment core",
    ),
    (
        draw_continual,
        "continual.png",
        "Three families in one uninterrupted run",
        "Reward on each task of the sequence; dotted lines are the switches.",
        "fstsim experiment continual",
    ),
    (
        draw_plasticity,
        "plasticity.png",
        "Fresh RL from trained weights",
        "Reward on a second task, from the base and from the ends of RL and of fast-slow training on a first one.",
        "fstsim experiment plasticity",
    ),
)


def verdict_rows(judged: Sequence[Mapping[str, Any]]) -> str:
    """The verdict table as HTML; rows that are falsified stay and are marked."""
    rows = []
    for j in judged:
        interval = "–" if j["measured_low"] is None else f"[{j['measured_low']:.3f}, {j['measured_high']:.3f}]"
        cells = (
            ("predicted", f"{j['value']:.3f} [{j['low']:.3f}, {j['high']:.3f}]"),
            ("measured, 95 %", f"{j['measured']:.3f} {interval}"),
            ("seeds", str(j["seeds"])),
            ("verdict", f"<b>{escape(j['verdict'])}</b>"),
        )
        body = "".join(f'<td class="number" data-label="{label}"><span>{text}</span></td>' for label, text in cells)
        name = f"{escape(j['quantity'])}<br><code>{escape(j['statement'])}</code>"
        rows.append(f'<tr{" class=bad" if j["verdict"] == "falsified" else ""}><th scope="row">{name}</th>{body}</tr>')
    head = "".join(
        f'<th scope="col" class="number">{name}</th>' for name in ("predicted", "measured, 95 %", "seeds", "verdict")
    )
    return f'<table class="checks"><thead><tr><th scope="col">prediction</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _text(tables: Sequence[Table]) -> str:
    file = io.StringIO()
    console = Console(file=file, width=100, highlight=False)
    for table in tables:
        console.print(table)
    return f'<div class="frame" tabindex="0"><pre>{escape(file.getvalue())}</pre></div>'


def model_section(experiments: Path, validation: Path) -> str:
    """HTML of what has been run below these two directories; says so where nothing has."""
    parts = ['<h2 id="models">Language models: predictions and measurements</h2>']
    if (validation / "validation.json").exists():
        parts.append(
            '<p class="note">Every prediction was written to predictions.json before the runs, from numbers measured on the base '
            "model alone; the rule of the verdict is in fstsim.llm.predictions. Made by <code>fstsim validate</code>.</p>"
        )
        parts.append(verdict_rows(read_json(validation / "validation.json")))
    for draw, name, title, caption, command in _PICTURES:
        path = draw(experiments, experiments / name)
        if path is None:
            continue
        png = path.read_bytes()
        width, height = (int.from_bytes(png[start : start + 4], "big") for start in (16, 20))  # the PNG header
        parts.append(
            f'<figure><h3>{escape(title)}</h3><div class="frame" tabindex="0"><img src="data:image/png;base64,'
            f'{base64.b64encode(png).decode()}" width="{width}" height="{height}" alt="{escape(title)}"></div>'
            f"<figcaption>{escape(caption)} Made by <code>{escape(command)}</code>.</figcaption></figure>"
        )
        if name == "core.png":
            parts.append(_text(core_tables(experiments)))
        elif name == "continual.png":
            parts.append(_text([continual_table(experiments)]))
        elif name == "plasticity.png":
            parts.append(_text([plasticity_table(experiments)]))
    return "\n".join(parts)
