"""A mistake in the input is one line on stderr (what, where, what is allowed), exit code 2, and nothing is written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fstsim.__main__ import COMMANDS, main

# command line -> what its one line must say
MISTAKES = {
    "": ", ".join(COMMANDS),
    "simulat": ", ".join(COMMANDS),
    "simulate extra": "extra",
    "simulate --lrr 3": "--lr",
    "simulate --lr": "--lr",
    "simulate --lr fast": "--lr",
    "simulate --lr 0": "lr must lie in (0, 1e6]",
    "simulate --lr nan": "lr must lie in (0, 1e6]",
    "simulate --steps 1.5": "--steps INT",
    "simulate --steps 0": "steps must lie in 1..100000",
    "simulate --objective sideways": "forward",
    "simulate --geometry flat": "fisher",
    "simulate --alpha 1": "alpha must lie strictly between 0 and 1",
    "simulate --beta0 -0.1": "beta0 must lie strictly between 0 and 1",
    "simulate --old-fraction 1.1": "old_fraction must lie in [0, 1]",
    "simulate --separation 0": "separation must lie in (0, 40]",
    "simulate --separation inf": "separation must lie in (0, 40]",
    "simulate --separation 30 --new-error -11": "separation + |new_error| must be at most 40",
    "simulate --seed -1": "seed must lie in",
    "simulate --batch 0": "batch must lie in",
    "simulate --objective reverse --batch 1": "batch must be at least 2",
    "simulate --objective reverse --old-fraction 0.5": "old_fraction is used by objective forward only",
    "simulate --optimizer descent --replicates 4": "replicates must be 1 with optimizer descent",
    "simulate --growth 1.1": "only a flow has uneven times",
    "simulate --optimizer flow --growth 2 --steps 200": "the flow must end by time 1e+12",
    "simulate --steps 100000 --replicates 10000": "must be at most 50,000,000",
    "simulate --batch 1000000 --dimension 11": "must be at most 10,000,000",
    "simulate --out file": "file is not a directory",
    "simulate --out file/below": "file is not a directory",
    "simulate --out full": "full is not empty and holds no simulation",
    "simulate --out /proc/here": "cannot write in /proc/here",
    "figures no-such-figure": "allowed: mass-forgetting",
    "figures --out file geometry": "file is not a directory",
    "figures --format svg": "--format",
    "check --examples 0": "examples must lie in 1..",
    "check --examples many": "--examples INT",
    "check --statement no-such-statement": "allowed: logistic-normal",
    "check --statement merged-escap": "statement 'merged-escap' is unknown; nearest: merged-escape, merged-saddle; fstsim check --examples 1 lists all",
    "check no-such-statement": "unknown: no-such-statement; a statement is named by --statement; what it takes is listed by fstsim check --help",
    "check --nowhere": "unknown: --nowhere; what it takes is listed by fstsim check --help",
    "check --seed -3": "seed must be at least 0",
    "sweep --seeds 0": "seeds must be at least 1, got 0",
    "sweep --lr 0.1 inf": "lr must be positive and finite, got inf",
    "sweep --separation": "separation is empty",
    "sweep --separation 2 38 --new-error 0 -5": "separation + |new_error| must be at most 40, got a combination with 43",
    "sweep --separation 60": "separation must lie in (0, 40]",
    "sweep --separation two": "--separation",
    "sweep --beta0 0.5 1.5": "beta0 must lie strictly between 0 and 1, got 1.5",
    "sweep --jobs 0": "jobs must not be 0",
    "sweep --jobs 100000": "jobs must be at most 4096",
    "sweep --steps 2000000": "steps must be at most 1000000",
    "sweep --seeds 900000000": "at most 10000000 trajectories",
    "sweep --batch 100000000": "must be at most 20000000",
    "sweep --backend dask --address nowhere": "no dask scheduler answers at nowhere",
    "check --seed 99999999999999999999": "seed must be at most",
    "simulate --out=": "--out is empty",
    "train --seeds 20000": "seeds must be at most 10000",
    f"simulate --out new/{'x' * 300}": "File name too long",
    "sweep --out file": "file is not a directory",
    "explore --out full": "full is a directory",
    "explore --out file/page.html": "file is not a directory",
    "reproduce --examples -5": "examples must lie in 1..",
    "reproduce --out file": "file is not a directory",
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a file and a folder in which a file lies."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine too")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(place: Path) -> dict[str, str | None]:
    return {str(p.relative_to(place)): p.read_text() if p.is_file() else None for p in sorted(place.rglob("*"))}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_line_code_2_nothing_written(mistake: str, place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = contents(place)
    code = main(mistake.split())
    out, err = capfd.readouterr()
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("fstsim: error: ")
    assert MISTAKES[mistake] in err
    assert contents(place) == before


RUN = ["simulate", "--optimizer", "descent", "--steps", "3", "--out", "run"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `RUN` writes."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(RUN) == 0
    return folder / "run"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes are those of POSIX systems")
@pytest.mark.parametrize("name", ["config.json", "checkpoint.npz", "metrics.jsonl"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_is_no_file_is_not_opened(
    name: str, kind: str, finished: Path, place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished, place / "run")
    path = place / "run" / name
    path.unlink()
    {"pipe": os.mkfifo, "folder": os.mkdir, "device": lambda p: p.symlink_to("/dev/zero")}[kind](path)
    capfd.readouterr()
    assert main(RUN) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert f"{name} is not a file" in err


def test_a_run_directory_of_another_configuration(
    finished: Path, place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished, place / "run")
    before = {path: path.read_bytes() for path in (place / "run").iterdir()}
    capfd.readouterr()
    assert main([*RUN, "--lr", "0.2"]) == 2
    assert (
        capfd.readouterr().err == "fstsim: error: run holds a simulation with lr 0.1, not 0.2: choose another --out\n"
    )
    assert {path: path.read_bytes() for path in (place / "run").iterdir()} == before


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("config.json", lambda _: b"{ not what it was"),
        ("config.json", lambda _: b"[]"),
        ("checkpoint.npz", lambda _: b"{ not what it was"),
        ("checkpoint.npz", lambda content: content[: len(content) // 2]),
    ],
)
def test_a_damaged_run_directory(
    name: str, damage: Callable[[bytes], bytes], finished: Path, place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished, place / "run")
    capfd.readouterr()
    path = place / "run" / name
    path.write_bytes(damage(path.read_bytes()))
    assert main(RUN) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert name in err
