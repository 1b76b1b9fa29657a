"""`FastSlowGRPOTrainer` against our own parts: prompts, advantages, loss, fast rounds, checkpoints."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_architectures import tiny_model
from tiny_trainers import NEW, fast_slow
from tokenizers import AddedToken
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from fstsim.errors import InputError
from fstsim.llm.contexts.prompt_evolution import PromptEvolution
from fstsim.llm.learners.losses import cispo_loss, group_advantages
from fstsim.llm.learners.weights import Weights
from fstsim.llm.policy.loading import load_model
from fstsim.llm.policy.policy import Policy
from fstsim.llm.tasks.parse import parse_task
from fstsim.llm.trl.models import lent_models
from fstsim.llm.types import Population
from fstsim.records import read_json

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("quiet_trainers")]
FAST = PromptEvolution(contexts=2, rollout_budget=48, validation=4, shown=3)
CONTEXTS = Population(("", "reverse", "next"))


def seen_batches(trainer: Any) -> list[tuple[dict[str, Any], float]]:
    """Inputs and losses of every micro-batch of ``trainer``, collected while it trains."""
    found = []
    real = trainer._compute_loss

    def noting(model: Any, inputs: dict[str, Any]) -> Any:
        loss = real(model, inputs)
        found.append(({k: v.clone() for k, v in inputs.items()}, float(loss)))
        return loss

    trainer._compute_loss = noting
    return found


def test_prompts_advantages_and_loss_are_those_of_our_loop(tmp_path: Path) -> None:
    model, tokenizer = load_model("base", "cpu", "float32")
    trainer = fast_slow(model, tokenizer, tmp_path / "run", CONTEXTS, max_steps=1, learning_rate=0.0)
    batches = seen_batches(trainer)
    trainer.train()
    ((inputs, loss),) = batches
    policy, task = Policy.of(model, tokenizer), parse_task(NEW)
    prompts = [row[m.bool()].tolist() for row, m in zip(inputs["prompt_ids"], inputs["prompt_mask"], strict=True)]
    wrote = [row[m.bool()].tolist() for row, m in zip(inputs["completion_ids"], inputs["completion_mask"], strict=True)]
    of = {
        tuple(policy.encode(context, problem)): (problem, context)
        for problem in task.problems("train")
        for context in CONTEXTS.prompts
    }
    pairs = [of[tuple(prompt)] for prompt in prompts]
    groups = sorted({problem.uid for problem, _ in pairs})
    assert len(groups) == 2
    shared = [sorted(c for p, c in pairs if p.uid == group) for group in groups]
    assert shared[0] == shared[1]
    assert set(shared[0]) == set(CONTEXTS.prompts)
    texts = tokenizer.batch_decode(wrote, skip_special_tokens=True)
    rewards = torch.tensor([task.score(p, text).reward for (p, _), text in zip(pairs, texts, strict=True)])
    assert 0.0 < float(rewards.mean()) < 1.0
    number = torch.tensor([groups.index(p.uid) for p, _ in pairs])
    advantages, _ = group_advantages(rewards, number)
    torch.testing.assert_close(inputs["advantages"], advantages, atol=1e-6, rtol=1e-6)
    rollouts = policy.forced(prompts, wrote)
    logp = policy.logprobs(rollouts)
    ours, _ = cispo_loss(logp, logp.detach(), advantages, rollouts.mask, 5.0)
    assert loss == pytest.approx(float(ours), abs=1e-6)
    assert loss != 0.0


def test_rounds_are_ours_and_a_resumed_training_goes_on_with_them(tmp_path: Path) -> None:
    runs = []
    for out in ("once", "twice"):
        model, tokenizer = load_model("base", "cpu", "float32")
        trainer = fast_slow(model, tokenizer, tmp_path / out, CONTEXTS, FAST, save_strategy="steps", save_steps=3)
        trainer.train(resume_from_checkpoint=str(tmp_path / "once/checkpoint-3") if out == "twice" else None)
        runs.append(trainer)
    assert [held["step"] for held in runs[0].rounds] == [0, 2]
    assert 0.0 < max(runs[0].population.scores) <= 1.0
    assert runs[0].population.prompts != CONTEXTS.prompts
    assert (runs[0].rounds, runs[0].population) == (runs[1].rounds, runs[1].population)
    assert read_json(tmp_path / "once/checkpoint-3/population.json")["rounds"] == runs[0].rounds
    policy = Policy.load("base")
    weights, rng = (
        Weights(policy, policy, torch.optim.SGD(policy.model.parameters())),
        np.random.default_rng((42, 1, 0)),
    )
    first, _ = FAST.step(weights, CONTEXTS, parse_task(NEW), rng)
    assert runs[0].args.seed == 42
    assert tuple(runs[0].rounds[0]["prompts"]) == first.prompts
    ends = [dict(run.model.named_parameters()) for run in runs]
    for key, value in ends[0].items():
        torch.testing.assert_close(value, ends[1][key], atol=1e-6, rtol=1e-5)
    assert any("fast_best" in row for row in runs[0].state.log_history)


class Echo:
    """A server of vLLM that writes the prompt's last token."""

    def generate(self, prompts: list[list[int]], n: int, **_: Any) -> dict[str, Any]:
        """As TRL's client."""
        wrote = [[prompt[-1]] for prompt in prompts for _ in range(n)]
        return {"prompt_ids": prompts, "completion_ids": wrote, "logprobs": [[[0.0]] for _ in wrote]}


