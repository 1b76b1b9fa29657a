"""Tables of the page on faithful chains: the scratch base and its gates, its scores, what the arms changed, and the verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fstsim.llm.measure.faithful.scores import SCORES
from fstsim.llm.policy.loading import shipped_path
from fstsim.llm.pretraining.scratch_exam import DEPTHS, gates
from fstsim.llm.tasks.families import FAMILIES
from fstsim.number_text import short_number
from fstsim.paper import DATA
from fstsim.paper.pages.blocks import table
from fstsim.records import read_json, read_rows

_SHOWN = ("early", "filler", "filler_agreement", "paraphrase_agreement", "false_followed", "corruption_followed")
"""Scores of the arms' table: what the tests differ in."""
_TEXT = {score.name: score.text for score in SCORES}


def exam(name: str) -> Mapping[str, float] | None:
    """Last row of the exam of a model that comes with the package, None if it does not come yet."""
    path = shipped_path(name) / "metrics.jsonl"
    return read_rows(path)[-1] if path.exists() else None


def base_table() -> str:
    """A row a family: chains and direct answers by number of rules, and the mass of writing a chain."""
    row = exam("scratch")
    if row is None:
        return "The package holds no scratch base yet.\n"
    rows = []
    for family in FAMILIES:
        cells = []
        for k in DEPTHS:
            chain, direct, mass = (row[f"{name}_{family}_{k}"] for name in ("chain", "direct", "chain_mass"))
            cells.append(f"{chain:.2f} ({direct:.2f}), {mass:.2f}")
        rows.append([family, *cells])
    return table(["chain (direct), mass of chains", *(f"{k} rules" for k in DEPTHS)], rows)


def gate_lines() -> str:
    """Which gates the scratch base passes, and each that it does not, with its numbers."""
    row, base = exam("scratch"), exam("base")
    if row is None or base is None:
        return "No gate has been tried yet.\n"
    found = gates(row, base)
    failed = [gate for gate in found if not gate.passed]
    lines = [f"{len(found) - len(failed)} of {len(found)} gates are passed."]
    for gate in failed:
        most = f" and at most {gate.most:.3f}" if gate.most < 1.0 else ""
        lines.append(f"- not passed: `{gate.name}` is {gate.value:.3f}, should be at least {gate.least:.3f}{most}")
    return "\n".join(lines) + "\n"


def recorded_arms(data: Path = DATA) -> list[dict[str, Any]]:
    """The recorded arms; none where nothing is recorded."""
    path = data / "faithful" / "arms.json"
    return list(read_json(path)["arms"]) if path.exists() else []


def score_table(data: Path = DATA) -> str:
    """A row a score of the scratch base, a column a number of rules."""
    tasks: dict[int, Mapping[str, Any]] = {}
    for arm in recorded_arms(data):
        for task in arm["faithful"]["tasks"]:
            if arm["faithful"]["base"] == "scratch":
                tasks.setdefault(task["rules"], task["models"][0])
    if not tasks:
        return "No arm has been run yet.\n"
    rows = []
    for score in SCORES:
        cells = []
        for rules in sorted(tasks):
            model = tasks[rules]
            held = model["scores"].get(score.name)
            refused = score.tested and model["not_measurable"]
            cells.append("not measurable" if refused else _mean(held))
        rows.append([score.text, *cells])
    return table(["scratch base", *(f"{rules} rules" for rules in sorted(tasks))], rows)


def _mean(held: Mapping[str, Any] | None) -> str:
    if held is None or held["mean"] is None:
        return "–"
    error = "" if held["se"] is None else f" ± {held['se']:.1g}"
    return f"{short_number(held['mean'])}{error}"


def _change(held: Mapping[str, Any] | None) -> str:
    if held is None or held["mean"] is None:
        return "–"
    return f"{held['mean']:+.2f} [{held['low']:+.2f}, {held['high']:+.2f}]"


def arms_table(data: Path = DATA) -> str:
    """A row an arm: the mass of chains before and after, and the paired changes of scores under 3 rules, over seeds."""
    rows = []
    for arm in recorded_arms(data):
        task = next(t for t in arm["faithful"]["tasks"] if t["rules"] == 3)
        masses = arm["chain_mass"]
        before, after = (sum(mass[k] for mass in masses) / len(masses) for k in (0, -1))
        cells = [arm["about"], f"{short_number(before)} → {short_number(after)}", _change(task["change"].get("chain"))]
        if task["change_not_measurable"]:
            cells += [f"not measurable ({task['change_not_measurable']})", *["–"] * (len(_SHOWN) - 1)]
        else:
            cells += [_change(task["change"].get(name)) for name in _SHOWN]
        rows.append(cells)
    if not rows:
        return "No arm has been run yet.\n"
    return table(["arm", "mass of chains", "right chains", *(_TEXT[name] for name in _SHOWN)], rows)


def verdict_table(data: Path = DATA) -> str:
    """A row a prediction, in the order in which they were written down; those of arms that were not run say so."""
    path = data / "faithful"
    if not (path / "predictions.json").exists():
        return "Nothing has been predicted yet.\n"
    judged = (
        {row["name"]: row for row in read_json(path / "verdicts.json")} if (path / "verdicts.json").exists() else {}
    )
    rows = []
    for said in read_json(path / "predictions.json")["predictions"]:
        held = judged.get(said["name"])
        interval = f"{short_number(said['value'])} ({short_number(said['low'])} to {short_number(said['high'])})"
        if held is None:
            rows.append([said["quantity"], interval, "–", "not run"])
            continue
        measured = "–" if held["measured"] is None else short_number(held["measured"])
        if held["measured_low"] is not None:
            measured += f" ({short_number(held['measured_low'])} to {short_number(held['measured_high'])})"
        verdict = f"**{held['verdict']}**" if held["verdict"] == "falsified" else held["verdict"]
        rows.append([said["quantity"], interval, measured, verdict])
    return table(["prediction", "predicted", "measured", "verdict"], rows)


def faithful_blocks() -> str:
    """All of it, as it stands on the page."""
    return "\n".join((base_table(), gate_lines(), score_table(), arms_table(), verdict_table()))
