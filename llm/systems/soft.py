r"""Soft tokens from an assistant (SoftCoT, 2502.12134): N vectors in the prompt of a frozen model, made by a trained linear projection.

The frozen assistant reads the prompt and N placeholder tokens; its last hidden states there, \(h_i\), become the vectors
\(v_i = b_i + W h_i\), which stand in the model's prompt as embeddings of N tokens. Only b and W are trained; with W = 0 the vectors
are the same for every problem (prompt tuning). In tokens a vector is `SOFT`, so that rollouts, groups and learners are as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch

from fstsim.errors import InputError
from fstsim.llm.measure.loading import check_same_tokenizer
from fstsim.llm.policy.next_tokens import NextTokens
from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.rollouts import Rollouts, positions_of
from fstsim.llm.policy.sampling import CachedRows, draw_rows
from fstsim.llm.systems.embedding import input_table
from fstsim.llm.systems.system import Acting, Beside
from fstsim.llm.systems.tensors import copy_into
from fstsim.llm.types import Problem

Place = Literal["context", "thought"]
Thoughts = Literal["full", "bias", "zero", "shuffled"]
SOFT = -1
"""What stands for a vector in the tokens of a prompt: no token of any vocabulary."""
_MARK = "\ue000soft\ue001"  # of private use: in no prompt


@dataclass(frozen=True)
class Projection:
    """``bias (N, D)`` and ``matrix (D, d)``: from d hidden dimensions of the assistant to D of the model's embeddings."""

    bias: torch.nn.Parameter
    matrix: torch.nn.Parameter

    @classmethod
    def start(cls, base: Policy, width: int, vectors: int, seed: int) -> Projection:
        """Rows of the bias are embeddings of random tokens, the matrix is 0: at the start no problem matters."""
        table = input_table(base).detach()
        rows = torch.randint(len(table), (vectors,), generator=torch.Generator().manual_seed(seed))
        bias = table[rows.to(table.device)].float().clone()
        return cls(torch.nn.Parameter(bias), torch.nn.Parameter(bias.new_zeros(table.shape[1], width)))


