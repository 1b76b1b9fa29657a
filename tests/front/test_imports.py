"""The rooms import in one direction only, no two modules import each other, and `import fstsim` is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"fstsim": "fstsim", "theory": "fstsim.theory", "llm": "fstsim.llm", "paper": "fstsim.paper"}
# folder -> rooms whose modules it may import
ALLOWED = {
    "fstsim": {"fstsim"},
    "theory": {"fstsim", "theory"},
    "llm": {"fstsim", "theory", "llm"},
    "paper": {"fstsim", "theory", "llm", "paper"},
}
FRONT_DOOR = "fstsim.__main__"


def modules() -> dict[str, tuple[str, Path]]:
    """Import name -> (folder, file)."""
    found = {}
    for folder, package in PACKAGES.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            name = ".".join((package, *(part for part in parts if part != "__init__")))
            found[name] = (folder, path)
    return found


MODULES = modules()
COMMANDS = {
    name for name in MODULES if name.startswith("fstsim.front.") and name != "fstsim.front.console"
}  # what is behind the front door: the same rules


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


GRAPH = {name: imported(path) for name, (_, path) in MODULES.items()}


def test_there_is_something_to_check() -> None:
    assert {"fstsim", "fstsim.two_mode", FRONT_DOOR, "fstsim.theory", "fstsim.llm", "fstsim.paper"} <= MODULES.keys()


@pytest.mark.parametrize("name", [name for name in MODULES if name not in {FRONT_DOOR, *COMMANDS}])
def test_no_import_runs_back_up(name: str) -> None:
    folder = MODULES[name][0]
    for target in GRAPH[name]:
        assert target in MODULES, f"{name} imports {target}, which does not exist"
        assert target not in {FRONT_DOOR, *COMMANDS}, f"{name} imports the front door"
        assert MODULES[target][0] in ALLOWED[folder], f"{name} ({folder}/) imports {target}"


def test_no_two_modules_import_each_other() -> None:
    # a package's __init__ gathers its modules for others to import; inside the package they are imported directly
    for name, targets in GRAPH.items():
        package = PACKAGES[MODULES[name][0]]
        if name not in (package, FRONT_DOOR) and MODULES[name][0] == "theory":
            assert package not in targets, f"{name} imports its own package"
    try:
        TopologicalSorter({name: targets - {name} for name, targets in GRAPH.items()}).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


HEAVY = {"torch", "transformers", "sympy", "matplotlib", "gepa"}


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import fstsim", {*HEAVY, "fstsim.theory", "fstsim.llm", "fstsim.paper", "tyro", "rich", "tqdm"}),
        ("from fstsim.__main__ import main; main(['--help'])", HEAVY),
        ("import fstsim.llm", {"sympy", "matplotlib"}),
        ("from fstsim.__main__ import main; main(['check', '--examples', '0'])", HEAVY),
        ("import fstsim.theory", {"torch", "matplotlib", "fstsim.paper", "fstsim.llm"}),
    ],
)
def test_what_an_import_does_not_load(code: str, absent: set[str]) -> None:
    report = f"{code}\nimport sys\nprint('LOADED', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(done.stdout.split("LOADED", 1)[1].split())
    assert "fstsim" in loaded
    assert absent & loaded == set()
