"""`fstsim validate`: predictions, runs, verdicts. torch is imported when it runs."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

from fstsim.cluster import check_answers
from fstsim.front.command import CONTINUE, Address, Directory, check_jobs, check_seeds, in_own_directory, quiet
from fstsim.front.console import Progress, complain, show
from fstsim.front.tables import verdict_table

_Chapters = Annotated[
    tuple[str, ...], tyro.conf.arg(metavar="CHAPTER [CHAPTER ...]", help_behavior_hint="(default: all)")
]


@dataclass(frozen=True)
class Validate:
    """Predict from the base model, write the predictions down, run, and print a verdict on each."""

    preset: Literal["smoke", "small", "paper"] = "smoke"
    """smoke: minutes on 2 cores; small: an hour; paper: for a GPU"""
    model: str = "base"
    """the shipped base model, another one that fstsim pretrain has made, or a chat model, which is tested on the language suite"""
    seeds: int = 3
    """seeds of every run; a verdict needs at least 3"""
    out: Directory = Path("out/validation")
    """directory for predictions.json, validation.json and runs/"""
    jobs: int = -1
    """runs at a time, one thread each; -1 uses every core, or every worker"""
    backend: Literal["loky", "dask"] = "loky"
    """where runs are made: in processes of this machine (loky), or one a worker on a dask cluster that shares the directory"""
    address: Address = None
    """address of the dask scheduler"""
    device: str = "cpu"
    """torch device; auto is cuda where there is one, on a cluster what its workers have"""
    adapter: str = ""
    """adapter that every run trains in place of all weights, as lora:r=16, at ten times the learning rate; the predictions are the same"""
    precision: Literal["float32", "bfloat16"] = "float32"
    """of activations while weights are trained; predictions and measurements are in float32 always"""
    only: _Chapters = ()
    """make the runs of these chapters only (dead-groups, replay, ...; of chat models language-replay, ...); an unknown name lists those that exist"""
    stopped: ClassVar[str] = CONTINUE

    @in_own_directory
    def run(self) -> int:
        """Run what is not finished, then judge."""
        check_seeds(self.seeds)
        check_jobs(self.jobs)
        check_answers(self.backend, self.address)
        from fstsim.llm.experiments.spread import runs_on
        from fstsim.llm.validation.validate import Trained, validate

        quiet()
        last: Any = None
        failed = False
        with runs_on(self.backend, self.address, self.jobs, self.out, self.device, complain) as (jobs, device):
            trained = Trained(device, self.adapter, self.precision)
            events = validate(self.preset, self.model, self.seeds, self.out, jobs, self.only, trained)
            first = next(events)
            with contextlib.closing(Progress("validate", first.runs, "runs")) as progress:
                progress.add(0, first.what)
                for last in events:
                    if last.failed:
                        complain(f"error: {last.what}")
                        failed = True
                    elif not last.judged:
                        progress.add(1, last.what)
        show(
            verdict_table(last.judged),
            f"{self.out / 'predictions.json'} was written before the runs; {self.out / 'validation.json'}",
        )
        return int(failed)
