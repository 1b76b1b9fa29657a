"""Chat templates: a problem as a chat model is shown it, and an answer as its template would write it.

A template is a program of the model's folder. It runs in the sandbox of transformers and has a time limit; one that raises,
does not end or leaves out what the user says is bad input. The form of an answer is found by showing the template a whole
conversation: which spaces it puts around the answer, with which token it ends the turn, whether it closes a thought first.
"""

from __future__ import annotations

import ctypes
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from transformers import PreTrainedTokenizerBase

from fstsim.errors import InputError

Message = tuple[str, str]
"""role, content"""
SECONDS = 5.0
"""how long one rendering may take"""
LONGEST = 1_000_000
"""characters that a template may add to what it is shown"""
_MEMORY = 1 << 30  # bytes
_MARK = "Fjord7Quartz"  # stands for a message: no template writes it by itself
_OPENS = re.compile(r"<(\w+)>\s*\Z|\[(\w+)\]\s*\Z")  # a generation prompt that begins a thought
_T = TypeVar("_T")


def within(seconds: float, work: Callable[[], _T]) -> _T:
    """What ``work`` returns or raises; TimeoutError if it has not ended after ``seconds``, and it is stopped.

    In the main thread a signal stops it, which is heard within a large power too; elsewhere it runs in a thread that is told
    to stop between two steps of Python.
    """
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer"):
        return _by_signal(seconds, work)
    return _by_thread(seconds, work)


class _OverdueError(BaseException):
    """Not an Exception: a template's compiler goes on after those."""


def _by_signal(seconds: float, work: Callable[[], _T]) -> _T:
    def stop(*_: Any) -> None:
        raise _OverdueError

    before = signal.signal(signal.SIGALRM, stop)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return work()
    except _OverdueError:
        raise TimeoutError from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
        if left:  # somebody else's alarm goes on, a little late
            signal.setitimer(signal.ITIMER_REAL, left)


def _by_thread(seconds: float, work: Callable[[], _T]) -> _T:
    found: list[_T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(_OverdueError))
        thread.join(1.0)
        raise TimeoutError
    if raised:
        raise raised[0]
    return found[0]


@contextmanager
def at_most_memory(more: int) -> Iterator[None]:
    """Within it the process cannot take more than ``more`` further bytes: what asks for them gets a MemoryError. Linux only."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    except (ImportError, OSError, ValueError):
        yield
        return
    limit = pages * resource.getpagesize() + more
    if soft == resource.RLIM_INFINITY or limit < soft:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def one_line(error: BaseException) -> str:
    """What ``error`` says, or its name, on one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, asks: bool, parts: bool = False) -> str:
    """The conversation as text, and, if it ``asks``, the beginning of an answer; thinking is switched off where that can be.

    ``parts``: contents are lists of parts, as some templates of models that also see pictures want them. Raises InputError if
    the template raises, takes more than `SECONDS`, or writes more than `LONGEST` characters of its own.
    """
    shown: Any = [
        {"role": role, "content": [{"type": "text", "text": content}] if parts else content}
        for role, content in messages
    ]

    def work() -> Any:
        return tokenizer.apply_chat_template(shown, add_generation_prompt=asks, tokenize=False, enable_thinking=False)

    try:
        with at_most_memory(_MEMORY):
            text = within(SECONDS, work)
    except TimeoutError:
        raise InputError(f"the model's chat template does not end within {SECONDS:g} seconds") from None
    except (Exception, RecursionError) as error:  # whatever a program of somebody else's raises
        raise InputError(f"the model's chat template cannot be used: {one_line(error)}") from error
    if not isinstance(text, str) or len(text) > LONGEST + 10 * sum(len(content) for _, content in messages):
        raise InputError(f"the model's chat template writes more than {LONGEST:,} characters")
    return text


