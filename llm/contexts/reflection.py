r"""Writing a new context from failures: what a reflector is, and the policy as its own.

A reflector sees what the fast channel may see: the current context, and records of what was asked, what was written and
what the environment said about it. It never sees the hidden rules. Other models that write are in `chat_endpoint` and `reflectors`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from fstsim.errors import InputError
from fstsim.llm.contexts.proposals import UnusableProposal, context_from
from fstsim.llm.policy.policy import Policy
from fstsim.llm.pretraining.corpus import EXAMPLES

Record = Mapping[str, str]

_FEEDBACK = re.compile(r"start: (?P<start>\S+) wrote: (?P<wrote>\S*) right: (?P<right>\S+)")
_UNREAD = "a model of the world reads feedback of the form start: LIST wrote: LIST right: LIST alone, and this task says otherwise"
LONGEST = 8
"""Most rules in a context that a policy of the world writes."""
_WRITTEN = 64  # tokens of a context that a chat model writes for itself
_RECORDS = 4  # of which it is shown that many
_SHOWN = 300  # characters of each part of a record


class ReflectorDown(RuntimeError):
    """A reflector cannot answer: the message says who, what was tried and what it said."""


class ReflectorTooSmall(ReflectorDown):
    """A reflector's model has too few positions for what it is to read: the same call would fail again."""


class Reflector(Protocol):
    """Writes a new context from failures. ``propose`` returns the context and how many rollouts of the policy it cost.

    What was written and is no context raises `fstsim.llm.contexts.proposals.UnusableProposal`: the round goes on without it.
    """

    def propose(
        self, policy: Policy, context: str, records: Sequence[Record], rng: np.random.Generator
    ) -> tuple[str, int]:
        """A new context. May raise ReflectorDown; must not change the policy; all randomness from ``rng``."""
        ...


@dataclass(frozen=True)
class SelfReflection:
    """The policy writes the context itself: a chat model in words, a model of the world in the notation it was trained on.

    A chat model (any model outside of the world) is shown some questions, what was written and what was said about it, and
    asked for one instruction; what it may say is not limited. In the world, *direct*: four problems with their right answers, the rules are written anew. *Residual*: what the present context
    produced against what was right, the missing rules are written and appended. Which of the two is a fair coin.
    """

    temperature: float = 1.0

    def propose(
        self, policy: Policy, context: str, records: Sequence[Record], rng: np.random.Generator
    ) -> tuple[str, int]:
        """One sample of the policy; in the world the old context where too few records have the form that it reads.

        Raises UnusableProposal where none has: no round on this task can find a context.
        """
        if policy.template != "world":
            return self._in_words(policy, context, records, rng)
        residual = bool(context) and rng.random() < 0.5
        read = [said for record in records if (said := _FEEDBACK.search(record["Feedback"])) is not None]
        if records and not read:
            raise UnusableProposal(_UNREAD, records[0]["Feedback"])
        pairs = [
            (said["wrote"] if residual else said["start"], said["right"])
            for said in read
            if not residual or len(said["wrote"]) == len(said["right"])
        ]
        if len(pairs) < EXAMPLES:
            return context, 0
        chosen = [pairs[i] for i in rng.choice(len(pairs), size=EXAMPLES, replace=False)]
        generator = torch.Generator(policy.device).manual_seed(int(rng.integers(2**62)))
        prompt = policy.tokenizer(reflection_prompt(chosen))["input_ids"]
        written = policy.sample([prompt], 1, generator, max_new_tokens=LONGEST, temperature=self.temperature)
        rules = written_rules(policy, policy.decode(written)[0])
        words = [*context.split(), *rules] if residual else rules
        return " ".join(words[:LONGEST]), 1

    def _in_words(
        self, policy: Policy, context: str, records: Sequence[Record], rng: np.random.Generator
    ) -> tuple[str, int]:
        """One sample of a chat model. Raises UnusableProposal where it is no context, or where there is no room for one."""
        shown = [records[i] for i in rng.permutation(len(records))[:_RECORDS]]
        generator = torch.Generator(policy.device).manual_seed(int(rng.integers(2**62)))
        tokens = policy.encode_text(reflection_message(context, shown))
        try:
            out = policy.sample([tokens], 1, generator, max_new_tokens=_WRITTEN, temperature=self.temperature)
        except InputError as error:  # the prompt does not fit
            raise UnusableProposal(str(error), "") from error
        return context_from(policy.decode(out)[0], context, 1), 1


def reflection_prompt(pairs: Sequence[tuple[str, str]]) -> str:
    """The line after which a model of the world writes rules: lists before and after them, symbols with spaces between them."""
    return " ; ".join(f"{' '.join(a)} > {' '.join(b)}" for a, b in pairs) + " ?"


def written_rules(policy: Policy, text: str) -> list[str]:
    """The words of rules in what a model of the world wrote."""
    return [word for word in text.split() if word in policy.words]


def reflection_message(context: str, records: Sequence[Record]) -> str:
    """What a policy is asked when it writes its own context: short and simple, because it may be a small model."""
    parts = [
        f"Question: {r['Inputs'][:_SHOWN]}\nThe student wrote: {r['Generated Outputs'][:_SHOWN]}\nThe teacher said: {r['Feedback'][:_SHOWN]}"
        for r in records
    ]
    so_far = f"\n\nThe student had this instruction: {context}" if context else ""
    return (
        "A student answers questions, and a teacher says what would have been right.\n\n"
        + "\n\n".join(parts)
        + so_far
        + "\n\nWrite one short instruction that tells the student how to write answers as the teacher wants them, with an "
        "example. Write the instruction only."
    )


def write_instruction(ask: Any, context: str, records: Sequence[Record]) -> str:
    """GEPA's instruction prompt with ``ask`` (text to text) as its model. Raises UnusableProposal where the text is no context."""
    from gepa.strategies.instruction_proposal import InstructionProposalSignature as Signature

    prompt = Signature.prompt_renderer(
        {"current_instruction_doc": context, "dataset_with_feedback": list(records), "prompt_template": None}
    )
    return context_from(ask(prompt), context)
