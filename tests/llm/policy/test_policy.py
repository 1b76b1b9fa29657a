"""Policies on tiny random Qwen3 and Llama models: sampling and scoring agree with each other and with transformers.

Reference is transformers itself on one row at a time, without padding, cache or sharing.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertLMHeadModel,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from fstsim.errors import InputError
from fstsim.llm.policy.loading import check_device, shipped_path
from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.rollouts import Rollouts, token_logprobs
from fstsim.llm.pretraining.tokenizer import build_tokenizer, vocabulary
from fstsim.llm.tasks.jsonl import read_jsonl
from fstsim.llm.types import Problem

MakeModel = Callable[..., PreTrainedModel]
MakePolicy = Callable[..., Policy]

EACH_KIND = pytest.mark.parametrize("kind", ["qwen3", "llama"])
EACH_TEMPERATURE = pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])

# float32 and about twenty operations a layer: two ways to the same number differ by a few units in the sixth digit
CLOSE = 1e-5
FALSE_ALARM = 1e-6  # chance that a statistical test here rejects correct code under another seed


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def prompts_of(policy: Policy) -> list[list[int]]:
    """Prompts of four lengths: contexts of none to three rules, and problems of three families."""
    shown = [
        ("", Problem("strings", "ABCDE", "")),
        ("reverse rotate", Problem("strings", "HHAC", "")),
        ("negate", Problem("digits", "1", "")),
        ("forward up roll", Problem("star_graph", "QJ;WL;WP;PN:J", "")),
    ]
    return [policy.encode(context, problem) for context, problem in shown]


def one_by_one(model: PreTrainedModel, prompts: Sequence[Sequence[int]], r: Rollouts) -> list[torch.Tensor]:
    """Log-probabilities of each completion by a forward pass of its own over prompt and completion."""
    rows = []
    for i in range(len(r)):
        prompt, wrote = list(prompts[r.prompt_of[i]]), r.completions[i][r.mask[i]]
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *wrote.tolist()]]), use_cache=False).logits[0]
        logp = torch.log_softmax(logits[len(prompt) - 1 : -1].double() / r.temperature, -1)
        rows.append(logp.gather(-1, wrote[:, None])[:, 0].float())
    return rows


def check_against_one_by_one(policy: Policy, prompts: Sequence[Sequence[int]], r: Rollouts) -> None:
    logp = policy.logprobs(r).detach()
    for i, expected in enumerate(one_by_one(policy.model, prompts, r)):
        assert torch.allclose(r.logprobs[i][r.mask[i]], expected, rtol=0.0, atol=CLOSE)
        assert torch.allclose(logp[i][r.mask[i]], expected, rtol=0.0, atol=CLOSE)
    assert (logp[~r.mask] == 0.0).all()
    assert (r.logprobs[~r.mask] == 0.0).all()


# --- log-probabilities -----------------------------------------------------------------------------------------------


@EACH_KIND
@EACH_TEMPERATURE
@pytest.mark.parametrize("share", [True, False])
def test_scoring_gives_the_log_probabilities_of_sampling(
    make_policy: MakePolicy, kind: str, temperature: float, share: bool
) -> None:
    """And both those of transformers row by row: prompts of different lengths, groups of different sizes."""
    policy = make_policy(kind)
    assert policy.share_prompts
    policy = dataclasses.replace(policy, share_prompts=share)
    prompts = prompts_of(policy)
    assert len({len(p) for p in prompts}) == len(prompts)
    r = policy.sample(prompts, [3, 1, 4, 2], seeded(1), max_new_tokens=6, temperature=temperature)
    assert r.prompt_of.tolist() == [0, 0, 0, 1, 2, 2, 2, 2, 3, 3]
    assert r.temperature == temperature
    assert float(policy.logprobs(r).detach().sub(r.logprobs).abs().max()) <= CLOSE
    check_against_one_by_one(policy, prompts, r)


@EACH_KIND
def test_prompts_of_one_length_need_no_mask(make_policy: MakePolicy, kind: str) -> None:
    policy = make_policy(kind)
    prompts = [policy.encode("next", Problem("strings", text, "")) for text in ("ABC", "HGF", "AAA")]
    r = policy.sample(prompts, 3, seeded(2), max_new_tokens=5)
    assert bool(r.prompt_mask.all())
    check_against_one_by_one(policy, prompts, r)
    one = policy.sample(prompts, 3, seeded(2), max_new_tokens=1)
    assert one.completions.shape == (9, 1)
    check_against_one_by_one(policy, prompts, one)


def test_the_test_would_see_a_wrong_temperature_or_prompt(make_policy: MakePolicy) -> None:
    """Of the size of what must be seen: scoring at another temperature, or after another prompt, is far from 1e-5."""
    policy = make_policy()
    r = policy.sample(prompts_of(policy), 4, seeded(1), max_new_tokens=6)
    hot = policy.logprobs(dataclasses.replace(r, temperature=1.1)).detach()
    other = policy.logprobs(dataclasses.replace(r, prompt_of=r.prompt_of.flip(0))).detach()
    assert float((hot - r.logprobs).abs().max()) > 0.01
    assert float((other - r.logprobs).abs().max()) > 0.1


@EACH_KIND
def test_sharing_the_prompt_changes_neither_values_nor_gradients(make_policy: MakePolicy, kind: str) -> None:
    """One pass over each prompt, its cache repeated: the gradients of all weights are those of the plain path."""
    policy = make_policy(kind)
    prompts = prompts_of(policy)
    r = policy.sample(prompts, [3, 1, 4, 2], seeded(3), max_new_tokens=6, temperature=1.3)
    weight = torch.linspace(-1.0, 2.0, len(r))[:, None]
    found = []
    for share in (True, False):
        policy.model.zero_grad()
        logp = dataclasses.replace(policy, share_prompts=share).logprobs(r)
        (weight * logp).sum().backward()
        found.append((logp.detach(), {name: p.grad.clone() for name, p in policy.model.named_parameters()}))
    (one, gradients), (two, plain) = found
    assert torch.allclose(one, two, rtol=0.0, atol=CLOSE)
    for name, gradient in plain.items():
        scale = float(gradient.abs().max())
        assert scale > 0.0
        assert float((gradients[name] - gradient).abs().max()) <= 1e-4 * scale, name


def test_layers_with_a_window_are_scored_without_sharing(make_policy: MakePolicy) -> None:
    """Caches that forget cannot be repeated as they are: the policy takes the plain path by itself, with the same result."""
    policy = make_policy(use_sliding_window=True, sliding_window=4, max_window_layers=0)
    assert not policy.share_prompts
    prompts = prompts_of(policy)
    check_against_one_by_one(policy, prompts, policy.sample(prompts, 2, seeded(1), max_new_tokens=6))


def windowed(make_model: MakeModel, window: int) -> Policy:
    """A Mistral: every layer has a window, and no ``layer_types`` say so."""
    like = make_model().config
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "head_dim")
    sizes = {name: getattr(like, name) for name in (*names, "num_key_value_heads", "initializer_range")}
    ids = {"pad_token_id": like.pad_token_id, "bos_token_id": like.bos_token_id, "eos_token_id": like.eos_token_id}
    config = MistralConfig(**sizes, **ids, sliding_window=window, max_position_embeddings=64)
    return Policy.of(MistralForCausalLM(config).eval(), build_tokenizer())


@pytest.mark.parametrize("window", [4, 16])
def test_a_window_in_every_layer_is_scored_without_sharing(make_model: MakeModel, window: int) -> None:
    """Prompts shorter and longer than the window: the same numbers as each row by itself."""
    policy = windowed(make_model, window)
    assert not policy.share_prompts
    assert not policy.tree
    prompts = [*prompts_of(policy), policy.encode("next rotate " * 10, Problem("strings", "ABCDE", ""))]
    assert min(map(len, prompts)) < 16 < max(map(len, prompts))
    check_against_one_by_one(policy, prompts, policy.sample(prompts, [3, 1, 4, 2, 3], seeded(1), max_new_tokens=6))


def test_a_window_that_is_not_in_force_does_not_prevent_sharing(make_policy: MakePolicy) -> None:
    """Configs of Qwen carry the length of a window that no layer uses."""
    policy = make_policy(use_sliding_window=False, sliding_window=4)
    assert policy.share_prompts
    prompts = prompts_of(policy)
    check_against_one_by_one(policy, prompts, policy.sample(prompts, 2, seeded(1), max_new_tokens=6))


def test_a_model_without_a_cache_of_keys_and_values() -> None:
    """A state in place of a cache, and an encoder: one line that says what is needed."""
    config = MambaConfig(vocab_size=64, hidden_size=16, state_size=4, num_hidden_layers=1, eos_token_id=2)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    for model in (MambaForCausalLM(config), BertLMHeadModel(BertConfig(vocab_size=64, **sizes))):
        model.train()
        with pytest.raises(InputError, match=r"decoder with a key/value cache") as caught:
            Policy.of(model, build_tokenizer())
        assert "\n" not in str(caught.value)
        assert model.training


def test_logits_are_distributions_over_the_vocabulary(make_policy: MakePolicy) -> None:
    policy = make_policy()
    r = policy.sample(prompts_of(policy), 2, seeded(4), max_new_tokens=5, temperature=0.5)
    logits = policy.logits(r)
    assert logits.shape == (*r.completions.shape, len(vocabulary()))
    assert logits.dtype == torch.float32
    assert torch.equal(token_logprobs(logits, r), policy.logprobs(r))


# --- sampling --------------------------------------------------------------------------------------------------------


@EACH_KIND
def test_greedy_is_what_transformers_generates(make_policy: MakePolicy, kind: str) -> None:
    """`generate(do_sample=False)` on every prompt alone, and on all of them padded."""
    policy = make_policy(kind, seed=3)
    prompts = prompts_of(policy)
    r = policy.sample(prompts, 1, seeded(0), max_new_tokens=12, temperature=0.0)
    assert r.temperature == 1.0
    options = {"do_sample": False, "max_new_tokens": 12, "pad_token_id": policy.tokenizer.pad_token_id}
    padded = policy.model.generate(r.prompts, attention_mask=r.prompt_mask.long(), **options)[:, r.prompts.shape[1] :]
    for i, prompt in enumerate(prompts):
        tokens = torch.tensor([prompt])
        alone = policy.model.generate(tokens, attention_mask=torch.ones_like(tokens), **options)[0, len(prompt) :]
        wrote = r.completions[i][r.mask[i]].tolist()
        assert wrote == alone.tolist()
        assert wrote == padded[i, : len(wrote)].tolist()
    check_against_one_by_one(policy, prompts, r)


def test_greedy_takes_no_randomness(make_policy: MakePolicy) -> None:
    policy = make_policy()
    prompts = prompts_of(policy)
    generator = seeded(0)
    before = generator.get_state()
    one = policy.sample(prompts, 2, generator, max_new_tokens=5, temperature=0.0)
    assert torch.equal(generator.get_state(), before)
    assert torch.equal(one.completions[::2], one.completions[1::2])


def p_value(drawn: torch.Tensor, p: np.ndarray) -> float:
    """Of a chi-square test that tokens were drawn with probabilities ``p``; tokens expected less than ten times are taken as one."""
    seen, expected = np.bincount(drawn, minlength=len(p)), len(drawn) * p
    order = np.argsort(expected)
    pooled = max(1, int((np.cumsum(expected[order]) < 10).sum()) + 1)
    assert len(p) - pooled > 3, "too few frequent tokens to say anything"
    return stats.chisquare(
        [seen[order[:pooled]].sum(), *seen[order[pooled:]]], [expected[order[:pooled]].sum(), *expected[order[pooled:]]]
    ).pvalue


def next_token(policy: Policy, tokens: list[int], temperature: float = 1.0) -> np.ndarray:
    """Probabilities of the next token by a plain forward pass."""
    with torch.no_grad():
        logits = policy.model(torch.tensor([tokens])).logits[0, -1].double()
    return torch.softmax(logits / temperature, -1).numpy()


@EACH_KIND
@EACH_TEMPERATURE
def test_tokens_are_sampled_with_their_probabilities(make_policy: MakePolicy, kind: str, temperature: float) -> None:
    """First tokens of 10,000 completions of two prompts against the softmax; of another temperature the test would see it."""
    policy = make_policy(kind)
    prompts = prompts_of(policy)[:2]
    r = policy.sample(prompts, 10_000, seeded(5), max_new_tokens=1, temperature=temperature)
    for k, prompt in enumerate(prompts):
        drawn = r.completions[r.prompt_of == k, 0]
        assert p_value(drawn, next_token(policy, prompt, temperature)) > FALSE_ALARM
        assert p_value(drawn, next_token(policy, prompt, 1.3 * temperature)) < FALSE_ALARM


def test_later_tokens_are_sampled_given_the_earlier_ones(make_policy: MakePolicy) -> None:
    """Second tokens, after the most frequent first one, against the softmax after that token."""
    policy = make_policy()
    prompt = prompts_of(policy)[1]
    r = policy.sample([prompt], 20_000, seeded(6), max_new_tokens=2)
    first = int(torch.mode(r.completions[:, 0]).values)
    assert first not in policy.end_tokens
    second = r.completions[r.completions[:, 0] == first, 1]
    assert p_value(second, next_token(policy, [*prompt, first])) > FALSE_ALARM
    assert p_value(second, next_token(policy, prompt)) < FALSE_ALARM


def same(one: Rollouts, two: Rollouts) -> bool:
    fields = [f.name for f in dataclasses.fields(Rollouts) if f.name != "temperature"]
    return all(torch.equal(getattr(one, name), getattr(two, name)) for name in fields)


def test_one_seed_one_result(make_policy: MakePolicy) -> None:
    """All randomness is the generator's: torch's own may be anything, and stays as it was."""
    policy = make_policy()
    prompts = prompts_of(policy)
    one = policy.sample(prompts, 3, seeded(7), max_new_tokens=6)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    two = policy.sample(prompts, [3, 3, 3, 3], seeded(7), max_new_tokens=6)
    assert torch.equal(torch.get_rng_state(), before)
    assert same(one, two)
    other = policy.sample(prompts, 3, seeded(8), max_new_tokens=6)
    assert not torch.equal(one.completions[:, :2], other.completions[:, :2])


def test_completions_end_with_the_first_end_token(make_policy: MakePolicy) -> None:
    """With several end tokens whichever comes first; it is written and scored, and padding follows."""
    policy = dataclasses.replace(make_policy(), end_tokens=(2, 20, 21, 22, 23, 24))
    prompts = prompts_of(policy)
    r = policy.sample(prompts, 25, seeded(9), max_new_tokens=7)
    lengths = set()
    for wrote, mask, logp in zip(r.completions.tolist(), r.mask.tolist(), r.logprobs.tolist(), strict=True):
        ends = [t for t, token in enumerate(wrote) if mask[t] and token in policy.end_tokens]
        length = ends[0] + 1 if ends else 7
        lengths.add(length)
        assert mask == [t < length for t in range(len(wrote))]
        assert all(token == policy.tokenizer.pad_token_id for token in wrote[length:])
        assert all(value == 0.0 for value in logp[length:])
        assert all(value < 0.0 for value in logp[:length])
    assert {1, 2, 7} <= lengths, "short ones and whole ones were among them"
    check_against_one_by_one(policy, prompts, r)


def test_sampling_stops_when_all_have_ended(make_policy: MakePolicy) -> None:
    policy = dataclasses.replace(make_policy(), end_tokens=tuple(range(len(vocabulary()))))
    r = policy.sample(prompts_of(policy), 2, seeded(0), max_new_tokens=9)
    assert r.completions.shape == (8, 1)
    assert bool(r.mask.all())


def test_end_tokens_of_the_generation_config_come_first(make_model: MakeModel) -> None:
    tokenizer = build_tokenizer()
    model = make_model()
    assert Policy.of(model, tokenizer).end_tokens == (tokenizer.eos_token_id,)
    model.generation_config.eos_token_id = [5, 2]
    assert Policy.of(model, tokenizer).end_tokens == (5, 2)
    model.generation_config.eos_token_id = None
    assert Policy.of(model, tokenizer).end_tokens == (tokenizer.eos_token_id,)
    tokenizer.eos_token = None
    with pytest.raises(InputError, match="end token"):
        Policy.of(model, tokenizer)


@pytest.mark.parametrize("ends", [[0, 2], [2, 0], [5, 20]])
def test_a_given_answer_ends_as_the_tokenizer_ends_it(make_model: MakeModel, ends: list[int]) -> None:
    """Among the end tokens of sampling its own, wherever it stands; the first of them when its own is none of them."""
    model, tokenizer = make_model(), build_tokenizer()
    model.generation_config.eos_token_id = ends
    policy = Policy.of(model, tokenizer)
    assert policy.end_tokens == tuple(ends)
    wanted = tokenizer.eos_token_id if tokenizer.eos_token_id in ends else ends[0]
    assert policy.end_token == policy.encode_answer("ABC")[-1] == wanted


@pytest.mark.parametrize("training", [True, False])
def test_sampling_leaves_the_model_in_its_mode(make_policy: MakePolicy, training: bool) -> None:
    policy = make_policy()
    policy.model.train(training)
    policy.sample(prompts_of(policy), 1, seeded(0), max_new_tokens=2)
    assert policy.model.training is training
    assert all(p.grad is None for p in policy.model.parameters())


def test_a_prompt_that_does_not_fit(make_policy: MakePolicy) -> None:
    """Exactly as many positions as there are do; one more is refused, in sampling and in teacher forcing."""
    policy = make_policy(max_position_embeddings=12)
    prompt = policy.encode("", PROBLEM)  # 8 tokens
    assert policy.sample([prompt], 1, seeded(0), max_new_tokens=4).completions.shape[1] <= 4
    answer = policy.encode_answer("ABCD")
    for attempt in (
        lambda: policy.sample([prompt], 1, seeded(0), max_new_tokens=5),
        lambda: policy.forced([prompt], [answer]),
    ):
        with pytest.raises(InputError, match=r"prompt of 8 tokens and 5 new ones .* 12 positions") as caught:
            attempt()
        assert "\n" not in str(caught.value)


# --- rollouts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [[4], [0, 1, 2], [9, 3, 3, 0], list(range(10)), [5, 4]])
def test_taking_rows(make_policy: MakePolicy, rows: list[int]) -> None:
    """Rows in the order asked for, repeated if asked for twice; log-probabilities, texts and gradients are the rows' own."""
    policy = make_policy()
    prompts = prompts_of(policy)
    r = policy.sample(prompts, [3, 1, 4, 2], seeded(10), max_new_tokens=6, temperature=0.7)
    part = r.take(torch.tensor(rows))
    assert len(part) == len(rows)
    assert part.temperature == 0.7
    assert [policy.decode(r)[i] for i in rows] == policy.decode(part)
    width = part.completions.shape[1]
    assert width == int(r.mask[rows].sum(1).max())
    assert torch.allclose(policy.logprobs(part), policy.logprobs(r)[rows, :width], rtol=0.0, atol=CLOSE)
    assert torch.equal(part.logprobs, r.logprobs[rows, :width])
    used = sorted({int(r.prompt_of[i]) for i in rows})
    assert len(part.prompts) == len(used)
    assert part.prompts.shape[1] == max(len(prompts[p]) for p in used), "no column of padding alone"
    for i, row in enumerate(rows):
        p = part.prompt_of[i]
        assert part.prompts[p][part.prompt_mask[p]].tolist() == prompts[r.prompt_of[row]]


