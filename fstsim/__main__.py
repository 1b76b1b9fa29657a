"""The front door: ``fstsim COMMAND``, where the commands are those of `COMMANDS`.

It alone knows all rooms, and imports each only when its subcommand is called. Exit codes: 0 done, 1 a statement was
violated, a run failed or a limit was passed, 2 bad input (one line on stderr, nothing written), 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import operator
import shlex
import sys
from collections.abc import Sequence
from functools import reduce
from typing import Annotated, Any

import tyro

import fstsim
from fstsim.front.check import Check
from fstsim.front.command import AGAIN, Command
from fstsim.front.entry import exit_code, parse
from fstsim.front.experiment import Experiment
from fstsim.front.explore import Explore
from fstsim.front.faithful import Faithful
from fstsim.front.figures import Figures
from fstsim.front.forecast import Forecast
from fstsim.front.layers import Layers
from fstsim.front.loading import loading
from fstsim.front.measure import Measure
from fstsim.front.model import Model
from fstsim.front.pretrain import Pretrain
from fstsim.front.prompts import Prompts
from fstsim.front.reproduce import Reproduce
from fstsim.front.simulate import Simulate
from fstsim.front.sweep import Sweep
from fstsim.front.tasks import Tasks
from fstsim.front.train import Train
from fstsim.front.validate import Validate

_ABOUT = (
    "Exact two-mode mixtures that predict forgetting, drift and fast-slow training. "
    f"Version {fstsim.__version__}, which --version prints."
)

COMMANDS: dict[str, type[Command]] = {
    command.__name__.lower(): command
    for command in (
        Reproduce,
        Figures,
        Check,
        Simulate,
        Sweep,
        Explore,
        Model,
        Pretrain,
        Train,
        Forecast,
        Measure,
        Layers,
        Faithful,
        Prompts,
        Experiment,
        Tasks,
        Validate,
    )
}
"""Name on the command line -> class, in the order of ``fstsim --help``."""
_BY_FLAG = {"check": "a statement is named by --statement"}


def _union(arguments: Sequence[str]) -> Any:
    """All commands, for tyro; `train` and `forecast` have the flags of learners, which takes torch, only where they are asked for."""
    commands: dict[str, Any] = dict(COMMANDS)
    if arguments[:1] == ["train"]:
        with loading():
            from fstsim.front.train_flags import with_settings

        commands["train"] = with_settings(Train)
    if arguments[:1] == ["forecast"]:
        with loading():
            from fstsim.front.forecast_flags import with_grid

        commands["forecast"] = with_grid(Forecast)
    return reduce(operator.or_, (Annotated[each, tyro.conf.subcommand(name)] for name, each in commands.items()))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (without the program's name); returns the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments == ["--version"]:
        print(f"fstsim {fstsim.__version__}")
        return 0
    stopped = AGAIN

    def work() -> int:
        nonlocal stopped
        command: Command = parse(_union(arguments), arguments, "fstsim", _ABOUT, _BY_FLAG)
        stopped = command.stopped
        return command.run()

    return exit_code(work, lambda: f"{stopped}: {shlex.join(['fstsim', *arguments])}")


if __name__ == "__main__":
    sys.exit(main())
