"""Every decoder that transformers offers, at lengths beyond its windows and beside different neighbours: the numbers of plain passes, or a refusal.

The reference is transformers on one row at a time, without padding, cache or mask.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from tiny_architectures import POSITIONS, architectures, tiny_model
from transformers import PreTrainedModel

from fstsim.errors import InputError
from fstsim.llm.policy.declared import local_attention
from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.static_decode import takes_slots
from fstsim.llm.policy.tree import takes_trees
from fstsim.llm.pretraining.tokenizer import build_tokenizer

_CLOSE = 1e-4
_COMMON = [
    "bart",
    "bloom",
    "cohere2",
    "falcon",
    "gemma2",
    "gemma3_text",
    "gpt2",
    "gpt_bigcode",
    "gpt_neo",
    "gpt_neox",
    "gpt_oss",
    "llama",
    "llama4_text",
    "mbart",
    "mistral",
    "modernbert-decoder",
    "olmo2",
    "opt",
    "phi",
    "phi3",
    "qwen2",
    "qwen3_moe",
    "roberta",
    "smollm3",
    "stablelm",
    "starcoder2",
    "xglm",
]
# one of each kind of attention, position and head, in every run of the tests
_KINDS = {"gemma3_text", "gpt2", "gpt_neo", "gpt_oss", "llama", "mbart", "mistral", "opt", "phi3", "qwen2", "qwen3_moe"}
_OTHERS = sorted(set(architectures()) - set(_COMMON))
# a deep recursion of one block: two ways to the same number differ by more than elsewhere
_LOOSER = {"hrm_text": 1e-3}


def of_lengths(*lengths: int) -> list[list[int]]:
    """Random prompts; the last two have a long beginning in common."""
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(3, 64, (n,), generator=generator).tolist() for n in lengths]
    prompts[-1][:30] = prompts[-2][:30]
    return prompts


def plain(model: PreTrainedModel, prompt: list[int], wrote: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *wrote.tolist()]]), use_cache=False).logits[0]
    logp = torch.log_softmax(logits[len(prompt) - 1 : -1].double(), -1)
    return logp.gather(-1, wrote[:, None])[:, 0].float()


def check(policy: Policy, close: float = _CLOSE) -> None:
    """Sampling, scoring of the batch, and of each completion beside others, against plain passes."""
    prompts = of_lengths(3, 21, 45, 45)
    r = policy.sample(prompts, [2, 1, 2, 2], torch.Generator().manual_seed(1), max_new_tokens=12)
    logp, alone = policy.logprobs(r).detach(), policy.logprobs(r.take(torch.tensor([0, 5]))).detach()
    for i in range(len(r)):
        kept = r.mask[i]
        expected = plain(policy.model, prompts[r.prompt_of[i]], r.completions[i][kept])
        for found in (
            r.logprobs[i][kept],
            logp[i][kept],
            *((alone[(0, 5).index(i)][: len(expected)],) if i in (0, 5) else ()),
        ):
            assert float((found - expected).abs().max()) <= close


def check_all_paths(model: PreTrainedModel, close: float = _CLOSE) -> Policy:
    policy = Policy.of(model, build_tokenizer())
    check(policy, close)
    if policy.share_prompts and takes_slots(model):  # what is done on a GPU
        check(dataclasses.replace(policy, static=True), close)
    return policy


@pytest.mark.parametrize(
    "name", [name if name in _KINDS else pytest.param(name, marks=pytest.mark.slow) for name in _COMMON]
)
def test_numbers_are_those_of_plain_passes(name: str) -> None:
    check_all_paths(tiny_model(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", _OTHERS)
def test_numbers_of_any_other_decoder_are_those_of_plain_passes_or_it_is_refused(name: str) -> None:
    try:
        model = tiny_model(name)
    except ValueError as error:
        pytest.skip(str(error).splitlines()[0][:200])
    said = "cannot be used"
    try:
        check_all_paths(model, _LOOSER.get(name, _CLOSE))
    except InputError as error:
        said = str(error)
    assert "cannot be used" in said
    assert "\n" not in said


@pytest.mark.parametrize("window", [8, 20, 48])
def test_a_band_of_places_in_a_row_is_not_packed(window: int) -> None:
    """GPT-Neo: the band is wider than what is tried, and narrower than what is sampled."""
    model = tiny_model("gpt_neo", window_size=window)
    assert local_attention(model)
    assert not takes_trees(model)
    assert not takes_slots(model)
    policy = check_all_paths(model)
    assert not policy.tree


@pytest.mark.parametrize("name", ["bart", "mbart", "pegasus", "roberta", "camembert"])
def test_decoders_that_count_places_have_batches_of_one_length(name: str) -> None:
    """And the gradients of plain passes: padding on the left would move their positions."""
    model = tiny_model(name)
    policy = Policy.of(model, build_tokenizer())
    assert not policy.padded
    prompts = of_lengths(3, 9, 9)
    r = policy.sample(prompts, 2, torch.Generator().manual_seed(1), max_new_tokens=5)
    weight = torch.linspace(-1.0, 2.0, len(r))
    model.zero_grad()
    (weight * policy.logprobs(r).sum(-1)).sum().backward()
    found = {key: each.grad.clone() for key, each in model.named_parameters() if each.grad is not None}
    model.zero_grad()
    for i, share in enumerate(weight):
        row = torch.tensor([[*prompts[r.prompt_of[i]], *r.completions[i][r.mask[i]].tolist()]])
        start = len(prompts[r.prompt_of[i]])
        logp = torch.log_softmax(model(row, use_cache=False).logits[0, start - 1 : -1], -1)
        (share * logp.gather(-1, row[0, start:, None]).sum()).backward()
    expected = {key: each.grad for key, each in model.named_parameters() if each.grad is not None}
    largest = max(float(each.abs().max()) for each in expected.values())
    assert found.keys() == expected.keys()
    for key, gradient in found.items():
        assert torch.allclose(gradient, expected[key], rtol=1e-3, atol=1e-5 * largest), key


@pytest.mark.parametrize("name", ["roberta", "camembert"])
@pytest.mark.parametrize("padding", [0, 1])
def test_positions_that_leave_padding_out_are_right_where_it_is_written(name: str, padding: int) -> None:
    """In prompts and in completions, up to the last position; one token more is refused."""
    model = tiny_model(name, pad_token_id=padding)
    with torch.no_grad():
        model.get_output_embeddings().bias[padding] += 2.0
    policy = dataclasses.replace(Policy.of(model, build_tokenizer()), end_tokens=(2,))
    assert policy.positions == POSITIONS - padding - 1
    prompts = of_lengths(9, POSITIONS - padding - 21, 30, 30)
    prompts[0][4] = prompts[2][7] = padding
    r = policy.sample(prompts, 4, torch.Generator().manual_seed(1), max_new_tokens=20)
    assert any(padding in row[m] for row, m in zip(r.completions, r.mask, strict=True))
    logp = policy.logprobs(r).detach()
    for i in range(len(r)):
        kept = r.mask[i]
        expected = plain(model, prompts[r.prompt_of[i]], r.completions[i][kept])
        assert float((r.logprobs[i][kept] - expected).abs().max()) <= _CLOSE
        assert float((logp[i][kept] - expected).abs().max()) <= _CLOSE
    with pytest.raises(InputError, match="positions"):
        policy.sample([[*prompts[1], 5]], 1, torch.Generator(), max_new_tokens=20)


@pytest.mark.parametrize("name", ["gpt2", "llama", "bart"])
def test_a_model_that_is_put_into_training_mode_is_scored_as_it_samples(name: str) -> None:
    """Dropout is left out of both, with gradients too; the mode stays as it was."""
    rates = {"llama": {"attention_dropout": 0.4}, "bart": {"dropout": 0.4, "attention_dropout": 0.4}}
    model = tiny_model(name, **rates.get(name, {"resid_pdrop": 0.4, "embd_pdrop": 0.4}))
    policy = Policy.of(model, build_tokenizer())
    model.train()
    prompts = of_lengths(3, 9, 9)
    r = policy.sample(prompts, 2, torch.Generator().manual_seed(1), max_new_tokens=5)
    logp = policy.logprobs(r)
    assert model.training
    assert logp.requires_grad
    model.eval()
    for i in range(len(r)):
        expected = plain(model, prompts[r.prompt_of[i]], r.completions[i][r.mask[i]])
        assert float((logp[i][r.mask[i]].detach() - expected).abs().max()) <= _CLOSE


def test_greedy_batches_of_one_length_are_what_each_prompt_gives_alone() -> None:
    policy = Policy.of(tiny_model("bart"), build_tokenizer())
    prompts, generator = of_lengths(3, 12, 7, 7), torch.Generator()
    together = policy.sample(prompts, 1, generator, max_new_tokens=8, temperature=0.0)
    for i, prompt in enumerate(prompts):
        alone = policy.sample([prompt], 1, generator, max_new_tokens=8, temperature=0.0)
        assert alone.completions[0][alone.mask[0]].tolist() == together.completions[i][together.mask[i]].tolist()


@pytest.mark.parametrize("name", ["roberta", "xlm-roberta", "bart", "opt", "gpt2"])
def test_padding_that_stands_in_a_prompt_or_is_written(name: str) -> None:
    """The RoBERTa family gives it no place: what comes after has another one than a cache counts."""
    model = tiny_model(name)
    policy = Policy.of(model, build_tokenizer())
    pad = int(policy.tokenizer.pad_token_id or 0)
    assert pad == model.config.pad_token_id or name == "gpt2"
    prompts = of_lengths(5, 22, 40, 40)
    for prompt in prompts[1:]:
        prompt[1] = prompt[-1] = pad
    # hot, so that padding is written too
    r = policy.sample(prompts, 8, torch.Generator().manual_seed(1), max_new_tokens=12, temperature=9.0)
    assert bool(((r.completions == pad) & r.mask)[:, :6].any())
    logp = policy.logprobs(r).detach()
    for i in range(len(r)):
        prompt, wrote = prompts[r.prompt_of[i]], r.completions[i][r.mask[i]]
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *wrote.tolist()]]), use_cache=False).logits[0, len(prompt) - 1 : -1]
        expected = torch.log_softmax(logits / 9.0, -1).gather(-1, wrote[:, None])[:, 0]
        for found in (r.logprobs[i][r.mask[i]], logp[i][r.mask[i]]):
            assert float((found - expected).abs().max()) <= _CLOSE


@pytest.mark.parametrize(
    ("name", "rope"),
    [
        (
            "llama",
            {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0, "original_max_position_embeddings": 32},
        ),
        (
            "phi3",
            {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "short_factor": [1.0] * 4,
                "long_factor": [4.0] * 4,
                "original_max_position_embeddings": 32,
            },
        ),
    ],
)
def test_positions_whose_meaning_depends_on_the_longest_row_are_not_used(name: str, rope: dict[str, Any]) -> None:
    """Below that length the numbers are those of plain passes; a row beyond it would change those beside it."""
    own = {"original_max_position_embeddings": 32} if name == "phi3" else {}  # it has the length in two places
    policy = Policy.of(tiny_model(name, rope_parameters=rope, **own), build_tokenizer())
    assert policy.positions == 32
    short = of_lengths(3, 16, 16)
    r = policy.sample(short, 2, torch.Generator().manual_seed(1), max_new_tokens=12)
    for i in range(len(r)):
        expected = plain(policy.model, short[r.prompt_of[i]], r.completions[i][r.mask[i]])
        assert float((r.logprobs[i][r.mask[i]] - expected).abs().max()) <= _CLOSE
    with pytest.raises(InputError, match="32 positions"):
        policy.sample(of_lengths(3, 30, 30), 1, torch.Generator(), max_new_tokens=12)
