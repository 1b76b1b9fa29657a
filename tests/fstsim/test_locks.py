"""One process at a time in a directory; dead owners and what they left are in nobody's way. The kills are real."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fstsim.errors import InputError
from fstsim.locks import alone_in, remove_leftovers, temporary_file
from fstsim.records import working_in, write_folder, write_text

pytestmark = pytest.mark.skipif(os.name != "posix", reason="locks are those of POSIX systems")

HOLD = """
import sys, time
from pathlib import Path
from fstsim.locks import alone_in, temporary_file
place = Path(sys.argv[1])
with alone_in(place), temporary_file(place / "metrics.jsonl") as (file, temporary):
    file.write(b"half")
    file.flush()
    print(temporary, flush=True)
    time.sleep(60)
"""


def holder(place: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that works in ``place`` and is in the middle of a write there."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(place)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_second_process_is_refused_and_a_dead_one_is_not_waited_for(tmp_path: Path) -> None:
    process, temporary = holder(tmp_path)
    try:
        with pytest.raises(InputError, match="another process is working in"), alone_in(tmp_path, patience=0.1):
            pytest.fail("two at a time")
        assert temporary.read_bytes() == b"half"
    finally:
        process.kill()
        process.communicate()
    assert temporary.exists()
    with alone_in(tmp_path):
        assert not temporary.exists()


def test_what_is_being_written_stays_and_what_is_not_ours_too(tmp_path: Path) -> None:
    process, temporary = holder(tmp_path)
    mine = [tmp_path / name for name in (".hidden.tmp", ".x.1-0123abcd.tmp.gz", "x.1-0123abcd.tmp")]
    for path in mine:
        path.write_text("mine")
    (tmp_path / ".folder.tmp").mkdir()
    (tmp_path / "parts").mkdir()
    dead = [tmp_path / ".picture.png.1-0123abcd.tmp", tmp_path / "parts" / ".0.jsonl.1-0123abcd.tmp"]
    for path in dead:
        path.write_text("half")
    try:
        remove_leftovers(tmp_path)
        assert temporary.exists()
    finally:
        process.kill()
        process.communicate()
    assert all(path.exists() for path in mine)
    assert (tmp_path / ".folder.tmp").is_dir()
    assert not any(path.exists() for path in dead)


def test_again_in_the_same_thread_but_not_in_another(tmp_path: Path) -> None:
    said: list[str] = []

    def other() -> None:
        try:
            with alone_in(tmp_path, patience=0.1):
                said.append("given")
        except InputError as error:
            said.append(str(error))

    with working_in(tmp_path / "run"), alone_in(tmp_path), alone_in(tmp_path):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(said) == 1
    assert "another process" in said[0]
    with alone_in(tmp_path, patience=0.0):
        pass


def test_it_waits_for_one_that_is_about_to_end(tmp_path: Path) -> None:
    process, _ = holder(tmp_path)
    threading.Timer(0.2, process.kill).start()
    start = time.monotonic()
    with alone_in(tmp_path, patience=30.0):
        assert time.monotonic() - start < 20.0
    process.communicate()


def test_a_write_that_fails_leaves_nothing_and_a_long_name_fits(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), temporary_file(tmp_path / "x"):
        raise RuntimeError
    name = "é" * 120  # 240 bytes
    write_text(tmp_path / name, "text")
    assert [path.name for path in tmp_path.iterdir()] == [name]


HOLD_FOLDER = """
import sys, time
from pathlib import Path
from fstsim.records import write_folder
def write(folder):
    (folder / "half").write_text("half")
    print(folder, flush=True)
    time.sleep(60)
write_folder(Path(sys.argv[1]) / "model", write)
"""


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    """Of a writer that is killed nothing stays once somebody works there; who may read it, the umask says."""
    command = [sys.executable, "-c", HOLD_FOLDER, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    temporary = Path(process.stdout.readline().strip())
    remove_leftovers(tmp_path)
    assert (temporary / "half").exists()
    process.kill()
    process.communicate()
    assert not (tmp_path / "model").exists()
    with alone_in(tmp_path):
        assert list(tmp_path.iterdir()) == []
    before = os.umask(0o077)
    try:
        write_folder(tmp_path / "model", lambda folder: (folder / "file").write_text("whole"))
    finally:
        os.umask(before)
    assert (tmp_path / "model" / "file").read_text() == "whole"
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "model", tmp_path / "model" / "file")] == [0o700, 0o600]
    with pytest.raises(ZeroDivisionError):
        write_folder(tmp_path / "other", lambda _: 1 // 0)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
