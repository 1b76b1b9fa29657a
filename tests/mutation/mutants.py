"""``make mutants``: signs, factors and comparisons of the code changed one at a time; the tests of the file must notice.

A mutant lives in a copy of the code: nothing in the working tree is touched. Mutants are drawn at random (``--seed``), the same number from each room. ``survivors.json`` names those that live
and are known, with the reason: only others count. Prints killed and tried; exit code 1 below 95 %.
"""

from __future__ import annotations

import argparse
import ast
import compileall
import contextlib
import dataclasses
import importlib
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("fstsim", "theory", "llm", "paper")
KNOWN = Path(__file__).parent / "survivors.json"
_LEAST = 0.95
_WIDER = 6  # files that import a module and are tried on a mutant of it: those of its folder first
_VARIABLES = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
_NEEDED = (
    "matplotlib",
    "mpmath",
    "scipy.optimize",
    "scipy.integrate",
    "scipy.stats",
    "sympy",
    "torch",
    "transformers",
    "pytest",
    "safetensors.torch",
    "tyro",
    "gepa",
)
# what is imported beforehand cannot be rewritten by pytest, and need not be
_OPTIONS = (
    "-q",
    "-x",
    "-p",
    "no:cacheprovider",
    "--hypothesis-seed=0",
    "-W",
    "ignore::pytest.PytestAssertRewriteWarning",
)
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
_PAPER = ("experiments/numbers.py", "bridge/numbers.py", "manuscript/numbers.py", "bridge/toy.py")


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
    """``tests/ROOM/.../test_NAME.py``, and what else is called after it; of statements also their own checks in the table of all."""
    inside = path.relative_to(ROOT)
    folder = ROOT / "tests" / inside.parent
    names = (
        {f"test_{path.stem}.py", f"test_{path.parent.name}.py"}
        if inside.parts[0] == "paper"
        else {f"test_{path.stem}.py"}
    )
    found = sorted(folder / name for name in names if (folder / name).exists())
    return [*found, *_checks(path)] if found else []


def _checks(path: Path) -> Iterator[Path]:
    """What tests/theory/statements/test_statements.py asks of the statements that ``path`` declares."""
    if path.parent == ROOT / "theory" / "statements":
        table = ROOT / "tests" / "theory" / "statements" / "test_statements.py"
        for slug in re.findall(r'slug="([\w-]+)"', path.read_text(encoding="utf-8")):
            for asked in ("test_random_instances_hold", "test_derivation_is_proved_or_says_that_it_proves_nothing"):
                yield table.with_name(f"{table.name}::{asked}[{slug}]")


def wider(path: Path) -> list[Path]:
    """Tests of other files that import the module: tried, one by one, on what the tests of the file leave alive.

    Of the theory also the tables that hold many modules against something independent.
    """
    inside = path.relative_to(ROOT).with_suffix("")
    dotted = ".".join(inside.parts if inside.parts[0] == "fstsim" else ("fstsim", *inside.parts))
    parent, _, name = dotted.rpartition(".")
    imported = re.compile(
        rf"from {re.escape(dotted)} import|import {re.escape(dotted)}\b|from {re.escape(parent)} import .*\b{name}\b"
    )
    tables = set((ROOT / "tests" / "theory").glob("test_against_mpmath*.py")) if inside.parts[0] == "theory" else set()
    found = {test for test in (ROOT / "tests").rglob("test_*.py") if imported.search(test.read_text(encoding="utf-8"))}
    return sorted((found | tables) - set(tests_of(path)), key=lambda test: (test.parent.name != path.parent.name, test))


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


@dataclass(frozen=True)
class Fate:
    """What became of a mutant: killed by the test ``by``, ``lives``, or ``undecided``: its tests are too slow."""

    name: str
    line: int
    fate: str
    by: str = ""


class _First:
    """Keeps the first test that failed."""

    def __init__(self) -> None:
        self.name = ""

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.name = self.name or (report.nodeid if report.failed else "")

    def pytest_collectreport(self, report: Any) -> None:
        self.name = self.name or (report.nodeid if report.failed else "")


def warm() -> None:
    """Import what the tests need besides the code itself, so that the forks have it."""
    for name in _NEEDED:
        importlib.import_module(name)
    assert "fstsim" not in sys.modules


def tested(site: Path, names: Sequence[str], limit: int) -> tuple[int | None, str]:
    """Exit code of pytest on ``names`` with the code below ``site``, and the first failure; None after ``limit`` CPU seconds.

    In a fork of this process, which has imported everything but the code.
    """
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "told"
        child = os.fork()
        if not child:
            code = 70
            try:
                os.setsid()
                resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
                null = os.open(os.devnull, os.O_RDWR)
                for stream in (0, 1, 2):
                    os.dup2(null, stream)
                os.environ.update(_VARIABLES, PYTHONPATH=str(site))
                os.chdir(ROOT)
                # the copy before the working tree, of which the folder of this script knows nothing
                sys.path[0] = str(site)
                import pytest

                import fstsim

                if not str(fstsim.__file__).startswith(str(site)):
                    os._exit(71)
                first = _First()
                code = int(pytest.main([*_OPTIONS, *names], [first]))
                told.write_text(first.name, encoding="utf-8")
            except BaseException as error:  # pytest itself tells what a mutant breaks
                told.write_text(f"{error!r}", encoding="utf-8")
                code = 72
            finally:
                os._exit(code)
        end = time.monotonic() + 20.0 * limit
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                break
            if time.monotonic() > end:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child, signal.SIGKILL)
            time.sleep(0.05)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what it has started
        code = os.waitstatus_to_exitcode(status)
        first = told.read_text(encoding="utf-8") if told.exists() else ""
        if code in (70, 71, 72):
            raise RuntimeError(f"pytest did not run on the copy: {first or code}")
        return (None if code < 0 else code), first


