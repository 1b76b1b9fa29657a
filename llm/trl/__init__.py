"""The laboratory inside other people's trainers: TRL's, and any Trainer of transformers (extra ``trl``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fstsim.llm.trl.callback import DriftCallback

if TYPE_CHECKING:
    from fstsim.llm.trl.fast_slow import FastSlowGRPOTrainer as FastSlowGRPOTrainer

__all__ = ["DriftCallback", "FastSlowGRPOTrainer"]


def __getattr__(name: str) -> Any:
    if name == "FastSlowGRPOTrainer":  # TRL and GEPA, which a callback does without
        from fstsim.llm.trl.fast_slow import FastSlowGRPOTrainer

        return FastSlowGRPOTrainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