@dataclass(frozen=True)
class ChatForm:
    """How a template writes: found once a tokenizer by `chat_form`.

    ``parts`` as in `render`. ``whole``: prompts end where the template puts an answer in a whole conversation, rather than with
    its generation prompt, which opens a thought or leaves out what stands before every answer. ``asked`` is a prompt, and
    ``start``, ``stop`` what stands before and after an answer in a whole conversation; None where the template shows none.
    ``close`` is what of ``stop`` belongs to the answer's turn: spaces or words before the token that ends it.
    """

    parts: bool
    whole: bool
    asked: str
    start: str | None
    stop: str
    close: str = ""

    def prompt(self, tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
        """Text of ``messages``, of which the last is the user's, up to where the answer begins."""
        if self.whole:
            text = render(tokenizer, [*messages, ("assistant", _MARK)], asks=False, parts=self.parts)
            before, mark, _ = text.rpartition(_MARK)
            if mark:
                return before
        return render(tokenizer, messages, asks=True, parts=self.parts)

    def answer(self, tokenizer: PreTrainedTokenizerBase, answer: str) -> str:
        """Text with which the template continues ``asked`` to write ``answer``, up to the end token."""
        if self.start is None:
            return answer
        text = render(tokenizer, [("user", _MARK), ("assistant", answer)], asks=False, parts=self.parts)
        lead = self.start[len(self.asked) :] if self.start.startswith(self.asked) else ""
        fits = text.startswith(self.start) and text.endswith(self.stop)
        body = text[len(self.start) : len(text) - len(self.stop)] if fits else answer
        return lead + body + self.close

    def without_close(self, text: str) -> str:
        """``text`` of a completion without the words with which the template closes an answer."""
        words = self.close.strip()
        bare = text.rstrip()
        return bare[: len(bare) - len(words)] if words and bare.endswith(words) else text


def chat_form(tokenizer: PreTrainedTokenizerBase) -> ChatForm:
    """The form of the tokenizer's chat template. Raises InputError if the template cannot be used (`render`), or drops the user's words."""
    asked, parts = render(tokenizer, [("user", _MARK)], asks=True), False
    if _MARK not in asked:
        try:
            asked, parts = render(tokenizer, [("user", _MARK)], asks=True, parts=True), True
        except InputError:
            asked = ""
    if _MARK not in asked:
        raise InputError("the model's chat template leaves out what the user says")
    try:
        text = render(tokenizer, [("user", _MARK), ("assistant", f"{_MARK}2")], asks=False, parts=parts)
    except InputError:
        text = ""
    start, found, stop = text.rpartition(f"{_MARK}2")
    if not found:
        return ChatForm(parts, False, asked, None, "")
    adds = start[len(asked) :].strip() if start.startswith(asked) else ""
    whole = bool(adds) or (_OPENS.search(asked) is not None and start != asked)
    return ChatForm(parts, whole, start if whole else asked, start, stop, _closing(tokenizer, stop))


def _closing(tokenizer: PreTrainedTokenizerBase, stop: str) -> str:
    """What stands in ``stop`` before the token that ends the turn: spaces, or words that every answer is closed with.

    Words count only before a token that is special or the tokenizer's end: others may be of the next turn.
    """
    space = stop[: len(stop) - len(stop.lstrip())]
    if not stop.strip() or any(stop.lstrip().startswith(mark) for mark in _marks(tokenizer)):
        return space if stop.strip() else ""
    ends = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    places = [stop.find(mark) for mark in {*ends, str(tokenizer.eos_token or "")} if mark.strip() and mark in stop]
    return stop[: min(places)] if places else space


def _marks(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Texts of the tokens that may end a turn."""
    marks = {str(token): index for index, token in tokenizer.added_tokens_decoder.items()}
    if isinstance(tokenizer.eos_token, str) and isinstance(tokenizer.eos_token_id, int):
        marks[tokenizer.eos_token] = tokenizer.eos_token_id
    return {mark: index for mark, index in marks.items() if mark.strip()}


def end_of_turn(tokenizer: PreTrainedTokenizerBase, form: ChatForm) -> int | None:
    """The token with which the template ends an answer; None where it is not one token of its own."""
    stop, marks = form.stop[len(form.close) :].lstrip(), _marks(tokenizer)
    held = [mark for mark in marks if stop.startswith(mark)]
    return marks[max(held, key=len)] if held else None
