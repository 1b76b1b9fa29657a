"""Adapters: the policy with its adapter is a plain model with other weights, and its base is untouched; less memory, same gradients."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from tiny_architectures import tiny_model

from fstsim.errors import InputError
from fstsim.llm.learners.losses import sft_loss
from fstsim.llm.learners.shadow import ShadowedWeights
from fstsim.llm.learners.weights import Weights
from fstsim.llm.policy.adapters import check_adapter, own_weights, with_adapter, with_checkpointing
from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.rollouts import Rollouts, token_logprobs
from fstsim.llm.policy.running import recomputed
from fstsim.llm.pretraining.tokenizer import build_tokenizer
from fstsim.llm.types import Problem

MakePolicy = Callable[..., Policy]
PATHS = [{}, {"tree": False}, {"tree": False, "share_prompts": False}]


def rollouts(policy: Policy) -> Rollouts:
    prompts = [policy.encode("", Problem("strings", text, "")) for text in ("A B C", "B D", "C A")]
    return policy.sample(prompts, 3, torch.Generator().manual_seed(0), max_new_tokens=5)


@torch.no_grad()
@pytest.mark.parametrize("path", PATHS, ids=["tree", "groups", "rows"])
def test_an_adapter_of_full_rank_is_any_change_of_the_weights(make_policy: MakePolicy, path: dict[str, bool]) -> None:
    """Set to the difference of two models it makes one the other; switched off, the first is there to the bit."""
    pytest.importorskip("peft")
    policy, other = make_policy("llama"), make_policy("llama", seed=1)
    other.model.model.embed_tokens.weight.data.copy_(policy.model.model.embed_tokens.weight)
    other.model.lm_head.weight.data.copy_(policy.model.lm_head.weight)
    policy.model.requires_grad_(
        False
    )  # as an adapter makes it: torch multiplies what wants a gradient in another order
    original = copy.deepcopy(policy.model)
    r = rollouts(policy)
    before = replace(policy, **path).logits(r)
    trained, base = with_adapter(replace(policy, **path), "lora:r=48,alpha=48", seed=3)
    assert torch.equal(trained.logits(r), before), "a new one changes nothing"
    theirs = dict(other.model.named_modules())
    for name, module in policy.model.named_modules():
        if hasattr(module, "lora_A"):
            gap = theirs[name].weight - module.base_layer.weight
            left, values, right = torch.linalg.svd(gap.double(), full_matrices=False)
            rank = len(values)
            a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
            a.zero_()[:rank] = right.float()
            b.zero_()[:, :rank] = (left * values).float()
    torch.testing.assert_close(trained.logits(r), other.logits(r), rtol=1e-4, atol=1e-4)
    assert torch.equal(base.logits(r), before)
    assert not torch.allclose(trained.logits(r), before, atol=0.1)
    for name, weight in original.named_parameters():
        held = dict(policy.model.named_parameters())
        assert torch.equal(weight, held.get(name, held.get(name.replace(".weight", ".base_layer.weight")))), name  # type: ignore[arg-type]


def test_only_the_adapter_is_trained_and_the_shadow_follows(make_policy: MakePolicy) -> None:
    pytest.importorskip("peft")
    policy, base = with_adapter(make_policy("llama"), "lora:r=2,targets=q_proj+v_proj", seed=0)
    own = own_weights(policy)
    assert len(own) == 2 * 2 * 2
    assert own_weights(base).keys().isdisjoint(own)
    r = rollouts(policy)
    before = base.logits(r).detach()
    weights = ShadowedWeights.start(Weights(policy, base, torch.optim.SGD(own.values(), lr=1.0)))
    for _ in range(2):
        sft_loss(weights.policy.logprobs(r), r.mask).backward()
        weights.base.logits(r)  # switching between forward and backward, as leashes do, changes no gradient
        weights.apply("test")
    assert torch.equal(weights.base.logits(r), before)
    assert torch.equal(weights.shadow.logits(r), before)
    now = weights.policy.logits(r).detach()
    assert not torch.allclose(now, before, atol=1e-3)
    weights.follow(1.0)
    assert torch.equal(weights.shadow.logits(r), now)
    assert [name for name, p in policy.model.named_parameters() if p.requires_grad] == [
        name for name, _ in policy.model.named_parameters() if ".default." in name
    ]


@pytest.mark.parametrize("kind", ["qwen3", "llama"])
@pytest.mark.parametrize("path", PATHS, ids=["tree", "groups", "rows"])
@pytest.mark.parametrize("adapter", ["", "lora:r=4"])
def test_gradients_of_activations_computed_twice(
    make_policy: MakePolicy, kind: str, path: dict[str, bool], adapter: str
) -> None:
    """The same gradients, fewer numbers held, and sampling afterwards is what it was."""
    policy = replace(make_policy(kind), **path)
    if adapter:
        pytest.importorskip("peft")
        policy, _ = with_adapter(policy, adapter, seed=0)
    r = rollouts(policy)

    def gradients(of: Policy) -> tuple[dict[str, torch.Tensor], int]:
        sizes = [0]

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            sizes[0] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = sft_loss(token_logprobs(of.logits(r), r), r.mask)
        loss.backward()
        found = {n: p.grad.clone() for n, p in of.model.named_parameters() if p.grad is not None}
        of.model.zero_grad()
        return found, sizes[0]

    (plain, held), (again, less) = gradients(policy), gradients(with_checkpointing(policy))
    assert plain.keys() == again.keys()
    for name, gradient in plain.items():
        # a model that runs groups has rows there, which are summed in another order
        torch.testing.assert_close(again[name], gradient, rtol=1e-5, atol=1e-6 if path != PATHS[1] else 5e-6)
    assert less < held
    sampled = rollouts(with_checkpointing(policy))
    assert torch.equal(sampled.completions, r.completions)
    assert not policy.model.training
    with recomputed(policy.model):
        assert not policy.model.training
    assert not any(module.training for module in policy.model.modules())


@pytest.mark.parametrize(
    ("name", "dropout"),
    [
        ("opt", ("dropout", "layerdrop")),
        ("bart", ("dropout", "decoder_layerdrop")),
        ("falcon", ("hidden_dropout", "attention_dropout")),
        ("starcoder2", ("residual_dropout", "attention_dropout")),
        ("gpt2", ("resid_pdrop", "attn_pdrop")),
    ],
)
@pytest.mark.parametrize("path", PATHS, ids=["tree", "groups", "rows"])
def test_nothing_is_dropped_out_where_activations_are_computed_twice(
    name: str, dropout: tuple[str, ...], path: dict[str, bool]
) -> None:
    """Layers that drop out by themselves, or are left out at random, are asked for training mode to be computed again."""
    model = tiny_model(name, **dict.fromkeys(dropout, 0.5)).train()
    policy = Policy.of(model, build_tokenizer())
    policy = replace(policy, **(path if policy.tree else {}))
    generator = torch.Generator().manual_seed(0)
    r = policy.sample([[3, 9, 4], [7, 5, 8]], 3, generator, max_new_tokens=5)

    def gradients(of: Policy) -> dict[str, torch.Tensor]:
        of.model.zero_grad()
        sft_loss(of.logprobs(r), r.mask).backward()
        return {key: each.grad.clone() for key, each in of.model.named_parameters() if each.grad is not None}

    plain, again = gradients(policy), gradients(with_checkpointing(policy))
    largest = max(float(each.abs().max()) for each in plain.values())
    assert plain.keys() == again.keys()
    for key, gradient in plain.items():
        torch.testing.assert_close(again[key], gradient, rtol=1e-4, atol=1e-5 * largest)
    assert not any(module.training for module in model.modules())


def test_a_model_without_layers_that_can_be_computed_twice(
    make_policy: MakePolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fstsim.llm.policy.adapters.recomputable", lambda _: [])
    with pytest.raises(InputError, match="cannot do it"):
        with_checkpointing(make_policy("llama"))


def test_without_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match=r"--adapter needs the package peft: pip install 'fstsim\[adapters\]'"):
        check_adapter("lora:r=4")


def test_targets_that_are_not_there(make_policy: MakePolicy) -> None:
    pytest.importorskip("peft")
    with pytest.raises(InputError, match="does not fit the model") as caught:
        with_adapter(make_policy(), "lora:r=4,targets=nonsense", seed=0)
    assert "\n" not in str(caught.value)
