"""A wheel built from this tree holds every module and what they read, and works outside the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = {"fstsim": "fstsim", "theory": "fstsim/theory", "llm": "fstsim/llm", "paper": "fstsim/paper"}
READ_BY_CODE = {".mplstyle", ".typ", ".yml", ".typed"}  # and all of the shipped models
OF_THE_CHECKOUT = shutil.ignore_patterns("data", "images", "docs", "__pycache__")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the wheel is installed, and nothing else."""
    pytest.importorskip("setuptools", reason="the wheel is built without a network")
    place = tmp_path_factory.mktemp("wheel")
    tree = place / "tree"  # a copy: setuptools would keep modules in ./build that have since been deleted
    for room in ROOMS:
        shutil.copytree(ROOT / room, tree / room, ignore=OF_THE_CHECKOUT)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*pip, "--wheel-dir", place, tree], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = place.glob("fstsim-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place / "site")
    return place / "site"


def in_the_tree(wanted: set[str]) -> dict[str, Path]:
    """Files with these suffixes in the rooms, by their place in the wheel."""
    return {
        f"{place}/{path.relative_to(ROOT / room).as_posix()}": path
        for room, place in ROOMS.items()
        for path in (ROOT / room).rglob("*")
        if path.suffix in wanted and "docs" not in path.relative_to(ROOT).parts
    }


def test_every_folder_of_modules_is_in_the_wheel(site: Path) -> None:
    wheel = {path.parent.relative_to(site).as_posix() for path in site.rglob("*.py")}
    tree = {place.rpartition("/")[0] for place in in_the_tree({".py"})}
    missing = sorted(folder.replace("/", ".") for folder in tree - wheel)
    assert not missing, f"add {', '.join(missing)} to [tool.setuptools] packages in pyproject.toml"
    assert wheel == tree


def test_every_module_is_in_the_wheel(site: Path) -> None:
    assert {path.relative_to(site).as_posix() for path in site.rglob("*.py")} == in_the_tree({".py"}).keys()


def test_what_modules_read_is_in_the_wheel(site: Path) -> None:
    read = in_the_tree(READ_BY_CODE)
    for folder in (path.parent for path in (ROOT / "llm").glob("*/model.safetensors")):
        read |= {f"fstsim/llm/{folder.name}/{path.name}": path for path in folder.iterdir() if path.is_file()}
    names = {Path(place).name for place in read}
    assert {"model.safetensors", "tokenizer.json", "fstsim.mplstyle", "main.typ", "references.yml", "py.typed"} <= names
    missing = [place for place in sorted(read) if not (site / place).is_file()]
    assert not missing, f"add {', '.join(missing)} to [tool.setuptools.package-data] in pyproject.toml"
    assert [place for place, path in read.items() if (site / place).read_bytes() != path.read_bytes()] == []


def run_outside(site: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """``python WORDS`` in ``folder``, with the installed wheel before any other fstsim."""
    variables = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=variables, capture_output=True, text=True, timeout=600, check=False
    )


def test_it_is_the_wheel_that_runs_outside(site: Path, tmp_path: Path) -> None:
    done = run_outside(
        site, tmp_path, "-c", "import fstsim.llm, fstsim.paper; print(fstsim.llm.__file__, fstsim.paper.DATA)"
    )
    assert done.stdout.split() == [str(site / "fstsim/llm/__init__.py"), str(site / "fstsim/paper/data")]


@pytest.mark.parametrize(
    ("command", "written"),
    [
        pytest.param("check --examples 20 --statement drift-along-flow", (), marks=pytest.mark.slow),
        pytest.param(
            "figures geometry --out drawn", ("drawn/geometry.png", "drawn/geometry.pdf"), marks=pytest.mark.slow
        ),
        pytest.param("simulate --steps 5 --out run", ("run/metrics.jsonl", "run/picture.png"), marks=pytest.mark.slow),
        (
            "train --method rl --task digits:plus --preset smoke --steps 1 --seeds 1 --out rl",
            ("rl/seed-0/metrics.jsonl", "rl/seed-0/model/model.safetensors", "rl/picture.png"),
        ),
        pytest.param(
            "reproduce --skip-models --examples 5 --out all",
            ("all/report.html", "all/checks.json", "all/figures/mass-forgetting.pdf"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_make_reproduce_runs(command: str, written: tuple[str, ...], site: Path, tmp_path: Path) -> None:
    done = run_outside(site, tmp_path, "-m", "fstsim", *command.split())
    assert done.returncode == 0, done.stderr
    assert [name for name in written if not (tmp_path / name).is_file()] == []


@pytest.mark.slow
def test_what_make_test_runs(site: Path, tmp_path: Path) -> None:
    tests = [
        "-c",
        str(ROOT / "pyproject.toml"),
        "-p",
        "no:cacheprovider",
        "-q",
        str(ROOT / "tests/fstsim/test_mixtures.py"),
    ]
    done = run_outside(site, tmp_path, "-m", "pytest", *tests)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


# module with a command line of its own -> what it says where there are no records
WITHOUT_RECORDS = {
    "fstsim.paper.manuscript.__main__": "there are no recorded runs at {data}: run this in a checkout of the repository",
    "fstsim.paper.bridge.figure": "there are no recorded runs at {data}/validation: run this in a checkout of the repository",
    "fstsim.paper.pages.rewrite": "{package} is an installed package: run this in a checkout of the repository",
    "fstsim.paper.records.record_check": "{package} is an installed package: run this in a checkout of the repository",
    "fstsim.paper.report.report": "out holds no checks.json: run fstsim reproduce --out out first",
}


def test_what_needs_records_says_so_in_one_line(site: Path, tmp_path: Path) -> None:
    before = sorted(path for path in site.rglob("*") if path.suffix != ".pyc" and path.name != "__pycache__")
    code = "import importlib\nfor name in NAMES: print(importlib.import_module(name).main())"
    done = run_outside(site, tmp_path, "-c", code.replace("NAMES", repr(list(WITHOUT_RECORDS))))
    assert done.stdout.split() == ["2"] * len(WITHOUT_RECORDS)
    package = site / "fstsim"
    for said, expected in zip(done.stderr.splitlines(), WITHOUT_RECORDS.values(), strict=True):
        assert said.startswith(f"fstsim: error: {expected.format(package=package, data=package / 'paper/data')}")
    assert list(tmp_path.iterdir()) == []
    assert sorted(p for p in site.rglob("*") if p.suffix != ".pyc" and p.name != "__pycache__") == before
