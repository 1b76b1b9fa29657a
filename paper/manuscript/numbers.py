"""Every number of the manuscript's text, by name, each with the record that it was read from.

The Typst sources hold no measured or counted number: ``n("checks.instances")`` there is an entry here. A name that is
not here stops the build.
"""

from __future__ import annotations

import inspect
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import fstsim
import fstsim.llm
from fstsim.intervals import LEVEL
from fstsim.paper.experiments.numbers import speed_up
from fstsim.paper.experiments.reference import PAPER
from fstsim.paper.manuscript.prose import readable
from fstsim.paper.manuscript.tables import Cells
from fstsim.paper.records.verdict_summary import pretrained_folders
from fstsim.records import read_json, read_rows
from fstsim.theory import ALL_STATEMENTS, METHOD_TABLE

BASE = Path(fstsim.llm.__file__).with_name("base")


@dataclass(frozen=True)
class Number:
    """A number as it is printed, and the record (a path below the repository, or a name in the code) that says so."""

    text: str
    source: str


def _named(source: str, values: Mapping[str, object]) -> dict[str, Number]:
    return {key: Number(readable(str(value)), source) for key, value in values.items()}


def statement_numbers(data: Path) -> dict[str, Number]:
    """How many statements there are, of which kind, and what the recorded search for violations found."""
    status, kind = Counter(s.status for s in ALL_STATEMENTS), Counter(s.kind for s in ALL_STATEMENTS)
    found = _named(
        "fstsim.theory.ALL_STATEMENTS",
        {
            "statements.count": len(ALL_STATEMENTS),
            "statements.proved": status["T"],
            "statements.asymptotic": status["A"],
            "statements.numeric": status["N"],
            "statements.bounds": kind["bound"],
            "statements.identities": kind["identity"],
            "statements.approximations": kind["approximation"],
            "statements.methods": len(METHOD_TABLE),
        },
    )
    record = read_json(data / "checks.json")
    checks = record["checks"]
    tried = [c for c in checks if c["kind"] != "approximation"]
    return found | _named(
        "paper/data/checks.json",
        {
            "checks.instances": f"{sum(c['examples'] for c in tried):,}",
            "checks.violations": sum(c["violations"] for c in tried),
            "checks.statements": len(tried),
            "checks.most": f"{max(c['examples'] for c in checks):,}",
            "checks.least": min(c["examples"] for c in checks),
            "checks.seed": record["seed"],
            "checks.date": record["date"],
            "checks.commit": record["environment"]["commit"][:12],
            "checks.python": record["environment"]["python"],
            "checks.numpy": record["environment"]["versions"]["numpy"],
            "checks.scipy": record["environment"]["versions"]["scipy"],
        },
    )


def parameters(model: Path) -> int:
    """Weights in a safetensors file, from its header."""
    with model.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    count = 0
    for name, tensor in header.items():
        if name != "__metadata__":
            size = 1
            for length in tensor["shape"]:
                size *= length
            count += size
    return count


def base_numbers() -> dict[str, Number]:
    """The base model: its size, its training and what it can do before any run."""
    config, last = read_json(BASE / "config.json"), read_rows(BASE / "metrics.jsonl")[-1]
    sizes = _named(
        "llm/base/config.json",
        {
            "base.layers": config["num_hidden_layers"],
            "base.width": config["hidden_size"],
            "base.vocabulary": config["vocab_size"],
        },
    )
    skills = {f"base.{key}": f"{value:.2f}" for key, value in last.items() if "_" in key}
    trained = {"base.steps": last["step"], "base.minutes": f"{last['seconds'] / 60:.1f}"}
    return (
        sizes
        | _named("llm/base/model.safetensors", {"base.parameters": f"{parameters(BASE / 'model.safetensors'):,}"})
        | _named("llm/base/environment.json", {"base.cores": read_json(BASE / "environment.json")["cores"]})
        | _named("llm/base/metrics.jsonl", skills | trained)
    )


