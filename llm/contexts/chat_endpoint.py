"""A chat endpoint as the reflector: any server that speaks the OpenAI protocol."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any
from urllib.parse import quote, quote_plus, urlsplit

import numpy as np

from fstsim.errors import InputError
from fstsim.llm.contexts.chat_request import BadReply, post_json
from fstsim.llm.contexts.reflection import Record, ReflectorDown, write_instruction
from fstsim.llm.policy.policy import Policy

_SECRET = 8  # characters of the shortest key that is a secret
LENGTH = "--reflector-tokens must be at least 1, or 0 for what the reflector has on its own; got {}"


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        return parts.port != 0 and 0 < len(host) <= 253 and all(len(label) <= 63 for label in host.split("."))
    except ValueError:  # brackets without an end, a port that is none
        return False


@dataclass
class ChatEndpoint:
    """A chat model behind an OpenAI-compatible endpoint (``base_url``/chat/completions), asked with GEPA's own prompt.

    ``call_budget`` bounds the calls of a run, ``max_tokens`` an answer (0: whatever the server allows, which can be a thousand
    tokens of a small model that finds no end). A call that fails is tried ``retries`` times more, with growing pauses; then
    ReflectorDown. ``api_key`` is sent as a bearer token if it is not empty, and is never written anywhere.
    """

    base_url: str
    model: str
    api_key: str = field(default="", repr=False)
    timeout: float = 60.0
    retries: int = 2
    call_budget: int = 200
    max_tokens: int = 0
    calls: int = 0
    pause: float = 1.0

    def __post_init__(self) -> None:
        self.api_key = self.api_key.strip()  # keys read from files end in a newline
        # first, because the other messages show it; and it is recorded
        if re.search(r"[@?#]", self.base_url) or (self._secret and self.api_key in self.base_url):
            raise InputError(
                "base-url must not hold a user name, a password, a query or the key: put the key into FSTSIM_API_KEY"
            )
        if not re.match(r"https?://[^\s/]", self.base_url) or re.search(r"\s", self.base_url):
            raise InputError(f"base-url must start with http:// or https://, got {self.base_url[:80]!r}")
        if not _is_address(self.base_url):
            raise InputError(
                f"base-url must be an address of a host and a port below 65536, got {self.base_url[:80]!r}"
            )
        if not (self.api_key.isascii() and self.api_key.isprintable()):
            raise InputError("FSTSIM_API_KEY must be one line of printable ASCII characters")
        if not self.model:
            raise InputError("--reflector openai needs --reflector-model, the name of the endpoint's model")
        if not 0.0 < self.timeout <= threading.TIMEOUT_MAX:
            raise InputError(f"--reflector-timeout must be positive and finite, seconds; got {self.timeout:g}")
        if self.retries < 0 or self.call_budget < 1:
            raise InputError("retries must be at least 0, call_budget at least 1")
        if self.max_tokens < 0:
            raise InputError(LENGTH.format(self.max_tokens))

    @property
    def _secret(self) -> bool:
        """Whether the key is one: local servers take any word, which texts and addresses may hold too."""
        return len(self.api_key) >= _SECRET

    def _without_key(self, text: str) -> str:
        """Servers say the key back, as it is or escaped, and so do errors about headers; replaced before anything is cut off."""
        key = self.api_key
        if not key:
            return text
        forms = {key, json.dumps(key)[1:-1], repr(key)[1:-1], quote(key), quote(key, ""), quote_plus(key), escape(key)}
        for form in sorted(forms, key=len, reverse=True):
            text = text.replace(form, "(key)")
        return text

    def propose(
        self,
        policy: Policy,  # noqa: ARG002 -- another model writes
        context: str,
        records: Sequence[Record],
        rng: np.random.Generator,  # noqa: ARG002 -- the endpoint has its own randomness
    ) -> tuple[str, int]:
        """One call of the endpoint, or more where it fails."""
        return write_instruction(self.ask, context, records), 0

    def ask(self, prompt: str) -> str:
        """Answer of the chat model to one message."""
        import httpx

        url = f"{self.base_url.rstrip('/')}/chat/completions"
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        body: dict[str, Any] = {"model": self.model, "messages": [{"role": "user", "content": prompt}]}
        if self.max_tokens:
            body["max_tokens"] = self.max_tokens
        said = ""
        for attempt in range(self.retries + 1):
            if self.calls >= self.call_budget:
                raise ReflectorDown(f"the reflector's call budget of {self.call_budget} calls is used up")
            if attempt:
                time.sleep(self.pause * 2.0 ** (attempt - 1))
            self.calls += 1
            try:
                status, text = post_json(url, body, headers, self.timeout)
                if status == 200:
                    content = json.loads(text)["choices"][0]["message"]["content"]
                    if isinstance(content, str):
                        # it is recorded, which half of a surrogate pair cannot be
                        text = self._without_key(content) if self._secret else content
                        return text.encode("utf-8", "replace").decode()
                    said = "an answer without text"
                    continue
                said = f"status {status}: {self._without_key(text)[:120]}"
                if status in (400, 401, 403, 404):  # trying again cannot help
                    break
            except BadReply as error:
                said = str(error)
            except RecursionError:
                said = "JSON that is nested too deeply"
            except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, IndexError, TypeError) as error:
                said = f"{type(error).__name__}: {self._without_key(str(error))[:200]}"
        raise ReflectorDown(f"the reflector at {url} does not answer ({' '.join(said.split())})") from None
