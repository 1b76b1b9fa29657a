"""Three families of problems with clearly different outputs, and the written rules that say what to do with them.

A problem shows a *start list* of symbols: a string, a number's digits, or, in the star graph, the walk from the goal
back to the centre, which first has to be found among shuffled edges (arXiv 2510.03971). A rule is one word and one
function from lists to lists of the same length; written one after the other, rules are applied from left to right.
Each family also has one rule without a word (``unnamed``): no context can describe it, only weights can learn it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Symbols = tuple[str, ...]
Rule = Callable[[Symbols], Symbols]

UNNAMED = "unnamed"


@dataclass(frozen=True)
class Family:
    """One family: its symbols, its rules by word, and how a problem is drawn.

    ``draw(rng, size) -> (text, start)``: what the learner is shown and the start list it stands for. ``size`` is the number
    of symbols of the start list. ``rules`` are in the order of their mass without context (`rule_masses`).
    ``question`` puts a problem in words for models that read English.
    """

    name: str
    symbols: str
    rules: Mapping[str, Rule]
    unnamed: Rule
    draw: Callable[[np.random.Generator, int], tuple[str, Symbols]]
    question: str
    explained: Mapping[str, str]

    def apply(self, words: Sequence[str], start: Symbols) -> Symbols:
        """The start list after the rules ``words``, one after the other."""
        for word in words:
            start = (self.unnamed if word == UNNAMED else self.rules[word])(start)
        return start


def rule_masses(family: Family, ratio: float = 0.6) -> dict[str, float]:
    """Mass of each rule among single rules without context: geometric in their order, so that base success spans decades."""
    raw = np.power(ratio, np.arange(len(family.rules)))
    return dict(zip(family.rules, (raw / raw.sum()).tolist(), strict=True))


def _shift(symbols: str, by: int) -> Rule:
    table = {s: symbols[(i + by) % len(symbols)] for i, s in enumerate(symbols)}
    return lambda x: tuple(table[s] for s in x)


def _numbers(function: Callable[[list[int]], list[int]]) -> Rule:
    return lambda x: tuple(str(d % 10) for d in function([int(s) for s in x]))


def _swap_pairs(x: Symbols) -> Symbols:
    out = list(x)
    for i in range(0, len(x) - 1, 2):
        out[i], out[i + 1] = x[i + 1], x[i]
    return tuple(out)


def _riffle(x: Symbols) -> Symbols:
    """Places 2, 4, ... first, then 1, 3, ...: a permutation that no word of any family names."""
    return x[1::2] + x[::2]


def _swap_first(x: Symbols) -> Symbols:
    """The first two swapped: on a walk of four nodes `_riffle` is what two words do, this is not."""
    return (x[1], x[0], *x[2:])


_LETTERS = "ABCDEFGH"
_DIGITS = "0123456789"
_NODES = "JKLMNOPQRSTUVW"
_ARMS = 3
LONGEST_WALK = 1 + (len(_NODES) - 1) // _ARMS  # nodes of a walk for which there are names


def _draw_string(symbols: str) -> Callable[[np.random.Generator, int], tuple[str, Symbols]]:
    def draw(rng: np.random.Generator, size: int) -> tuple[str, Symbols]:
        start = tuple(symbols[i] for i in rng.integers(len(symbols), size=size))
        return "".join(start), start

    return draw


def _draw_star(rng: np.random.Generator, size: int) -> tuple[str, Symbols]:
    """Star with three arms of ``size - 1`` edges: edges (child, parent) in random order, then ``:`` and the goal, a leaf."""
    length = size - 1
    names = [_NODES[i] for i in rng.permutation(len(_NODES))[: 1 + _ARMS * length]]
    centre, rest = names[0], names[1:]
    arms = [[centre, *rest[a * length : (a + 1) * length]] for a in range(_ARMS)]
    edges = [child + parent for arm in arms for parent, child in itertools.pairwise(arm)]
    goal = arms[0]
    text = ";".join(edges[i] for i in rng.permutation(len(edges))) + ":" + goal[-1]
    return text, tuple(reversed(goal))


STRINGS = Family(
    "strings",
    _LETTERS,
    {
        "reverse": lambda x: x[::-1],
        "next": _shift(_LETTERS, 1),
        "rotate": lambda x: x[1:] + x[:1],
        "mirror": lambda x: tuple(_LETTERS[len(_LETTERS) - 1 - _LETTERS.index(s)] for s in x),
        "ends": lambda x: (x[-1], *x[1:-1], x[0]),
        "pairs": _swap_pairs,
        "prev": _shift(_LETTERS, -1),
        "sort": lambda x: tuple(sorted(x)),
    },
    _riffle,
    _draw_string(_LETTERS),
    "Rewrite the string {text} (letters A to H, cyclic). Answer with the new string only.",
    {
        "reverse": "write it backwards",
        "next": "replace each letter by the next one (H becomes A)",
        "rotate": "move the first letter to the end",
        "mirror": "replace A by H, B by G and so on",
        "ends": "swap the first and the last letter",
        "pairs": "swap letters 1 and 2, letters 3 and 4, and so on",
        "prev": "replace each letter by the one before (A becomes H)",
        "sort": "put the letters in alphabetical order",
    },
)

DIGITS = Family(
    "digits",
    _DIGITS,
    {
        "negate": _numbers(lambda d: [-a for a in d]),
        "plus": _numbers(lambda d: [a + 3 for a in d]),
        "shift": lambda x: x[-1:] + x[:-1],
        "triple": _numbers(lambda d: [3 * a for a in d]),
        "sums": _numbers(lambda d: np.cumsum(d).tolist()),
        "steps": _numbers(lambda d: [d[0], *(b - a for a, b in itertools.pairwise(d))]),
        "flip": lambda x: x[::-1],
        "lead": _numbers(lambda d: [d[0], *(a + d[0] for a in d[1:])]),
    },
    _riffle,
    _draw_string(_DIGITS),
    "Transform the digits {text} (arithmetic modulo 10, digit by digit). Answer with the new digits only.",
    {
        "negate": "replace each digit d by 10 - d modulo 10",
        "plus": "add 3 to each digit modulo 10",
        "shift": "move the last digit to the front",
        "triple": "multiply each digit by 3 modulo 10",
        "sums": "replace each digit by the sum of all digits up to it, modulo 10",
        "steps": "keep the first digit and replace each other one by its difference to the digit before, modulo 10",
        "flip": "write the digits backwards",
        "lead": "keep the first digit and add it to each other one, modulo 10",
    },
)

STAR_GRAPH = Family(
    "star_graph",
    _NODES,
    {
        "cross": _swap_pairs,
        "forward": lambda x: x[::-1],
        "up": _shift(_NODES, 1),
        "roll": lambda x: x[1:] + x[:1],
        "inner": lambda x: (x[0], *x[1:-1][::-1], x[-1]),
        "down": _shift(_NODES, -1),
    },
    _swap_first,
    _draw_star,
    "A star graph has the edges {text} (each two letters, the one farther from the centre first; after the colon the goal, a leaf). "
    "Write the walk from the goal back to the centre as letters without separators. Answer with the letters only.",
    {
        "cross": "swap nodes 1 and 2 of the walk, nodes 3 and 4, and so on",
        "forward": "write the walk from the centre to the goal instead",
        "up": "write for each node the next letter (W becomes J)",
        "roll": "move the first node of the walk to its end",
        "inner": "keep the first and the last node and write those between in reverse order",
        "down": "write for each node the letter before (J becomes W)",
    },
)

FAMILIES: dict[str, Family] = {family.name: family for family in (STRINGS, DIGITS, STAR_GRAPH)}
