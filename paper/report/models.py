"""The part of ``report.html`` that is about language models: verdicts first, then the bridge, then the experiments."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from fstsim.llm.experiments.run import recorded
from fstsim.number_text import html_number
from fstsim.paper import DATA
from fstsim.paper.bridge import figure as bridge_figure
from fstsim.paper.experiments.shown import SHOWN
from fstsim.paper.report.claims import claim_section
from fstsim.paper.report.page import image, interval, row, table, table_of
from fstsim.paper.report.runs import Source, sources
from fstsim.reading import check_object, understood
from fstsim.records import read_json

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
            ("seeds", escape(str(j["seeds"]))),
            ("verdict", f"<b>{_SIGNS.get(j['verdict'], '')} {escape(j['verdict'])}</b>"),
        )
        calibration = j.get("calibration")
        note = f'<br><span class="kind">one number from the runs: {escape(calibration)}</span>' if calibration else ""
        name = f"{escape(j['quantity'])}<br><code>{escape(j['statement'])}</code>{note}"
        rows.append(row(name, cells, "bad" if j["verdict"] == "falsified" else ""))
    return table(("prediction", "predicted", "measured, 95 %", "seeds", "verdict"), rows)


def _verdicts(title: str, validation: Path) -> str:
    judged = read_json(validation / "validation.json")
    with understood(validation / "validation.json"):
        return _verdicts_of(title, validation, judged)


def _verdicts_of(title: str, validation: Path, judged: Sequence[Mapping[str, Any]]) -> str:
    count = Counter(j["verdict"] for j in judged)
    facts = "".join(f"<li><b>{count[verdict]}</b>{sign} {verdict}</li>" for verdict, sign in _SIGNS.items())
    written = validation / "predictions.json"
    about = check_object(written, read_json(written), {}) if written.exists() else {}
    how = f"preset {escape(str(about.get('scale', '?')))}, model {escape(Path(str(about.get('model', '?'))).name)}"
    if about.get("adapter"):
        how += f", adapter {escape(str(about['adapter']))}"
    return f'<h3>{escape(title)} ({how})</h3><ul class="facts">{facts}</ul>{verdict_rows(judged)}'


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
    for shown in SHOWN:
        if not recorded(shown.experiment, out):
            continue
        for picture in shown.pictures:
            path = picture.draw(out, folder / f"{picture.name}.png")
            if path is None:
                continue
            drawn = image(path, f"{picture.title}. The caption describes it.", "")
            caption = f"{escape(picture.caption)} Made by <code>{escape(shown.command)}</code>."
            parts.append(f"<figure><h4>{escape(picture.title)}</h4>{drawn}<figcaption>{caption}</figcaption></figure>")
        parts += map(table_of, shown.tables(out))
    return f"<h3>{escape(source.title)}</h3>" + "\n".join(parts) if parts else ""


def model_section(experiments: Path, validation: Path, data: Path = DATA) -> str:
    """HTML of the recorded runs, in ``data``, and of the fresh ones below the other two: verdicts, bridge, claims, experiments.

    Empty where there are none. Nothing is written into the directories. Raises InputError on a record that is malformed.
    """
    found = sources(experiments, validation, data)
    judged = [s for s in found if (s.validation / "validation.json").exists()]
    tables = [(s.title, s.validation) for s in judged] + [(s.title, path) for s in found for path in s.further]
    parts = []
    with tempfile.TemporaryDirectory() as name:
        if tables:
            parts += ['<h2 id="verdicts">Verdicts</h2>', _RULE, *(_verdicts(*table) for table in tables)]
        if judged:
            parts += [
                '<h2 id="bridge">Toy, model and theory on the same axes</h2>',
                *(_bridge(s, Path(name)) for s in judged),
            ]
        drawn = []
        for s in found:
            with understood(s.experiments):
                drawn.append(_experiments(s, Path(name)))
    if claims := claim_section(data):
        parts.append(claims)
    if any(drawn):
        parts += ['<h2 id="experiments">Experiments: fast and slow training</h2>', *drawn]
    return "\n".join(parts)
