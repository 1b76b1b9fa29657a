"""`fstsim pretrain`: a base model from random weights, from the world alone, or a training that goes on from one.

The recipe: a Qwen3-type decoder, loss on what is to be written only, Muon on the matrices and AdamW on embeddings and
norms, warm-up and linear decay. Resumable: a checkpoint holds
weights, optimizer state and step, and the data of a step are a function of seed and step. On CUDA attention is the fused
kernel, the data of the next step are made while the device computes, and a step synchronises once.

Preset medium has not been trained to its end yet: its sizes, memory and resuming are tested on a CPU, its learning rates
are not. Nothing in this file has been run on a GPU.
"""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from fstsim.errors import InputError
from fstsim.llm.policy.loading import load_model
from fstsim.llm.pretraining.card import model_card
from fstsim.llm.pretraining.config import POSITIONS, PretrainConfig, recorded
from fstsim.llm.pretraining.corpus import Batch, training_batches
from fstsim.llm.pretraining.exam import Exam
from fstsim.llm.pretraining.muon import Float32Muon
from fstsim.llm.pretraining.scratch_exam import ScratchExam
from fstsim.llm.pretraining.tokenizer import build_tokenizer
from fstsim.llm.runs.checkpoint import (
    pack_optimizer,
    put_weights,
    read_checkpoint,
    unpack_optimizer,
    weights_of,
    write_checkpoint,
)
from fstsim.llm.tasks.families import FAMILIES
from fstsim.llm.tasks.rules import SIZES
from fstsim.reading import check_object, check_rows, is_there, understood
from fstsim.records import (
    check_directory,
    claimed_directory,
    environment,
    keep_text,
    read_json,
    read_rows,
    row_line,
    write_text,
)

_WARM_UP = 50
_DECAY = 0.6  # share of the steps over which the learning rate falls
_FLOOR = 0.02
_MADE: Mapping[str, type | tuple[type, ...]] = {
    "commit": (str, type(None)),
    "cores": (int, type(None)),
    "device": str,
    "versions": dict,
}
"""What the model card says of environment.json."""


def new_model(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """A Qwen3 causal LM with random weights, or those of ``config.start``, float32; InputError if these are of another shape."""
    torch.manual_seed(config.seed)
    architecture = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=config.width,
        intermediate_size=3 * config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.width // 32,
        num_key_value_heads=config.width // 32,
        head_dim=32,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    # plain attention: at these lengths several times faster on a CPU in bfloat16 than the fused kernel
    architecture._attn_implementation = "eager"
    model = Qwen3ForCausalLM(architecture)
    if config.start:
        given, _ = load_model(config.start, "cpu", "float32")
        try:
            model.load_state_dict(given.state_dict())
        except RuntimeError as error:
            raise InputError(
                f"{config.start} is no model of {config.layers} layers of width {config.width} with {len(tokenizer)} tokens: "
                "a training goes on from a model that has its shape"
            ) from error
    return model


def _optimizers(model: torch.nn.Module, config: PretrainConfig) -> tuple[torch.optim.Optimizer, ...]:
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    rest = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    kind = Float32Muon if config.precision == "float32" else torch.optim.Muon
    return (
        kind(matrices, lr=config.lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=config.lr_rest, betas=(0.9, 0.98), weight_decay=0.0),
    )


def _schedule(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / _WARM_UP) * min(1.0, max(_FLOOR, (steps - step) / (_DECAY * steps)))


def _update(
    model: torch.nn.Module,
    optimizers: tuple[torch.optim.Optimizer, ...],
    config: PretrainConfig,
    step: int,
    batches: list[Batch] | None = None,
) -> float:
    """One update of all families on the step's batches; returns the mean loss of a written token, nats."""
    device = next(model.parameters()).device
    if batches is None:
        batches = training_batches(config.corpus, config.seed, step, step / config.steps)
    written = sum(int((labels >= 0).sum()) for _, labels in batches)
    total = torch.zeros((), dtype=torch.float64, device=device)
    for tokens, labels in batches:
        places = (labels.flatten() >= 0).nonzero()[:, 0]  # found on the CPU: on a device it would synchronise
        wanted = labels.flatten()[places].to(device, non_blocking=True)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.precision == "bfloat16"):
            logits = model(tokens.to(device, non_blocking=True), use_cache=False).logits
        picked = logits.flatten(0, 1)[places.to(device, non_blocking=True)]
        loss = F.cross_entropy(picked.float(), wanted, reduction="sum") / written
        loss.backward()
        total += loss.detach()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    value = (total + 0.0 * norm).item()  # nan as well where only the gradient is not finite
    if not math.isfinite(value):
        return value
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * _schedule(step, config.steps)
        optimizer.step()
        optimizer.zero_grad()
    return value


def _batches(config: PretrainConfig, first: int, ahead: bool) -> Iterator[list[Batch]]:
    """The batches of step ``first`` and all after it; ``ahead``: the next are made in a thread while these are used."""

    def make(step: int) -> list[Batch]:
        return training_batches(config.corpus, config.seed, step, step / config.steps)

    if not ahead:
        yield from map(make, range(first, config.steps))
        return
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(make, first)
        for step in range(first, config.steps):
            now = coming.result()
            if step + 1 < config.steps:
                coming = pool.submit(make, step + 1)
            yield now


def _check_precision(config: PretrainConfig, device: torch.device) -> None:
    if config.precision == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(False):
        raise InputError(f"{device} cannot compute in bfloat16: use --precision float32")