def test_a_server_of_vllm_gets_every_prompt(
    make_model: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    from trl.generation.vllm_generation import VLLMGeneration

    trainer = fast_slow(make_model(), tokenizer, tmp_path, CONTEXTS)
    asked = object.__new__(VLLMGeneration)  # vLLM itself needs a GPU
    told = {name: getattr(trainer, name) for name in ("accelerator", "temperature", "top_p", "top_k", "min_p")}
    told |= {name: getattr(trainer, name) for name in ("repetition_penalty", "max_completion_length")}
    told |= {"mode": "server", "logprobs": 0, "structured_outputs_regex": None, "generation_kwargs": {}}
    vars(asked).update(told, vllm_client=Echo(), enable_sleep_mode=False)
    trainer.use_vllm, trainer.vllm_generation, trainer._last_loaded_step = True, asked, 0
    prompts = [[1, 2], [1, 3], [1, 4], [1, 4], [5, 6], [5, 7], [5, 8], [5, 8]]
    wrote, _ = trainer._generate_single_turn(prompts, None, {}, 4)
    assert wrote == [prompt[-1:] for prompt in prompts]


def test_settings_that_do_not_fit(
    make_model: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="got 'grpo' and 5"):
        fast_slow(make_model(), tokenizer, tmp_path, loss_type="grpo")
    with pytest.raises(InputError, match=r"got 'cispo' and 0\.2"):
        fast_slow(make_model(), tokenizer, tmp_path, epsilon_high=0.2)
    with pytest.raises(InputError, match="no checkpoint of fast-slow training"):
        fast_slow(make_model(), tokenizer, tmp_path)._load_optimizer_and_scheduler(str(tmp_path))
    with pytest.raises(InputError, match="leave reuse out"):
        fast_slow(make_model(), tokenizer, tmp_path, fast=PromptEvolution(reuse=True))


def test_a_completion_ends_and_is_read_as_in_our_loop(
    make_model: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """The template ends a turn with a token that neither config nor tokenizer call an end, and that is not flagged special."""
    end = next(t for t in tokenizer.get_vocab() if t not in tokenizer.all_special_tokens and t.isalpha())
    held = copy.deepcopy(tokenizer)
    held.add_tokens([AddedToken("<turn>", special=False)])
    held.chat_template = "{% for m in messages %}{{ m.content }} <turn>{% endfor %}"
    model = make_model(vocab_size=len(held))
    trainer = fast_slow(model, held, tmp_path / "run", CONTEXTS, max_steps=1, learning_rate=0.0)
    turn = held.convert_tokens_to_ids("<turn>")
    assert turn in trainer.eos_token_ids
    assert trainer.generation_config.eos_token_id == list(Policy.of(model, copy.deepcopy(held)).end_tokens)
    problem = trainer._problems[0]
    right = [*held(trainer._task.answer(problem), add_special_tokens=False)["input_ids"]]
    wrong = [*right, held.convert_tokens_to_ids(end)]
    rewards = trainer._reward(completion_ids=[[*right, turn], right, [*wrong, turn]], problem=[0, 0, 0])
    assert rewards[0] == rewards[1] == 1.0 > rewards[2]
    batches = seen_batches(trainer)
    trainer.train()
    for inputs, _ in batches:
        for row, mask in zip(inputs["completion_ids"], inputs["completion_mask"].bool(), strict=True):
            assert turn not in row[mask][:-1]


@pytest.mark.parametrize("name", ["bart", "roberta"])
def test_models_that_count_places_are_refused(name: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """TRL pads on the left."""
    with pytest.raises(InputError, match="counts the places of a row"):
        fast_slow(tiny_model(name), tokenizer, tmp_path)


def test_the_base_of_an_adapter_runs_as_the_policy_does(tokenizer: PreTrainedTokenizerFast) -> None:
    """Of Bart, in batches of one length: its numbers are those of plain passes without the adapter."""
    model = tiny_model("bart")
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)).eval()
    models = lent_models(adapted, tokenizer, None, 0)
    assert not models.base.padded
    prompts, answers = [[5, 6, 7], list(range(8, 20))], [[9, 2], [11, 12, 2]]
    with torch.no_grad():
        found = models.base.logprobs(models.base.forced(prompts, answers))
        for k, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            with adapted.disable_adapter():
                logits = model(torch.tensor([[*prompt, *answer]]), use_cache=False).logits[0, len(prompt) - 1 : -1]
            expected = torch.log_softmax(logits, -1).gather(-1, torch.tensor(answer)[:, None])[:, 0]
            assert torch.allclose(found[k][: len(answer)], expected, atol=1e-4)


def test_an_adapter_learns(tmp_path: Path) -> None:
    """Rounds switch nothing of it off."""
    model, tokenizer = load_model("base", "cpu", "float32")
    adapter = LoraConfig(r=2, target_modules=["q_proj"])
    trainer = fast_slow(model, tokenizer, tmp_path, CONTEXTS, FAST, adapter, max_steps=3)
    trainer.rounds.append({"step": 0})  # the first round may leave a context that is always right, and no signal
    trainer.train()
    assert trainer.rounds[-1]["step"] == 2
    learned = [w for name, w in trainer.model.named_parameters() if "lora_B" in name]
    assert all(float(w.abs().sum()) > 0.0 for w in learned)
    assert {w.requires_grad for w in learned} == {True}
