"""Toy, language model and theory on the same axes."""
