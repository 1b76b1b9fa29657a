"""The world's tokenizer: one token a symbol, mark and rule word, the same after a round trip through its file."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from fstsim.llm.pretraining.corpus import collate, problem_line, reflection_line
from fstsim.llm.pretraining.tokenizer import BOS, EOS, MARKS, PAD, UNK, build_tokenizer, vocabulary
from fstsim.llm.tasks.families import FAMILIES, UNNAMED, Family
from fstsim.llm.tasks.rules import SIZES

TOKENIZER = build_tokenizer()  # session fixtures and Hypothesis do not mix well; nothing changes it

SYMBOLS = [s for family in FAMILIES.values() for s in family.symbols]
WORDS = [word for family in FAMILIES.values() for word in family.rules]


def ids(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def test_vocabulary() -> None:
    """Every token once, in the order of the ids; special tokens first."""
    tokens = vocabulary()
    assert len(set(tokens)) == len(tokens) == len(TOKENIZER)
    assert TOKENIZER.convert_ids_to_tokens(list(range(len(tokens)))) == tokens
    assert tokens[:4] == [PAD, BOS, EOS, UNK]
    assert (TOKENIZER.pad_token, TOKENIZER.bos_token, TOKENIZER.eos_token, TOKENIZER.unk_token) == (PAD, BOS, EOS, UNK)


@pytest.mark.parametrize("token", [*SYMBOLS, *WORDS, *MARKS])
def test_every_symbol_word_and_mark_is_one_token(token: str) -> None:
    """Alone, and whatever stands around it."""
    (alone,) = ids(token)
    assert TOKENIZER.convert_ids_to_tokens(alone) == token
    assert ids(f"{token}=") == [alone, *ids("=")]
    assert ids(f"A{token}A") == [*ids("A"), alone, *ids("A")]
    assert ids(f"  {token}\n{token}  ") == [alone, alone]


def test_the_beginning_is_marked_and_the_end_is_not() -> None:
    tokens = TOKENIZER("reverse | ABC =")["input_ids"]
    assert TOKENIZER.convert_ids_to_tokens(tokens) == [BOS, "reverse", "|", "A", "B", "C", "="]


@given(st.lists(st.sampled_from([*SYMBOLS, *WORDS, *MARKS]), max_size=30))
def test_round_trip_of_text(tokens: list[str]) -> None:
    """Tokens to text and back, with spaces between them or, where no two words meet, without."""
    spaced = " ".join(tokens)
    assert TOKENIZER.decode(ids(spaced)).split() == tokens
    assert TOKENIZER.decode(TOKENIZER(spaced)["input_ids"], skip_special_tokens=True).split() == tokens
    if not any(a in WORDS and b in WORDS for a, b in zip(tokens, tokens[1:], strict=False)):  # noqa: RUF007
        assert ids("".join(tokens)) == ids(spaced)


# Python and the tokenizer agree on what a space is, control characters apart
@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=40))
def test_text_of_another_world_is_unknown_and_never_an_error(text: str) -> None:
    """What is no token of ours becomes the unknown token: one a small-letter word or foreign character."""
    pieces = re.findall(r"[A-Z]|[0-9]|[a-z]+|[^A-Za-z0-9\s]", text)
    known = set(vocabulary())
    tokens = TOKENIZER.convert_ids_to_tokens(ids(text))
    if not any(special in text for special in (PAD, BOS, EOS, UNK)):
        assert tokens == [piece if piece in known else UNK for piece in pieces]


def test_unknown_words() -> None:
    unknown = TOKENIZER.unk_token_id
    assert ids(UNNAMED) == [unknown], "no word describes the unnamed rule"
    assert ids("Zebra") == [unknown, unknown]
    assert ids("reversed") == [unknown], "a longer word is not cut into a known one"


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_ids_of_the_corpus_are_those_of_the_tokenizer(family: Family, rng: np.random.Generator) -> None:
    """What the base model was trained on is what prompts in words become, with spaces inside a list or without."""
    for make in (problem_line, reflection_line):
        for _ in range(50):
            shown, written = make(family, SIZES[family.name], rng)
            tokens, labels = collate([(shown, written)])
            for text in (
                " ".join([*shown, *written]),
                re.sub(r"(?<=[^a-z]) (?=[^a-z])", "", " ".join([*shown, *written])),
            ):
                assert tokens[0].tolist() == TOKENIZER(text)["input_ids"]
            answer = labels[0][labels[0] >= 0].tolist()
            assert answer == [*ids(" ".join(written)), TOKENIZER.eos_token_id]


def test_saved_and_read_again(tmp_path: Path) -> None:
    """The file is a real tokenizer.json: transformers reads it without our code, and it gives the same ids and text."""
    build_tokenizer().save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").is_file()
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(again, PreTrainedTokenizerFast)
    assert again.get_vocab() == TOKENIZER.get_vocab()
    assert again.special_tokens_map == TOKENIZER.special_tokens_map
    for text in ("reverse rotate | ABCDE =", "QJ;WL;WP:J", "12345 > 54321 ; 0 ? flip", "unknown Zebra", ""):
        assert again(text)["input_ids"] == TOKENIZER(text)["input_ids"]
        assert again.decode(again(text)["input_ids"]) == TOKENIZER.decode(TOKENIZER(text)["input_ids"])
