"""Work on the workers of a dask cluster: one piece a worker at a time, in a directory that all of them share.

Pieces are given out here and not by dask's scheduler, so that the worker that dies is known by name, a piece is tried a
second time and no more, and a worker with many threads does not take pieces that others wait for.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fstsim.cluster_worker import Place, at_work, do, installed, look
from fstsim.errors import InputError
from fstsim.locks import temporary_file
from fstsim.records import working_in
from fstsim.workers import WorkerKilled

_CONNECT = "5s"  # for a scheduler to answer
_OTHER_SCHEMES = ("inproc", "ucx", "ucxx", "ws", "wss")
_LISTEN = 5.0  # seconds for its port to be there
_FIRST = 10.0  # seconds for the first worker to be there
_LOOK = 0.5  # seconds between two looks at who is alive
_ALONE = 60.0  # seconds without any worker after which the work is given up
_LEAVE = 15.0  # seconds that pieces which are no longer wanted have to end


@dataclass(frozen=True)
class Lost:
    """A piece that two workers have died in, by their addresses."""

    workers: tuple[str, ...]

    def __str__(self) -> str:
        return f"worker {' and then worker '.join(self.workers)} died in it"


def check_address(backend: str, address: str | None) -> None:
    """InputError if ``backend`` dask has no address, or another one has."""
    if backend == "dask" and address is None:
        raise InputError("backend dask needs --address of a scheduler (start one with: dask scheduler)")
    if backend != "dask" and address is not None:
        raise InputError("--address is used by --backend dask only; remove it, or choose --backend dask")


def check_answers(backend: str, address: str | None) -> None:
    """`check_address`, and InputError if nothing listens at a tcp or tls address: known before anything large is imported."""
    check_address(backend, address)
    if address is None:
        return
    scheme, _, place = address.rpartition("://")
    if scheme in _OTHER_SCHEMES:  # dask or its plugins try them themselves
        return
    if scheme not in ("", "tcp", "tls"):
        raise InputError(no_answer(address))
    try:
        parts = urlsplit(f"//{place}")
        with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=_LISTEN):
            return
    except (OSError, ValueError) as error:
        raise InputError(no_answer(address)) from error


def no_answer(address: str) -> str:
    """What is said of an address where no scheduler is."""
    if not address:
        return "--address is empty: name the scheduler's, as tcp://HOST:8786"
    return f"no dask scheduler answers at {address}"


@contextlib.contextmanager
def connected(address: str) -> Iterator[Any]:
    """A client of the dask scheduler at ``address``; InputError if none answers there, or dask is not installed."""
    try:
        import dask
        from dask.distributed import Client
    except ImportError as error:
        raise InputError("backend dask is not installed: pip install 'fstsim[sweep]'") from error
    check_answers("dask", address)  # dask itself goes on trying for as long as it may
    with _quiet(), dask.config.set({"distributed.comm.timeouts.connect": _CONNECT}):
        try:
            client: Any = Client(address, timeout=_CONNECT, set_as_default=True)
        except Exception as error:  # whatever its transports raise at an address that is none
            raise InputError(no_answer(address)) from error
        with client:
            yield client


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No lines of dask between ours: what goes wrong is said once, and here."""
    loggers = [logging.getLogger(name) for name in ("distributed", "tornado.application")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@dataclass(frozen=True)
class Cluster:
    """The workers that a command works on: at most ``most`` at a time (None: all), ``found`` is what the probe says of each."""

    client: Any
    address: str
    most: int | None
    place: Place
    probe: Callable[[], str]
    say: Callable[[str], None]
    found: dict[str, tuple[str, str]] = field(default_factory=dict)
    """identity of each worker that is fit and what its probe said, by its address"""

    def facts(self) -> dict[str, str]:
        """What the probe said, by the address of the worker."""
        return {address: fact for address, (_, fact) in self.found.items()}

    def look(self, addresses: Iterable[str]) -> dict[str, str]:
        """Look at workers that are new: those that are fit are ``found``, of the others it is returned what is wrong."""
        wrong = {}
        answers = self.client.run(look, self.place, self.probe, workers=list(addresses), on_error="return")
        for address, answer in answers.items():
            if isinstance(answer, InputError):
                wrong[address] = f"worker {address}: {answer}"
            elif isinstance(answer, BaseException):
                wrong[address] = f"worker {address} cannot run fstsim: {' '.join(str(answer).split())[:200]}"
            elif answer[1] != installed():
                wrong[address] = f"worker {address} has fstsim {answer[1]}, this is {installed()}: install the same"
            else:
                self.found[address] = (answer[0], answer[2])
        return wrong

    def work_through(
        self,
        work: Callable[..., Any],
        pieces: Sequence[tuple[Any, ...]],
        names: Sequence[str],
        tick: Callable[[], None] = lambda: None,
    ) -> Iterator[tuple[int, Any]]:
        """``(k, work(*pieces[k]))`` as they are finished; `Lost` in place of a result where two workers have died in it.

        ``tick`` is called at every look. Raises what ``work`` raises, and `WorkerKilled` if the scheduler goes, or all workers.
        """
        waiting = deque(range(len(pieces)))
        died: dict[int, list[str]] = {k: [] for k in waiting}
        running: dict[Any, tuple[int, str]] = {}
        unfit: set[str] = set()
        seen = time.monotonic()
        try:
            while waiting or running:
                alive = self._alive()
                for future, (k, worker) in list(running.items()):
                    if future.done() and not _moved(future):
                        del running[future]
                        yield k, self._result(future)
                        continue
                    if not future.done() and worker in alive:
                        continue
                    del running[future]
                    self.client.cancel([future], force=True)
                    self.found.pop(worker, None)
                    died[k].append(worker)
                    if len(died[k]) > 1:
                        yield k, Lost(tuple(died[k]))
                    else:
                        self.say(f"worker {worker} died in {names[k]}: it goes on once more, on another worker")
                        waiting.appendleft(k)
                strangers = set(alive) - self.found.keys() - unfit
                if strangers and waiting:
                    wrong = self.look(strangers)
                    unfit |= wrong.keys()
                    for line in wrong.values():
                        self.say(f"{line}; left out")
                busy = {worker for _, worker in running.values()}
                fit = [worker for worker in alive if worker in self.found]
                free = [worker for worker in fit if worker not in busy]
                for worker in free[: None if self.most is None else max(0, self.most - len(running))]:
                    if waiting:
                        k = waiting.popleft()
                        running[self._given(worker, work, pieces[k])] = (k, worker)
                if fit:
                    seen = time.monotonic()
                elif time.monotonic() - seen > _ALONE:
                    raise WorkerKilled(f"no worker is left at {self.address}")
                self._wait(list(running))
                tick()
        finally:
            self._leave(running)

    def _given(self, worker: str, work: Callable[..., Any], piece: tuple[Any, ...]) -> Any:
        return self.client.submit(
            do,
            self.found[worker][0],
            self.place,
            work,
            piece,
            key=f"fstsim-{secrets.token_hex(8)}",
            workers=[worker],
            allow_other_workers=False,
            retries=0,
        )

    def _alive(self) -> dict[str, int]:
        """Threads of the workers that the scheduler sees, by address."""
        try:
            alive: dict[str, int] = self.client.nthreads()
        except Exception as error:
            raise WorkerKilled(f"the dask scheduler at {self.address} does not answer any more") from error
        return alive

    def _wait(self, running: list[Any]) -> None:
        if not running:
            time.sleep(_LOOK)
            return
        from dask.distributed import wait

        try:
            with contextlib.suppress(TimeoutError):
                wait(running, timeout=_LOOK, return_when="FIRST_COMPLETED")
        except Exception:  # what was lost with the scheduler is found at the next look
            time.sleep(_LOOK)

    def _result(self, future: Any) -> Any:
        if future.status == "cancelled":
            raise WorkerKilled(f"the dask scheduler at {self.address} does not answer any more")
        return future.result()

    def _leave(self, running: dict[Any, tuple[int, str]]) -> None:
        """Cancel what runs, and wait until its workers have left their directories."""
        if not running:
            return
        with contextlib.suppress(Exception):
            self.client.cancel(list(running), force=True)
            workers = [worker for _, worker in running.values()]
            end = time.monotonic() + _LEAVE
            while time.monotonic() < end:
                answers = self.client.run(at_work, workers=workers, on_error="ignore")
                if not any(answers.values()):
                    return
                time.sleep(_LOOK)


def _moved(future: Any) -> bool:
    """Whether the worker died and dask gave the piece to another one, or gave it up."""
    return future.status == "error" and type(future.exception()).__name__ in ("Moved", "KilledWorker")


@contextlib.contextmanager
def joined(
    address: str, jobs: int, out: Path | None, probe: Callable[[], str], say: Callable[[str], None]
) -> Iterator[Cluster]:
    """The cluster whose scheduler is at ``address``, to work in directory ``out``; at most ``jobs`` workers at a time (-1: all).

    ``out`` is None for work that leaves no files.

    ``probe()`` is called on every worker; what it returns is kept, and an InputError of it is told. ``say`` is given a line for each
    worker that dies. Raises InputError, and leaves no trace, if no scheduler answers, it has no worker, or a worker does not see
    ``out`` or has another fstsim.
    """
    with connected(address) as client, _shared(out) as place:
        cluster = Cluster(client, address, jobs if jobs > 0 else None, place, probe, say)
        try:
            client.wait_for_workers(1, timeout=_FIRST)
        except Exception as error:
            raise InputError(
                f"the dask scheduler at {address} has no worker (start one with: dask worker {address} --nthreads 1)"
            ) from error
        for wrong in cluster.look(cluster._alive()).values():
            raise InputError(wrong)
        yield cluster


@contextlib.contextmanager
def _shared(out: Path | None) -> Iterator[Place]:
    """The place of work in ``out``, with a file in it by which workers know the directory."""
    if out is None:
        yield Place(os.getcwd())
        return
    with working_in(out), temporary_file(out / "cluster") as (file, marker):
        token = secrets.token_hex(16)
        file.write(token.encode())
        file.flush()
        yield Place(os.getcwd(), str(marker), token)
