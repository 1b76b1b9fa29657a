"""Model runs on a dask cluster: one worker is killed in the middle of a run, and every run directory is that of one process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from transformers import PreTrainedModel

from fstsim.__main__ import main
from fstsim.cluster import check_answers
from fstsim.errors import InputError
from fstsim.llm.experiments.plan import Planned
from fstsim.llm.experiments.run import run_all
from fstsim.llm.experiments.spread import _common, device_here, runs_on, usable_device
from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.pretraining.tokenizer import build_tokenizer
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.runs.probes import ProbeConfig

distributed = pytest.importorskip("distributed", reason="dask[distributed] is not installed")
SEEDS = 3


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", host="127.0.0.1"
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="module")
def planned(
    make_model: Callable[..., PreTrainedModel], tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[Planned], list[Planned]]:
    """Two runs from a tiny model, then one that starts from where the first of them ended."""
    place = tmp_path_factory.mktemp("models") / "tiny"
    make_model(num_hidden_layers=1, max_position_embeddings=80, initializer_range=0.05).save_pretrained(place)
    build_tokenizer().save_pretrained(place)
    first = TrainConfig(
        tasks=("strings:reverse",),
        model=str(place),
        steps=40,
        probe=ProbeConfig(5, 4, 4, relearn=0),
        learner=PolicyGradient(problems=2, rollouts=4),
    )
    again = TrainConfig(
        tasks=("strings:rotate",),
        steps=3,
        probe=ProbeConfig(5, 4, 4, relearn=0),
        learner=PolicyGradient(problems=2, rollouts=4),
    )
    return [Planned("first", first)], [Planned("then", again, after="first")]


def contents(place: Path) -> dict[str, bytes]:
    """Files of runs, but for seconds and machines."""
    timed = ("summary.json", "environment.json", "checkpoint.safetensors")
    return {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file() and p.name not in timed}


def holder(place: Path) -> int | None:
    """The process of a worker that holds directory ``place`` open, as the one that works in it does."""
    for folder in Path("/proc").glob("[0-9]*/fd"):
        if int(folder.parent.name) == os.getpid():
            continue
        try:
            if any(os.readlink(link) == str(place) for link in folder.iterdir()):
                return int(folder.parent.name)
        except OSError:  # not ours, or gone
            continue
    return None


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the worker by /proc")
def test_one_of_two_workers_is_killed_and_the_runs_are_those_of_one_process(
    address: str, planned: tuple[list[Planned], list[Planned]], tmp_path: Path
) -> None:
    said: list[str] = []
    killed: list[int] = []
    there, here = tmp_path / "there", tmp_path / "here"

    def kill_once() -> None:
        metrics = there / "runs" / "first" / "seed-1" / "metrics.jsonl"
        if not killed and metrics.exists():
            worker = holder(metrics.parent)
            if worker is not None and not (metrics.parent / "summary.json").exists():
                killed.append(worker)
                os.kill(worker, signal.SIGKILL)

    with runs_on("dask", address, -1, there, "auto", said.append) as (cluster, device):
        assert device == usable_device("auto")
        looking = cluster.work_through  # type: ignore[union-attr]
        object.__setattr__(cluster, "work_through", lambda *a: looking(*a, kill_once))
        done = [line for wave in planned for line in run_all(wave, SEEDS, there, cluster)]
        assert all(not failure for _, failure in done)
        assert len(done) == 2 * SEEDS
        assert killed
        assert [line.split(" died in ")[1] for line in said] == [
            "first seed 1: it goes on once more, on another worker"
        ]
        # everything is finished: nothing runs again
        before = {p: p.stat().st_mtime_ns for p in there.rglob("*") if p.is_file() and p.suffix != ".tmp"}
        assert len(list(run_all(planned[0], SEEDS, there, cluster))) == SEEDS
        assert all(p.stat().st_mtime_ns == then for p, then in before.items())
    for wave in planned:
        assert all(not failure for _, failure in run_all(wave, SEEDS, here, 1))
    ours, theirs = contents(there), contents(here)
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if ours[name].replace(bytes(there), bytes(here)) != theirs[name]]
    assert different == []


@pytest.mark.parametrize(
    "address",
    ["", "tcp://127.0.0.1", "tcp://127.0.0.1:99999999", "tcp://127.0.0.1:port", "http://127.0.0.1:80", "http://["],
)
def test_an_address_where_nothing_listens_is_told_before_anything_large_is_imported(address: str) -> None:
    with pytest.raises(InputError, match=r"no dask scheduler answers at|--address is empty"):
        check_answers("dask", address)


@pytest.mark.parametrize("command", ["experiment core", "validate"])
def test_torch_is_not_imported_for_a_scheduler_that_is_not_there(command: str) -> None:
    program = (
        "import sys; from fstsim.__main__ import main\n"
        f"code = main([*{command.split()}, '--backend', 'dask', '--address', 'tcp://127.0.0.1:9'])\n"
        "print(code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["2", "False"]


def test_workers_with_different_devices_are_refused() -> None:
    assert _common({"a": "cuda", "b": "cuda"}) == "cuda"
    with pytest.raises(InputError, match="workers differ: a has cuda, b has cpu: name --device"):
        _common({"a": "cuda", "b": "cpu"})


def test_a_device_is_what_there_is() -> None:
    assert usable_device("cpu") == "cpu"
    assert usable_device("auto") in ("cpu", "cuda")
    with pytest.raises(InputError, match="device 'tpu9' cannot be used here"):
        usable_device("tpu9")
    assert device_here(2, "tpu9") == "tpu9"  # where processes of this machine make the runs, they need it


@pytest.mark.parametrize("command", ["experiment core", "validate", "sweep", "train"])
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--backend dask", "backend dask needs --address of a scheduler"),
        ("--address tcp://127.0.0.1:9", "--address is used by --backend dask only"),
        ("--backend dask --address nowhere", "no dask scheduler answers at nowhere"),
    ],
)
def test_bad_input_is_one_line_before_any_work(
    command: str, flags: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main([*command.split(), "--out", str(out), *flags.split()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"fstsim: error: {message}")
    assert not out.exists()
