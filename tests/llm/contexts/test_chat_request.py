"""A request to a server of this machine that sends too much, too slowly, or something else than it was asked for."""

from __future__ import annotations

import contextlib
import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from fstsim.errors import InputError
from fstsim.llm.contexts.chat_endpoint import ChatEndpoint
from fstsim.llm.contexts.chat_request import MOST_BYTES, BadReply, post_json
from fstsim.llm.contexts.reflection import ReflectorDown

Send = Callable[[BaseHTTPRequestHandler], None]


class Hostile:
    """A server whose answers are what ``send`` writes."""

    send: Send
    headers: dict[str, str]

    def __init__(self) -> None:
        self.send, self.headers = lambda _: None, {}
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                owner.headers = dict(self.headers)
                self.rfile.read(int(self.headers["Content-Length"]))
                with contextlib.suppress(OSError):  # the client has gone: as it should
                    owner.send(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def hostile() -> Iterator[Hostile]:
    server = Hostile()
    yield server
    server.server.shutdown()
    server.server.server_close()


def whole(body: bytes, **headers: str) -> Send:
    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return send


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(1000):
        handler.wfile.write(b" " * 100_000)


def drip(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.1)


def slow_header(handler: BaseHTTPRequestHandler) -> None:
    for _ in range(100):
        handler.wfile.write(b"H")
        handler.wfile.flush()
        time.sleep(0.1)


def test_an_answer_is_read(hostile: Hostile) -> None:
    hostile.send = whole("grün".encode())
    assert post_json(hostile.url, {"a": 1}, {"X-Mine": "yes"}, 5.0) == (200, "grün")
    assert (hostile.headers["X-Mine"], hostile.headers["Accept-Encoding"]) == ("yes", "identity")


@pytest.mark.parametrize(
    ("send", "says"),
    [
        (endless, f"longer than {MOST_BYTES:,} bytes"),
        (whole(gzip.compress(b"0" * 100_000_000), Content_Encoding="gzip"), "compressed"),
        (drip, "no whole answer within 0.5 s"),
        (slow_header, "no whole answer within 0.5 s"),
    ],
    ids=["endless", "gzip bomb", "drip", "slow header"],
)
def test_too_much_too_slow_or_compressed(hostile: Hostile, send: Send, says: str) -> None:
    hostile.send = send
    started = time.monotonic()
    with pytest.raises(BadReply, match=says):
        post_json(hostile.url, {}, {}, 0.5)
    assert time.monotonic() - started < 2.0


def test_no_server_is_an_error_of_the_library() -> None:
    with pytest.raises(httpx.HTTPError):
        post_json("http://127.0.0.1:9/v1", {}, {}, 5.0)


def content(text: str) -> bytes:
    return ('{"choices": [{"message": {"content": ' + text + "}}]}").encode()


def test_what_cannot_be_recorded_is_replaced(hostile: Hostile) -> None:
    hostile.send = whole(content('"a\\ud800b"'))
    assert ChatEndpoint(hostile.url, "m").ask("hello") == "a?b"


@pytest.mark.parametrize(
    ("body", "says"),
    [(b"[" * 200_000, "nested too deeply"), (b"\xff\xfe{", "JSONDecodeError"), (content("null"), "without text")],
)
def test_answers_that_are_none_are_one_clear_line(hostile: Hostile, body: bytes, says: str) -> None:
    hostile.send = whole(body)
    with pytest.raises(ReflectorDown, match=says) as caught:
        ChatEndpoint(hostile.url, "m", retries=0).ask("hello")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_key_that_is_said_back_is_replaced_before_the_answer_is_cut(hostile: Hostile) -> None:
    key = "k" * 60

    def refuse(handler: BaseHTTPRequestHandler) -> None:
        body = json.dumps({"error": "x" * 80 + key}).encode()
        handler.send_response(401)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    hostile.send = refuse
    with pytest.raises(ReflectorDown) as caught:
        ChatEndpoint(hostile.url, "m", api_key=key).ask("hello")
    assert "kkk" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://me:secret@localhost/v1", "http://localhost/v1?api_key=secret", "ftp://me:secret@x"]
)
def test_secrets_in_an_address_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(InputError, match="base-url must") as caught:
        ChatEndpoint(url, "m")
    assert "secret" not in str(caught.value)


def test_a_key_of_several_lines_is_refused_and_not_repeated() -> None:
    with pytest.raises(InputError, match="FSTSIM_API_KEY must be one line") as caught:
        ChatEndpoint("http://localhost/v1", "m", api_key="secret\nother")
    assert "secret" not in str(caught.value)
