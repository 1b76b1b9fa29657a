"""Sampling in fixed shapes, without a host in the token loop: on CUDA the prompt pass and the token step are replayed as graphs.

Every row writes token t into column S + t of one preallocated key/value cache, whatever the length of its prompt
(prompts end at column S - 1), so that shapes never change and a step advances itself: its counters live on the device.
Random numbers are drawn before the loop, one a token and rollout (`tree.pick`), so that no generator has to be
registered with a graph, and the same generator gives the same tokens as the other paths. Sizes are rounded up
(`bucket`), for a few graphs to serve many batches. On other devices the same code runs without graphs: there it is tested
against the other paths. The capture itself has not been run on a GPU yet; tests/llm/policy/test_static_decode.py does it where there is one.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel

from fstsim.llm.policy.declared import local_attention, vocabulary_size
from fstsim.llm.policy.rollouts import Request
from fstsim.llm.policy.tree import attention_mask, pick

_CHECK = 8  # tokens between two questions whether all have ended: each costs a synchronisation
_KEPT_BYTES = 4 << 30  # of key/value caches kept for batches to come


def bucket(n: int) -> int:
    """``n`` rounded up to a multiple of 8, or of about an eighth of it: at most a quarter more, and few values."""
    granule = max(8, 1 << max(0, n.bit_length() - 4))
    return -(-n // granule) * granule


def prompt_seen(mask: torch.Tensor) -> torch.Tensor:
    """What each place of left-padded prompts may look at, ``(P, 1, S, S)``; a pad sees itself: softmax over nothing is nan."""
    square = torch.ones(mask.shape[1], mask.shape[1], dtype=torch.bool, device=mask.device)
    return (mask[:, None, None, :] & square.tril()) | square.tril().triu()


def answer_seen(mask: torch.Tensor, new: int) -> torch.Tensor:
    """What ``new`` tokens after the prompts of ``mask (B, S)`` may look at: ``(B, 1, new, S + new)``."""
    before = mask[:, None, None, :].expand(-1, 1, new, -1)
    among = torch.ones(new, new, dtype=torch.bool, device=mask.device).tril()
    return torch.cat((before, among.expand(len(mask), 1, -1, -1)), 3)


@dataclass
class Slots:
    """The preallocated cache as a model of transformers sees it: ``keys, values`` by layer ``(B, H, L, D)``, written in place.

    ``column (1,)`` is where the next token goes, on the device; all columns are returned, and the mask says which are seen.
    """

    column: torch.Tensor
    keys: list[torch.Tensor] = field(default_factory=list)
    values: list[torch.Tensor] = field(default_factory=list)

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write ``key, value (B, H, 1, D)`` of a layer; returns its whole buffers."""
        self.keys[layer].index_copy_(2, self.column, key.to(self.keys[layer].dtype))
        self.values[layer].index_copy_(2, self.column, value.to(self.values[layer].dtype))
        return self.keys[layer], self.values[layer]

    def get_seq_length(self, _layer: int = 0) -> int:
        """Positions are always given, so nobody has to count."""
        return 0

    def fill(self, layers: Any, prompt_of: torch.Tensor, new: int) -> None:
        """Copy the prompts' cache to the rollouts that ``prompt_of (B,)`` says; leave ``new`` empty columns after it."""
        if not self.keys:
            for held, name in ((self.keys, "keys"), (self.values, "values")):
                for layer in layers:
                    _, heads, width, size = getattr(layer, name).shape
                    held.append(getattr(layer, name).new_zeros(len(prompt_of), heads, width + new, size))
        for k, layer in enumerate(layers):
            for buffer, prompt in ((self.keys[k], layer.keys), (self.values[k], layer.values)):
                buffer[:, :, : prompt.shape[2]] = prompt.index_select(0, prompt_of)
                buffer[:, :, prompt.shape[2] :] = 0.0  # hidden, but nothing times nan is nan


class Shape(NamedTuple):
    """``prompts`` of ``width`` tokens, ``rows`` rollouts of at most ``new`` tokens."""

    prompts: int
    rows: int
    width: int
    new: int


