"""Reflectors: what the policy is shown, against the corpus it was trained on; a chat endpoint on loopback; a local chat model.

The endpoint is a real HTTP server that the test starts; the chat model is tiny and random, with a BPE tokenizer and a chat
template made here.
"""

from __future__ import annotations

import html
import json
import math
import socket
import threading
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

import fstsim.llm.contexts.chat_endpoint as module
from fstsim.__main__ import main
from fstsim.errors import InputError
from fstsim.llm.contexts.chat_endpoint import ChatEndpoint
from fstsim.llm.contexts.prompt_evolution import PromptEvolution
from fstsim.llm.contexts.proposals import UnusableProposal
from fstsim.llm.contexts.reflection import ReflectorDown, SelfReflection
from fstsim.llm.contexts.reflectors import LocalChat, ReflectorConfig
from fstsim.llm.policy.loading import shipped_path
from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.rollouts import Rollouts
from fstsim.llm.pretraining.corpus import EXAMPLES, collate
from fstsim.llm.runs.config import PRESETS, TrainConfig
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.runs.run import run_training
from fstsim.llm.tasks.families import FAMILIES
from fstsim.llm.tasks.rules import RuleTask, parse_start
from fstsim.llm.types import Population
from fstsim.records import read_json, read_rows

MakeModel = Callable[..., PreTrainedModel]
MakePolicy = Callable[..., Policy]
Records = list[dict[str, str]]

KEY = "sk-loopback-5f2b9c"
WORDS = {word for family in FAMILIES.values() for word in family.rules}


def feedback_of(task: RuleTask, count: int, completions: Callable[[str], str]) -> Records:
    """Records as the fast channel makes them: ``completions`` turns the right answer into what the policy wrote."""
    records = []
    for problem in task.problems("validation")[:count]:
        text = completions(task.answer(problem))
        records.append(
            {"Inputs": problem.question, "Generated Outputs": text, "Feedback": task.score(problem, text).feedback}
        )
    return records


# --- the policy itself -----------------------------------------------------------------------------------------------


