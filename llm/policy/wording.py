"""How a model is spoken to: problems, contexts and answers as its tokens, and completions as texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fstsim.llm.policy.chat import ChatForm, chat_form, end_of_turn
from fstsim.llm.policy.rollouts import Rollouts
from fstsim.llm.policy.world import world_sizes, world_words
from fstsim.llm.types import Problem

_ASKED = "Answer:"  # how a plain prompt ends


@dataclass(frozen=True)
class Wording:
    """A causal LM with its tokenizer; ``template`` says how a problem is put: chat, world (short notation) or plain."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    template: str
    end_tokens: tuple[int, ...]

    @cached_property
    def _form(self) -> ChatForm:
        return chat_form(self.tokenizer)

    @cached_property
    def end_token(self) -> int:
        """The end of a given answer: that which the chat template writes, else the tokenizer's own, else the first of ``end_tokens``."""
        written = end_of_turn(self.tokenizer, self._form) if self.template == "chat" else None
        known = [end for end in (written, self.tokenizer.eos_token_id) if end in self.end_tokens]
        return known[0] if known else self.end_tokens[0]

    @property
    def sizes(self) -> Mapping[str, int]:
        """Symbols of a start list, by family, in the world that the model was trained on (the largest); of others, the shipped one's."""
        return world_sizes(self.model)

    @property
    def words(self) -> tuple[str, ...]:
        """Words of the rules in the world that the model was trained on; of others, none."""
        return world_words(self.model) if self.template == "world" else ()

    def unknown(self, text: str) -> list[str]:
        """Words of ``text`` that are no tokens of the world that the model was trained on; none for other models."""
        if self.template != "world":
            return []
        words, unknown = text.split(), self.tokenizer.unk_token_id
        tokens = self.tokenizer(words, add_special_tokens=False)["input_ids"] if words else []
        return [word for word, found in zip(words, tokens, strict=True) if unknown in found]

    def encode(self, context: str, problem: Problem) -> list[int]:
        """Tokens of the prompt: the context, then the problem.

        A problem with chat messages is shown as them to a chat model, the context before the user's last message.
        """
        return self._prompts([(context, problem)])[0]

    def encode_all(self, pairs: Sequence[tuple[str, Problem]]) -> list[list[int]]:
        """Prompts of many (context, problem) pairs, each as of `encode`, in one call of the tokenizer."""
        return self._prompts(pairs)

    def _prompts(self, pairs: Sequence[tuple[str, Problem]]) -> list[list[int]]:
        if self.template == "world":
            return self._all_tokens([_world_prompt(*pair) for pair in pairs], special=True)
        if self.template == "chat":
            return self._all_tokens([self._form.prompt(self.tokenizer, _messages(*pair)) for pair in pairs])
        return self._opened([f"{context}\n{problem.question}\n{_ASKED}".lstrip() for context, problem in pairs])

    def encode_text(self, message: str) -> list[int]:
        """Tokens of one user's message in the chat template, or of the message alone where there is none."""
        if self.template != "chat":
            return self._opened([message])[0]
        return self._tokens(self._form.prompt(self.tokenizer, [("user", message)]))

    def encode_answer(self, answer: str) -> list[int]:
        """Tokens of a given answer with `end_token`, as they continue a prompt of `encode`.

        After a plain prompt the answer begins with a space, as a pretrained model would write it: "Answer: ABCDE". In a chat
        template it is what the template makes of an assistant's message: trimmed, or with spaces of its own. Outside
        of the shipped world an answer may have several tokenisations, of which this is the tokenizer's own: its probability
        is a lower bound of the probability of writing the answer.
        """
        return self.encode_answers([answer])[0]

    def encode_answers(self, answers: Sequence[str]) -> list[list[int]]:
        """Tokens of many answers, each as of `encode_answer`, in one call of the tokenizer."""
        if self.template == "world":
            found = self._all_tokens(answers)
        elif self.template == "plain":
            found = self._continued(_ASKED, [f" {answer}" if answer else "" for answer in answers])
        else:
            found = self._continued(self._form.asked, [self._form.answer(self.tokenizer, text) for text in answers])
        return [[*tokens, self.end_token] for tokens in found]

    def _continued(self, before: str, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of ``texts`` where each follows ``before``: tokenizers like Llama's put a space of their own before whatever they are given."""
        asked, *wholes = self._all_tokens([before, *(before + text for text in texts)])
        size = len(asked)
        return [
            whole[size:] if whole[:size] == asked else self._tokens(text)
            for text, whole in zip(texts, wholes, strict=True)
        ]

    def _opened(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of plain prompts: what the tokenizer puts before a text belongs to it, what it puts after one would end it."""
        return [
            next(
                (
                    whole[: first + len(bare)]
                    for first in range(len(whole) - len(bare) + 1)
                    if whole[first : first + len(bare)] == bare
                ),
                bare,
            )
            for whole, bare in zip(self._all_tokens(texts, special=True), self._all_tokens(texts), strict=True)
        ]

    def _tokens(self, text: str) -> list[int]:
        return self._all_tokens([text])[0]

    def _all_tokens(self, texts: Sequence[str], special: bool = False) -> list[list[int]]:
        """One call for all: the tokenizer takes longer to be called than to read a text."""
        return self.tokenizer(list(texts), add_special_tokens=special)["input_ids"] if texts else []

    def decode(self, rollouts: Rollouts) -> list[str]:
        """Texts of the completions, without their end and special tokens."""
        return self.read(
            [row[m].tolist() for row, m in zip(rollouts.completions.cpu(), rollouts.mask.cpu(), strict=True)]
        )

    def read(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        """Texts of completions in tokens, as they follow a prompt: a leading space is kept, an end token is not, special or not.

        Nor are words that the chat template closes every answer with, where the completion has ended.
        """
        ended = [bool(row) and row[-1] in self.end_tokens for row in tokens]
        texts = self._texts([list(row[:-1] if end else row) for row, end in zip(tokens, ended, strict=True)])
        if self.template != "chat" or not self._form.close.strip():
            return texts
        return [self._form.without_close(text) if end else text for text, end in zip(texts, ended, strict=True)]

    def _texts(self, rows: list[list[int]]) -> list[str]:
        options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        if self.template == "world":
            return self.tokenizer.batch_decode(rows, **options)
        # decoders like Llama's drop the space of whatever comes first
        before = self._tokens(_ASKED)
        head = str(self.tokenizer.decode(before, **options))
        whole = self.tokenizer.batch_decode([[*before, *row] for row in rows], **options)
        if all(text.startswith(head) for text in whole):
            return [text[len(head) :] for text in whole]
        return self.tokenizer.batch_decode(rows, **options)


def _messages(context: str, problem: Problem) -> list[tuple[str, str]]:
    """Messages (role, content) of a problem, the context before what the user says last."""
    *before, (role, content) = problem.messages or (("user", problem.question),)
    return [*before, (role, f"{context}\n\n{content}" if context else content)]


def _world_prompt(context: str, problem: Problem) -> str:
    """``rules | problem =``: the rules of the context, then those that the problem itself states."""
    return f"{' '.join((context, *problem.rules))} | {problem.text} ="
