"""The last part of ``report.html``: configuration and environment of every run that its numbers come from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from fstsim.llm.runs.recorded import read_summary
from fstsim.paper import DATA
from fstsim.places import published
from fstsim.reading import check_object, understood
from fstsim.records import read_json


@dataclass(frozen=True)
class Source:
    """Directories of experiments and of a validation, as far as they exist, and what the report calls them.

    ``further`` are validations beside the first one: ``validation-NAME``, of other models or scales; only the first one has
    every chapter that the bridge is drawn from.
    """

    title: str
    experiments: Path
    validation: Path

    @property
    def further(self) -> list[Path]:
        """Validations beside the first one that have verdicts."""
        return sorted(path.parent for path in self.validation.parent.glob(f"{self.validation.name}-*/validation.json"))

    @property
    def folders(self) -> list[Path]:
        """All that hold runs."""
        return [path for path in (self.experiments, self.validation, *self.further) if (path / "runs").is_dir()]


def sources(experiments: Path, validation: Path, recorded: Path = DATA) -> list[Source]:
    """The recorded runs and the fresh ones; those that exist, each once."""
    found = [
        Source("Recorded runs", recorded / "experiments", recorded / "validation"),
        Source("Runs made with this report", experiments, validation),
    ]
    if experiments.resolve() == found[0].experiments.resolve() or validation.resolve() == found[0].validation.resolve():
        found = found[:1]
    return [s for s in found if s.folders]


def _environment_line(environment: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in environment.get("versions", {}).items())
    commit = (environment.get("commit") or "no commit")[:12] + (
        "+dirty" if str(environment.get("commit")).endswith("+dirty") else ""
    )
    parts = (
        f"commit {commit}",
        f"device {environment.get('device')}",
        f"{environment.get('cores')} cores",
        str(environment.get("platform")),
        f"Python {environment.get('python')}",
        versions,
    )
    return " · ".join(parts)


def _environment(seed: Path) -> str:
    path = seed / "environment.json"
    with understood(path):
        return _environment_line(check_object(path, read_json(path), {}))


def _block(path: Path, seeds: list[Path], number: Mapping[str, int]) -> str:
    with understood(path):
        return _run(path, seeds, number)


def _run(path: Path, seeds: list[Path], number: Mapping[str, int]) -> str:
    config = published(check_object(seeds[0] / "config.json", read_json(seeds[0] / "config.json"), {}))
    used = sorted({number[_environment(s)] for s in seeds if (s / "environment.json").exists()})
    seconds = sum(read_summary(s)["seconds"] for s in seeds if (s / "summary.json").exists())
    names = ", ".join(str(read_json(s / "config.json").get("seed", "?")) for s in seeds)
    what = f"{config.get('method', '?')} on {', '.join(config.get('tasks', ()))}, {config.get('steps', '?')} steps"
    config.pop("seed", None)
    text = escape(json.dumps(config, indent=1, sort_keys=True, ensure_ascii=False))
    where = f"environment {', '.join(map(str, used))}; " if used else ""
    return (
        f"<details><summary><code>{escape(path.name)}</code> {escape(what)}</summary>"
        f'<p class="note">Seeds {escape(names)}; {where}{seconds:.0f} s of computation in all; model {escape(str(config.get("model")))}.</p>'
        f'<div class="frame" tabindex="0"><pre>{text}</pre></div></details>'
    )


def _place(path: Path) -> str:
    """Below the repository where it lies there: no name of a machine's folder gets into the page."""
    return str(path.relative_to(DATA.parents[1])) if path.is_relative_to(DATA.parents[1]) else path.name


def runs_section(found: list[Source]) -> str:
    """One collapsible block a run, below the environments that they were made in; nothing where there are no runs."""
    parts = []
    for source in found:
        folders = [folder / "runs" for folder in source.folders]
        runs = {
            path: sorted(path.glob("seed-*"))
            for folder in folders
            for path in sorted(folder.iterdir())
            if path.is_dir()
        }
        runs = {path: seeds for path, seeds in runs.items() if seeds and (seeds[0] / "config.json").exists()}
        lines = [_environment(s) for seeds in runs.values() for s in seeds if (s / "environment.json").exists()]
        number = {line: k for k, line in enumerate(dict.fromkeys(lines), start=1)}
        listed = "".join(f"<li>{escape(line)}</li>" for line in number)
        blocks = "\n".join(_block(path, seeds, number) for path, seeds in runs.items())
        where = " and ".join(f"<code>{escape(_place(folder.parent))}</code>" for folder in folders)
        parts.append(
            f'<h3>{escape(source.title)}</h3><p>{len(runs)} runs in {where}. Environments:</p><ol class="note">{listed}</ol>\n{blocks}'
        )
    return "\n".join(parts)
