"""Model folders that cannot be used, each wrong in one way, and a few unusual ones that can: given as ``--model``.

`cases` yields those that must be answered with one line and exit code 2; `good` those that must work. A builder writes the
folder that it is given. All start from one tiny model with a chat template.
"""

from __future__ import annotations

import json
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from attack import harness
from attack.campaign import Case

Builder = Callable[[Path], None]

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
MARKS = ["<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|begin|>"]
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"


def english_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with a chat template."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=MARKS, show_progress=False, initial_alphabet=alphabet)
    raw.train_from_iterator(["Rewrite the string. Answer with the new string only."] * 3, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|end|>", pad_token="<|begin|>")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


@cache
def _files() -> dict[str, bytes]:
    """The sound folder, as bytes by name."""
    tokenizer = english_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=512,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as name:
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(name)
        tokenizer.save_pretrained(name)
        return {path.name: path.read_bytes() for path in Path(name).iterdir()}


def sound(folder: Path) -> None:
    """The folder that all others are made from."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in _files().items():
        (folder / name).write_bytes(data)


def _then(change: Builder) -> Builder:
    def build(folder: Path) -> None:
        sound(folder)
        change(folder)

    return build


def _without(*names: str) -> Builder:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink(missing_ok=True)

    return _then(change)


def _with(name: str, data: bytes | str) -> Builder:
    written = data.encode() if isinstance(data, str) else data
    return _then(lambda folder: (folder / name).write_bytes(written) and None)


def _json(name: str, **changes: Any) -> Builder:
    """Keys of a file in JSON set to other values; those set to `_GONE` are taken out."""

    def change(folder: Path) -> None:
        held = json.loads((folder / name).read_text())
        held |= changes
        (folder / name).write_text(json.dumps({key: value for key, value in held.items() if value is not _GONE}))

    return _then(change)


_GONE = object()


def _tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Builder:
    def build(folder: Path) -> None:
        held = load_file(folder / _WEIGHTS)
        change(held)
        save_file(held, folder / _WEIGHTS, metadata={"format": "pt"})

    return _then(build)


def _template(text: str) -> Builder:
    return _with("chat_template.jinja", text)


def _special(name: str, make: Callable[[Path], Any]) -> Builder:
    """``name`` replaced by something that is no file."""

    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return _then(change)


def _split(folder: Path) -> dict[str, Any]:
    """Weights in two files with an index, which is returned."""
    held = load_file(folder / _WEIGHTS)
    (folder / _WEIGHTS).unlink()
    names = sorted(held)
    where = {}
    for k, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-0000{k}-of-00002.safetensors"
        save_file({name: held[name] for name in part}, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(part, file)
    return {"metadata": {"total_size": 1}, "weight_map": where}


def _index(change: Callable[[Path, dict[str, Any]], Any]) -> Builder:
    """An index that ``change`` returns, or alters."""

    def build(folder: Path) -> None:
        index = _split(folder)
        changed = change(folder, index)
        written = index if changed is None else changed
        (folder / _INDEX).write_text(written if isinstance(written, str) else json.dumps(written))

    return _then(build)


def _set_all(index: dict[str, Any], name: Any) -> None:
    index["weight_map"] = dict.fromkeys(index["weight_map"], name)


def _tokenizer(change: Callable[[dict[str, Any]], None]) -> Builder:
    def build(folder: Path) -> None:
        held = json.loads((folder / "tokenizer.json").read_text())
        change(held)
        (folder / "tokenizer.json").write_text(json.dumps(held))

    return _then(build)


def _flipped(folder: Path) -> None:
    data = bytearray((folder / _WEIGHTS).read_bytes())
    data[40] ^= 0xFF
    (folder / _WEIGHTS).write_bytes(bytes(data))


def _adapter(folder: Path, keep: bool) -> None:
    (folder / "adapter_config.json").write_text(
        json.dumps(
            {"peft_type": "LORA", "base_model_name_or_path": "owner/model", "r": 2, "target_modules": ["q_proj"]}
        )
    )
    save_file({"base_model.model.x.lora_A.weight": torch.zeros(2, 2)}, folder / "adapter_model.safetensors")
    if not keep:
        (folder / _WEIGHTS).unlink()
        (folder / "config.json").unlink()


def _pickle(folder: Path, name: str) -> None:
    torch.save(load_file(folder / _WEIGHTS), folder / name)
    (folder / _WEIGHTS).unlink()


def _config_cases() -> Iterator[tuple[str, Builder]]:
    for label, data in {
        "empty": "",
        "truncated": '{"model_type": "llama", ',
        "null": "null",
        "a list": "[]",
        "a number": "3",
        "text": "hello",
        "no UTF-8": b"\xff\xfe\x00{",
        "deep": "[" * 100_000,
        "{}": "{}",
    }.items():
        yield f"config {label}", _with("config.json", data)
    yield "config missing", _without("config.json")
    wrong: dict[str, Any] = {
        "model_type": [None, 3, "nosuch", "bert", "mamba", "t5", "clip", "../llama"],
        "hidden_size": ["16", -16, 0, None, 1.5, [16], 10**12, 17],
        "num_hidden_layers": ["two", -1, 10**9, None, 3, 1],
        "num_attention_heads": [0, "2", -2, 3],
        "num_key_value_heads": [0, 3],
        "vocab_size": ["many", 0, -1, 10**12, 100],
        "max_position_embeddings": [-5, "long", 0],
        "rms_norm_eps": ["small", float("nan")],
        "hidden_act": ["nosuch", 3],
        "rope_parameters": [3, {"rope_type": "nosuch"}, {"rope_type": "yarn"}],
        "eos_token_id": ["2", [], [1, "x"], -1, 10**6, 1.5, {"a": 1}],
        "architectures": [["GPT2LMHeadModel"], ["MistralForCausalLM"]],
        "dtype": ["nosuch"],
        "head_dim": [7, 0, "8"],
        "intermediate_size": [25, None],
    }
    for key, values in wrong.items():
        for value in values:
            yield f"config {key} = {str(value)[:30]}", _both(key, value)
    for method in ("gptq", "awq", "bitsandbytes", "fp8", "hqq", "aqlm", "compressed-tensors", "nosuch"):
        yield f"quantised {method}", _json("config.json", quantization_config={"quant_method": method, "bits": 4})
    yield "quantised without a method", _json("config.json", quantization_config={"bits": 4})
    yield "quantised, a word", _json("config.json", quantization_config="int4")
    yield "code of its own", _json("config.json", model_type="mine", auto_map={"AutoConfig": "code.Mine"})
    yield "attention from a repository", _json("config.json", _attn_implementation="owner/kernel")
    multimodal = {"model_type": "llava", "text_config": json.loads(_files()["config.json"])}
    yield "multimodal, no causal model", _with("config.json", json.dumps(multimodal))


def _both(key: str, value: Any) -> Builder:
    """In the config, and, where it stands there too, in the generation config."""

    def build(folder: Path) -> None:
        _json("config.json", **{key: value})(folder)
        if key in json.loads((folder / "generation_config.json").read_text()):
            held = json.loads((folder / "generation_config.json").read_text()) | {key: value}
            (folder / "generation_config.json").write_text(json.dumps(held))

    return build


def _weight_cases() -> Iterator[tuple[str, Builder]]:
    data = _files()[_WEIGHTS]
    for label, bad in {
        "empty": b"",
        "eight bytes": b"\0" * 8,
        "cut in the header": data[:100],
        "cut in half": data[: len(data) // 2],
        "cut by a byte": data[:-1],
        "longer": data + b"x",
        "huge header": struct.pack("<Q", 1 << 62) + data[8:],
        "text": b"not weights at all",
        "header is a list": struct.pack("<Q", 2) + b"[]",
    }.items():
        yield f"weights {label}", _with(_WEIGHTS, bad)
    yield "weights flipped in the header", _then(_flipped)
    yield "weights missing", _without(_WEIGHTS)
    for name in ("pytorch_model.bin", "model.pt", "model.ckpt"):
        yield f"weights only in {name}", _then(lambda folder, name=name: _pickle(folder, name))
    first = "model.layers.0.self_attn.q_proj.weight"
    for value in (float("nan"), float("inf"), -float("inf")):
        yield f"weights with {value}", _tensors(lambda held, value=value: held[first][0].fill_(value))
    yield "weights lack one", _tensors(lambda held: held.__delitem__(first))
    yield "weights lack all", _tensors(lambda held: [held.pop(key) for key in list(held)] and None)
    yield (
        "weights have one more",
        _tensors(lambda held: held.update({"model.layers.0.self_attn.q_proj.bias": torch.zeros(16)})),
    )
    yield "weights renamed", _tensors(lambda held: held.update({f"x.{key}": held.pop(key) for key in list(held)}))
    yield "weights of another shape", _tensors(lambda held: held.update({first: torch.zeros(8, 16)}))
    yield "weights in int8", _tensors(lambda held: held.update({first: held[first].to(torch.int8)}))
    yield "index null", _index(lambda _, __: "null")
    yield "index a list", _index(lambda _, __: [1])
    yield "index without a map", _index(lambda _, __: {"metadata": {}})
    yield "index with an empty map", _index(lambda _, __: {"weight_map": {}})
    yield "index in no JSON", _index(lambda _, __: "{")
    for name in (
        "/etc/passwd",
        "../other/model.safetensors",
        "missing.safetensors",
        3,
        None,
        "",
        "a/b.safetensors",
        "model.bin",
    ):
        yield f"index names {name!r}", _index(lambda _, index, name=name: _set_all(index, name))
    yield (
        "index names a file in the wrong place",
        _index(lambda _, index: index["weight_map"].update(extra="model-00001-of-00002.safetensors")),
    )
    yield "index with a file gone", _index(lambda folder, _: (folder / "model-00002-of-00002.safetensors").unlink())


def _tokenizer_cases() -> Iterator[tuple[str, Builder]]:
    data = _files()["tokenizer.json"]
    for label, bad in {
        "empty": b"",
        "null": b"null",
        "{}": b"{}",
        "a list": b"[]",
        "truncated": data[: len(data) // 2],
        "no UTF-8": b"\xff\xff",
        "deep": b"[" * 100_000,
    }.items():
        yield f"tokenizer {label}", _with("tokenizer.json", bad)
    yield "tokenizer missing", _without("tokenizer.json")
    yield "tokenizer all missing", _without("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")

    def beyond(held: dict[str, Any]) -> None:
        held["model"]["vocab"]["zebra"] = 10**6

    def added_beyond(held: dict[str, Any]) -> None:
        held["added_tokens"].append({**held["added_tokens"][0], "id": 5000, "content": "<|far|>"})

    yield "tokenizer with an id out of range", _tokenizer(beyond)
    yield "tokenizer with an added id out of range", _tokenizer(added_beyond)
    yield "tokenizer with a model of no kind", _tokenizer(lambda held: held["model"].update(type="Nosuch"))
    yield "tokenizer with a negative id", _tokenizer(lambda held: held["model"]["vocab"].update(zebra=-1))
    yield "tokenizer without a vocabulary", _tokenizer(lambda held: held["model"].pop("vocab") and None)
    yield "tokenizer with merges of nothing", _tokenizer(lambda held: held["model"].update(merges=["q qqqq"]))
    for label, bad_config in {"null": "null", "a list": "[]", "truncated": "{", "a number": "7"}.items():
        yield f"tokenizer_config {label}", _with("tokenizer_config.json", bad_config)
    wrong: dict[str, Any] = {
        "tokenizer_class": [3],
        "eos_token": [3, ["<|end|>"]],
        "chat_template": [7, {"a": 1}],
    }
    for key, values in wrong.items():
        for value in values:
            change = _json("tokenizer_config.json", **{key: value})
            if key == "chat_template":
                change = _chain(change, lambda folder: (folder / "chat_template.jinja").unlink())
            yield f"tokenizer_config {key} = {value}", change
    yield (
        "no end token at all",
        _chain(
            _both("eos_token_id", None),
            _edit("tokenizer_config.json", "eos_token"),
            _template_file("{{ messages[0].content }}"),
        ),
    )
    yield "generation_config null", _with("generation_config.json", "null")
    yield "generation_config truncated", _with("generation_config.json", "{")
    for value in ("x", [], [1.5], -3, 10**7, {"a": 1}, True):
        yield f"generation_config eos_token_id = {value}", _json("generation_config.json", eos_token_id=value)


def _chain(first: Builder, *others: Builder) -> Builder:
    def build(folder: Path) -> None:
        first(folder)
        for other in others:
            other(folder)

    return build


def _edit(name: str, key: str) -> Builder:
    def change(folder: Path) -> None:
        held = json.loads((folder / name).read_text())
        held.pop(key, None)
        (folder / name).write_text(json.dumps(held))

    return change


def _template_file(text: str) -> Builder:
    return lambda folder: (folder / "chat_template.jinja").write_text(text) and None


def _template_cases() -> Iterator[tuple[str, Builder]]:
    user = "{{ messages[0]['content'] }}"
    for label, text in {
        "raises": "{{ raise_exception('no\nway') }}",
        "does not parse": "{% for m in messages %}",
        "has an unknown tag": "{% nosuch %}",
        "has an unknown filter": user + "{{ 'a' | nosuch }}",
        "divides by zero": "{{ 1 // 0 }}",
        "reads what is not there": "{{ messages[7].content.x.y }}",
        "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}" + user,
        "loops and writes": "{% for a in range(99999) %}{% for b in range(99999) %}abc{% endfor %}{% endfor %}" + user,
        "calls itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "writes much": user + "{{ 'x' * 3000000 }}",
        "multiplies without end": user + "{{ 'x' * 10 ** 15 }}",
        "leaves out the user": "Hello.",
        "includes a file": "{% include '/etc/passwd' %}" + user,
        "reaches for Python": "{{ ''.__class__.__mro__[1].__subclasses__()[0].x() }}",
        "takes a large power": "{{ 9 ** (9 ** 9) }}" + user,
        "fills the memory": "{{ 'x' * 10 ** 11 }}" + user,
        "takes a power of what is said": "{{ (messages | length + 8) ** (9 ** 9) }}" + user,
        "wants a tool": "{{ tools[0].name.x }}" + user,
    }.items():
        yield f"template {label}", _template(text)
    yield "template not in UTF-8", _with("chat_template.jinja", b"\xff\xfe")


def _file_cases() -> Iterator[tuple[str, Builder]]:
    for name in (
        "config.json",
        _WEIGHTS,
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
        "extra.json",
    ):
        yield f"{name} is a FIFO", _special(name, os.mkfifo)
        yield f"{name} is a broken link", _special(name, lambda path: path.symlink_to("nowhere"))
    for name in ("config.json", _WEIGHTS, "tokenizer.json"):
        yield f"{name} is a folder", _special(name, Path.mkdir)
        yield f"{name} is a link to itself", _special(name, lambda path: path.symlink_to(path.name))
        yield f"{name} is /dev/zero", _special(name, lambda path: path.symlink_to("/dev/zero"))
    if os.getuid():  # nothing is unreadable to root
        yield "unreadable weights", _then(lambda folder: (folder / _WEIGHTS).chmod(0))
        yield "unreadable folder", _then(lambda folder: folder.chmod(0))
    yield "empty folder", lambda folder: folder.mkdir(parents=True)
    yield "a file", lambda folder: folder.write_bytes(b"x") and None
    yield "a FIFO", os.mkfifo
    yield "adapter alone", _then(lambda folder: _adapter(folder, keep=False))
    yield "adapter beside a model", _then(lambda folder: _adapter(folder, keep=True))
    yield "nothing", lambda _: None


def cases() -> Iterator[tuple[str, Builder]]:
    """Name and builder of every folder that must be refused with one line and exit code 2."""
    yield from _config_cases()
    yield from _weight_cases()
    yield from _tokenizer_cases()
    yield from _template_cases()
    yield from _file_cases()


def good() -> Iterator[tuple[str, Builder]]:
    """Name and builder of folders that are unusual and must work."""
    yield "sound", sound
    yield "sharded", _index(lambda _, __: None)
    yield "unknown keys in the config", _json("config.json", nosuch={"a": [1, None]}, another="x")
    yield "a folder within", _then(lambda folder: (folder / "runs").mkdir())
    yield "no generation config", _without("generation_config.json")
    yield "float16", _tensors(lambda held: held.update({key: value.half() for key, value in held.items()}))
    yield "no chat template", _without("chat_template.jinja")


NAMES = [
    "out/base",
    "out",
    "./a",
    "../a",
    "~/a",
    "a/b/c",
    "x" * 300,
    f"a/{'x' * 300}",
    "",
    " ",
    "[red]x[/red]",
    "\x1b[31m",
    "/",
    "/dev/null",
]
"""What is given as ``--model`` and is no model"""


def _attack(build: Builder, wanted: int, work: Path) -> str:
    build(work / "model")
    words = ["tasks", "--model", "./model", "--task", "strings:reverse", "--problems", "2"]
    return harness.command(words, work, 120.0, {"HF_HUB_OFFLINE": "1"}).fault((wanted,))


def _named(name: str, work: Path) -> str:
    words = ["tasks", "--model", name, "--task", "strings:reverse", "--problems", "2"]
    return harness.command(words, work, 120.0, {"HF_HUB_OFFLINE": "1"}).fault((2,))


def attacks() -> Iterator[Case]:
    """Every folder and name, given to the command line."""
    for wanted, asked in ((2, cases()), (0, good())):
        for name, build in asked:
            yield Case("models", name, partial(_attack, build, wanted))
    for name in NAMES:
        yield Case("models", f"--model {name[:40]!r}", partial(_named, name))
