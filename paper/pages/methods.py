"""The methods on one page: paper, objective of the mixture, statements, learner, predictions, figure; and which of them keeps what.

`METHODS` says what belongs together; everything else is read: formulas from `fstsim.theory.METHOD_TABLE`, sources from the
manuscript's references, errors from the recorded validation.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fstsim.llm.validation.kinds import KINDS
from fstsim.number_text import short_number
from fstsim.paper import DATA, ROOM
from fstsim.paper.bridge.numbers import Verdict, read_verdicts
from fstsim.paper.figures.catalogue import FIGURES
from fstsim.paper.pages.blocks import table
from fstsim.paper.records.verdict_summary import later_verdicts
from fstsim.theory import METHOD_TABLE
from fstsim.theory.methods import MethodRow


@dataclass(frozen=True)
class Method:
    """What the pages bring together under one name; an empty field is something that there is not."""

    title: str
    paper: str
    """key of the manuscript's references.yml; empty where it is everybody's method"""
    objective: str
    """what is minimised in the mixture, a name of `fstsim`"""
    pages: tuple[str, ...]
    """pages of paper/docs/theory with its statements, the main one first"""
    command: str
    """how a model is trained with it"""
    rows: tuple[str, ...] = ()
    """names of its rows in `METHOD_TABLE`"""
    kinds: tuple[str, ...] = ()
    """kinds of its predictions (`fstsim.llm.validation.kinds.KINDS`)"""


METHODS = (
    Method(
        "SFT on new data alone", "forgetting", "ForwardKL", ("01-mass-forgetting.md", "02-forward-drift.md"),
        "--method sft", ("forward-kl", "forward-kl-logit"),
        ("forgetting", "forgetting-adam", "forgetting-response", "forgetting-rest"),
    ),
    Method(
        "SFT with replay", "forgetting", "ForwardKL", ("06-replay-forward.md",), "--method sft --replay-share",
        ("replay",), ("replay", "replay-batches"),
    ),
    Method(
        "SFT with replay of own answers", "", "", ("06-replay-forward.md",), "--method sft --replay own", (),
        ("own-replay", "own-replay-slow", "own-replay-kl"),
    ),
    Method(
        "SFT with a leash", "forgetting", "KLLeash", ("06-replay-forward.md",), "--method sft --leash-loss",
        ("forward-leash", "reverse-leash"), ("sft-leash-forward", "sft-leash-reverse", "sft-leash-slow"),
    ),
    Method(
        "on-policy distillation to a mixture of old and new", "forgetting", "ReverseKL",
        ("03-reverse-kl.md", "04-drift-along-flow.md", "05-local-geometry.md"), "--method mixture", ("reverse-kl",), ("mixture",),
    ),
    Method(
        "RL with replay of old samples", "forgetting", "ReverseKLReplay", ("07-replay-reverse.md",), "",
    ),
    Method(
        "RL without a leash", "", "", ("16-groups.md", "11-methods-as-maps.md"), "--method rl", ("policy-gradient",),
        ("without-signal", "escape-group", "escape-adam", "relearn-group", "relearn-adam", "alternate-rl", "stall"),
    ),
    Method(
        "RL with a KL leash in the reward", "", "", ("11-methods-as-maps.md",), "--method rl --leash-reward",
        ("regularised-rl",), ("tilt-new", "tilt-old", "rl-leash-reward"),
    ),
    Method(
        "RL with a KL leash as a loss", "", "", ("17-leash-loss.md", "18-kl-estimators.md"), "--method rl --leash-loss", (),
        ("rl-leash-loss", "rl-leash-normalised", "rl-leash-prefix", "kl-estimator-new", "kl-estimator-old"),
    ),
    Method(
        "SDFT", "sdft", "SDFT", ("08-sdft.md",), "--method sdft --teacher-share 1", ("sdft",), ("sdft-rate", "sdft-rate-own"),
    ),
    Method(
        "SDFT with an anchor", "sdft", "SDFT", ("08-sdft.md",), "--method sdft --teacher-share", ("sdft-anchored",),
        ("sdft", "sdft-level"),
    ),
    Method(
        "TTT-Discover", "ttt", "TTTDiscover", ("09-ttt-discover.md",), "--method ttt", ("ttt-discover",), ("ttt", "ttt-exact"),
    ),
    Method("OAPL", "oapl", "OAPL", ("10-oapl.md",), "--method oapl", ("oapl",), ("oapl", "oapl-exact")),
    Method("OAPL with an anchor", "oapl", "OAPL", ("10-oapl.md",), "--method oapl --lagged-share", ("oapl-anchored",), ("oapl",)),
    Method(
        "fast-slow training", "fast-slow", "", ("12-fast-slow.md", "13-plasticity.md"), "--method fst", (),
        ("alternate-fst", "kl-saved", "alternate-kl-saved", "speed-up"),
    ),
    Method("contexts alone", "gepa", "", ("12-fast-slow.md",), "--method gepa"),
)  # fmt: skip


def references() -> dict[str, dict[str, str]]:
    """Sources by key: ``title`` and ``arxiv``."""
    text = (ROOM / "manuscript" / "references.yml").read_text(encoding="utf-8")
    entry = re.compile(r"^([\w-]+):\n  title: \"?(.+?)\"?\n  arxiv: \"(.+)\"$", re.M)
    return {key: {"title": title, "arxiv": arxiv} for key, title, arxiv in entry.findall(text)}


def of_kinds(rows: Sequence[Verdict], kinds: Sequence[str]) -> list[Verdict]:
    """The judged rows of these kinds."""
    return [row for row in rows if row.label.kind in kinds]


def counted(rows: Sequence[Verdict]) -> str:
    """``5 of 6 confirmed``, with what is undecided; a dash where nothing was judged."""
    if not rows:
        return "–"
    counts = Counter(row.verdict for row in rows)
    undecided = f", {counts['undecided']} undecided" if counts["undecided"] else ""
    return f"{counts['confirmed']} of {len(rows)} confirmed{undecided}"


def errors(rows: Sequence[Verdict]) -> str:
    """Median and largest distance of prediction and measurement; logarithms (nats) apart from shares, as they have no common scale."""
    texts = []
    for unit, log in (("", False), (" nats", True)):
        found = [abs(row.measured - row.value) for row in rows if KINDS[row.label.kind].log == log]
        found = [error for error in found if np.isfinite(error)]
        if found:
            texts.append(f"{short_number(float(np.median(found)))}, at most {short_number(max(found))}{unit}")
    return "; ".join(texts) or "–"


def formula(tex: str) -> str:
    """A formula of the method table in a cell: without spacing commands that Markdown takes for escapes."""
    return "$" + tex.replace(r"\,", r"\thinspace ") + "$" if tex else "–"


def _page(name: str) -> str:
    return f"[{name.partition('-')[0].lstrip('0') or '0'}](theory/{name})"


def _command(method: Method) -> str:
    return f"`{method.command}`" if method.command else "simulator only"


def statements_of(pages: Sequence[str]) -> list[str]:
    """Slugs of the statements on these pages of the theory, in their order."""
    from fstsim.paper.records.statement_table import pages_of_statements

    where = pages_of_statements()
    return [slug for page in pages for slug, found in where.items() if found == page]


def figures_of(pages: Sequence[str]) -> list[str]:
    """Figures that show at least one statement of these pages."""
    slugs = set(statements_of(pages))
    return [name for name, figure in FIGURES.items() if slugs & set(figure.slugs)]


def judged_rows(data: Path = DATA) -> tuple[Verdict, ...]:
    """Of the recorded validation of the shipped model, and of the chapters that came later."""
    return (*read_verdicts(data / "validation"), *later_verdicts(data))


def method_table(data: Path = DATA) -> str:
    """Markdown: one line a method, from its paper to its figures."""
    sources, judged = references(), judged_rows(data)
    head = (
        "method",
        "paper",
        "objective in the mixture",
        "theory",
        "statements",
        "a model",
        "predictions",
        "figures of the main page",
    )
    rows = []
    for method in METHODS:
        source = sources.get(method.paper, {"title": "–", "arxiv": ""})
        rows.append(
            [
                method.title,
                f"{source['title'].partition(' (')[0]} {source['arxiv']}".strip(),
                f"[`{method.objective}`](names.md#the-mixture)" if method.objective else "–",
                ", ".join(map(_page, method.pages)),
                str(len(statements_of(method.pages))),
                _command(method),
                counted(of_kinds(judged, method.kinds)),
                ", ".join(f"`{name}`" for name in figures_of(method.pages[:1])) or "–",
            ]
        )  # fmt: skip
    return table(head, rows)


def _retention(row: MethodRow) -> str:
    return row.retention.replace(r"\ \text{suffices}", "").replace(r"\text{suffices}", "")


def choose_table(data: Path = DATA) -> str:
    """Markdown: one line a row of `METHOD_TABLE`: whether it keeps the old mass, where that ends, and how far off the theory was on models."""
    judged = judged_rows(data)
    owner = {name: method for method in METHODS for name in method.rows}
    head = ("method", "a model", "rests with old mass left", "predictions on models", "error of prediction, median and largest", "where the log-odds or the mass end, or how the mass falls", "keeps the share α if")  # fmt: skip
    rows = []
    for row in METHOD_TABLE:
        method = owner[row.method]
        mine = of_kinds(judged, method.kinds)
        cells = [row.title, _command(method), row.interior, counted(mine), errors(mine), formula(row.old_mass), formula(_retention(row))]  # fmt: skip
        rows.append(cells)
    return table(head, rows)
