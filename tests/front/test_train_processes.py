"""`fstsim train --engine trl` on the command line: one process from end to end, what is refused, and processes that are killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from fstsim.__main__ import main
from fstsim.llm.runs.recorded import read_metrics

pytestmark = [
    pytest.mark.skipif(not find_spec("trl"), reason="TRL is not installed"),
    pytest.mark.filterwarnings("ignore"),
]
SMALL = [
    "train",
    "--method",
    "fst",
    "--task",
    "strings:next",
    "--seeds",
    "1",
    "--problems",
    "2",
    "--rollouts",
    "4",
    "--slow-steps-per-round",
    "2",
    "--contexts",
    "2",
    "--rollout-budget",
    "48",
    "--validation",
    "4",
    "--shown",
    "3",
    "--probe-every",
    "1",
    "--probe-problems",
    "2",
    "--probe-relearn",
    "0",
]


def test_a_run_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = [*SMALL, "--steps", "2", "--engine", "trl", "--out", "run"]
    assert main(command) == 0
    said = capsys.readouterr()
    assert "fst on strings:next from base in float32, reflector self, 2 steps" in " ".join(said.out.split())
    assert "fast_best" in said.out
    assert (tmp_path / "run/picture.png").exists()
    assert [row["step"] for row in read_metrics(tmp_path / "run/seed-0")] == [0, 1, 2]
    assert main(command) == 0  # only read
    capsys.readouterr()
    assert main([word for word in command if word not in ("--engine", "trl")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (
            "--method sdft",
            "--engine trl trains by methods rl and fst; method is sdft: choose one of them, or leave --engine out",
        ),
        ("--leash-reward 0.1", "--engine trl has one leash"),
        ("--trl max_steps=3", "how TRL computes, not what"),
        ("--trl per_device_train_batch_size=7", "must divide the 384 rollouts"),
    ],
)
def test_mistakes(flags: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--engine", "trl", *flags.split(), "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_without_trl_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in list(sys.modules):
        if name == "trl" or name.startswith("trl."):
            monkeypatch.setitem(sys.modules, name, None)
        elif name.startswith("fstsim.llm.trl"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "trl", None)
    assert main(["train", "--engine", "trl", "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == (
        "fstsim: error: this needs the package trl, which is not installed: pip install 'fstsim[trl]'\n"
    )
    assert not (tmp_path / "run").exists()


# --- several processes -----------------------------------------------------------------------------------------------

LONG = [*SMALL, "--steps", "5", "--engine", "trl", "--out", "run"]


def started(place: Path, count: int) -> list[subprocess.Popen[str]]:
    """The processes of one training, each with the environment that a launcher gives it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "fstsim", *LONG],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=place,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


def ended(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of each, without the warnings of torch's own code."""
    found = []
    for process in processes:
        out, err = process.communicate(timeout=300)
        lines = [line for line in err.splitlines() if not line.startswith("[") and not line.startswith("train: ")]
        found.append((process.returncode, out, "\n".join(lines)))
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that nobody disturbed."""
    place = tmp_path_factory.mktemp("whole")
    assert [code for code, _, _ in ended(started(place, 2))] == [0, 0]
    return place


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_run_with_one_line_and_it_goes_on(victim: int, whole: Path, tmp_path: Path) -> None:
    parts = tmp_path
    processes = started(parts, 2)
    begun = time.monotonic()
    while not any((parts / "run/seed-0/trl").glob("checkpoint-*/record.json")):
        assert time.monotonic() - begun < 200.0
        time.sleep(0.05)
    os.kill(processes[victim].pid, signal.SIGKILL)
    results = ended(processes)
    code, _, said = results[1 - victim]
    assert results[victim][0] == -signal.SIGKILL
    assert code == 1
    assert said == (
        "fstsim: error: another process of the training has ended; the last checkpoint is kept in run: the same command continues"
    )
    results = ended(started(parts, 2))
    assert [code for code, _, _ in results] == [0, 0]
    assert results[1][1:] == ("", "")  # the main process alone speaks
    for name in ("metrics.jsonl", "prompts.jsonl"):
        assert (parts / "run/seed-0" / name).read_bytes() == (whole / "run/seed-0" / name).read_bytes()


@pytest.mark.slow
def test_accelerate_starts_two_processes(tmp_path: Path) -> None:
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        "2",
        "--mixed_precision",
        "no",
    ]
    more = ["--num_machines", "1", "--dynamo_backend", "no", "--main_process_port", "0", "-m", "fstsim"]
    done = subprocess.run(
        [*launch, *more, *SMALL, "--steps", "3", "--engine", "trl", "--out", "run"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("3 steps") == 1
    assert [row["step"] for row in read_metrics(tmp_path / "run/seed-0")] == [0, 1, 2, 3]
