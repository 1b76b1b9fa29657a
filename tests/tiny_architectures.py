"""A tiny model with random weights of every decoder that transformers offers, whose windows and chunks are a few tokens.

What a decoder does to tokens that are far apart, or beside other rows, is seen at lengths that a test can afford.
"""

from __future__ import annotations

import contextlib
import inspect
from typing import Any

import torch
from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedModel

WINDOW = 8
POSITIONS = 128
LARGEST = 4_000_000
"""weights of a model that a test can afford"""

_SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "d_model": 32,
    "n_embd": 32,
    "word_embed_proj_dim": 32,
    "embedding_size": 32,
    "dim": 32,
    "intermediate_size": 48,
    "ffn_dim": 48,
    "ffn_hidden_size": 48,
    "moe_intermediate_size": 16,
    "expert_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "num_hidden_layers": 2,
    "n_layer": 2,
    "num_layers": 2,
    "n_layers": 2,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "num_attention_heads": 4,
    "n_head": 4,
    "n_heads": 4,
    "num_heads": 4,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": POSITIONS,
    "n_positions": POSITIONS,
    "n_ctx": POSITIONS,
    "max_seq_len": POSITIONS,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "num_experts": 4,
    "n_routed_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "initializer_range": 0.3,
    "init_std": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    # what forgets, far below the lengths that are tried
    "sliding_window": WINDOW,
    "sliding_window_size": WINDOW,
    "window_size": WINDOW,
    "attention_chunk_size": WINDOW,
    "local_attention": WINDOW,
    "local_attention_window_len": WINDOW,
    "attention_window_size": WINDOW,
    "keep_window_size": WINDOW,
}
# attention through a latent has as many heads of keys as of queries
_LATENT = [
    "axk1",
    "axk2",
    "deepseek_v2",
    "deepseek_v3",
    "deepseek_v32",
    "glm4_moe_lite",
    "glm_moe_dsa",
    "longcat_flash",
    "minicpm3",
    "minimax",
    "youtu",
]
# one layer in some keeps keys and values
_HYBRID = [
    "bailing_hybrid",
    "jamba",
    "lfm3",
    "qwen3_5_moe_text",
    "qwen3_5_text",
    "qwen3_next",
    "qwen4_exp_text",
    "recurrent_gemma",
]
_OWN: dict[str, dict[str, Any]] = {
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "falcon": {"num_kv_heads": 2},
    "mpt": {"expansion_ratio": 2},
    "ctrl": {"dff": 48},
    "xglm": {"attention_heads": 4},
    "dots1": {"n_shared_experts": 1},
    "phi3": {"sliding_window": None},
    **{name: {"num_key_value_heads": 4} for name in _LATENT},
    **{name: {"num_hidden_layers": 8} for name in _HYBRID},
    "gptj": {"rotary_dim": 4},
    "codegen": {"rotary_dim": 4},
}


def _known_sizes(config_class: Any) -> dict[str, Any]:
    """The sizes among those above that the class knows."""
    names: set[str] = set()
    for each in config_class.__mro__:
        with contextlib.suppress(ValueError, TypeError):
            names |= set(inspect.signature(each.__init__).parameters)
        names |= set(getattr(each, "__annotations__", {}))
    names |= set(getattr(config_class, "attribute_map", {}))
    return {name: value for name, value in _SIZES.items() if name in names}


def architectures() -> list[str]:
    """``model_type`` of every decoder of transformers that a causal language model can be loaded from."""
    return sorted({config.model_type for config in MODEL_FOR_CAUSAL_LM_MAPPING})


def tiny_model(model_type: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A model of ``model_type``; ValueError where the sizes do not suit its class, or it has parts beside a decoder."""
    config_class = CONFIG_MAPPING[model_type]
    if getattr(config_class, "sub_configs", None):
        raise ValueError(f"{model_type} has parts beside a decoder")
    settings = _known_sizes(config_class) | _OWN.get(model_type, {}) | changes
    try:
        config = config_class(**settings)
        if hasattr(config, "is_decoder"):
            config.is_decoder = True
        with torch.device("meta"):
            large = sum(each.numel() for each in MODEL_FOR_CAUSAL_LM_MAPPING[config_class](config).parameters())
        if large > LARGEST:
            raise ValueError(f"{model_type} would have {large:,} weights")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = MODEL_FOR_CAUSAL_LM_MAPPING[config_class](config)
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.dim() > 1 and float(parameter.std()) < 0.1:
                        parameter.normal_(0.0, 0.3)
    except (Exception, RecursionError) as error:  # each class has its own way to say that sizes do not suit it
        raise ValueError(f"{model_type}: {error}") from error
    return model.eval()
