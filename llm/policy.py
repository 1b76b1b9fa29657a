"""A policy: any Hugging Face causal LM, token in and token out.

Prompts are padded on the left. What several rollouts share is run once, in sampling and in scoring alike, and gradients
flow through it: on a CPU every shared token (`tree`), on an accelerator the prompt of a group, whose key/value cache is
repeated, in fixed shapes that CUDA replays as graphs (`static_decode`). One uniform number decides each token, so that the same
generator gives the same completions on every path. Completions are never decoded and encoded again before scoring.
Only safetensors are read, and no code from a model's repository is run.

Float32 products are IEEE on CUDA too: torch's default, which we leave alone, because with TF32 sampling and scoring would
agree to three digits only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from fstsim.errors import InputError
from fstsim.llm.static_decode import Decoders, answer_seen, prompt_seen, takes_slots
from fstsim.llm.tokenizer import vocabulary
from fstsim.llm.tree import Frontier, attention_mask, draw, takes_trees, tree_logits
from fstsim.llm.types import Problem
from fstsim.llm.world import SIZES

SHIPPED = "base"
"""Name of the base model that comes with the package."""
_FRONTIER_ROW = 64  # places in a row while sampling: shorter than in scoring, rows grow
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


@dataclass(frozen=True)
class Rollouts:
    """Completions with what is needed to score them again.

    ``prompts, prompt_mask (P, S)`` padded on the left; ``prompt_of (B,)`` the prompt of each completion;
    ``completions, mask (B, T)`` padded on the right, the mask true up to and including the end token;
    ``logprobs (B, T)`` at sampling, nats, 0 outside of the mask.
    """

    prompts: torch.Tensor
    prompt_mask: torch.Tensor
    prompt_of: torch.Tensor
    completions: torch.Tensor
    mask: torch.Tensor
    logprobs: torch.Tensor
    temperature: float = 1.0

    def __len__(self) -> int:
        return len(self.completions)

    def take(self, rows: torch.Tensor) -> Rollouts:
        """Only the completions ``rows`` (indices), and only the prompts and columns that they need."""
        used, prompt_of = torch.unique(self.prompt_of[rows], return_inverse=True)
        prompt_mask, mask = self.prompt_mask[used], self.mask[rows]
        left = int((~prompt_mask).all(0).long().sum()) if len(rows) else 0
        right = int(mask.any(0).sum())
        return replace(
            self,
            prompts=self.prompts[used, left:],
            prompt_mask=prompt_mask[:, left:],
            prompt_of=prompt_of,
            completions=self.completions[rows, :right],
            mask=mask[:, :right],
            logprobs=self.logprobs[rows, :right],
        )


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
    _decoders: Decoders = field(init=False, repr=False, compare=False, default_factory=Decoders)

    @classmethod
    def load(cls, name: str = SHIPPED, device: str = "cpu", dtype: str = "float32") -> Policy:
        """The shipped base model, a model on disk, or one of the hub, by name or path.

        Raises InputError if there is no such model, its weights are missing or not safetensors, or its vocabulary is
        not the tokenizer's.
        """
        where = str(shipped_path()) if name == SHIPPED else name
        if Path(where).exists() and not list(Path(where).glob("*.safetensors")):
            raise InputError(f"model {where} has no weights: a *.safetensors file is missing")
        if not Path(where).exists() and name.count("/") != 1:
            raise InputError(f"there is no model at {name!r}: give a path, {SHIPPED}, or a hub name owner/model")
        if Path(where).exists() and not any((Path(where) / file).exists() for file in _TOKENIZERS):
            raise InputError(f"model {where} has no tokenizer: one of {', '.join(_TOKENIZERS)} is missing")
        check_device(device)
        try:
            tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                where,
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise InputError(f"model {name!r} cannot be loaded: {str(error).splitlines()[0]}") from error
        model, found = loaded
        wrong = [*found["missing_keys"], *(key[0] for key in found["mismatched_keys"])]
        if wrong:  # transformers would put random numbers there
            raise InputError(f"the weights of {name!r} lack {wrong[0]}, or have it in another shape")
        model.to(device)
        return cls.of(model, tokenizer)

    @classmethod
    def of(cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Policy:
        """From a model and its tokenizer; InputError if their vocabularies differ or there is no end token."""
        if len(tokenizer) > model.config.vocab_size:
            raise InputError(
                f"the tokenizer has {len(tokenizer)} tokens, the model {model.config.vocab_size}: not made for each other"
            )
        ends = getattr(model.generation_config, "eos_token_id", None)
        ends = tokenizer.eos_token_id if ends is None else ends
        if ends is None:
            raise InputError("neither the model nor the tokenizer has an end token")
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        if tokenizer.chat_template:
            template = "chat"
        else:
            template = "world" if set(vocabulary()) <= set(tokenizer.get_vocab()) else "plain"
        sharing = _can_share(model)
        tree = sharing and model.device.type == "cpu" and takes_trees(model)
        static = sharing and model.device.type == "cuda" and takes_slots(model)
        return cls(model, tokenizer, template, tuple([ends] if isinstance(ends, int) else ends), sharing, tree, static)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @property
    def sizes(self) -> Mapping[str, int]:
        """Symbols of a start list, by family, in the world that the model was trained on (the largest); of others, `SIZES`."""
        return getattr(self.model.config, "world_sizes", None) or SIZES

    def encode(self, context: str, problem: Problem) -> list[int]:
        """Tokens of the prompt: the context, then the problem."""
        if self.template == "world":
            return self.tokenizer(f"{context} | {problem.text} =")["input_ids"]
        if self.template == "chat":
            content = f"{context}\n\n{problem.question}" if context else problem.question
            text = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": content}],
                add_generation_prompt=True,
                tokenize=False,
                enable_thinking=False,
            )
            return self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return self.tokenizer(f"{context}\n{problem.question}\nAnswer:".lstrip())["input_ids"]

    def encode_all(self, pairs: Sequence[tuple[str, Problem]]) -> list[list[int]]:
        """Prompts of many (context, problem) pairs: `encode`, in one call of the tokenizer where that is the same."""
        if self.template == "world":
            return self.tokenizer([f"{context} | {problem.text} =" for context, problem in pairs])["input_ids"]
        return [self.encode(context, problem) for context, problem in pairs]

    def encode_text(self, message: str) -> list[int]:
        """Tokens of one user's message in the chat template, or of the message alone where there is none."""
        if self.template != "chat":
            return self.tokenizer(message)["input_ids"]
        text = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": message}], add_generation_prompt=True, tokenize=False, enable_thinking=False
        )
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def encode_answer(self, answer: str) -> list[int]:
        """Tokens of a given answer with the end token."""
        tokens = self.tokenizer(answer, add_special_tokens=False)["input_ids"]
        return [*tokens, self.end_tokens[0]]

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
        if self.share_prompts and self.static:
            path = self._sample_static
        elif self.share_prompts and self.tree:
            path = self._sample_tree
        else:
            path = self._sample_rows
        with self._precision():
            sampled = path(tokens, mask, repeats, generator, max_new_tokens, temperature)
        if self.bfloat16:  # so that the learner's ratio is 1 before its first update, as it is in float32
            sampled = replace(sampled, logprobs=self.logprobs(sampled))
        self.model.train(was_training)
        return sampled

    def _precision(self) -> AbstractContextManager[Any]:
        if not self.bfloat16:
            return nullcontext()
        # no cache of casted weights: a graph would keep the addresses of one step's copies
        return torch.autocast(self.device.type, dtype=torch.bfloat16, cache_enabled=False)

    def _sample_static(
        self,
        tokens: torch.Tensor,
        mask: torch.Tensor,
        repeats: int | Sequence[int],
        generator: torch.Generator,
        max_new_tokens: int,
        temperature: float,
    ) -> Rollouts:
        """The same as `sample` in fixed shapes; completions may have columns that no rollout reached."""
        prompt_of = _owners(len(tokens), repeats).to(self.device)
        wrote, kept, logps = self._decoders.sample(
            self.model,
            tokens,
            mask,
            prompt_of,
            generator,
            new=max_new_tokens,
            temperature=temperature,
            ends=self.end_tokens,
            pad=self.tokenizer.pad_token_id or 0,
        )
        return Rollouts(tokens, mask, prompt_of, wrote, kept, logps, temperature or 1.0)

    def _sample_rows(
        self,
        tokens: torch.Tensor,
        mask: torch.Tensor,
        repeats: int | Sequence[int],
        generator: torch.Generator,
        max_new_tokens: int,
        temperature: float,
    ) -> Rollouts:
        """The same as `sample`, a row a rollout after the prompts, with a growing cache: works with every model."""
        prompt_of = _owners(len(tokens), repeats).to(self.device)
        unpadded = bool(mask.all())
        every = torch.arange(len(prompt_of), device=self.device)
        ends = torch.tensor(self.end_tokens, device=self.device)
        out = self._prompt_forward(tokens, mask, unpadded)
        cache, logits = _repeat(out.past_key_values, prompt_of), out.logits[:, -1][prompt_of]
        length, whole = mask.sum(1)[prompt_of], mask[prompt_of]
        alive = torch.ones(len(prompt_of), dtype=torch.bool, device=self.device)
        written, kept, logps = [], [], []
        for t in range(max_new_tokens):
            logp = torch.log_softmax(logits.float() / (temperature or 1.0), -1)
            chosen = logp.argmax(-1) if temperature == 0.0 else draw(logp, every, generator)
            written.append(torch.where(alive, chosen, self.tokenizer.pad_token_id or 0))
            logps.append(torch.where(alive, logp.gather(-1, chosen[:, None])[:, 0], 0.0))
            kept.append(alive)
            alive = alive & ~torch.isin(chosen, ends)
            # on an accelerator the question costs a synchronisation: ask it every eighth token
            if t + 1 == max_new_tokens or ((self.device.type == "cpu" or t % 8 == 7) and not bool(alive.any())):
                break
            whole = torch.cat((whole, torch.ones_like(whole[:, :1])), 1)
            out = self.model(
                written[-1][:, None],
                attention_mask=None if unpadded else whole,
                position_ids=(length + t)[:, None],
                past_key_values=cache,
                use_cache=True,
            )
            cache, logits = out.past_key_values, out.logits[:, -1]
        return Rollouts(
            tokens,
            mask,
            prompt_of,
            torch.stack(written, 1),
            torch.stack(kept, 1),
            torch.stack(logps, 1),
            temperature or 1.0,
        )

    def _sample_tree(
        self,
        tokens: torch.Tensor,
        mask: torch.Tensor,
        repeats: int | Sequence[int],
        generator: torch.Generator,
        max_new_tokens: int,
        temperature: float,
    ) -> Rollouts:
        """The same as `sample`, each prefix once however many rollouts have it."""
        prompt_of = _owners(len(tokens), repeats)
        ends, pad = torch.tensor(self.end_tokens), self.tokenizer.pad_token_id or 0
        frontier = Frontier(self.model, *_from_left(tokens, mask), width=_FRONTIER_ROW)
        node = frontier.node[prompt_of]
        alive = torch.ones(len(prompt_of), dtype=torch.bool)
        written, kept, logps = [], [], []
        for t in range(max_new_tokens):
            logp = torch.log_softmax(frontier.logits.float() / (temperature or 1.0), -1)
            chosen = logp.argmax(-1)[node] if temperature == 0.0 else draw(logp, node, generator)
            written.append(torch.where(alive, chosen, pad))
            logps.append(torch.where(alive, logp[node, chosen], 0.0))
            kept.append(alive)
            alive = alive & ~torch.isin(chosen, ends)
            if t + 1 == max_new_tokens or not bool(alive.any()):
                break
            node = frontier.grow(node, chosen, alive)
        return Rollouts(
            tokens,
            mask,
            prompt_of,
            torch.stack(written, 1),
            torch.stack(kept, 1),
            torch.stack(logps, 1),
            temperature or 1.0,
        )

    def _prompt_forward(self, tokens: torch.Tensor, mask: torch.Tensor, unpadded: bool) -> Any:
        seen = None if unpadded else mask
        if self.static:
            seen = attention_mask(self.model, prompt_seen(mask))
        return self.model(
            tokens,
            attention_mask=seen,
            position_ids=(mask.long().cumsum(1) - 1).clamp(min=0),
            use_cache=True,
            logits_to_keep=1,
        )

    def with_prompts(self, rollouts: Rollouts, prompts: Sequence[Sequence[int]]) -> Rollouts:
        """The same completions after other prompts, one for each of the old ones: another context, for example."""
        tokens, mask = self._pad(prompts)
        self._check_length(tokens.shape[1], rollouts.completions.shape[1])
        return replace(rollouts, prompts=tokens, prompt_mask=mask)

    def logits(self, rollouts: Rollouts) -> torch.Tensor:
        """Logits ``(B, T, V)``, float32, from which each token of the completions was (or would be) drawn, over temperature."""
        with self._precision():
            return self._logits(rollouts)

    def _logits(self, r: Rollouts) -> torch.Tensor:
        tokens, mask = r.completions, r.mask
        # models that take any mask are given one: on an accelerator the question costs a synchronisation
        unpadded = not self.static and bool(r.prompt_mask.all())
        length = r.prompt_mask.sum(1)
        if not self.share_prompts:
            whole = torch.cat((r.prompts[r.prompt_of], tokens), 1)
            whole_mask = torch.cat((r.prompt_mask[r.prompt_of], mask), 1)
            places = (whole_mask.long().cumsum(1) - 1).clamp(min=0)
            out = self.model(whole, attention_mask=whole_mask, position_ids=places, use_cache=False)
            return out.logits[:, r.prompts.shape[1] - 1 : -1].float() / r.temperature
        if self.tree and not self.static:
            prompts, size = _from_left(r.prompts, r.prompt_mask)
            start, here = size[r.prompt_of][:, None], torch.arange(tokens.shape[1])
            room = tokens.new_zeros(len(r), tokens.shape[1] - 1)
            sequences = torch.cat((prompts[r.prompt_of], room), 1).scatter(1, start + here[:-1], tokens[:, :-1])
            wanted = start - 1 + torch.where(mask, here, 0)
            return tree_logits(self.model, sequences, start[:, 0] + mask.sum(1) - 1, wanted).float() / r.temperature
        out = self._prompt_forward(r.prompts, r.prompt_mask, unpadded)
        first = out.logits[:, -1:][r.prompt_of]
        if tokens.shape[1] == 1:
            return first.float() / r.temperature
        places = length[r.prompt_of][:, None] + torch.arange(tokens.shape[1] - 1, device=tokens.device)
        # padding on the right needs no mask: no token of a completion comes after it
        seen: torch.Tensor | None
        if self.static:
            seen = attention_mask(self.model, answer_seen(r.prompt_mask[r.prompt_of], tokens.shape[1] - 1))
        else:
            seen = None if unpadded else torch.cat((r.prompt_mask[r.prompt_of], torch.ones_like(mask[:, 1:])), 1)
        rest = self.model(
            tokens[:, :-1],
            attention_mask=seen,
            position_ids=places,
            past_key_values=_repeat(out.past_key_values, r.prompt_of),
            use_cache=True,
        ).logits
        return torch.cat((first, rest), 1).float() / r.temperature

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


