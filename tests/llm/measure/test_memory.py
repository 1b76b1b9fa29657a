"""What a measurement is said to need against the models themselves, and the one line where it is not there."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from fstsim.errors import InputError
from fstsim.llm.measure import memory
from fstsim.llm.measure.config import MeasureConfig, MeasureSettings
from fstsim.llm.measure.measure import run_measure
from fstsim.llm.measure.memory import check_memory, count_weights, free_bytes, needed_bytes
from fstsim.llm.policy.loading import load_model, shipped_path

SETTINGS = MeasureSettings(samples=2, max_new_tokens=4)


def test_weights_are_counted_from_the_headers() -> None:
    model, _ = load_model("base", "cpu", "float32")
    held = sum(weight.numel() for weight in model.state_dict().values())
    tied = model.config.vocab_size * model.config.hidden_size * model.config.tie_word_embeddings
    assert count_weights(shipped_path()) in (held, held - tied)
    logits = 16 * 2 * 4 * model.config.vocab_size
    assert needed_bytes("base", SETTINGS, False) == 4 * (2 * count_weights(shipped_path()) + 6 * logits)
    assert needed_bytes("base", SETTINGS, True) - needed_bytes("base", SETTINGS, False) == 16 * count_weights(
        shipped_path()
    )
    assert needed_bytes("owner/not-here", SETTINGS, True) == 0


def _header(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "content",
    [
        b"\xff" * 8,
        b"",
        _header(b"[]"),
        _header(b"[" * 100_000),
        _header(b'{"a": 3}'),
        _header(b'{"a": {"shape": ["x"]}}'),
        _header(b'{"a": {"shape": [-2, 3]}}'),
        _header(b'{"a": {"shape": ' + str([2**62] * 40).encode() + b"}}"),
        _header(b'{"a": {"shape": [' + b"9" * 5000 + b"]}}"),
        _header(b"\xff{}"),
        None,
    ],
    ids=lambda content: repr(content)[:20],
)
def test_a_broken_file_is_left_to_loading(tmp_path: Path, content: bytes | None) -> None:
    """Also a pipe, which would be waited for, and headers of other types than those of safetensors."""
    path = tmp_path / "model.safetensors"
    os.mkfifo(path) if content is None else path.write_bytes(content)
    assert count_weights(tmp_path) == 0
    assert needed_bytes(str(tmp_path), SETTINGS, True) == 0


@pytest.mark.parametrize("config", ["[" * 100_000, "[]", '{"vocab_size": 1e999}', '{"vocab_size": null}', "3"])
def test_a_broken_config_is_left_to_loading(tmp_path: Path, config: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(_header(b'{"a": {"shape": [2, 3]}}'))
    (tmp_path / "config.json").write_text(config)
    assert needed_bytes(str(tmp_path), SETTINGS, False) == 4 * 2 * 6


def test_the_vocabulary_of_a_model_of_texts_and_pictures_is_counted(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(_header(b'{"a": {"shape": [2, 3]}}'))
    (tmp_path / "config.json").write_text('{"text_config": {"vocab_size": 100}}')
    assert needed_bytes(str(tmp_path), SETTINGS, False) == 4 * (2 * 6 + 6 * 16 * 2 * 4 * 100)


def test_free_memory_is_that_of_the_machine() -> None:
    free = free_bytes("cpu")
    assert free is None or 0 < free < 2**50
    if torch.cuda.is_available():
        assert 0 < (free_bytes("cuda") or 0) < 2**50


def test_too_little_is_said_before_anything_is_loaded(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_model: Callable[..., PreTrainedModel],
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    make_model().save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    monkeypatch.setattr(memory, "free_bytes", lambda _: 1000)
    monkeypatch.setattr("fstsim.llm.measure.measure.load_base", lambda *_: pytest.fail("loaded"))
    config = MeasureConfig(str(tmp_path / "base"), "strings:reverse", settings=SETTINGS)
    with pytest.raises(InputError, match=r"takes about 0\.0 GB on cpu .* but 0\.0 GB are free: use a larger machine"):
        run_measure(config, [str(tmp_path / "base")], tmp_path / "out")
    with pytest.raises(InputError, match="leave --relearn out"):
        check_memory(str(tmp_path / "base"), "cpu", SETTINGS, relearn=True)
    with pytest.raises(InputError, match="cannot be used here"):
        check_memory("base", "nonsense", SETTINGS, relearn=False)
