"""Work on a real cluster of two worker processes: one is killed, one is lost twice, work is stopped, a directory is not shared."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fstsim.cluster import Lost, check_address, joined
from fstsim.cluster_worker import Unwanted, check_wanted
from fstsim.errors import InputError
from fstsim.workers import WorkerKilled

distributed = pytest.importorskip("distributed", reason="dask[distributed] is not installed")
cloudpickle = pytest.importorskip("cloudpickle")
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # what workers do here is defined here


def probe() -> str:
    return "cpu"


def work(place: str, number: int, ended: bool) -> int:
    """Leaves the process's number; the first time, where it is asked for, it waits for what ends it."""
    file = Path(place) / f"{number}.pids"
    with file.open("a") as lines:
        lines.write(f"{os.getpid()}\n")
    if number == 0 and (ended or len(pids(file)) == 1):
        for _ in range(600):
            time.sleep(0.05)
            check_wanted()
    return number * number


def stopped(place: str) -> None:
    """Works until nobody waits for it, and says so."""
    (Path(place) / "begun").touch()
    try:
        for _ in range(600):
            time.sleep(0.02)
            check_wanted()
    except Unwanted:
        (Path(place) / "stopped").touch()
        raise


def fails(number: int) -> None:
    raise InputError(f"piece {number} is wrong")


def pids(file: Path) -> list[int]:
    return [int(line) for line in file.read_text().split()] if file.exists() else []


@pytest.fixture(scope="module")
def local() -> Iterator[Any]:
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", host="127.0.0.1"
    ) as cluster:
        yield cluster


def wait_for(done: Any, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def killing(file: Path, times: int) -> Any:
    """Called at every look: kills the process that is at the piece, ``times`` times."""

    def tick() -> None:
        found = pids(file)
        if found and len(found) <= times and Path(f"/proc/{found[-1]}").exists():
            os.kill(found[-1], signal.SIGKILL)
            wait_for(lambda: not Path(f"/proc/{found[-1]}").exists())

    return tick


def test_a_killed_worker_is_named_and_its_piece_done_by_another(local: Any, tmp_path: Path) -> None:
    said: list[str] = []
    pieces = [(str(tmp_path), k, False) for k in range(5)]
    with joined(local.scheduler_address, -1, tmp_path, probe, said.append) as cluster:
        assert set(cluster.facts().values()) == {"cpu"}
        tick = killing(tmp_path / "0.pids", 1)
        found = dict(cluster.work_through(work, pieces, [f"piece {k}" for k in range(5)], tick))
    assert found == {k: k * k for k in range(5)}  # in whatever order
    assert len(set(pids(tmp_path / "0.pids"))) == 2
    (line,) = said
    assert line.startswith("worker tcp://127.0.0.1:")
    assert line.endswith("died in piece 0: it goes on once more, on another worker")
    assert all(len(pids(tmp_path / f"{k}.pids")) == 1 for k in range(1, 5))  # nothing else is done again
    assert not list(tmp_path.glob(".*"))  # the mark of the shared directory is gone


@pytest.mark.slow
def test_a_piece_that_two_workers_die_in_is_given_up_and_the_others_are_done(local: Any, tmp_path: Path) -> None:
    said: list[str] = []
    pieces = [(str(tmp_path), k, True) for k in range(3)]
    with joined(local.scheduler_address, 1, tmp_path, probe, said.append) as cluster:
        tick = killing(tmp_path / "0.pids", 2)
        found = dict(cluster.work_through(work, pieces, ["first", "second", "third"], tick))
    lost = found.pop(0)
    assert isinstance(lost, Lost)
    assert len(set(lost.workers)) == 2
    assert str(lost) == f"worker {lost.workers[0]} and then worker {lost.workers[1]} died in it"
    assert found == {1: 1, 2: 4}
    assert len(said) == 1


def test_what_is_not_wanted_any_more_stops(local: Any, tmp_path: Path) -> None:
    with joined(local.scheduler_address, -1, tmp_path, probe, print) as cluster:

        def pressed() -> None:
            if (tmp_path / "begun").exists():
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            list(cluster.work_through(stopped, [(str(tmp_path),)], ["endless"], pressed))
        assert (tmp_path / "stopped").exists()  # before the command ends


def test_what_a_piece_raises_is_raised_here(local: Any, tmp_path: Path) -> None:
    with (
        joined(local.scheduler_address, -1, tmp_path, probe, print) as cluster,
        pytest.raises(InputError, match="piece 3 is wrong"),
    ):
        list(cluster.work_through(fails, [(3,)], ["three"]))


def test_a_directory_that_workers_do_not_see(local: Any, tmp_path: Path) -> None:
    handle = os.open(tmp_path, os.O_RDONLY)  # a name that only this process knows the directory by
    try:
        out = Path(f"/proc/self/fd/{handle}/runs")
        with (
            pytest.raises(
                InputError, match=r"^worker tcp://\S+: /proc/\S+/runs is not the same directory there: --out"
            ),
            joined(local.scheduler_address, -1, out, probe, print),
        ):
            pass
    finally:
        os.close(handle)
    assert not list(tmp_path.iterdir())


def test_a_worker_with_another_version(local: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fstsim.cluster.installed", lambda: "9.9")
    with (
        pytest.raises(InputError, match=r"has fstsim \S+, this is 9\.9: install the same"),
        joined(local.scheduler_address, -1, tmp_path / "out", probe, print),
    ):
        pass
    assert not (tmp_path / "out").exists()


def test_a_scheduler_without_workers_or_none_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fstsim.cluster._FIRST", 0.2)
    with (
        distributed.LocalCluster(
            n_workers=0, processes=False, dashboard_address=":0", host="127.0.0.1", protocol="tcp"
        ) as empty,
        pytest.raises(InputError, match="has no worker"),
        joined(empty.scheduler_address, -1, tmp_path / "out", probe, print),
    ):
        pass
    with (
        pytest.raises(InputError, match=r"no dask scheduler answers at tcp://127\.0\.0\.1:9"),
        joined("tcp://127.0.0.1:9", -1, tmp_path / "out", probe, print),
    ):
        pass
    assert not (tmp_path / "out").exists()


def test_a_scheduler_that_goes_takes_the_work_with_it(tmp_path: Path) -> None:
    with distributed.LocalCluster(
        n_workers=1, processes=False, dashboard_address=":0", host="127.0.0.1", protocol="tcp"
    ) as short:

        def go() -> None:
            short.close()

        with (
            pytest.raises(WorkerKilled, match="does not answer any more"),
            joined(short.scheduler_address, -1, tmp_path, probe, print) as cluster,
        ):
            list(cluster.work_through(stopped, [(str(tmp_path),)], ["endless"], go))


def test_without_dask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dask.distributed", None)
    with (
        pytest.raises(InputError, match=r"backend dask is not installed: pip install 'fstsim\[sweep\]'"),
        joined("tcp://127.0.0.1:9", -1, tmp_path / "out", probe, print),
    ):
        pass


@pytest.mark.parametrize(("backend", "address"), [("dask", None), ("loky", "tcp://a:1"), ("sequential", "tcp://a:1")])
def test_an_address_goes_with_dask_and_with_nothing_else(backend: str, address: str | None) -> None:
    with pytest.raises(InputError, match="--address"):
        check_address(backend, address)
    check_address("dask", "tcp://a:1")
    check_address("loky", None)
