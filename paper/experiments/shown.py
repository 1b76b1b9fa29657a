"""What each experiment shows: its tables and its figures. Command line, report and manuscript read `SHOWN`, and only that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from fstsim.llm.experiments import (
    CALIBRATE,
    CONTINUAL,
    CORE,
    DISTILL,
    FORGETTING,
    PLASTICITY,
    REFLECTORS,
    REUSE,
    SYSTEMS,
    ZERO,
)
from fstsim.llm.experiments.experiment import Experiment
from fstsim.llm.experiments.plan import Scale
from fstsim.paper.experiments import figures, forgetting, page, reflectors, systems, tables


@dataclass(frozen=True)
class Picture:
    """A figure of an experiment: ``draw(runs, path)`` writes a PNG, or nothing and returns None where there are no runs.

    ``page`` draws it as PDF at the width of a page, where it does not fit as it is on the screen.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[Path, Path], Path | None]
    manuscript: bool = False
    page: Callable[[Path, Path], Path | None] | None = None

    def draw_page(self, runs: Path, folder: Path) -> Path | None:
        """Draw it for the manuscript into ``folder``; None where there are no runs."""
        if self.page is None:
            return self.draw(runs, folder / f"{self.name}.png")
        return self.page(runs, folder / f"{self.name}.pdf")


@dataclass(frozen=True)
class Shown:
    """What an experiment shows: ``tables(runs)``, called ``names``, and its figures."""

    experiment: Experiment
    names: tuple[str, ...]
    tables: Callable[[Path], Sequence[Table]]
    pictures: tuple[Picture, ...] = ()
    preset: Scale = "small"
    """size of the runs that are recorded"""

    @property
    def command(self) -> str:
        """What makes its runs."""
        return f"fstsim experiment {self.experiment.name}"


def _one(table: Callable[[Path], Table]) -> Callable[[Path], Sequence[Table]]:
    return lambda runs: [table(runs)]


SHOWN = (
    Shown(
        CORE,
        ("speed", "end", "kl", "cells", "running"),
        tables.core_tables,
        (
            Picture(
                "core",
                "Fast-slow training against RL and GEPA",
                "Reward on held-out problems against the samples of both channels, and against the distance of the weights from the base in the "
                "contexts that they work in. Bands: two standard errors over seeds.",
                figures.draw_core,
                manuscript=True,
                page=page.draw_core,
            ),
            Picture(
                "decomposition",
                "What weights and context carry",
                "Success with the base's or the trained weights and with the empty or the evolved context: exact probabilities on 256 test problems.",
                figures.draw_decomposition,
                manuscript=True,
                page=page.draw_decomposition,
            ),
        ),
    ),
    Shown(CALIBRATE, ("calibration",), _one(tables.calibration_table)),
    Shown(
        CONTINUAL,
        ("continual",),
        _one(tables.continual_table),
        (
            Picture(
                "continual",
                "Three families in one uninterrupted run",
                "Reward on each task of the sequence; dotted lines are the switches.",
                figures.draw_continual,
                manuscript=True,
            ),
        ),
    ),
    Shown(
        ZERO,
        ("zero",),
        _one(tables.zero_table),
        (
            Picture(
                "zero",
                "From next to no reward",
                "A star graph that words do not solve: reward against samples at every learning rate. Bands: two standard errors over seeds.",
                figures.draw_zero,
            ),
        ),
    ),
    Shown(
        PLASTICITY,
        ("plasticity",),
        _one(tables.plasticity_table),
        (
            Picture(
                "plasticity",
                "Fresh RL from trained weights",
                "Reward on a second task, from the base and from the ends of RL and of fast-slow training on a first one.",
                figures.draw_plasticity,
            ),
        ),
    ),
    Shown(DISTILL, ("distill",), _one(tables.distill_table)),
    Shown(
        REUSE,
        ("reuse",),
        _one(tables.reuse_table),
        (
            Picture(
                "reuse",
                "Slow steps that use the fast rounds' rollouts",
                "Reward on held-out problems against the samples of both channels, with and without reuse. Bands: two standard errors over seeds.",
                figures.draw_reuse,
                manuscript=True,
            ),
        ),
    ),
    Shown(
        REFLECTORS,
        ("reflectors",),
        _one(reflectors.reflectors_table),
        (
            Picture(
                "reflectors",
                "A frozen reflector beside the policy as its own",
                "Reward on held-out problems after the first fast round and one slow step of each task of a sequence, one point a seed, bars at the means: whether the words "
                "for a new task are still found after training on others, by the policy itself and by the base that it was.",
                reflectors.draw_reflectors,
            ),
        ),
    ),
    Shown(
        SYSTEMS,
        ("systems",),
        _one(systems.systems_table),
        (
            Picture(
                "systems",
                "Everywhere that adaptation can be put",
                "Reward on held-out problems at the end of each run, against the KL of the deployed system from the bare base, against the old skills "
                "that are kept (marker: state removed; cross: state left on), and against rollouts and new demonstrations. Bars: two standard errors over seeds.",
                systems.draw_systems,
            ),
        ),
        preset="smoke",
    ),
    Shown(
        FORGETTING,
        ("forgetting",),
        _one(forgetting.forgetting_table),
        (
            Picture(
                "forgetting",
                "What forgetting follows",
                "Accuracy lost on old skills at every measurement of every run, against seven numbers that are said to predict it: KL in both directions on "
                "prompts of the new task and on prompts of old skills, without context; the distance of the weights; and what is lost of the old behaviour and of entropy.",
                forgetting.draw_forgetting,
            ),
        ),
        preset="smoke",
    ),
)
PICTURES = tuple(picture for shown in SHOWN for picture in shown.pictures)
