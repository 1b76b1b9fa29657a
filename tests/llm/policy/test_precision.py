"""Training in bfloat16: activations of the learner's passes and nothing else; what is measured and kept is float32."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel, Qwen3ForCausalLM

import fstsim.llm.runs.run as train_run
from fstsim.__main__ import main
from fstsim.errors import InputError
from fstsim.llm.contexts.prompt_evolution import PromptEvolution
from fstsim.llm.learners.losses import group_advantages
from fstsim.llm.learners.mixture import MixtureDistillation
from fstsim.llm.learners.oapl import OAPL
from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.learners.sdft import SDFT
from fstsim.llm.learners.sft import SupervisedFineTuning
from fstsim.llm.learners.weights import Weights
from fstsim.llm.policy.loading import shipped_path
from fstsim.llm.policy.policy import Policy
from fstsim.llm.pretraining.tokenizer import build_tokenizer
from fstsim.llm.runs.checkpoint import read_checkpoint
from fstsim.llm.runs.config import METHODS, PRESETS, TrainConfig
from fstsim.llm.runs.probes import Probe, ProbeConfig
from fstsim.llm.runs.relearning import relearn_steps
from fstsim.llm.runs.run import run_training
from fstsim.llm.tasks.parse import parse_task
from fstsim.llm.types import Population
from fstsim.records import check_directory, read_json, read_rows

MakeModel = Callable[..., PreTrainedModel]

ROOT = Path(__file__).resolve().parents[3]
RECORDED = sorted((ROOT / "paper" / "data").glob("*/runs/*/seed-*/config.json"))


@pytest.fixture(scope="module")
def model(make_model: MakeModel, tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("model")
    make_model(num_hidden_layers=1, max_position_embeddings=80, initializer_range=0.1).save_pretrained(place)
    build_tokenizer().save_pretrained(place)
    return str(place)


@pytest.fixture(autouse=True)
def _short_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relearning probe of three steps in place of sixty, and few problems: probes are tested on their own."""
    monkeypatch.setattr(train_run, "relearn_steps", functools.partial(relearn_steps, most=3, batch=4))
    probe = ProbeConfig(every=10, problems=6, exam=2)
    monkeypatch.setitem(PRESETS, "smoke", replace(PRESETS["smoke"], probe=probe))


def short(method: str, model: str, **changes: Any) -> TrainConfig:
    """Four steps in bfloat16, measured after 1, 2 and 4; rounds of the fast channel before steps 1 and 3."""
    changes = {"tasks": ("strings:next/share",), "steps": 4, "lr": 3e-3, **changes}
    if method in LEARNER:
        changes = {"learner": LEARNER[method], **changes}
    if METHODS[method].evolves:
        fast = PromptEvolution(contexts=2, rollout_budget=24, validation=4, shown=4, reuse=True)
        changes = {"fast": fast, "slow_steps_per_round": 2, **changes}
    changes = {"precision": "bfloat16", "probe": ProbeConfig(every=4, problems=3, exam=1), **changes}
    return TrainConfig(method=method, model=model, **changes)


MOSTLY_SLOW = ["fst", *(pytest.param(method, marks=pytest.mark.slow) for method in ("rl", "sdft"))]
LEARNER: dict[str, Any] = {
    "rl": PolicyGradient(problems=3, rollouts=4, leash_reward=0.01, leash_loss=0.01),
    "fst": PolicyGradient(problems=3, rollouts=4, leash_reward=0.01, leash_loss=0.01),
    "sft": SupervisedFineTuning(problems=4),
    "sdft": SDFT(problems=4, ema_rate=0.3, teacher_share=0.7),
    "oapl": OAPL(problems=3, rollouts=4, period=3, lagged_share=0.9),
    "mixture": MixtureDistillation(problems=4),
}


