"""`fstsim experiment`: many runs, their figures and tables. torch is imported when it runs."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from fstsim.cluster import check_answers
from fstsim.front.command import CONTINUE, Address, Directory, check_jobs, check_seeds, in_own_directory, quiet
from fstsim.front.console import Progress, complain, show
from fstsim.llm.experiments import EXPERIMENTS
from fstsim.reading import understood

if TYPE_CHECKING:
    _Name = str
else:
    _Name = Annotated[
        Literal[(*(experiment.name for experiment in EXPERIMENTS), "all")],
        tyro.conf.arg(help="; ".join(f"{experiment.name}: {experiment.sentence}" for experiment in EXPERIMENTS)),
    ]


@dataclass(frozen=True)
class Experiment:
    """Run an experiment on fast-slow training, or continue it: run directories, figures and tables with intervals."""

    name: tyro.conf.Positional[_Name]
    preset: Literal["smoke", "small", "paper"] = "smoke"
    """smoke: one family, five minutes on 2 cores; small: three families, hours; paper: for a GPU"""
    seeds: int = 3
    """seeds of every run"""
    out: Directory = Path("out/experiments")
    """directory; run NAME with seed k is runs/NAME/seed-k in it"""
    jobs: int = -1
    """runs at a time, one thread each; -1 uses every core, or every worker"""
    backend: Literal["loky", "dask"] = "loky"
    """where runs are made: in processes of this machine (loky), or one a worker on a dask cluster that shares the directory"""
    address: Address = None
    """address of the dask scheduler"""
    device: str = "cpu"
    """torch device; auto is cuda where there is one, on a cluster what its workers have"""
    show: bool = False
    """run nothing: figures and tables of what is there, recorded runs for example"""
    stopped: ClassVar[str] = CONTINUE

    def run(self) -> int:
        """Run what is not finished; then figures and tables."""
        check_seeds(self.seeds)
        check_jobs(self.jobs)
        check_answers(self.backend, self.address)
        if self.show:
            from fstsim.llm.experiments.run import check_shown

            check_shown(self._chosen(), self.out)  # a directory that is not there is not made
        return self._work()

    def _chosen(self) -> list[Any]:
        return [experiment for experiment in EXPERIMENTS if self.name in (experiment.name, "all")]

    @in_own_directory
    def _work(self) -> int:
        from fstsim.llm.experiments.spread import runs_on

        quiet()
        chosen = self._chosen()
        if not self.show:
            with runs_on(self.backend, self.address, self.jobs, self.out, self.device, complain) as (jobs, device):
                for experiment in chosen:
                    if not self._made(experiment, jobs, device):
                        return 1
        show_experiments(self.out, [experiment.name for experiment in chosen])
        return 0

    def _made(self, experiment: Any, jobs: Any, device: str) -> bool:
        """Make the runs of an experiment that are not finished; False with one line where one fails."""
        from fstsim.llm.experiments import run as lab
        from fstsim.llm.experiments.calibrate import best_settings

        planned = lab.on_device(experiment.runs(self.preset, best_settings(self.out)), device)
        with contextlib.closing(
            Progress(f"experiment {experiment.name}", len(planned) * self.seeds, "runs")
        ) as progress:
            progress.add(0, "starting")
            for what, failure in lab.run_all(planned, self.seeds, self.out, jobs):
                if failure:
                    complain(f"error: {what}: {failure}")
                    return False
                progress.add(1, what)
        return True


def show_experiments(out: Path, names: Sequence[str]) -> None:
    """Figures and tables of experiments whose runs are there."""
    from fstsim.paper.experiments.shown import SHOWN

    for shown in SHOWN:
        if shown.experiment.name not in names:
            continue
        with understood(out):
            tables = shown.tables(out)
        show(*tables)
        for picture in shown.pictures:
            with understood(out):
                path = picture.draw(out, out / f"{picture.name}.png")
            if path is not None:
                show(f"picture: {path}")
