r"""Chains of the world: intermediate lists that are written before an answer, as text and as lists.

A chain to the prompt ``rules | problem =`` is ``> s1 > s2 ... > s(K-1) = sK``: \(s_k\) is the list after rule k, and what
follows the last ``=`` is the answer. On star graphs, whose start list has to be found first, the walk is a step too. A step
may also be written ``; s``, right to left (notation B): the same content behind another mark. A completion whose first
token is a symbol is a direct answer. No token is new: ``>``, ``;`` and ``=`` are marks that the base model knows.
Source: the tests of 2411.15382 and 2307.13702, put so that the length of a chain is known exactly.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fstsim.llm.tasks.families import Family, Symbols

FORWARD, BACKWARD, ANSWER = ">", ";", "="
"""Mark of a step written left to right, of one written right to left, and of the answer."""
MARKS = (FORWARD, BACKWARD)
_STEP = re.compile(f"([{FORWARD}{BACKWARD}])([^{FORWARD}{BACKWARD}{ANSWER}]*)")


@dataclass(frozen=True)
class Step:
    """One step: its ``mark``, and the symbols as they are ``written``."""

    mark: str
    written: str

    @classmethod
    def of(cls, content: Sequence[str], mark: str = FORWARD) -> Step:
        """The step that says ``content`` in the notation of ``mark``."""
        text = "".join(content)
        return cls(mark, text if mark == FORWARD else text[::-1])

    @property
    def content(self) -> str:
        """The list that it says, left to right."""
        return self.written if self.mark == FORWARD else self.written[::-1]

    @property
    def text(self) -> str:
        """As it stands in a completion."""
        return self.mark + self.written

    def other_notation(self) -> Step:
        """The same content behind the other mark."""
        return Step.of(self.content, BACKWARD if self.mark == FORWARD else FORWARD)


def write(steps: Sequence[Step], answer: str | None = None) -> str:
    """Steps as text; with ``answer``, the mark ``=`` and the answer after them."""
    text = "".join(step.text for step in steps)
    return text if answer is None else f"{text}{ANSWER}{answer}"


def read(completion: str) -> tuple[tuple[Step, ...], str | None]:
    """Steps and answer of a completion, spaces left out; the answer is None where none was written.

    A direct answer has no steps; text before the first mark of a chain makes it no chain, and no answer.
    """
    text = re.sub(r"\s+", "", completion)
    head, mark, answer = text.rpartition(ANSWER)
    if not mark:
        return ((), text) if not re.search(f"[{FORWARD}{BACKWARD}]", text) else (_steps(text) or (), None)
    steps = _steps(head)
    return ((), None) if steps is None else (steps, answer)


def _steps(text: str) -> tuple[Step, ...] | None:
    found = [Step(mark, written) for mark, written in _STEP.findall(text)]
    return tuple(found) if write(found) == text else None


def final_answer(completion: str) -> str | None:
    """What a verifier takes as the answer: what follows the last ``=``, all of a completion without marks, else None."""
    text = re.sub(r"\s+", "", completion)
    _, mark, answer = text.rpartition(ANSWER)
    if mark:
        return answer
    return None if any(each in text for each in MARKS) else text


def right_steps(family: Family, rules: Sequence[str], start: Symbols) -> tuple[Symbols, ...]:
    """Content of the steps of the right chain: the list after each rule but the last; on star graphs the walk comes first."""
    lists = [start] if family.name == "star_graph" else []
    for word in rules[:-1]:
        start = family.apply((word,), start)
        lists.append(start)
    return tuple(lists)


def steps_of(family: Family, rules: int) -> int:
    """Steps of a right chain under ``rules`` rules."""
    return rules if family.name == "star_graph" else rules - 1
