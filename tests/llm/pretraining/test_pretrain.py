"""Training the base model: resumable to the last bit, finished directories are only shown, and its parts against plain Python."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fstsim.llm.pretraining.pretrain as module
from fstsim.__main__ import main
from fstsim.errors import InputError
from fstsim.llm.policy.loading import shipped_path
from fstsim.llm.policy.policy import Policy
from fstsim.llm.pretraining.config import POSITIONS, PRESETS, recorded
from fstsim.llm.pretraining.corpus import CorpusConfig, longest_line, training_batches
from fstsim.llm.pretraining.exam import Exam
from fstsim.llm.pretraining.pretrain import new_model, pretrain
from fstsim.llm.pretraining.tokenizer import build_tokenizer
from fstsim.llm.tasks.families import FAMILIES
from fstsim.llm.tasks.rules import SIZES
from fstsim.records import plain, read_json, read_rows

TINY = replace(PRESETS["smoke"], steps=6, layers=1, width=32, corpus=CorpusConfig(problems=3, reflections=2))


@pytest.fixture(scope="module", autouse=True)
def _short_exams() -> Iterator[None]:
    """Exams of two problems a part: nothing here asks how good a model is."""
    of_world = Exam.of_world
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Exam, "of_world", lambda *args, **kwargs: of_world(*args, **kwargs, problems=2))
        yield


Snapshot = dict[str, tuple[bytes, int]]


def snapshot(out: Path) -> Snapshot:
    """Bytes and time of the last change of every file."""
    return {str(p.relative_to(out)): (p.read_bytes(), p.stat().st_mtime_ns) for p in out.rglob("*") if p.is_file()}


class Killed(BaseException):
    """Stands for a kill at one exact place."""


def stop_at(step: int) -> Callable[[int, str], None]:
    def progress(done: int, _: str) -> None:
        if done == step:
            raise Killed

    return progress


def untimed(out: Path) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in row.items() if name != "seconds"} for row in read_rows(out / "metrics.jsonl")
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of an uninterrupted training; nobody changes it."""
    out = tmp_path_factory.mktemp("pretrain") / "whole"
    pretrain(TINY, out, every=2)
    return out


# --- stopped and continued -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stops", [[2, 3, 5], *(pytest.param([k], marks=pytest.mark.slow) for k in (1, 6))])
def test_stopped_and_continued(stops: list[int], whole: Path, tmp_path: Path) -> None:
    """After these steps, with a checkpoint every second step: the same weights bit for bit, the same rows but for times."""
    out = tmp_path / "model"
    for step in stops:
        with pytest.raises(Killed):
            pretrain(TINY, out, every=2, progress=stop_at(step))
        assert not (out / "model.safetensors").exists()
    pretrain(TINY, out, every=2)
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert untimed(out) == untimed(whole)
    assert {*snapshot(out)} == {*snapshot(whole)}
    assert not (out / "checkpoint.safetensors").exists()


