"""`run_measure` on tiny random models: against probes and brute force, adapters, what is kept, and what is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

import fstsim.llm.measure.measure as module
from fstsim.errors import InputError
from fstsim.llm.measure.config import MeasureConfig, MeasureSettings
from fstsim.llm.measure.layers import weight_distances
from fstsim.llm.measure.loading import load_checkpoint
from fstsim.llm.measure.measure import run_measure
from fstsim.llm.measure.quantities import ProblemSet, kl_entropy_length, sample_set
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.behaviour import answer_logprobs, sequence_kl_and_entropy
from fstsim.llm.runs.relearning import relearn_steps
from fstsim.llm.tasks.parse import parse_task

MakeModel = Callable[..., PreTrainedModel]
SETTINGS = MeasureSettings(problems=20, samples=3, max_new_tokens=5)
NEW, OLD = "strings:reverse", "digits:negate"


@pytest.fixture(scope="module")
def models(make_model: MakeModel, tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``base`` and ``near``, the same with small noise; ``wide`` and ``llama`` are others."""
    place = tmp_path_factory.mktemp("models")
    base = make_model(seed=0)
    near = copy.deepcopy(base)
    torch.manual_seed(3)
    with torch.no_grad():
        for weight in near.parameters():
            weight += 0.01 * torch.randn_like(weight)
    others = {"wide": make_model(hidden_size=64), "llama": make_model("llama")}
    for name, model in {"base": base, "near": near, **others}.items():
        model.save_pretrained(place / name)
        tokenizer.save_pretrained(place / name)
    return place


def config(models: Path, **changes: object) -> MeasureConfig:
    settings = {"base": str(models / "base"), "new": NEW, "old": OLD, "settings": SETTINGS, **changes}
    return MeasureConfig(**settings)  # type: ignore[arg-type]  # names and types as in the class


