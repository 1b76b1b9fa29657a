"""Where runs are made: in processes of this machine, or one a worker on a dask cluster; both call the same function."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch

from fstsim.cluster import Cluster, Lost, check_address, joined
from fstsim.errors import InputError
from fstsim.llm.policy.loading import check_device
from fstsim.workers import in_processes

AUTO = "auto"
Backend = Literal["loky", "dask"]
Jobs: TypeAlias = int | Cluster
"""How many runs at a time in processes of this machine (-1: one a core), or the cluster that makes them."""


def usable_device(device: str) -> str:
    """``device``, or for `AUTO` what there is: cuda, else cpu. Raises InputError if torch cannot use it here."""
    if device == AUTO:
        return "cuda" if torch.cuda.is_available() else "cpu"
    check_device(device)
    return device


@contextlib.contextmanager
def runs_on(
    backend: str, address: str | None, jobs: int, out: Path, device: str, say: Callable[[str], None]
) -> Iterator[tuple[Jobs, str]]:
    """What makes the runs of a command in directory ``out``, and the torch device that it makes them on.

    ``say`` is given a line for each worker that dies. Raises InputError if that backend, address or device cannot be used.
    """
    check_address(backend, address)
    if address is None:
        yield jobs, usable_device(device)
        return
    with joined(address, jobs, out, functools.partial(usable_device, device), say) as cluster:
        yield cluster, _common(cluster.facts())


def _common(devices: dict[str, str]) -> str:
    """The device that all workers have; InputError if they differ: seeds that are compared are to be made alike."""
    (first, device), *others = sorted(devices.items())
    for worker, another in others:
        if another != device:
            raise InputError(
                f"workers differ: {first} has {device}, {worker} has {another}: name --device, or start workers of one kind"
            )
    return device


def device_here(jobs: Jobs, device: str) -> str:
    """The device on which this process computes what goes before the runs: that of the runs, or the CPU where only workers have it."""
    if isinstance(jobs, int):
        return device
    try:
        return usable_device(device)
    except InputError:
        return "cpu"


def spread(
    work: Callable[..., tuple[str, str]], pieces: Sequence[tuple[Any, ...]], names: Sequence[str], jobs: Jobs
) -> Iterator[tuple[str, str]]:
    """``work(*piece)``, which says what it was and how it failed, as they end; a run that two workers died in has failed."""
    if isinstance(jobs, int):
        yield from in_processes(work, pieces, jobs)
        return
    for k, result in jobs.work_through(work, pieces, names):
        yield (names[k], str(result)) if isinstance(result, Lost) else result
