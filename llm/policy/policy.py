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

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fstsim.errors import InputError
from fstsim.llm.policy.adapters import Switch, recomputed
from fstsim.llm.policy.loading import SHIPPED, load_model
from fstsim.llm.policy.rollouts import Request, Rollouts, owners, token_logprobs
from fstsim.llm.policy.sampling import sample_rows, sample_tree
from fstsim.llm.policy.scoring import score_groups, score_rows, score_tree
from fstsim.llm.policy.shared_prompts import can_share, keeps_cache
from fstsim.llm.policy.static_decode import Decoders, takes_slots
from fstsim.llm.policy.tree import takes_trees
from fstsim.llm.policy.world import has_world, world_sizes, world_words
from fstsim.llm.types import Problem

_ASKED = "Answer:"  # how a plain prompt ends


@dataclass(frozen=True)
class Policy:
    """A causal LM with its tokenizer; ``template`` says how a problem is put: chat, world (short notation) or plain."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    template: str
    end_tokens: tuple[int, ...]
    share_prompts: bool = True
    """run the prompt of a group once; without it every rollout is a row of its own"""
    tree: bool = False
    """share every common token, not prompts alone: what pays on a CPU"""
    static: bool = False
    """sample in fixed shapes, as CUDA graphs there: what pays on a GPU; goes before ``tree``"""
    bfloat16: bool = False
    """run activations in bfloat16; weights stay as they are, and log-probabilities of rollouts are those of the scoring pass"""
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
        Raises InputError if their vocabularies differ, there is no end token, or the model keeps no key/value cache.
        """
        if len(tokenizer) > model.config.vocab_size:
            raise InputError(
                f"the tokenizer has {len(tokenizer)} tokens, the model {model.config.vocab_size}: they do not belong together"
            )
        ends = getattr(model.generation_config, "eos_token_id", None)
        ends = tokenizer.eos_token_id if ends is None else ends
        if ends is None:
            raise InputError("neither the model nor the tokenizer has an end token")
        if not keeps_cache(model):
            raise InputError(
                f"{type(model).__name__} cannot be used: the model must be a decoder with a key/value cache"
            )
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        model.eval()
        written = "world" if has_world(model, tokenizer) else "plain"
        template = "chat" if tokenizer.chat_template else written
        sharing = can_share(model)
        tree = sharing and model.device.type == "cpu" and takes_trees(model)
        static = sharing and model.device.type == "cuda" and takes_slots(model)
        return cls(model, tokenizer, template, tuple([ends] if isinstance(ends, int) else ends), sharing, tree, static)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @property
    def end_token(self) -> int:
        """The end of a given answer: the tokenizer's own end token where sampling stops at it, else the first of ``end_tokens``."""
        own = self.tokenizer.eos_token_id
        return own if own in self.end_tokens else self.end_tokens[0]

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
        unknown = self.tokenizer.unk_token_id
        return [word for word in text.split() if unknown in self._tokens(word)]

    def encode(self, context: str, problem: Problem) -> list[int]:
        """Tokens of the prompt: the context, then the problem.

        A problem with chat messages is shown as them to a chat model, the context before the user's last message.
        """
        if self.template == "world":
            return self.tokenizer(f"{context} | {problem.text} =")["input_ids"]
        if self.template == "chat":
            *before, (role, content) = problem.messages or (("user", problem.question),)
            return self._turn(*before, (role, f"{context}\n\n{content}" if context else content))
        return self.tokenizer(f"{context}\n{problem.question}\n{_ASKED}".lstrip())["input_ids"]

    def encode_all(self, pairs: Sequence[tuple[str, Problem]]) -> list[list[int]]:
        """Prompts of many (context, problem) pairs: `encode`, in one call of the tokenizer where that is the same."""
        if self.template == "world":
            return self.tokenizer([f"{context} | {problem.text} =" for context, problem in pairs])["input_ids"]
        return [self.encode(context, problem) for context, problem in pairs]

    def encode_text(self, message: str) -> list[int]:
        """Tokens of one user's message in the chat template, or of the message alone where there is none."""
        if self.template != "chat":
            return self.tokenizer(message)["input_ids"]
        return self._turn(("user", message))

    def _turn(self, *messages: tuple[str, str]) -> list[int]:
        """Messages (role, content), the last of the user, in the chat template, and the beginning of the answer."""
        text: Any = self.tokenizer.apply_chat_template(
            [{"role": role, "content": content} for role, content in messages],
            add_generation_prompt=True,
            tokenize=False,
            enable_thinking=False,
        )
        return self._tokens(text)

    def encode_answer(self, answer: str) -> list[int]:
        """Tokens of a given answer with `end_token`, as they continue a prompt of `encode`.

        After a plain prompt the answer begins with a space, as a pretrained model would write it: "Answer: ABCDE". Outside
        of the shipped world an answer may have several tokenisations, of which this is the tokenizer's own: its probability
        is a lower bound of the probability of writing the answer.
        """
        if self.template != "plain" or not answer:
            return [*self._tokens(answer), self.end_token]
        # tokenised with what it follows: tokenizers like Llama's put a space of their own before whatever they are given
        asked, whole = self._tokens(_ASKED), self._tokens(f"{_ASKED} {answer}")
        kept = whole[: len(asked)] == asked
        return [*(whole[len(asked) :] if kept else self._tokens(f" {answer}")), self.end_token]

    def _tokens(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def decode(self, rollouts: Rollouts) -> list[str]:
        """Texts of the completions, without special tokens."""
        kept = [row[m].tolist() for row, m in zip(rollouts.completions.cpu(), rollouts.mask.cpu(), strict=True)]
        return self.tokenizer.batch_decode(kept, skip_special_tokens=True)

    def _check_length(self, longest: int, new: int) -> None:
        limit = getattr(self.model.config, "max_position_embeddings", None)
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

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        repeats: int | Sequence[int],
        generator: torch.Generator,
        *,
        max_new_tokens: int,
        temperature: float = 1.0,
    ) -> Rollouts:
        """Sample ``repeats`` completions of each prompt (of prompt i, ``repeats[i]``), in the order of the prompts.

        ``temperature`` 0 is greedy decoding. All randomness comes from ``generator`` (of the model's device).
        """
        self._check_length(max(map(len, prompts)), max_new_tokens)
        was_training = self.model.training
        self.model.eval()
        tokens, mask = self._pad(prompts)
        prompt_of, pad = owners(len(tokens), repeats).to(self.device), self.tokenizer.pad_token_id or 0
        ask = Request(tokens, mask, prompt_of, generator, max_new_tokens, temperature, self.end_tokens, pad)
        if self.share_prompts and self.static:
            path = self._decoders.sample
        elif self.share_prompts and self.tree:
            path = sample_tree
        else:
            path = sample_rows
        with self.running():
            wrote, kept, logps = path(self.model, ask)
        sampled = Rollouts(tokens, mask, prompt_of, wrote, kept, logps, temperature or 1.0)
        if self.bfloat16:  # so that the learner's ratio is 1 before its first update, as it is in float32
            sampled = replace(sampled, logprobs=self.logprobs(sampled))
        self.model.train(was_training)
        return sampled

    def running(self) -> AbstractContextManager[Any]:
        """In which its model runs: its adapter is on, activations are in its precision."""
        stack = ExitStack()
        stack.enter_context(self._precision())
        if self.adapter is not None:
            stack.enter_context(self.adapter.on())
        return stack

    def _precision(self) -> AbstractContextManager[Any]:
        if not self.bfloat16:
            return nullcontext()
        # no cache of casted weights: a graph would keep the addresses of one step's copies
        return torch.autocast(self.device.type, dtype=torch.bfloat16, cache_enabled=False)

    def with_prompts(self, rollouts: Rollouts, prompts: Sequence[Sequence[int]]) -> Rollouts:
        """The same completions after other prompts, one for each of the old ones: another context, for example."""
        tokens, mask = self._pad(prompts)
        self._check_length(tokens.shape[1], rollouts.completions.shape[1])
        return replace(rollouts, prompts=tokens, prompt_mask=mask)

    def logits(self, rollouts: Rollouts) -> torch.Tensor:
        """Logits ``(B, T, V)``, float32, from which each token of the completions was (or would be) drawn, over temperature."""
        again = self.checkpointing and torch.is_grad_enabled()
        with self.running(), recomputed(self.model) if again else nullcontext():
            # a layer that is computed again has no cache
            if not self.share_prompts or (again and not self.tree):
                logits = score_rows(self.model, rollouts)
            elif self.tree and not self.static:
                logits = score_tree(self.model, rollouts)
            else:
                logits = score_groups(self.model, rollouts, given=self.static)
        return logits.float() / rollouts.temperature

    def logprobs(self, rollouts: Rollouts) -> torch.Tensor:
        """Log-probabilities ``(B, T)`` of the completions' tokens at the temperature of sampling, nats; 0 outside the mask."""
        return token_logprobs(self.logits(rollouts), rollouts)

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
