"""The experiments on fast-slow training: what each is about, and which runs it makes.

Runs are shared between experiments: a run has a name, a configuration and seeds, and lives in ``runs/NAME/seed-k``; what
is finished is only loaded. Tasks and settings are declared here, before any run; nothing is chosen afterwards. What an
experiment shows is declared in `fstsim.paper.experiments.shown`. Source: 2605.12484 (figures 1-7 there).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fstsim.llm.experiments.plan import Planned, Scale, Settings


@dataclass(frozen=True)
class Experiment:
    """An experiment: ``sentence`` says in a line what it is about; its runs are in the module of its name."""

    name: str
    sentence: str

    def runs(self, scale: Scale, chosen: Settings | None = None) -> list[Planned]:
        """Its runs at a scale; ``chosen[method]`` is the learning rate and the leash where the sweep decides them.

        The module, and torch with it, is imported here and not before: the command line's help reads names alone.
        """
        planned: list[Planned] = import_module(f"{__name__}.{self.name}").runs(scale, chosen)
        return planned


CORE = Experiment("core", "data efficiency, asymptote, reward against KL, 2 x 2")
CALIBRATE = Experiment("calibrate", "declared sweep of learning rates and leashes")
CONTINUAL = Experiment("continual", "three families in one run")
ZERO = Experiment("zero", "a star graph from next to no reward, at every learning rate")
PLASTICITY = Experiment("plasticity", "fresh RL from trained weights")
DISTILL = Experiment("distill", "context into weights")
REUSE = Experiment("reuse", "slow steps that use the fast rounds' rollouts")

EXPERIMENTS = (CORE, CALIBRATE, CONTINUAL, ZERO, PLASTICITY, DISTILL, REUSE)
