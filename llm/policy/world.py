"""Which models are of the laboratory's world, and which rule words they know: what is stored with a model says so.

Models made by `fstsim pretrain` hold their words and sizes in config.json (``world_words``, ``world_sizes``), and so does
every model trained from them. Models from before they did have the vocabulary of the shipped one: it is a list beside its
weights, world.json, so that a word that is added to a family makes no model a stranger.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fstsim.llm.policy.loading import shipped_path
from fstsim.records import read_json

WORLD_FILE = "world.json"


@cache
def shipped_world() -> Mapping[str, Any]:
    """``vocabulary``, all tokens; ``words``, those of rules; ``sizes``, symbols of a start list by family: of the shipped model."""
    return dict(read_json(shipped_path() / WORLD_FILE))


def has_world(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the model reads and writes the world's short notation."""
    if getattr(model.config, "world_words", None):
        return True
    return set(shipped_world()["vocabulary"]) <= set(tokenizer.get_vocab())


def world_words(model: PreTrainedModel) -> tuple[str, ...]:
    """The words of rules that a model of the world knows."""
    return tuple(getattr(model.config, "world_words", None) or shipped_world()["words"])


def world_sizes(model: PreTrainedModel) -> Mapping[str, int]:
    """Symbols of a start list, by family, in the world that the model was trained on (the largest)."""
    return getattr(model.config, "world_sizes", None) or shipped_world()["sizes"]