def test_taking_no_rows(make_policy: MakePolicy) -> None:
    policy = make_policy()
    r = policy.sample(prompts_of(policy), 2, seeded(10), max_new_tokens=3)
    assert len(r.take(torch.arange(0))) == 0


def test_given_answers_as_rollouts(make_policy: MakePolicy) -> None:
    """Answers of different lengths with their end tokens, scored as if they had been sampled."""
    policy = make_policy()
    prompts = prompts_of(policy)
    answers = [policy.encode_answer(text) for text in ("EDCBA", "AB", "9", "QJW")]
    r = policy.forced(prompts, answers)
    assert [row[m].tolist() for row, m in zip(r.completions, r.mask, strict=True)] == answers
    assert [text.replace(" ", "") for text in policy.decode(r)] == ["EDCBA", "AB", "9", "QJW"]
    logp = policy.logprobs(r).detach()
    for i, expected in enumerate(one_by_one(policy.model, prompts, r)):
        assert torch.allclose(logp[i][r.mask[i]], expected, rtol=0.0, atol=CLOSE)


# --- prompts ---------------------------------------------------------------------------------------------------------


def test_prompts_of_the_world(make_policy: MakePolicy) -> None:
    """The line that the base model was trained on: context, bar, problem, equals; without context it starts at the bar."""
    policy = make_policy()
    assert policy.template == "world"
    problem = Problem("strings", "ABC", "never shown")
    words = policy.tokenizer.convert_ids_to_tokens
    assert words(policy.encode("reverse next", problem)) == ["<bos>", "reverse", "next", "|", "A", "B", "C", "="]
    assert words(policy.encode("", problem)) == ["<bos>", "|", "A", "B", "C", "="]
    assert words(policy.encode_answer("CBA")) == ["C", "B", "A", "<eos>"]