@dataclass
class Asked:
    """Prompts that a policy was given, and what it wrote."""

    prompts: list[list[int]] = field(default_factory=list)
    settings: list[dict[str, Any]] = field(default_factory=list)
    written: list[str] = field(default_factory=list)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Watches `Policy.sample` without changing it."""
    held, sample = Asked(), Policy.sample

    def watched(self: Policy, prompts: Sequence[Sequence[int]], *args: Any, **kwargs: Any) -> Rollouts:
        found = sample(self, prompts, *args, **kwargs)
        held.prompts += [list(prompt) for prompt in prompts]
        held.settings.append(kwargs)
        held.written += self.decode(found)
        return found

    monkeypatch.setattr(Policy, "sample", watched)
    return held


def corpus_line(pairs: Sequence[tuple[Sequence[str], Sequence[str]]]) -> list[int]:
    """Tokens of a reflection as `corpus.collate` makes them for training, up to where the rules are to be written."""
    shown: list[str] = []
    for k, (before, after) in enumerate(pairs):
        shown += [*([";"] if k else []), *before, ">", *after]
    tokens, labels = collate([([*shown, "?"], ["reverse"])])
    (first,) = (labels[0] >= 0).nonzero()[0].tolist()
    return tokens[0, : first + 1].tolist()


def examples_in(policy: Policy, prompt: Sequence[int]) -> list[tuple[str, str]]:
    """The pairs that a reflection shows, read back."""
    text = "".join(policy.tokenizer.convert_ids_to_tokens(list(prompt))[1:-1])
    return [tuple(pair.split(">")) for pair in text.split(";")]  # type: ignore[misc]  # two sides each


@pytest.mark.parametrize("name", ["strings", "digits", "star_graph"])
def test_direct_reflection_is_the_line_of_the_corpus(
    name: str, make_policy: MakePolicy, asked: Asked, rng: np.random.Generator
) -> None:
    """Start lists and right answers of four problems, token for token as in training; drawn from all that were shown."""
    policy = make_policy()
    task = RuleTask(name, (next(iter(FAMILIES[name].rules)),))
    records = feedback_of(task, 7, lambda right: right[::-1])
    starts = {task.answer(p): parse_start(p) for p in task.problems("validation")[:7]}
    used = Counter[str]()
    for _ in range(12):
        context, cost = SelfReflection().propose(policy, "", records, rng)
        assert cost == 1
        assert set(context.split()) <= WORDS
        pairs = examples_in(policy, asked.prompts[-1])
        assert len(pairs) == len(set(pairs)) == EXAMPLES
        assert asked.prompts[-1] == corpus_line([(starts[right], tuple(right)) for _, right in pairs])
        used.update(right for _, right in pairs)
    assert set(used) == set(starts)
    assert len(asked.prompts) == 12


def test_residual_reflection_shows_what_was_written_in_the_present_context(
    make_policy: MakePolicy, asked: Asked, rng: np.random.Generator
) -> None:
    """The same line with what the context produced on the left; half of the proposals, and their rules are appended."""
    policy = make_policy()
    task = RuleTask("strings", ("next", "rotate"))
    records = feedback_of(task, 6, lambda right: right[-1] + right[:-1])
    wrote = {
        entry["Generated Outputs"]: task.answer(p)
        for entry, p in zip(records, task.problems("validation")[:6], strict=True)
    }
    kinds = Counter[str]()
    for _ in range(60):
        context, cost = SelfReflection().propose(policy, "next", records, rng)
        assert cost == 1
        pairs = examples_in(policy, asked.prompts[-1])
        residual = all(wrote.get(left) == right for left, right in pairs)
        kinds["residual" if residual else "direct"] += 1
        assert asked.prompts[-1] == corpus_line([(tuple(left), tuple(right)) for left, right in pairs])
        rules = [word for word in asked.written[-1].split() if word in WORDS]
        assert context.split() == (["next", *rules] if residual else rules)[:8]
        if not residual:
            assert {"".join(parse_start(p)) for p in task.problems("validation")[:6]} >= {left for left, _ in pairs}
    # a fair coin: 13 of 60 or fewer on one side has probability below 1e-5
    assert 13 < kinds["residual"] < 47


def test_without_a_context_there_is_nothing_residual(
    make_policy: MakePolicy, asked: Asked, rng: np.random.Generator
) -> None:
    policy, task = make_policy(), RuleTask("digits", ("plus",))
    records = feedback_of(task, 4, lambda right: right[::-1])
    starts = {"".join(parse_start(p)) for p in task.problems("validation")[:4]}
    for _ in range(20):
        SelfReflection().propose(policy, "", records, rng)
        assert {left for left, _ in examples_in(policy, asked.prompts[-1])} == starts


def test_only_the_feedback_is_read(make_policy: MakePolicy, asked: Asked) -> None:
    """The verdicts in words are enough: without questions and outputs the prompt is the same."""
    policy, task = make_policy(), RuleTask("star_graph", ("forward",))
    records = feedback_of(task, 5, lambda right: right[1:] + right[:1])
    bare = [{"Feedback": entry["Feedback"]} for entry in records]
    told = [{**entry, "Inputs": "something else", "Generated Outputs": "JJJJ"} for entry in records]
    found = [
        SelfReflection().propose(policy, context, shown, np.random.default_rng(seed))
        for seed, context in enumerate(("", "up", "up", "cross down"))
        for shown in (records, bare, told)
    ]
    for k in range(0, 12, 3):
        assert found[k] == found[k + 1] == found[k + 2]
        assert asked.prompts[k] == asked.prompts[k + 1] == asked.prompts[k + 2]


def test_completions_of_another_length_are_left_out_of_a_residual(
    make_policy: MakePolicy, asked: Asked, rng: np.random.Generator
) -> None:
    """Too short, too long, nothing at all: with fewer than four that fit, the residual leaves the context as it is."""
    policy, task = make_policy(), RuleTask("strings", ("next",))
    texts = iter(["", "AB", "ABCDEFGH", "HHHHH", "GGGGG", "FFFFF"])
    records = feedback_of(task, 6, lambda _: next(texts))
    kept = 0
    for _ in range(40):
        before = len(asked.prompts)
        context, cost = SelfReflection().propose(policy, "rotate", records, rng)
        if len(asked.prompts) == before:
            assert (context, cost) == ("rotate", 0)
            kept += 1
        else:
            assert cost == 1
            assert {left for left, _ in examples_in(policy, asked.prompts[-1])} <= {
                "".join(parse_start(p)) for p in task.problems("validation")[:6]
            }
    assert 5 < kept < 35


@pytest.mark.parametrize(
    "feedback",
    ["", "wrong.", "Try again, please.", "correct. start: wrote: right:", "wrong. start: AB\nwrote: BA\nright: AB"],
)
def test_feedback_in_another_form_is_no_context_and_says_so(
    feedback: str, make_policy: MakePolicy, asked: Asked, rng: np.random.Generator
) -> None:
    for context in ("", "reverse"):
        records = [{"Inputs": "", "Generated Outputs": "", "Feedback": feedback}] * 6
        with pytest.raises(UnusableProposal, match="reads feedback of the form start: LIST wrote: LIST") as raised:
            SelfReflection().propose(make_policy(), context, records, rng)
        assert raised.value.cost == 0
        assert SelfReflection().propose(make_policy(), context, [], rng) == (context, 0)
    assert asked.prompts == []


def test_a_context_that_the_policy_writes_has_at_most_eight_rules(
    make_policy: MakePolicy, asked: Asked, rng: np.random.Generator
) -> None:
    policy, task = make_policy(), RuleTask("strings", ("next",))
    long = " ".join(["next"] * 8)
    records = feedback_of(task, 6, lambda right: right)
    for _ in range(20):
        context, _ = SelfReflection().propose(policy, long, records, rng)
        assert len(context.split()) <= 8
    assert all(settings["max_new_tokens"] <= 8 for settings in asked.settings)


def test_self_reflection_is_random_by_its_generator_alone(make_policy: MakePolicy) -> None:
    policy, task = make_policy(), RuleTask("strings", ("next",))
    records = feedback_of(task, 6, lambda right: right[::-1])
    state = torch.get_rng_state()
    runs = [
        [SelfReflection().propose(policy, "next", records, rng)[0] for _ in range(8)]
        for rng in (np.random.default_rng(1), np.random.default_rng(1), np.random.default_rng(2))
    ]
    assert runs[0] == runs[1] != runs[2]
    assert torch.equal(torch.get_rng_state(), state)


# --- a chat endpoint -------------------------------------------------------------------------------------------------


def says(content: object) -> tuple[int, str]:
    """The answer of an OpenAI-compatible server with one choice."""
    message = {"role": "assistant", "content": content}
    return 200, json.dumps({"id": "x", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})


@dataclass
class Server:
    """An endpoint on loopback: replies in turn (the last one for ever), and every request it got."""

    url: str
    replies: list[tuple[int, str] | None] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def contents(self) -> list[str]:
        """The one message of each request."""
        return [body["messages"][0]["content"] for *_, body in self.requests]


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with held.lock:
                held.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                reply = held.replies[min(len(held.requests), len(held.replies)) - 1]
            if reply is None:  # says nothing until the test is over
                held.release.wait(60.0)
                return
            status, text = reply
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:  # a client that has gone
            pass

    http = Quiet(("127.0.0.1", 0), Handler)
    held = Server(f"http://127.0.0.1:{http.server_port}/v1")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield held
    held.release.set()
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses between attempts, remembered in place of waited for."""
    waited: list[float] = []
    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=waited.append))
    return waited


