"""The front door: ``fstsim COMMAND``, where the commands are those of `COMMANDS`.

It alone knows all rooms, and imports each only when its subcommand is called. Exit codes: 0 done, 1 a statement was
violated or a run failed, 2 bad input (one line on stderr, nothing written), 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import contextlib
import io
import operator
import os
import shlex
import sys
from collections.abc import Sequence
from functools import reduce
from typing import Annotated, Any

import tyro

import fstsim
from fstsim.errors import InputError
from fstsim.front.check import Check
from fstsim.front.command import AGAIN, Command
from fstsim.front.console import complain, unboxed
from fstsim.front.experiment import Experiment
from fstsim.front.explore import Explore
from fstsim.front.figures import Figures
from fstsim.front.pretrain import Pretrain
from fstsim.front.prompts import Prompts
from fstsim.front.reproduce import Reproduce
from fstsim.front.simulate import Simulate
from fstsim.front.sweep import Sweep
from fstsim.front.tasks import Tasks
from fstsim.front.train import Train
from fstsim.front.validate import Validate

_ABOUT = "Exact two-mode mixtures that predict forgetting, drift and fast-slow training."

COMMANDS: dict[str, type[Command]] = {
    command.__name__.lower(): command
    for command in (
        Reproduce,
        Figures,
        Check,
        Simulate,
        Sweep,
        Explore,
        Pretrain,
        Train,
        Prompts,
        Experiment,
        Tasks,
        Validate,
    )
}
"""Name on the command line -> class, in the order of ``fstsim --help``."""


def _union(arguments: Sequence[str]) -> Any:
    """All commands, for tyro; `train` has the flags of its learners, which takes torch, only where it is asked for."""
    commands: dict[str, Any] = dict(COMMANDS)
    if arguments[:1] == ["train"]:
        from fstsim.front.train_flags import with_settings

        commands["train"] = with_settings(Train)
    return reduce(operator.or_, (Annotated[each, tyro.conf.subcommand(name)] for name, each in commands.items()))


def _parse(arguments: Sequence[str]) -> Command:
    """The subcommand with its flags; InputError with one line instead of tyro's box."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            command: Command = tyro.cli(
                _union(arguments),
                prog="fstsim",
                description=f"{_ABOUT} Version {fstsim.__version__}, which --version prints.",
                args=arguments,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        cause: BaseException | None = stop
        while cause is not None:
            if isinstance(cause, InputError):
                raise cause from None
            cause = cause.__cause__ or cause.__context__
        raise InputError(unboxed(said.getvalue())) from None
    return command


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (without the program's name); returns the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments == ["--version"]:
        print(f"fstsim {fstsim.__version__}")
        return 0
    stopped = AGAIN
    try:
        command = _parse(arguments)
        stopped = command.stopped
        return command.run()
    except SystemExit:  # --help has been printed
        return 0
    except InputError as error:
        complain(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        complain(f"{stopped}: {shlex.join(['fstsim', *arguments])}")
        return 130
    except BrokenPipeError:  # the reader of stdout has gone, as in `fstsim check | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        complain(f"error: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