class Decoder:
    """Buffers and graphs for one `Shape`."""

    def __init__(self, shape: Shape, ends: tuple[int, ...], pad: int, greedy: bool, device: Any) -> None:
        prompts, rows, width, new = shape

        def zeros(*shape: int, dtype: torch.dtype = torch.long) -> torch.Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self.width, self.new, self.pad, self.greedy = width, new, pad, greedy
        self.ends = torch.tensor(ends, device=device)
        self.tokens, self.mask = zeros(prompts, width), zeros(prompts, width, dtype=torch.bool)
        self.prompt_of, self.real = zeros(rows), zeros(rows, dtype=torch.bool)
        self.uniform, self.temperature = zeros(new, rows, dtype=torch.float64), zeros(1, dtype=torch.float32)
        self.slots, self.step = Slots(zeros(1)), zeros(1)
        self.seen = zeros(rows, 1, 1, width + new - 1, dtype=torch.bool)
        self.token, self.position, self.alive = zeros(rows, 1), zeros(rows, 1), zeros(rows, dtype=torch.bool)
        self.written, self.kept = zeros(new, rows), zeros(new, rows, dtype=torch.bool)
        self.logps = zeros(new, rows, dtype=torch.float32)
        self.replays: tuple[Callable[[], None], Callable[[], None]] | None = None
        self.runs = 0
        self.weights: tuple[int, ...] = ()

    def load(
        self,
        tokens: torch.Tensor,
        mask: torch.Tensor,
        prompt_of: torch.Tensor,
        uniform: torch.Tensor | None,
        temperature: float,
    ) -> None:
        """Put a batch into the buffers: what is smaller than they are is padded, prompts on the left."""
        count, rows = len(tokens), len(prompt_of)
        self.mask.zero_()
        self.mask[:count, self.width - tokens.shape[1] :] = mask
        self.tokens[:count, self.width - tokens.shape[1] :] = tokens
        self.prompt_of.zero_()
        self.prompt_of[:rows] = prompt_of
        self.real.zero_()
        self.real[:rows] = True
        if uniform is not None:
            self.uniform[:, :rows] = uniform
        self.temperature.fill_(temperature)

    def prefill(self, model: PreTrainedModel) -> None:
        """Run the prompts once, give each rollout its prompt's cache, draw the first token; sets every counter."""
        out = model(
            self.tokens,
            attention_mask=attention_mask(model, prompt_seen(self.mask)),
            position_ids=(self.mask.long().cumsum(1) - 1).clamp(min=0),
            use_cache=True,
            logits_to_keep=1,
        )
        self.slots.fill(out.past_key_values.layers, self.prompt_of, self.new - 1)
        self.slots.column.fill_(self.width)
        self.seen.zero_()
        self.seen[:, 0, 0, : self.width] = self.mask.index_select(0, self.prompt_of)
        self.position.copy_(self.mask.sum(1).index_select(0, self.prompt_of)[:, None])
        self.alive.copy_(self.real)
        self.written.fill_(self.pad)
        self.logps.zero_()
        self.kept.zero_()
        self.step.zero_()
        self._draw(out.logits[:, -1].index_select(0, self.prompt_of))

    def advance(self, model: PreTrainedModel) -> None:
        """Run the token that was drawn last and draw the next one."""
        self.seen.index_fill_(3, self.slots.column, True)
        out = model(
            self.token,
            attention_mask=attention_mask(model, self.seen),
            position_ids=self.position,
            past_key_values=self.slots,
            use_cache=True,
        )
        self.slots.column.add_(1)
        self.position.add_(1)
        self._draw(out.logits[:, -1])

    def _draw(self, logits: torch.Tensor) -> None:
        logp = torch.log_softmax(logits.float() / self.temperature, -1)
        if self.greedy:
            chosen = logp.argmax(-1)
        else:
            chosen = pick(logp.double().exp().cumsum(-1), self.uniform.index_select(0, self.step)[0])
        wrote = torch.where(self.alive, chosen, self.pad)
        logps = torch.where(self.alive, logp.gather(-1, chosen[:, None])[:, 0], 0.0)
        self.written.index_copy_(0, self.step, wrote[None])
        self.logps.index_copy_(0, self.step, logps[None])
        self.kept.index_copy_(0, self.step, self.alive[None])
        self.token.copy_(wrote[:, None])
        self.alive.logical_and_((chosen[:, None] != self.ends).all(-1))
        self.step.add_(1)

    def run(self, model: PreTrainedModel, graphs: bool) -> None:
        """Sample the batch that was loaded. The first run of a shape is plain; the second captures, later ones replay."""
        weights = tuple(parameter.data_ptr() for parameter in model.parameters())
        if weights != self.weights:  # a graph reads the addresses at which it found the weights
            self.replays, self.runs, self.weights = None, 0, weights
        if graphs and self.runs == 1:
            self.replays = _capture(lambda: self.prefill(model), lambda: self.advance(model), self.new > 1)
        self.runs += 1
        first, following = self.replays or (lambda: self.prefill(model), lambda: self.advance(model))
        first()
        for t in range(1, self.new):
            if t % _CHECK == 0 and not bool(self.alive.any()):
                break
            following()

    @property
    def bytes(self) -> int:
        """Of the key/value cache."""
        return sum(buffer.numel() * buffer.element_size() for buffer in (*self.slots.keys, *self.slots.values))


