"""Tasks with a scratch pad: the rules stand in the problem, and a chain before the answer is allowed (`fstsim.llm.tasks.chains`).

``scratch:strings:rotate+sort+next`` has these rules in every problem, ``scratch:strings:any3`` three rules drawn anew for
each. The verifier takes what follows the last ``=``, so that a direct answer and a chain both pay. What is shown as right and as
old behaviour is the last part of the name: without one the direct answer is right and the chain is old, so that
``--replay-share`` replays chains; ``/chain`` the other way round. ``/mass``, for ``--old``, measures how likely the model is to
begin a chain.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar, Literal

import numpy as np

from fstsim.errors import InputError
from fstsim.llm.tasks.chains import BACKWARD, FORWARD, MARKS, Step, final_answer, right_steps, steps_of, write
from fstsim.llm.tasks.families import FAMILIES, UNNAMED, Family, Symbols
from fstsim.llm.tasks.rules import RuleTask, names_rules, parse_rules, parse_start
from fstsim.llm.types import Demonstrated, Problem, Score, Split, Task

PREFIX = "scratch:"
_ANY = re.compile(r"any([1-6])")
_FORM = (
    "a scratch task is scratch:family:rule+rule or scratch:family:anyK (K of 2 to 6 random rules), or either with /chain or /mass, "
    f"with family one of {', '.join(FAMILIES)}"
)
_AT_ONCE = 64


def _digest(problem: Problem, what: str) -> np.random.Generator:
    return np.random.default_rng(list(hashlib.sha256(f"{what}:{problem.uid}".encode()).digest()))


def with_rules(problem: Problem, rules: Sequence[str]) -> Problem:
    """``problem`` with rules that it states itself, in the world's notation and in words."""
    explained = FAMILIES[problem.family].explained
    words = "; then ".join(explained[word] for word in rules)
    question = f"{problem.question}\nRules, one after the other: {words}."
    return replace(problem, question=question, rules=tuple(rules))


@cache
def _problems(family: str, rules: tuple[str, ...], depth: int, size: int | None, split: Split) -> tuple[Problem, ...]:
    words = list(FAMILIES[family].rules)
    found = []
    for problem in RuleTask(family, (), size=size).problems(split):
        drawn = _digest(problem, f"rules {depth}").integers(len(words), size=depth)
        found.append(with_rules(problem, rules or [words[k] for k in drawn]))
    return tuple(found)


