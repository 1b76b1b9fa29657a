"""What a reflector may write, and the context in it: thoughts, fences, JSON, labels, refusals, and what is cut off."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fstsim.llm.contexts.proposals import UnusableProposal, context_from

SAID = "Answer with one word."


@pytest.mark.parametrize(
    "wrote",
    [
        SAID,
        f"\n  {SAID}\n",
        f"<think>What does the teacher want? ```maybe this```</think>\n{SAID}",
        f"<THINK>\n\n</THINK>{SAID}",
        f"the beginning was cut off</think>\n\n{SAID}",
        f"```\n{SAID}\n```",
        f"Sure!\n```text\n{SAID}\n```\nThat is all.",
        f"```\n{SAID}",
        f"```markdown\n{SAID}",
        f"{SAID}\n```",
        f"``` {SAID} ```",
        f'{{"instruction": "{SAID}"}}',
        f'```json\n{{"name": "x", "new": {{"instruction": "{SAID}"}}}}\n```',
        f'["{SAID}"]',
        f'{{"instruction": "{SAID}',
        f"Instruction: {SAID}",
        f"**New instruction:** {SAID}",
        f"Here is the instruction: {SAID}",
        f'"{SAID}"',
        f"“{SAID}”",
        f"**{SAID}**",
        f"{SAID}\n<think>Was that right?",
    ],
)
def test_the_context_in_what_was_written(wrote: str) -> None:
    assert context_from(wrote) == SAID


def test_what_belongs_to_a_context_stays() -> None:
    for text in (
        'Answer like this: "The plural form of cat is cats."',
        "1. Name the form.\n2. End with a full stop.",
        "Use the word `plural form` in {braces}.",
        "I want you to answer with one word.",
        "Note: sorry is a word too, use it.",
    ):
        assert context_from(text) == text
    assert context_from("```\nWrite\n```\ncode\n```\nlike this.\n```") == "Write\n```\ncode\n```\nlike this."


@pytest.mark.parametrize(
    ("wrote", "why"),
    [
        ("", "an empty text"),
        (" \n\t", "an empty text"),
        ("<think>I have to think about this for a while, and then", "thoughts and no text"),
        ("<think>done</think>", "thoughts and no text"),
        ("```\n```", "no words"),
        ("...", "no words"),
        ("{}", "no words"),
        ("I'm sorry, but I cannot help with that.", "a refusal: \"I'm sorry, but I cannot"),
        ("As an AI language model, I have no students.", "a refusal"),
        ("```\nI can't do that.\n```", "a refusal"),
        ("<think>hm</think>Unfortunately, I am not able to see it.", "a refusal"),
        ("present", "the present context again"),
        ("```\npresent\n```", "the present context again"),
    ],
)
def test_what_is_no_context(wrote: str, why: str) -> None:
    with pytest.raises(UnusableProposal) as error:
        context_from(wrote, "present", 1)
    assert str(error.value).startswith(why)
    assert (error.value.cost, error.value.wrote) == (1, wrote)
    assert "\n" not in str(error.value)


@given(st.text(st.characters(), max_size=200) | st.text('`<think>/"{}[]: \n\\', max_size=60))
def test_whatever_is_written_there_is_a_context_or_a_reason(wrote: str) -> None:
    text = why = ""
    try:
        text = context_from(wrote)
    except UnusableProposal as error:
        why = error.why
    assert (text == "") == (why != "")
    assert text == text.strip()
    text.encode()


def test_deep_json_ends() -> None:
    assert context_from("[" * 5000 + '"x"') != ""
