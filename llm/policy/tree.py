"""Prefix trees: every token that several sequences share is run once, in sampling and in scoring.

The rollouts of a step share their context, their prompt and, where the policy is sure, much of what was written. All
sequences of a batch form a tree. Its nodes are laid out in depth-first order in a few rows of equal length, and a mask lets
each node see itself and its ancestors, nothing else: the numbers of one row a rollout, for a fraction of the tokens
and hardly any padding. Works with any causal LM that takes a four-dimensional attention mask and position ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from fstsim.llm.policy.declared import local_attention, vocabulary_size

Ints = NDArray[np.int64]

_SHORT = 128  # places in a row
ROW = 96  # places in a row: longer rows share more and pad less, but attention costs their square


@dataclass(frozen=True)
class Packed:
    """Nodes in R rows of L places.

    ``tokens, positions (R, L)``; ``seen (R, 1, L, L)``, true where the row's place may look at the column's;
    ``place (B, W)`` the place, counted through all rows, of token w of sequence b (undefined beyond its length).
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    seen: torch.Tensor
    place: torch.Tensor


def pack(sequences: torch.Tensor, lengths: torch.Tensor, width: int = ROW, spread: bool = False) -> Packed:
    """Lay out the tree of ``sequences (B, W)``, of which the first ``lengths (B,)`` tokens count, in rows of about ``width``.

    ``spread`` deals neighbours out to different rows. It shares less, but what grows below the rows is of like size in all
    of them: sequences that begin alike go on alike.
    """
    tokens, size = sequences.cpu().numpy(), lengths.cpu().numpy()
    count, longest = tokens.shape
    depth = np.arange(longest)
    # sorted, each sequence has most in common with the one before it: what it adds are the new nodes
    order = np.lexsort(np.where(depth < size[:, None], tokens, -1).T[::-1])
    shared, room = _shared(tokens[order], size[order]), max(width, int(size.max()))
    if spread:
        hands = min(count, max(1, -(-int((size[order] - shared).sum()) // room)))
        order, hand = np.concatenate([order[k::hands] for k in range(hands)]), np.sort(np.arange(count) % hands)
        shared = np.where(np.diff(hand, prepend=-1) > 0, 0, _shared(tokens[order], size[order]))
        tokens, size, row = tokens[order], size[order], hand
        start = np.concatenate(
            [np.cumsum(part) - part for part in np.split(size - shared, np.flatnonzero(np.diff(hand)) + 1)]
        )
    else:
        tokens, size = tokens[order], size[order]
        row, start, shared = _even_rows(size, shared, room)
    inside = depth < size[:, None]
    end = start + size - shared
    rows, across = int(row[-1]) + 1, int(end.max())
    new = inside & (depth >= shared[:, None])
    fresh = (row * across + start - shared)[:, None] + depth
    place = np.maximum.accumulate(np.where(new, fresh, 0), axis=0)  # a shared token is where the sequence before has it
    written, positions = np.zeros((2, rows * across), np.int64)
    written[fresh[new]] = tokens[new]
    positions[fresh[new]] = np.broadcast_to(depth, new.shape)[new]
    # the places below a node follow it without a gap: it is seen up to the last of them
    last = np.full(rows * across, -1)
    np.maximum.at(last, place[inside], np.broadcast_to((row * across + end - 1)[:, None], inside.shape)[inside])
    here = np.arange(rows * across).reshape(rows, across)
    seen = (here[:, None, :] <= here[:, :, None]) & (here[:, :, None] <= last.reshape(rows, across)[:, None, :])
    seen |= np.eye(across, dtype=bool)  # a place without a node sees itself: softmax over nothing is nan
    back = np.empty(count, np.int64)
    back[order] = np.arange(count)
    device = sequences.device
    return Packed(
        torch.from_numpy(written.reshape(rows, across)).to(device),
        torch.from_numpy(positions.reshape(rows, across)).to(device),
        torch.from_numpy(seen[:, None]).to(device),
        torch.from_numpy(place[back]).to(device),
    )


def _shared(tokens: Ints, size: Ints) -> Ints:
    """How many tokens each sequence has in common with the one before it."""
    inside = np.arange(tokens.shape[1]) < size[:, None]
    shared = np.zeros(len(tokens), np.int64)
    shared[1:] = np.cumprod((tokens[1:] == tokens[:-1]) & inside[1:] & inside[:-1], axis=1).sum(1)
    return shared


def _rows(size: Ints, shared: Ints, room: int) -> tuple[Ints, Ints, Ints]:
    """Row and start of each sequence in rows of at most ``room`` places, and what it shares within its row."""
    row, start, kept = np.zeros(len(size), np.int64), np.zeros(len(size), np.int64), shared.copy()
    current, used = 0, 0
    for i, (n, s) in enumerate(zip(size.tolist(), shared.tolist(), strict=True)):
        if used + n - s > room:
            current, used, s, kept[i] = current + 1, 0, 0, 0
        row[i], start[i] = current, used
        used += n - s
    return row, start, kept


def _even_rows(size: Ints, shared: Ints, room: int) -> tuple[Ints, Ints, Ints]:
    """`_rows` with the least room that needs no more of them: what is too long for a row leaves less of it empty."""
    best = _rows(size, shared, room)
    low, high = max(int(size.max()), -(-int((size - shared).sum()) // (int(best[0][-1]) + 1))), room
    while low < high:
        middle = (low + high) // 2
        tried = _rows(size, shared, middle)
        if tried[0][-1] <= best[0][-1]:
            best, high = tried, middle
        else:
            low = middle + 1
    return best


def attention_mask(model: PreTrainedModel, seen: torch.Tensor) -> torch.Tensor:
    """``seen`` as the model's attention wants it: true/false, or 0 and minus infinity to be added."""
    if model.config._attn_implementation != "eager":
        return seen
    zeros = torch.zeros(seen.shape, dtype=model.dtype, device=seen.device)
    return zeros.masked_fill_(~seen, torch.finfo(model.dtype).min)


def attention_kernel(width: int) -> AbstractContextManager[Any]:
    """In which rows of ``width`` places are scored: in bfloat16 by plain products where they are short.

    Backwards, torch's fused attention for bfloat16 on a processor takes twice as long there (2.13, 9 heads of 64, 90 places).
    Without gradients the same is chosen, so that the numbers are the same.
    """
    plain = width <= _SHORT and torch.is_autocast_enabled("cpu")
    return sdpa_kernel(SDPBackend.MATH) if plain else nullcontext()


@contextmanager
def head_at(model: PreTrainedModel, places: torch.Tensor) -> Iterator[None]:
    """Within it the model computes logits ``(1, n, V)`` of the ``places (n,)`` only, counted through all rows."""
    handle = model.get_output_embeddings().register_forward_pre_hook(
        lambda _, inputs: (inputs[0].flatten(0, 1)[places][None],)
    )
    try:
        yield
    finally:
        handle.remove()


def tree_logits(
    model: PreTrainedModel, sequences: torch.Tensor, lengths: torch.Tensor, wanted: torch.Tensor, width: int = ROW
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits ``(n, V)`` after the tokens number ``wanted (B, T)`` of each sequence, each distinct one once, and which is whose, ``(B, T)``."""
    tree = pack(sequences, lengths, width)
    places, which = tree.place.gather(1, wanted).unique(return_inverse=True)
    with head_at(model, places), attention_kernel(tree.tokens.shape[1]):
        out = model(
            tree.tokens,
            attention_mask=attention_mask(model, tree.seen),
            position_ids=tree.positions,
            use_cache=False,
        )
    return out.logits[0], which


class Frontier:
    """Sampling along the tree: the nodes that are written next, in the rows of the prompts, with one key/value cache."""

    def __init__(self, model: PreTrainedModel, prompts: torch.Tensor, lengths: torch.Tensor, width: int = ROW) -> None:
        tree = pack(prompts, lengths, width, spread=True)
        self.model, (self.rows, across) = model, tree.tokens.shape
        leaves, self.node = tree.place.gather(1, lengths[:, None] - 1)[:, 0].unique(return_inverse=True)
        """``node (P,)``: the node of each prompt's last token"""
        with head_at(model, leaves):
            out = model(
                tree.tokens,
                attention_mask=attention_mask(model, tree.seen),
                position_ids=tree.positions,
                use_cache=True,
            )
        self.cache, self.logits = out.past_key_values, out.logits[0]
        """``logits (nodes, V)``"""
        self.row, self.depth = leaves // across, tree.positions.flatten()[leaves]
        self.visible = tree.seen[self.row, 0, leaves % across]

    def grow(self, node: torch.Tensor, token: torch.Tensor, alive: torch.Tensor) -> torch.Tensor:
        """Write ``token (B,)`` below ``node (B,)`` for the rollouts ``alive``; returns their new nodes (others: any)."""
        vocabulary = self.logits.shape[1]
        # one more key, below all others, for rollouts that have ended
        keys, which = torch.where(alive, node * vocabulary + token, -1).unique(return_inverse=True)
        ended = int(keys[0] < 0)
        keys = keys[ended:]
        parent = keys // vocabulary
        self.row, self.depth = self.row[parent], self.depth[parent] + 1  # parents are sorted, and so are rows
        each = torch.bincount(self.row, minlength=self.rows)
        rank = torch.arange(len(keys), device=keys.device) - (each.cumsum(0) - each)[self.row]
        across = int(each.max())
        self.visible = torch.cat((self.visible[parent], rank[:, None] == torch.arange(across, device=keys.device)), 1)
        tokens, positions = torch.zeros((2, self.rows, across), dtype=torch.long, device=keys.device)
        tokens[self.row, rank], positions[self.row, rank] = keys % vocabulary, self.depth
        seen = torch.zeros((self.rows, 1, across, self.visible.shape[1]), dtype=torch.bool, device=keys.device)
        seen[..., 0] = True  # places without a node see something: softmax over nothing is nan
        seen[self.row, 0, rank] = self.visible
        with head_at(self.model, self.row * across + rank):
            out = self.model(
                tokens,
                attention_mask=attention_mask(self.model, seen),
                position_ids=positions,
                past_key_values=self.cache,
                use_cache=True,
            )
        self.cache, self.logits = out.past_key_values, out.logits[0]
        return (which - ended).clamp(min=0)


def pick(mass: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """The smallest token whose cumulated mass ``(B, V)`` exceeds the share ``uniform (B,)`` of the whole: ``(B,)``, no synchronisation."""
    target = uniform * mass[:, -1]
    return torch.searchsorted(mass, target[:, None], right=True)[:, 0].clamp(max=mass.shape[1] - 1)


def draw(logp: torch.Tensor, node: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One token ``(B,)`` for each rollout from the distribution of its node: one uniform number a rollout.

    Masses are cumulated in float64, once a node.
    """
    mass = logp.double().exp().cumsum(-1)
    uniform = torch.rand(len(node), generator=generator, device=logp.device, dtype=torch.float64)
    return pick(mass[node], uniform)


def takes_trees(model: PreTrainedModel) -> bool:
    """Whether the model gives a tree's nodes the logits of plain sequences: tried on three short ones.

    Not where attention is a band of places in a row: it would be seen only beyond its width.
    """
    if local_attention(model):
        return False
    tokens = (torch.arange(24, device=model.device).reshape(3, 8) * 7 + 3) % vocabulary_size(model)
    tokens[1, :5] = tokens[0, :5]
    tokens[2, :2] = tokens[0, :2]
    lengths = torch.tensor([8, 6, 7], device=model.device)
    wanted = torch.arange(8, device=model.device).expand(3, 8)
    inside = wanted < lengths[:, None]
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            distinct, which = tree_logits(model, tokens, lengths, torch.where(inside, wanted, 0), width=16)
            ours = distinct[which].float()
            plain = model(tokens, use_cache=False).logits.float()
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError):
        return False
    finally:
        model.train(was_training)
    tolerance = 1e-4 if model.dtype == torch.float32 else 3e-2
    return bool(((ours - plain).abs() <= tolerance * (1.0 + plain.abs()))[inside].all())
