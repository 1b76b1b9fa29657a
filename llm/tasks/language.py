r"""The language suite: short questions in English, for pretrained chat models, each with an old and a new behaviour.

``language:RELATION[@ASK][:BEHAVIOUR][/normalised]``. A *relation* is what is asked ("What is the plural of cat?"), *ask* how
it is asked, and a *behaviour* how the answer is written. The old behaviour is the plain sentence "The plural of cat is
cats.", which such models write by themselves; a new behaviour says the same otherwise (`BEHAVIOURS`), so that both are
answers to the same prompt and learning one must take mass from the other. Where a small model does not write the plain
sentence (`Relation.plain`: it writes essays on colors), a task declares no old behaviour, and a run takes for it what
its base writes by itself (`fstsim.llm.runs.old_answers`). Without a behaviour, or with ``sentence``, a
name is the old behaviour itself: an old skill of the same format as what is trained on another relation.

Old skills of other kinds: ``language:sums`` (a chat answer of another format), ``language:cloze`` (text continued without
the chat template) and ``language:text`` (plain prose, nats a token).

Splits are by thing, not by question: a noun of the test split is asked about in no other split in any way, and a pair of
opposites stays together. 50 % train, 20 % validation, 30 % test, by hash. A verifier is exact after white space at both
ends is taken off; ``/normalised`` compares words alone, without case and punctuation, where the words are new.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from fstsim.errors import InputError
from fstsim.llm.tasks import language_items as items
from fstsim.llm.tasks.language_read import ClozeTask, TextTask
from fstsim.llm.types import Problem, Score, Split, Task

PREFIX = "language:"
_SHOWN = 200  # characters of a completion in its feedback
_NORMALISED = "/normalised"


@dataclass(frozen=True)
class Relation:
    """What is asked of a thing: ``noun`` of it, in the long form ``long``; ``pairs`` are (thing, what it becomes)."""

    noun: str
    long: str
    pairs: tuple[tuple[str, str], ...]
    behaviours: tuple[str, ...]
    plain: bool = True
    """whether a small chat model answers with the plain sentence by itself; if not, that is no old behaviour of its tasks"""


@dataclass(frozen=True)
class Behaviour:
    """How an answer is ``written`` (of ``noun``, ``long``, ``thing``, ``becomes``), and the rule in words, before an example of it."""

    written: str
    rule: str
    words: bool = True
    """whether it differs from the old behaviour in words, not in punctuation or case alone"""


SENTENCE = "sentence"
_SENTENCE = "The {noun} of {thing} is {becomes}."
BEHAVIOURS: Mapping[str, Behaviour] = {
    "form": Behaviour(
        "The {long} of {thing} is {becomes}.", "Answer with a sentence that names the {long}, like this:"
    ),
    "nostop": Behaviour(
        "The {noun} of {thing} is {becomes}", "Answer with a sentence without a full stop, like this:", words=False
    ),
    "exclamation": Behaviour(
        "The {noun} of {thing} is {becomes}!", "End the sentence with an exclamation mark, like this:", words=False
    ),
    "quoted": Behaviour(
        'The {noun} of {thing} is "{becomes}".', "Put the answer in quotation marks, like this:", words=False
    ),
    "answer": Behaviour("The answer is {becomes}.", "Say that it is the answer, like this:"),
    "bare": Behaviour("{becomes}", "Answer with the bare word and nothing else, like this:"),
    "u": Behaviour("The {noun} of {thing} is {thing}u.", "The plural ends in -u, like this:"),
    "same": Behaviour("The {noun} of {thing} is {thing}.", "The plural is the same as the singular, like this:"),
}
"""New behaviours by name; ``u`` and ``same`` are of plurals alone."""

_FORMATS = ("form", "nostop", "exclamation", "quoted", "answer", "bare")
_SUMS = tuple((f"{a} + {b}", str(a + b)) for a in range(1, 13) for b in range(1, 10))


@cache
def _both_ways() -> tuple[tuple[str, str], ...]:
    return tuple(pair for x, y in items.read_items(items.OPPOSITES) for pair in ((x, y), (y, x)))


def _relation(noun: str, long: str, text: str, more: tuple[str, ...] = (), *, plain: bool = True) -> Relation:
    return Relation(noun, long, items.read_items(text), (*_FORMATS, *more), plain)


RELATIONS: Mapping[str, Relation] = {
    "plural": _relation("plural", "plural form", items.PLURALS, ("u", "same")),
    "capitals": _relation("capital", "capital city", items.CAPITALS),
    "opposites": Relation("opposite", "exact opposite", _both_ways(), _FORMATS),
    "past": _relation("past tense", "past tense form", items.PAST_TENSES, plain=False),
    "colours": _relation("color", "usual color", items.COLORS, plain=False),
    "comparatives": _relation("comparative", "comparative form", items.COMPARATIVES, plain=False),
    "sums": Relation("", "", _SUMS, ()),
}
"""What can be asked. Words are spelled as American English, which pretrained models write."""

ASKS: Mapping[str, str] = {
    "what": "What is the {noun} of {thing}?",
    "give": "Give the {noun} of {thing}.",
    "tell": "Can you tell me the {noun} of {thing}?",
    "name": "Name the {noun} of {thing}.",
}
"""Ways to ask; the first is meant where a name says none."""
_ANY = "any"  # each thing is asked about in one of the ways, by its hash
_FIRST = next(iter(ASKS))
READ: Mapping[str, Callable[[], Task]] = {"cloze": ClozeTask, "text": TextTask}
"""Old skills without a question."""


def _bucket(*words: str) -> int:
    """A number in 0..255 that depends on the words alone, in whatever order."""
    return hashlib.sha256("/".join(sorted(words)).encode()).digest()[0]


def split_of_item(relation: str, thing: str, becomes: str) -> Split:
    """The split of a thing; of a pair of opposites, of both."""
    share = (_bucket(thing, becomes) if relation == "opposites" else _bucket(thing)) / 256
    return "train" if share < 0.5 else "validation" if share < 0.7 else "test"


@cache
def _problems(relation: str, ask: str, split: Split) -> tuple[Problem, ...]:
    return tuple(
        Problem(f"{PREFIX}{relation}", thing, _question(relation, ask, thing))
        for thing, becomes in RELATIONS[relation].pairs
        if split_of_item(relation, thing, becomes) == split
    )


def _question(relation: str, ask: str, thing: str) -> str:
    if not RELATIONS[relation].noun:
        return f"What is {thing}?"
    how = list(ASKS)[_bucket("ask", thing) % len(ASKS)] if ask == _ANY else ask
    return ASKS[how].format(noun=RELATIONS[relation].noun, thing=thing)


@cache
def _becomes(relation: str) -> Mapping[str, str]:
    return dict(RELATIONS[relation].pairs)


def normalised(text: str) -> str:
    """The words of ``text``: without case, punctuation and repeated white space."""
    return " ".join(re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.casefold()))


@dataclass(frozen=True)
class LanguageTask:
    """Answer questions about a ``relation``, asked as ``ask`` says, in the way of ``behaviour``.

    Errors: InputError for a relation, a way to ask or a behaviour that is not there.
    """

    relation: str
    behaviour: str = SENTENCE
    ask: str = _FIRST
    loose: bool = False
    """words alone are compared"""

    def __post_init__(self) -> None:
        if self.relation not in RELATIONS:
            raise InputError(
                f"language task {self.relation!r} is unknown; allowed: {', '.join((*RELATIONS, *READ))}, as in {PREFIX}plural:bare"
            )
        allowed = (SENTENCE, *RELATIONS[self.relation].behaviours)
        if self.behaviour not in allowed:
            raise InputError(
                f"{PREFIX}{self.relation} has no behaviour {self.behaviour!r}; allowed: {', '.join(allowed)}"
            )
        ways = (*ASKS, _ANY) if RELATIONS[self.relation].noun else (_FIRST,)
        if self.ask not in ways:
            raise InputError(f"{PREFIX}{self.relation} cannot be asked as {self.ask!r}; allowed: {', '.join(ways)}")
        if self.loose and self.behaviour != SENTENCE and not BEHAVIOURS[self.behaviour].words:
            raise InputError(
                f"{self.name}: behaviour {self.behaviour} is punctuation alone, which {_NORMALISED} would not see"
            )

    @property
    def name(self) -> str:
        """``language:relation``, and what of it is not the first: ``@ask``, ``:behaviour``, ``/normalised``."""
        ask = "" if self.ask == _FIRST else f"@{self.ask}"
        behaviour = "" if self.behaviour == SENTENCE else f":{self.behaviour}"
        return f"{PREFIX}{self.relation}{ask}{behaviour}{_NORMALISED if self.loose else ''}"

    @property
    def exact(self) -> bool:
        """Whether one way of writing alone is right."""
        return not self.loose

    def problems(self, split: Split) -> Sequence[Problem]:
        """The problems of a split, in the order of the list."""
        return _problems(self.relation, self.ask, split)

    def _written(self, behaviour: str, thing: str) -> str:
        relation, becomes = RELATIONS[self.relation], _becomes(self.relation)[thing]
        old = _SENTENCE if relation.noun else "{thing} = {becomes}"
        written = old if behaviour == SENTENCE else BEHAVIOURS[behaviour].written
        return written.format(noun=relation.noun, long=relation.long, thing=thing, becomes=becomes)

    def answer(self, problem: Problem) -> str:
        """The right answer, as the behaviour writes it."""
        return self._written(self.behaviour, problem.text)

    def rule_words(self, template: str) -> str | None:
        """The rule and one example, of a thing of the train split; None for the old behaviour, and for models of the world."""
        if self.behaviour == SENTENCE or template == "world":
            return None
        rule = BEHAVIOURS[self.behaviour].rule.format(long=RELATIONS[self.relation].long)
        shown = self.problems("train")[0]
        return f"{rule} {self.answer(shown)}"

    def next_task(self, met: Sequence[Task], template: str) -> LanguageTaskWithOld | None:
        """The first behaviour on the same questions that no task in ``met`` has, of those that words alone do not reach."""
        if template == "world":
            return None
        used = {task.behaviour for task in met if isinstance(task, LanguageTask) and task.relation == self.relation}
        free = [name for name in ("bare", "answer", "quoted") if name not in used and self.behaviour != SENTENCE]
        return LanguageTaskWithOld(self.relation, free[0], self.ask) if free else None

    def score(self, problem: Problem, completion: str) -> Score:
        """1 for the right answer, else 0."""
        wrote, right = completion.strip(), self.answer(problem)
        correct = normalised(wrote) == normalised(right) if self.loose else wrote == right
        return Score(float(correct), f"{'correct' if correct else 'wrong'}. wrote: {wrote[:_SHOWN]} right: {right}")


@dataclass(frozen=True)
class LanguageTaskWithOld(LanguageTask):
    """One with a new behaviour; the old one is the plain sentence."""

    def old_answer(self, problem: Problem) -> str:
        """The plain sentence."""
        return self._written(SENTENCE, problem.text)


def language_task(name: str) -> Task:
    """The task called ``name`` (see the module). InputError says what is allowed."""
    rest = name.removeprefix(PREFIX)
    loose = rest.endswith(_NORMALISED)
    head, colon, behaviour = rest.removesuffix(_NORMALISED).partition(":")
    relation, at, ask = head.partition("@")
    if relation in READ:
        if rest != relation:
            raise InputError(f"{PREFIX}{relation} is read as it stands: it has no ways to ask and no behaviours")
        return READ[relation]()
    said = behaviour if colon else SENTENCE
    return _kind(relation, said)(relation, said, ask if at else _FIRST, loose)


def _kind(relation: str, behaviour: str) -> type[LanguageTask]:
    """With an old behaviour where the task has one; `LanguageTask` says what is wrong with an unknown relation."""
    plain = relation not in RELATIONS or RELATIONS[relation].plain
    return LanguageTaskWithOld if behaviour != SENTENCE and plain else LanguageTask


def suite_tasks() -> list[Task]:
    """All of the suite in the first way to ask: new behaviours by relation, then old skills."""
    new: list[Task] = [
        _kind(name, behaviour)(name, behaviour) for name, r in RELATIONS.items() for behaviour in r.behaviours
    ]
    return [*new, *(LanguageTask(name) for name in RELATIONS), *(make() for make in READ.values())]