RECORDS = [
    {
        "Inputs": "Rewrite ABC.",
        "Generated Outputs": "ABC",
        "Feedback": "wrong. start: ABC wrote: ABC right: CBA",
    },
    {
        "Inputs": "Rewrite DDE.",
        "Generated Outputs": "EDD",
        "Feedback": "correct. start: DDE wrote: EDD right: EDD",
    },
]


def propose(endpoint: Any, policy: Policy, context: str = "Be brief.") -> tuple[str, int]:
    return endpoint.propose(policy, context, RECORDS, np.random.default_rng(0))


def down(endpoint: ChatEndpoint, match: str) -> str:
    """The message of the failure: one line that names the address."""
    with pytest.raises(ReflectorDown, match=match) as caught:
        endpoint.ask("hello")
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 400
    return said


def test_an_endpoint_gets_the_failures_and_its_answer_is_the_context(
    server: Server, make_policy: MakePolicy, pauses: list[float]
) -> None:
    """One request, in the form that every compatible server takes; what stands between the backticks is the context."""
    server.replies = [says("I thought about it.\n```\nWrite it backwards.\nNothing else.\n```\nThat is all.")]
    endpoint = ChatEndpoint(server.url, "some-model", api_key=KEY)
    assert propose(endpoint, make_policy()) == ("Write it backwards.\nNothing else.", 0)
    ((path, headers, body),) = server.requests
    assert path == "/v1/chat/completions"
    assert headers["authorization"] == f"Bearer {KEY}"
    assert headers["content-type"] == "application/json"
    assert body["model"] == "some-model"
    (message,) = body["messages"]
    assert message["role"] == "user"
    assert "Be brief." in message["content"]
    assert all(text in message["content"] for entry in RECORDS for text in entry.values())
    assert KEY not in json.dumps(body)
    assert endpoint.calls == 1
    assert pauses == []


