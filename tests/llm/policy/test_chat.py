"""Where an answer begins and ends: prompts and answers in tokens are those of transformers' own whole conversation.

Templates and tokenizers have the habits of known chat models; the reference is ``apply_chat_template`` of the conversation with
the assistant's turn, and plain passes over its tokens.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from fstsim.errors import InputError
from fstsim.llm.policy import chat
from fstsim.llm.policy.chat import chat_form, within
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.behaviour import answer_logprobs
from fstsim.llm.types import Problem

MakeModel = Callable[..., PreTrainedModel]

PROBLEM = Problem("strings", "ABCDE", "Rewrite the string ABCDE.")
ANSWERS = ("EDCBA", "A", "HG AB.")

GEMMA = (
    "{{ '<bos>' }}{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
PHI = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}<|endoftext|>{% endif %}"
)
CHATML = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are kind.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN3 = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
QWEN_THINKS = QWEN3.replace(
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}", "<think>\n"
)
R1 = (
    "{{ '<bos>' }}{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m.content }}"
    "{% else %}<|assistant|>{{ m.content.split('</think>')[-1] }}<eos>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
)
LLAMA2 = (
    "{% for m in messages %}{% if m.role == 'user' %}<bos>[INST] {{ m.content | trim }} [/INST]"
    "{% else %} {{ m.content | trim }} <eos>{% endif %}{% endfor %}"
)
ZEPHYR = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content + eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
PARTS = (
    "{% for m in messages %}<|{{ m.role }}|>{% for part in m.content %}{{ part.text }}{% endfor %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
NEWLINE = PHI.replace("{{ m.content }}<|end|>", "{{ m.content }}{{ '\\n' if m.role == 'assistant' else '' }}<|end|>")
WORDS = PHI.replace(
    "{{ m.content }}<|end|>", "{{ m.content }}{{ '\\n</answer> ' if m.role == 'assistant' else '' }}<|end|>"
)
NO_ANSWERS = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ raise_exception('no') }}{% endif %}<|user|>{{ m.content }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
MARKS = [
    "<pad>",
    "<bos>",
    "<eos>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<|end|>",
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
]
TEMPLATES = {
    "gemma": (GEMMA, "<eos>", ["<eos>", "<end_of_turn>"], "<end_of_turn>"),
    "phi": (PHI, "<|endoftext|>", ["<|endoftext|>", "<|assistant|>", "<|end|>"], "<|end|>"),
    "chatml, the config knows another end": (CHATML, "<eos>", ["<eos>"], "<|im_end|>"),
    "qwen3": (QWEN3, "<|im_end|>", ["<|im_end|>", "<|endoftext|>"], "<|im_end|>"),
    "qwen that thinks": (QWEN_THINKS, "<|im_end|>", ["<|im_end|>", "<|endoftext|>"], "<|im_end|>"),
    "r1": (R1, "<eos>", ["<eos>"], "<eos>"),
    "llama 2": (LLAMA2, "<eos>", ["<eos>"], "<eos>"),
    "zephyr": (ZEPHYR, "<eos>", ["<eos>"], "<eos>"),
    "a newline before the end": (NEWLINE, "<|endoftext|>", ["<|endoftext|>", "<|end|>"], "<|end|>"),
    "words before the end": (WORDS, "<|end|>", ["<|endoftext|>", "<|end|>"], "<|end|>"),
    "words before an end that is not the tokenizer's": (WORDS, "<|endoftext|>", ["<|endoftext|>"], "<|end|>"),
    "parts": (PARTS, "<|end|>", ["<|end|>"], "<|end|>"),
}
EACH_TEMPLATE = pytest.mark.parametrize("habit", TEMPLATES)
EACH_KIND = pytest.mark.parametrize("kind", ["byte level", "sentencepiece"])


def tokenizer_of(kind: str, eos: str, template: str | None, special: bool = True) -> PreTrainedTokenizerFast:
    """``special``: whether marks other than padding and the end are flagged so."""
    raw = Tokenizer(models.BPE(byte_fallback=kind != "byte level"))
    alphabet: list[str] = []
    if kind == "byte level":
        raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        raw.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
        spaces = decoders.Replace("\u2581", " ")
        raw.decoder = decoders.Sequence([spaces, decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    size = 320 if kind == "byte level" else 120
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=MARKS, show_progress=False, initial_alphabet=alphabet)
    texts = [
        "Rewrite the string ABCDE. HG AB. You are kind.\n",
        "[INST] <think>\n\n</think> user model assistant system/|",
    ]
    raw.train_from_iterator(
        ["\n", *(word for text in texts * 3 for word in text.split())], trainer
    )  # no token spans two words
    held = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=eos, pad_token="<pad>", bos_token="<bos>")
    raw.add_tokens(
        [AddedToken(mark, special=special or mark in (eos, "<pad>", "<bos>"), normalized=False) for mark in MARKS]
    )
    held = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=eos, pad_token="<pad>", bos_token="<bos>")
    held.chat_template = template
    return held


def policy_of(make_model: MakeModel, tokenizer: PreTrainedTokenizerFast, ends: list[str]) -> Policy:
    ids = tokenizer.convert_tokens_to_ids(ends)
    model = make_model(vocab_size=len(tokenizer), max_position_embeddings=256, eos_token_id=ids)
    return Policy.of(model, tokenizer)


def whole(policy: Policy, answer: str) -> list[int]:
    """The conversation with the answer as transformers writes it."""
    parts = policy._form.parts
    content = [[{"type": "text", "text": text}] if parts else text for text in (PROBLEM.question, answer)]
    messages = [{"role": "user", "content": content[0]}, {"role": "assistant", "content": content[1]}]
    return policy.tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, enable_thinking=False)


@EACH_KIND
@EACH_TEMPLATE
def test_prompt_and_answer_are_the_tokens_of_the_whole_conversation(
    make_model: MakeModel, habit: str, kind: str
) -> None:
    """Up to the token that ends the turn, which is the one that the template writes, whatever the tokenizer's own is."""
    template, eos, ends, end = TEMPLATES[habit]
    policy = policy_of(make_model, tokenizer_of(kind, eos, template), ends)
    assert policy.template == "chat"
    assert policy.end_token == policy.tokenizer.convert_tokens_to_ids(end)
    assert policy.end_token in policy.end_tokens
    assert set(policy.tokenizer.convert_tokens_to_ids(ends)) <= set(policy.end_tokens)
    prompt = policy.encode("", PROBLEM)
    for answer in ANSWERS:
        mine, theirs = [*prompt, *policy.encode_answer(answer)], whole(policy, answer)
        assert mine == theirs[: len(mine)]
        assert [text.strip() for text in policy.read([policy.encode_answer(answer)])] == [answer]
    if "Instruct" not in habit and policy.tokenizer.bos_token in policy.tokenizer.decode(prompt):
        assert prompt.count(policy.tokenizer.bos_token_id) == 1


