"""What a base model is made of, and for how long: settings of `fstsim pretrain` and its presets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from fstsim.errors import InputError
from fstsim.llm.pretraining.corpus import CorpusConfig, longest_line
from fstsim.settings import check_types

Precision = Literal["float32", "bfloat16"]
POSITIONS = 512
"""Context length of the models made here, tokens."""


@dataclass(frozen=True)
class PretrainConfig:
    """What is trained, on what, for how long."""

    steps: int = 1200
    """updates"""
    layers: int = 4
    """decoder layers"""
    width: int = 128
    """hidden size; heads have 32 dimensions, the MLP three times the width"""
    lr: float = 4e-3
    """peak learning rate of Muon (matrices)"""
    lr_rest: float = 3e-3
    """peak learning rate of AdamW (embeddings, norms)"""
    precision: Precision = "bfloat16"
    """of activations and of Muon's iterations; weights are float32"""
    seed: int = 0
    """seed of initial weights and data"""
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    """lines a step and sizes"""
    start: str = ""
    """model whose weights it starts from, by path or name; none: random weights"""

    def __post_init__(self) -> None:
        check_types(self)
        if self.steps < 1 or self.layers < 1:
            raise InputError(f"steps and layers must be at least 1, got {self.steps} and {self.layers}")
        if self.width < 32 or self.width % 32:
            raise InputError(f"width must be a multiple of 32, got {self.width}")
        if not (self.lr > 0.0 and self.lr_rest > 0.0):
            raise InputError(f"learning rates must be positive, got {self.lr} and {self.lr_rest}")
        if self.precision not in get_args(Precision):
            raise InputError(f"precision must be one of {', '.join(get_args(Precision))}; got {self.precision!r}")
        if self.seed < 0:
            raise InputError(f"seed must be at least 0, got {self.seed}")
        if longest_line(self.corpus) > POSITIONS:
            raise InputError(
                f"lines of {longest_line(self.corpus)} tokens do not fit the model's {POSITIONS} positions: smaller sizes"
            )


PRESETS: Mapping[str, PretrainConfig] = {
    "scratch": PretrainConfig(
        steps=1500,
        lr=2e-3,
        lr_rest=1e-3,
        precision="float32",  # on processors without bfloat16 five times as fast
        start="base",
        corpus=CorpusConfig(problems=48, reflections=6, scratch=True),
    ),
    "smoke": PretrainConfig(steps=20, layers=2, width=64, corpus=CorpusConfig(problems=8, reflections=4)),
    "tiny": PretrainConfig(
        steps=800, layers=2, width=64, precision="float32", corpus=CorpusConfig(problems=48, reflections=12)
    ),
    "small": PretrainConfig(),
    "medium": PretrainConfig(
        steps=20_000,
        layers=8,
        width=512,
        lr=2e-3,
        lr_rest=1e-3,
        corpus=CorpusConfig(
            problems=512,
            reflections=128,
            sizes={"strings": (5, 8, 12), "digits": (5, 8, 12), "star_graph": (4, 5)},
            depths=(0.3, 0.3, 0.2, 0.1, 0.1),
        ),
    ),
}


def recorded(config: PretrainConfig) -> dict[str, Any]:
    """``config`` as pretrain.json holds it: a setting that came after the first models is left out where it says nothing."""
    held = dataclasses.asdict(config)
    if config.corpus.depths is None:
        del held["corpus"]["depths"]
    if not config.corpus.scratch:
        del held["corpus"]["scratch"]
    if not config.start:
        del held["start"]
    return held
