"""A report card for checkpoints: one HTML file with the verdict, the table of every set, the picture and how to read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from fstsim.number_text import html_number
from fstsim.paper.report.page import image, row, table
from fstsim.places import published
from fstsim.records import write_text

ROWS = (
    ("kl_to_base", "KL(now ‖ base), nats a sequence"),
    ("kl_to_base_token", "KL(now ‖ base), nats a token"),
    ("kl_from_base", "KL(base ‖ now), nats a sequence"),
    ("kl_from_base_token", "KL(base ‖ now), nats a token"),
    ("reward", "reward: success probability where exact, else mean of samples"),
    ("reward_change", "change of reward, paired"),
    ("greedy", "greedy success"),
    ("old_mass", "probability of the old answer"),
    ("answer_nll", "NLL of the right answer, nats a sequence"),
    ("answer_nll_token", "NLL of the right answer, nats a token"),
    ("entropy", "entropy, nats a sequence"),
    ("length", "length, tokens"),
)
"""Column -> what it is called; each with its standard error."""

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #111; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% } th, td { padding: .25rem .6rem; border-bottom: 1px solid #ccc; text-align: left }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums } .wide, .frame { overflow-x: auto }
th[scope=row] { font-weight: normal } img { max-width: 100%; height: auto } .note { color: #444 }
.verdict { border-left: .4rem solid #009E73; padding: .4rem .8rem } .verdict.no { border-color: #C44E00; font-weight: bold }
code { overflow-wrap: anywhere }
"""


def write_measure_card(measured: Mapping[str, Any], passed: Sequence[str] | None, picture: Path, path: Path) -> Path:
    """Write the card of what is in ``measure.json``; ``passed`` are lines about limits that were passed, None if none was set."""
    write_text(path, measure_card(measured, passed, picture))
    return path


def measure_card(measured: Mapping[str, Any], passed: Sequence[str] | None, picture: Path) -> str:
    """The page; whatever names and tasks hold is escaped."""
    for held in measured["checkpoints"]:
        name = str(held["checkpoint"])
        passed = None if passed is None else [line.replace(name, published(name)) for line in passed]
    measured = published(measured)
    names = [str(held["checkpoint"]) for held in measured["checkpoints"]]
    verdict = "".join(f'<p class="verdict no">{escape(line)}</p>' for line in passed or ())
    if passed is not None and not passed:
        verdict = '<p class="verdict">No limit was passed.</p>'
    checkpoints = "".join(
        f"<li><code>{escape(name)}</code>{_digest(held)}</li>"
        for name, held in zip(names, measured["checkpoints"], strict=True)
    )
    parts = [_set(name, measured, names) for name in measured["sets"]]
    errors = measured.get("verifier_errors")
    if errors:
        parts.append(
            f'<p class="note">The verifier failed {errors["count"]} times, each scored 0; first: {escape(errors["first"])}</p>'
        )
    drawn = image(picture, "distance, success, pass@k and weights of each checkpoint", f"there is no file {picture}")
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Report card: {escape(", ".join(names))}</title><style>{_STYLE}</style></head><body>
<h1>Report card against <code>{escape(str(measured["base"]))}</code></h1>
<ol>{checkpoints}</ol>
{verdict}
{drawn}
{"".join(parts)}
{_relearning(measured, names)}
{_weights(measured, names)}
<h2>How to read this</h2>
<p>Numbers are means over problems ± one standard error. KL takes the full vocabulary at every token of sampled sequences:
KL(now ‖ base) along those of the checkpoint, KL(base ‖ now) along those of the base. The new set is shown without context,
the old one in its own. Lost and gained are problems whose greedy answer was right before or after only; p is McNemar's
exact test, two-sided. pass@k is unbiased for the chance that one of k sampled answers is right.</p>
</body></html>
"""


def _digest(held: Mapping[str, Any]) -> str:
    """Of a saved checkpoint; a step of a training has none."""
    return f" (SHA-256 of the weights <code>{escape(held['sha256'][:16])}</code>)" if "sha256" in held else ""


def _cell(values: Mapping[str, Any], name: str) -> str:
    if values.get(name) is None:
        return "–"
    error = values.get(f"{name}_se")
    return html_number(values[name]) + (f" ± {html_number(float(f'{error:.2g}'))}" if error is not None else "")


def _set(name: str, measured: Mapping[str, Any], names: Sequence[str]) -> str:
    held = measured["sets"][name]
    columns = [held["base"], *(each["sets"][name] for each in measured["checkpoints"])]
    labels = ["base", *names]
    rows = [
        row(escape(text), [(label, _cell(c, key)) for label, c in zip(labels, columns, strict=True)])
        for key, text in ROWS
        if any(c.get(key) is not None for c in columns)
    ]
    rows += [
        row(f"pass@{escape(k)}", [(label, _fan(c, k)) for label, c in zip(labels, columns, strict=True)])
        for k in sorted(held["base"]["pass_at"], key=int)
    ]
    flips = [("base", "–"), *((label, _flips(c)) for label, c in zip(names, columns[1:], strict=True))]
    rows.append(row("lost, gained, p", flips))
    context = f" in the context <code>{escape(held['context'])}</code>" if held["context"] else ""
    return (
        f"<h2>The {escape(name)} set: <code>{escape(str(held['task']))}</code></h2>"
        f'<p class="note">{held["problems"]} test problems{context}.</p>{table(["", *labels], rows)}'
    )


def _fan(values: Mapping[str, Any], k: str) -> str:
    return _cell({"v": values["pass_at"][k]["mean"], "v_se": values["pass_at"][k]["se"]}, "v")


def _flips(values: Mapping[str, Any]) -> str:
    return f"{values['lost']}, {values['gained']}, {html_number(values['flip_p'])}"


def _relearning(measured: Mapping[str, Any], names: Sequence[str]) -> str:
    again = measured.get("relearn")
    if not again:
        return ""
    counts = [again["base"], *(held["relearn_steps"] for held in measured["checkpoints"])]
    shown = [f"{count}" if count <= again["most"] else f"more than {again['most']}" for count in counts]
    labels = ["base", *names]
    steps = row(f"steps to probability {again['level']:g}", list(zip(labels, shown, strict=True)))
    about = f"A copy learns <code>{escape(again['task'])}</code> from right answers, learning rate {again['lr']:g}."
    return f'<h2>Relearning</h2><p class="note">{about}</p>{table(["", *labels], [steps])}'


def _weights(measured: Mapping[str, Any], names: Sequence[str]) -> str:
    order = measured["checkpoints"][0]["weights_order"]
    rows = [
        row(
            escape(layer),
            [
                (label, html_number(held["weights"][layer]))
                for label, held in zip(names, measured["checkpoints"], strict=True)
            ],
        )
        for layer in order
    ]
    return f"<h2>Relative distance of weights</h2>{table(['', *names], rows)}"
