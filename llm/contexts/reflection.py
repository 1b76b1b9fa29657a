r"""Who writes new contexts: the policy itself, a chat endpoint, or a local chat model. One protocol, three real reflectors.

A reflector sees what the fast channel may see: the current context, and records of what was asked, what was written and
what the environment said about it. It never sees the hidden rules.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, Literal, Protocol
from urllib.parse import quote, quote_plus, urlsplit

import numpy as np
import torch

from fstsim.errors import InputError
from fstsim.llm.contexts.chat_request import BadReply, post_json
from fstsim.llm.contexts.proposals import UnusableProposal, context_from
from fstsim.llm.policy.policy import Policy
from fstsim.llm.pretraining.corpus import EXAMPLES
from fstsim.settings import check_types

Record = Mapping[str, str]

_FEEDBACK = re.compile(r"start: (?P<start>\S+) wrote: (?P<wrote>\S*) right: (?P<right>\S+)")
_UNREAD = "a model of the world reads feedback of the form start: LIST wrote: LIST right: LIST alone, and this task says otherwise"
LONGEST = 8
"""Most rules in a context that a policy of the world writes."""
_WRITTEN = 64  # tokens of a context that a chat model writes for itself
_RECORDS = 4  # of which it is shown that many
_SHOWN = 300  # characters of each part of a record
_SECRET = 8  # characters of the shortest key that is a secret
_LENGTH = "--reflector-tokens must be at least 1, or 0 for what the reflector has on its own; got {}"


class ReflectorDown(RuntimeError):
    """A reflector cannot answer: the message says who, what was tried and what it said."""


class ReflectorTooSmall(ReflectorDown):
    """A reflector's model has too few positions for what it is to read: the same call would fail again."""


class Reflector(Protocol):
    """Writes a new context from failures. ``propose`` returns the context and how many rollouts of the policy it cost.

    What was written and is no context raises `fstsim.llm.contexts.proposals.UnusableProposal`: the round goes on without it.
    """

    def propose(
        self, policy: Policy, context: str, records: Sequence[Record], rng: np.random.Generator
    ) -> tuple[str, int]:
        """A new context. May raise ReflectorDown; must not change the policy; all randomness from ``rng``."""
        ...


@dataclass(frozen=True)
class SelfReflection:
    """The policy writes the context itself: a chat model in words, a model of the world in the notation it was trained on.

    A chat model (any model outside of the world) is shown some questions, what was written and what was said about it, and
    asked for one instruction; what it may say is not limited. In the world, *direct*: four problems with their right answers, the rules are written anew. *Residual*: what the present context
    produced against what was right, the missing rules are written and appended. Which of the two is a fair coin.
    """

    temperature: float = 1.0

    def propose(
        self, policy: Policy, context: str, records: Sequence[Record], rng: np.random.Generator
    ) -> tuple[str, int]:
        """One sample of the policy; in the world the old context where too few records have the form that it reads.

        Raises UnusableProposal where none has: no round on this task can find a context.
        """
        if policy.template != "world":
            return self._in_words(policy, context, records, rng)
        residual = bool(context) and rng.random() < 0.5
        read = [said for record in records if (said := _FEEDBACK.search(record["Feedback"])) is not None]
        if records and not read:
            raise UnusableProposal(_UNREAD, records[0]["Feedback"])
        pairs = [
            (said["wrote"] if residual else said["start"], said["right"])
            for said in read
            if not residual or len(said["wrote"]) == len(said["right"])
        ]
        if len(pairs) < EXAMPLES:
            return context, 0
        chosen = [pairs[i] for i in rng.choice(len(pairs), size=EXAMPLES, replace=False)]
        generator = torch.Generator(policy.device).manual_seed(int(rng.integers(2**62)))
        prompt = policy.tokenizer(reflection_prompt(chosen))["input_ids"]
        written = policy.sample([prompt], 1, generator, max_new_tokens=LONGEST, temperature=self.temperature)
        rules = written_rules(policy, policy.decode(written)[0])
        words = [*context.split(), *rules] if residual else rules
        return " ".join(words[:LONGEST]), 1

    def _in_words(
        self, policy: Policy, context: str, records: Sequence[Record], rng: np.random.Generator
    ) -> tuple[str, int]:
        """One sample of a chat model. Raises UnusableProposal where it is no context, or where there is no room for one."""
        shown = [records[i] for i in rng.permutation(len(records))[:_RECORDS]]
        generator = torch.Generator(policy.device).manual_seed(int(rng.integers(2**62)))
        tokens = policy.encode_text(reflection_message(context, shown))
        try:
            out = policy.sample([tokens], 1, generator, max_new_tokens=_WRITTEN, temperature=self.temperature)
        except InputError as error:  # the prompt does not fit
            raise UnusableProposal(str(error), "") from error
        return context_from(policy.decode(out)[0], context, 1), 1


def reflection_prompt(pairs: Sequence[tuple[str, str]]) -> str:
    """The line after which a model of the world writes rules: lists before and after them, symbols with spaces between them."""
    return " ; ".join(f"{' '.join(a)} > {' '.join(b)}" for a, b in pairs) + " ?"


def written_rules(policy: Policy, text: str) -> list[str]:
    """The words of rules in what a model of the world wrote."""
    return [word for word in text.split() if word in policy.words]


def reflection_message(context: str, records: Sequence[Record]) -> str:
    """What a policy is asked when it writes its own context: short and simple, because it may be a small model."""
    parts = [
        f"Question: {r['Inputs'][:_SHOWN]}\nThe student wrote: {r['Generated Outputs'][:_SHOWN]}\nThe teacher said: {r['Feedback'][:_SHOWN]}"
        for r in records
    ]
    so_far = f"\n\nThe student had this instruction: {context}" if context else ""
    return (
        "A student answers questions, and a teacher says what would have been right.\n\n"
        + "\n\n".join(parts)
        + so_far
        + "\n\nWrite one short instruction that tells the student how to write answers as the teacher wants them, with an "
        "example. Write the instruction only."
    )


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
            raise InputError(_LENGTH.format(self.max_tokens))

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


def write_instruction(ask: Any, context: str, records: Sequence[Record]) -> str:
    """GEPA's instruction prompt with ``ask`` (text to text) as its model. Raises UnusableProposal where the text is no context."""
    from gepa.strategies.instruction_proposal import InstructionProposalSignature as Signature

    prompt = Signature.prompt_renderer(
        {"current_instruction_doc": context, "dataset_with_feedback": list(records), "prompt_template": None}
    )
    return context_from(ask(prompt), context)


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
            raise InputError(_LENGTH.format(self.max_tokens))

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
