"""The layout of prefix trees: every node sees itself and its ancestors, nothing else, whatever the rows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fstsim.llm.policy.tree import Packed, pack

SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=7), min_size=1, max_size=25)


def laid_out(sequences: list[list[int]], width: int, spread: bool) -> Packed:
    longest = max(map(len, sequences))
    tokens = torch.tensor([row + [0] * (longest - len(row)) for row in sequences])
    return pack(tokens, torch.tensor([len(row) for row in sequences]), width, spread)


@given(SEQUENCES, st.integers(1, 30), st.booleans())
def test_every_node_sees_its_ancestors(sequences: list[list[int]], width: int, spread: bool) -> None:
    """Read back along what each place may look at: in order of depth it is the sequence up to there."""
    tree = laid_out(sequences, width, spread)
    across = tree.tokens.shape[1]
    tokens, positions = tree.tokens.flatten(), tree.positions.flatten()
    for k, sequence in enumerate(sequences):
        for depth in range(len(sequence)):
            place = int(tree.place[k, depth])
            row, column = divmod(place, across)
            seen = row * across + torch.flatten(torch.nonzero(tree.seen[row, 0, column]))
            assert positions[seen].tolist() == list(range(depth + 1))
            assert tokens[seen].tolist() == sequence[: depth + 1]


@given(SEQUENCES, st.integers(1, 30))
def test_no_prefix_is_laid_out_twice_in_a_row(sequences: list[list[int]], width: int) -> None:
    for spread in (False, True):
        tree = laid_out(sequences, width, spread)
        across = tree.tokens.shape[1]
        at: dict[tuple[int, tuple[int, ...]], int] = {}
        for k, sequence in enumerate(sequences):
            for depth in range(len(sequence)):
                place = int(tree.place[k, depth])
                assert at.setdefault((place // across, tuple(sequence[: depth + 1])), place) == place


def test_rows_are_even() -> None:
    """Seven sequences of ten without a common token in rows of at most 35: no row is wider than it is full, and all are alike if dealt."""
    sequences = [[k] * 10 for k in range(7)]
    tree = laid_out(sequences, 35, spread=False)
    assert tree.tokens.shape == (3, 30)
    dealt = laid_out(sequences, 35, spread=True)
    held = torch.bincount(dealt.place[:, -1] // dealt.tokens.shape[1])
    assert sorted(held.tolist()) == [3, 4]


@pytest.mark.parametrize("spread", [False, True])
def test_one_sequence_is_one_row(spread: bool) -> None:
    tree = laid_out([[3, 1, 2]], 2, spread)
    assert tree.tokens.tolist() == [[3, 1, 2]]
    assert tree.place.tolist() == [[0, 1, 2]]


def test_what_grows_is_dealt_out() -> None:
    """Two kinds of prompts, one of which goes on in many ways: every row gets its part of both."""
    sequences = [[kind, 5, a, b, c] for kind in (0, 1) for a in range(3) for b in range(3) for c in range(3)]
    tree = laid_out(sequences, 40, spread=True)
    rows = (tree.place[:, -1] // tree.tokens.shape[1]).reshape(2, -1)
    for kind in rows:
        held = torch.bincount(kind, minlength=tree.tokens.shape[0])
        assert int(held.max() - held.min()) <= 1