def fate(mutant: Mutant, site: Path, limit: int) -> Fate:
    """Whether the tests of its file notice it."""
    path = _place(site, mutant.file)
    text = path.read_text(encoding="utf-8")
    names, others = ([str(test.relative_to(ROOT)) for test in of(ROOT / mutant.file)] for of in (tests_of, wider))
    try:
        path.write_text(apply(text, mutant), encoding="utf-8")
        _forget(path)
        code, by = tested(site, names, limit)
        for other in others[:_WIDER] if code == 0 else ():
            more, by = tested(site, [other], limit)
            if more and by:
                code = more
                break
    finally:
        path.write_text(text, encoding="utf-8")
        _forget(path)
    if code is None:  # it loops, or its tests are slow without it
        sound, _ = tested(site, names, limit)
        return Fate(mutant.name, mutant.line, "undecided" if sound is None else "killed", "time")
    # 5: there are slow tests only
    return Fate(mutant.name, mutant.line, "lives" if not code else "killed" if by else "undecided", by)


def _forget(path: Path) -> None:
    """Compiled copies are told from their source by its second and its size, which a mutant may share."""
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        compiled.unlink()


def main() -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python tests/mutation/mutants.py", description=__doc__)
    parser.add_argument("--each", type=int, default=60, help="mutants of each room")
    parser.add_argument("--rooms", nargs="+", default=list(ROOMS), choices=ROOMS, help="rooms")
    parser.add_argument("--matching", default="", help="only files with this in their path")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so many")
    parser.add_argument("--limit", type=int, default=240, help="CPU seconds of the tests of one mutant")
    parser.add_argument(
        "--fates", type=Path, default=None, help="a file of what became of each: called again, it goes on"
    )
    options = parser.parse_args()
    known = json.loads(KNOWN.read_text(encoding="utf-8"))
    dice = random.Random(options.seed)
    chosen: list[Mutant] = []
    for room in options.rooms:
        there = [
            m for path in files() for m in mutants(path) if m.file.startswith(f"{room}/") and options.matching in m.file
        ]
        chosen += dice.sample(there, min(options.each, len(there)))
    dice.shuffle(chosen)  # so that one that is stopped early has seen every room
    fates = read_fates(options.fates)
    with tempfile.TemporaryDirectory(prefix="fstsim-mutants-") as name:
        site = Path(name)
        copy_code(site)
        compileall.compile_dir(site, quiet=2)
        warm()
        _try(chosen, site, time.monotonic() + 60.0 * options.minutes, options, fates)
        held = [fates[m.name, m.line] for m in chosen if (m.name, m.line) in fates]
        # a test that fails without any mutant has killed nothing
        killers = {f.by for f in held if f.fate == "killed" and f.by != "time"}
        wrong = {by for by in killers if len(killers) < _FEW and tested(site, [by], options.limit)[0]}
    return _told(held, known, wrong)


_FEW = 400


def _told(held: Sequence[Fate], known: Mapping[str, str], wrong: set[str]) -> int:
    """Print how many were killed, and which live; exit code."""
    killed = sum(f.fate == "killed" and f.by not in wrong for f in held)
    undecided = sum(f.fate == "undecided" for f in held)
    equivalent = sum(f.fate == "lives" and f.name in known for f in held)
    for f in held:
        if f.fate == "lives" and f.name not in known:
            print(f"lives: {f.name} (line {f.line})")
        elif f.fate == "undecided" or f.by in wrong:
            print(f"not known: {f.name} (line {f.line}) {f.by}")
    rest = max(1, len(held) - equivalent - undecided)
    print(
        f"{len(held)} mutants tried, {killed} killed ({killed / rest:.0%} of those not known to be equivalent, {equivalent}; "
        f"{undecided} undecided)"
    )
    return int(killed < _LEAST * rest)


def read_fates(path: Path | None) -> dict[tuple[str, int], Fate]:
    """What became of each mutant, by its name and line; of no file, nothing."""
    if path is None or not path.exists():
        return {}
    rows = [Fate(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    return {(row.name, row.line): row for row in rows}


def _try(
    chosen: Sequence[Mutant], site: Path, end: float, options: argparse.Namespace, fates: dict[tuple[str, int], Fate]
) -> None:
    """Try those without a fate until the moment ``end``, and keep what became of them."""
    for mutant in chosen:
        if (mutant.name, mutant.line) in fates:
            continue
        if time.monotonic() > end:
            break
        found = fates[mutant.name, mutant.line] = fate(mutant, site, options.limit)
        print(f"{found.fate}: {mutant.file}:{mutant.line}: {mutant.old}  ->  {mutant.new}", flush=True)
        if options.fates is not None:
            with options.fates.open("a", encoding="utf-8") as file:
                file.write(json.dumps(dataclasses.asdict(found)) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
