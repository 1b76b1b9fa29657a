"""Exit codes of what a command raises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from fstsim.errors import InputError
from fstsim.front.entry import exit_code, parse


def raises(error: BaseException) -> int:
    def work() -> int:
        raise error

    return exit_code(work, lambda: "stopped")


def test_a_package_that_is_missing_says_what_brings_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert raises(ModuleNotFoundError("No module named 'torch'", name="torch")) == 2
    assert raises(ModuleNotFoundError("No module named 'gepa.api'", name="gepa.api")) == 2
    assert raises(ModuleNotFoundError("No module named 'typst'", name="typst")) == 2
    assert raises(ModuleNotFoundError("Could not import module 'PreTrainedModel'")) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 4
    assert "torch" in said[0]
    assert "pip install 'fstsim[llm]'" in said[0]
    assert "pip install 'fstsim[llm]'" in said[1]
    assert "pip install 'fstsim[paper]'" in said[2]
    assert "pip install 'fstsim[llm]'" in said[3]


def test_only_help_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert raises(SystemExit(0)) == 0
    assert raises(SystemExit(3)) == 1
    assert capsys.readouterr().err == "fstsim: error: the program was ended with 3\n"


@dataclass(frozen=True)
class Flags:
    """As `fstsim train` has them: None where the flag is left out."""

    place: Literal["thought", "context"] | None = None
    preset: Literal["smoke", "paper"] = "smoke"
    alpha: float | None = None
    steps: int | None = None
    others: tuple[float, ...] | None = None


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--place end", "--place: 'end' is unknown; allowed: 'context', 'thought'"),
        ("--preset end", "--preset: 'end' is unknown; allowed: 'smoke', 'paper'"),
        ("--alpha b", "--alpha: 'b' is not a number; expected --alpha "),
        ("--steps b", "--steps: 'b' is not a whole number; expected --steps "),
        ("--others 1 b", "--others: cannot read '1', 'b'; expected --others FLOAT [FLOAT ...]"),
    ],
)
def test_what_is_allowed_is_what_can_be_given(flags: str, said: str) -> None:
    """None stands for a flag that was left out: nobody can mean it."""
    with pytest.raises(InputError) as error:
        parse(Flags, flags.split(), "fstsim", None)
    assert str(error.value).startswith(said)