@pytest.mark.slow
@pytest.mark.skipif(not list(shipped_path().glob("*.safetensors")), reason="no base model is shipped yet")
def test_the_shipped_base_learns_in_bfloat16(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the command line, beside the same run in float32: the same start exactly, another way, the same lesson."""
    for precision in ("float32", "bfloat16"):
        flags = f"train --task digits:plus --preset smoke --steps 8 --seeds 1 --precision {precision} --out"
        assert main([*flags.split(), str(tmp_path / precision)]) == 0
        assert f"from base in {precision}, 8 steps" in " ".join(capsys.readouterr().out.split())
    whole, half = (read_rows(tmp_path / p / "seed-0" / "metrics.jsonl") for p in ("float32", "bfloat16"))
    assert half[0] == whole[0]
    assert half[0]["kl_to_base"] == half[0]["kl_from_base"] == half[0]["drift"] == 0.0
    assert half[1]["loss"] != whole[1]["loss"], "the option does something"
    assert half[1]["loss"] == pytest.approx(whole[1]["loss"], abs=0.02)
    for rows in (whole, half):
        assert all(math.isfinite(row["loss"]) for row in rows[1:])
        assert rows[-1]["reward"] > rows[0]["reward"] + 0.3
        assert rows[-1]["old_mass"] < 0.5 * rows[0]["old_mass"]


@pytest.mark.parametrize(
    "method",
    [
        "fst",
        "sdft",
        *(pytest.param(method, marks=pytest.mark.slow) for method in ("rl", "sft", "gepa", "oapl", "mixture")),
    ],
)
def test_the_learner_computes_in_bfloat16_and_the_probes_in_float32(
    method: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen at the model itself: every pass after the first measurement, of policy, base and shadow alike."""
    inside, measured = False, 0
    seen: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
    models: set[int] = set()
    forward, measure, relearn = Qwen3ForCausalLM.forward, Probe.measure, train_run.relearn_steps

    def watched(self: Qwen3ForCausalLM, *args: Any, **kwargs: Any) -> Any:
        out = forward(self, *args, **kwargs)
        if measured:  # what is before it checks the model and the contexts
            seen[inside].add(out.logits.dtype)
            if not inside:
                models.add(id(self))
        return out

    def probing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal inside, measured
            inside, measured = True, measured + 1
            found = real(*args, **kwargs)
            inside = False
            return found

        return call

    monkeypatch.setattr(Qwen3ForCausalLM, "forward", watched)
    monkeypatch.setattr(Probe, "measure", probing(measure))
    monkeypatch.setattr(train_run, "relearn_steps", probing(relearn))
    rows = run_training(short(method, model), tmp_path / "run")
    assert seen == {True: {torch.float32}, False: {torch.bfloat16}}
    assert measured == 6, "four measurements, two of relearning"
    assert len(models) == {"sft": 1, "gepa": 1, "sdft": 3, "oapl": 3}.get(method, 2)
    assert rows[0]["kl_to_base"] == rows[0]["kl_from_base"] == 0.0


@pytest.mark.parametrize("method", MOSTLY_SLOW)
def test_weights_and_everything_on_disk_stay_float32(method: str, model: str, tmp_path: Path) -> None:
    run_training(short(method, model), tmp_path)
    tensors, _ = read_checkpoint(tmp_path / "checkpoint.safetensors")
    assert any(name.endswith("exp_avg") for name in tensors)
    saved = load_file(tmp_path / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in (*tensors.values(), *saved.values())} == {torch.float32}
    assert not Policy.load(str(tmp_path / "model")).bfloat16
    before = Policy.load(model).model
    assert not any(torch.equal(p, tensors[f"model.{name}"]) for name, p in before.named_parameters())


@pytest.mark.parametrize("method", MOSTLY_SLOW)
def test_stopped_and_continued_it_is_the_same_run(method: str, model: str, tmp_path: Path) -> None:
    """After a step with a checkpoint and after one without: rows, prompts and weights byte for byte."""
    config = short(method, model)
    run_training(config, tmp_path / "whole")
    for stop in (2, 3):

        def progress(done: int, _: str, stop: int = stop) -> None:
            if done == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_training(config, tmp_path / "stopped", progress)
    run_training(config, tmp_path / "stopped")
    for path in ("metrics.jsonl", "model/model.safetensors", *(["prompts.jsonl"] if method == "fst" else [])):
        assert (tmp_path / "stopped" / path).read_bytes() == (tmp_path / "whole" / path).read_bytes(), path


# --- directories -----------------------------------------------------------------------------------------------------


def test_the_precision_belongs_to_the_run(model: str, tmp_path: Path) -> None:
    """Another one is refused; a run recorded before the setting existed is one in float32."""
    config = short("sft", model, steps=1, precision="float32")
    rows = run_training(config, tmp_path)
    place = tmp_path / "config.json"
    held = json.loads(place.read_text())
    assert held.pop("precision") == "float32"
    place.write_text(json.dumps(held))
    assert run_training(config, tmp_path) == rows
    with pytest.raises(InputError, match="holds a training run with precision float32, not bfloat16"):
        run_training(replace(config, precision="bfloat16"), tmp_path)


def test_recorded_runs_are_in_float32() -> None:
    """Every run of the paper that was recorded without the setting is found again with it, and is no run in bfloat16."""
    assert len(RECORDED) > 100
    for path in RECORDED:
        config = TrainConfig.from_dict(read_json(path))
        if config.precision != "float32":  # of a validation that says so
            about = read_json(path.parents[3] / "predictions.json")
            assert about["precision"] == config.precision == "bfloat16"
            continue
        defaults = asdict(TrainConfig(method=config.method))
        check_directory(path.parent, asdict(config), "training run", defaults)
        if config.learner is not None and config.learner.deploys:
            with pytest.raises(InputError, match="has float32 alone"):
                replace(config, precision="bfloat16")
            continue
        other = asdict(replace(config, precision="bfloat16"))
        with pytest.raises(InputError, match="precision float32, not bfloat16"):
            check_directory(path.parent, other, "training run", defaults)


def test_sampling_may_leave_the_scoring_out(model: str) -> None:
    """The same completions; without it their log-probabilities are those of sampling, which in float32 they always are."""
    for half in (False, True):
        policy = replace(Policy.load(model), bfloat16=half)
        prompts = [policy.encode("", p) for p in parse_task("strings:next/share").problems("train")[:3]]
        both = [
            policy.sample(prompts, 4, torch.Generator().manual_seed(1), max_new_tokens=5, scored=scored)
            for scored in (True, False)
        ]
        assert torch.equal(both[0].completions, both[1].completions)
        assert torch.equal(both[0].mask, both[1].mask)
        if half:
            assert torch.equal(both[0].logprobs, policy.logprobs(both[0]).detach()), "with gradients or without"
            torch.testing.assert_close(both[1].logprobs, both[0].logprobs, rtol=0.02, atol=0.05)
        else:
            assert torch.equal(both[0].logprobs, both[1].logprobs)


@pytest.mark.parametrize(
    "how",
    [{}, {"updates": 2}, {"leash_reward": 0.1}, {"leash_loss": 0.1, "kl_estimator": "k3", "kl_estimator_ratio": True}],
)
def test_the_ratio_before_the_first_update_is_one(how: dict[str, Any], model: str) -> None:
    """Whether rollouts were scored or not: CISPO's first gradient is that of plain log-probabilities times advantages."""
    policy = replace(Policy.load(model), bfloat16=True)
    learner = PolicyGradient(problems=2, rollouts=6, max_new_tokens=5, **how)
    task = parse_task("strings:next/share")
    r, groups = learner.roll_out(policy, Population(("",)), task.problems("train")[:2], np.random.default_rng(0))
    scored = torch.equal(r.logprobs, policy.logprobs(r).detach())
    assert scored == bool(how), "where they are needed they are those of the scoring pass"
    if how.keys() - {"updates"}:
        return  # the leash has a gradient of its own
    rewards = torch.zeros(len(r))
    rewards[::3] = 1.0
    advantages, _ = group_advantages(rewards, groups)
    loss = -(advantages[:, None] * policy.logprobs(r)).sum() / r.mask.sum()
    parameters = list(policy.model.parameters())
    expected = torch.autograd.grad(loss, parameters, allow_unused=True)
    optimizer = Recorder(parameters)
    learner.learn(Weights(policy, policy, optimizer, clip=1e9), r, rewards, groups, "test")
    for found, wanted in zip(optimizer.first, expected, strict=True):
        assert (found is None) == (wanted is None)
        if wanted is not None:
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-7)


class Recorder(torch.optim.SGD):
    """Keeps the gradients of its first step."""

    def __init__(self, parameters: list[torch.nn.Parameter]) -> None:
        super().__init__(parameters, lr=1e-3)
        self.own, self.first = parameters, []

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.first = self.first or [None if p.grad is None else p.grad.clone() for p in self.own]
        super().step(closure)