def setting_numbers(data: Path) -> dict[str, Number]:
    """Settings of the experiments, from the configurations in the run directories."""
    runs = data / "experiments" / "runs"
    config: dict[str, Any] = read_json(runs / "strings-easy-fst" / "seed-0" / "config.json")
    slow, fast, probe = config["learner"], config["fast"], config["probe"]
    found = _named(
        "paper/data/experiments/runs/strings-easy-fst/seed-0/config.json",
        {
            "settings.problems": slow["problems"],
            "settings.rollouts": slow["rollouts"],
            "settings.cap": f"{slow['ratio_cap']:g}",
            "settings.steps": config["steps"],
            "settings.round": config["slow_steps_per_round"],
            "settings.contexts": fast["contexts"],
            "settings.budget": fast["rollout_budget"],
            "settings.probe": probe["problems"],
            "settings.lr_fst": f"{config['lr']:g}",
        },
    )
    other = read_json(runs / "strings-easy-rl" / "seed-0" / "config.json")
    found |= _named(
        "paper/data/experiments/runs/strings-easy-rl/seed-0/config.json", {"settings.lr_rl": f"{other['lr']:g}"}
    )
    share = inspect.signature(speed_up).parameters["share"].default
    found |= _named("fstsim.paper.experiments.numbers.speed_up", {"settings.share": f"{100 * share:g} %"})
    found |= _named("fstsim.intervals.LEVEL", {"settings.level": f"{100 * LEVEL:.3g} %"})
    for room in ("experiments", "validation"):
        seeds = [path.parent for path in (data / room / "runs").glob("*/seed-*/summary.json")]
        count = max((len(list(path.parent.glob("seed-*"))) for path in seeds), default=0)
        found |= _named(
            f"paper/data/{room}/runs",
            {
                f"{room}.runs": len(seeds),
                f"{room}.settings": len({path.parent for path in seeds}),
                f"{room}.seeds": count,
                f"{room}.hours": f"{sum(read_json(p / 'summary.json')['seconds'] for p in seeds) / 3600:.1f}",
            },
        )
    return found


def verdict_numbers(data: Path) -> dict[str, Number]:
    """How the predictions came out; one row's numbers are in the table, not here: rows come and go with the record."""
    judged = read_json(data / "validation" / "validation.json")
    count = Counter(row["verdict"] for row in judged)
    folders = pretrained_folders(data)
    pretrained = [row["verdict"] for folder in folders for row in read_json(folder / "validation.json")]
    written = read_json(data / "validation" / "predictions.json")
    model = read_json(folders[0] / "predictions.json")["model"] if folders else "none recorded"
    found = _named(
        "paper/data/validation/validation.json",
        {
            "verdicts.count": len(judged),
            "verdicts.confirmed": count["confirmed"],
            "verdicts.falsified": count["falsified"],
            "verdicts.undecided": count["undecided"],
            "verdicts.statements": len({row["statement"] for row in judged}),
        },
    )
    found |= _named(
        "paper/data/validation-smollm2/validation.json",
        {"pretrained.count": len(pretrained), "pretrained.model": model}
        | {f"pretrained.{verdict}": pretrained.count(verdict) for verdict in ("confirmed", "falsified", "undecided")},
    )
    return found | _named(
        "paper/data/validation/predictions.json",
        {"verdicts.scale": written["scale"], "verdicts.written": len(written["predictions"])},
    )


def reference_numbers() -> dict[str, Number]:
    """What 2605.12484 reports, to be held against ours."""
    rl, fst = PAPER["speed"], PAPER["asymptote"]
    pairs = {f"reference.speed.{task}": f"{value:g}" for task, value in rl.items()}
    pairs |= {
        f"reference.{m}.{task}": f"{pair[k]:g}" for task, pair in fst.items() for k, m in enumerate(("fst", "rl"))
    }
    cells = zip(("neither", "weights", "context", "both"), PAPER["decomposition"]["HoVer-hard"], strict=True)
    pairs |= {f"reference.{cell}": f"{value:g}" for cell, value in cells}
    pairs |= {
        f"reference.plasticity.{task.split()[-1]}.{start}": f"{value:g}"
        for task, values in PAPER["plasticity"].items()
        for start, value in zip(("base", "rl", "fst"), values, strict=True)
    }
    return _named(
        "fstsim.paper.experiments.reference.PAPER (2605.12484)",
        pairs | {"reference.kl_reduction": f"{100 * PAPER['kl_reduction']:g} %"},
    )


def cell_numbers(tables: Mapping[str, Cells]) -> dict[str, Number]:
    """Every cell of the tables of experiments, as ``TABLE/ROW/COLUMN``; a row is called by as many first cells as it needs."""
    return {
        f"{name}/{', '.join(row[: table.names])}/{column}": Number(row[k], table.source)
        for name, table in tables.items()
        for row in table.rows
        for k, column in enumerate(table.header)
        if k >= table.names
    }


def all_numbers(data: Path, tables: Mapping[str, Cells]) -> dict[str, Number]:
    """All numbers by name; InputError where a record is missing."""
    return (
        _named("fstsim.__version__", {"code.version": fstsim.__version__})
        | statement_numbers(data)
        | base_numbers()
        | setting_numbers(data)
        | verdict_numbers(data)
        | reference_numbers()
        | cell_numbers(tables)
    )


def as_json(numbers: Mapping[str, Number]) -> dict[str, dict[str, str]]:
    """For ``json()`` of Typst, and for readers who ask where a number comes from."""
    return {name: asdict(number) for name, number in sorted(numbers.items())}
