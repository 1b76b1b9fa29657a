r"""Claims about a pretrained chat model on the language suite, a chapter a function: `LANGUAGE`.

Two plain sentences answer the same question: the old behaviour is the one that such models write by themselves
(`fstsim.llm.tasks.language`). Masses are those of one tokenisation each, so that they are lower bounds; shares of one among
both, and shifts of log-odds, are what the laws are about. Where a run rests is measured without clipping, since a clipped
gradient has another mean, and with learning rates that go to 0 on a line, so that its end averages over many batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fstsim.llm.experiments.plan import Scale
from fstsim.llm.policy.policy import Policy
from fstsim.llm.validation.claim import Chapter
from fstsim.llm.validation.language.continual import continual
from fstsim.llm.validation.language.kl_leashes import leashes
from fstsim.llm.validation.language.reinforcement import conflict, context, groups
from fstsim.llm.validation.language.replay_share import replay
from fstsim.llm.validation.language.supervised import training

LANGUAGE: Mapping[str, Callable[[Scale, Policy], Chapter]] = {
    "language-groups": groups,
    "language-training": training,
    "language-replay": replay,
    "language-leashes": leashes,
    "language-context": context,
    "language-conflict": conflict,
    "language-continual": continual,
}
"""Chapters in the order of their runs."""

QUICK = ("language-groups", "language-training")
"""Chapters that take a few minutes on two cores."""

WORDS = "The plural of cat is cats."
"""What a model must be able to write for them."""