def test_the_length_of_an_answer_is_the_servers_unless_it_is_given(server: Server) -> None:
    server.replies = [says("fine")]
    for limit in (0, 7):
        ReflectorConfig("openai", server.url, "m", max_tokens=limit).build().ask("hello")  # type: ignore[attr-defined]
    assert [body.get("max_tokens") for _, _, body in server.requests] == [None, 7]


def test_without_a_key_nothing_is_sent(server: Server) -> None:
    server.replies = [says("fine")]
    assert ChatEndpoint(server.url + "/", "m").ask("hello") == "fine"
    ((path, headers, _),) = server.requests
    assert path == "/v1/chat/completions"
    assert "authorization" not in headers


def test_proxies_and_keys_of_the_environment_are_not_used(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The address is the one that was given, and no other program's secret goes there."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-you")
    server.replies = [says("fine")]
    assert ChatEndpoint(server.url, "m", retries=0).ask("hello") == "fine"
    assert "authorization" not in server.requests[0][1]


GARBAGE = {
    "not JSON": "<html>Bad gateway</html>",
    "cut off": '{"choices": [{"message": {"con',
    "empty": "",
    "a list": "[]",
    "a number": "3",
    "no choices": '{"error": "overloaded"}',
    "empty choices": '{"choices": []}',
    "no message": '{"choices": [{}]}',
    "null": "null",
    "null content": says(None)[1],
    "a list of parts": says([{"type": "text", "text": "hello"}])[1],
}


@pytest.mark.usefixtures("pauses")
@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_is_tried_again_and_then_named(kind: str, server: Server) -> None:
    """Status 200 does not make an answer: no context is ever made of what is none."""
    server.replies = [(200, GARBAGE[kind])]
    endpoint = ChatEndpoint(server.url, "m", retries=1)
    said = down(endpoint, "does not answer")
    assert server.url in said
    assert len(server.requests) == 2
    server.requests.clear()
    server.replies = [(200, GARBAGE[kind]), says("reverse")]
    assert endpoint.ask("hello") == "reverse"


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
def test_a_failure_that_may_pass_is_tried_again(status: int, server: Server, pauses: list[float]) -> None:
    server.replies = [(status, "busy"), (status, "busy"), says("reverse")]
    endpoint = ChatEndpoint(server.url, "m", retries=2)
    assert endpoint.ask("hello") == "reverse"
    assert len(server.requests) == endpoint.calls == 3
    assert 0.0 < pauses[0] < pauses[1]
    server.requests.clear()
    server.replies = [(status, "busy\nbusy")]
    assert f"status {status}: busy busy" in down(endpoint, "does not answer")
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_failure_that_stays_is_not(status: int, server: Server, pauses: list[float]) -> None:
    server.replies = [(status, '{"error": {"message": "no such\nthing"}}'), says("reverse")]
    said = down(ChatEndpoint(server.url, "m", retries=5, api_key=KEY), f"status {status}")
    assert "no such" in said
    assert len(server.requests) == 1
    assert pauses == []


@pytest.mark.usefixtures("pauses")
def test_a_server_that_says_nothing_is_given_up(server: Server) -> None:
    server.replies = [None]
    endpoint = ChatEndpoint(server.url, "m", timeout=0.2, retries=1)
    assert server.url in down(endpoint, "[Tt]ime")
    assert len(server.requests) == 2
    server.requests.clear()
    server.replies = [None, says("reverse")]
    assert endpoint.ask("hello") == "reverse"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_a_server_that_is_not_there(pauses: list[float]) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    said = down(ChatEndpoint(url, "m", retries=2), "does not answer")
    assert url in said
    assert len(pauses) == 2
    assert "[Errno" in said or "onnect" in said or "refused" in said


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:99999/v1", "http://[::1/v1", "http://", "http:///v1", "http://a b/v1"]
)
def test_an_address_that_cannot_be_one(url: str) -> None:
    """Said before any work, or at the latest as a reflector that does not answer: never a traceback."""
    with pytest.raises((InputError, ReflectorDown)) as caught:
        ChatEndpoint(url, "m", retries=0).ask("hello")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("pauses")
