"""Checkpoints: what is read is what was written, training goes on to the same bits, and anything else is refused."""

from __future__ import annotations

import contextlib
import json
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch.optim import SGD, AdamW, Muon, Optimizer
from transformers import PreTrainedModel

import fstsim.llm.runs.checkpoint as checkpoint_module
from fstsim.errors import InputError
from fstsim.llm.runs.checkpoint import (
    pack_optimizer,
    put_weights,
    read_checkpoint,
    unpack_optimizer,
    weights_of,
    write_checkpoint,
)

MakeModel = Callable[..., PreTrainedModel]


def refused(attempt: Callable[[], object], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        attempt()
    assert "\n" not in str(caught.value)


# --- files -----------------------------------------------------------------------------------------------------------


def test_tensors_and_meta_come_back(tmp_path: Path) -> None:
    """All kinds of tensors to the bit, nan and views among them; numbers of the meta exactly."""
    path = tmp_path / "folder" / "checkpoint.safetensors"
    tensors = {
        "single": torch.randn(3, 4),
        "double": torch.randn(2, dtype=torch.float64),
        "half": torch.randn(5).bfloat16(),
        "whole": torch.tensor([2**62, -1]),
        "flags": torch.tensor([True, False]),
        "number": torch.tensor(7.0),
        "empty": torch.empty(0, 3),
        "odd": torch.tensor([math.nan, math.inf, -0.0]),
        "turned": torch.arange(6.0).view(2, 3).T,
        "learned": torch.nn.Parameter(torch.ones(2)),
    }
    tensors["same"] = tensors["single"]  # tied: two names, one memory
    tensors["part"] = tensors["single"][1:]
    meta = {"step": 3, "lr": 0.1 + 0.2, "rows": [{"loss": 1e-300, "name": "größer"}], "none": None, "big": 2**80}
    write_checkpoint(path, tensors, meta)
    found, told = read_checkpoint(path)
    assert told == meta
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert torch.equal(torch.nan_to_num(found[name]), torch.nan_to_num(tensor.detach())), name
        assert not found[name].requires_grad
    assert math.copysign(1.0, float(found["odd"][2])) == -1.0
    assert [p.name for p in path.parent.iterdir()] == [path.name], "no temporary file is left"


def test_a_failed_write_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    write_checkpoint(path, {"a": torch.ones(2)}, {"step": 1})
    with pytest.raises(TypeError):
        write_checkpoint(path, {"a": torch.zeros(2)}, {"step": object()})
    found, meta = read_checkpoint(path)
    assert meta == {"step": 1}
    assert found["a"].tolist() == [1.0, 1.0]
    assert len(list(tmp_path.iterdir())) == 1


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    """Missing, empty, text, cut off anywhere, a folder, weights of other makers, a pickle: one clear line each."""
    good = tmp_path / "good.safetensors"
    write_checkpoint(good, {"a": torch.randn(8, 8)}, {"step": 1})
    data = good.read_bytes()
    refused(lambda: read_checkpoint(tmp_path / "missing"), "no checkpoint at .*missing")
    refused(lambda: read_checkpoint(tmp_path), "is not a file")
    for k, content in enumerate([b"", b"hello", b"{}" * 100, data[:4], data[:20], data[:-1], data[8:], data + b"\0"]):
        path = tmp_path / f"bad{k}"
        path.write_bytes(content)
        refused(lambda p=path: read_checkpoint(p), f"bad{k} is not a checkpoint")
    save_file({"a": torch.ones(2)}, tmp_path / "other")
    refused(lambda: read_checkpoint(tmp_path / "other"), "other is not a checkpoint")
    save_file({"a": torch.ones(2)}, tmp_path / "broken", metadata={"meta": "{not json"})
    refused(lambda: read_checkpoint(tmp_path / "broken"), "broken is damaged, or not what fstsim writes")
    torch.save({"a": torch.ones(2)}, tmp_path / "pickle")
    refused(lambda: read_checkpoint(tmp_path / "pickle"), "pickle is not a checkpoint")


@given(places=st.lists(st.tuples(st.floats(0.0, 1.0, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_damage_to_the_header_is_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, places: list[tuple[float, int]]
) -> None:
    """Never another exception, whatever bytes of length, names, shapes and meta are overwritten."""
    folder = tmp_path_factory.mktemp("damage")
    path = folder / "good"
    write_checkpoint(path, {"a": torch.ones(2, 3), "b": torch.zeros(1)}, {"step": 1, "rows": [{"loss": 0.5}]})
    data = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(data[:8], "little")
    for where, value in places:
        data[int(where * header)] = value
    damaged = folder / "damaged"
    damaged.write_bytes(data)
    try:
        tensors, _ = read_checkpoint(damaged)
    except InputError:
        return
    assert all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())


# --- going on with training ------------------------------------------------------------------------------------------


def adamw_and_muon(model: torch.nn.Module) -> list[Optimizer]:
    """As in pretraining: Muon on the matrices, AdamW on the rest."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    rest = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [Muon(matrices, lr=0.01, weight_decay=0.01), AdamW(rest, lr=0.003, betas=(0.9, 0.98))]


OPTIMIZERS: dict[str, Callable[[torch.nn.Module], list[Optimizer]]] = {
    "adamw": lambda model: [AdamW(model.parameters(), lr=0.003, amsgrad=True)],
    "adamw and muon": adamw_and_muon,
    "momentum": lambda model: [SGD(model.parameters(), lr=0.1, momentum=0.9)],
    "groups": lambda model: [
        AdamW([{"params": [p], "lr": 0.001 * (i + 1)} for i, p in enumerate(model.parameters())], weight_decay=0.1)
    ],
}


def train(model: PreTrainedModel, optimizers: list[Optimizer], steps: range) -> list[float]:
    """Next-token losses on sequences that are a function of the step; the learning rate changes on the way."""
    losses = []
    for step in steps:
        tokens = torch.randint(64, (4, 9), generator=torch.Generator().manual_seed(step))
        loss = model(tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        losses.append(loss.item())
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] *= 0.9
            optimizer.step()
            optimizer.zero_grad()
    return losses


def save(path: Path, model: PreTrainedModel, optimizers: list[Optimizer]) -> None:
    packed = [pack_optimizer(optimizer, f"optimizer{k}") for k, optimizer in enumerate(optimizers)]
    tensors = dict(weights_of(model))
    for more, _ in packed:
        assert not set(more) & set(tensors)
        tensors |= more
    write_checkpoint(path, tensors, {"optimizers": [rest for _, rest in packed]})


def restore(path: Path, model: PreTrainedModel, optimizers: list[Optimizer]) -> None:
    tensors, meta = read_checkpoint(path)
    put_weights(model, tensors, path)
    for k, optimizer in enumerate(optimizers):
        unpack_optimizer(optimizer, f"optimizer{k}", tensors, meta["optimizers"][k])


@pytest.mark.parametrize("kind", ["qwen3", "llama"])
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("before", [0, 3])
def test_training_goes_on_to_the_same_bits(
    make_model: MakeModel, tmp_path: Path, kind: str, name: str, before: int
) -> None:
    """Stopped after some steps, or before the first, and continued by another model and optimizer: nothing differs."""
    whole = make_model(kind, seed=0)
    optimizers = OPTIMIZERS[name](whole)
    train(whole, optimizers, range(before))
    save(tmp_path / "checkpoint", whole, optimizers)
    losses = train(whole, optimizers, range(before, before + 4))
    again = make_model(kind, seed=1)
    others = OPTIMIZERS[name](again)
    train(again, others, range(50, 52))  # a state of its own, to be overwritten
    restore(tmp_path / "checkpoint", again, others)
    assert train(again, others, range(before, before + 4)) == losses
    for (one, p), (two, q) in zip(whole.named_parameters(), again.named_parameters(), strict=True):
        assert one == two
        assert torch.equal(p, q), one
    for a, b in zip(optimizers, others, strict=True):
        assert [g["lr"] for g in a.param_groups] == [g["lr"] for g in b.param_groups]


def test_more_than_ten_optimizers_keep_apart(tmp_path: Path) -> None:
    """Names of states do not run into each other: optimizer1 and optimizer10."""
    values = [torch.nn.Parameter(torch.tensor([float(k)])) for k in range(12)]
    optimizers = [SGD([p], lr=0.1, momentum=0.9) for p in values]
    for p, optimizer in zip(values, optimizers, strict=True):
        (p * p).sum().backward()
        optimizer.step()
    tensors: dict[str, torch.Tensor] = {}
    rests = []
    for k, optimizer in enumerate(optimizers):
        more, rest = pack_optimizer(optimizer, f"optimizer{k}")
        tensors |= more
        rests.append(rest)
    write_checkpoint(tmp_path / "c", tensors, {"rests": rests})
    found, meta = read_checkpoint(tmp_path / "c")
    for k, p in enumerate(values):
        fresh = SGD([p], lr=0.1, momentum=0.9)
        unpack_optimizer(fresh, f"optimizer{k}", found, meta["rests"][k])
        assert float(fresh.state[p]["momentum_buffer"]) == 2.0 * k


class Counting(SGD):
    """An optimizer whose state holds plain numbers besides tensors."""

    def step(self, closure: Any = None) -> None:
        super().step(closure)
        for p in self.param_groups[0]["params"]:
            self.state[p]["calls"] = self.state[p].get("calls", 0) + 1
            self.state[p]["last"] = 0.1


def test_numbers_in_an_optimizers_state(tmp_path: Path) -> None:
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = Counting([p], lr=0.1, momentum=0.5)
    for _ in range(3):
        (p * p).sum().backward()
        optimizer.step()
    tensors, rest = pack_optimizer(optimizer, "o")
    write_checkpoint(tmp_path / "c", tensors, {"rest": rest})
    found, meta = read_checkpoint(tmp_path / "c")
    fresh = Counting([p], lr=9.0, momentum=0.5)
    unpack_optimizer(fresh, "o", found, meta["rest"])
    assert fresh.state[p]["calls"] == 3
    assert fresh.state[p]["last"] == 0.1
    assert fresh.param_groups[0]["lr"] == 0.1


# --- another model ---------------------------------------------------------------------------------------------------


def test_tied_weights_are_stored_once_and_stay_tied(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model("qwen3")
    tensors = weights_of(model)
    assert "model.lm_head.weight" not in tensors
    assert sum(t.numel() for t in tensors.values()) == sum(p.numel() for p in model.parameters())
    write_checkpoint(tmp_path / "c", tensors, {})
    other = make_model("qwen3", seed=1)
    put_weights(other, read_checkpoint(tmp_path / "c")[0], tmp_path / "c")
    assert other.lm_head.weight is other.model.embed_tokens.weight
    assert torch.equal(other.lm_head.weight, model.lm_head.weight)
    tokens = torch.arange(3, 20)[None]
    assert torch.equal(other(tokens).logits, model(tokens).logits)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hidden_size": 64}, r"shape \(64, 32\)"),
        ({"vocab_size": 70}, r"shape \(64, 32\)"),
        ({"num_hidden_layers": 3}, r"nothing for .*layers\.2"),
        ({"kind": "llama"}, r"nothing for lm_head\.weight"),
    ],
)
def test_weights_of_another_model(make_model: MakeModel, tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    """The first weight that does not fit is named, with the file and both shapes."""
    path = tmp_path / "checkpoint"
    write_checkpoint(path, weights_of(make_model()), {})
    tensors, _ = read_checkpoint(path)
    refused(lambda: put_weights(make_model(**changes), tensors, path), f"checkpoint has {says}.*another model")


def test_a_flipped_bit_anywhere_is_found(tmp_path: Path) -> None:
    """In a weight, in the settings, in the checksum: every byte of a small file, one bit of each."""
    path = tmp_path / "checkpoint.safetensors"
    tensors = {
        "w": torch.randn(3, generator=torch.Generator().manual_seed(0)),
        "n": torch.tensor(7),
        "none": torch.zeros(0),
    }
    write_checkpoint(path, tensors, {"lr": 0.001})
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with contextlib.suppress(InputError):
            read, meta = read_checkpoint(path)
            assert meta == {"lr": 0.001}, f"byte {place}"  # harmless: a space of the header, say
            assert all(torch.equal(read[name], tensors[name]) for name in tensors), f"byte {place}"
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(InputError, match="is damaged: its checksum"):
        read_checkpoint(path)


def test_a_checkpoint_from_before_there_was_a_checksum_is_read(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_file({"w": torch.ones(2)}, path, metadata={"meta": json.dumps({"lr": 1.0})})
    tensors, meta = read_checkpoint(path)
    assert meta == {"lr": 1.0}
    assert tensors["w"].tolist() == [1.0, 1.0]


def test_tensors_are_written_from_their_own_memory_and_read_by_safetensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No copy of a tensor is made; the file is one that the library reads, whatever types and names are in it."""
    tensors = {
        "odd": torch.arange(3).to(torch.bfloat16),
        "w.000000000": torch.randn(5, 7),
        "step": torch.tensor(3.0),
        "long": torch.arange(4),
        "yes": torch.tensor([True, False, True]),
        "turned": torch.randn(4, 6).T,
        "none": torch.zeros(0, 3),
    }
    written: list[int] = []

    def watched(path: Path, write: Any) -> None:
        class File:
            def write(self, data: Any) -> None:
                written.append(np.frombuffer(data, np.uint8).ctypes.data if len(data) else 0)
                file.write(data)

            def seek(self, place: int) -> None:
                file.seek(place)

        with path.open("wb") as file:
            write(File())

    monkeypatch.setattr(checkpoint_module, "write_atomically", watched)
    meta = {"crc32_of_all": "00000000", "rows": ["é", 1.5]}
    write_checkpoint(tmp_path / "c", tensors, meta)
    for name in ("odd", "w.000000000", "step", "long", "yes"):
        assert tensors[name].data_ptr() in written, name
    theirs, (ours, read) = load_file(tmp_path / "c"), read_checkpoint(tmp_path / "c")
    assert read == meta
    assert theirs.keys() == ours.keys() == tensors.keys()
    for name, tensor in tensors.items():
        for other in (theirs[name], ours[name]):
            assert other.dtype == tensor.dtype
            assert torch.equal(other, tensor), name


def test_a_checkpoint_with_the_older_checksum_is_checked_too(tmp_path: Path) -> None:
    tensors = {"b": torch.ones(2), "a": torch.tensor(3)}
    total = zlib.crc32(b'{"lr": 1.0}')
    for name in ("a", "b"):
        total = zlib.crc32(tensors[name].numpy().tobytes(), zlib.crc32(name.encode(), total))
    for crc, whole in ((total, True), (total ^ 1, False)):
        save_file(tensors, tmp_path / "c", metadata={"meta": '{"lr": 1.0}', "crc32": f"{crc:08x}"})
        if whole:
            assert read_checkpoint(tmp_path / "c")[1] == {"lr": 1.0}
        else:
            with pytest.raises(InputError, match="damaged"):
                read_checkpoint(tmp_path / "c")