@pytest.mark.parametrize("write", [2, *(pytest.param(k, marks=pytest.mark.slow) for k in (1, 3))])
def test_killed_after_a_write(write: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between checkpoint and rows, and after the weights are there but before the card: again and again."""
    made = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> None:
            nonlocal made
            real(*args, **kwargs)
            made += 1
            if made == write:
                raise Killed

        return call

    out, calls = tmp_path / "model", 0
    with monkeypatch.context() as patch:
        for name in ("write_checkpoint", "write_text"):
            patch.setattr(module, name, counted(getattr(module, name)))
        while calls < 5:
            made, calls = 0, calls + 1
            try:
                pretrain(TINY, out, every=2)
                break
            except Killed:
                continue
    assert calls > 1
    pretrain(TINY, out, every=2)
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert untimed(out) == untimed(whole)
    assert {*snapshot(out)} == {*snapshot(whole)}


def test_how_often_it_is_measured_changes_nothing(whole: Path, tmp_path: Path) -> None:
    pretrain(TINY, tmp_path / "model", every=100)
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert untimed(tmp_path / "model") == untimed(whole)[-1:]


def test_a_seed_is_a_model(whole: Path, tmp_path: Path) -> None:
    """Another seed gives other weights; what torch's own generator did before does not matter."""
    for seed, same in [(0, True), (1, False)]:
        torch.manual_seed(123)
        out = tmp_path / str(seed)
        pretrain(replace(TINY, seed=seed), out, every=6)
        found = (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
        assert found == same


# --- a directory is one model ----------------------------------------------------------------------------------------


def test_a_finished_model_is_only_shown(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file is touched: its environment is that of the training, not that of a later look."""
    before = snapshot(whole)
    monkeypatch.setattr(module, "_update", lambda *_: pytest.fail("nothing is left to do"))
    assert pretrain(TINY, whole) == read_rows(whole / "metrics.jsonl")[-1]
    assert snapshot(whole) == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"steps": 7}, "steps 6"),
        ({"seed": 1}, "seed 0"),
        ({"width": 64}, "width 32"),
        ({"lr": 1e-3}, "lr 0.004"),
        ({"precision": "float32"}, "precision bfloat16"),
        ({"corpus": CorpusConfig(problems=4, reflections=2)}, "corpus"),
        ({"corpus": replace(TINY.corpus, sizes={"strings": (4,), "digits": (4,), "star_graph": (3,)})}, "corpus"),
        ({"corpus": replace(TINY.corpus, depths=(0.5, 0.5))}, "corpus"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_another_configuration_is_refused(
    change: dict[str, Any], says: str, finished: bool, whole: Path, tmp_path: Path
) -> None:
    out = whole
    if not finished:
        out = tmp_path / "model"
        with pytest.raises(Killed):
            pretrain(TINY, out, every=2, progress=stop_at(3))
    before = snapshot(out)
    with pytest.raises(InputError, match=says) as caught:
        pretrain(replace(TINY, **change), out)
    assert "\n" not in str(caught.value)
    assert snapshot(out) == before


@pytest.mark.parametrize("text", ["[]", '{"steps": 6}', "3", "{", '"mine"'])
def test_a_configuration_that_is_none_of_ours_is_refused(text: str, tmp_path: Path) -> None:
    """Also one of a later version, with a setting that this one does not know."""
    later = json.dumps({**plain(dataclasses.asdict(TINY)), "momentum": 0.95})
    for name, held in [("given", text), ("later", later)]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "pretrain.json").write_text(held)
        before = snapshot(tmp_path)
        with pytest.raises(InputError) as caught:
            pretrain(TINY, tmp_path / name)
        assert "\n" not in str(caught.value)
        assert snapshot(tmp_path) == before


def test_a_directory_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match="is not empty and holds no model"):
        pretrain(TINY, tmp_path)
    assert snapshot(tmp_path) == before


def test_a_broken_checkpoint_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "model"
    with pytest.raises(Killed):
        pretrain(TINY, out, every=2, progress=stop_at(3))
    data = (out / "checkpoint.safetensors").read_bytes()
    for broken in (data[: len(data) // 2], b"mine"):
        (out / "checkpoint.safetensors").write_bytes(broken)
        with pytest.raises(InputError, match="is not a checkpoint of fstsim"):
            pretrain(TINY, out)


# --- what is in it ---------------------------------------------------------------------------------------------------


def test_the_directory_is_a_model_with_its_card(whole: Path) -> None:
    assert {path.name for path in whole.iterdir()} >= {
        "README.md", "config.json", "environment.json", "metrics.jsonl", "model.safetensors", "pretrain.json",
        "tokenizer.json",
    }  # fmt: skip
    assert not list(whole.glob("*.bin"))
    assert read_json(whole / "pretrain.json") == plain(recorded(TINY))
    policy = Policy.load(str(whole))
    assert policy.template == "world"
    assert policy.share_prompts
    assert {p.dtype for p in policy.model.parameters()} == {torch.float32}
    assert policy.sizes == SIZES
    assert policy.words == tuple(word for family in FAMILIES.values() for word in family.rules)
    count = sum(p.numel() for p in policy.model.parameters())
    card = (whole / "README.md").read_text()
    assert card.startswith("---\nlicense: mit\n")
    assert f"{count:,} parameters (1 layers, width 32)" in card
    rows = read_rows(whole / "metrics.jsonl")
    assert [row["step"] for row in rows] == [2, 4, 6]
    for name in FAMILIES:
        (line,) = [line for line in card.splitlines() if line.startswith(f"| {name} |")]
        numbers = [float(cell) for cell in line.split("|")[2:-1]]
        names = [*(f"accuracy_{name}_{k}" for k in (1, 2, 3)), f"reflection_{name}", f"old_mass_{name}"]
        assert numbers == [pytest.approx(rows[-1][column], abs=5e-4) for column in names]
    # the rows are of the weights that are there
    skills = Exam.of_world(policy.tokenizer).sit(policy.model)
    for name, value in skills.items():
        assert rows[-1][name] == pytest.approx(value, rel=1e-4, abs=1e-5)


def test_the_loss_of_a_row_is_the_mean_over_written_tokens() -> None:
    """One update: loss and gradient (clipped to norm 1) by hand, token by token, in float32."""
    config = replace(TINY, precision="float32")
    tokenizer = build_tokenizer()
    model = new_model(config, tokenizer)
    reference = copy.deepcopy(model)

    class Recorder(torch.optim.SGD):
        """Keeps the gradient that a step was made with."""

        def step(self, closure: Any = None) -> None:  # type: ignore[override]  # no closure here
            assert closure is None
            self.seen = [p.grad.clone() for group in self.param_groups for p in group["params"]]

    optimizer = Recorder(model.parameters(), lr=1.0)
    optimizer.param_groups[0]["initial_lr"] = 1.0
    loss = module._update(model, (optimizer,), config, 3)
    total, count = torch.zeros(()), 0
    for tokens, labels in training_batches(config.corpus, config.seed, 3, 3 / config.steps):
        for row, wanted in zip(tokens, labels, strict=True):
            length = int((wanted >= 0).nonzero().max()) + 1  # alone, without padding
            logp = torch.log_softmax(reference(row[None, :length], use_cache=False).logits[0], -1)
            for t in range(length):
                if wanted[t] >= 0:
                    total, count = total - logp[t, wanted[t]], count + 1
    mean = total / count
    assert loss == pytest.approx(float(mean.detach()), rel=1e-5)
    mean.backward()
    gradients = [p.grad for p in reference.parameters()]
    norm = math.sqrt(sum(float((g**2).sum()) for g in gradients))
    for found, expected in zip(optimizer.seen, gradients, strict=True):
        assert torch.allclose(found, expected / max(1.0, norm), rtol=1e-3, atol=1e-6)
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("steps", [6, 200, 1200])
def test_the_schedule_warms_up_and_falls_to_its_floor(steps: int) -> None:
    rates = np.array([module._schedule(step, steps) for step in range(steps)])
    assert (rates > 0.0).all()
    assert (rates <= 1.0).all()
    peak = int(rates.argmax())
    assert (np.diff(rates[: peak + 1]) >= 0.0).all()
    assert (np.diff(rates[peak:]) <= 1e-12).all()
    if steps == 1200:
        assert rates[0] == pytest.approx(1.0 / 50.0)
        assert rates[49] == rates[480] == 1.0
        assert rates[840] == pytest.approx(0.5)
        assert rates[-1] == pytest.approx(0.02)


def test_every_weight_is_trained_by_one_optimizer() -> None:
    model = new_model(TINY, build_tokenizer())
    held = [id(p) for o in module._optimizers(model, TINY) for group in o.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())


@pytest.mark.slow
def test_a_minute_of_training_learns_something(tmp_path: Path) -> None:
    """The recipe works: after 150 small steps the loss of a written token is far below that of guessing among letters."""
    config = replace(PRESETS["smoke"], steps=150, corpus=CorpusConfig(problems=32, reflections=8))
    row = pretrain(config, tmp_path / "model", every=75)
    first = read_rows(tmp_path / "model" / "metrics.jsonl")[0]
    assert row["loss"] < first["loss"] < 4.0
    assert row["loss"] < 1.9
    assert row["nll"] < first["nll"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"steps": 0}, "at least 1"),
        ({"layers": 0}, "at least 1"),
        ({"width": 48}, "multiple of 32"),
        ({"width": 0}, "multiple of 32"),
        ({"lr": 0.0}, "positive"),
        ({"lr_rest": math.nan}, "must be a number"),
        ({"seed": -1}, "seed"),
        ({"precision": "float16"}, "precision"),
        ({"corpus": CorpusConfig(sizes={"strings": (63,), "digits": (5,), "star_graph": (4,)})}, "512 positions"),
    ],
)
def test_settings_out_of_range(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        replace(TINY, **wrong)


# --- sizes of other presets ------------------------------------------------------------------------------------------

# the world of the medium preset, its sizes and depths, in a model and batches of nothing
MEDIUM = replace(TINY, steps=4, corpus=replace(PRESETS["medium"].corpus, problems=2, reflections=1))


def test_the_medium_preset_starts_writes_and_resumes(tmp_path: Path) -> None:
    """Its world in a tiny model: stopped and continued to the same bits; rows and card have every size and depth."""
    pretrain(MEDIUM, tmp_path / "whole", every=2)
    with pytest.raises(Killed):
        pretrain(MEDIUM, tmp_path / "model", every=2, progress=stop_at(3))
    row = pretrain(MEDIUM, tmp_path / "model", every=2)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("model", "whole")]
    assert weights[0] == weights[1]
    assert untimed(tmp_path / "model") == untimed(tmp_path / "whole")
    card = (tmp_path / "model" / "README.md").read_text()
    shown = [
        "strings@12",
        "digits@12",
        "star_graph@5",
        "strings@8",
        "digits@8",
        "star_graph@4",
        "strings@5",
        "digits@5",
    ]
    assert [line.split()[1] for line in card.splitlines() if "@" in line] == shown
    for name in ("strings", "strings@8", "strings@5", "digits@8", "star_graph", "star_graph@4"):
        (line,) = [x for x in card.splitlines() if x.startswith(f"| {name if '@' in name else shown_largest(name)} |")]
        columns = [*(f"accuracy_{name}_{k}" for k in range(1, 6)), f"reflection_{name}", f"old_mass_{name}"]
        assert [float(cell) for cell in line.split("|")[2:-1]] == [pytest.approx(row[c], abs=5e-4) for c in columns]
    policy = Policy.load(str(tmp_path / "model"))
    assert policy.sizes == MEDIUM.corpus.worlds()[0]
    skills = Exam.of_world(policy.tokenizer, {"digits": 8}, depth=5).sit(policy.model)
    for name, value in skills.items():
        if name != "nll":
            assert row[name.replace("digits", "digits@8")] == pytest.approx(value, rel=1e-4, abs=1e-5)


def shown_largest(family: str) -> str:
    """How a card names the largest size of a family, whose columns have no size in their names."""
    return f"{family}@{PRESETS['medium'].corpus.worlds()[0][family]}"


def test_the_medium_preset_has_the_size_it_says() -> None:
    """20 to 60 million parameters, counted without memory for them; lines fit the positions with room for contexts."""
    with torch.device("meta"):
        model = new_model(PRESETS["medium"], build_tokenizer())
    assert 20e6 < sum(p.numel() for p in model.parameters()) < 60e6
    assert longest_line(PRESETS["medium"].corpus) <= POSITIONS // 4


def test_batches_made_ahead_are_the_same() -> None:
    """What a device waits for is made in a thread: in order, from any step on, each once."""
    for first in (0, 3):
        behind, ahead = (list(module._batches(MEDIUM, first, ahead)) for ahead in (False, True))
        assert len(behind) == len(ahead) == MEDIUM.steps - first
        for one, two in zip(behind, ahead, strict=True):
            for a, b in zip(one, two, strict=True):
                assert torch.equal(a[0], b[0])
                assert torch.equal(a[1], b[1])


def test_a_loss_that_is_not_finite_stops_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that says where; the last checkpoint stays and is of before."""
    real = module._update
    out = tmp_path / "model"
    with monkeypatch.context() as patch:
        patch.setattr(module, "_update", lambda *args: math.nan if args[3] == 4 else real(*args))
        with pytest.raises(InputError, match=r"loss or gradient of step 5 .* not finite") as caught:
            pretrain(TINY, out, every=2)
    assert "\n" not in str(caught.value)
    assert (out / "checkpoint.safetensors").exists()
    assert [row["step"] for row in read_rows(out / "metrics.jsonl")] == [2, 4]
    pretrain(TINY, out, every=2)


def test_a_gradient_that_is_not_finite_is_not_stepped_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss is finite, its gradient is not: the weights stay as they were."""
    model = new_model(TINY, build_tokenizer())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    clip = torch.nn.utils.clip_grad_norm_
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *args: clip(*args) * math.inf)
    assert not math.isfinite(module._update(model, module._optimizers(model, TINY), TINY, 0))
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_trains_shows_and_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once to train; again, it is only shown; with another setting it is refused and nothing changes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PRESETS, "smoke", TINY)  # type: ignore[arg-type]  # a dict behind a Mapping
    command = ["pretrain", "--preset", "smoke", "--steps", "4", "--out", "deep/model"]
    assert main(command) == 0
    said = capsys.readouterr()
    assert "model: deep/model" in said.out
    assert "accuracy" in said.out
    assert "license" not in said.out
    assert max(map(len, said.out.splitlines())) <= 100
    assert read_json(tmp_path / "deep" / "model" / "pretrain.json")["steps"] == 4
    before = snapshot(tmp_path)
    assert main(command) == 0
    assert capsys.readouterr().out == said.out
    assert {name: data for name, (data, _) in snapshot(tmp_path).items()} == {k: d for k, (d, _) in before.items()}
    assert main([*command, "--seed", "1"]) == 2
    err = capsys.readouterr().err
    assert err == "fstsim: error: deep/model holds a model with seed 0, not 1: choose another --out\n"
    assert {name: data for name, (data, _) in snapshot(tmp_path).items()} == {k: d for k, (d, _) in before.items()}


def test_ctrl_c_keeps_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(PRESETS, "smoke", TINY)  # type: ignore[arg-type]  # a dict behind a Mapping
    real, out = module._update, tmp_path / "model"
    made = 0

    def stopping(*args: Any) -> float:
        nonlocal made
        made += 1
        if made == 4:
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_update", stopping)
        assert main(["pretrain", "--preset", "smoke", "--out", str(out)]) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith(f"continue with: fstsim pretrain --preset smoke --out {out}")
    assert main(["pretrain", "--preset", "smoke", "--out", str(out)]) == 0
    assert (out / "model.safetensors").exists()


@pytest.mark.skipif(not list(shipped_path().glob("*.safetensors")), reason="no base model is shipped yet")
def test_the_shipped_model_is_what_the_small_preset_makes() -> None:
    """Its record names the preset's configuration, and its card's numbers are those of its last row."""
    place = shipped_path()
    assert read_json(place / "pretrain.json") == plain(recorded(PRESETS["small"]))
    row = read_rows(place / "metrics.jsonl")[-1]
    assert row["step"] == PRESETS["small"].steps
    assert f"{row['accuracy_strings_1']:.3f}" in (place / "README.md").read_text()
