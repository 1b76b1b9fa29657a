"""Kills at random moments: the same command continues, and ends with the same bytes as one that was left alone."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from attack import harness
from attack.campaign import Case

COMMANDS = {
    "simulation": "simulate --steps 40000 --batch 4 --out DIR",
    "sweep": "sweep --separation 1 1.5 2 2.5 3 3.5 4 --seeds 1500 --steps 60 --batch 4 --jobs 1 --backend sequential --out DIR",
    "rl": "train --preset smoke --steps 4 --seeds 1 --probe-every 1 --out DIR",
    "fst": "train --method fst --preset smoke --steps 4 --seeds 1 --probe-every 1 --out DIR",
    "model": "pretrain --preset smoke --steps 6 --out DIR",
}
_TIMED = {"environment.json", "summary.json", "picture.png"}  # have dates or times in them


def _content(place: Path) -> dict[str, bytes]:
    """Every file that is a function of the command alone."""
    timed = (
        _TIMED
        | {"checkpoint.safetensors", "README.md"}
        | ({"metrics.jsonl"} if (place / "pretrain.json").exists() else set())
    )
    return {
        str(path.relative_to(place)): path.read_bytes()
        for path in sorted(place.rglob("*"))
        if path.is_file() and path.name not in timed
    }


def _attack(whole: Path, line: str, seconds: float, seed: int, work: Path) -> str:
    words = line.split()
    dice, kills = random.Random(seed), 0
    for _ in range(3):  # some end before they are killed
        null = os.open(os.devnull, os.O_WRONLY)
        child = harness.begin(lambda: harness.main(words), work, (null, null))
        os.close(null)
        time.sleep(dice.uniform(0.02, 1.1) * seconds)
        os.killpg(child, signal.SIGKILL) if os.waitpid(child, os.WNOHANG) == (0, 0) else None
        try:
            os.waitpid(child, 0)
            kills += 1
        except ChildProcessError:
            break
    done = harness.command(words, work, 300.0)
    if fault := done.fault((0,)):
        return f"after {kills} kills: {fault}"
    left = [path.name for path in (work / "DIR").rglob(".*.tmp")]
    if left:
        return f"after {kills} kills {left[0]} is left"
    ours, theirs = _content(work / "DIR"), _content(whole)
    wrong = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    return f"after {kills} kills {wrong[0]} has other bytes" if wrong else ""


def _made(place: Path, line: str) -> float:
    """Seconds that the whole run in ``place`` takes; it is made if it is not there."""
    told = place / "seconds"
    if not told.exists():
        place.mkdir(exist_ok=True)
        done = harness.command(line.split(), place, 400.0)
        if done.fault((0,)):
            raise RuntimeError(f"{line}: {done.fault((0,))}")
        told.write_text(str(done.seconds), encoding="utf-8")
    return float(told.read_text(encoding="utf-8"))


def cases(place: Path, count: int) -> Iterator[Case]:
    """``count`` runs of every command, each killed up to three times; the whole ones are made in ``place`` first."""
    for name, line in COMMANDS.items():
        seconds = _made(place / name, line)
        for k in range(count):
            work = partial(_attack, place / name / "DIR", line, seconds, 1000 * k + len(name))
            yield Case("kills", f"{name} {k}", work)