@EACH_KIND
@pytest.mark.parametrize("special", [True, False])
@EACH_TEMPLATE
def test_what_is_read_ends_before_the_end_token(make_model: MakeModel, habit: str, kind: str, special: bool) -> None:
    """An end that is not flagged special has a text, which is none of the answer's; each end that sampling accepts is one."""
    template, eos, ends, _ = TEMPLATES[habit]
    policy = policy_of(make_model, tokenizer_of(kind, eos, template, special=special), ends)
    for end in policy.end_tokens:
        for answer in ANSWERS:
            tokens = [*policy.encode_answer(answer)[:-1], end]
            forced = policy.forced([policy.encode("", PROBLEM)], [tokens])
            assert policy.decode(forced)[0].strip() == answer


def test_a_trimmed_answer_is_taught_as_the_template_writes_it(make_model: MakeModel) -> None:
    template, eos, ends, _ = TEMPLATES["gemma"]
    policy = policy_of(make_model, tokenizer_of("byte level", eos, template), ends)
    assert policy.encode_answer("  EDCBA \n") == policy.encode_answer("EDCBA")
    assert [*policy.encode("", PROBLEM), *policy.encode_answer(" A ")] == whole(policy, " A ")[:-1]


@EACH_TEMPLATE
def test_success_counts_every_end_that_sampling_accepts(make_model: MakeModel, habit: str) -> None:
    """The sum over the ends of the probabilities of plain passes over prompt, answer and end; and the frequency in samples."""
    template, eos, ends, _ = TEMPLATES[habit]
    policy = policy_of(make_model, tokenizer_of("byte level", eos, template), ends)
    prompt = policy.encode("", PROBLEM)
    found = answer_logprobs(policy, ("",), [PROBLEM] * len(ANSWERS), ANSWERS)[0]
    for answer, logp in zip(ANSWERS, found, strict=True):
        *tokens, _ = policy.encode_answer(answer)
        row = torch.tensor([[*prompt, *tokens]])
        with torch.no_grad():
            each = torch.log_softmax(policy.model(row, use_cache=False).logits[0].double(), -1)
        wrote = sum(float(each[len(prompt) - 1 + k, token]) for k, token in enumerate(tokens))
        ended = torch.logsumexp(each[-1, list(policy.end_tokens)], -1)
        assert logp == pytest.approx(wrote + float(ended), abs=1e-4)
    one = policy.encode_answer("A")[:1]
    several = dataclasses.replace(policy, end_tokens=tuple(range(3, 60)))
    with torch.no_grad():
        exact = float(several.answer_logprobs([prompt], [[*one, 5]]).exp())
    sampled = several.sample([prompt], 4000, torch.Generator().manual_seed(0), max_new_tokens=2)
    first = sampled.completions[:, 0] == one[0]
    rate = float(
        (first & (sampled.mask.sum(1) == 2) & torch.isin(sampled.completions[:, -1], torch.arange(3, 60)))
        .float()
        .mean()
    )
    assert abs(rate - exact) <= 5 * (exact * (1 - exact) / 4000) ** 0.5 + 1e-4


