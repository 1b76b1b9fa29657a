"""The flags of ``fstsim forecast``: those of ``fstsim train``, of which some take several values, a grid."""

from __future__ import annotations

from dataclasses import field, make_dataclass
from typing import Annotated, Any, TypeVar

import tyro

from fstsim.front.train_flags import USERS, field_help, with_settings

_C = TypeVar("_C")


def with_grid(command: type[_C]) -> type[_C]:
    """The command `forecast` with a flag for every setting of every channel; replay_share takes several."""
    plain: Any = command
    whole: Any = with_settings(plain)
    learner = next(iter(USERS["replay_share"].values()))
    arg = tyro.conf.arg(
        help=f"{field_help(learner)['replay_share']} (sft); several are a grid",
        help_behavior_hint="(default: 0)",
        metavar="FLOAT [FLOAT ...]",
    )
    grid: Any = Annotated[tuple[float, ...], arg]
    namespace = {"__doc__": command.__doc__}
    made = make_dataclass(
        command.__name__, [("replay_share", grid, field(default=()))], bases=(whole,), frozen=True, namespace=namespace
    )
    made.__module__ = command.__module__
    return made
