"""What the base model is trained on: rules applied, problems without rules (a mixture), rules written from examples.

Three kinds of lines, the loss on what follows the mark only:

- ``rules | problem = answer``: one, two or three rules, so that context is followed;
- ``| problem = answer``: without rules the base is a mixture over behaviours (`NO_CONTEXT`);
- ``in > out ; in > out ; in > out ; in > out ? rules``: the reflection; lists only, so that a fast channel can write
  the same line from the environment's feedback.

A scratch corpus has half of these lines with a problem, and in place of the other half chains, and some direct answers, under
2 to 4 rules (`fstsim.llm.tasks.chains`), each step of a chain in either notation.

Problems come from the train split alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fstsim.errors import InputError
from fstsim.llm.pretraining.tokenizer import BOS, EOS, PAD, vocabulary
from fstsim.llm.tasks.chains import MARKS, Step, right_steps, write
from fstsim.llm.tasks.families import FAMILIES, Family, rule_masses
from fstsim.llm.tasks.rules import SIZES, check_size, draw_problem
from fstsim.settings import check_types

DEPTHS: Mapping[int, float] = {1: 0.40, 2: 0.45, 3: 0.15}
"""Share of lines with one, two and three rules among those with rules, where a configuration does not say otherwise."""
NO_CONTEXT: Mapping[int, float] = {0: 0.30, 1: 0.50, 2: 0.20}
"""Mass of the identity, of single rules and of pairs of rules without context; single rules as `rule_masses` says."""
NO_RULES_SHARE = 0.2
"""Share of lines without rules among the lines with a problem."""
EXAMPLES = 4
"""Examples shown in a reflection."""
REFLECTION_DEPTHS: Mapping[int, float] = {1: 0.5, 2: 0.5}
"""Share of reflections with one and with two rules."""
WALKS_FIRST = 0.25
"""Share of a training, at its start, in which star graphs show the bare walk only: until it can be found, no rule on it
can be learned (a mixed diet from the start still had 3 % after 600 steps, see paper/LOG.md)."""
EMPHASIS: Mapping[str, float] = {"strings": 0.8, "digits": 1.0, "star_graph": 1.5}
"""Lines with a problem, by family, relative to the configured number: finding a walk takes longest to learn."""

SCRATCH_DEPTHS = (2, 3, 4)
"""Rules of a line of the scratch corpus, each as often."""
OLD_LINES: Mapping[str, float] = {"strings": 0.4, "digits": 0.5, "star_graph": 0.5}
"""Old lines of a scratch corpus by family, relative to the configured number: half, or a third, of what a base is trained on."""
CHAIN_LINES: Mapping[str, float] = {"strings": 2 / 3, "digits": 5 / 6, "star_graph": 1 / 3}
"""Chains by family, relative to the configured number of lines: to apply one of several rules is new, and takes most lines (with a
quarter of all lines as chains, 200 steps of 64 lines wrote 6 % of chains of two rules, see paper/LOG.md)."""
DIRECT_LINES = 1 / 6
"""Direct answers under as many rules, relative to it."""

_ID = {token: i for i, token in enumerate(vocabulary())}
IGNORED = -100
Batch = tuple[torch.Tensor, torch.Tensor]
"""``tokens, labels (B, T)``, see `collate`."""


@dataclass(frozen=True)
class CorpusConfig:
    """Lines a step and a family, and sizes of the start lists."""

    problems: int = 96
    """lines with a problem, a family"""
    reflections: int = 24
    """reflections, a family"""
    sizes: Mapping[str, tuple[int, ...]] | None = None
    """symbols of a start list, by family: a step's lines have one size, the sizes take turns; None: those of the small world"""
    depths: tuple[float, ...] | None = None
    """shares of lines with one, two, ... rules among those with rules; None: `DEPTHS`"""
    scratch: bool = False
    """half as many lines with a problem, and chains and direct answers under 2 to 4 rules beside them; star graphs are never bare"""

    def __post_init__(self) -> None:
        check_types(self)
        if self.problems < 1 or self.reflections < 1:
            raise InputError(f"problems and reflections must be at least 1, got {self.problems} and {self.reflections}")
        if self.sizes is not None and set(self.sizes) != set(FAMILIES):
            raise InputError(
                f"sizes must name the families {', '.join(FAMILIES)}; got {', '.join(self.sizes) or 'none'}"
            )
        for family, sizes in (self.sizes or {}).items():
            if not sizes:
                raise InputError(f"sizes of {family} must not be empty")
            for size in sizes:
                check_size(family, size)
        if self.depths is not None and not (
            self.depths and min(self.depths) >= 0.0 and abs(sum(self.depths) - 1.0) < 1e-6
        ):
            raise InputError(f"depths must be shares that sum to 1, got {self.depths}")

    def sizes_of(self, family: str) -> tuple[int, ...]:
        """Symbols of the start lists of ``family``."""
        return (SIZES[family],) if self.sizes is None else tuple(self.sizes[family])

    def size(self, family: str, step: int = 0) -> int:
        """Symbols of a start list of ``family`` in training step ``step``."""
        sizes = self.sizes_of(family)
        return sizes[step % len(sizes)]

    @property
    def shares(self) -> Mapping[int, float]:
        """Share of lines by number of rules, among those with rules."""
        return DEPTHS if self.depths is None else dict(enumerate(self.depths, start=1))

    def worlds(self) -> list[dict[str, int]]:
        """Sizes by family, as an exam asks them: the largest of each, then the next, until each has been named once."""
        each = {family: sorted(self.sizes_of(family), reverse=True) for family in FAMILIES}
        most = max(map(len, each.values()))
        return [{family: sizes[k] for family, sizes in each.items() if k < len(sizes)} for k in range(most)]


