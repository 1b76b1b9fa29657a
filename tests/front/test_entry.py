"""Exit codes of what a command raises."""

from __future__ import annotations

import pytest

from fstsim.front.entry import exit_code


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
