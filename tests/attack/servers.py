"""Hostile endpoints on the loopback interface, asked by ``fstsim train --method gepa --reflector openai``."""

from __future__ import annotations

import contextlib
import gzip
import json
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from attack import harness
from attack.campaign import Case

_MOST_SECONDS = 100.0
_MOST_MEMORY = 1 << 30  # bytes more than before
_KEY = "sk-secret-0123456789"


def _answer(content: object, **more: object) -> bytes:
    return json.dumps({"choices": [{"message": {"content": content}}], **more}).encode()


def _body(
    body: bytes, head: str = "200 OK", kind: str = "application/json", extra: str = ""
) -> Callable[[socket.socket], None]:
    def send(peer: socket.socket) -> None:
        peer.sendall(
            f"HTTP/1.1 {head}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{extra}\r\n".encode() + body
        )

    return send


def _raw(data: bytes) -> Callable[[socket.socket], None]:
    return lambda peer: peer.sendall(data)


def _endless(peer: socket.socket) -> None:
    peer.sendall(b'HTTP/1.1 200 OK\r\n\r\n{"choices": "')
    while True:
        peer.sendall(b"x" * (1 << 20))


def _endless_headers(peer: socket.socket) -> None:
    peer.sendall(b"HTTP/1.1 200 OK\r\n")
    for k in range(10**9):
        peer.sendall(b"X-%d: %s\r\n" % (k, b"y" * 1000))


def _drip(peer: socket.socket) -> None:
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        peer.sendall(b" ")
        time.sleep(0.5)


def _silent(peer: socket.socket) -> None:
    peer.settimeout(600.0)
    peer.recv(1 << 20)
    time.sleep(600.0)


SERVERS: dict[str, Callable[[socket.socket], None]] = {
    "100 MB": _body(b" " * 100_000_000),
    "endless body": _endless,
    "endless headers": _endless_headers,
    "gzip bomb": _body(gzip.compress(b"0" * 500_000_000, 1), extra="Content-Encoding: gzip\r\n"),
    "drip": _drip,
    "silence": _silent,
    "nothing": _raw(b""),
    "not HTTP": _raw(b"\x16\x03\x01 hello\r\n\r\n"),
    "not JSON": _body(b"<html>"),
    "empty": _body(b""),
    "not UTF-8": _body(b'{"choices": "\xff"}'),
    "deep JSON": _body(b"[" * 200_000),
    "huge number": _body(b'{"choices": ' + b"9" * 100_000 + b"}"),
    "null": _body(b"null"),
    "no choices": _body(b'{"choices": []}'),
    "content null": _body(_answer(None)),
    "content number": _body(_answer(7)),
    "content list": _body(_answer([[[]]])),
    "lone surrogate": _body(b'{"choices": [{"message": {"content": "\\ud800"}}]}'),
    "escape sequences": _body(_answer("```\n\x1b[2J\x1b]0;owned\x07 reverse\n```")),
    "markup": _body(_answer("```\n[/b] [red] <svg onload=alert(1)>\n```")),
    "megabyte of content": _body(_answer("x " * 500_000)),
    "the key in an error": _body(json.dumps({"error": f"bad key {_KEY}"}).encode(), "401 Unauthorized"),
    "the key in the reason": _body(b"{}", f"500 {_KEY}"),
    "redirect to a file": _body(b"", "302 Found", extra="Location: file:///etc/passwd\r\n"),
    "redirect to itself": _body(b"", "302 Found", extra="Location: /v1/chat/completions\r\n"),
    "500": _body(b"\x1b[31m" + b"e" * 100_000, "500 Oh"),
    "429, wait for a year": _body(b"{}", "429 Wait", extra="Retry-After: 31536000\r\n"),
}


def _serve(listener: socket.socket, send: Callable[[socket.socket], None]) -> None:
    def one(peer: socket.socket) -> None:
        with contextlib.suppress(OSError), peer:
            peer.settimeout(30.0)
            peer.recv(1 << 16)
            send(peer)

    while True:
        peer, _ = listener.accept()
        threading.Thread(target=one, args=(peer,), daemon=True).start()


def _attack(name: str, work: Path) -> str:
    listener = socket.create_server(("127.0.0.1", 0))
    words = [
        "train",
        "--method",
        "gepa",
        "--preset",
        "smoke",
        "--steps",
        "1",
        "--seeds",
        "1",
        "--reflector",
        "openai",
        "--reflector-model",
        "m",
        "--reflector-timeout",
        "20",
        "--out",
        "DIR",
        "--base-url",
    ]
    words.append(f"http://127.0.0.1:{listener.getsockname()[1]}/v1")

    def call() -> int:
        listener.close()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        code = harness.main(words)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
        if grown > _MOST_MEMORY:
            raise MemoryError(f"{grown / 1e9:.1f} GB more")
        return code

    # the process that asks is forked before the thread that answers is started
    start = time.monotonic()
    out, err = (work / "stdout").open("w+b"), (work / "stderr").open("w+b")
    child = harness.begin(call, work, (out.fileno(), err.fileno()), {"FSTSIM_API_KEY": _KEY})
    threading.Thread(target=_serve, args=(listener, SERVERS[name]), daemon=True).start()
    code, hung = harness.wait(child, 300.0)
    seconds = time.monotonic() - start
    for file in (out, err):
        file.seek(0)
    done = harness.Outcome(code, out.read().decode(), err.read().decode("utf-8", "replace"), seconds, hung)
    # 1: the endpoint is down; 0: what it sent was a context like any other
    fault = done.fault((0, 1, 2))
    written = "".join(path.read_text("utf-8", "replace") for path in work.rglob("*.json*")) + done.out + done.err
    if not fault and _KEY in written:
        fault = "the key is written or shown"
    if not fault and "\x1b" in done.out + done.err:
        fault = "an escape sequence reaches the terminal"
    if not fault and seconds > _MOST_SECONDS + 60.0 * 3:
        fault = f"{seconds:.0f} s"
    return fault


def cases() -> Iterator[Case]:
    """Every server."""
    for name in SERVERS:
        yield Case("hostile servers", name, partial(_attack, name))
