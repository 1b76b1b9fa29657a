"""A simulation that was killed goes on to the result, to the last bit, of one that was not."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fstsim.simulation_run as module
from fstsim import SGD, InputError, Trajectory, TwoModeState, simulate
from fstsim.simulation_run import SimulationConfig, run_simulation

# long enough (a second or two) to be hit in the middle
LONG = {
    "sgd": SimulationConfig(steps=1500, batch=300, replicates=4, dimension=2, seed=7),
    "flow": SimulationConfig(optimizer="flow", objective="reverse", beta0=0.1, lr=0.5, steps=300, growth=1.005),
    "adamw": SimulationConfig(optimizer="adamw", steps=1500, batch=300, replicates=4, dimension=2, lr=0.01, seed=8),
}
SHORT = {
    "sgd": SimulationConfig(steps=47, batch=4, replicates=3, seed=1),
    "descent": SimulationConfig(optimizer="descent", objective="reverse", geometry="fisher", beta0=0.2, steps=47),
    "flow": SimulationConfig(optimizer="flow", steps=47, growth=1.1),
    "adamw": SimulationConfig(optimizer="adamw", objective="reverse", batch=0, beta2=0.99, steps=47),
}


def arrays(out: Path) -> dict[str, np.ndarray[Any, Any]]:
    with np.load(out / "checkpoint.npz", allow_pickle=False) as data:
        return dict(data)


def assert_same_run(one: Path, other: Path) -> None:
    first, second = arrays(one), arrays(other)
    assert first.keys() == second.keys()
    for name, values in first.items():
        assert values.tobytes() == second[name].tobytes(), name
    for name in ("metrics.jsonl", "config.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    assert {path.name for path in one.iterdir()} == {path.name for path in other.iterdir()}


# Ctrl-C is heard also where pytest itself runs without it, in the background
HEARING = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"


def flags(config: SimulationConfig) -> list[str]:
    return [part for name, value in vars(config).items() for part in (f"--{name.replace('_', '-')}", str(value))]


def start(config: SimulationConfig, out: Path) -> subprocess.Popen[bytes]:
    """The command line at work on ``config``, with its first checkpoint written."""
    command = [sys.executable, "-c", HEARING, "-m", "fstsim", "simulate", *flags(config), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60.0
    while not (out / "checkpoint.npz").exists():
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return process


@pytest.mark.parametrize("kind", ["sgd", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("flow", "adamw"))])
def test_killed_at_a_random_moment(kind: str, tmp_path: Path) -> None:
    config = LONG[kind]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = start(config, killed)
    delay = random.SystemRandom().uniform(0.0, 0.3)
    time.sleep(delay)
    process.kill()
    process.communicate()
    assert 0 < Trajectory.load(killed / "checkpoint.npz").steps < config.steps, f"killed after {delay} s"
    run_simulation(config, killed)
    run_simulation(config, whole)
    assert_same_run(killed, whole)


def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    process = start(LONG["sgd"], tmp_path / "run")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    last = err.decode().splitlines()[-1]
    assert process.returncode == 130
    assert "continue with: fstsim simulate" in last
    assert str(tmp_path / "run") in last


class Killed(BaseException):
    """Stands for a kill at one exact place."""


@pytest.mark.parametrize("kind", SHORT)
@pytest.mark.parametrize("write", [1, 2, 5])
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_any_write(kind: str, write: int, when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints and rows are written in turn: stop before or after the n-th of these writes, also between the two."""
    config, killed, whole = SHORT[kind], tmp_path / "killed", tmp_path / "whole"
    made = 0

    def failing(real: Callable[..., None]) -> Callable[..., None]:
        def wrapped(*args: Any, **kwargs: Any) -> None:
            nonlocal made
            made += 1
            if made == write and when == "before":
                raise Killed
            real(*args, **kwargs)
            if made == write:
                raise Killed

        return wrapped

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_text", failing(module.write_text))
        patch.setattr(Trajectory, "save", failing(Trajectory.save))
        with pytest.raises(Killed):
            run_simulation(config, killed, segment=10)
    (killed / ".metrics.jsonl.1-0123abcd.tmp").write_text("left by a kill in the middle of a write")
    run_simulation(config, killed, segment=10)
    run_simulation(config, whole, segment=10)
    assert_same_run(killed, whole)


def test_a_finished_run_is_only_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = SHORT["sgd"]
    first = run_simulation(config, tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}

    def never(*_: object, **__: object) -> None:
        raise AssertionError("nothing is left to simulate")

    monkeypatch.setattr(module, "simulate", never)
    again = run_simulation(config, tmp_path)
    np.testing.assert_array_equal(again.log_odds, first.log_odds)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == times


def test_lost_rows_are_written_again(tmp_path: Path) -> None:
    run_simulation(SHORT["flow"], tmp_path)
    rows = (tmp_path / "metrics.jsonl").read_bytes()
    (tmp_path / "metrics.jsonl").unlink()
    run_simulation(SHORT["flow"], tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == rows


@pytest.mark.parametrize(("field", "value"), [("lr", 0.2), ("seed", 2), ("optimizer", "descent"), ("steps", 48)])
def test_another_configuration_is_refused(field: str, value: object, tmp_path: Path) -> None:
    config = replace(SHORT["sgd"], replicates=1)
    run_simulation(config, tmp_path)
    with pytest.raises(InputError, match=rf"holds a simulation with {field} {getattr(config, field)}, not {value}"):
        run_simulation(replace(config, **{field: value}), tmp_path)  # type: ignore[arg-type]


def test_another_segment_is_refused(tmp_path: Path) -> None:
    run_simulation(SHORT["flow"], tmp_path, segment=10)
    with pytest.raises(InputError, match="holds a simulation with segment 10, not 5"):
        run_simulation(SHORT["flow"], tmp_path, segment=5)


def test_segments_do_not_show_in_sgd(tmp_path: Path) -> None:
    """The generator is carried over: a run in segments is one plain call of `simulate`."""
    config = SHORT["sgd"]
    problem = config.problem()
    one = config.initial_of(problem)
    start = TwoModeState(np.full(3, one.log_odds), np.tile(one.mean_old, (3, 1)), np.tile(one.mean_new, (3, 1)))
    rng = np.random.default_rng(config.seed)
    plain = simulate(problem, config.objective_of(problem), start, SGD(config.lr, config.batch), config.steps, rng)
    run = run_simulation(config, tmp_path, segment=7)
    for name in ("step", "time", "samples", "log_odds", "mean_old", "mean_new"):
        np.testing.assert_array_equal(getattr(run, name), getattr(plain, name))


def test_a_diverged_run_stops_and_stays_so(tmp_path: Path) -> None:
    config = SimulationConfig(optimizer="descent", lr=30.0, steps=100)
    run = run_simulation(config, tmp_path)
    assert run.status == "diverged"
    assert run.steps < config.steps
    rows = (tmp_path / "metrics.jsonl").read_bytes()
    assert run_simulation(config, tmp_path).steps == run.steps
    assert (tmp_path / "metrics.jsonl").read_bytes() == rows