def _pick(weights: Mapping[int, float], rng: np.random.Generator) -> int:
    keys = list(weights)
    return keys[int(np.searchsorted(np.cumsum(list(weights.values())), rng.random() * 0.9999999))]


def behaviour_without_context(family: Family, rng: np.random.Generator) -> tuple[str, ...]:
    """Rules that a line without rules follows, drawn from the mixture."""
    depth = _pick(NO_CONTEXT, rng)
    if depth == 1:
        masses = rule_masses(family)
        return (list(masses)[int(np.searchsorted(np.cumsum(list(masses.values())), rng.random() * 0.9999999))],)
    return some_rules(family, depth, rng)


def some_rules(family: Family, depth: int, rng: np.random.Generator) -> tuple[str, ...]:
    """``depth`` rules, uniform and independent."""
    words = list(family.rules)
    return tuple(words[i] for i in rng.integers(len(words), size=depth))


Line = tuple[list[str], list[str]]  # what is shown, what is to be written


def problem_line(
    family: Family, size: int, rng: np.random.Generator, bare: bool = False, shares: Mapping[int, float] = DEPTHS
) -> Line:
    """One line with a problem of the train split, with rules (as many as ``shares`` says) or without.

    ``bare``: the start list is the answer.
    """
    problem, start = draw_problem(family, rng, "train", size)
    shown: tuple[str, ...]
    rules: tuple[str, ...] = ()
    if bare:
        shown = rules
    elif rng.random() < NO_RULES_SHARE:
        shown, rules = (), behaviour_without_context(family, rng)
    else:
        shown = rules = some_rules(family, _pick(shares, rng), rng)
    return [*shown, "|", *problem.text, "="], [*family.apply(rules, start)]


def reflection_line(family: Family, size: int, rng: np.random.Generator) -> Line:
    """One reflection: examples of one or two rules, then the rules."""
    rules = some_rules(family, _pick(REFLECTION_DEPTHS, rng), rng)
    shown: list[str] = []
    for k in range(EXAMPLES):
        start = draw_problem(family, rng, "train", size)[1]
        shown += [*([";"] if k else []), *start, ">", *family.apply(rules, start)]
    return [*shown, "?"], list(rules)


def scratch_line(family: Family, size: int, rng: np.random.Generator, chain: bool) -> Line:
    """One line of the train split under 2 to 4 rules: a right chain, each step in either notation, or the answer alone."""
    problem, start = draw_problem(family, rng, "train", size)
    rules = some_rules(family, int(rng.choice(SCRATCH_DEPTHS)), rng)
    right = family.apply(rules, start)
    written = [*right]
    if chain:
        steps = [Step.of(each, MARKS[int(rng.integers(len(MARKS)))]) for each in right_steps(family, rules, start)]
        written = [*write(steps, "".join(right))]
    return [*rules, "|", *problem.text, "="], written


def longest_line(config: CorpusConfig) -> int:
    """Tokens of the longest line that ``config`` can draw, the first token and the last written one included."""
    longest = 0
    rules, guessed = (max(k for k, share in shares.items() if share) for shares in (config.shares, REFLECTION_DEPTHS))
    rng = np.random.default_rng(0)
    for name, family in FAMILIES.items():
        for size in config.sizes_of(name):
            text = len(family.draw(rng, size)[0])  # one token a character, as long for every problem of a size
            longest = max(longest, 1 + rules + 1 + text + 1 + size)
            if config.scratch:  # a list for every rule, the walk, and a mark before each
                longest = max(longest, 1 + max(SCRATCH_DEPTHS) + 1 + text + 1 + (1 + max(SCRATCH_DEPTHS)) * (1 + size))
            longest = max(longest, 1 + EXAMPLES * (2 * size + 1) + EXAMPLES - 1 + 1 + guessed)
    return longest


def collate(lines: Sequence[Line]) -> Batch:
    """``tokens, labels (B, T)``: padded on the right, labels (already shifted) ignored outside of what is to be written."""
    rows = [([BOS, *shown, *written], [*written, EOS]) for shown, written in lines]
    length = max(len(tokens) for tokens, _ in rows)
    tokens = np.full((len(rows), length), _ID[PAD])
    labels = np.full((len(rows), length), IGNORED)
    for i, (text, target) in enumerate(rows):
        tokens[i, : len(text)] = [_ID[t] for t in text]
        labels[i, len(text) - len(target) : len(text)] = [_ID[t] for t in target]
    return torch.from_numpy(tokens), torch.from_numpy(labels)


def training_batches(config: CorpusConfig, seed: int, step: int, progress: float = 1.0) -> list[Batch]:
    """The batches of one step, one for each family and kind (lines of about one length): a function of the arguments.

    ``progress`` is the share of the training that is done, for `WALKS_FIRST`.
    """
    rng = np.random.default_rng([seed, step])
    batches = []
    for family in FAMILIES.values():
        size = config.size(family.name, step)
        lines = round(EMPHASIS[family.name] * config.problems)
        bare = family.name == "star_graph" and progress < WALKS_FIRST and not config.scratch
        old = round(OLD_LINES[family.name] * config.problems) if config.scratch else lines
        batches.append(collate([problem_line(family, size, rng, bare, config.shares) for _ in range(old)]))
        for chain, share in ((False, DIRECT_LINES), (True, CHAIN_LINES[family.name])) if config.scratch else ():
            more = max(1, round(share * config.problems))
            batches.append(collate([scratch_line(family, size, rng, chain) for _ in range(more)]))
        batches.append(collate([reflection_line(family, size, rng) for _ in range(config.reflections)]))
    return batches
