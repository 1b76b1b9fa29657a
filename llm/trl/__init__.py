"""The laboratory inside other people's trainers: TRL's, and any Trainer of transformers (extra ``trl``)."""

from fstsim.llm.trl.callback import DriftCallback

__all__ = ["DriftCallback"]