def test_a_bar_in_a_users_prompt_is_a_part_of_it(make_policy: MakePolicy, tmp_path: Path) -> None:
    """The context stands before a bar of its own, whatever a line of a file says; rules of a problem are a field of it."""
    lines = [json.dumps({"prompt": f"{letter} | B", "answer": "B", "split": "test"}) for letter in "ACDE"]
    (tmp_path / "own.jsonl").write_text("\n".join(lines))
    policy = make_policy()
    words = policy.tokenizer.convert_ids_to_tokens
    problem = read_jsonl(str(tmp_path / "own.jsonl")).problems("test")[0]
    assert words(policy.encode("next", problem)) == ["<bos>", "next", "|", "A", "|", "B", "="]
    assert words(policy.encode("", problem)) == ["<bos>", "|", "A", "|", "B", "="]
    assert policy.encode_all([("", problem)]) == [policy.encode("", problem)]
    ruled = dataclasses.replace(problem, text="B", rules=("reverse", "rotate"))
    assert words(policy.encode("next", ruled)) == ["<bos>", "next", "reverse", "rotate", "|", "B", "="]
    assert (problem.uid, ruled.uid) == ("jsonl:A | B", "jsonl:reverse rotate | B")


CHAT = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>"
    "{% if enable_thinking is defined and not enable_thinking %}<|quiet|>{% endif %}{% endif %}"
)
MARKS = ["<|end|>", "<|user|>", "<|assistant|>", "<|quiet|>", "<|begin|>"]
PROBLEM = Problem("strings", "ABCDE", "Rewrite the string ABCDE. Answer with the new string only.")


