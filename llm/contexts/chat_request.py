"""One request to a chat endpoint that can be hostile: a bound on its bytes, and on its time from the first byte to the last."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

MOST_BYTES = 2_000_000
"""Longest answer that is read: some hundred times a long context."""


class BadReply(RuntimeError):
    """What a server sent cannot be taken; the message says why, in words of ours."""


def post_json(url: str, body: Mapping[str, Any], headers: Mapping[str, str], seconds: float) -> tuple[int, str]:
    """Status and text of one POST of ``body``, the whole of it within ``seconds``.

    Raises BadReply for an answer that is longer than `MOST_BYTES`, compressed (a small one can hold gigabytes) or not whole
    in time, and `httpx.HTTPError` where there is none.
    """
    import httpx

    outcome: list[tuple[int, str] | BaseException] = []
    client = httpx.Client(timeout=seconds, trust_env=False)

    def work() -> None:
        try:
            outcome.append(_exchange(client, url, body, headers))
        except BaseException as error:  # raised again by the caller, in its own thread
            outcome.append(error)

    # a server that sends a byte now and then meets no limit of a single read: only another thread can look at the clock
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    client.close()
    if not outcome:
        raise BadReply(f"timed out: no whole answer within {seconds:g} s")
    (result,) = outcome
    if isinstance(result, BaseException):
        raise result
    return result


def _exchange(client: Any, url: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> tuple[int, str]:
    with client.stream("POST", url, json=body, headers={**headers, "Accept-Encoding": "identity"}) as reply:
        if reply.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
            raise BadReply("the answer is compressed, which was not asked for")
        data = bytearray()
        for chunk in reply.iter_raw():
            data += chunk
            if len(data) > MOST_BYTES:
                raise BadReply(f"the answer is longer than {MOST_BYTES:,} bytes")
        return reply.status_code, data.decode("utf-8", "replace")