def _capture(
    first: Callable[[], None], following: Callable[[], None], follows: bool
) -> tuple[Callable[[], None], Callable[[], None]] | None:
    """Replays of both as CUDA graphs; None, with a warning, where the model does something that cannot be captured."""
    try:
        # a warm-up on another stream, as capture wants it: libraries allocate their workspaces on the first use
        here, beside = torch.cuda.current_stream(), torch.cuda.Stream()
        beside.wait_stream(here)
        with torch.cuda.stream(beside):
            for _ in range(2):
                first()  # sets the counters, so that the step after it stays within its buffers
                if follows:
                    following()
        here.wait_stream(beside)
        graphs = []
        for work in (first, following)[: 1 + follows]:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                work()
            graphs.append(graph)
    except RuntimeError as error:
        warnings.warn(f"sampling goes on without CUDA graphs: {str(error).splitlines()[0]}", stacklevel=2)
        return None
    return graphs[0].replay, graphs[-1].replay


@dataclass
class Decoders:
    """The decoders of one policy, by shape; the least recently used go when their caches take too much memory."""

    held: OrderedDict[tuple[Any, ...], Decoder] = field(default_factory=OrderedDict)

    def sample(self, model: PreTrainedModel, ask: Request) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """``completions, mask, logprobs (B, T)``, as `Rollouts` has them. Call without gradients."""
        prompts, width, rows = *ask.prompts.shape, len(ask.prompt_of)
        device, greedy = ask.prompts.device, ask.temperature == 0.0
        shape = Shape(bucket(prompts), bucket(rows), bucket(width), ask.new)
        casts = device.type in ("cpu", "cuda") and torch.is_autocast_enabled(device.type)
        key = (*shape, ask.ends, ask.pad, greedy, casts, model.config._attn_implementation)
        decoder = self.held.pop(key, None) or Decoder(shape, ask.ends, ask.pad, greedy, device)
        self.held[key] = decoder
        uniform = None
        if not greedy:
            # token by token, as the other paths draw them: on CUDA one large draw would be another stream
            uniform = torch.stack(
                [torch.rand(rows, generator=ask.generator, device=device, dtype=torch.float64) for _ in range(ask.new)]
            )
        decoder.load(ask.prompts, ask.mask, ask.prompt_of, uniform, ask.temperature or 1.0)
        # where casted weights are kept, a graph would go on reading those of the step in which it was captured
        decoder.run(model, graphs=device.type == "cuda" and not (casts and torch.is_autocast_cache_enabled()))
        while len(self.held) > 1 and sum(each.bytes for each in self.held.values()) > _KEPT_BYTES:
            self.held.popitem(last=False)
        # copies: the buffers belong to the next batch
        found = (decoder.written, decoder.kept, decoder.logps)
        written, kept, logps = (each[:, :rows].T.clone(memory_format=torch.contiguous_format) for each in found)
        return written, kept, logps


@torch.no_grad()
def takes_slots(model: PreTrainedModel) -> bool:
    """Whether the model gives the log-probabilities of a plain pass when it samples in fixed shapes: tried on two short rows.

    Not where attention is a band of places in a row: it would be seen only beyond its width.
    """
    if local_attention(model):
        return False
    device, vocabulary = model.device, vocabulary_size(model)
    tokens = (torch.arange(10, device=device).reshape(2, 5) * 7 + 3) % vocabulary
    mask = torch.tensor([[False, False, True, True, True], [True] * 5], device=device)
    prompt_of, new = torch.tensor([0, 1, 0], device=device), 4
    was_training = model.training
    model.eval()
    try:
        decoder = Decoder(Shape(2, 3, 5, new), (), 0, True, device)
        decoder.load(tokens, mask, prompt_of, None, 1.0)
        decoder.run(model, graphs=False)
        close = True
        for row, prompt in enumerate(prompt_of.tolist()):
            shown = tokens[prompt][mask[prompt]]
            whole = torch.cat((shown, decoder.written[:, row]))[None]
            logp = torch.log_softmax(model(whole, use_cache=False).logits[0, len(shown) - 1 : -1].float(), -1)
            plain = logp.gather(-1, decoder.written[:, row][:, None])[:, 0]
            tolerance = 1e-4 if model.dtype == torch.float32 else 5e-2
            close &= bool(((plain - decoder.logps[:, row]).abs() <= tolerance * (1.0 + plain.abs())).all())
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError):
        return False
    finally:
        model.train(was_training)
    return close