def test_a_template_without_answers_and_one_without_an_end(make_model: MakeModel) -> None:
    """The tokenizer's own end where sampling stops at it."""
    for template in (NO_ANSWERS, CHATML.replace("<|im_end|>", "")):
        policy = policy_of(make_model, tokenizer_of("byte level", "<eos>", template), ["<|end|>", "<eos>"])
        assert policy.end_token == policy.tokenizer.eos_token_id
        assert policy.read([policy.encode_answer("EDCBA")]) == ["EDCBA"]


# --- plain prompts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("around", ["$A", "<bos> $A", "$A <eos>", "<bos> $A <eos>"])
@EACH_KIND
def test_what_a_tokenizer_puts_around_a_text(make_model: MakeModel, kind: str, around: str) -> None:
    """Once before a prompt, as it does; never after it, where it would end what has not begun."""
    tokenizer = tokenizer_of(kind, "<eos>", None)
    marks = [(mark, tokenizer.convert_tokens_to_ids(mark)) for mark in ("<bos>", "<eos>")]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single=around, special_tokens=marks)
    policy = policy_of(make_model, tokenizer, ["<eos>"])
    prompt = policy.encode("", PROBLEM)
    assert prompt.count(tokenizer.bos_token_id) == around.count("<bos>")
    assert tokenizer.eos_token_id not in prompt
    assert prompt == policy.encode_all([("", PROBLEM)])[0]
    assert prompt == tokenizer(f"{PROBLEM.question}\nAnswer:")["input_ids"][: len(prompt)]
    assert policy.read([policy.encode_answer("EDCBA")]) == [" EDCBA"]


def test_a_space_before_a_full_stop_is_not_cleaned_away(make_model: MakeModel) -> None:
    tokenizer = tokenizer_of("byte level", "<eos>", None)
    tokenizer.clean_up_tokenization_spaces = True
    policy = policy_of(make_model, tokenizer, ["<eos>"])
    assert policy.read([policy.encode_answer("A . B ?")]) == [" A . B ?"]


# --- templates are programs ------------------------------------------------------------------------------------------


def test_a_template_that_does_not_end_is_stopped_in_any_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "SECONDS", 0.3)
    loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    tokenizer = tokenizer_of("byte level", "<eos>", loops)
    said: list[str] = []

    def ask() -> None:
        with pytest.raises(InputError, match="does not end") as caught:
            chat_form(tokenizer)
        said.append(str(caught.value))

    begun = time.monotonic()
    ask()
    other = threading.Thread(target=ask)
    other.start()
    other.join()
    assert len(said) == 2
    assert time.monotonic() - begun < 10.0


def test_within_returns_and_raises() -> None:
    assert within(5.0, lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        within(5.0, lambda: 1 // 0)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ raise_exception('a\nb') }}", "a b"),
        ("{% for m in messages %}", "cannot be used"),
        ("Hello.", "leaves out what the user says"),
        ("{{ 'x' * 10 ** 15 }}", "MemoryError"),
    ],
)
def test_a_template_that_cannot_be_used(make_model: MakeModel, template: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        policy_of(make_model, tokenizer_of("byte level", "<eos>", template), ["<eos>"])
    assert "\n" not in str(caught.value)
