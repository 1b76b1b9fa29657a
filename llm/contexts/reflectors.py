"""Which reflector a run has: the policy itself, a chat endpoint, or a local model, which is here too."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from fstsim.errors import InputError
from fstsim.llm.contexts.chat_endpoint import LENGTH, ChatEndpoint
from fstsim.llm.contexts.reflection import Record, Reflector, ReflectorTooSmall, SelfReflection, write_instruction
from fstsim.llm.policy.loading import load_tokenizer
from fstsim.llm.policy.policy import Policy
from fstsim.settings import check_types


@dataclass(frozen=True)
class LocalChat:
    """A local model that stays as it is; ``name`` is what it was loaded by.

    A chat model is asked with GEPA's own prompt; a model of the world, which reads no English, as in `SelfReflection`.
    """

    model: Policy
    name: str
    max_new_tokens: int = 256
    temperature: float = 1.0

    def propose(
        self,
        policy: Policy,  # noqa: ARG002 -- another model writes
        context: str,
        records: Sequence[Record],
        rng: np.random.Generator,
    ) -> tuple[str, int]:
        """One sample of the model; ReflectorTooSmall if the prompt and its answer do not fit the model's positions."""
        if self.model.template == "world":
            return SelfReflection(self.temperature).propose(self.model, context, records, rng)[0], 0
        limit = self.model.positions

        def ask(prompt: str) -> str:
            tokens = self.model.encode_text(prompt)
            if limit is not None and len(tokens) + self.max_new_tokens > limit:
                raise ReflectorTooSmall(
                    f"the reflector {self.name} has {limit} positions, not the {len(tokens)} that it is to read and the "
                    f"{self.max_new_tokens} that it may write"
                )
            generator = torch.Generator(self.model.device).manual_seed(int(rng.integers(2**62)))
            out = self.model.sample(
                [tokens], 1, generator, max_new_tokens=self.max_new_tokens, temperature=self.temperature
            )
            return self.model.decode(out)[0]

        return write_instruction(ask, context, records), 0


@dataclass(frozen=True)
class ReflectorConfig:
    """Which reflector. The key of an endpoint is read from the environment variable FSTSIM_API_KEY and stored nowhere."""

    kind: Literal["self", "openai", "local"] = "self"
    """self: the policy; openai: a chat endpoint; local: another model in this process"""
    base_url: str = ""
    """of the chat endpoint, for example http://localhost:8000/v1"""
    model: str = ""
    """name of the endpoint's model, or path of the local one"""
    timeout: float = 60.0
    """seconds a call may take"""
    retries: int = 2
    """further attempts of a failed call"""
    call_budget: int = 200
    """calls of the endpoint in a run"""
    max_tokens: int = 0
    """longest text of another model; 0: the server's limit, 256 tokens of a local one"""

    def __post_init__(self) -> None:
        check_types(self)
        if self.kind not in ("self", "openai", "local"):
            raise InputError(f"reflector must be self, openai or local, got {self.kind!r}")
        if self.kind == "openai":
            self.build()  # says what is missing before any work
        if self.kind == "local" and not self.model:
            raise InputError(
                "--reflector local needs --reflector-model, the path or name of a chat model or of a model of the world"
            )
        if self.max_tokens < 0:
            raise InputError(LENGTH.format(self.max_tokens))

    def check_model(self) -> None:
        """InputError, before any weights are loaded, unless the model of a local reflector is there."""
        if self.kind == "local":
            load_tokenizer(self.model)

    def build(self) -> Reflector:
        """The reflector."""
        if self.kind == "openai":
            key = os.environ.get("FSTSIM_API_KEY", "")
            return ChatEndpoint(
                self.base_url, self.model, key, self.timeout, self.retries, self.call_budget, self.max_tokens
            )
        if self.kind == "local":
            return LocalChat(Policy.load(self.model), self.model, self.max_tokens or LocalChat.max_new_tokens)
        return SelfReflection()