def test_kl_and_entropy_are_those_of_the_probes(models: Path) -> None:
    """Blocks and parts do not change them."""
    base, near = (Policy.load(str(models / name)) for name in ("base", "near"))
    given = ProblemSet("new", parse_task(NEW), tuple(parse_task(NEW).problems("test"))[:20])
    sampled = sample_set(near, given, SETTINGS)
    assert len(sampled.parts) == 2
    kl, entropy, length = kl_entropy_length(near, base, sampled)
    both = [sequence_kl_and_entropy(near, base, part) for part in sampled.parts]
    np.testing.assert_allclose(kl, np.concatenate([k.reshape(-1, 3).mean(1) for k, _ in both]), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(entropy, np.concatenate([e.reshape(-1, 3).mean(1) for _, e in both]), rtol=1e-4)
    np.testing.assert_allclose(
        length, np.concatenate([p.mask.sum(1).numpy().reshape(-1, 3).mean(1) for p in sampled.parts])
    )
    assert kl.mean() > 0.0


def test_a_model_against_itself_is_at_no_distance(models: Path, tmp_path: Path) -> None:
    (row,) = run_measure(config(models), [str(models / "base")], tmp_path / "out")["checkpoints"]
    for values in row["sets"].values():
        assert (values["kl_to_base"], values["kl_from_base"], values["reward_change"]) == (0.0, 0.0, 0.0)
        assert (values["lost"], values["gained"], values["flip_p"]) == (0, 0, 1.0)
    assert set(row["weights"].values()) == {0.0}


def test_answers_and_weights_against_other_code(models: Path, tmp_path: Path) -> None:
    measured = run_measure(config(models), [str(models / "near")], tmp_path / "out")
    (row,) = measured["checkpoints"]
    base, near = (Policy.load(str(models / name)) for name in ("base", "near"))
    task = parse_task(NEW)
    problems = list(task.problems("test"))[:20]
    right = answer_logprobs(near, ("",), problems, [task.answer(p) for p in problems])[0]  # type: ignore[attr-defined]
    old = answer_logprobs(near, ("",), problems, [task.old_answer(p) for p in problems])[0]  # type: ignore[attr-defined]
    assert row["sets"]["new"]["reward"] == pytest.approx(np.exp(right).mean(), rel=1e-5)
    assert row["sets"]["new"]["answer_nll"] == pytest.approx(-right.mean(), rel=1e-5)
    assert row["sets"]["new"]["old_mass"] == pytest.approx(np.exp(old).mean(), rel=1e-5)
    assert measured["sets"]["old"]["context"] != ""
    flat = [torch.cat([w.detach().flatten() for w in p.model.parameters()]).double() for p in (base, near)]
    assert row["weights"]["all"] == pytest.approx(float((flat[1] - flat[0]).norm() / flat[0].norm()), rel=1e-6)
    assert row["weights_order"] == ["embed_tokens", "layer 0", "layer 1", "norm", "all"]
    assert weight_distances(near.model, base.model) == row["weights"]


def test_what_is_measured_is_not_measured_again(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a checkpoint that is added finds the base's part done."""
    out, calls = tmp_path / "out", []
    first = run_measure(config(models), [str(models / "near")], out)
    for name in ("measure_alone", "measure_against"):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, n=name, r=real: (calls.append(n), r(*a))[1])
    assert run_measure(config(models), [str(models / "near")], out) == first
    assert calls == []
    both = run_measure(config(models), [str(models / "near"), str(models / "base")], out)
    assert calls == ["measure_against"] * 2
    assert both["checkpoints"][0] == first["checkpoints"][0]


def test_an_adapter_is_the_model_with_it(models: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base = Policy.load(str(models / "base"))
    with pytest.warns(FutureWarning):
        held = peft.get_peft_model(copy.deepcopy(base.model), peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in held.named_parameters():
            if "lora_B" in name:
                weight.normal_(0.0, 0.1)
    held.save_pretrained(tmp_path / "adapter")
    merged = load_checkpoint(str(tmp_path / "adapter"), base)
    tokens = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        torch.testing.assert_close(merged.model(tokens).logits, held(tokens).logits, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(merged.model(tokens).logits, base.model(tokens).logits, atol=1e-2)
    with pytest.raises(InputError, match="must be the full model"):
        run_measure(config(models, base=str(tmp_path / "adapter")), [str(models / "near")], tmp_path / "out")
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match=r"adapter_model\.safetensors is missing"):
        load_checkpoint(str(tmp_path / "adapter"), base)


def test_relearning_is_that_of_the_probe(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy learns, the model stays; asked for later, it is added; and it is not done again."""
    out, again = tmp_path / "out", {"relearn": "digits:negate", "relearn_lr": 3e-2}
    first = run_measure(config(models), [str(models / "near")], out)
    monkeypatch.setattr("fstsim.llm.measure.relearn.RELEARN_LEVEL", 1e-6)
    monkeypatch.setattr("fstsim.llm.measure.relearn.RELEARN_MOST", 6)
    measured = run_measure(config(models, **again), [str(models / "near")], out)
    assert measured["checkpoints"][0]["sets"] == first["checkpoints"][0]["sets"]
    task = parse_task("digits:negate")
    expected = []
    for name in ("base", "near"):
        policy = Policy.load(str(models / name))
        expected.append(relearn_steps(policy, task, level=1e-6, most=6, lr=3e-2))  # type: ignore[arg-type]
    assert [measured["relearn"]["base"], measured["checkpoints"][0]["relearn_steps"]] == expected
    assert expected[0] > 0
    monkeypatch.setattr("fstsim.llm.measure.relearn.relearn_steps", lambda *_, **__: pytest.fail("done again"))
    assert run_measure(config(models, **again), [str(models / "near")], out) == measured


def test_relearning_needs_answers(models: Path, tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(
        "from fstsim.llm.types import Problem, Score\n"
        "class T:\n"
        "    name, exact = 'T', False\n"
        "    def problems(self, split): return [Problem('t', f'{split} {k}', 'q') for k in range(3)]\n"
        "    def score(self, problem, completion): return Score(0.0, '')\n"
        "task = T()\n"
    )
    with pytest.raises(InputError, match="--relearn learns from right answers, but T has none"):
        run_measure(config(models, relearn=f"{tmp_path / 'task.py'}:task"), [str(models / "near")], tmp_path / "out")
    with pytest.raises(InputError, match="--relearn-lr must be finite and above 0, got 0"):
        config(models, relearn_lr=0.0)


def test_an_adapter_of_another_base_says_whose_it_is(models: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    wide = Policy.load(str(models / "wide"))
    with pytest.warns(FutureWarning):
        held = peft.get_peft_model(wide.model, peft.LoraConfig(r=2, target_modules=["q_proj"]))
    held.save_pretrained(tmp_path / "adapter")
    with pytest.raises(
        InputError, match=r"does not fit the base: .* \(it was trained on .*wide: give that as --base\)"
    ):
        run_measure(config(models), [str(tmp_path / "adapter")], tmp_path / "out")


MISTAKES = {
    "llama": "of architecture llama, the base of qwen3",
    "wide": "the architectures must be the same",
    "nowhere": "there is no model",
    "words": "another tokenizer than the base",
    "small": "quantised",
}


@pytest.mark.parametrize("name", MISTAKES)
def test_wrong_checkpoints_are_refused_before_anything_is_written(
    name: str, models: Path, tmp_path: Path, make_model: MakeModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    place = models / name
    if name in ("words", "small"):
        place = tmp_path / name
        make_model().save_pretrained(place)
        tokenizer.save_pretrained(place)
    if name == "words":  # two tokens exchanged
        file = place / "tokenizer.json"
        held = json.loads(file.read_text())
        vocabulary = held["model"]["vocab"]
        a, b = list(vocabulary)[-2:]
        vocabulary[a], vocabulary[b] = vocabulary[b], vocabulary[a]
        file.write_text(json.dumps(held))
    if name == "small":
        file = place / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "quantization_config": {"bits": 4}}))
    with pytest.raises(InputError, match=MISTAKES[name]):
        run_measure(config(models), [str(models / "near"), str(place)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_settings_and_long_prompts_are_refused(models: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="do not fit the model's 64 positions"):
        run_measure(config(models, settings=MeasureSettings(max_new_tokens=60)), [str(models / "near")], tmp_path / "a")
    assert not (tmp_path / "a").exists()
    run_measure(config(models), [str(models / "near")], tmp_path / "b")
    with pytest.raises(InputError, match=r"holds a measurement with settings\.problems 20, not 9"):
        run_measure(config(models, settings=MeasureSettings(9, 3, 5)), [str(models / "near")], tmp_path / "b")
    with pytest.raises(InputError, match="give --new, --old or both"):
        config(models, new="", old="")
