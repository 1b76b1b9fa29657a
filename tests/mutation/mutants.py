"""``make mutants``: signs, factors and comparisons of the code changed one at a time; the tests of the file must notice.

A mutant lives in a copy of the code: nothing in the working tree is touched. Mutants are drawn at random (``--seed``), the same number from each room. ``survivors.json`` names those that live
and are known, with the reason: only others count. Prints killed and tried; exit code 1 below 95 %.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("fstsim", "theory", "llm", "paper")
KNOWN = Path(__file__).parent / "survivors.json"
_LEAST = 0.95
_LIMIT = 240.0  # seconds of the tests of one mutant: one that takes longer has been noticed
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
}
_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE,
    ast.LtE: ast.Gt,
    ast.Gt: ast.LtE,
    ast.GtE: ast.Lt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
}
# of paper/ the numbers, not the drawings
_PAPER = ("experiments/numbers.py", "bridge/numbers.py", "manuscript/numbers.py", "bridge/toy.py", "records/places.py")


@dataclass(frozen=True)
class Mutant:
    """``old`` at a place of a file replaced by ``new``."""

    file: str
    line: int
    column: int
    end_line: int
    end_column: int
    old: str
    new: str

    @property
    def name(self) -> str:
        """Without the number of the line, which moves: file, old and new text."""
        return f"{self.file}: {self.old}  ->  {self.new}"


def files() -> list[Path]:
    """Modules that have tests at their path."""
    found = [path for room in ROOMS[:3] for path in sorted((ROOT / room).rglob("*.py"))]
    found += [ROOT / "paper" / name for name in _PAPER]
    return [path for path in found if tests_of(path)]


def tests_of(path: Path) -> list[Path]:
    """``tests/ROOM/.../test_NAME.py``, and what else is called after it."""
    inside = path.relative_to(ROOT)
    folder = ROOT / "tests" / inside.parent
    names = (
        {f"test_{path.stem}.py", f"test_{path.parent.name}.py"}
        if inside.parts[0] == "paper"
        else {f"test_{path.stem}.py"}
    )
    return sorted(folder / name for name in names if (folder / name).exists())


def mutants(path: Path) -> Iterator[Mutant]:
    """Every change of one sign, factor or comparison in ``path``."""
    text = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)):
        changed = _changed(node)
        if changed is None or not isinstance(node, ast.expr):
            continue
        old = ast.get_source_segment(text, node)
        if old is None or "\n" in old or node.end_lineno is None or node.end_col_offset is None:
            continue
        place = (node.lineno, node.col_offset, node.end_lineno, node.end_col_offset)
        yield Mutant(path.relative_to(ROOT).as_posix(), *place, old, f"({ast.unparse(changed)})")


def _changed(node: ast.AST) -> ast.expr | None:
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        if isinstance(node.left, ast.Constant) and isinstance(node.left.value, str):
            return None
        return ast.BinOp(node.left, _OPERATORS[type(node.op)](), node.right)
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARISONS:
        return ast.Compare(node.left, [_COMPARISONS[type(node.ops[0])]()], node.comparators)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
        return node.operand
    if isinstance(node, ast.Constant) and type(node.value) in (int, float) and node.value not in (0, 1, -1):
        return ast.Constant(node.value * 2)
    return None


def apply(text: str, mutant: Mutant) -> str:
    """``text`` with the mutant in it."""
    lines = text.encode().split(b"\n")  # columns are of UTF-8
    line = lines[mutant.line - 1]
    lines[mutant.line - 1] = line[: mutant.column] + mutant.new.encode() + line[mutant.end_column :]
    return b"\n".join(lines).decode()


def copy_code(site: Path) -> None:
    """The four rooms as they are installed, below ``site``."""
    for room in ROOMS:
        shutil.copytree(
            ROOT / room,
            _place(site, room),
            ignore=shutil.ignore_patterns("data", "images", "docs", "__pycache__"),
            dirs_exist_ok=True,
        )
    (site / "fstsim" / "paper" / "data").symlink_to(ROOT / "paper" / "data")


def _place(site: Path, file: str) -> Path:
    return site / file if file.startswith("fstsim") else site / "fstsim" / file


def dies(mutant: Mutant, site: Path) -> bool:
    """Whether the tests of its file notice it."""
    path = _place(site, mutant.file)
    text = path.read_text(encoding="utf-8")
    variables = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(site),
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        *map(str, tests_of(ROOT / mutant.file)),
    ]
    try:
        path.write_text(apply(text, mutant), encoding="utf-8")
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=variables,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return process.wait(_LIMIT) != 0
        except subprocess.TimeoutExpired:
            return True
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    finally:
        path.write_text(text, encoding="utf-8")


def main() -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python tests/mutation/mutants.py", description=__doc__)
    parser.add_argument("--each", type=int, default=60, help="mutants of each room")
    parser.add_argument("--rooms", nargs="+", default=list(ROOMS), choices=ROOMS, help="rooms")
    parser.add_argument("--matching", default="", help="only files with this in their path")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so many")
    options = parser.parse_args()
    known = json.loads(KNOWN.read_text(encoding="utf-8"))
    dice, end = random.Random(options.seed), time.monotonic() + 60.0 * options.minutes
    chosen: list[Mutant] = []
    for room in options.rooms:
        there = [
            m for path in files() for m in mutants(path) if m.file.startswith(f"{room}/") and options.matching in m.file
        ]
        chosen += dice.sample(there, min(options.each, len(there)))
    dice.shuffle(chosen)  # so that one that is stopped early has seen every room
    with tempfile.TemporaryDirectory(prefix="fstsim-mutants-") as name:
        site = Path(name)
        copy_code(site)
        tried, killed, equivalent = _try(chosen, site, known, end)
    rest = max(1, tried - equivalent)
    print(
        f"{tried} mutants tried, {killed} killed ({killed / rest:.0%} of those not known to be equivalent, {equivalent})"
    )
    return int(killed < _LEAST * rest)


def _try(chosen: list[Mutant], site: Path, known: dict[str, str], end: float) -> tuple[int, int, int]:
    """How many were tried until the moment ``end``, killed, and known to live."""
    tried = killed = equivalent = 0
    for mutant in chosen:
        if time.monotonic() > end:
            break
        tried += 1
        if dies(mutant, site):
            killed += 1
        elif mutant.name in known:
            equivalent += 1
        else:
            print(f"lives: {mutant.file}:{mutant.line}: {mutant.old}  ->  {mutant.new}", flush=True)
    return tried, killed, equivalent


if __name__ == "__main__":
    raise SystemExit(main())
