"""Sampling in fixed shapes: the completions and log-probabilities of the other paths, nothing asked of the device on the way.

Graphs need CUDA: the tests marked so are skipped elsewhere, and what can be known of them without a GPU is tested here: that
buffers stay where they are, that nothing of a batch is left for the next, and when graphs are captured and forgotten.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from fstsim.llm.policy import static_decode
from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.rollouts import Rollouts
from fstsim.llm.policy.static_decode import Decoder, answer_seen, bucket, prompt_seen, takes_slots
from fstsim.llm.types import Problem

MakeModel = Callable[..., PreTrainedModel]
MakePolicy = Callable[..., Policy]

EACH_KIND = pytest.mark.parametrize("kind", ["qwen3", "llama"])
CLOSE = 1e-5  # as in test_policy
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def seeded(seed: int, device: str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def prompts_of(policy: Policy) -> list[list[int]]:
    """Prompts of three lengths."""
    shown = [("", "ABCDE"), ("reverse rotate", "HHAC"), ("next", "ABCDE")]
    return [policy.encode(context, Problem("strings", text, "")) for context, text in shown]


def fixed(policy: Policy, **changes: bool) -> Policy:
    return dataclasses.replace(policy, static=True, **changes)


def check_same(one: Rollouts, two: Rollouts) -> None:
    """The same completions, whatever columns nobody reached; log-probabilities of float32."""
    width = min(one.completions.shape[1], two.completions.shape[1])
    for r in (one, two):
        assert not r.mask[:, width:].any()
    assert torch.equal(one.prompt_of, two.prompt_of)
    assert torch.equal(one.prompts, two.prompts)
    assert torch.equal(one.mask[:, :width], two.mask[:, :width])
    assert torch.equal(one.completions[:, :width], two.completions[:, :width])
    assert float((one.logprobs[:, :width] - two.logprobs[:, :width]).abs().max()) <= CLOSE


@EACH_KIND
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_every_path_writes_the_same(make_policy: MakePolicy, kind: str, temperature: float, attention: str) -> None:
    """Tree, growing cache and fixed shapes from one seed: one uniform number a token decides on every path."""
    policy = make_policy(kind)
    policy.model.config._attn_implementation = attention
    policy = dataclasses.replace(policy, end_tokens=(2, 20, 21, 22, 23))
    paths = (policy, dataclasses.replace(policy, tree=False), fixed(policy))
    assert policy.tree
    assert not policy.static
    sampled = [
        path.sample(prompts_of(policy), [5, 1, 3], seeded(1), max_new_tokens=6, temperature=temperature)
        for path in paths
    ]
    lengths = sampled[0].mask.sum(1)
    assert temperature == 0.0 or int(lengths.min()) < int(lengths.max()), "some end before others"
    for one, two in pairwise(sampled):
        check_same(one, two)
    for path in paths:
        logp = path.logprobs(sampled[2]).detach()
        assert float((logp - sampled[2].logprobs).abs().max()) <= CLOSE


def test_scoring_with_given_masks_has_the_same_gradients(make_policy: MakePolicy) -> None:
    policy = make_policy()
    r = policy.sample(prompts_of(policy), [3, 1, 4], seeded(3), max_new_tokens=5)
    weight = torch.linspace(-1.0, 2.0, len(r))[:, None]
    found = []
    for path in (fixed(policy), dataclasses.replace(policy, share_prompts=False)):
        policy.model.zero_grad()
        (weight * path.logprobs(r)).sum().backward()
        found.append({name: p.grad.clone() for name, p in policy.model.named_parameters()})
    for name, gradient in found[1].items():
        assert float((found[0][name] - gradient).abs().max()) <= 1e-4 * float(gradient.abs().max()), name


def test_buffers_are_used_again_and_leave_no_trace(make_policy: MakePolicy) -> None:
    """Batches of one bucket in turn, larger and smaller: each as if it were alone, earlier results untouched, weights as they are now."""
    policy = fixed(make_policy())
    prompts = prompts_of(policy)
    batches = [(prompts, 2), (prompts[:1], 1), (prompts[1:], [4, 2]), (prompts, 2)]
    results = [policy.sample(p, n, seeded(k), max_new_tokens=5) for k, (p, n) in enumerate(batches)]
    kept = [copy.deepcopy(r) for r in results]
    assert len(policy._decoders.held) == 2, "prompts of at most 8 tokens, and longer ones"
    places = {k: d.slots.keys[0].data_ptr() for k, d in policy._decoders.held.items()}
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(1.1)
    changed = policy.sample(*batches[0], seeded(0), max_new_tokens=5)
    assert {k: d.slots.keys[0].data_ptr() for k, d in policy._decoders.held.items()} == places
    check_same(changed, dataclasses.replace(policy).sample(*batches[0], seeded(0), max_new_tokens=5))
    assert not torch.equal(changed.logprobs, kept[0].logprobs)
    for r, before in zip(results, kept, strict=True):
        assert torch.equal(r.completions, before.completions)
        assert torch.equal(r.logprobs, before.logprobs)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.div_(1.1)
    for k, (p, n) in enumerate(batches):
        check_same(kept[k], dataclasses.replace(policy).sample(p, n, seeded(k), max_new_tokens=5))


def test_what_a_broken_model_left_behind_is_not_seen(make_policy: MakePolicy) -> None:
    """Not a number in the weights, and then again one: hidden places of the cache must not hold what it wrote."""
    policy = fixed(make_policy())
    prompts, weight = prompts_of(policy), policy.model.model.layers[0].self_attn.v_proj.weight
    whole = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(torch.nan)
        broken = policy.sample(prompts, 2, seeded(0), max_new_tokens=5)
        weight.copy_(whole)
    assert not torch.isfinite(broken.logprobs[broken.mask]).any()
    assert int(broken.completions.min()) >= 0
    assert int(broken.completions.max()) < policy.model.config.vocab_size
    check_same(
        policy.sample(prompts, 2, seeded(0), max_new_tokens=5),
        dataclasses.replace(policy).sample(prompts, 2, seeded(0), max_new_tokens=5),
    )


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_nothing_is_asked_of_the_device(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerFast, attention: str
) -> None:
    """On the device that holds no numbers: no value can be read, and no tensor of another device may slip in.

    Sampling up to eight tokens, scoring and its backward pass go through; with more tokens the question whether all have
    ended is asked, and refused.
    """
    model = make_model()
    model.config._attn_implementation = attention
    policy = fixed(Policy.of(model, tokenizer))
    model.to("meta")  # what a policy tries at loading, it tries with numbers
    r = policy.sample(prompts_of(policy), [2, 1, 3], torch.Generator(), max_new_tokens=8)
    assert r.completions.shape == r.mask.shape == r.logprobs.shape == (6, 8)
    policy.logprobs(r).sum().backward()
    assert {p.grad.device.type for p in model.parameters() if p.grad is not None} == {"meta"}
    with pytest.raises(RuntimeError, match="meta"):
        policy.sample(prompts_of(policy), 2, torch.Generator(), max_new_tokens=9)


def test_it_stops_when_all_have_ended(make_policy: MakePolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked after every eighth token; rows that only fill a bucket do not count."""
    policy = fixed(dataclasses.replace(make_policy(), end_tokens=tuple(range(64))))
    advanced: list[int] = []
    real = Decoder.advance
    monkeypatch.setattr(Decoder, "advance", lambda self, model: (advanced.append(1), real(self, model))[1])
    r = policy.sample(prompts_of(policy), 1, seeded(0), max_new_tokens=30)
    assert r.mask.sum(1).tolist() == [1, 1, 1]
    assert len(advanced) == 7


