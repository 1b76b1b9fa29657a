"""`fstsim simulate`: one run of the two-mode simulator."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import tyro

from fstsim.front.command import CONTINUE, Directory, in_own_directory
from fstsim.front.console import Progress, complain, show
from fstsim.front.tables import run_table
from fstsim.records import read_rows
from fstsim.simulation_run import SimulationConfig, run_simulation


@dataclass(frozen=True)
class Simulate:
    """Run the two-mode simulator once, or continue a run that was stopped; writes a run directory."""

    config: tyro.conf.OmitArgPrefixes[SimulationConfig]
    out: Directory = Path("out/simulation")
    """run directory; a run that it holds already is continued, or shown if it is finished"""
    stopped: ClassVar[str] = CONTINUE

    @in_own_directory
    def run(self) -> int:
        """Run it; 1 if it diverged."""
        progress = Progress("simulate", self.config.steps, "steps")
        with contextlib.closing(progress):
            try:
                trajectory = run_simulation(
                    self.config, self.out, lambda k, mass: progress.at(k, f"old mass {mass:.3g}")
                )
            except RuntimeError as error:
                complain(f"error: {error}; take fewer --steps or another --geometry")
                return 1
        from fstsim.paper.records.run_picture import save_run_picture

        picture = save_run_picture(self.config, trajectory, self.out / "picture.png")
        rows = read_rows(self.out / "metrics.jsonl")
        show(
            run_table(rows, f"{self.out}: {trajectory.status}, {trajectory.steps:,} steps"),
            f"picture: {picture}",
        )
        if trajectory.status != "completed":
            complain("error: a learner left the domain of the simulator: lower --lr")
            return 1
        return 0
