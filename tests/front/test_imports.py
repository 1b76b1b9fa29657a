"""The rooms import in one direction only, no two modules import each other, and `import fstsim` is light."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"fstsim": "fstsim", "theory": "fstsim.theory", "llm": "fstsim.llm", "paper": "fstsim.paper"}
# room -> rooms whose modules it may import; the front doors know all: fstsim/front/ and fstsim/__main__.py for commands,
# llm/trl/ for other people's trainers
ALLOWED = {
    "fstsim": {"fstsim"},
    "theory": {"fstsim", "theory"},
    "llm": {"fstsim", "theory", "llm"},
    "paper": {"fstsim", "theory", "llm", "paper"},
    "front": {"fstsim", "theory", "llm", "paper", "front"},
}
# what paper's own command lines (`python -m fstsim.paper.manuscript`) share with `fstsim`: it knows no room but fstsim/
SHARED = {f"fstsim.front.{name}" for name in ("command", "console", "entry", "tables")}


# beside the folders of front doors: the command line, and the pages that list its commands
DOORS = {"fstsim.__main__", *(f"fstsim.paper.pages.{name}" for name in ("lists", "generated", "rewrite"))}


def modules() -> dict[str, tuple[str, Path]]:
    """Import name -> (room, file)."""
    found = {}
    for folder, package in PACKAGES.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            name = ".".join((package, *(part for part in parts if part != "__init__")))
            front = name in DOORS or f"{name}.".startswith(("fstsim.front.", "fstsim.llm.trl."))
            front = front and name != "fstsim.llm.trl.memory"  # arithmetic, which a page shows
            found[name] = ("front" if front else folder, path)
    return found


MODULES = modules()


def imported(path: Path) -> set[str]:
    """Modules of ours that ``path`` imports anywhere, inside functions and under TYPE_CHECKING too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            # `from package import name` is the module package.name where there is one
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                names.add(full if full in MODULES else str(node.module))
    return {name for name in names if name.split(".")[0] == "fstsim"}


@functools.cache
def graph() -> dict[str, set[str]]:
    """Module -> modules that it imports. Read when the first test asks: every worker collects this file, one runs it."""
    return {name: imported(path) for name, (_, path) in MODULES.items()}


@functools.cache
def gathering() -> set[str]:
    """Packages whose ``__init__`` imports their own modules for others."""
    return {
        name
        for name, (_, path) in MODULES.items()
        if path.name == "__init__.py" and any(target.startswith(f"{name}.") for target in graph()[name])
    }


def fault(name: str, target: str) -> str | None:
    """What is wrong with ``name`` importing ``target``; None if nothing is."""
    if target not in MODULES:
        return "does not exist"
    room, other = MODULES[name][0], MODULES[target][0]
    if other not in ALLOWED[room] and not (room == "paper" and target in SHARED):
        return f"is in {other}, which {room} must not know"
    if room != "front" and room == other and target in gathering() and f"{name}.".startswith(f"{target}."):
        return "gathers the modules of the importer's own package for others: import the module itself"
    return None


def test_there_is_something_to_check() -> None:
    assert {"fstsim", "fstsim.two_mode", "fstsim.theory", "fstsim.llm", "fstsim.paper"} <= MODULES.keys()
    assert {room for room, _ in MODULES.values()} == ALLOWED.keys()
    assert MODULES.keys() >= SHARED
    assert {"fstsim", "fstsim.theory", "fstsim.theory.statements", "fstsim.llm"} <= gathering()


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_one_way(name: str) -> None:
    faults = {target: fault(name, target) for target in sorted(graph()[name] - {name})}
    assert {target: what for target, what in faults.items() if what} == {}


@pytest.mark.parametrize("name", sorted(SHARED))
def test_what_paper_shares_with_the_front_door_knows_no_room(name: str) -> None:
    assert {target for target in graph()[name] if MODULES[target][0] != "fstsim"} <= SHARED


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("fstsim.two_mode", "fstsim.theory.drift"),
        ("fstsim.two_mode", "fstsim.front.console"),
        ("fstsim.records", "fstsim"),
        ("fstsim.theory.numerics.flows", "fstsim.theory"),
        ("fstsim.theory.statements.check", "fstsim.theory.statements"),
        ("fstsim.llm.policy.policy", "fstsim.paper"),
        ("fstsim.llm.policy.policy", "fstsim.front.console"),
        ("fstsim.llm.policy.policy", "fstsim.llm"),
        ("fstsim.paper.bridge.figure", "fstsim.front.train"),
        ("fstsim.paper.bridge.figure", "fstsim.__main__"),
        ("fstsim.paper.bridge.figure", "fstsim.paper.figures.no_such_module"),
    ],
)
def test_a_wrong_import_is_noticed(name: str, target: str) -> None:
    assert name in MODULES
    assert fault(name, target) is not None


def test_no_two_modules_import_each_other() -> None:
    try:
        TopologicalSorter({name: targets - {name} for name, targets in graph().items()}).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


HEAVY = {"torch", "transformers", "sympy", "matplotlib", "gepa"}
SLOW = {"scipy.integrate", "scipy.stats"}  # half a second and a second of start-up that most commands do not need


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import fstsim", {*HEAVY, *SLOW, "fstsim.theory", "fstsim.llm", "fstsim.paper", "tyro", "rich", "tqdm"}),
        ("from fstsim.__main__ import main; main(['--help'])", {*HEAVY, *SLOW, "joblib"}),
        # torch brings sympy; what draws, sweeps and checks is not asked for by a training's start
        (
            "from fstsim.__main__ import main; main(['train', '--steps', 'many'])",
            {
                "matplotlib",
                "joblib",
                "dask",
                "pandas",
                "numba",
                "scipy.stats",
                "fstsim.theory.statements",
                "fstsim.paper",
            },
        ),
        ("import fstsim.paper.figures.drawing", {"torch", "sympy", "matplotlib.backends.backend_pdf"}),
        ("import fstsim.llm; dir(fstsim.llm)", {*HEAVY, "fstsim.theory", "fstsim.paper"}),
        ("from fstsim.__main__ import main; main(['check', '--examples', '0'])", HEAVY),
        ("import fstsim.theory", {*HEAVY, *SLOW, "fstsim.theory.statements", "fstsim.paper", "fstsim.llm"}),
    ],
)
def test_what_an_import_does_not_load(code: str, absent: set[str]) -> None:
    report = f"{code}\nimport sys\nprint('LOADED', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(done.stdout.split("LOADED", 1)[1].split())
    assert "fstsim" in loaded
    assert absent & loaded == set()
