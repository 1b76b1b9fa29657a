r"""One document, edited within bounds (SkillOpt): a proposal is cut to L words, and taken only if it is strictly better.

A round: (1) the present document is scored greedily on the *selection* problems, the first of the validation split, always the
same; (2) rollouts on other problems of the split go to the reflector, whose text is cut to at most L edits of words; (3) what was
scored and not taken before is not scored again; (4) the rest is scored on the selection and takes the document's place if its
score is higher. (2) to (4) repeat within the budget of rollouts. Scores are greedy, so that while the weights stand
still nothing that is taken can be worse. Source: 2605.23904, without its slow update; L falls along a cosine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fstsim.errors import InputError
from fstsim.fast_slow import StepInfo
from fstsim.llm.contexts.policy_adapter import COMPONENT, PolicyAdapter
from fstsim.llm.types import UNUSABLE, Population

_TRIES = 64
"""Proposals of a round at most: one whose every proposal is known would never use up its rollouts."""


@dataclass(frozen=True)
class SkillEdits:
    """At most ``first`` edits a proposal, falling to ``last`` in ``rounds`` rounds; ``selection`` problems decide, ``shown`` are reflected on."""

    first: int
    last: int = 2
    rounds: int = 0
    selection: int = 32
    shown: int = 8

    def check(self, budget: int) -> None:
        """InputError unless the bounds are bounds and a round of ``budget`` rollouts can try one edit."""
        if self.first < 1 or self.rounds < 0 or self.last < 1:
            raise InputError(
                f"edits and edits_end must be at least 1, edit_rounds at least 0; got {self.first}, {self.last}, {self.rounds}"
            )
        if self.rounds and self.last > self.first:
            raise InputError(f"edits_end must be at most edits, {self.first}; got {self.last}")
        least = 2 * self.selection + self.shown + 1
        if budget < least:
            raise InputError(f"rollout_budget must be at least {least} rollouts to try one edit; got {budget}")

    def most(self, done: int) -> int:
        r"""L of round number ``done`` (from 0): \(L_1 + (L_0 - L_1)(1 + \cos \pi u)/2\), u the share of rounds made, rounded up."""
        if not self.rounds:
            return self.first
        share = min(1.0, done / self.rounds)
        return math.ceil(self.last + (self.first - self.last) * 0.5 * (1.0 + math.cos(math.pi * share)) - 1e-9)


Edit = tuple[int, str | None]
"""At a place of the old words: ``(2 i, word)`` puts a word before word i, ``(2 i + 1, word)`` replaces word i, None takes it away."""


def edits_between(old: Sequence[str], new: Sequence[str]) -> list[Edit]:
    """A shortest list of edits that makes ``new`` of ``old``, in order: its length is their Levenshtein distance."""
    cost = np.zeros((len(old) + 1, len(new) + 1), dtype=int)
    cost[:, 0], cost[0, :] = np.arange(len(old) + 1), np.arange(len(new) + 1)
    for i in range(1, len(old) + 1):
        for j in range(1, len(new) + 1):
            same = cost[i - 1, j - 1] + (old[i - 1] != new[j - 1])
            cost[i, j] = min(same, cost[i - 1, j] + 1, cost[i, j - 1] + 1)
    edits: list[Edit] = []
    i, j = len(old), len(new)
    while i or j:
        if i and j and cost[i, j] == cost[i - 1, j - 1] + (old[i - 1] != new[j - 1]):
            i, j = i - 1, j - 1
            if old[i] != new[j]:
                edits.append((2 * i + 1, new[j]))
        elif i and cost[i, j] == cost[i - 1, j] + 1:
            i -= 1
            edits.append((2 * i + 1, None))
        else:
            j -= 1
            edits.append((2 * i, new[j]))
    return edits[::-1]


def applied(old: Sequence[str], edits: Sequence[Edit]) -> list[str]:
    """``old`` with some or all of the edits of `edits_between`, in their order."""
    out: list[str] = []
    at = 0
    for place, word in edits:
        i, replaced = divmod(place, 2)
        out += old[at:i]
        at = i + replaced
        if word is not None:
            out.append(word)
    return out + list(old[at:])


def cut(old: str, new: str, most: int, rng: np.random.Generator) -> str:
    """``old`` with at most ``most`` of the edits that make ``new`` of it, which ones at random: ``new`` itself where they suffice."""
    words = old.split()
    edits = edits_between(words, new.split())
    if len(edits) > most:
        edits = [edits[k] for k in sorted(rng.choice(len(edits), size=most, replace=False))]
    return " ".join(applied(words, edits))


def improve_skill(
    how: SkillEdits, adapter: PolicyAdapter, context: Population, budget: int
) -> tuple[Population, StepInfo]:
    """One round on the task of ``adapter``, which samples at its temperature what is reflected on; within ``budget`` rollouts."""
    task, rng = adapter.task, adapter.rng
    problems = list(task.problems("validation"))
    count = max(1, min(how.selection, len(problems) // 2))
    selection, others = problems[:count], problems[count:] or problems
    greedy = replace(adapter, temperature=0.0, samples=0, seen={}, drawn=[], unfit=set())
    archive = dict(context.archive)
    document = context.prompts[0]
    known = {text for name, text in context.rejected if name == task.name}
    most = how.most(context.rounds)

    def score(text: str) -> float:
        return float(np.mean([reward for _, reward, _ in greedy.scores(text, selection)]))

    best = score(document)
    counts = dict.fromkeys(("accepted", "rejected", "known"), 0)
    rejected, lineage = list(context.rejected), dict(context.lineage)
    shown = min(how.shown, len(others))
    for _ in range(_TRIES):
        used = adapter.samples + greedy.samples
        if best >= 1.0 or used + shown + 1 + count > budget:
            break
        batch = [others[k] for k in rng.choice(len(others), size=shown, replace=False)]
        evaluated = adapter.evaluate(batch, {COMPONENT: document}, capture_traces=True)
        records = adapter.make_reflective_dataset({COMPONENT: document}, evaluated, [COMPONENT])
        text = cut(document, adapter.propose({COMPONENT: document}, records, [COMPONENT])[COMPONENT], most, rng)
        if text == document or text in known:
            counts["known"] += 1
            continue
        value = score(text)
        if value > best and text not in greedy.unfit:
            counts["accepted"] += 1
            lineage[text] = document
            document, best = text, value
        else:
            counts["rejected"] += 1
            known.add(text)
            rejected.append((task.name, text))
    samples = adapter.samples + greedy.samples
    info: dict[str, Any] = {
        "fast_best": best,
        "fast_mean": best,
        "fast_candidates": 1 + counts["accepted"] + counts["rejected"],
        "fast_reflections": adapter.reflections,
        "fast_rollouts": samples,
        "edits_most": most,
        **{f"edits_{name}": value for name, value in counts.items()},
        **({"fast_unusable": len(adapter.unusable), UNUSABLE: adapter.unusable} if adapter.unusable else {}),
    }
    line = ((document, lineage[document]),) if document in lineage else ()
    kept = tuple({**archive, task.name: document}.items())
    return Population((document,), (best,), line, kept, tuple(rejected), context.rounds + 1), StepInfo(samples, info)