def test_the_budget_bounds_the_calls(server: Server) -> None:
    """Attempts that failed are calls as well: what the server counts is never above the budget."""
    server.replies = [says("reverse")]
    endpoint = ChatEndpoint(server.url, "m", call_budget=3)
    assert [endpoint.ask("hello") for _ in range(3)] == ["reverse"] * 3
    down(endpoint, "budget of 3 calls is used up")
    assert len(server.requests) == 3
    server.requests.clear()
    server.replies = [(500, "busy")]
    endpoint = ChatEndpoint(server.url, "m", call_budget=4, retries=2)
    down(endpoint, "does not answer")
    for _ in range(3):
        down(endpoint, "budget|does not answer")
    assert len(server.requests) <= 4


@pytest.mark.parametrize("key", [KEY, KEY + "\n", f" {KEY} ", "schlüssel-" + KEY])
def test_a_key_is_never_part_of_a_message(key: str, server: Server) -> None:
    """Not in what it is printed as, nor in an error: keys read from files end in a newline, and servers say them back."""
    server.replies = [(401, f"Incorrect API key provided: {KEY}")]

    def ask() -> None:
        endpoint = ChatEndpoint(server.url, "m", api_key=key, retries=0)
        assert KEY not in repr(endpoint)
        endpoint.ask("hello")

    with pytest.raises((ReflectorDown, InputError)) as caught:
        ask()
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("secret", [KEY, 'sk-"quoted"\\-key', "sk-<a&b>/c+d=="])
def test_a_key_that_a_server_writes_back_in_any_form_is_taken_out(server: Server, secret: str) -> None:
    """As it is or escaped for JSON, Python, HTML or an address; also in what would be the context, which is recorded."""
    forms = [secret, json.dumps(secret), repr(secret), urllib.parse.quote(secret, ""), html.escape(secret)]
    for form in forms:
        server.replies = [(500, f"wrong key {form}"), says(f"Say {form} twice.")]
        server.requests.clear()
        with pytest.raises(ReflectorDown) as caught:
            ChatEndpoint(server.url, "m", api_key=secret, retries=0).ask("hello")
        assert secret not in str(caught.value)
        assert form not in str(caught.value)
        wrote = ChatEndpoint(server.url, "m", api_key=secret, retries=0).ask("hello")
        assert form.strip("\"'") not in wrote
        assert "(key)" in wrote
    assert ChatEndpoint(server.url, "m", api_key="EMPTY", retries=0).ask("hello")  # a word that is no secret stays


@pytest.mark.parametrize(
    "url",
    [
        "https://user:pass-word@host:99999/v1",
        "https://user:pass/word@a host/v1",
        "https://user:pass-word@[::1/v1",
        "ftp://user:pass-word@host/v1",
        "https://host:99999/v1?api_key=pass-word",
        "https://host:0/v1#pass-word",
        f"https://host/{KEY}/v1",
    ],
)
def test_an_address_that_holds_a_secret_is_not_shown(url: str) -> None:
    """Whatever else is wrong with it."""
    with pytest.raises(InputError, match="base-url must not hold") as caught:
        ChatEndpoint(url, "m", api_key=KEY)
    assert "word" not in str(caught.value).replace("a password", "")
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"base_url": ""}, "base-url"),
        ({"base_url": "localhost:8000/v1"}, "base-url"),
        ({"base_url": "ftp://localhost/v1"}, "base-url"),
        ({"model": ""}, "--reflector-model"),
        ({"timeout": 0.0}, "timeout"),
        ({"timeout": math.nan}, "timeout"),
        ({"retries": -1}, "retries"),
        ({"call_budget": 0}, "budget"),
        ({"max_tokens": -1}, "--reflector-tokens"),
    ],
)
def test_settings_of_an_endpoint_out_of_range(wrong: dict[str, Any], what: str) -> None:
    """Said when the configuration is made, before any work."""
    settings = {"base_url": "http://localhost:8000/v1", "model": "m", **wrong}
    with pytest.raises(InputError, match=what):
        ChatEndpoint(**settings)
    with pytest.raises(InputError, match=what):
        ReflectorConfig("openai", **settings)


