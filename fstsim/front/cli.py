"""The commands of the simulator and the theory: what each flag is, and what happens. Parsed by `fstsim.__main__`."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol

import tyro

from fstsim.errors import InputError
from fstsim.front import console
from fstsim.front.console import Progress, complain, show
from fstsim.records import environment, plain, prepare_directory, read_rows, write_json
from fstsim.simulation_run import SimulationConfig, run_simulation
from fstsim.sweep import Backend, SweepConfig, run_sweep

AGAIN = "stopped; start again with"
CONTINUE = "stopped; everything up to the last checkpoint is kept, continue with"
_MOST_EXAMPLES = 100_000_000

Directory = Annotated[Path, tyro.conf.arg(metavar="DIR")]
_Names = Annotated[tuple[str, ...], tyro.conf.arg(metavar="[NAME ...]", help_behavior_hint="(default: all)")]
_Address = Annotated[str | None, tyro.conf.arg(metavar="ADDRESS", help_behavior_hint="(default: a new ray cluster)")]
_Slug = Annotated[str | None, tyro.conf.arg(metavar="SLUG", help_behavior_hint="(default: all)")]


class Command(Protocol):
    """A subcommand: its flags are its fields; ``stopped`` is said when it is interrupted."""

    stopped: ClassVar[str]

    def run(self) -> int:
        """Do it; returns the exit code."""
        ...


def _check_numbers(examples: int, seed: int) -> None:
    if not 1 <= examples <= _MOST_EXAMPLES:
        raise InputError(f"examples must lie in 1..{_MOST_EXAMPLES}, got {examples}")
    if seed < 0:
        raise InputError(f"seed must be at least 0, got {seed}")


@dataclass(frozen=True)
class Reproduce:
    """Check every statement, draw every figure, and write report.html with all of them."""

    out: Directory = Path("out")
    """directory for report.html, checks.json, environment.json and figures/"""
    examples: int = 1000
    """random instances of each statement"""
    seed: int = 0
    """seed of the instances"""
    skip_models: bool = False
    """leave out the language models: the simulator and the theory alone, two minutes instead of ten"""
    stopped: ClassVar[str] = CONTINUE

    def run(self) -> int:
        """All of it; 1 if a statement was violated."""
        _check_numbers(self.examples, self.seed)
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
        show(console.section_table(sections), console.check_summary(checks))
        show(f"{len(paths)} figure files in {self.out / 'figures'}, {self.out / 'checks.json'}; open {report}")
        return int(any(check["violations"] for check in checks))

    def _models(self) -> str:
        """Smoke experiments and smoke validation; what is finished in ``out`` is not run again."""
        from transformers.utils import logging

        from fstsim.llm.experiments import CORE
        from fstsim.llm.experiments.run import run_all
        from fstsim.llm.validation.validate import validate
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
        events = validate("smoke", "base", seeds, self.out / "validation")
        first = next(events)
        with contextlib.closing(Progress("validation", first.runs, "runs")) as progress:
            progress.add(0, first.what)
            for event in events:
                if event.judged:
                    show(console.verdict_table(event.judged))
                elif event.failed:
                    complain(f"error: {event.what}")
                else:
                    progress.add(1, event.what)
        return model_section(self.out / "experiments", self.out / "validation")


@dataclass(frozen=True)
class Figures:
    """Draw the figures NAME ..., or all of them, as PNG and PDF."""

    names: tyro.conf.Positional[_Names] = ()
    """figures to draw; an unknown name lists those that exist"""
    out: Directory = Path("out/figures")
    """directory to write in"""
    stopped: ClassVar[str] = AGAIN

    def run(self) -> int:
        """Draw them."""
        from fstsim.paper.figures.catalogue import FIGURES, save_figure

        unknown = [name for name in self.names if name not in FIGURES]
        if unknown:
            raise InputError(f"figure {unknown[0]!r} is unknown; allowed: {', '.join(FIGURES)}")
        prepare_directory(self.out)
        wanted = [FIGURES[name] for name in dict.fromkeys(self.names or FIGURES)]
        drawn = []
        with contextlib.closing(Progress("figures", len(wanted), "figures")) as progress:
            for figure in wanted:
                progress.add(0, figure.name)
                drawn.append((figure.name, figure.title, save_figure(figure, self.out)))
                progress.add(1)
        show(console.figure_table(drawn))
        return 0


@dataclass(frozen=True)
class Check:
    """Look for violations of the statements on random instances; exit code 1 if there is one."""

    examples: int = 2000
    """random instances of each statement"""
    statement: _Slug = None
    """check this one only; an unknown one lists those that exist"""
    json: bool = False
    """print JSON and nothing else"""
    seed: int = 0
    """seed of the instances"""
    stopped: ClassVar[str] = AGAIN

    def run(self) -> int:
        """Check them."""
        _check_numbers(self.examples, self.seed)
        from fstsim.theory import ALL_STATEMENTS, check_statement, examples_of, find_statements

        statements = ALL_STATEMENTS if self.statement is None else find_statements(self.statement)
        total = sum(examples_of(statement, self.examples) for statement in statements)
        checks = []
        with contextlib.closing(Progress("check", total, "examples")) as progress:
            for statement in statements:
                slug = statement.slug
                progress.add(0, slug)
                more = lambda k, slug=slug: progress.add(k, slug)  # noqa: E731
                checks.append(check_statement(statement, self.examples, self.seed, more).to_dict())
        if self.json:
            print(json.dumps(plain(checks), indent=2))
        else:
            show(console.check_table(checks), console.check_summary(checks))
        return int(any(check["violations"] for check in checks))


@dataclass(frozen=True)
class Simulate:
    """Run the two-mode simulator once, or continue a run that was stopped; writes a run directory."""

    config: tyro.conf.OmitArgPrefixes[SimulationConfig]
    out: Directory = Path("out/simulation")
    """run directory; a run that is in it already is continued or only shown"""
    stopped: ClassVar[str] = CONTINUE

    def run(self) -> int:
        """Run it; 1 if it diverged."""
        progress = Progress("simulate", self.config.steps, "steps")
        with contextlib.closing(progress):
            try:
                trajectory = run_simulation(
                    self.config, self.out, lambda k, mass: progress.at(k, f"old mass {mass:.3g}")
                )
            except RuntimeError as error:
                complain(f"error: {error}; end it earlier or use another geometry")
                return 1
        from fstsim.paper.records.run_picture import save_run_picture

        picture = save_run_picture(self.config, trajectory, self.out / "picture.png")
        rows = read_rows(self.out / "metrics.jsonl")
        show(
            console.run_table(rows, f"{self.out}: {trajectory.status}, {trajectory.steps:,} steps"),
            f"picture: {picture}",
        )
        if trajectory.status != "completed":
            complain("error: a learner left the domain of the simulator: lower --lr")
            return 1
        return 0


@dataclass(frozen=True)
class Sweep:
    """Run a grid of simulations on all cores or on a cluster, or continue one that was stopped."""

    config: tyro.conf.OmitArgPrefixes[SweepConfig]
    out: Directory = Path("out/sweep")
    """directory of the sweep; its table.jsonl has one row a trajectory"""
    backend: Backend = "loky"
    """where the work is done: processes, threads, this process, or a dask or ray cluster"""
    jobs: int = -1
    """workers; -1 uses every core"""
    address: _Address = None
    """address of the dask scheduler, which dask needs, or of the ray cluster"""
    stopped: ClassVar[str] = CONTINUE

    def run(self) -> int:
        """Run them."""
        with contextlib.closing(Progress("sweep", self.config.size, "trajectories")) as progress:
            table = run_sweep(self.config, self.out, self.backend, self.jobs, self.address, progress.add)
        from fstsim.paper.records.sweep_picture import save_sweep_picture

        rows = read_rows(table)
        picture = save_sweep_picture(rows, self.out / "picture.png")
        show(console.sweep_table(rows, str(table)), f"picture: {picture}")
        return 0


@dataclass(frozen=True)
class Explore:
    """Write a page, for any browser and without a server, in which the parameters are moved by hand."""

    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("out/explorer.html")
    """file to write"""
    stopped: ClassVar[str] = AGAIN

    def run(self) -> int:
        """Write it."""
        if self.out.is_dir():
            raise InputError(f"{self.out} is a directory: --out must name a file")
        from fstsim.paper.report.explorer import write_explorer

        prepare_directory(self.out.parent)
        show(f"open {write_explorer(self.out)}")
        return 0