@dataclass(frozen=True)
class Softened(Policy):
    """A policy, the frozen model's, with ``vectors`` soft tokens in every prompt; by rows, the prompts of groups run once."""

    assistant: Policy | None = None
    projection: Projection | None = None
    vectors: int = 0
    place: Place = "context"
    thoughts: Thoughts = "full"

    @classmethod
    def of_base(
        cls, base: Policy, assistant: Policy, projection: Projection, place: Place, thoughts: Thoughts
    ) -> Softened:
        """With as many vectors as the projection has rows."""
        held = {name: getattr(base, name) for name, entry in Policy.__dataclass_fields__.items() if entry.init}
        count = len(projection.bias)
        return cls(**held, assistant=assistant, projection=projection, vectors=count, place=place, thoughts=thoughts)

    def encode(self, context: str, problem: Problem) -> list[int]:
        """As `Policy.encode`, with `SOFT` for each vector, after the context or after the problem."""
        plain = super().encode(context, problem)
        if not self.vectors:
            return plain
        soft = [SOFT] * self.vectors
        if self.template == "world":  # bos, context | problem =
            bar = self._tokens("|")[0]
            at = plain.index(bar) if self.place == "context" else len(plain) - 1
            return [*plain[:at], *soft, *plain[at:]]
        marked = _marked(problem, context, self.place)
        text = (
            self._form.prompt(self.tokenizer, marked)
            if self.template == "chat"
            else _plain(problem, context, self.place)
        )
        before, _, after = text.partition(_MARK)
        head: list[int] = []
        if self.template != "chat":  # what the tokenizer puts before a text
            whole = self._opened([before + after])[0]
            head = whole[: len(whole) - len(self._tokens(before + after))]
        return [*head, *self._tokens(before), *soft, *self._tokens(after)]

    def encode_all(self, pairs: Sequence[tuple[str, Problem]]) -> list[list[int]]:
        """`encode` of each."""
        if not self.vectors:
            return super().encode_all(pairs)
        return [self.encode(*pair) for pair in pairs]

    def thought(self, prompts: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The vectors ``(P, N, D)`` of left-padded ``prompts, mask (P, S)``, with gradients in the projection alone."""
        assert self.projection is not None
        rows = torch.arange(self.vectors, device=prompts.device) % len(self.projection.bias)
        bias = self.projection.bias[rows].expand(len(prompts), -1, -1)
        if self.thoughts == "zero":
            return torch.zeros_like(bias)
        if self.thoughts == "bias":
            return bias
        hidden = self._read(prompts, mask)
        if self.thoughts == "shuffled":
            hidden = hidden.roll(1, 0)
        return bias + hidden @ self.projection.matrix.T

    @torch.no_grad()
    def _read(self, prompts: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Last hidden states ``(P, N, d)`` of the assistant at N placeholders behind each prompt."""
        assert self.assistant is not None
        count = len(prompts)
        words = prompts != SOFT
        tokens = prompts[words].view(count, -1)
        holders = tokens.new_full((count, self.vectors), self.assistant.end_token)
        seen = torch.cat((mask[words].view(count, -1), torch.ones_like(holders, dtype=torch.bool)), 1)
        with self.assistant.running():
            out = self.assistant.model.base_model(
                torch.cat((tokens, holders), 1), attention_mask=seen, position_ids=positions_of(seen), use_cache=False
            )
        return out.last_hidden_state[:, -self.vectors :].float()

    def _embedded(self, prompts: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Embeddings ``(P, S, D)`` of the prompts, the vectors in their places."""
        table: Callable[[torch.Tensor], torch.Tensor] = self.model.get_input_embeddings()
        words = table(prompts.clamp(min=0))
        soft = prompts == SOFT
        if not bool(soft.any()):
            return words
        return words.masked_scatter(soft[..., None].expand_as(words), self.thought(prompts, mask).to(words.dtype))

    def next_tokens(self, rollouts: Rollouts) -> NextTokens:
        """As `Policy.next_tokens`, a row a completion. Without vectors they are the policy's own, to the bit."""
        if not self.vectors:
            return super().next_tokens(rollouts)
        r = rollouts
        table = self.model.get_input_embeddings()
        prompts = self._embedded(r.prompts, r.prompt_mask)[r.prompt_of]
        whole = torch.cat((prompts, table(r.completions)), 1)
        mask = torch.cat((r.prompt_mask[r.prompt_of], r.mask), 1)
        with self.running():
            out = self.model(inputs_embeds=whole, attention_mask=mask, position_ids=positions_of(mask), use_cache=False)
        return NextTokens.apart(out.logits[:, r.prompts.shape[1] - 1 : -1].float() / r.temperature)

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        repeats: int | Sequence[int],
        generator: torch.Generator,
        *,
        max_new_tokens: int,
        temperature: float = 1.0,
        scored: bool = True,
    ) -> Rollouts:
        """As `Policy.sample`; each prompt is run once with its vectors, then tokens follow in words."""
        if not self.vectors:
            return super().sample(
                prompts, repeats, generator, max_new_tokens=max_new_tokens, temperature=temperature, scored=scored
            )
        ask = self.request(prompts, repeats, generator, max_new_tokens, temperature)
        with self.running():
            out = self.model(
                inputs_embeds=self._embedded(ask.prompts, ask.mask),
                attention_mask=ask.mask,
                position_ids=positions_of(ask.mask),
                use_cache=True,
                logits_to_keep=1,
            )
            rows = CachedRows(self.model, ask, out)
            return ask.rollouts(*draw_rows(rows.logits, rows.read, ask))


def _marked(problem: Problem, context: str, place: Place) -> list[tuple[str, str]]:
    *before, (role, content) = problem.messages or (("user", problem.question),)
    return [*before, (role, _told(context, content, "\n\n", place))]


def _plain(problem: Problem, context: str, place: Place) -> str:
    return f"{_told(context, problem.question, chr(10), place)}\nAnswer:"


def _told(context: str, content: str, gap: str, place: Place) -> str:
    if place == "thought":
        return f"{context}{gap}{content}{_MARK}" if context else f"{content}{_MARK}"
    return f"{context}{_MARK}{gap}{content}"


@dataclass(frozen=True)
class SoftPolicy(Acting):
    """A frozen ``base`` with soft tokens; the projection is the state.

    ``shown`` vectors where it is deployed, as many as the projection has rows where it is trained (`trained_as`). ``name``
    is that of the assistant's model.
    """

    base: Policy
    assistant: Policy
    projection: Projection
    place: Place = "context"
    thoughts: Thoughts = "full"
    shown: int | None = None
    name: str = ""

    @classmethod
    def start(cls, base: Policy, assistant: Policy, vectors: int, seed: int, name: str = "") -> SoftPolicy:
        """With the projection of `Projection.start`; ``base`` and ``assistant`` are frozen.

        Raises InputError if the tokenizers are not the same, or the model cannot read rows of different lengths together.
        """
        if not base.padded:
            raise InputError("the model of method soft must read prompts of different lengths in one batch")
        check_same_tokenizer(name or "the assistant", assistant.tokenizer, base.tokenizer)
        for policy in (base, assistant):
            policy.model.requires_grad_(False)
        width = input_table(assistant).shape[1]
        hidden = getattr(assistant.model.config.get_text_config(decoder=True), "hidden_size", width)
        return cls(base, assistant, Projection.start(base, int(hidden), vectors, seed), name=name)

    @property
    def bare(self) -> Policy:
        """The base."""
        return self.base

    @property
    def trained_as(self) -> Softened:
        """What is trained: every row of the projection."""
        return Softened.of_base(self.base, self.assistant, self.projection, self.place, self.thoughts)

    @property
    def acting(self) -> Softened:
        """What is deployed."""
        return self.trained_as if self.shown is None else replace(self.trained_as, vectors=self.shown)

    def parameters(self) -> list[torch.nn.Parameter]:
        """The bias; with thoughts of the problem the matrix too; none of zero vectors."""
        if self.thoughts == "zero" or not len(self.projection.bias):
            return []
        return [self.projection.bias] if self.thoughts == "bias" else [self.projection.bias, self.projection.matrix]

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """Bias and matrix."""
        return {"bias": self.projection.bias.detach(), "matrix": self.projection.matrix.detach()}

    def notes(self) -> Mapping[str, Any]:
        """Who assists, and where the vectors stand."""
        return {"assistant": self.name, "place": self.place}

    def restore(self, tensors: Mapping[str, torch.Tensor], notes: Mapping[str, Any]) -> None:
        """Bias and matrix, in place; ValueError if they are of another system."""
        if dict(notes) != dict(self.notes()):
            raise ValueError(f"it has {dict(notes)!r}, not {dict(self.notes())!r}")
        copy_into({"bias": self.projection.bias, "matrix": self.projection.matrix}, tensors)

    def beside(self) -> Mapping[str, Beside]:
        """The same projection with zero vectors, and with the thoughts of another problem of the batch: what the instance is worth."""
        if self.thoughts != "full":
            return {}
        return {kind: Beside(replace(self, thoughts=kind)) for kind in ("zero", "shuffled")}


def check_place(place: str) -> None:
    """InputError unless vectors can stand at ``place``."""
    if place not in get_args(Place):
        raise InputError(f"place must be one of {', '.join(get_args(Place))}; got {place!r}")
