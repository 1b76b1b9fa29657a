"""`fstsim reproduce`: everything that the report shows."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from fstsim.errors import InputError
from fstsim.front.command import CONTINUE, Directory, check_numbers
from fstsim.front.console import Progress, complain, show
from fstsim.front.tables import check_summary, section_table, verdict_table
from fstsim.records import environment, plain, prepare_directory, working_in, write_json

_PRETRAINED = "smollm2"
"""Model that is validated too, by its quick chapters, where `fstsim model` has put it into the cache."""


@dataclass(frozen=True)
class Reproduce:
    """Check every statement, draw every figure, run and judge the smoke runs, and write report.html with all of them."""

    out: Directory = Path("out")
    """directory for report.html, checks.json, environment.json and figures/"""
    examples: int = 1000
    """random instances of each statement"""
    seed: int = 0
    """seed of the instances"""
    skip_models: bool = False
    """leave out the language models: simulator and theory alone take two minutes"""
    stopped: ClassVar[str] = CONTINUE

    def run(self) -> int:
        """All of it; 1 if a statement was violated."""
        check_numbers(self.examples, self.seed)
        with working_in(self.out):
            return self._reproduce()

    def _reproduce(self) -> int:
        prepare_directory(self.out / "figures")
        from fstsim.paper.figures.catalogue import FIGURES
        from fstsim.paper.report.report import write_report
        from fstsim.paper.report.workers import work_through
        from fstsim.theory import ALL_STATEMENTS, SECTIONS

        # figures first: each takes as long as ten statements, and the cores should end together
        figure_share = 10
        pieces = [("figure", name) for name in FIGURES] + [("check", statement.slug) for statement in ALL_STATEMENTS]
        found: dict[str, dict[str, Any]] = {}
        paths: list[Path] = []
        total = len(ALL_STATEMENTS) + figure_share * len(FIGURES)
        with contextlib.closing(Progress("reproduce", total, "parts")) as progress:
            progress.add(0, "starting")
            for (kind, name), result in work_through(pieces, self.out / "figures", self.examples, self.seed):
                if kind == "figure":
                    paths += result
                else:
                    found[name] = result
                progress.add(figure_share if kind == "figure" else 1, f"{kind} {name}")
        sections: dict[str, list[dict[str, Any]]] = {}
        section_of = {statement.slug: name for name, section in SECTIONS for statement in section}
        for statement in ALL_STATEMENTS:
            sections.setdefault(section_of[statement.slug], []).append(found[statement.slug])
        checks = [found[statement.slug] for statement in ALL_STATEMENTS]
        write_json(self.out / "checks.json", plain(checks))
        record = environment(self.seed)
        write_json(self.out / "environment.json", record)
        models = "" if self.skip_models else self._models()
        report = write_report(self.out, list(FIGURES.values()), checks, record, models)
        show(section_table(sections), check_summary(checks))
        show(f"{len(paths)} figure files in {self.out / 'figures'}, {self.out / 'checks.json'}; open {report}")
        return int(any(check["violations"] for check in checks))

    def _models(self) -> str:
        """Smoke experiments and smoke validation; what is finished in ``out`` is not run again."""
        from transformers.utils import logging

        from fstsim.llm.experiments import CORE
        from fstsim.llm.experiments.run import run_all
        from fstsim.llm.policy.pretrained import cached_path
        from fstsim.llm.validation.language import QUICK
        from fstsim.llm.validation.validate import CHAPTERS, LATER
        from fstsim.paper.report.models import model_section

        logging.disable_progress_bar()
        planned, seeds = CORE.runs("smoke"), 3
        with contextlib.closing(Progress("fast-slow training", len(planned) * seeds, "runs")) as progress:
            progress.add(0, "starting")
            for what, failure in run_all(planned, seeds, self.out / "experiments"):
                if failure:  # the report is written of what there is
                    complain(f"error: {what}: {failure}")
                else:
                    progress.add(1, what)
        self._validate("base", seeds, "validation", [name for name in CHAPTERS if name not in LATER])
        if cached_path(_PRETRAINED).is_dir():
            try:
                self._validate(_PRETRAINED, seeds, f"validation-{_PRETRAINED}", QUICK)
            except InputError as error:  # not enough memory for it, say: the rest needs it not
                complain(f"left out: {error}")
        return model_section(self.out / "experiments", self.out / "validation")

    def _validate(self, model: str, seeds: int, folder: str, chapters: Sequence[str]) -> None:
        """Smoke validation of a model by these chapters."""
        from fstsim.llm.validation.validate import validate

        events = validate("smoke", model, seeds, self.out / folder, only=chapters)
        first = next(events)
        with contextlib.closing(Progress(f"validation of {model}", first.runs, "runs")) as progress:
            progress.add(0, first.what)
            for event in events:
                if event.judged:
                    show(verdict_table(event.judged))
                elif event.failed:
                    complain(f"error: {event.what}")
                else:
                    progress.add(1, event.what)