def english_tokenizer(chat: str | None) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on a few sentences, as chat models have one; it has no padding token."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=MARKS, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    raw.train_from_iterator(["Rewrite the string. Answer with the new string only. Write it backwards."] * 3, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|end|>")
    tokenizer.chat_template = chat
    return tokenizer


def english_policy(make_model: MakeModel, chat: str | None) -> Policy:
    tokenizer = english_tokenizer(chat)
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": None, "bos_token_id": None}
    return Policy.of(make_model(vocab_size=len(tokenizer) + 4, max_position_embeddings=256, **ids), tokenizer)


def test_a_chat_template_is_used(make_model: MakeModel) -> None:
    """Context and question as one user turn, the answer's turn opened, thinking off; its marks are tokens, not letters."""
    policy = english_policy(make_model, CHAT)
    assert policy.template == "chat"
    tokens = policy.encode("Write it backwards.", PROBLEM)
    assert (
        policy.tokenizer.decode(tokens)
        == f"<|user|>Write it backwards.\n\n{PROBLEM.question}<|end|><|assistant|><|quiet|>"
    )
    marks = policy.tokenizer.convert_tokens_to_ids(MARKS)
    assert [t for t in tokens if t in marks] == [marks[1], marks[0], marks[2], marks[3]]
    assert (
        policy.tokenizer.decode(policy.encode("", PROBLEM))
        == f"<|user|>{PROBLEM.question}<|end|><|assistant|><|quiet|>"
    )


