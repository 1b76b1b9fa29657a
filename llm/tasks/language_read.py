"""Old skills without a question: text that a model continues or reads as it stands, without a chat template.

Both say how they are measured (`fstsim.llm.types.Measured`), because a task's answers are put after a chat prompt and end
with an end token, and these do not. They are measured, never trained: all of them are in the test split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from fstsim.llm.tasks.language_items import CLOZES, TEXTS, read_items
from fstsim.llm.types import Problem, Score, Split

_AT_ONCE = 64  # rows of one pass


@torch.no_grad()
def _continuation_logprobs(policy: Any, pairs: Sequence[tuple[list[int], list[int]]]) -> list[np.ndarray]:
    """Log-probability of each token of each continuation after its beginning, nats."""
    found = []
    for first in range(0, len(pairs), _AT_ONCE):
        block = pairs[first : first + _AT_ONCE]
        forced = policy.forced([before for before, _ in block], [after for _, after in block])
        values = policy.logprobs(forced).double().cpu().numpy()
        found += [row[: len(after)] for row, (_, after) in zip(values, block, strict=True)]
    return found


@dataclass(frozen=True)
class ClozeTask:
    """Beginnings of sentences, of which one word is meant to be next: its probability, exactly."""

    name: str = "language:cloze"
    exact: bool = False
    """what follows the word is free"""

    def problems(self, split: Split) -> Sequence[Problem]:
        """All in the test split."""
        pairs = read_items(CLOZES) if split == "test" else ()
        return [Problem(self.name, beginning, beginning) for beginning, _ in pairs]

    def score(self, problem: Problem, completion: str) -> Score:
        """1 if the completion begins with the word."""
        right = dict(read_items(CLOZES))[problem.text]
        correct = completion.lstrip().startswith(right)
        return Score(float(correct), f"{'correct' if correct else 'wrong'}. wrote: {completion[:200]} right: {right}")

    def measure(self, policy: Any, problems: int) -> tuple[Literal["probability", "nll"], np.ndarray]:
        """Probability of the word, in the tokenizer's own spelling, after each of the first ``problems`` beginnings."""
        pairs = []
        for beginning, word in read_items(CLOZES)[:problems]:
            before, whole = (policy.tokenizer(text)["input_ids"] for text in (beginning, f"{beginning} {word}"))
            if whole[: len(before)] != before:  # the tokenizer joins what we would cut
                before = whole[:-1]
            pairs.append((before, whole[len(before) :]))
        return "probability", np.exp([row.sum() for row in _continuation_logprobs(policy, pairs)])


@dataclass(frozen=True)
class TextTask:
    """Plain prose: negative log-likelihood, nats a token, of all tokens but the first of each text."""

    name: str = "language:text"
    exact: bool = False

    def problems(self, split: Split) -> Sequence[Problem]:
        """All in the test split."""
        return [Problem(self.name, text, text) for text in (TEXTS if split == "test" else ())]

    def score(self, problem: Problem, completion: str) -> Score:  # noqa: ARG002 -- there is nothing to answer
        """0: it is read, not answered."""
        return Score(0.0, "this text is read, not answered")

    def measure(self, policy: Any, problems: int) -> tuple[Literal["probability", "nll"], np.ndarray]:
        """Nats a token of each of the first ``problems`` texts."""
        rows = [policy.tokenizer(text)["input_ids"] for text in TEXTS[:problems]]
        found = _continuation_logprobs(policy, [(row[:1], row[1:]) for row in rows])
        return "nll", np.array([-row.mean() for row in found])
