"""Malformed values over all commands: each is one line and exit code 2, before anything is written.

No value names a place outside of the folder of its case: who runs this may be allowed to write anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from attack import harness
from attack.campaign import Case

_LONG = "x" * 300
_NUMBERS = (
    "",
    "x",
    "nan",
    "inf",
    "-inf",
    "1e999",
    "-1",
    "9" * 400,
    "1e400",
    "0x10",
    "\u202e1",
    "1\x1b[31m",
)
_PLACES = ("", _LONG, f"a/{_LONG}/b", "file", "a\nb\x1b[31m/x/" + _LONG)
_NAMES = (
    _LONG,
    "../../no/such/place",
    "file",
    "nobody/nothing-at-all",
    ".",
    "\u202e",
    "$(id)",
    "--",
    "a" * 5000,
)

# command line whose last word is a value -> values; none of them is legal there
_LINES: tuple[tuple[str, tuple[str, ...]], ...] = (
    *((f"simulate --out OUT --{flag}", _NUMBERS) for flag in ("steps", "batch", "seed", "dimension", "replicates")),
    *((f"simulate --out OUT --{flag}", (*_NUMBERS[:8], "1e308")) for flag in ("lr", "separation", "alpha", "beta0")),
    *((f"sweep --out OUT --{flag}", ("", "x", "nan", "9" * 400, "-1", "1e400", "9" * 12)) for flag in (
        "steps", "batch", "seed", "seeds", "jobs", "separation", "lr")),
    ("sweep --out OUT --backend dask --address", ("", "x", "tcp://", "tcp://127.0.0.1:1", "http://[", "9" * 400, "ucx://a", "inproc://x")),
    ("sweep --out OUT --backend", ("", "spark", "dask")),
    *((f"check --{flag}", ("", "x", "9" * 400, "-1", "9" * 12)) for flag in ("examples", "seed")),
    ("check --statement", ("", *_NAMES)),
    ("figures --out OUT", ("", *_NAMES)),
    *((f"train --preset smoke --out OUT --{flag}", ("", "x", "nan", "-1", "9" * 400, "1e400", "9" * 12)) for flag in (
        "steps", "seeds", "probe-every", "max-new-tokens", "problems", "rollouts", "updates")),
    *((f"train --preset smoke --out OUT --{flag}", ("", "x", "nan", "-1", "-inf")) for flag in ("lr", "clip", "ratio-cap", "leash-loss")),
    *((f"{command} --preset smoke --out OUT --device", ("", "meta", "cuda:99", "cuda:-1", "tpu", "cpu:9999999999", _LONG, "\0"[:0] + "мета"))
      for command in ("train", "pretrain")),
    ("train --preset smoke --out OUT --model", ("", *_NAMES)),
    ("train --preset smoke --out OUT --task", ("", *_NAMES, "strings@9999999999", "strings:" + "reverse+" * 50, "reasoning_gym:none", "reasoning_gym:?size=x",
        "os:system", "file:thing", "strings:reverse/share/share")),
    ("train --preset smoke --out OUT --context", ("\u202eno such words", "a " * 5000, "\x1b[31m")),
    ("train --preset smoke --method gepa --out OUT --reflector openai --reflector-model m --base-url", (
        "", "x", "ftp://a", "http://", "http://[::1", "http://a b", "http://" + "a" * 300, "http://\u202e", "file:///etc/passwd", "http://a:99999999")),
    *((f"pretrain --preset smoke --out OUT --{flag}", ("", "x", "-1", "9" * 400, "nan")) for flag in ("steps", "seed")),
    ("measure --new strings:reverse --out OUT --checkpoint", ("", *_NAMES)),
    *((f"measure --checkpoint base --new strings:reverse --out OUT --{flag}", ("", "x", "-1", "9" * 400)) for flag in ("problems", "samples", "seed")),
    ("measure --checkpoint base --out OUT --new", ("", *_NAMES)),
    ("tasks --task", ("", *_NAMES)),
    ("faithful --out OUT", ("", *_NAMES)),
    *((f"faithful scratch --out OUT --{flag}", ("", "x", "-1", "1e400", "9" * 12)) for flag in ("problems",)),
    ("faithful scratch --out OUT --task", ("", "strings:reverse", "scratch", "scratch:strings:any99", "scratch:strings:any0", *_NAMES)),
    ("faithful scratch --out OUT --base", ("", *_NAMES)),
    ("layers --out OUT", ("", *_NAMES)),
    *((f"forecast --preset smoke --out OUT --{flag}", ("", "x", "nan", "-1", "9" * 400, "1e400", "9" * 12)) for flag in ("steps", "rollouts", "lr")),
    ("forecast --preset smoke --out OUT --method", ("", "x", "gepa", "skills", "cases")),
    ("forecast --preset smoke --out OUT --task", ("", *_NAMES)),
    *((f"train --preset smoke --out OUT --method {method} --{flag}", ("", "x", "nan", "-1", "9" * 400)) for method, flag in (
        ("soft", "thoughts"), ("proxy", "tuned-on"), ("cases", "retrieved"), ("skills", "rounds"), ("isolate", "core-share"))),
    ("train --preset smoke --out OUT --engine", ("", "x", "verl", "trl --method sft")),
    *((f"experiment core --out OUT --{flag}", ("", "x", "-1" if flag == "seeds" else "0", "9" * 400, "9" * 12)) for flag in ("seeds", "jobs")),
    *((f"validate --out OUT --{flag}", ("", "x", "0", "9" * 400, "9" * 12)) for flag in ("seeds", "jobs")),
    ("validate --out OUT --only", ("", *_NAMES)),
    ("prompts", ("", *_NAMES)),
    ("model --out OUT", ("", "x.gguf", "file", _LONG, "smollm")),
    ("explore --out", ("", "full", _LONG, "file/x")),
    *((f"{command} --out", _PLACES) for command in (
        "simulate --steps 3", "sweep --steps 3", "train --preset smoke --steps 1", "pretrain --preset smoke", "figures geometry", "reproduce --skip-models",
        "measure --checkpoint base --new strings:reverse", "experiment core", "experiment core --show", "experiment forgetting --show", "validate", "faithful scratch", "layers base", "forecast --preset smoke --steps 2")),
    ("", ("", "\x1b[31m", "-h -h"[:2] + "x", "--", "nosuch", "9" * 400, "simulate simulate")),
)  # fmt: skip


def _attack(words: tuple[str, ...], work: Path) -> str:
    (work / "file").write_text("mine")
    (work / "full").mkdir()
    (work / "full" / "thesis.tex").write_text("mine too")
    before = sorted(str(path) for path in work.rglob("*"))
    done = harness.command(words, work, 60.0)
    fault = done.fault((2,))
    if not fault and sorted(str(path) for path in work.rglob("*")) != before:
        fault = "something was written"
    if not fault and any(ord(c) < 32 and c not in "\n" for c in done.err):
        fault = "a control character reaches the terminal"
    return fault


def cases() -> Iterator[Case]:
    """Every command line with every value."""
    for line, values in _LINES:
        for value in values:
            if line.endswith("--seed") and value == "9" * 12:  # a seed like any other
                continue
            words = (*line.split(), value)
            shown = " ".join(words)
            yield Case("malformed values", shown if len(shown) < 120 else f"{shown[:117]}...", partial(_attack, words))
