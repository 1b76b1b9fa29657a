"""``report.html``: one file with the checks, the figures and the environment that opens offline, on a phone too."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from fstsim.errors import InputError
from fstsim.paper.figures import Figure
from fstsim.records import write_text
from fstsim.theory.statement import STATUS_NAMES

_TITLE = "fstsim: what post-training forgets, and how fast"

_SUMMARY = """
<p>A model that is trained on something new can lose what it knew. This report is about the smallest world in which that
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
h3 { margin: 0 0 .6rem; }
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
.checks td, .checks thead th { white-space: nowrap; }
.environment th { white-space: nowrap; width: 8rem; }
.checks tbody th { font-weight: 400; }
.bad { background: var(--badtint); }
.bad .count { color: var(--bad); font-weight: 700; }
figure { margin: 0 0 2.75rem; }
.frame { overflow-x: auto; max-width: 60rem; border: 1px solid var(--line); border-radius: .4rem; margin-bottom: .6rem; }
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


def _number(value: float) -> str:
    """Three significant digits, for people (and as HTML)."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else "∞" if value > 0 else "−∞"
    if abs(value) >= 1e5 or 0.0 < abs(value) < 1e-3:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa}×10<sup>{int(exponent)}</sup>".replace("-", "−")
    return (f"{value:,.0f}" if abs(value) >= 1e3 else f"{value:.3g}").replace("-", "−")


def _spread(values: Sequence[float] | None) -> str:
    return "–" if values is None else " · ".join(_number(v) for v in values)


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
        ("status", "", status),
        ("examples", "number", examples),
        ("violations", "number count", f"{check['violations']:,}"),
        ("upper / actual", "number", _spread(check["upper"])),
        ("actual / lower", "number", _spread(check["lower"])),
    )
    body = "".join(f'<td class="{style}" data-label="{label}"><span>{text}</span></td>' for label, style, text in cells)
    return f'<tr{" class=bad" if bad else ""}><th scope="row">{statement}</th>{body}</tr>'


def _check_table(checks: Sequence[Mapping[str, Any]]) -> str:
    rows = "\n".join(_check_row(check) for check in checks)
    return f"""<table class="checks">
<thead><tr><th scope="col">statement</th><th scope="col">status</th><th scope="col" class="number">examples</th>
<th scope="col" class="number">violations</th><th scope="col" class="number">upper / actual<br>min · median · max</th>
<th scope="col" class="number">actual / lower<br>min · median · max</th></tr></thead>
<tbody>
{rows}
</tbody></table>"""


def _figure(number: int, figure: Figure, folder: Path) -> str:
    path = folder / f"{figure.name}.png"
    try:
        png = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"no figure at {path}: make it with fstsim figures {figure.name}") from error
    width, height = (int.from_bytes(png[start : start + 4], "big") for start in (16, 20))  # the PNG header
    slugs = ", ".join(f"<code>{escape(slug)}</code>" for slug in figure.slugs)
    return f"""<figure id="{escape(figure.name)}">
<h3>Figure {number}. {escape(figure.title)}</h3>
<div class="frame" tabindex="0"><img src="data:image/png;base64,{base64.b64encode(png).decode()}" width="{width}" height="{height}"
alt="Figure {number}: {escape(figure.title)}. The caption below describes it."></div>
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


def write_report(
    out: Path,
    figures: Sequence[Figure],
    checks: Sequence[Mapping[str, Any]],
    environment: Mapping[str, Any],
    models: str = "",
) -> Path:
    """Write ``out/report.html`` from ``out/figures/NAME.png`` and the checks (`fstsim.theory.CheckResult.to_dict`).

    ``models`` is the section on language models (`model_report.model_section`), put first. The file is self-contained and appears whole or not at all. Raises InputError where a figure's PNG is missing.
    """
    links = "".join(f'<a href="#{escape(f.name)}">Figure {n}</a>' for n, f in enumerate(figures, start=1))
    drawn = "\n".join(_figure(n, f, out / "figures") for n, f in enumerate(figures, start=1))
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
<nav>{models and '<a href="#models">Language models</a>'}<a href="#checks">Checks</a>{links}<a href="#environment">Environment</a></nav>
{_SUMMARY}
<ul class="facts">{_facts(figures, checks)}</ul>
{models}
<h2 id="checks">Checks</h2>
<p class="note">Each statement meets random instances that satisfy its hypotheses; one exact value outside its bounds is a
violation. The ratios say how tight the bounds are: 1 is exact. An approximation cannot be violated; its one ratio is
approximation / actual. Skipped: instances about which the statement says nothing, such as those without a certificate.</p>
{_check_table(checks)}
<h2 id="figures">Figures</h2>
{drawn}
<h2 id="environment">Environment</h2>
<table class="environment">
<tbody>
{_environment_rows(environment)}
</tbody></table>
</body>
</html>
"""
    path = out / "report.html"
    write_text(path, html)
    return path
