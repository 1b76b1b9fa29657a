"""`fstsim sweep`: a grid of simulations."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import tyro

from fstsim.cluster import check_answers
from fstsim.front.command import CONTINUE, Address, Directory, check_jobs, in_own_directory
from fstsim.front.console import Progress, complain, show
from fstsim.front.tables import sweep_table
from fstsim.records import read_rows
from fstsim.sweep import Backend, SweepConfig, run_sweep


@dataclass(frozen=True)
class Sweep:
    """Run a grid of simulations on all cores or on a cluster, or continue one that was stopped."""

    config: tyro.conf.OmitArgPrefixes[SweepConfig]
    out: Directory = Path("out/sweep")
    """directory of the sweep; table.jsonl in it has one row for each trajectory"""
    backend: Backend = "loky"
    """where the work is done: in processes (loky), in threads, in this process (sequential), or on a dask cluster"""
    jobs: int = -1
    """number of workers; -1 uses every core"""
    address: Address = None
    """address of the dask scheduler"""
    stopped: ClassVar[str] = CONTINUE

    @in_own_directory
    def run(self) -> int:
        """Run them."""
        check_jobs(self.jobs)
        check_answers(self.backend, self.address)
        with contextlib.closing(Progress("sweep", self.config.size, "trajectories")) as progress:
            table = run_sweep(self.config, self.out, self.backend, self.jobs, self.address, progress.add, complain)
        from fstsim.paper.records.sweep_picture import save_sweep_picture

        rows = read_rows(table)
        picture = save_sweep_picture(rows, self.out / "picture.png")
        show(sweep_table(rows, str(table)), f"picture: {picture}")
        return 0
