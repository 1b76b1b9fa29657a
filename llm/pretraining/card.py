"""The card of a model that `fstsim pretrain` made."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import torch

from fstsim.llm.pretraining.config import PretrainConfig
from fstsim.llm.pretraining.scratch_exam import chain_table

_CHAINS = "Under rules it writes either the answer or a chain, the list after each rule and then the answer. "


def _origin(config: PretrainConfig) -> str:
    return f"the weights of `{config.start}`" if config.start else "random weights"


def model_card(config: PretrainConfig, row: Mapping[str, Any], made: Mapping[str, Any], model: torch.nn.Module) -> str:
    """The model card: what it is, how it was made, what it can do."""
    count = sum(p.numel() for p in model.parameters())
    lines = [
        "---",
        "license: mit",
        "library_name: transformers",
        "---",
        "# fstsim base model",
        "",
        (
            f"A Qwen3-type causal LM of {count:,} parameters ({config.layers} layers, width {config.width}), trained from "
            f"{_origin(config)} by `fstsim pretrain` on the synthetic world of fstsim (no other data). It follows rules written "
            "in its context, is a mixture of behaviours without them, and writes rules from examples. "
            f"{_CHAINS if config.corpus.scratch else ''}It is a laboratory "
            "animal for measurements of forgetting and knows nothing else."
        ),
        "",
        f"- steps {row['step']}, {row['seconds'] / 60:.1f} min on {made['device']} ({made['cores']} cores), activations {config.precision}",
        f"- seed of weights and data {config.seed}; data: problems of the train split only (fstsim.llm.pretraining.corpus)",
        (
            f"- commit {made['commit']}, {datetime.date.today().isoformat()}, torch {made['versions'].get('torch')}, "
            f"transformers {made['versions'].get('transformers')}"
        ),
        "",
        "Greedy accuracy on problems of the test split, and mass of the right answer without context:",
        "",
    ]
    deepest = max(config.corpus.shares)
    heads = [f"{depth} rule{'s' * (depth > 1)}" for depth in range(1, deepest + 1)]
    heads = ["family", *heads, "rules written from 4 examples", "identity without context"]
    lines += [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for sizes in config.corpus.worlds():
        for family, size in sizes.items():
            name = family if f"old_mass_{family}@{size}" not in row else f"{family}@{size}"
            columns = [*(f"accuracy_{name}_{k + 1}" for k in range(deepest)), f"reflection_{name}", f"old_mass_{name}"]
            shown = family if config.corpus.sizes is None else f"{family}@{size}"
            lines.append(f"| {shown} | {' | '.join(f'{row[column]:.3f}' for column in columns)} |")
    if config.corpus.scratch:
        lines += ["", *chain_table(row)]
    return "\n".join(lines) + "\n"
