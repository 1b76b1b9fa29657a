"""A policy: any Hugging Face causal LM, token in and token out.

Prompts are padded on the left. What several rollouts share is run once, in sampling (`sampling`, `static_decode`) and in
scoring (`scoring`) alike, and gradients flow through it: on a CPU every shared token (`tree`), on an accelerator the
prompt of a group, whose key/value cache is repeated, in fixed shapes that CUDA replays as graphs. One uniform number
decides each token, so that the same generator gives the same completions on every path. Completions are never decoded
and encoded again before scoring.

Float32 products are IEEE on CUDA too: torch's default, which we leave alone, because with TF32 sampling and scoring would
agree to three digits only.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fstsim.errors import InputError
from fstsim.llm.policy.chat import chat_form, end_of_turn
from fstsim.llm.policy.declared import position_limit, vocabulary_size
from fstsim.llm.policy.lengths import check_rows, sample_lengths, score_lengths
from fstsim.llm.policy.loading import SHIPPED, load_model
from fstsim.llm.policy.next_tokens import NextTokens
from fstsim.llm.policy.rollouts import Request, Rollouts, ended_logprobs, owners
from fstsim.llm.policy.running import Switch, recomputed
from fstsim.llm.policy.sampling import sample_rows, sample_tree
from fstsim.llm.policy.scoring import score_groups, score_rows, score_tree
from fstsim.llm.policy.shared_prompts import can_share, keeps_cache
from fstsim.llm.policy.static_decode import Decoders, takes_slots
from fstsim.llm.policy.tree import takes_trees
from fstsim.llm.policy.wording import Wording
from fstsim.llm.policy.world import has_world


@dataclass(frozen=True)
class Policy(Wording):
    """A causal LM with its tokenizer: sampled and scored, with the same numbers on every path."""

    share_prompts: bool = True
    """run the prompt of a group once; without it every rollout is a row of its own"""
    tree: bool = False
    """share every common token, not prompts alone: what pays on a CPU"""
    static: bool = False
    """sample in fixed shapes, as CUDA graphs there: what pays on a GPU; goes before ``tree``"""
    bfloat16: bool = False
    """run activations in bfloat16; weights stay as they are, and log-probabilities of rollouts are those of the scoring pass"""
    padded: bool = True
    """prompts of different lengths may stand in one batch; without it, each length is a batch of its own"""
    adapter: Switch | None = None
    """which adapter of the model it runs with, where the model has some"""
    checkpointing: bool = False
    """keep the inputs of layers alone in passes with gradients, and compute the rest a second time"""
    _decoders: Decoders = field(init=False, repr=False, compare=False, default_factory=Decoders)

    @classmethod
    def load(cls, name: str = SHIPPED, device: str = "cpu", dtype: str = "float32") -> Policy:
        """The shipped base model, a model on disk, or one of the hub, by name or path.

        Raises InputError if there is no such model, its weights are missing or not safetensors, or its vocabulary is
        not the tokenizer's.
        """
        return cls.of(*load_model(name, device, dtype))

    @classmethod
    def of(cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Policy:
        """From a model and its tokenizer; the model is put into evaluation mode.

        With dropout a policy would score completions by another law than it samples them by.
        Raises InputError if their vocabularies differ, there is no end token, the chat template cannot be used
        (`chat.chat_form`), or the model keeps no key/value cache or does not give the numbers of a plain pass (`check_rows`).
        """
        ends = _end_tokens(model, tokenizer)
        written = "world" if has_world(model, tokenizer) else "plain"
        template = "chat" if tokenizer.chat_template else written
        if template == "chat" and (end := end_of_turn(tokenizer, chat_form(tokenizer))) is not None and end not in ends:
            ends = (*ends, end)  # what is taught must be heard
        _check_tokens(model, tokenizer, ends)
        if not keeps_cache(model):
            raise InputError(
                f"{type(model).__name__} cannot be used: the model must be a decoder with a key/value cache"
            )
        padded = check_rows(model)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        model.eval()
        sharing = padded and can_share(model)
        tree = sharing and model.device.type == "cpu" and takes_trees(model)
        static = sharing and model.device.type == "cuda" and takes_slots(model)
        return cls(model, tokenizer, template, ends, sharing, tree, static, padded=padded)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @property
    def vocabulary(self) -> int:
        """Size of the model's vocabulary."""
        return vocabulary_size(self.model)

    @property
    def positions(self) -> int | None:
        """How many tokens prompt and completion may have, None where the model has no limit."""
        return position_limit(self.model)

    def _check_length(self, longest: int, new: int) -> None:
        limit = self.positions
        if limit is not None and longest + new > limit:
            raise InputError(
                f"a prompt of {longest} tokens and {new} new ones do not fit the model's {limit} positions: "
                "shorten the context or --max-new-tokens"
            )

    def _pad(self, prompts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        lengths = np.array([len(prompt) for prompt in prompts])
        longest = int(lengths.max())
        mask = np.arange(longest) >= longest - lengths[:, None]
        tokens = np.full(mask.shape, self.tokenizer.pad_token_id or 0, np.int64)
        tokens[mask] = np.concatenate([np.asarray(prompt, np.int64) for prompt in prompts])
        return torch.from_numpy(tokens).to(self.device), torch.from_numpy(mask).to(self.device)

    def request(
        self,
        prompts: Sequence[Sequence[int]],
        repeats: int | Sequence[int],
        generator: torch.Generator,
        max_new_tokens: int,
        temperature: float,
    ) -> Request:
        """What `sample` is asked for, as tensors on the model's device. Raises InputError for a prompt that is too long."""
        self._check_length(max(map(len, prompts)), max_new_tokens)
        tokens, mask = self._pad(prompts)
        prompt_of, pad = owners(len(tokens), repeats).to(self.device), self.tokenizer.pad_token_id or 0
        return Request(tokens, mask, prompt_of, generator, max_new_tokens, temperature, self.end_tokens, pad)

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
        """Sample ``repeats`` completions of each prompt (of prompt i, ``repeats[i]``), in the order of the prompts.

        ``temperature`` 0 is greedy decoding. In bfloat16 log-probabilities are those of the scoring pass; without ``scored``,
        which saves that pass, they are those of sampling, equal to rounding. All randomness comes from ``generator`` (of the model's device).
        """
        ask = self.request(prompts, repeats, generator, max_new_tokens, temperature)
        was_training = self.model.training
        self.model.eval()
        if not self.padded:
            path = sample_lengths
        elif self.share_prompts and self.static:
            path = self._decoders.sample
        elif self.share_prompts and self.tree:
            path = sample_tree
        else:
            path = sample_rows
        with self.running():
            sampled = ask.rollouts(*path(self.model, ask))
        if self.bfloat16 and scored:  # so that the learner's ratio is 1 before its first update, as it is in float32
            sampled = replace(sampled, logprobs=self.logprobs(sampled))
        self.model.train(was_training)
        return sampled

    def running(self) -> AbstractContextManager[Any]:
        """In which its model runs: nothing is dropped out, its adapter is on, activations are in its precision."""
        stack = ExitStack()
        if self.model.training:  # somebody else's doing since `of`; sampling and scoring are by one law all the same
            self.model.eval()
            stack.callback(self.model.train)
        stack.enter_context(self._precision())
        if self.adapter is not None:
            stack.enter_context(self.adapter.on())
        return stack

    def _precision(self) -> AbstractContextManager[Any]:
        if not self.bfloat16:
            return nullcontext()
        # Casted weights are kept only while a processor samples: cast anew for every token, they cost more than the products.
        # A graph on a GPU would go on reading one step's copies, and gradients need casts of their own.
        kept = self.device.type == "cpu" and not torch.is_grad_enabled()
        return torch.autocast(self.device.type, dtype=torch.bfloat16, cache_enabled=kept)

    def with_prompts(self, rollouts: Rollouts, prompts: Sequence[Sequence[int]]) -> Rollouts:
        """The same completions after other prompts, one for each of the old ones: another context, for example."""
        tokens, mask = self._pad(prompts)
        self._check_length(tokens.shape[1], rollouts.completions.shape[1])
        return replace(rollouts, prompts=tokens, prompt_mask=mask)

    def next_tokens(self, rollouts: Rollouts) -> NextTokens:
        """Distributions from which the tokens of the completions were (or would be) drawn, at the temperature of sampling."""
        again = self.checkpointing and torch.is_grad_enabled()
        with self.running(), recomputed(self.model) if again else nullcontext():
            if not self.padded:
                found = NextTokens.apart(score_lengths(self.model, rollouts))
            elif not self.share_prompts or (again and not self.tree):  # a layer that is computed again has no cache
                found = NextTokens.apart(score_rows(self.model, rollouts))
            elif self.tree and not self.static:
                found = NextTokens(*score_tree(self.model, rollouts))
            else:
                found = NextTokens.apart(score_groups(self.model, rollouts, given=self.static))
        logits = found.logits.float()
        return replace(found, logits=logits if rollouts.temperature == 1.0 else logits / rollouts.temperature)

    def logits(self, rollouts: Rollouts) -> torch.Tensor:
        """Logits ``(B, T, V)``, float32, from which each token of the completions was (or would be) drawn, over temperature."""
        return self.next_tokens(rollouts).whole()

    def logprobs(self, rollouts: Rollouts) -> torch.Tensor:
        """Log-probabilities ``(B, T)`` of the completions' tokens at the temperature of sampling, nats; 0 outside the mask."""
        return self.next_tokens(rollouts).logprobs(rollouts)

    def answer_logprobs(self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> torch.Tensor:
        """Log-probability ``(B,)``, nats, of writing each answer, one a prompt, and ending with any of ``end_tokens``.

        The answers' own last token (of `encode_answer`) stands for all of them: sampling stops at each, and reads the same text.
        """
        shown = self.forced(prompts, answers)
        return ended_logprobs(self.logits(shown), shown, self.end_tokens)

    def forced(self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> Rollouts:
        """Given answers (with their end tokens) as rollouts, one a prompt: for teacher forcing."""
        tokens, mask = self._pad(prompts)
        longest = max(map(len, answers))
        written = torch.full((len(answers), longest), self.tokenizer.pad_token_id or 0)
        kept = torch.zeros((len(answers), longest), dtype=torch.bool)
        for i, answer in enumerate(answers):
            written[i, : len(answer)] = torch.tensor(answer)
            kept[i, : len(answer)] = True
        self._check_length(tokens.shape[1], longest)
        here = self.device
        return Rollouts(
            tokens,
            mask,
            torch.arange(len(prompts), device=here),
            written.to(here),
            kept.to(here),
            torch.zeros(len(answers), longest, device=here),
        )


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """What ends a completion by the model's generation config, or else by the tokenizer. Raises InputError if nothing does."""
    ends = getattr(model.generation_config, "eos_token_id", None)
    ends = tokenizer.eos_token_id if ends is None else ends
    if ends is None or ends == []:
        raise InputError("neither the model nor the tokenizer has an end token")
    found = [ends] if isinstance(ends, int) else ends
    if not isinstance(found, list | tuple) or not all(type(end) is int for end in found):
        raise InputError(f"eos_token_id must be a whole number or a list of them, got {ends!r}")
    return tuple(dict.fromkeys(found))


def _check_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ends: Sequence[int]) -> None:
    """InputError unless every token that the tokenizer, or the end of a completion, has is one of the model's."""
    size = vocabulary_size(model)
    if len(tokenizer) > size:
        raise InputError(f"the tokenizer has {len(tokenizer)} tokens, the model {size}: they do not belong together")
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if highest < 0:
        raise InputError("the tokenizer has no tokens")
    if highest >= size:
        raise InputError(
            f"the tokenizer has token {highest}, the model {size} tokens from 0: they do not belong together"
        )
    for end in ends:
        if not 0 <= end < size:
            raise InputError(f"the end token {end} is none of the model's {size} tokens")