def _from_left(tokens: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows that were padded on the left, moved to the left, and their lengths."""
    size = mask.sum(1)
    places = torch.arange(tokens.shape[1], device=tokens.device) + (tokens.shape[1] - size)[:, None]
    return tokens.gather(1, places.clamp(max=tokens.shape[1] - 1)), size


def token_logprobs(logits: torch.Tensor, rollouts: Rollouts) -> torch.Tensor:
    """Log-probabilities ``(B, T)`` of the completions under ``logits (B, T, V)``; 0 outside the mask."""
    picked = logits.gather(-1, rollouts.completions[..., None])[..., 0] - torch.logsumexp(logits, -1)
    return torch.where(rollouts.mask, picked, 0.0)


def shipped_path() -> Path:
    """Folder of the base model that comes with the package."""
    return Path(str(files("fstsim.llm"))) / "base"


def check_device(device: str) -> None:
    """InputError unless torch can use ``device``."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {device!r} cannot be used here: {str(error).splitlines()[0]}") from error


def _can_share(model: PreTrainedModel) -> bool:
    """Whether every layer keeps plain keys and values, which can be repeated for a group."""
    kinds = getattr(model.config, "layer_types", None) or ["full_attention"]
    return all(kind == "full_attention" for kind in kinds)


def _owners(prompts: int, repeats: int | Sequence[int]) -> torch.Tensor:
    """The prompt of each completion, ``(B,)``, on the CPU."""
    counts = torch.as_tensor([repeats] * prompts if isinstance(repeats, int) else list(repeats))
    return torch.repeat_interleave(torch.arange(prompts), counts)


def _repeat(cache: Any, rows: torch.Tensor) -> Any:
    """The cache of the prompts, once for every completion; differentiable."""
    cache.reorder_cache(rows)
    return cache
