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
from fstsim.records import working_in, write_text

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
    (tmp_path / ".folder.1-0123abcd.tmp").mkdir()
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
    assert (tmp_path / ".folder.1-0123abcd.tmp").is_dir()
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
