"""What a frozen model writes down of four examples: rules in the notation of its world, or an instruction in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fstsim.llm.contexts.proposals import UnusableProposal
from fstsim.llm.contexts.reflection import LONGEST, SelfReflection, reflection_prompt, written_rules
from fstsim.llm.policy.policy import Policy

Pair = tuple[str, str]
"""What is shown and what was right: symbols of a start list and of its answer, or a question and its answer."""


def write_plans(policy: Policy, shown: Sequence[Sequence[Pair]], rng: np.random.Generator) -> list[str]:
    """A plan from each list of examples, one sample of ``policy`` each, all at once where it is a model of the world.

    Rule words joined by spaces, "" where none were written; an instruction in words from a chat model.
    """
    if not shown:
        return []
    if policy.template != "world":
        return [_in_words(policy, pairs, rng) for pairs in shown]
    prompts = [policy.tokenizer(reflection_prompt(pairs))["input_ids"] for pairs in shown]
    generator = torch.Generator(policy.device).manual_seed(int(rng.integers(2**62)))
    wrote = policy.sample(prompts, 1, generator, max_new_tokens=LONGEST)
    return [" ".join(written_rules(policy, text)) for text in policy.decode(wrote)]


def _in_words(policy: Policy, pairs: Sequence[Pair], rng: np.random.Generator) -> str:
    records = [
        {"Inputs": asked, "Generated Outputs": "", "Feedback": f"wrong. right: {right}"} for asked, right in pairs
    ]
    try:
        return SelfReflection().propose(policy, "", records, rng)[0]
    except UnusableProposal:
        return ""
