"""What is said of a model that cannot be had or used: one line, before anything of it is run.

The whole list of malformed folders is in tests/attack/model_directories.py; here a part of it is given to the command line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from attack.model_directories import NAMES, Builder, cases, good, sound
from safetensors.torch import load_file, save_file
from tiny_architectures import tiny_model
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from fstsim.__main__ import main
from fstsim.errors import InputError
from fstsim.llm.policy.loading import is_path, load_model
from fstsim.llm.policy.policy import Policy
from fstsim.llm.pretraining.tokenizer import build_tokenizer
from fstsim.llm.types import Problem

MakeModel = Callable[..., PreTrainedModel]

_SLOW = ("loops", "power", "fills")  # each waits for the time limit of a template
_CASES = {name: build for name, build in cases() if not any(word in name for word in _SLOW)}
_PART = sorted(_CASES)[::4]


def refused(name: str, capfd: pytest.CaptureFixture[str]) -> str:
    """The one line with which the command line refuses a model."""
    assert main(["tasks", "--model", name, "--task", "strings:reverse", "--problems", "2"]) == 2
    out, err = capfd.readouterr()
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1, err
    assert not out
    assert lines[0].isprintable()
    return lines[0]


def test_there_are_enough_cases() -> None:
    names = [name for name, _ in cases()]
    assert len(names) == len(set(names)) >= 100


@pytest.mark.parametrize("name", _PART)
def test_a_malformed_folder_is_refused_in_one_line(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    _CASES[name](tmp_path / "model")
    refused(str(tmp_path / "model"), capfd)
    recwarn.clear()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(name for name, _ in cases() if name not in _PART))
def test_each_other_malformed_folder_is_refused_in_one_line(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    dict(cases())[name](tmp_path / "model")
    refused(str(tmp_path / "model"), capfd)
    recwarn.clear()


@pytest.mark.parametrize("build", [pytest.param(build, id=name) for name, build in good()])
def test_an_unusual_folder_works(build: Builder, tmp_path: Path) -> None:
    """With the numbers of the model that was written."""
    build(tmp_path / "model")
    sound(tmp_path / "plain")
    one, two = (Policy.load(str(tmp_path / name)) for name in ("model", "plain"))
    prompts, answers = [two.encode("", Problem("strings", "AB", "Rewrite."))], [two.encode_answer("BA")]
    assert torch.allclose(one.answer_logprobs(prompts, answers), two.answer_logprobs(prompts, answers), atol=1e-2)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_no_model(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(refused(name, capfd)) < 700


def test_what_looks_like_a_path_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is never asked for it, whether it may be or not."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()

    def asked(*_: object, **__: object) -> None:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("fstsim.llm.policy.loading._from_hub", asked)
    for name in (
        "out/base",
        "out/a/b",
        "./owner/model",
        "/owner/model",
        "~/model",
        "owner/model/",
        "a/b/c",
        "runs/model",
        "runs",
        "name",
    ):
        assert is_path(name)
        with pytest.raises(InputError, match=r"there is no model at|is not a folder|no weights") as caught:
            load_model(name, "cpu", "float32")
        assert "\n" not in str(caught.value)
    assert not is_path("owner/model")


@pytest.mark.parametrize("offline", ["1", "0"])
def test_a_name_of_the_hub_is_asked_for_once(
    offline: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A hub that is not there: one line; without a network the question is not even put."""
    import huggingface_hub

    monkeypatch.chdir(tmp_path)
    asked = []

    def unreachable(*_: object, **kwargs: object) -> None:
        asked.append(kwargs)
        raise OSError("no network\nhere")

    monkeypatch.setenv("HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    assert "owner/nosuch" in refused("owner/nosuch", capfd)
    assert len(asked) == 1
    assert asked[0]["timeout"]


# --- weights ---------------------------------------------------------------------------------------------------------


def write(model: PreTrainedModel, folder: Path) -> Path:
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


def said(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_model(str(folder), "cpu", "float32")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_declared_as_another_architecture(make_model: MakeModel, tmp_path: Path) -> None:
    """Weights that the architecture does not have were dropped: Qwen2's biases, Qwen3's norms of queries and keys."""
    like = make_model("llama").config
    sizes = {key: getattr(like, key) for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2}
    models = [Qwen2ForCausalLM(Qwen2Config(**sizes)), make_model("qwen3", tie_word_embeddings=False)]
    for k, model in enumerate(models):
        folder = write(model, tmp_path / str(k))
        declared = LlamaConfig(**sizes, head_dim=8, architectures=["LlamaForCausalLM"])
        declared.save_pretrained(folder)
        assert "have beside those of its architecture model.layers.0.self_attn" in said(folder)
        held = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**held, "architectures": None}))
        assert "LlamaForCausalLM" in said(folder)


def test_the_architecture_that_a_config_names_is_the_one_that_is_loaded(make_model: MakeModel, tmp_path: Path) -> None:
    """Also where both have the same weights."""
    folder = write(make_model("llama"), tmp_path)
    held = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**held, "architectures": ["MistralForCausalLM"]}))
    assert "names MistralForCausalLM" in said(folder)


@pytest.mark.parametrize("tied", [True, False])
def test_tied_weights_may_be_written_once_or_twice(make_model: MakeModel, tmp_path: Path, tied: bool) -> None:
    folder = write(make_model("llama", tie_word_embeddings=tied), tmp_path)
    held = load_file(folder / "model.safetensors")
    assert ("lm_head.weight" in held) is not tied
    held["lm_head.weight"] = held["model.embed_tokens.weight"].clone() if tied else held["lm_head.weight"]
    save_file(held, folder / "model.safetensors", metadata={"format": "pt"})
    load_model(str(folder), "cpu", "float32")
    held["model.rotary_emb.inv_freq"] = torch.ones(4)  # a buffer that older files hold
    save_file(held, folder / "model.safetensors", metadata={"format": "pt"})
    load_model(str(folder), "cpu", "float32")


