r"""Answers that the error of a piece is measured on: no test problem is among them, and what they say of every quantity.

Errors and noise of pieces are kept in log-odds of these answers, where what one piece did is neither blown up nor hidden by what
the next ones do: :math:`\ell = \log p - \log(1 - p)`, a probability within `CERTAIN` of 1 counted as if it were there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fstsim.llm.forecast.reading import OLD, Reading
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.behaviour import answer_logprobs
from fstsim.llm.types import Answered, Demonstrated, Task, rule_words

Array = NDArray[np.float64]

RIGHT = "right answers"
"""Name of the answers to be learned among the controls."""
CERTAIN = 1e-6


def odds(logp: Array) -> Array:
    """Log-odds of log-probabilities."""
    held = np.minimum(logp, np.log1p(-CERTAIN))
    return np.asarray(held - np.log(-np.expm1(held)))


def from_odds(found: Array) -> Array:
    """Log-probabilities of log-odds."""
    return np.asarray(-np.logaddexp(0.0, -found))


@dataclass(frozen=True)
class Layout:
    """Which answers a control reading ``(n,)`` has: counts by name in their order, and what the start gave them.

    ``same`` are places within the old answers at which the old answer is the right one.
    """

    counts: Mapping[str, int]
    same: tuple[int, ...]
    start: Array

    def reading(self, logp: Array) -> Reading:
        r"""What log-probabilities ``(n,)`` say of each quantity, as if the controls were the held-out problems; nan of what they cannot.

        KL is that of the three outcomes right, old, other (or of those that the task has): never more than the whole one.
        """
        here, begun = self._parts(logp), self._parts(self.start)
        right = here.get(RIGHT, np.full(1, np.nan))
        old = {name: values for name, values in here.items() if name != RIGHT}
        apart = np.ones(len(old.get(OLD, ())), dtype=bool)
        apart[list(self.same)] = False
        now, then = (_outcomes(part.get(RIGHT), part.get(OLD), apart) for part in (here, begun))
        success = {name: np.exp(values) for name, values in old.items() if name != OLD}
        if OLD in old:
            old[OLD] = old[OLD][apart]
        if OLD in old and not old[OLD].size:
            del old[OLD]
        return Reading(np.exp(right), right, old, success, _divergence(now, then), _divergence(then, now))

    def _parts(self, logp: Array) -> dict[str, Array]:
        cuts = np.cumsum(list(self.counts.values()))[:-1]
        return dict(zip(self.counts, np.split(logp, cuts), strict=True)) if self.counts else {}

    def sizes(self, change: Array) -> Array:
        """Root mean square of ``change (n,)`` over the answers of one name, at the place of each, ``(n,)``."""
        each = [np.full(len(part), np.sqrt(np.mean(part**2))) for part in self._parts(change).values()]
        return np.concatenate(each)

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        # pairs: JSON sorts the keys of an object
        return {
            "counts": [list(pair) for pair in self.counts.items()],
            "same": list(self.same),
            "start": self.start.tolist(),
        }

    @classmethod
    def from_dict(cls, held: Mapping[str, Any]) -> Layout:
        """From what `to_dict` made; raises KeyError or TypeError where it is none."""
        return cls(
            {name: int(count) for name, count in held["counts"]},
            tuple(held["same"]),
            np.array(held["start"], dtype=np.float64),
        )


def _outcomes(right: Array | None, old: Array | None, apart: Array) -> Array:
    """Probabilities ``(n, 3)`` of the right answer, the old one and any other."""
    n = len(right if right is not None else old if old is not None else ())
    p = np.zeros(n) if right is None else np.exp(right)
    q = np.zeros(n) if old is None else np.where(apart, np.exp(old), 0.0)
    found = np.stack([p, q, np.clip(1.0 - p - q, 0.0, 1.0)], axis=-1)
    return np.asarray(np.maximum(found, CERTAIN * 1e-6))


def _divergence(of: Array, other: Array) -> Array:
    return np.asarray((of * (np.log(of) - np.log(other))).sum(-1)) if len(of) else np.full(1, np.nan)


@dataclass(frozen=True)
class Control:
    """Reads log-probabilities of what is ``asked``: by name a context, problems and answers."""

    policy: Policy
    asked: Mapping[str, tuple[str, Sequence[Any], Sequence[str]]]
    otherwise: Callable[[], Array]
    """the reading where nothing is asked: a task without answers"""

    def __call__(self) -> Array:
        """The reading ``(n,)`` of the policy as it is."""
        if not self.asked:
            return self.otherwise()
        return np.concatenate([answer_logprobs(self.policy, (c,), p, a)[0] for c, p, a in self.asked.values()])

    def layout(self, start: Array) -> Layout | None:
        """Of a reading, ``start`` that at the start of the run; None where nothing is asked."""
        if not self.asked:
            return None
        right, old = ([*self.asked[name][2]] if name in self.asked else [] for name in (RIGHT, OLD))
        same = tuple(k for k, (one, other) in enumerate(zip(right, old, strict=False)) if one == other)
        return Layout({name: len(answers) for name, (_, _, answers) in self.asked.items()}, same, start)


def control_of(
    policy: Policy, task: Task, skills: Sequence[Task], context: str, count: int, otherwise: Callable[[], Array]
) -> Control:
    """``count`` training problems of ``task`` with their right and old answers, and as many of all ``skills`` together."""
    asked: dict[str, tuple[str, Sequence[Any], Sequence[str]]] = {}
    problems = list(task.problems("train"))[:count]
    if isinstance(task, Answered):
        asked[RIGHT] = (context, problems, [task.answer(p) for p in problems])
    if isinstance(task, Demonstrated):
        asked[OLD] = ("", problems, [task.old_answer(p) for p in problems])
    for skill in skills:
        if isinstance(skill, Answered):
            some = list(skill.problems("train") or skill.problems("test"))[: max(2, count // len(skills))]
            asked[skill.name] = (rule_words(skill, policy.template) or "", some, [skill.answer(p) for p in some])
    return Control(policy, asked, otherwise)
