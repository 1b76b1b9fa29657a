"""Run directories with damaged files: every reader says in one line what and where, and nothing hangs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from attack import harness
from attack.campaign import Case

_NOBODY = 65534
_HUGE = 10**400


@dataclass(frozen=True)
class Reader:
    """A directory of ``kind`` below the pristine ones, the files of it that are damaged, and the command that reads them."""

    name: str
    kind: str
    files: tuple[str, ...]
    command: str
    writes: bool = True
    """whether it must be able to write: then nobody else can be asked to run it"""


READERS = (
    Reader("simulate", "simulation", ("config.json", "environment.json", "checkpoint.npz", "metrics.jsonl"),
           "simulate --steps 5 --out DIR"),
    Reader("sweep", "sweep", ("config.json", "environment.json", "table.jsonl", "table.sha256"),
           "sweep --steps 5 --jobs 1 --out DIR"),
    Reader("train", "rl", tuple(f"seed-0/{name}" for name in (
        "config.json", "environment.json", "checkpoint.safetensors", "metrics.jsonl", "summary.json")),
        "train --preset smoke --steps 2 --seeds 1 --out DIR"),
    Reader("prompts", "fst", ("seed-0/prompts.jsonl",), "prompts DIR/seed-0"),
    Reader("pretrain", "model", ("pretrain.json", "environment.json", "metrics.jsonl", "README.md"),
           "pretrain --preset smoke --steps 2 --out DIR"),
    Reader("pretrain, unfinished", "half-model", ("pretrain.json", "environment.json", "metrics.jsonl", "checkpoint.safetensors"),
           "pretrain --preset smoke --steps 2 --out DIR"),
    Reader("measure", "measure", ("config.json", "environment.json", "measure.json", "cache/*.json", "cache/*.safetensors"),
           "measure --checkpoint base --new strings:reverse --problems 4 --samples 2 --out DIR"),
    Reader("experiment --show", "experiments", tuple(f"runs/zero-rl-lr0.001/seed-0/{name}" for name in (
        "config.json", "summary.json", "metrics.jsonl")), "experiment zero --show --out DIR"),
    Reader("experiment --show, sweep", "experiments", ("runs/calibrate-rl-lr0.001-leash0/seed-0/metrics.jsonl",),
           "experiment calibrate --show --out DIR"),
    Reader("experiment --show, parts", "experiments", ("runs/strings-hard-fst/seed-0/decomposition.json",),
           "experiment core --show --out DIR"),
    Reader("experiment --show, forgetting", "experiments", tuple(f"runs/forgetting-strings-rl-lr0.0003/seed-0/{name}" for name in (
        "config.json", "summary.json", "metrics.jsonl")), "experiment forgetting --show --out DIR"),
    Reader("experiment --show, systems", "experiments", tuple(f"runs/systems-switch-skills/seed-0/{name}" for name in (
        "config.json", "summary.json", "metrics.jsonl")), "experiment systems --show --out DIR"),
    Reader("forecast", "forecast", ("config.json", "environment.json", "forecast.json"), "forecast --preset smoke --steps 2 --out DIR"),
    Reader("faithful", "faithful", ("config.json", "environment.json", "faithful.json", "cache/*.json"),
           "faithful scratch --problems 2 --task scratch:strings:any3 --out DIR"),
    Reader("layers", "layers", ("config.json", "environment.json", "layers.json", "rows-0.json"), "layers RUN/seed-0 --out DIR"),
    Reader("layers of a run", "rl", tuple(f"seed-0/{name}" for name in ("config.json", "summary.json", "checkpoint.safetensors")),
           "layers DIR/seed-0 --out DIR/layers"),
    Reader("validate", "validation", ("predictions.json",), "validate --only replay --jobs 1 --seeds 1 --out DIR"),
    Reader("report", "report", ("checks.json", "environment.json", "validation/validation.json", "validation/predictions.json",
        "experiments/runs/zero-rl-lr0.001/seed-0/config.json", "experiments/runs/zero-rl-lr0.001/seed-0/environment.json",
        "experiments/runs/zero-rl-lr0.001/seed-0/summary.json", "experiments/runs/zero-rl-lr0.001/seed-0/metrics.jsonl"),
        "report --out DIR"),
    Reader("record", "validation", ("predictions.json", "validation.json"), "record_runs DIR target"),
    Reader("convert", "validation", ("predictions.json", "validation.json"), "convert DIR"),
)  # fmt: skip


def make_pristine(place: Path, data: Path) -> None:
    """Small run directories of every kind in folder ``place``; records are cut down from the recorded ``data``."""
    for line in (
        "simulate --steps 5 --out simulation",
        "sweep --steps 5 --jobs 1 --out sweep",
        "train --method fst --preset smoke --steps 2 --seeds 1 --out fst",
        "train --preset smoke --steps 2 --seeds 1 --out rl",
        "pretrain --preset smoke --steps 2 --out model",
        "measure --checkpoint base --new strings:reverse --problems 4 --samples 2 --out measure",
        "forecast --preset smoke --steps 2 --out forecast",
        "faithful scratch --problems 2 --task scratch:strings:any3 --out faithful",
        "layers rl/seed-0 --out layers",
    ):
        done = harness.command(line.split(), place, 300.0)
        if done.fault((0,)):
            raise RuntimeError(f"{line}: {done.fault((0,))}")
    half = harness.run(lambda: _half_model(place / "half-model"), place, 300.0)
    if not (place / "half-model" / "checkpoint.safetensors").exists():
        raise RuntimeError(f"no unfinished model: {half.err[-300:]}")
    for name in ("zero", "calibrate", "strings-hard", "forgetting-strings", "systems-switch"):
        for run in sorted((data / "experiments" / "runs").glob(f"{name}*")):
            _cut(run / "seed-0", place / "experiments" / "runs" / run.name / "seed-0")
    for name in ("predictions.json", "validation.json", "base_masses.json"):
        (place / "validation").mkdir(exist_ok=True)
        shutil.copy(data / "validation" / name, place / "validation")
    run = next((data / "validation" / "runs").glob("*/seed-0"))
    _cut(run, place / "validation" / "runs" / run.parent.name / "seed-0")
    shutil.copytree(place / "experiments", place / "report" / "experiments")
    for name in ("calibrate", "forgetting", "systems"):
        for run in (place / "report" / "experiments" / "runs").glob(f"{name}*"):
            shutil.rmtree(run)
    (place / "report" / "validation").mkdir()
    # the bridge is drawn from many runs: it has its own tests, and here a validation without it will do
    for name in ("predictions.json", "validation.json"):
        shutil.copy(data / "validation" / name, place / "report" / "validation")
    held = json.loads((data / "checks.json").read_text(encoding="utf-8"))
    (place / "report" / "checks.json").write_text(json.dumps(held["checks"]), encoding="utf-8")
    (place / "report" / "environment.json").write_text(json.dumps(held["environment"]), encoding="utf-8")


def _half_model(out: Path) -> int:
    """`fstsim pretrain` that ends after its first checkpoint."""
    from fstsim.llm.pretraining import pretrain

    def stop(*_: object) -> None:
        os._exit(9)

    pretrain.PreTrainedModel.save_pretrained = stop  # type: ignore[method-assign]
    return harness.main(f"pretrain --preset smoke --steps 2 --out {out}".split())


def _cut(run: Path, place: Path) -> None:
    """A recorded run with its first and its last three rows."""
    shutil.copytree(run, place)
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (place / "metrics.jsonl").write_text("".join(lines[:1] + lines[-3:]), encoding="utf-8")


def _whole(path: Path) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Damage that any file can have."""
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 0x10
    for name, data in {
        "empty": b"",
        "half": content[: len(content) // 2],
        "without its last byte": content[:-1],
        "null": b"null\n",
        "a list": b"[1, 2]\n",
        "a text": b'"text"\n',
        "an object": b"{}\n",
        "a number": b"7\n",
        "not UTF-8": b'{"a": "\xff\xfe"}\n',
        "zeros": b"\0" * 64,
        "a flipped bit": bytes(flipped),
        "deep": b"[" * 200_000,
        "deep, closed": b"[" * 5_000 + b"]" * 5_000,
        "thousands of digits": b'{"step": ' + b"9" * 10_000 + b"}",
    }.items():
        yield name, partial(_write, data)
    yield "a folder", _folder
    yield "a pipe", _pipe
    yield "a link to nowhere", _dangling
    yield "/dev/zero", _endless


def _write(data: bytes, path: Path) -> None:
    path.write_bytes(data)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nowhere/at/all")


def _endless(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def _changes(value: Any) -> Iterator[tuple[str, Any]]:
    """The same object with each key missing, and of another type."""
    if not isinstance(value, dict):
        return
    for key, held in value.items():
        yield f"without {key}", {k: v for k, v in value.items() if k != key}
        others: Mapping[str, Any] = {
            "null": None,
            "text": "x",
            "list": [],
            "object": {},
            "huge": _HUGE,
            "-1": -1,
            "1e999": float("inf"),
        }
        for name, other in others.items():
            if type(other) is not type(held) or name == "-1":
                yield f"{key} {name}", {**value, key: other}
        if isinstance(held, dict) and held:
            inner = next(iter(held))
            yield f"{key} without {inner}", {**value, key: {k: v for k, v in held.items() if k != inner}}
            yield f"{key}.{inner} text", {**value, key: {**held, inner: "x"}}
    yield "one key more", {**value, "strange": 1}


def _json(path: Path) -> Iterator[tuple[str, Callable[[Path], None]]]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(value, list) and value:
        for name, first in _changes(value[0]):
            yield f"row 0 {name}", partial(_write, json.dumps([first, *value[1:]]).encode())
    for name, changed in _changes(value):
        yield name, partial(_write, json.dumps(changed).encode())


def _rows(path: Path) -> Iterator[tuple[str, Callable[[Path], None]]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    for at, where in ((0, "first row"), (len(lines) - 1, "last row")):
        for name, changed in _changes(json.loads(lines[at])):
            if at == 0 or "text" in name or "without" in name:
                new = [*lines[:at], json.dumps(changed), *lines[at + 1 :]]
                yield f"{where} {name}", partial(_write, "\n".join([*new, ""]).encode())


def _safetensors(path: Path) -> Iterator[tuple[str, Callable[[Path], None]]]:
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        held = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- not a dict
    for key in held:
        yield f"metadata without {key}", partial(_save, tensors, {k: v for k, v in held.items() if k != key})
    yield "no metadata", partial(_save, tensors, {})
    no_sum = {k: v for k, v in held.items() if k != "crc32"}
    for name, meta in _changes(json.loads(held.get("meta", "{}"))):
        yield f"meta {name}", partial(_save, tensors, {**no_sum, "meta": json.dumps(meta)})
    for text in ("", "null", "[" * 100_000, "\ud800".encode("utf-8", "replace").decode()):
        yield f"meta {text[:8]!r}", partial(_save, tensors, {**no_sum, "meta": text})
    for name in [*tensors][:2] + [*tensors][-2:]:
        yield f"no tensor {name}", partial(_save, {k: v for k, v in tensors.items() if k != name}, no_sum)
        other = np.zeros((3, 1, 2), dtype=np.int8)
        yield f"another tensor {name}", partial(_save, {**tensors, name: other}, no_sum)
    yield "no tensors", partial(_save, {}, no_sum)


def _save(tensors: Mapping[str, Any], metadata: Mapping[str, str], path: Path) -> None:
    from safetensors.numpy import save_file

    save_file(dict(tensors), path, dict(metadata))


def _npz(path: Path) -> Iterator[tuple[str, Callable[[Path], None]]]:
    with np.load(path) as data:
        arrays = dict(data)
    for key, held in arrays.items():
        rest = {k: v for k, v in arrays.items() if k != key}
        yield f"without {key}", partial(_savez, rest)
        for name, other in (("text", np.array("x")), ("empty", np.zeros(0)), ("deep", np.zeros((2, 2, 2, 2)))):
            yield f"{key} {name}", partial(_savez, {**rest, key: other})
        yield f"{key} of objects", partial(_savez, {**rest, key: np.array([{}], dtype=object)})
        nan = np.full_like(held, np.nan) if held.dtype.kind == "f" else np.array(np.nan)
        yield f"{key} nan", partial(_savez, {**rest, key: nan})


def _savez(arrays: Mapping[str, Any], path: Path) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def _attack(pristine: Path, reader: Reader, name: str, damage: Callable[[Path], None], nobody: bool, work: Path) -> str:
    shutil.copytree(pristine / reader.kind, work / "DIR")
    damage(work / "DIR" / name)

    def call() -> int:
        if nobody:
            os.setuid(_NOBODY)
        places = {"DIR": str(work / "DIR"), "RUN": str(pristine / "rl")}
        return harness.main([_put(word, places) for word in reader.command.split()])

    # environment.json, README.md and pictures are made anew or only shown: a reader may do without them
    return harness.run(call, work, 90.0).fault((0, 2))


def _put(word: str, places: Mapping[str, str]) -> str:
    for name, place in places.items():
        word = word.replace(name, place)
    return word


def cases(pristine: Path) -> Iterator[Case]:
    """Every reader, file and kind of damage."""
    for reader in READERS:
        for pattern in reader.files:
            path = sorted((pristine / reader.kind).glob(pattern))[0]
            name = str(path.relative_to(pristine / reader.kind))
            special = {".json": _json, ".jsonl": _rows, ".safetensors": _safetensors, ".npz": _npz}.get(path.suffix)
            damages = list(_whole(path))
            if special is not None:
                damages += special(path)
            for told, damage in damages:
                yield Case(
                    "damaged directories",
                    f"{reader.name}: {name} {told}",
                    partial(_attack, pristine, reader, name, damage, False),
                )
            # nothing is unreadable to root, who asks somebody else; a reader that writes could then not write either
            yield Case(
                "damaged directories",
                f"{reader.name}: {name} unreadable",
                partial(_attack, pristine, reader, name, lambda path: path.chmod(0), os.getuid() == 0),
            )
