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
from typing import Annotated, Any, Union

import tyro

import fstsim
from fstsim.errors import InputError
from fstsim.front import cli, cli_experiments, cli_models, cli_train, console
from fstsim.front.console import complain

_ABOUT = "Exact two-mode mixtures that predict forgetting, drift and fast-slow training."

COMMANDS: dict[str, type[cli.Command]] = {
    "reproduce": cli.Reproduce,
    "figures": cli.Figures,
    "check": cli.Check,
    "simulate": cli.Simulate,
    "sweep": cli.Sweep,
    "explore": cli.Explore,
    "pretrain": cli_models.Pretrain,
    "train": cli_train.Train,
    "prompts": cli_train.Prompts,
    "experiment": cli_experiments.Experiment,
    "tasks": cli_models.Tasks,
    "validate": cli_experiments.Validate,
}
"""Every command by its name."""


def _union(arguments: Sequence[str]) -> Any:
    """All commands, for tyro; `train` has the flags of its learners, which takes torch, only where it is asked for."""
    commands: dict[str, Any] = dict(COMMANDS)
    if arguments[:1] == ["train"]:
        from fstsim.front.train_flags import with_settings

        commands["train"] = with_settings(cli_train.Train)
    return Union[tuple(Annotated[command, tyro.conf.subcommand(name)] for name, command in commands.items())]  # noqa: UP007


def _parse(arguments: Sequence[str]) -> cli.Command:
    """The subcommand with its flags; InputError with one line instead of tyro's box."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            command = tyro.cli(
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