@dataclass(frozen=True)
class ScratchTask:
    """Apply the rules that stand in each problem, with or without a chain.

    ``rules`` are those of every problem, or none where ``depth`` rules are drawn for each. Errors: InputError for rules that no
    word names, or so few that a chain has no step.
    """

    family: str
    rules: tuple[str, ...] = ()
    depth: int = 0
    shows: Literal["direct", "chain"] = "direct"
    size: int | None = None
    ending: ClassVar[str] = ""

    def __post_init__(self) -> None:
        task = RuleTask(self.family, self.rules, size=self.size)
        object.__setattr__(self, "size", task.size)
        if UNNAMED in self.rules:
            raise InputError(f"a scratch task states its rules, and no word says {UNNAMED!r}")
        depth = len(self.rules) or self.depth
        object.__setattr__(self, "depth", depth)
        if not 2 <= depth <= 6:
            raise InputError(f"a scratch task has 2 to 6 rules, got {depth}: a chain needs a step")

    @property
    def name(self) -> str:
        """``scratch:family[@size]:rules``, with ``/chain`` where the chain is what is shown as right."""
        size = "" if self.size is None else f"@{self.size}"
        rules = "+".join(self.rules) or f"any{self.depth}"
        return f"{PREFIX}{self.family}{size}:{rules}{'/chain' if self.shows == 'chain' else self.ending}"

    @property
    def exact(self) -> bool:
        """False: a direct answer and every chain to it have reward 1."""
        return False

    @property
    def _family(self) -> Family:
        return FAMILIES[self.family]

    @property
    def steps(self) -> int:
        """Steps of a right chain."""
        return steps_of(self._family, self.depth)

    def problems(self, split: Split) -> Sequence[Problem]:
        """The family's problems of the split, each with its rules."""
        return _problems(self.family, self.rules, self.depth, self.size, split)

    def right(self, problem: Problem) -> str:
        """The right list."""
        return "".join(self._family.apply(problem.rules, parse_start(problem)))

    def chain(self, problem: Problem) -> str:
        """The right chain and the answer; about half of all steps are in notation B, always the same ones of a problem."""
        lists: tuple[Symbols, ...] = right_steps(self._family, problem.rules, parse_start(problem))
        back = _digest(problem, "notation").random(len(lists)) < 0.5
        steps = [Step.of(x, BACKWARD if b else FORWARD) for x, b in zip(lists, back, strict=True)]
        return write(steps, self.right(problem))

    def answer(self, problem: Problem) -> str:
        """What is shown as right: the list alone, or the chain with it."""
        return self.chain(problem) if self.shows == "chain" else self.right(problem)

    def old_answer(self, problem: Problem) -> str:
        """The other one."""
        return self.right(problem) if self.shows == "chain" else self.chain(problem)

    def rule_words(self, template: str) -> None:
        """None: the rules stand in the problem, no context has to say them."""

    def next_task(self, met: Sequence[Task], template: str) -> Demonstrated | None:
        """The first single rule of the family, without its word: what the relearning probe learns."""
        return RuleTask(self.family, (), size=self.size).next_task(met, template)

    def score(self, problem: Problem, completion: str) -> Score:
        """1 if the answer is right, whatever steps stand before it."""
        wrote, right = final_answer(completion), self.right(problem)
        said = "no answer" if wrote is None else f"wrote: {wrote[:64]}"
        start = "".join(parse_start(problem))
        verdict = "correct" if wrote == right else "wrong"
        return Score(float(wrote == right), f"{verdict}. start: {start} {said} right: {right}")


@dataclass(frozen=True)
class ChainMass(ScratchTask):
    """A scratch task as an old behaviour: the probability that the first token begins a chain, exactly."""

    ending: ClassVar[str] = "/mass"

    def measure(self, policy: Any, problems: int) -> tuple[Literal["probability", "nll"], np.ndarray]:
        """The mass of writing a chain on each of the first ``problems`` test problems; InputError outside of the world."""
        return "probability", np.exp(chain_log_mass(policy, list(self.problems("test"))[:problems]))


def chain_log_mass(policy: Any, problems: Sequence[Problem], context: str = "") -> np.ndarray:
    """Log-probability ``(n,)``, nats, that the completion of each problem begins with a mark of a step.

    Raises InputError for a policy that does not write the world's notation: it has no such first token.
    """
    if policy.template != "world":
        raise InputError(
            "the mass of chains is measured of models of the world only: others have no first token of a chain"
        )
    marks = policy.tokenizer.convert_tokens_to_ids(list(MARKS))
    found = []
    for first in range(0, len(problems), _AT_ONCE):
        some = problems[first : first + _AT_ONCE]
        shown = policy.forced([policy.encode(context, p) for p in some], [[marks[0]]] * len(some))
        logp = policy.logits(shown).detach()[:, 0].double().log_softmax(-1)
        found.append(logp[:, marks].logsumexp(-1).cpu().numpy())
    return np.concatenate(found)


def parse_scratch(name: str) -> ScratchTask:
    """The task called ``scratch:family[@size]:rules[/chain or /mass]``; InputError says what is allowed."""
    rest, slash, last = name.removeprefix(PREFIX).partition("/")
    head, colon, words = rest.partition(":")
    if not (colon and names_rules(head)) or (slash and last not in ("chain", "mass")):
        raise InputError(f"task {name!r} is unknown; {_FORM}")
    drawn = _ANY.fullmatch(words)
    # the family's own reader checks size and rules
    given = parse_rules(f"{head}:{next(iter(FAMILIES[head.partition('@')[0]].rules))}" if drawn else f"{head}:{words}")
    rules, depth = ((), int(drawn[1])) if drawn else (given.rules, 0)
    if last == "mass":
        return ChainMass(given.family, rules, depth, size=given.size)
    return ScratchTask(given.family, rules, depth, "chain" if last == "chain" else "direct", given.size)