def test_keys_of_weights_are_named(make_model: MakeModel, tmp_path: Path) -> None:
    folder = write(make_model("llama"), tmp_path)
    held = load_file(folder / "model.safetensors")
    gone = [key for key in held if "layers.1.mlp" in key]
    save_file(
        {key: held[key] for key in held if key not in gone}, folder / "model.safetensors", metadata={"format": "pt"}
    )
    assert gone[0] in said(folder)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite(make_model: MakeModel, tmp_path: Path, value: float) -> None:
    """And one that is not in the type asked for."""
    model = make_model("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 5] = value
    assert "model.layers.1.mlp.up_proj.weight" in said(write(model, tmp_path / "a"))
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 5] = 1e6
    folder = write(model, tmp_path / "b")
    load_model(str(folder), "cpu", "float32")
    with pytest.raises(InputError, match="not finite"):
        load_model(str(folder), "cpu", "float16")


def test_a_buffer_that_is_not_a_number(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """The bias with which a router chooses its experts is no parameter, but belongs to the weights."""
    model = tiny_model("glm4_moe", vocab_size=len(tokenizer))
    key, bias = next((k, b) for k, b in model.named_buffers() if k.endswith("e_score_correction_bias"))
    model.save_pretrained(tmp_path / "sound")
    tokenizer.save_pretrained(tmp_path / "sound")
    Policy.load(str(tmp_path / "sound"))
    bias.fill_(torch.nan)
    model.save_pretrained(tmp_path / "nan")
    tokenizer.save_pretrained(tmp_path / "nan")
    with pytest.raises(InputError, match=f"not finite: {key} has"):
        Policy.load(str(tmp_path / "nan"))


def test_finite_weights_without_finite_logits(make_model: MakeModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Also where the same architecture has been used before with weights that are sound."""
    model = make_model("llama")
    assert Policy.of(model, tokenizer).padded
    with torch.no_grad():
        model.get_output_embeddings().weight.uniform_(-1.0, 1.0).mul_(3e38)
    with pytest.raises(InputError, match="logits are not finite"):
        Policy.of(model, tokenizer)


def test_the_text_of_a_model_that_sees_pictures(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """Its vocabulary and its positions are in the config's part on text."""
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "sliding_window": 8,
        "initializer_range": 0.3, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    config = Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=4, eos_token_id=2, image_token_index=5
    )
    assert "vocab_size" not in config.to_dict()
    write(Gemma3ForConditionalGeneration(config).eval(), tmp_path)
    policy = Policy.load(str(tmp_path))
    assert (policy.vocabulary, policy.positions) == (len(tokenizer), 64)
    prompts = [policy.encode(context, Problem("strings", "ABCDE", "")) for context in ("", "reverse next")]
    r = policy.sample(prompts, 2, torch.Generator().manual_seed(0), max_new_tokens=6)
    logp = policy.logprobs(r).detach()
    for i in range(len(r)):
        wrote = r.completions[i][r.mask[i]]
        whole = torch.tensor([[*prompts[r.prompt_of[i]], *wrote.tolist()]])
        with torch.no_grad():
            plain = torch.log_softmax(policy.model(whole, use_cache=False).logits[0, -len(wrote) - 1 : -1], -1)
        expected = plain.gather(-1, wrote[:, None])[:, 0]
        assert torch.allclose(r.logprobs[i][r.mask[i]], expected, atol=1e-4)
        assert torch.allclose(logp[i][r.mask[i]], expected, atol=1e-4)
    model = LlamaForCausalLM(LlamaConfig(**{**text, "vocab_size": len(tokenizer) - 1}))
    with pytest.raises(InputError, match="64 tokens, the model 63"):
        Policy.of(model, tokenizer)


@pytest.mark.skipif(os.getuid() == 0, reason="nothing is unreadable to root")
def test_an_unreadable_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sound(tmp_path / "model")
    (tmp_path / "model").chmod(0)
    assert "cannot be read" in refused(str(tmp_path / "model"), capfd)
    (tmp_path / "model").chmod(0o755)


def test_weights_of_other_types_and_too_large_ones(make_model: MakeModel, tmp_path: Path) -> None:
    """Also where they are no matrices; a model of the same architecture that was tried before does not stand for it."""
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2}
    folder = write(Qwen2ForCausalLM(Qwen2Config(**sizes)), tmp_path / "types")
    held = load_file(folder / "model.safetensors")
    for dtype in (torch.float8_e4m3fn, torch.complex64):
        other = {key: value.to(dtype) if key.endswith("bias") else value for key, value in held.items()}
        save_file(other, folder / "model.safetensors", metadata={"format": "pt"})
        assert "is stored as" in said(folder)
    Policy.of(make_model("llama"), build_tokenizer())
    model = make_model("llama")
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.down_proj.weight.mul_(1e38)
    folder = write(model, tmp_path / "large")
    with pytest.raises(InputError, match="logits are not finite"):
        Policy.load(str(folder))


def test_a_head_in_the_file_is_the_head_also_where_the_config_ties_it(make_model: MakeModel, tmp_path: Path) -> None:
    folder = write(make_model("llama", tie_word_embeddings=True), tmp_path)
    held = load_file(folder / "model.safetensors")
    held["lm_head.weight"] = held["model.embed_tokens.weight"].flip(0).contiguous()
    save_file(held, folder / "model.safetensors", metadata={"format": "pt"})
    model, _ = load_model(str(folder), "cpu", "float32")
    assert torch.equal(model.lm_head.weight, held["lm_head.weight"])
