"""The part of ``report.html`` that is about language models: verdicts first, then the bridge, then the experiments."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from rich.table import Table

from fstsim.number_text import html_number
from fstsim.paper.bridge import figure as bridge_figure
from fstsim.paper.experiments.figures import draw_continual, draw_core, draw_decomposition, draw_plasticity, draw_zero
from fstsim.paper.experiments.tables import (
    calibration_table,
    continual_table,
    core_tables,
    distill_table,
    plasticity_table,
    zero_table,
)
from fstsim.paper.report.page import image, interval, row, table, table_of
from fstsim.paper.report.runs import Source, sources
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
        draw_zero,
        "zero.png",
        "From next to no reward",
        "A star graph that words do not solve: reward against samples at every learning rate. Bands: two standard errors over seeds.",
        "fstsim experiment zero",
    ),
    (
        draw_plasticity,
        "plasticity.png",
        "Fresh RL from trained weights",
        "Reward on a second task, from the base and from the ends of RL and of fast-slow training on a first one.",
        "fstsim experiment plasticity",
    ),
)


_TABLES: Mapping[str, Callable[[Path], Sequence[Table]]] = {
    "core.png": core_tables,
    "continual.png": lambda out: [continual_table(out)],
    "zero.png": lambda out: [zero_table(out)],
    "plasticity.png": lambda out: [plasticity_table(out)],
}
_RULE = (
    '<p class="note">Every prediction was written to predictions.json before the runs, from numbers measured on the base '
    "model alone; what needs one number of the runs' beginning says so there. The rule of the verdict is in "
    "<code>fstsim.llm.validation.prediction</code>: confirmed if the 95 % interval of the measurement meets the predicted one, falsified "
    "if not, undecided with fewer than three seeds or an interval too wide. Falsified rows stay; recorded rows whose like had been seen before are named in paper/LOG.md. Made by <code>fstsim validate</code>.</p>"
)
_SIGNS = {"confirmed": "✓", "falsified": "✗", "undecided": "?"}


def verdict_rows(judged: Sequence[Mapping[str, Any]]) -> str:
    """The verdict table as HTML; rows that are falsified stay and are marked. Missing numbers (None) are dashes."""
    rows = []
    for j in judged:
        cells = (
            ("predicted", f"{html_number(j['value'])} <span class=kind>{interval(j['low'], j['high'])}</span>"),
            (
                "measured, 95 %",
                f"{html_number(j['measured'])} <span class=kind>{interval(j['measured_low'], j['measured_high'])}</span>",
            ),
            ("seeds", str(j["seeds"])),
            ("verdict", f"<b>{_SIGNS.get(j['verdict'], '')} {escape(j['verdict'])}</b>"),
        )
        calibration = j.get("calibration")
        note = f'<br><span class="kind">one number from the runs: {escape(calibration)}</span>' if calibration else ""
        name = f"{escape(j['quantity'])}<br><code>{escape(j['statement'])}</code>{note}"
        rows.append(row(name, cells, "bad" if j["verdict"] == "falsified" else ""))
    return table(("prediction", "predicted", "measured, 95 %", "seeds", "verdict"), rows)


def _verdicts(source: Source) -> str:
    judged = read_json(source.validation / "validation.json")
    count = Counter(j["verdict"] for j in judged)
    facts = "".join(f"<li><b>{count[verdict]}</b>{sign} {verdict}</li>" for verdict, sign in _SIGNS.items())
    written = source.validation / "predictions.json"
    about = read_json(written) if written.exists() else {}
    how = f"preset {escape(str(about.get('scale', '?')))}, model {escape(Path(str(about.get('model', '?'))).name)}"
    return f'<h3>{escape(source.title)} ({how})</h3><ul class="facts">{facts}</ul>{verdict_rows(judged)}'


def _bridge(source: Source, folder: Path) -> str:
    path = bridge_figure.save_bridge(source.validation, folder / "bridge.png")
    slugs = ", ".join(f"<code>{escape(slug)}</code>" for slug in bridge_figure.SLUGS)
    return (
        f"<figure><h3>{escape(source.title)}</h3>{image(path, 'Toy, language model and theory. The caption describes it.', '')}"
        f"<figcaption>{escape(bridge_figure.CAPTION)}<br>Statements: {slugs}. Made by <code>fstsim validate</code>, drawn by "
        "<code>python -m fstsim.paper.bridge.figure</code>.</figcaption></figure>"
    )


def _experiments(source: Source, folder: Path) -> str:
    out, parts = source.experiments, []
    for draw, name, title, caption, command in _PICTURES:
        path = draw(out, folder / name)
        if path is None:
            continue
        drawn = image(path, f"{title}. The caption describes it.", "")
        said = f"{escape(caption)} Made by <code>{escape(command)}</code>."
        tables = "".join(map(table_of, _TABLES[name](out) if name in _TABLES else []))
        parts.append(f"<figure><h4>{escape(title)}</h4>{drawn}<figcaption>{said}</figcaption></figure>{tables}")
    if (out / "runs" / "distill").is_dir():
        parts.append(table_of(distill_table(out)))
    if any((out / "runs").glob("calibrate-*")):
        parts.append(table_of(calibration_table(out)))
    return f"<h3>{escape(source.title)}</h3>" + "\n".join(parts) if parts else ""


def model_section(experiments: Path, validation: Path) -> str:
    """HTML of the recorded runs and of the fresh ones below these two directories: verdicts, bridge, experiments.

    Empty where there are none. Nothing is written into the directories. Raises InputError on a record that is malformed.
    """
    found = sources(experiments, validation)
    judged = [s for s in found if (s.validation / "validation.json").exists()]
    parts = []
    with tempfile.TemporaryDirectory() as name:
        if judged:
            parts += [
                '<h2 id="verdicts">Verdicts</h2>',
                _RULE,
                *map(_verdicts, judged),
                '<h2 id="bridge">Toy, model and theory on the same axes</h2>',
                *(_bridge(s, Path(name)) for s in judged),
            ]
        drawn = [_experiments(s, Path(name)) for s in found]
    if any(drawn):
        parts += ['<h2 id="experiments">Experiments: fast and slow training</h2>', *drawn]
    return "\n".join(parts)
