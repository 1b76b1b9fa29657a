"""Where the command runs: without packages, interrupted while it imports, outputs that are full or closed, other locales."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from attack.campaign import Case
from attack.harness import Outcome

_CHECK = ("check", "--examples", "3", "--statement", "drift-along-flow")
_NOBODY = 65534
# says when the interpreter itself has begun, then is `python -m fstsim`
_BEGUN = """
import sys, runpy
sys.orig_argv[1:3] = ["-m", "fstsim"]
print(flush=True)
runpy.run_module("fstsim", run_name="__main__", alter_sys=True)
"""
_WITHOUT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
from fstsim.__main__ import main
sys.exit(main({words!r}))
"""


def _run(
    words: tuple[str, ...],
    work: Path,
    shell: str = "",
    variables: Mapping[str, str] | None = None,
    limit: float = 120.0,
) -> Outcome:
    """A command as a shell starts it; ``shell`` is put after it."""
    command = [sys.executable, *words]
    start = time.monotonic()
    done = subprocess.run(
        ["bash", "-c", f'"$@" {shell}; exit ${{PIPESTATUS[0]}}', "bash", *command],
        cwd=work, env={**os.environ, **(variables or {})}, capture_output=True, timeout=limit, check=False,
    )  # fmt: skip
    texts = (part.decode("utf-8", "replace") for part in (done.stdout, done.stderr))
    return Outcome(done.returncode, *texts, time.monotonic() - start)


def _output(shell: str, variables: Mapping[str, str], allowed: tuple[int, ...], work: Path) -> str:
    done = _run(("-m", "fstsim", *_CHECK), work, shell, variables)
    if shell == "| true" and done.code == 1 and not done.complaint:  # whoever has gone is told nothing
        return ""
    return done.fault(allowed)


def _without(absent: tuple[str, ...], words: tuple[str, ...], says: str, work: Path) -> str:
    done = _run(("-c", _WITHOUT.format(absent=set(absent), words=list(words))), work)
    return done.fault((2,)) or ("" if says in done.err else f"does not say {says}: {done.err.strip()[:200]}")


def _interrupted(words: tuple[str, ...], after: float, work: Path) -> str:
    # a shell starts what it puts in the background with Ctrl-C ignored, and children would inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [sys.executable, "-c", _BEGUN, *words],
        cwd=work, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()  # the interpreter itself has begun
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    try:
        out, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return "hung"
    return Outcome(process.returncode, out, err, after).fault((130, 0))


def _closed_folder(words: tuple[str, ...], work: Path) -> str:
    (work / "DIR").mkdir(mode=0o600)
    (work / "DIR").chmod(0o600)
    nobody = f"os.setuid({_NOBODY}); " if os.getuid() == 0 else ""  # root may enter any folder
    code = f"import os, sys; {nobody}from fstsim.__main__ import main; sys.exit(main({list(words)!r}))"
    if nobody:
        shutil.chown(work / "DIR", _NOBODY)
    return _run(("-c", code), work).fault((2,))


def cases() -> Iterator[Case]:
    """All of them."""
    attacks: dict[str, Callable[[Path], str]] = {
        "stdout is /dev/full": partial(_output, "> /dev/full", {}, (1,)),
        "stdout is closed": partial(_output, ">&-", {}, (0,)),
        "stderr is closed": partial(_output, "2>&-", {}, (0,)),
        "both are closed": partial(_output, ">&- 2>&-", {}, (0,)),
        "the reader has gone": partial(_output, "| true", {}, (0, 1)),
        "ASCII": partial(_output, "", {"PYTHONIOENCODING": "ascii"}, (0,)),
        "Latin-1": partial(_output, "", {"PYTHONIOENCODING": "latin-1"}, (0,)),
        "locale C": partial(_output, "", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, (0,)),
        "TERM=dumb": partial(_output, "", {"TERM": "dumb", "COLUMNS": "0"}, (0,)),
        "no home": partial(_output, "", {"HOME": "nowhere", "MPLCONFIGDIR": "nowhere"}, (0,)),
    }
    for command in (
        "train",
        "pretrain",
        "measure --checkpoint base --new strings",
        "experiment core",
        "tasks",
        "validate",
        "faithful scratch",
        "layers base",
        "forecast",
    ):
        for absent in (("torch",), ("transformers",), ("torch", "transformers", "gepa", "tokenizers", "safetensors")):
            attacks[f"{command} without {', '.join(absent)}"] = partial(
                _without, absent, tuple(command.split()), "pip install 'fstsim[llm]'"
            )
    for words in (
        ("check", "--examples", "100000000"),
        ("train", "--preset", "smoke"),
        ("simulate", "--steps", "100000"),
    ):
        for after in (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2):
            attacks[f"Ctrl-C after {after} s of {words[0]}"] = partial(_interrupted, words, after)
    for line in (
        "simulate --steps 3 --out DIR",
        "sweep --steps 3 --out DIR",
        "prompts DIR",
        "figures geometry --out DIR/x",
        "explore --out DIR/x.html",
    ):
        attacks[f"a folder without x: {line}"] = partial(_closed_folder, tuple(line.split()))
    for name, attack in attacks.items():
        yield Case("surroundings", name, attack)
