"""Our CISPO loss and group advantages against those of TRL's GRPOTrainer, on the same batch.

TRL gets our completions through its rollout function and does the rest itself: padding, old log-probabilities,
advantages, loss. Where the two differ on purpose, the factor between them is written out here.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from fstsim.llm.learners.losses import cispo_loss, group_advantages
from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.rollouts import Rollouts
from fstsim.llm.pretraining.tokenizer import build_tokenizer

trl = pytest.importorskip("trl")

# Their own: TRL still uses names that transformers gives up, and calls its rollout function experimental.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:You are using 'rollout_func':UserWarning")

GROUP = 6
RATIO_CAP = 1.25
TEMPERATURE = 0.7
PROMPTS = ("| AB =", "reverse | CDE =", "| ABCDEFGH =", "next > rotate | HG =", "| A =")
# a usual group, ties, a dead one whose mean is not a float, shares, and a dead one of zeros
REWARDS = ((1, 0, 0, 0, 0, 0), (1, 0, 1, 0, 1, 1), (0.1,) * 6, (0.2, 0.4, 0.4, 0.8, 1.0, 0.0), (0.0,) * 6)
DEAD = (2, 4)


@pytest.fixture(scope="module")
def policy() -> Policy:
    """Two layers with random weights, large enough for distributions far from uniform; some completions end early."""
    torch.manual_seed(5)
    tokenizer = build_tokenizer()
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=64,
        initializer_range=0.3,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return Policy.of(Qwen3ForCausalLM(config), tokenizer)


@pytest.fixture(scope="module")
def rollouts(policy: Policy) -> Rollouts:
    prompts = [policy.tokenizer(text)["input_ids"] for text in PROMPTS]
    generator = torch.Generator().manual_seed(11)
    sampled = policy.sample(prompts, GROUP, generator, max_new_tokens=6, temperature=TEMPERATURE)
    # these weights rarely write the end token: let every other completion end somewhere
    for i in range(0, len(sampled), 2):
        length = min(1 + i % 5, int(sampled.mask[i].sum()))
        sampled.completions[i, length - 1] = policy.tokenizer.eos_token_id
        sampled.completions[i, length:] = policy.tokenizer.pad_token_id
        sampled.mask[i, length:] = False
    with torch.no_grad():
        sampled.logprobs[:] = policy.logprobs(sampled)
    return sampled


def trainer_of(policy: Policy, rollouts: Rollouts, folder: Path, **options: Any) -> Any:
    """A GRPOTrainer that is given our completions, one row of its dataset a prompt."""
    from datasets import Dataset

    prompts = [row[m].tolist() for row, m in zip(rollouts.prompts, rollouts.prompt_mask, strict=True)]
    completions = [row[m].tolist() for row, m in zip(rollouts.completions, rollouts.mask, strict=True)]

    def given(_texts: list[str], _trainer: Any) -> dict[str, Any]:
        each = [prompts[p] for p in rollouts.prompt_of.tolist()]
        return {"prompt_ids": each, "completion_ids": completions, "logprobs": None}

    def reward(given_reward: list[float], **_rest: Any) -> list[float]:
        return given_reward

    arguments = trl.GRPOConfig(
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        per_device_train_batch_size=len(rollouts),
        gradient_accumulation_steps=1,
        num_generations=GROUP,
        num_iterations=2,  # with more than one TRL keeps the old log-probabilities
        max_completion_length=6,
        temperature=TEMPERATURE,
        loss_type="cispo",
        epsilon_high=RATIO_CAP,  # for this loss TRL's epsilon_high is the cap itself
        beta=0.0,
        **options,
    )
    trainer = trl.GRPOTrainer(
        copy.deepcopy(policy.model),  # TRL replaces its model's forward
        reward_funcs=reward,
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": text} for text in PROMPTS]),
        processing_class=policy.tokenizer,
        rollout_func=given,
    )
    trainer.current_gradient_accumulation_steps = 1  # the training loop would set it
    return trainer


def batch_of(trainer: Any) -> dict[str, torch.Tensor]:
    """TRL's own batch: padded tokens, masks, old log-probabilities, advantages."""
    flat = [r for group in REWARDS for r in group]
    rows = [{"prompt": PROMPTS[i // GROUP], "given_reward": r} for i, r in enumerate(flat)]
    trainer.model.train()
    return trainer._generate_and_score_completions(rows)


def gradient_of(model: torch.nn.Module, loss: torch.Tensor) -> torch.Tensor:
    model.zero_grad(set_to_none=True)
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.fixture
def groups() -> torch.Tensor:
    return torch.repeat_interleave(torch.arange(len(PROMPTS)), GROUP)


@pytest.fixture
def rewards() -> torch.Tensor:
    return torch.tensor(REWARDS).flatten()


def test_advantages(
    policy: Policy, rollouts: Rollouts, groups: torch.Tensor, rewards: torch.Tensor, tmp_path: Path
) -> None:
    """TRL divides by the standard deviation with Bessel's correction plus 1e-4, we by that of the population plus 1e-6."""
    theirs = batch_of(trainer_of(policy, rollouts, tmp_path, scale_rewards="group"))["advantages"]
    bessel = math.sqrt(GROUP / (GROUP - 1))
    ours, dead = group_advantages(rewards, groups, "normalised", epsilon=1e-4 / bessel)
    # (r - mean) / (bessel * spread + 1e-4) = (r - mean) / (spread + 1e-4 / bessel) / bessel, in every group
    torch.testing.assert_close(ours / bessel, theirs, rtol=1e-5, atol=1e-5)
    # with our own epsilon the factor alone is left; the smallest spread here is 0.35
    ours, _ = group_advantages(rewards, groups, "normalised")
    torch.testing.assert_close(ours / bessel, theirs, rtol=1e-4 / 0.35, atol=1e-5)
    assert dead.nonzero().flatten().tolist() == list(DEAD)
    # equal rewards whose mean rounds leave TRL an advantage of about 1e-8 / 1e-4; ours is 0 by comparison, not division
    assert not ours[dead[groups]].any()
    assert theirs[dead[groups]].abs().max() < 1e-3


def test_centred_advantages(
    policy: Policy, rollouts: Rollouts, groups: torch.Tensor, rewards: torch.Tensor, tmp_path: Path
) -> None:
    theirs = batch_of(trainer_of(policy, rollouts, tmp_path, scale_rewards="none"))["advantages"]
    ours, _ = group_advantages(rewards, groups, "centred")
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_cispo_loss_and_gradient(policy: Policy, rollouts: Rollouts, tmp_path: Path) -> None:
    """Value and gradient over six updates on one batch, from ratios of 1 to some beyond the cap."""
    trainer = trainer_of(policy, rollouts, tmp_path)
    batch = batch_of(trainer)
    assert torch.equal(batch["completion_ids"], rollouts.completions)
    assert torch.equal(batch["completion_mask"].bool(), rollouts.mask)
    old = torch.where(rollouts.mask, batch["old_per_token_logps"], 0.0)
    torch.testing.assert_close(rollouts.logprobs, old, rtol=1e-5, atol=1e-5)

    policy = dataclasses.replace(policy, model=copy.deepcopy(policy.model))
    optimizer = torch.optim.SGD(policy.model.parameters(), lr=0.05)
    shares, values = [], []
    for _ in range(6):
        trainer.model.load_state_dict(policy.model.state_dict())
        theirs = trainer.compute_loss(trainer.model, batch)
        their_gradient = gradient_of(trainer.model, theirs)
        ours, capped = cispo_loss(
            policy.logprobs(rollouts), rollouts.logprobs, batch["advantages"], rollouts.mask, RATIO_CAP
        )
        our_gradient = gradient_of(policy.model, ours)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
        assert torch.linalg.vector_norm(our_gradient - their_gradient) <= 1e-5 * torch.linalg.vector_norm(
            their_gradient
        )
        shares.append(float(capped))
        values.append(float(ours.detach()))
        optimizer.step()
    assert shares[0] == 0.0  # ratios of 1
    assert 0.1 < max(shares) < 0.9  # the cap bites on some tokens and leaves others
    assert len({round(v, 4) for v in values}) == len(values)
