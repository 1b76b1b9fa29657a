"""The front door: ``fstsim reproduce | figures | check | simulate | sweep | explore | pretrain | train | prompts | experiment | tasks | validate``.

It alone knows all rooms, and imports each only when its subcommand is called. Exit codes: 0 done, 1 a statement was
violated or a run failed, 2 bad input (one line on stderr, nothing written), 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

import fstsim
from fstsim.errors import InputError
from fstsim.front import cli, cli_experiments, cli_models, console, train
from fstsim.front.console import complain

_ABOUT = "Exact two-mode mixtures that predict forgetting, drift and fast-slow training."

_Command = (
    Annotated[cli.Reproduce, tyro.conf.subcommand("reproduce")]
    | Annotated[cli.Figures, tyro.conf.subcommand("figures")]
    | Annotated[cli.Check, tyro.conf.subcommand("check")]
    | Annotated[cli.Simulate, tyro.conf.subcommand("simulate")]
    | Annotated[cli.Sweep, tyro.conf.subcommand("sweep")]
    | Annotated[cli.Explore, tyro.conf.subcommand("explore")]
    | Annotated[cli_models.Pretrain, tyro.conf.subcommand("pretrain")]
    | Annotated[train.Train, tyro.conf.subcommand("train")]
    | Annotated[train.Prompts, tyro.conf.subcommand("prompts")]
    | Annotated[cli_experiments.Experiment, tyro.conf.subcommand("experiment")]
    | Annotated[cli_models.Tasks, tyro.conf.subcommand("tasks")]
    | Annotated[cli_experiments.Validate, tyro.conf.subcommand("validate")]
)


def _parse(arguments: Sequence[str]) -> cli.Command:
    """The subcommand with its flags; InputError with one line instead of tyro's box."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            command = tyro.cli(
                _Command,
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
        raise InputError(console.unboxed(said.getvalue())) from None
    return command


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (without the program's name); returns the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments == ["--version"]:
        print(f"fstsim {fstsim.__version__}")
        return 0
    stopped = cli.AGAIN
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