def test_without_a_chat_template_prompts_are_plain(make_model: MakeModel) -> None:
    policy = english_policy(make_model, None)
    assert policy.template == "plain"
    text = policy.tokenizer.decode(policy.encode("Write it backwards.", PROBLEM))
    assert text == f"Write it backwards.\n{PROBLEM.question}\nAnswer:"
    assert policy.tokenizer.decode(policy.encode("", PROBLEM)) == f"{PROBLEM.question}\nAnswer:"
    assert policy.tokenizer.decode(policy.encode_text("Why?")) == "Why?"


def test_chat_messages_are_shown_as_they_are_with_the_context_before_the_last(make_model: MakeModel) -> None:
    """To a model with a chat template; others read them as text."""
    messages = (("user", "Rewrite."), ("assistant", "Rewrite what?"), ("user", "The string."))
    problem = Problem("jsonl", "as text", "as text", messages)
    policy = english_policy(make_model, CHAT)
    for context, last in [("", "The string."), ("Write it backwards.", "Write it backwards.\n\nThe string.")]:
        text = policy.tokenizer.decode(policy.encode(context, problem))
        turns = f"<|user|>Rewrite.<|end|><|assistant|>Rewrite what?<|end|><|user|>{last}<|end|>"
        assert text == f"{turns}<|assistant|><|quiet|>"
    plain = english_policy(make_model, None)
    assert plain.tokenizer.decode(plain.encode("", problem)) == "as text\nAnswer:"