def test_configurations_build_their_reflectors(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FSTSIM_API_KEY", KEY)
    assert isinstance(ReflectorConfig().build(), SelfReflection)
    config = ReflectorConfig("openai", "http://localhost:1/v1", "m", timeout=3.0, retries=7, call_budget=9)
    endpoint = config.build()
    assert isinstance(endpoint, ChatEndpoint)
    assert (endpoint.base_url, endpoint.model, endpoint.timeout) == ("http://localhost:1/v1", "m", 3.0)
    assert (endpoint.retries, endpoint.call_budget, endpoint.api_key) == (7, 9, KEY)
    assert KEY not in repr(config)
    policy = chat_policy(make_model)
    save(policy, tmp_path)
    local = ReflectorConfig("local", model=str(tmp_path)).build()
    assert isinstance(local, LocalChat)
    assert local.model.template == "chat"
    for wrong, what in [({"kind": "oracle"}, "self, openai, local"), ({"kind": "local"}, "--reflector-model")]:
        with pytest.raises(InputError, match=what):
            ReflectorConfig(**wrong)  # type: ignore[arg-type]  # that is the test


# --- chat models -----------------------------------------------------------------------------------------------------

CHAT = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
MARKS = ["<|end|>", "<|user|>", "<|assistant|>", "<|pad|>"]


def chat_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on questions and on GEPA's own prompt, with a chat template."""
    from gepa.strategies.instruction_proposal import InstructionProposalSignature

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=MARKS, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    texts = [family.question for family in FAMILIES.values()] * 3
    raw.train_from_iterator([*texts, InstructionProposalSignature.default_prompt_template], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|end|>", pad_token="<|pad|>")
    tokenizer.chat_template = CHAT
    return tokenizer


def chat_policy(make_model: MakeModel, seed: int = 0, positions: int = 4096) -> Policy:
    """A tiny random Qwen3 with that tokenizer: what any instruction model of the hub is to this code."""
    tokenizer = chat_tokenizer()
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    model = make_model(seed=seed, vocab_size=len(tokenizer), max_position_embeddings=positions, **ids)
    return Policy.of(model, tokenizer)


def save(policy: Policy, path: Path) -> str:
    policy.model.save_pretrained(path)
    policy.tokenizer.save_pretrained(path)
    return str(path)


def test_a_local_chat_model_writes_the_context(make_model: MakeModel, make_policy: MakePolicy, asked: Asked) -> None:
    """GEPA's prompt as one user turn; the answer is what the model wrote; the policy is neither asked nor charged."""
    policy = make_policy()
    chat = LocalChat(chat_policy(make_model), "chat", max_new_tokens=12)
    context, cost = propose(chat, policy)
    assert cost == 0
    (prompt,) = asked.prompts
    text = chat.model.tokenizer.decode(prompt)
    assert text.startswith("<|user|>")
    assert text.endswith("<|end|><|assistant|>")
    assert "Be brief." in text
    assert all(part in text for entry in RECORDS for part in entry.values())
    assert context in asked.written[0]
    assert propose(chat, policy) == (context, 0)
    other = chat.propose(policy, "Be brief.", RECORDS, np.random.default_rng(1))
    assert other != (context, 0)


def test_a_frozen_model_of_the_world_writes_as_itself(make_policy: MakePolicy) -> None:
    """Not as the policy, which is neither asked nor charged; what it writes is what it would write as its own reflector."""
    frozen, policy, task = make_policy(seed=0), make_policy(seed=5), RuleTask("strings", ("next",))
    records = feedback_of(task, 6, lambda right: right[::-1])

    def written(who: LocalChat | SelfReflection, about: Policy) -> list[tuple[str, int]]:
        rng = np.random.default_rng(3)
        return [who.propose(about, "next", records, rng) for _ in range(12)]

    by_frozen = written(LocalChat(frozen, "base"), policy)
    assert by_frozen == [(context, 0) for context, _ in written(SelfReflection(), frozen)]
    assert by_frozen != [(context, 0) for context, _ in written(SelfReflection(), policy)]


@pytest.mark.usefixtures("_few_problems")
def test_a_prompt_that_does_not_fit_a_local_chat_model_is_its_fault(
    make_model: MakeModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Said of the reflector's model, by name and with its positions; no flag of the policy would help."""
    model = save(chat_policy(make_model, positions=512), tmp_path / "model")
    chat = save(chat_policy(make_model, positions=512), tmp_path / "chat")
    local = ["--reflector", "local", "--reflector-model", chat, "--steps", "1", "--rollout-budget", "60"]
    assert main([*flags(model, tmp_path / "run", *CHAT_FLAGS, *local)]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"the reflector {chat} has 512 positions, not the " in said
    assert "another --reflector-model" in said
    assert "max-new-tokens" not in said


def flags(model: str, out: Path, *more: str) -> list[str]:
    numbers = {
        "steps": 3,
        "seeds": 1,
        "contexts": 2,
        "rollout-budget": 60,
        "problems": 2,
        "rollouts": 3,
        "probe-every": 2,
    }
    numbers |= {"slow-steps-per-round": 2}
    parts = [part for name, value in numbers.items() for part in (f"--{name}", str(value))]
    return ["train", "--preset", "smoke", "--model", model, "--out", str(out), *parts, *more]


@pytest.fixture
def _few_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smoke preset with four problems in its probes."""
    probe = ProbeConfig(every=10, problems=4, exam=1)
    monkeypatch.setitem(PRESETS, "smoke", replace(PRESETS["smoke"], probe=probe))


CHAT_FLAGS = ("--method", "fst", "--task", "star_graph")


@pytest.mark.usefixtures("_few_problems")
@pytest.mark.parametrize("key", ["", KEY])
def test_fast_slow_training_of_a_chat_model_with_an_endpoint(
    key: str,
    server: Server,
    make_model: MakeModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The command that a user gives for a real model, from end to end: same loop, same files; the key in none of them."""
    if key:
        monkeypatch.setenv("FSTSIM_API_KEY", key)
    else:
        monkeypatch.delenv("FSTSIM_API_KEY", raising=False)
    server.replies = [says(f"```\nProposal {k}: walk from the goal.\n```") for k in range(50)]
    model, out = save(chat_policy(make_model, positions=512), tmp_path / "model"), tmp_path / "run"
    endpoint = ["--reflector", "openai", "--base-url", server.url, "--reflector-model", "x"]
    assert main(flags(model, out, *CHAT_FLAGS, *endpoint)) == 0
    assert server.requests
    for path, headers, body in server.requests:
        assert path == "/v1/chat/completions"
        assert headers.get("authorization") == (f"Bearer {key}" if key else None)
        assert body["model"] == "x"
    assert all("Write the walk from the goal back to the centre" in content for content in server.contents())
    assert all("wrong. start: " in content for content in server.contents())
    seed = out / "seed-0"
    rounds = read_rows(seed / "prompts.jsonl")
    assert [entry["step"] for entry in rounds] == [0, 2]
    assert all(len(entry["prompts"]) == len(entry["scores"]) >= 1 for entry in rounds)
    rows = read_rows(seed / "metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    reflections = sum(row.get("fast_reflections", 0) for row in rows)
    assert reflections == len(server.requests)
    assert {"reward", "old_mass", "kl_to_base", "entropy"} <= rows[-1].keys()
    assert not {"drift", "relearn"} & rows[-1].keys()  # of the world's own models only
    assert read_json(seed / "config.json")["reflector"]["base_url"] == server.url
    capsys.readouterr()
    assert main(["prompts", str(seed)]) == 0
    said = capsys.readouterr().out
    assert "(empty)" in said
    if key:
        everything = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert len(everything) > 8
        assert not any(key.encode() in path.read_bytes() for path in everything)
        assert key not in said


@pytest.mark.usefixtures("_few_problems")
def test_training_stops_when_the_endpoint_is_down(
    make_model: MakeModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    pauses: list[float],
    server: Server,
) -> None:
    """Exit code 1 and one line: who does not answer, where the checkpoint is, how to go on; and then it goes on."""
    model, out = save(chat_policy(make_model, positions=512), tmp_path / "model"), tmp_path / "run"
    server.replies = [(503, "busy")]
    command = flags(
        model, out, *CHAT_FLAGS, "--reflector", "openai", "--base-url", server.url, "--reflector-model", "x"
    )
    assert main(command) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"the reflector at {server.url}/chat/completions does not answer (status 503: busy)" in said
    assert "the same command continues" in said
    assert str(out / "seed-0") in said
    assert len(server.requests) <= 2 * 3  # attempts of one call, not of every proposal of the round
    assert len(pauses) >= 2
    assert not (out / "seed-0" / "summary.json").exists()
    server.replies = [says("reverse")]
    assert main(command) == 0
    assert (out / "seed-0" / "summary.json").exists()


def test_training_stops_when_the_budget_of_calls_is_used_up(
    server: Server, make_model: MakeModel, tmp_path: Path
) -> None:
    """With a clear end, and not with rounds that go on without a reflector."""
    model = save(chat_policy(make_model, positions=512), tmp_path / "model")
    server.replies = [says("reverse")]
    config = TrainConfig(
        method="gepa",
        tasks=("star_graph",),
        model=model,
        steps=6,
        fast=PromptEvolution(contexts=1, rollout_budget=20, validation=4, shown=4, max_new_tokens=5),
        reflector=ReflectorConfig("openai", server.url, "x", call_budget=3),
        probe=ProbeConfig(every=1, problems=2, max_new_tokens=5),
    )
    with pytest.raises(ReflectorDown, match="budget of 3 calls is used up"):
        run_training(config, tmp_path / "run")
    assert len(server.requests) == 3


@pytest.mark.usefixtures("_few_problems")
def test_fast_slow_training_with_a_local_chat_model(
    make_model: MakeModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Policy and reflector from two folders, without any server."""
    model = save(chat_policy(make_model, positions=512), tmp_path / "model")
    chat = save(chat_policy(make_model, seed=1), tmp_path / "chat")
    out = tmp_path / "run"
    more = ["--steps", "1", "--rollout-budget", "60"]  # later flags hold
    local = ["--reflector", "local", "--reflector-model", chat]
    assert main([*flags(model, out, *CHAT_FLAGS, *local), *more]) == 0
    (entry,) = read_rows(out / "seed-0" / "prompts.jsonl")
    assert entry["prompts"]
    assert read_rows(out / "seed-0" / "metrics.jsonl")[-1]["fast_reflections"] >= 1
    assert "picture: " in capsys.readouterr().out


@pytest.mark.skipif(not list(shipped_path().glob("*.safetensors")), reason="no base model is shipped yet")
def test_prompts_of_an_endpoint_reach_a_policy_that_follows_them(server: Server, tmp_path: Path) -> None:
    """The shipped model, an endpoint that knows the rule: the population takes it up, and the rows say so."""
    server.replies = [says("```\nsort\n```"), says("```\nreverse next\n```")]
    config = TrainConfig(
        method="gepa",
        tasks=("strings:reverse+next",),
        steps=1,
        fast=PromptEvolution(contexts=2, rollout_budget=80, validation=8, shown=4),
        reflector=ReflectorConfig("openai", server.url, "x"),
        probe=ProbeConfig(problems=8, exam=1),
    )
    rows = run_training(config, tmp_path / "run")
    (entry,) = read_rows(tmp_path / "run" / "prompts.jsonl")
    assert Population.from_dict({k: entry[k] for k in ("prompts", "scores", "lineage")}).prompts[0] == "reverse next"
    assert rows[-1]["reward"] > rows[0]["reward"] + 0.3
    assert rows[-1]["fast_best"] > 0.5
