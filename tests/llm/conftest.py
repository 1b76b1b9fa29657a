"""Tiny models for the tests of this folder."""

from tiny_models import make_model, make_policy, own_randomness, tokenizer

__all__ = ["make_model", "make_policy", "own_randomness", "tokenizer"]
