"""Tiny models with random weights, made anew for every test that asks: a test may train or break its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

# No test asks the network for a model: must be set before transformers is imported.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from fstsim.llm.policy.policy import Policy
from fstsim.llm.pretraining.tokenizer import build_tokenizer

torch.set_num_threads(1)  # matrices are tiny here: a second thread would only wait, for minutes on a busy machine

MakeModel = Callable[..., PreTrainedModel]
MakePolicy = Callable[..., Policy]


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """The world's tokenizer; nothing changes it."""
    return build_tokenizer()


@pytest.fixture(scope="session")
def make_model(tokenizer: PreTrainedTokenizerFast) -> MakeModel:
    """``make_model(kind, seed, **config)``: a Qwen3 or Llama of two layers, about 20,000 weights, a fresh one each call.

    Weights are larger than usual (standard deviation 0.3), so that next-token distributions are far from uniform and
    depend on every earlier token: a wrong position, mask or prompt is then far above any tolerance.
    """

    def make(kind: str = "qwen3", seed: int = 0, **changes: object) -> PreTrainedModel:
        settings: dict[str, object] = {
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "max_position_embeddings": 64,
            "initializer_range": 0.3,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "tie_word_embeddings": kind == "qwen3",
            **changes,
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if kind == "qwen3":
                return Qwen3ForCausalLM(Qwen3Config(**settings)).eval()
            return LlamaForCausalLM(LlamaConfig(**settings)).eval()

    return make


@pytest.fixture(scope="session")
def make_policy(make_model: MakeModel, tokenizer: PreTrainedTokenizerFast) -> MakePolicy:
    """``make_policy(kind, seed, **config)``: the model of `make_model` with the world's tokenizer, fresh at each call."""
    return lambda *args, **kwargs: Policy.of(make_model(*args, **kwargs), tokenizer)


@pytest.fixture(autouse=True)
def own_randomness() -> Iterator[None]:
    """Torch's global generator is nobody's source of randomness: every test finds it the same and leaves no trace in it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