def test_when_graphs_are_captured_and_forgotten(make_policy: MakePolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the second batch of a shape, replayed from then on; again when the weights lie elsewhere, as after `Module.to`."""
    policy, log = make_policy(), []

    def capture(
        first: Callable[[], None], following: Callable[[], None], follows: bool
    ) -> tuple[Callable[[], None], ...]:
        log.append("capture")
        assert follows
        return lambda: (log.append("first"), first())[1], lambda: (log.append("next"), following())[1]

    monkeypatch.setattr(static_decode, "_capture", capture)
    decoder = Decoder(static_decode.Shape(8, 8, 16, 3), (2,), 0, True, "cpu")
    tokens = torch.arange(24).reshape(2, 12)
    batch = (tokens, torch.ones_like(tokens, dtype=torch.bool), torch.tensor([0, 1, 1]), None, 1.0)

    def run() -> torch.Tensor:
        log.clear()
        decoder.load(*batch)
        with torch.no_grad():
            decoder.run(policy.model, graphs=True)
        return decoder.written.clone()

    written = run()
    assert log == []
    for expected in (["capture", "first", "next", "next"], ["first", "next", "next"]):
        assert torch.equal(run(), written)
        assert log == expected
    for parameter in policy.model.parameters():
        parameter.data = parameter.data.clone()
    for expected in ([], ["capture", "first", "next", "next"]):
        assert torch.equal(run(), written)
        assert log == expected


def test_caches_of_old_shapes_go_when_memory_is_short(make_policy: MakePolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = fixed(make_policy())
    prompts = prompts_of(policy)
    for new in (2, 3, 4):
        policy.sample(prompts, 1, seeded(0), max_new_tokens=new)
    sizes = [decoder.bytes for decoder in policy._decoders.held.values()]
    assert len(sizes) == 3
    policy.sample(prompts, 1, seeded(0), max_new_tokens=2)  # now the last one used
    monkeypatch.setattr(static_decode, "_KEPT_BYTES", sizes[0] + sizes[2])
    policy.sample(prompts, 1, seeded(0), max_new_tokens=4)
    assert [decoder.new for decoder in policy._decoders.held.values()] == [2, 4]
    monkeypatch.setattr(static_decode, "_KEPT_BYTES", 1)
    check_same(
        policy.sample(prompts, 1, seeded(0), max_new_tokens=5),
        make_policy().sample(prompts, 1, seeded(0), max_new_tokens=5),
    )
    assert [decoder.new for decoder in policy._decoders.held.values()] == [5]
    assert not dataclasses.replace(policy)._decoders.held, "a copy, perhaps with another model, has its own"


def test_bfloat16_rollouts_are_scored_as_the_learner_will(make_policy: MakePolicy) -> None:
    """Their log-probabilities are those of scoring in bfloat16, near those of float32, and gradients reach float32 weights."""
    policy = make_policy(initializer_range=0.1)
    half = fixed(policy, bfloat16=True)
    r = half.sample(prompts_of(policy), 4, seeded(2), max_new_tokens=5)
    assert r.logprobs.dtype == torch.float32
    logp = half.logprobs(r)
    assert float((logp.detach() - r.logprobs).abs().max()) <= CLOSE
    gap = float((policy.logprobs(r).detach() - r.logprobs).abs().max())
    assert CLOSE < gap < 0.1, "another precision, the same model"
    logp.sum().backward()
    assert {p.grad.dtype for p in policy.model.parameters()} == {torch.float32}
    assert all(bool(p.grad.abs().sum() > 0.0) for p in policy.model.parameters())


def test_weights_kept_in_bfloat16_while_sampling_are_the_policys_of_now(make_policy: MakePolicy) -> None:
    """Copies are cast once a call: an update between two calls is seen, as by a policy that never sampled before."""
    policy, fresh = (dataclasses.replace(make_policy(initializer_range=0.1), bfloat16=True) for _ in range(2))
    before = policy.sample(prompts_of(policy), 2, seeded(3), max_new_tokens=6)
    for each in (policy, fresh):
        with torch.no_grad():
            for weight in each.model.parameters():
                weight.mul_(-1.5)
    after = policy.sample(prompts_of(policy), 2, seeded(3), max_new_tokens=6)
    check_same(after, fresh.sample(prompts_of(fresh), 2, seeded(3), max_new_tokens=6))
    assert not torch.equal(before.logprobs, after.logprobs)


# --- parts -----------------------------------------------------------------------------------------------------------


@given(n=st.integers(1, 10**6))
def test_buckets_are_few_and_little_larger(n: int) -> None:
    assert n <= bucket(n) <= max(n + 7, 1.25 * n)
    assert bucket(bucket(n)) == bucket(n)
    assert bucket(n + 1) >= bucket(n)


def test_masks_in_full() -> None:
    """One pad, two tokens, two tokens after them; rows look at columns."""
    mask = torch.tensor([[False, True, True]])
    assert prompt_seen(mask)[0, 0].long().tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
    assert answer_seen(mask, 2)[0, 0].long().tolist() == [[0, 1, 1, 1, 0], [0, 1, 1, 1, 1]]


@EACH_KIND
def test_models_that_take_fixed_shapes(make_model: MakeModel, kind: str) -> None:
    """The usual ones do. One that ignores its mask, or counts positions by itself, is seen through."""
    model = make_model(kind)
    assert takes_slots(model)
    assert takes_slots(model.train())
    assert model.training
    real = model.forward
    model.forward = lambda *args, **kwargs: real(*args, **{**kwargs, "position_ids": None})  # type: ignore[method-assign]
    assert not takes_slots(model)
    model.forward = lambda *args, **kwargs: real(*args, **{**kwargs, "attention_mask": None})  # type: ignore[method-assign]
    assert not takes_slots(model)


# --- on a GPU --------------------------------------------------------------------------------------------------------


@needs_cuda
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_cuda_graphs_replay_what_the_plain_loop_does(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerFast, attention: str
) -> None:
    """Plain, captured and replayed, with weights changed in between: always what the growing cache gives from the same seed."""
    model = make_model()
    model.config._attn_implementation = attention
    policy = Policy.of(model.to("cuda"), tokenizer)
    assert policy.static
    grown = dataclasses.replace(policy, static=False)
    for k in range(4):
        for temperature in (1.0, 0.0):
            mine, theirs = (
                p.sample(prompts_of(p), 7, seeded(k, "cuda"), max_new_tokens=12, temperature=temperature)
                for p in (policy, grown)
            )
            check_same(mine, theirs)
            assert float((policy.logprobs(mine).detach() - mine.logprobs).abs().max()) <= CLOSE
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.02)
    assert all(decoder.replays is not None for decoder in policy._decoders.held.values())


@needs_cuda
def test_cuda_greedy_is_that_of_the_cpu(make_model: MakeModel, tokenizer: PreTrainedTokenizerFast) -> None:
    here, there = make_model(), make_model().to("cuda")
    one, two = (Policy.of(model, tokenizer) for model in (here, there))
    for _ in range(3):
        a = one.sample(prompts_of(one), 1, seeded(0), max_new_tokens=8, temperature=0.0)
        b = two.sample(prompts_of(two), 1, seeded(0, "cuda"), max_new_tokens=8, temperature=0.0)
        width = a.completions.shape[1]
        assert torch.equal(a.completions, b.completions[:, :width].cpu())
        assert float((a.logprobs - b.logprobs[:, :width].cpu()).abs().max()) <= 1e-4


@needs_cuda
def test_cuda_bfloat16_follows_the_weights(make_model: MakeModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Graphs cast the weights anew at each replay: a copy kept from the capture would go on giving the old numbers."""
    policy = dataclasses.replace(Policy.of(make_model(initializer_range=0.1).to("cuda"), tokenizer), bfloat16=True)
    for _ in range(4):
        r = policy.sample(prompts_of(policy), 8, seeded(1, "cuda"), max_new_tokens=6)
        plain = dataclasses.replace(policy).sample(prompts_of(policy), 8, seeded(1, "cuda"), max_new_tokens=6)
        assert torch.equal(r.completions, plain.completions)
        with torch.no_grad():
            for parameter in policy.model.parameters():
                parameter.mul_(1.2)
