"""Which split a problem belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from fstsim.errors import InputError
from fstsim.llm.types import SPLITS, Problem, Split

LEAST = 4
"""Problems that three splits need: one to train on, one to validate, two to test (for a standard error)."""


def _digest(problem: Problem) -> bytes:
    return hashlib.sha256(problem.uid.encode()).digest()


def split_of(problem: Problem) -> Split:
    """Which split a problem belongs to, by hash of the problem alone: 80 % train, 10 % validation, 10 % test."""
    bucket = _digest(problem)[0] * 10 // 256
    return "train" if bucket < 8 else SPLITS[bucket - 7]


def split_by_hash(problems: Sequence[Problem], what: str) -> dict[Split, list[Problem]]:
    """``problems`` in three splits by `split_of`, each in the given order.

    A small collection may leave a split empty: it is then cut in the order of the hashes, 10 % (at least one) to validate,
    10 % (at least two) to test. Raises InputError if ``what`` has fewer than `LEAST` problems.
    """
    if len(problems) < LEAST:
        raise InputError(
            f"{what} has {len(problems)} problems, too few for three splits: give at least {LEAST}, or a split in each line"
        )
    found: dict[Split, list[Problem]] = {split: [p for p in problems if split_of(p) == split] for split in SPLITS}
    if found["train"] and found["validation"] and len(found["test"]) >= 2:
        return found
    ordered = sorted(problems, key=_digest)
    test, validation = max(2, len(problems) // 10), max(1, len(problems) // 10)
    cut: dict[Split, list[Problem]] = {
        "test": ordered[:test],
        "validation": ordered[test : test + validation],
        "train": ordered[test + validation :],
    }
    place = {problem.uid: k for k, problem in enumerate(problems)}
    return {split: sorted(cut[split], key=lambda p: place[p.uid]) for split in SPLITS}
