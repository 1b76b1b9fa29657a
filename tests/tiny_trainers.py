"""Real trainers on a tiny model with dropout, so that a number drawn too much or too little changes every later step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import LoraConfig
from transformers import PreTrainedModel, PreTrainedTokenizerFast, Trainer, TrainingArguments
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer
from trl.experimental.sdft import SDFTConfig, SDFTTrainer

from fstsim.llm.tasks.parse import parse_task
from fstsim.llm.tasks.rules import RuleTask

NEW, OLD = "strings:reverse", "digits:negate"
STEPS = 4
Callbacks = list[Any]
Make = Callable[[PreTrainedModel, PreTrainedTokenizerFast, Path, Callbacks, Any], Trainer]


def common(out: Path, **more: Any) -> dict[str, Any]:
    return {
        "output_dir": str(out),
        "use_cpu": True,
        "bf16": False,
        "max_steps": STEPS,
        "per_device_train_batch_size": 4,
        "learning_rate": 3e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        **more,
    }


def problems() -> tuple[RuleTask, list[Any]]:
    task: Any = parse_task(NEW)
    return task, list(task.problems("train"))[:24]


def sft(model: Any, tokenizer: Any, out: Path, callbacks: Callbacks, adapter: Any = None, **more: Any) -> Trainer:
    task, train = problems()
    rows = [{"prompt": f"| {p.text} =", "completion": f" {task.answer(p)}"} for p in train]
    return SFTTrainer(
        model,
        args=SFTConfig(**common(out, gradient_checkpointing=False, **more)),
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(rows[:4]) if "eval_strategy" in more else None,
        processing_class=tokenizer,
        callbacks=callbacks,
        peft_config=adapter,
    )


def dpo(model: Any, tokenizer: Any, out: Path, callbacks: Callbacks, adapter: Any = None, **more: Any) -> Trainer:
    task, train = problems()
    rows = [
        {"prompt": f"| {p.text} =", "chosen": f" {task.answer(p)}", "rejected": f" {task.old_answer(p)}"} for p in train
    ]
    return DPOTrainer(
        model,
        args=DPOConfig(**common(out, gradient_checkpointing=False, **more)),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=callbacks,
        peft_config=adapter,
    )


def grpo(model: Any, tokenizer: Any, out: Path, callbacks: Callbacks, adapter: Any = None, **more: Any) -> Trainer:
    """At beta = 0: no reference model is loaded and TRL logs no KL."""
    _, train = problems()

    def vowels(completions: list[str], **_: Any) -> list[float]:
        return [float(sum(c in "AEIOU" for c in text)) for text in completions]

    settings = {"num_generations": 4, "max_completion_length": 6, "beta": 0.0, **more}
    return GRPOTrainer(
        model,
        reward_funcs=vowels,
        args=GRPOConfig(**common(out, gradient_checkpointing=False, **settings)),
        train_dataset=Dataset.from_list([{"prompt": f"| {p.text} ="} for p in train]),
        processing_class=tokenizer,
        callbacks=callbacks,
        peft_config=adapter,
    )


def sdft(model: Any, tokenizer: Any, out: Path, callbacks: Callbacks, adapter: Any = None, **more: Any) -> Trainer:
    task, train = problems()
    rows = [{"prompt": f"| {p.text} =", "privileged_context": task.answer(p)} for p in train]
    settings = {"num_generations": 2, "max_completion_length": 6, "distillation_topk": 8, **more}
    return SDFTTrainer(
        model,
        args=SDFTConfig(**common(out, gradient_checkpointing=False, **settings)),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=callbacks,
        peft_config=adapter,
    )


def plain(model: Any, tokenizer: Any, out: Path, callbacks: Callbacks, adapter: Any = None, **more: Any) -> Trainer:
    """transformers' own Trainer."""
    assert adapter is None
    task, train = problems()
    rows = []
    for p in train:
        tokens = tokenizer(f"| {p.text} = {task.answer(p)}")["input_ids"]
        rows.append({"input_ids": tokens, "labels": tokens, "attention_mask": [1] * len(tokens)})
    return Trainer(
        model,
        args=TrainingArguments(**common(out, **more)),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=callbacks,
    )


def lora(**changes: Any) -> LoraConfig:
    return LoraConfig(**{"r": 2, "lora_dropout": 0.1, "target_modules": ["q_proj", "v_proj", "down_proj"], **changes})


TRAINERS: dict[str, Any] = {"plain": plain, "sft": sft, "dpo": dpo, "grpo": grpo, "sdft": sdft}


def fast_slow(
    model: Any, tokenizer: Any, out: Path, population: Any = None, fast: Any = None, adapter: Any = None, **more: Any
) -> Any:
    """`FastSlowGRPOTrainer` on 2 problems x 4 rollouts a step, a fast round before every second."""
    from fstsim.llm.trl.fast_slow import FastSlowGRPOTrainer

    settings = {"num_generations": 4, "max_completion_length": 6, "loss_type": "cispo", "epsilon_high": 5.0}
    settings |= {"per_device_train_batch_size": 8, "gradient_checkpointing": False, **more}
    return FastSlowGRPOTrainer(
        model,
        parse_task(NEW),
        GRPOConfig(**common(out, **settings)),
        processing_class=tokenizer,
        fast=fast,
        every=2,
        population=population,
        peft_config=adapter,
    )
