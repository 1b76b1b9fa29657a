"""What an experiment is: a name, what it is about, and the runs that its module makes."""

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
        planned: list[Planned] = import_module(f"fstsim.llm.experiments.{self.name}").runs(scale, chosen)
        return planned