def llama_tokenizer(style: str) -> PreTrainedTokenizerFast:
    """Spaces written as U+2581, one of them before whatever is tokenised: by the normalizer, or by the pre-tokenizer."""
    raw = Tokenizer(models.BPE())
    if style == "normalizer":
        raw.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
        spaces = decoders.Replace("\u2581", " ")
        raw.decoder = decoders.Sequence([spaces, decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    else:
        raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=style)
        raw.decoder = decoders.Metaspace(prepend_scheme=style)
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=["</s>"], show_progress=False)
    raw.train_from_iterator([*"ABCDEFGH", "Question\nAnswer: ABCDE", PROBLEM.question, "Write it backwards."], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>", clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("style", ["byte level", "normalizer", "first", "always"])
def test_a_plain_answer_is_what_a_model_would_write_after_the_prompt(make_model: MakeModel, style: str) -> None:
    """One space after the colon, whether or not the tokenizer adds one by itself: the tokens of the whole text."""
    tokenizer = english_tokenizer(None) if style == "byte level" else llama_tokenizer(style)
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": None, "bos_token_id": None}
    policy = Policy.of(make_model(vocab_size=len(tokenizer), max_position_embeddings=256, **ids), tokenizer)
    assert policy.template == "plain"
    for answer in ("EDCBA", "A", "HG AB"):
        *tokens, end = policy.encode_answer(answer)
        assert end == tokenizer.eos_token_id
        for context in ("", "Write it backwards."):
            prompt = policy.encode(context, PROBLEM)
            read = tokenizer.decode([*prompt, *tokens])
            assert read == tokenizer.decode(prompt) + f" {answer}"
            assert read.endswith(f"Answer: {answer}")
            assert [*prompt, *tokens] == tokenizer(read)["input_ids"]


@pytest.mark.parametrize("chat", [CHAT, None])
def test_a_model_whose_padding_is_its_end_token(make_model: MakeModel, chat: str | None) -> None:
    """No padding token: the end token pads, and masks alone say what was written."""
    policy = english_policy(make_model, chat)
    assert policy.tokenizer.pad_token_id == policy.end_tokens[0]
    prompts = [policy.encode(context, PROBLEM) for context in ("", "Write it backwards.", "Answer.")]
    r = policy.sample(prompts, 4, seeded(1), max_new_tokens=6)
    check_against_one_by_one(policy, prompts, r)
    answers = [policy.encode_answer(text) for text in ("EDCBA", "", "A string")]
    assert [answer[-1] for answer in answers] == [policy.end_tokens[0]] * 3
    space = "" if chat else " "  # as it is written after "Answer:"
    assert policy.decode(policy.forced(prompts, answers)) == [space + "EDCBA", "", space + "A string"]


# --- loading ---------------------------------------------------------------------------------------------------------


@EACH_KIND
def test_a_saved_model_comes_back(make_policy: MakePolicy, kind: str, tmp_path: Path) -> None:
    """Same log-probabilities from the files alone; half precision if asked for."""
    policy = make_policy(kind)
    policy.model.save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    again = Policy.load(str(tmp_path))
    assert (again.template, again.end_tokens, again.share_prompts) == ("world", policy.end_tokens, True)
    prompts = prompts_of(policy)
    assert prompts_of(again) == prompts
    assert same(
        policy.sample(prompts, 3, seeded(1), max_new_tokens=5), again.sample(prompts, 3, seeded(1), max_new_tokens=5)
    )
    half = Policy.load(str(tmp_path), dtype="bfloat16")
    assert next(half.model.parameters()).dtype == torch.bfloat16
    r = half.sample(prompts, 3, seeded(1), max_new_tokens=5)
    assert half.logits(r).dtype == r.logprobs.dtype == torch.float32


def refused(name: str, says: str, **kwargs: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        Policy.load(name, **kwargs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["nowhere", "nobody/no-such-model", "a/b/c", "", "not a name", "not/a name"])
def test_loading_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Neither on disk nor, as far as one can see without a network, on the hub."""
    monkeypatch.chdir(tmp_path)
    refused(name, "there is no model at|cannot be loaded|no weights")
    refused(str(tmp_path / "nowhere" / "else"), "there is no model at")


@pytest.mark.parametrize("name", ["./nosuch", "/nosuch", "../x", "~/x", "nosuch/", "a/.b"])
def test_a_path_that_is_not_there_is_no_name_of_the_hub(name: str) -> None:
    refused(name, f"there is no model at {name!r}")


def test_loading_a_folder_without_safetensors(make_policy: MakePolicy, tmp_path: Path) -> None:
    """Nothing at all, or weights in a pickle: never read."""
    refused(str(tmp_path), "safetensors")
    policy = make_policy()
    policy.tokenizer.save_pretrained(tmp_path)
    policy.model.config.save_pretrained(tmp_path)
    torch.save(policy.model.state_dict(), tmp_path / "pytorch_model.bin")
    refused(str(tmp_path), "safetensors")


def test_loading_broken_weights(make_policy: MakePolicy, tmp_path: Path) -> None:
    policy = make_policy()
    policy.model.save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    data = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(data[: len(data) // 2])
    refused(str(tmp_path), "cannot be loaded")


def test_loading_without_a_tokenizer(make_policy: MakePolicy, tmp_path: Path) -> None:
    make_policy().model.save_pretrained(tmp_path)
    refused(str(tmp_path), "cannot be loaded|tokenizer")


def test_loading_weights_of_another_shape_or_with_a_tensor_missing(make_model: MakeModel, tmp_path: Path) -> None:
    """Random numbers in place of missing weights would be measured as if they were the model."""
    tokenizer = build_tokenizer()
    for config, weights in [({}, {"hidden_size": 64}), ({}, {"num_hidden_layers": 1})]:
        folder = tmp_path / "-".join(weights)
        make_model(**weights).save_pretrained(folder)
        make_model(**config).config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        refused(str(folder), "cannot be loaded|weights")


def test_loading_a_model_of_another_vocabulary(make_model: MakeModel, tmp_path: Path) -> None:
    make_model(vocab_size=len(vocabulary()) - 1).save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    refused(str(tmp_path), "64 tokens, the model 63")


def test_a_device_that_is_not_there(make_policy: MakePolicy, tmp_path: Path) -> None:
    policy = make_policy()
    policy.model.save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    missing = ["abacus", "cuda:99"]
    for device in missing:
        refused(str(tmp_path), device, device=device)
        with pytest.raises(InputError, match=device):
            check_device(device)
    check_device("cpu")


@pytest.mark.skipif(not list(shipped_path().glob("*.safetensors")), reason="no base model is shipped yet")
def test_the_shipped_model() -> None:
    """It loads by its name alone, and its log-probabilities agree on every path."""
    policy = Policy.load()
    assert policy.template == "world"
    assert policy.share_prompts
    prompts = prompts_of(policy)
    for temperature in (0.5, 1.0, 2.0):
        r = policy.sample(prompts, 4, seeded(1), max_new_tokens=6, temperature=temperature)
        check_against_one_by_one(policy, prompts, r)


def test_a_model_in_training_mode_is_taken_out_of_it(make_model: MakeModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """With dropout a policy differed from its own copy by nats: what is sampled is what is scored."""
    model = make_model(attention_dropout=0.5).train()
    policy = Policy.of(model, tokenizer)
    assert not policy.model.training
    rollouts = policy.sample([policy.encode("", PROBLEM)] * 4, 2, torch.Generator().manual_seed(0), max_new_tokens=4)
    assert torch.allclose(policy.logprobs(rollouts), rollouts.logprobs, atol=1e-5)
