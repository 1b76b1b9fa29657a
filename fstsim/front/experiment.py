"""`fstsim experiment`: many runs, their figures and tables. torch is imported when it runs."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import tyro

from fstsim.errors import InputError
from fstsim.front.command import CONTINUE, Directory, quiet
from fstsim.front.console import Progress, complain, show
from fstsim.records import prepare_directory


@dataclass(frozen=True)
class Experiment:
    """Run an experiment on fast-slow training, or continue it: run directories, figures and tables with intervals."""

    name: tyro.conf.Positional[
        Literal["calibrate", "core", "continual", "zero", "plasticity", "distill", "reuse", "all"]
    ]
    """calibrate: declared sweep of learning rates and leashes; core: data efficiency, asymptote, reward against KL, 2 x 2;
    continual: three families in one run; zero: a star graph from next to no reward, at every learning rate; plasticity: fresh RL from trained weights; distill: context into weights;
    reuse: slow steps that use the fast rounds' rollouts"""
    preset: Literal["smoke", "small", "paper"] = "smoke"
    """smoke: one family, five minutes on 2 cores; small: three families, hours; paper: for a GPU"""
    seeds: int = 3
    """seeds of every run"""
    out: Directory = Path("out/experiments")
    """directory; run NAME with seed k is runs/NAME/seed-k in it"""
    jobs: int = -1
    """runs at a time, one thread each; -1 uses every core"""
    device: str = "cpu"
    """torch device"""
    show: bool = False
    """run nothing: figures and tables of what is there, recorded runs for example"""
    stopped: ClassVar[str] = CONTINUE

    def run(self) -> int:
        """Run what is not finished; then figures and tables."""
        if self.seeds < 1:
            raise InputError(f"seeds must be at least 1, got {self.seeds}")
        from fstsim.llm.experiments import plan as lab
        from fstsim.llm.policy.loading import check_device

        quiet()
        check_device(self.device)
        names = tuple(lab.EXPERIMENTS) if self.name == "all" else (self.name,)
        if self.show:
            lab.check_shown(names, self.out)
            prepare_directory(self.out)
        for name in () if self.show else names:
            chosen = lab.best_settings(self.out)
            planned = lab.on_device(lab.EXPERIMENTS[name](self.preset, chosen), self.device)
            with contextlib.closing(Progress(f"experiment {name}", len(planned) * self.seeds, "runs")) as progress:
                progress.add(0, "starting")
                for what, failure in lab.run_all(planned, self.seeds, self.out, self.jobs):
                    if failure:
                        complain(f"error: {what}: {failure}")
                        return 1
                    progress.add(1, what)
        show_experiments(self.out, names)
        return 0


def show_experiments(out: Path, names: tuple[str, ...]) -> None:
    """Figures and tables of experiments whose runs are there."""
    from fstsim.paper.experiments import figures as draw
    from fstsim.paper.experiments import tables

    pictures = {
        "core": ((draw.draw_core, "core.png"), (draw.draw_decomposition, "decomposition.png")),
        "continual": ((draw.draw_continual, "continual.png"),),
        "zero": ((draw.draw_zero, "zero.png"),),
        "plasticity": ((draw.draw_plasticity, "plasticity.png"),),
        "reuse": ((draw.draw_reuse, "reuse.png"),),
    }
    shown = {
        "calibrate": lambda: [tables.calibration_table(out)],
        "core": lambda: tables.core_tables(out),
        "continual": lambda: [tables.continual_table(out)],
        "zero": lambda: [tables.zero_table(out)],
        "plasticity": lambda: [tables.plasticity_table(out)],
        "distill": lambda: [tables.distill_table(out)],
        "reuse": lambda: [tables.reuse_table(out)],
    }
    for name in names:
        show(*shown[name]())
        for function, file in pictures.get(name, ()):
            path = function(out, out / file)
            if path is not None:
                show(f"picture: {path}")