def _exams(
    config: PretrainConfig, tokenizer: PreTrainedTokenizerFast
) -> list[tuple[Mapping[str, int], Exam | ScratchExam]]:
    """One exam for each size of the world, the largest first; then that of chains, where there are some in the corpus."""
    exams: list[tuple[Mapping[str, int], Exam | ScratchExam]] = [*_old_exams(config, tokenizer)]
    if config.corpus.scratch:
        exams.append(({}, ScratchExam.of(tokenizer, config.corpus.worlds()[0])))
    return exams


def _old_exams(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast) -> list[tuple[Mapping[str, int], Exam]]:
    if config.corpus.sizes is None and config.corpus.depths is None:
        return [(SIZES, Exam.of_world(tokenizer, None))]
    worlds = config.corpus.worlds()
    return [(sizes, Exam.of_world(tokenizer, sizes, depth=max(config.corpus.shares))) for sizes in worlds]


def _sit(exams: list[tuple[Mapping[str, int], Exam | ScratchExam]], model: torch.nn.Module) -> dict[str, float]:
    """Results of all exams: ``accuracy_strings_1`` at the largest size, ``accuracy_strings@8_1`` at another."""
    found = exams[0][1].sit(model)
    for sizes, exam in exams[1:]:
        if isinstance(exam, ScratchExam):
            found |= exam.sit(model)
            continue
        for name, value in exam.sit(model).items():
            for family, size in sizes.items():
                if family in name:
                    found[name.replace(family, f"{family}@{size}")] = value
    return found


def pretrain(
    config: PretrainConfig,
    out: Path,
    *,
    device: str = "cpu",
    every: int = 100,
    progress: Callable[[int, str], None] | None = None,
) -> dict[str, Any]:
    """Train, or go on training, the model in directory ``out``; returns its last row of measurements.

    ``out`` gets config.json (of the model), model.safetensors, tokenizer.json, README.md (the model card),
    pretrain.json, environment.json, metrics.jsonl, and checkpoint.safetensors while it is not finished.
    Errors: InputError if ``out`` holds another model.
    """
    place = torch.device(device)
    _check_precision(config, place)
    wanted = recorded(config)
    check_directory(out, wanted, "model", name="pretrain.json")
    if (out / "model.safetensors").exists() and not (out / "checkpoint.safetensors").exists():
        return check_rows(out / "metrics.jsonl", read_rows(out / "metrics.jsonl"), ("loss",))[-1]
    with claimed_directory(out, wanted, environment(config.seed, device), "model", name="pretrain.json"):
        return _train(config, out, place, every, progress)


def _train(
    config: PretrainConfig, out: Path, place: torch.device, every: int, progress: Callable[[int, str], None] | None
) -> dict[str, Any]:
    made = check_object(out / "environment.json", read_json(out / "environment.json"), _MADE)
    tokenizer = build_tokenizer()
    model = new_model(config, tokenizer)
    model.to(place)  # type: ignore[arg-type]  # the stub of a decorated method
    if place.type != "cpu":
        model.config._attn_implementation = "sdpa"
    optimizers = _optimizers(model, config)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    step, rows, seconds = 0, [], 0.0
    if is_there(out / "checkpoint.safetensors"):
        tensors, meta = read_checkpoint(out / "checkpoint.safetensors")
        with understood(out / "checkpoint.safetensors"):
            put_weights(model, tensors, out / "checkpoint.safetensors")
            for k, optimizer in enumerate(optimizers):
                unpack_optimizer(optimizer, f"optimizer{k}", tensors, meta["optimizers"][k])
            rows = check_rows(out / "checkpoint.safetensors", meta["rows"], ("loss", "seconds"))
            step, seconds = operator.index(meta["step"]), float(meta["seconds"])
            if not step == rows[-1]["step"] <= config.steps:
                raise ValueError(f"it is of step {step}, its last row of {rows[-1]['step']}")
        keep_text(out / "metrics.jsonl", "".join(map(row_line, rows)))  # killed between the checkpoint and its rows
    exams = _exams(config, tokenizer)
    started, note = time.monotonic() - seconds, ""
    for batches in _batches(config, step, place.type != "cpu"):
        loss = _update(model, optimizers, config, step, batches)
        step += 1
        if not math.isfinite(loss):  # this update has not been made
            raise InputError(
                f"loss or gradient of step {step} (seed {config.seed}) is not finite: lower learning rates, in another --out"
            )
        if step % every == 0 or step == config.steps:
            skills = _sit(exams, model)
            seconds = time.monotonic() - started
            rows.append({"step": step, "loss": loss, "seconds": seconds, **skills})
            note = f"loss {loss:.3f}, " + " ".join(
                f"{name[:4]} {skills[f'accuracy_{name}_1']:.2f}" for name in FAMILIES
            )
            packed = [pack_optimizer(optimizer, f"optimizer{k}") for k, optimizer in enumerate(optimizers)]
            tensors = dict(weights_of(model))
            for more, _ in packed:
                tensors |= more
            meta = {"step": step, "rows": rows, "seconds": seconds, "optimizers": [rest for _, rest in packed]}
            write_checkpoint(out / "checkpoint.safetensors", tensors, meta)
            write_text(out / "metrics.jsonl", "".join(map(row_line, rows)))
        if progress is not None:
            progress(step, note)
    model.config._attn_implementation = "sdpa"
    if config.corpus.sizes is not None:
        model.config.world_sizes = config.corpus.worlds()[0]  # what `Policy.sizes` reads
    model.config.world_words = [word for family in FAMILIES.values() for word in family.rules]  # and `Policy.words`
    model.to(torch.device("cpu"))  # type: ignore[arg-type]  # as above
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    write_text(out / "README.md", model_card(config, rows[-1], made, model))
    (out / "checkpoint.safetensors").unlink()
    return rows[-1]
