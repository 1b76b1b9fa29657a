"""Directories that belong to something: what may be continued, what is refused, and that a refusal changes nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from fstsim.errors import InputError
from fstsim.records import check_contents, check_directory, claimed_directory, read_json, write_json, write_text

CONFIG: dict[str, Any] = {"steps": 3, "grid": (0.1, 0.2), "inner": {"lr": 0.5}}


def files(path: Path) -> dict[str, bytes]:
    """All that is below ``path``."""
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def refused(place: Path, config: dict[str, Any], kind: str, name: str) -> None:
    """Asks for a directory; nothing may happen in it."""
    with claimed_directory(place, config, {}, kind, name=name):
        pytest.fail("it was given")


@pytest.mark.parametrize("name", ["config.json", "model.json"])
def test_a_claimed_directory_is_claimed_again_by_its_own_settings_only(tmp_path: Path, name: str) -> None:
    place = tmp_path / "run"
    with claimed_directory(place, CONFIG, {"cores": 2}, "sweep", name=name):
        pass
    assert read_json(place / name) == {"steps": 3, "grid": [0.1, 0.2], "inner": {"lr": 0.5}}
    (place / "table.jsonl").write_text("{}\n")
    (place / ".table.jsonl.1-00112233.tmp").write_text("half")
    with claimed_directory(place, CONFIG, {"cores": 9}, "sweep", name=name):
        pass
    assert read_json(place / "environment.json") == {"cores": 2}
    before = files(place)
    assert set(before) == {name, "environment.json", "table.jsonl"}
    with pytest.raises(InputError, match=r"run holds a sweep with steps 3, not 4: choose another --out"):
        refused(place, {**CONFIG, "steps": 4}, "sweep", name)
    with pytest.raises(InputError, match=rf"{name} is not the configuration of a model"):
        refused(place, {"layers": 2}, "model", name)
    with pytest.raises(InputError, match=rf"{name} is not the configuration of a sweep"):
        refused(place, {key: value for key, value in CONFIG.items() if key != "grid"}, "sweep", name)
    assert files(place) == before


def test_settings_that_came_later_count_as_their_defaults(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {"steps": 3, "inner": {}})
    defaults = {"steps": 1, "inner": {"lr": 0.5}}
    check_directory(tmp_path, {"steps": 3, "inner": {"lr": 0.5}}, "run", defaults)
    with pytest.raises(InputError, match="holds a run with inner"):
        check_directory(tmp_path, {"steps": 3, "inner": {"lr": 0.6}}, "run", defaults)


def test_a_directory_of_something_else_is_refused(tmp_path: Path) -> None:
    check_contents(tmp_path / "nowhere", "run", lambda _: False)
    check_contents(tmp_path, "run", lambda _: False)
    (tmp_path / ".half.tmp").write_text("")
    check_directory(tmp_path, CONFIG, "run")
    (tmp_path / "seed-0").mkdir()
    check_contents(tmp_path, "run", lambda p: p.name.startswith("seed-"))
    with pytest.raises(InputError, match="is not empty and holds no run: choose a new or an empty --out"):
        check_directory(tmp_path, CONFIG, "run")


@pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")
@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o022, 0o644)])
def test_who_may_read_a_file_is_what_the_umask_says(mask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        write_text(tmp_path / "file", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_pipe_or_device_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    pipe, folder = tmp_path / "pipe", tmp_path / "folder"
    os.mkfifo(pipe)
    folder.mkdir()
    for place in (pipe, folder):
        with pytest.raises(InputError, match="is there and is not a file"):
            write_text(place, "text")
    assert pipe.is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "pipe"]


def test_a_link_to_a_file_is_written(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_text(tmp_path / "link", "first")
    write_text(tmp_path / "link", "second")
    assert (tmp_path / "link").read_text(encoding="utf-8") == "second"
