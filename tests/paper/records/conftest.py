"""Tiny models for records that are made from runs."""

from tiny_models import make_model, tokenizer

__all__ = ["make_model", "tokenizer"]
