"""``report.html``: one file that opens offline, on a phone too: verdicts, figures, checks, configurations, environment.

``python -m fstsim.paper.report.report --out DIR`` writes it again from what ``fstsim reproduce`` left in DIR.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from fstsim.errors import InputError
from fstsim.front.console import show
from fstsim.front.entry import run_module
from fstsim.number_text import html_number
from fstsim.paper.figures.catalogue import FIGURES
from fstsim.paper.figures.figure import Figure
from fstsim.paper.report.page import image, row, table
from fstsim.paper.report.runs import runs_section, sources
from fstsim.reading import check_object, understood
from fstsim.records import read_json, write_text
from fstsim.theory.statements.statement import STATUS_NAMES

_TITLE = "fstsim: what post-training forgets, and how fast"

_PARTS = (
    ("verdicts", "Verdicts"),
    ("bridge", "Toy and model"),
    ("claims", "Claims"),
    ("experiments", "Experiments"),
    ("simulator", "Simulator"),
    ("checks", "Checks"),
    ("environment", "Configurations and environment"),
)

_SUMMARY = """
<p>A model that is trained on something new can lose what it knew. The simulator is the smallest world in which that
can be computed exactly: a distribution with two modes, the <b>old</b> behaviour (weight β) and the <b>new</b> one, a
distance δ apart. Supervised fine-tuning is <i>forward KL</i> on new data, reinforcement learning is <i>reverse KL</i> to a
target that keeps both.</p>
<ul>
<li><b>Forgetting.</b> Fine-tuning on new data alone empties the old region. With the modes held in place the weight of the
old one falls like 1/t, later like t<sup>−1/2</sup>, or exponentially: that depends on the geometry in which the weight is
trained. When the modes may move, the weight stops and the old mode itself is dragged onto the new data.</li>
<li><b>Drift.</b> Both methods push the old mode only as far as the modes overlap, e<sup>−δ²/8</sup>. Under fine-tuning the
push adds up almost like √t and is never undone; under reverse KL, for modes far enough apart, it is bounded for all time
and comes back.</li>
</ul>
<p>Every formula is confronted with simulations (figures) and with random instances on which it could fail (table).
<b>[T]</b> marks what is proved, <b>[A]</b> what holds to leading order, <b>[N]</b> what was only observed numerically.</p>
"""

_STYLE = """
:root { --ink: #1b1f24; --soft: #57606a; --line: #d8dee4; --paper: #fff; --tint: #f6f8fa; --bad: #a40e26; --badtint: #ffebe9; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #9aa5b1; --line: #3a424c; --paper: #14181d; --tint: #1d232a; --bad: #ff8a80;
    --badtint: #45191c; }
  a { color: #79b8ff; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 70rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: .5rem 0; }
h2 { margin: 2.5rem 0 .75rem; border-bottom: 1px solid var(--line); padding-bottom: .3rem; }
h3 { margin: 1.75rem 0 .6rem; }
h4 { margin: 1.2rem 0 .5rem; max-width: 48rem; }
figure h3, figure h4 { margin-top: 0; }
p, li, figcaption { max-width: 48rem; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1rem; padding: .6rem 0; }
.note, figcaption, .kind { color: var(--soft); font-size: .92rem; }
.facts { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1.25rem 0; padding: 0; list-style: none; }
.facts li { border: 1px solid var(--line); border-radius: .5rem; padding: .5rem .9rem; background: var(--tint); }
.facts b { display: block; font-size: 1.35rem; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { text-align: left; vertical-align: top; padding: .45rem .6rem; border-bottom: 1px solid var(--line); }
thead th { background: var(--tint); }
th { font-weight: 600; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.checks thead th { white-space: nowrap; }
.checks td .kind, .checks td b { white-space: nowrap; }
.wide { overflow-x: auto; margin-bottom: 1rem; }
pre { margin: 0; padding: .6rem; font-size: .85rem; line-height: 1.4; }
details { border: 1px solid var(--line); border-radius: .4rem; margin: 0 0 .4rem; padding: .35rem .7rem; }
summary { cursor: pointer; }
details > .frame { max-height: 28rem; overflow: auto; }
.environment th { white-space: nowrap; width: 8rem; }
.environment td { overflow-wrap: anywhere; }
.checks tbody th { font-weight: 400; }
.bad { background: var(--badtint); }
.bad .count { color: var(--bad); font-weight: 700; }
figure { margin: 0 0 2rem; }
.frame { overflow-x: auto; max-width: 70rem; border: 1px solid var(--line); border-radius: .4rem; margin-bottom: .6rem; }
img { display: block; width: 100%; height: auto; background: #fff; padding: .4rem; }
code { font-size: .9em; background: var(--tint); padding: .1em .3em; border-radius: .25em; overflow-wrap: anywhere; }
@media (max-width: 46rem) {
  .checks thead { display: none; }
  .checks, .checks tbody, .checks tr, .checks th, .checks td { display: block; width: 100%; }
  .checks tr { border: 1px solid var(--line); border-radius: .5rem; margin-bottom: .75rem; padding: .3rem 0; }
  .checks th, .checks td { border: 0; padding: .2rem .75rem; }
  .checks td { display: flex; justify-content: space-between; gap: 1rem; white-space: normal; }
  .checks td > span { text-align: right; }
  .frame img { width: 46rem; } /* labels stay readable: the figure scrolls, the page does not */
  .checks td::before { content: attr(data-label); color: var(--soft); }
}
"""


def _spread(values: Sequence[float] | None) -> str:
    return "–" if values is None else " · ".join(map(html_number, values))


def _check_row(check: Mapping[str, Any]) -> str:
    bad = check["violations"] > 0
    statement = f"{escape(check['title'])}<br><code>{escape(check['slug'])}</code>"
    if bad:
        statement += f"<br>worst instance: <code>{escape(json.dumps(check['worst']))}</code>"
    examples = f"{check['examples']:,}"
    if check["skipped"]:
        examples += f'<br><span class="kind">{check["skipped"]:,} skipped</span>'
    status = f'{escape(STATUS_NAMES[check["status"]])}<br><span class="kind">{escape(check["kind"])}</span>'
    cells = (
        ("status", status),
        ("examples", examples),
        ("violations", f'<span class="count">{check["violations"]:,}</span>'),
        ("upper / actual", _spread(check["upper"])),
        ("actual / lower", _spread(check["lower"])),
    )
    return row(statement, cells, "bad" if bad else "")


def _check_table(checks: Sequence[Mapping[str, Any]]) -> str:
    head = ("statement", "status", "examples", "violations", "upper / actual", "actual / lower")
    return table(head, [_check_row(check) for check in checks])


def _figure(index: int, figure: Figure, folder: Path) -> str:
    path = folder / f"{figure.name}.png"
    alt = f"Figure {index}: {figure.title}. The caption below describes it."
    drawn = image(path, alt, f"no figure at {path}: make it with fstsim figures {figure.name}")
    slugs = ", ".join(f"<code>{escape(slug)}</code>" for slug in figure.slugs)
    return f"""<figure id="{escape(figure.name)}">
<h3>Figure {index}. {escape(figure.title)}</h3>
{drawn}
<figcaption>{escape(figure.caption)}<br>Statements: {slugs}. Made by <code>fstsim figures {escape(figure.name)}</code>.</figcaption>
</figure>"""


def _environment_rows(environment: Mapping[str, Any]) -> str:
    flat: dict[str, Any] = {}
    for name, value in environment.items():
        flat.update(value if isinstance(value, Mapping) else {name: value})
    return "\n".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{"–" if value is None else escape(str(value))}</td></tr>'
        for name, value in flat.items()
    )


def _facts(figures: Sequence[Figure], checks: Sequence[Mapping[str, Any]]) -> str:
    examples, violations = (sum(check[name] for check in checks) for name in ("examples", "violations"))
    facts = (
        (f"{len(checks)}", "statements checked"),
        (f"{examples:,}", "random instances"),
        (f"{violations:,}", "violations"),
        (f"{len(figures)}", "figures"),
        (f"{sum(check['seconds'] for check in checks):.0f} s", "spent checking"),
    )
    return "".join(f"<li><b>{value}</b>{name}</li>" for value, name in facts)


def _documentation(out: Path) -> str:
    """A link to the site of ``make docs`` if it is beside the report, else how to make it."""
    if (out / "docs" / "index.html").is_file():
        return '<a href="docs/index.html">Documentation</a>'
    return '<span class="note">Documentation: <code>make docs</code></span>'


def write_report(
    out: Path,
    figures: Sequence[Figure],
    checks: Sequence[Mapping[str, Any]],
    environment: Mapping[str, Any],
    models: str = "",
) -> Path:
    """Write ``out/report.html`` from ``out/figures/NAME.png`` and the checks (`fstsim.theory.CheckResult.to_dict`).

    ``models`` is the section on language models (`model_report.model_section`), put first; with it come the configurations
    of the runs, recorded ones and those in ``out/experiments`` and ``out/validation``. It links to the documentation where that
    is in ``out/docs``. The file is self-contained and appears
    whole or not at all. Raises InputError where a figure's PNG is missing.
    """
    links = "".join(f'<a href="#{escape(f.name)}">{n}. {escape(f.title)}</a>' for n, f in enumerate(figures, start=1))
    drawn = "\n".join(_figure(n, f, out / "figures") for n, f in enumerate(figures, start=1))
    runs = runs_section(sources(out / "experiments", out / "validation")) if models else ""
    body = f"""{models}
<h2 id="simulator">The simulator: what it shows</h2>
{_SUMMARY}
<ul class="facts">{_facts(figures, checks)}</ul>
<nav>{links}</nav>
{drawn}
<h2 id="checks">Checks</h2>
<p class="note">Each statement meets random instances that satisfy its hypotheses; one exact value outside its bounds is a
violation. The ratios say how tight the bounds are (least · median · largest): 1 is exact. An approximation cannot be violated; its one
ratio is approximation / actual. Skipped: instances about which the statement says nothing, such as those without a
certificate. Made by <code>fstsim check</code>.</p>
{_check_table(checks)}
<h2 id="environment">Configurations and environment</h2>
<h3>This report: figures and checks</h3>
<table class="environment">
<tbody>
{_environment_rows(environment)}
</tbody></table>
{runs}"""
    present = "".join(f'<a href="#{name}">{title}</a>' for name, title in _PARTS if f'id="{name}"' in body)
    present += _documentation(out)
    html = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(_TITLE)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(_TITLE)}</h1>
<nav>{present}</nav>
{body}
</body>
</html>
"""
    path = out / "report.html"
    write_text(path, html)
    return path


@dataclass(frozen=True)
class Config:
    """Write report.html again from what `fstsim reproduce` left in a directory, and from the recorded runs."""

    out: Path = Path("out")
    """directory of `fstsim reproduce`, with figures/, checks.json and environment.json"""


def rewrite(config: Config) -> int:
    """Write it and say where; InputError where `fstsim reproduce` has not been."""
    from fstsim.paper.report.models import model_section

    out = config.out
    if not (out / "checks.json").is_file():
        raise InputError(f"{out} holds no checks.json: run fstsim reproduce --out {out} first")
    checks, record = read_json(out / "checks.json"), read_json(out / "environment.json")
    models = model_section(out / "experiments", out / "validation")
    check_object(out / "environment.json", record, {})
    with understood(out / "checks.json"):
        report = write_report(out, list(FIGURES.values()), checks, record, models)
    show(f"open {report}")
    return 0


def main() -> int:
    """Command line; returns the exit code."""
    return run_module("fstsim.paper.report.report", Config, rewrite)


if __name__ == "__main__":
    raise SystemExit(main())
