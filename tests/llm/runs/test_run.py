"""Training runs: a directory can be stopped at any moment and continued to the same bytes; what a row counts is what was drawn.

The model is tiny, and was shown a few lines of the corpus, so that it writes letters and rule words, right now and then:
rewards vary, contexts are accepted and groups have signal.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

import fstsim.llm.learners.sdft as sdft_module
import fstsim.llm.learners.weights as weights_module
import fstsim.llm.policy.blocks as blocks_module
import fstsim.llm.runs.behaviour as behaviour_module
import fstsim.llm.runs.clock as clock_module
import fstsim.llm.runs.old_prompts as old_prompts_module
import fstsim.llm.runs.probes as probes_module
import fstsim.llm.runs.run as module
import fstsim.llm.runs.run_checkpoint as run_checkpoint
import fstsim.records as records_module
from fstsim.__main__ import main
from fstsim.errors import InputError
from fstsim.llm.contexts.policy_adapter import PolicyAdapter
from fstsim.llm.contexts.prompt_evolution import PromptEvolution
from fstsim.llm.contexts.reflection import SelfReflection
from fstsim.llm.learners.mixture import MixtureDistillation
from fstsim.llm.learners.oapl import OAPL
from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.learners.sdft import SDFT
from fstsim.llm.learners.sft import SupervisedFineTuning
from fstsim.llm.learners.ttt import TTTDiscover
from fstsim.llm.learners.weights import Diverged, Weights
from fstsim.llm.measure.loading import load_base, load_checkpoint
from fstsim.llm.policy.policy import Policy
from fstsim.llm.pretraining.corpus import collate, problem_line, reflection_line
from fstsim.llm.runs.checkpoint import read_checkpoint
from fstsim.llm.runs.config import METHODS, PRESETS, TrainConfig
from fstsim.llm.runs.optimizer import OptimizerConfig
from fstsim.llm.runs.probes import Probe, ProbeConfig
from fstsim.llm.runs.relearning import relearn_steps
from fstsim.llm.runs.run import run_training
from fstsim.llm.tasks.families import STRINGS
from fstsim.llm.tasks.rules import parse_rules
from fstsim.llm.types import Population
from fstsim.records import plain, read_json, read_rows, row_line

MakePolicy = Callable[..., Policy]

RUN_METHODS = ("rl", "sft", "fst", "gepa", "sdft", "ttt", "oapl", "mixture")


def mostly_slow(*now: str, later: Sequence[str] = RUN_METHODS) -> list[Any]:
    """Methods for `parametrize`: ``now`` in every run of the tests, the others of ``later`` among the slow ones."""
    return [*now, *(pytest.param(name, marks=pytest.mark.slow) for name in later if name not in now)]


STEPS = 5


@pytest.fixture(scope="module")
def model(make_policy: MakePolicy, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A saved policy of one layer that has seen 60 steps of problems and reflections of strings."""
    policy = make_policy(initializer_range=0.05, max_position_embeddings=80, num_hidden_layers=1)
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=8e-3)
    rng = np.random.default_rng(0)
    for _ in range(60):
        problems = [problem_line(STRINGS, 5, rng) for _ in range(24)]
        for lines in (problems, [reflection_line(STRINGS, 5, rng) for _ in range(4)]):
            tokens, labels = collate(lines)
            logits = policy.model(tokens, use_cache=False).logits
            F.cross_entropy(logits.flatten(0, 1), labels.flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    path = tmp_path_factory.mktemp("model")
    policy.model.save_pretrained(path)
    policy.tokenizer.save_pretrained(path)
    return str(path)


@pytest.fixture(autouse=True)
def _short_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relearning probe of three steps in place of sixty, and few problems: probes are tested on their own."""
    monkeypatch.setattr(module, "relearn_steps", functools.partial(relearn_steps, most=3, batch=4))
    probe = ProbeConfig(every=10, problems=6, exam=2)
    monkeypatch.setitem(PRESETS, "smoke", replace(PRESETS["smoke"], probe=probe))


def tiny(method: str, model: str, **changes: Any) -> TrainConfig:
    """Five steps with a measurement after each but the third, and rounds before steps 1, 3 and 5 (every step with gepa)."""
    changes = {"tasks": ("strings:next/share",), "steps": STEPS, "lr": 3e-3, "seed": 1, **changes}
    if method in LEARNER:
        changes = {"learner": LEARNER[method], **changes}
    if METHODS[method].evolves:
        fast = PromptEvolution(contexts=2, rollout_budget=24, validation=4, shown=4, max_new_tokens=6)
        changes = {"fast": fast, "slow_steps_per_round": 2, **changes}
    changes = {"probe": ProbeConfig(every=4, problems=3, exam=1, max_new_tokens=6), **changes}
    return TrainConfig(method=method, model=model, **changes)


LEARNER: dict[str, Any] = {
    "rl": PolicyGradient(problems=3, rollouts=4, max_new_tokens=6),
    "fst": PolicyGradient(problems=3, rollouts=4, max_new_tokens=6),
    "sft": SupervisedFineTuning(problems=4, replay_share=0.25),
    "sdft": SDFT(problems=4, demonstration="examples", ema_rate=0.3, teacher_share=0.7, max_new_tokens=6),
    "ttt": TTTDiscover(problems=3, rollouts=4, leash_reward=0.01, max_new_tokens=6),
    "oapl": OAPL(problems=3, rollouts=4, period=3, lagged_share=0.9, max_new_tokens=6),
    "mixture": MixtureDistillation(problems=4, max_new_tokens=6),
}


class Killed(BaseException):
    """Stands for a kill at one exact place."""


def stop_at(step: int) -> Callable[[int, str], None]:
    def progress(done: int, note: str) -> None:
        assert note
        if done == step:
            raise KeyboardInterrupt

    return progress


Snapshot = dict[str, tuple[bytes, int]]


def snapshot(out: Path) -> Snapshot:
    """Bytes and time of the last change of every file."""
    return {str(p.relative_to(out)): (p.read_bytes(), p.stat().st_mtime_ns) for p in out.rglob("*") if p.is_file()}


def assert_same_run(one: Path, other: Path) -> None:
    """Everything but times: the same files, rows and prompts byte for byte, every tensor bit for bit."""
    assert {*snapshot(one)} == {*snapshot(other)}
    for name in ("metrics.jsonl", "prompts.jsonl", "config.json", "model/model.safetensors"):
        if (one / name).exists():
            assert (one / name).read_bytes() == (other / name).read_bytes(), name
    (tensors, meta), (wanted, wanted_meta) = (read_checkpoint(out / "checkpoint.safetensors") for out in (one, other))
    assert tensors.keys() == wanted.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, wanted[name]), name
    for held in (meta, wanted_meta):
        assert held.pop("spent").keys() == {"seconds", "probe_seconds", "relearn_seconds"}
    assert json.dumps(meta) == json.dumps(wanted_meta)
    for out in (one, other):
        summary = read_json(out / "summary.json")
        shares = ("probe_share", "relearn_share")
        timed = {name: summary.pop(name) for name in ("seconds", "rollouts_per_second", *shares)}
        assert timed["seconds"] > 0.0
        assert all(0.0 < timed[name] < 1.0 for name in shares)
        meta[str(out)] = summary
    assert meta[str(one)] == meta[str(other)]


@pytest.fixture(scope="module")
def whole(model: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``whole(method)``: the directory of an uninterrupted run; nobody changes it."""
    done: dict[str, Path] = {}

    def run(method: str) -> Path:
        if method not in done:
            done[method] = tmp_path_factory.mktemp(method) / "run"
            run_training(tiny(method, model), done[method])
        return done[method]

    return run


Whole = Callable[[str], Path]


# --- stopped and continued -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "stops"),
    [
        ("sft", [3]),
        ("fst", [1, 3, STEPS]),
        ("sdft", [2, 4]),
        pytest.param("fst", range(1, STEPS + 1), marks=pytest.mark.slow),
        pytest.param("sdft", range(1, STEPS + 1), marks=pytest.mark.slow),
        pytest.param("rl", range(1, STEPS + 1), marks=pytest.mark.slow),
        pytest.param("gepa", [3, STEPS], marks=pytest.mark.slow),
        pytest.param("ttt", [3], marks=pytest.mark.slow),
        pytest.param("oapl", range(1, STEPS + 1), marks=pytest.mark.slow),
        pytest.param("mixture", [2], marks=pytest.mark.slow),
    ],
)
def test_stopped_after_steps(method: str, stops: Sequence[int], model: str, whole: Whole, tmp_path: Path) -> None:
    """Ctrl-C after one step, again after a later one, and so on: each time it goes on from the last measurement."""
    config, out = tiny(method, model), tmp_path / "run"
    for step in stops:
        with pytest.raises(KeyboardInterrupt):
            run_training(config, out, stop_at(step))
        assert not (out / "summary.json").exists()
    run_training(config, out)
    assert_same_run(out, whole(method))


@pytest.mark.parametrize(
    "settings",
    [
        {"replay_share": 0.5, "replay": "own", "replay_tries": 3},
        {"leash_loss": 0.5},
        {"leash_loss": 0.5, "leash_direction": "forward"},
    ],
    ids=["own replay", "reverse leash", "forward leash"],
)
def test_stopped_where_fine_tuning_samples(settings: dict[str, Any], model: str, tmp_path: Path) -> None:
    """What policy or base write is drawn from the run's one generator."""
    config = tiny("sft", model, learner=SupervisedFineTuning(problems=6, **settings))
    with pytest.raises(KeyboardInterrupt):
        run_training(config, tmp_path / "stopped", stop_at(3))
    run_training(config, tmp_path / "stopped")
    rows = run_training(config, tmp_path / "whole")
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")
    assert rows[-1]["samples"] % 3 == 0
    column = "leash_kl" if "leash_loss" in settings else "own_right"
    assert all(column in row for row in rows[1:])


@pytest.mark.parametrize("method", mostly_slow("sdft", later=["sft", "mixture", "rl"]))
def test_batches_of_large_vocabularies_are_learned_in_parts(
    method: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same run, but for rounding, when no more than a few logits are held at once; probes too."""
    config = tiny(method, model, steps=1, lr=1e-4)
    whole = run_training(config, tmp_path / "whole")
    monkeypatch.setattr(weights_module, "_LOGITS_AT_ONCE", 1200)
    monkeypatch.setattr(blocks_module, "_LOGITS", 1200)
    for row, wanted in zip(run_training(config, tmp_path / "parts"), whole, strict=True):
        assert row.keys() == wanted.keys()
        for name, value in wanted.items():
            assert row[name] == pytest.approx(value, rel=2e-3, abs=2e-5), name


@pytest.mark.parametrize("kind", ["adamw-bf16-moments", pytest.param("sgd", marks=pytest.mark.slow)])
def test_stopped_with_another_optimizer_and_a_schedule(kind: str, model: str, tmp_path: Path) -> None:
    """Rates of every step, moments and random rounding go on as they would have."""
    momentum = {"momentum": 0.5} if kind == "sgd" else {}
    optimizer = OptimizerConfig(kind=kind, weight_decay=0.1, warmup=2, schedule="cosine", **momentum)  # type: ignore[arg-type]
    config = tiny("sft", model, optimizer=optimizer)
    for step in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            run_training(config, tmp_path / "stopped", stop_at(step))
    run_training(config, tmp_path / "stopped")
    run_training(config, tmp_path / "whole")
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")
    _, meta = read_checkpoint(tmp_path / "whole" / "checkpoint.safetensors")
    assert meta["optimizer"]["groups"][0]["lr"] == optimizer.rate(3e-3, STEPS - 1, STEPS), "of the last step"


def test_every_step_has_its_rate(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over all tasks of a run together."""
    real, seen = Weights.apply, []

    def watched(self: Weights, what: str) -> float:
        seen.append(self.optimizer.param_groups[0]["lr"])
        return real(self, what)

    monkeypatch.setattr(Weights, "apply", watched)
    monkeypatch.setattr(module, "relearn_steps", lambda *_: 1)
    optimizer = OptimizerConfig(warmup=1, schedule="linear")
    tasks = ("strings:next/share", "strings:reverse")
    run_training(tiny("sft", model, tasks=tasks, steps=2, lr=0.01, optimizer=optimizer), tmp_path / "run")
    assert seen == pytest.approx([0.005, 0.01, 0.01 * 2 / 3, 0.01 / 3])


@pytest.mark.parametrize("method", mostly_slow("sft", later=["rl", "sdft", "oapl"]))
def test_an_adapter_is_stopped_continued_and_measured(method: str, model: str, tmp_path: Path) -> None:
    """Byte for byte; the checkpoint holds adapters alone, and what is written at the end is what was trained."""
    config = tiny(method, model, adapter="lora:r=4", gradient_checkpointing=method == "sft")
    for step in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            run_training(config, tmp_path / "stopped", stop_at(step))
    rows = run_training(config, tmp_path / "stopped")
    run_training(config, tmp_path / "whole")
    for name in ("metrics.jsonl", "model/adapter_model.safetensors"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    tensors, _ = read_checkpoint(tmp_path / "whole" / "checkpoint.safetensors")
    assert all("lora_" in name for name in tensors if not name.startswith("optimizer."))
    assert (rows[0]["kl_to_base"], rows[0]["kl_from_base"]) == (0.0, 0.0), (
        "off is the base, new is the base, to the bit"
    )
    assert rows[-1]["kl_to_base"] > 1e-5
    base = load_base(model, "cpu")
    trained = load_checkpoint(str(tmp_path / "whole" / "model"), base)
    probe = Probe(base, parse_rules("strings:next/share"), config.probe, config.seed)
    again = probe.measure(trained, Population())
    for name in ("reward", "old_mass", "kl_to_base", "kl_from_base", "entropy"):
        assert again[name] == pytest.approx(rows[-1][name], rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize(
    ("adapter", "says"),
    [("lora:q=3", "--adapter must be lora:r=16"), ("dora", "--adapter must be"), ("lora:r=0", "r of --adapter")],
)
def test_adapters_that_are_none(adapter: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        TrainConfig(adapter=adapter)


def test_an_adapter_needs_weights_that_are_trained() -> None:
    with pytest.raises(InputError, match="gepa leaves them as they are"):
        TrainConfig(method="gepa", adapter="lora:r=4")


@pytest.mark.slow
@settings(max_examples=10)
@given(st.sampled_from(RUN_METHODS), st.lists(st.integers(1, STEPS), max_size=6))
def test_stopped_at_random_steps(
    model: str, whole: Whole, tmp_path_factory: pytest.TempPathFactory, method: str, stops: list[int]
) -> None:
    """At any steps, any number of times, in any order: a step that has been passed does not stop it."""
    config, out = tiny(method, model), tmp_path_factory.mktemp("stopped") / "run"
    for step in stops:
        try:
            run_training(config, out, stop_at(step))
        except KeyboardInterrupt:
            continue
        break
    run_training(config, out)
    assert_same_run(out, whole(method))


@pytest.mark.parametrize(
    ("method", "write"),
    [("fst", 2), *(pytest.param(*each, marks=pytest.mark.slow) for each in [("rl", 1), ("fst", 1), ("fst", 3)])],
)
def test_killed_after_a_write(
    method: str, write: int, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoint, rows, prompts, summary are written in turn: killed after the n-th of these writes, again and again.

    The last checkpoint can be on disk while the rows or prompts that belong to it are not.
    """
    config = tiny(method, model, steps=2, probe=ProbeConfig(every=1, problems=2, exam=1, max_new_tokens=6))
    made = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> None:
            nonlocal made
            real(*args, **kwargs)
            made += 1
            if made == write:
                raise Killed

        return call

    killed, calls = tmp_path / "killed", 0
    with monkeypatch.context() as patch:
        for owner, name in ((run_checkpoint, "write_checkpoint"), (records_module, "write_text")):
            patch.setattr(owner, name, counted(getattr(owner, name)))
        while calls < 20:
            made, calls = 0, calls + 1
            try:
                run_training(config, killed)
                break
            except Killed:
                (killed / ".metrics.jsonl.1-0123abcd.tmp").write_text("left by a kill in the middle of a write")
    assert 1 < calls < 20
    run_training(config, killed)
    run_training(config, tmp_path / "whole")
    (killed / ".metrics.jsonl.1-0123abcd.tmp").unlink(missing_ok=True)
    assert_same_run(killed, tmp_path / "whole")


@pytest.mark.parametrize(
    ("method", "place"),
    [
        ("fst", "reflecting"),
        pytest.param("fst", "scoring", marks=pytest.mark.slow),
        pytest.param("gepa", "scoring", marks=pytest.mark.slow),
    ],
)
def test_stopped_in_the_middle_of_a_round(
    method: str, place: str, model: str, whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C inside of GEPA, while contexts are scored or written: at the 2nd such moment of each call, then the 5th, ..."""
    owner, name = (PolicyAdapter, "scores") if place == "scoring" else (SelfReflection, "propose")
    real = getattr(owner, name)
    config, out = tiny(method, model), tmp_path / "run"
    stops = 0
    for stop in (2, 6, 12) if place == "scoring" else (1, 2, 3):  # contexts are written more seldom than scored
        made = 0

        def counted(*args: Any, stop: int = stop, **kwargs: Any) -> Any:
            nonlocal made
            made += 1
            if made == stop:
                raise KeyboardInterrupt
            return real(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, counted)
            try:
                run_training(config, out)
                break
            except KeyboardInterrupt:
                stops += 1
    assert stops >= 2
    run_training(config, out)
    assert_same_run(out, whole(method))


def test_the_trained_model_can_be_left_out_and_written_later(model: str, whole: Whole, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run_training(tiny("rl", model), out, write_model=False)
    assert not (out / "model").exists()
    before = snapshot(out)
    run_training(tiny("rl", model), out, write_model=False)
    assert snapshot(out) == before
    run_training(tiny("rl", model), out)
    assert_same_run(out, whole("rl"))


def test_measurements_are_told_as_they_come(model: str, whole: Whole, tmp_path: Path) -> None:
    """Each once and in order; those of before an interruption again, at the start."""
    told: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        run_training(tiny("sft", model), tmp_path / "run", stop_at(2), measured=lambda row: told.append(row["step"]))
    assert told == [0, 1, 2]
    run_training(tiny("sft", model), tmp_path / "run", measured=lambda row: told.append(row["step"]))
    measured = [row["step"] for row in read_rows(whole("sft") / "metrics.jsonl") if "reward" in row]
    assert told[3:] == measured == [0, 1, 2, 4, 5]


@pytest.mark.parametrize(("most", "told"), [(0, False), (2, True), (None, True)])
def test_relearning_is_measured_where_it_is_wanted(most: int | None, told: bool, model: str, tmp_path: Path) -> None:
    probe = ProbeConfig(problems=2, exam=1, max_new_tokens=6, relearn=most)
    rows = run_training(tiny("sft", model, steps=1, probe=probe), tmp_path / "run")
    assert [("relearn" in row) for row in rows] == [told, told]
    assert not told or all(row["relearn"] <= (most or 3) + 1 for row in rows)


def test_what_is_long_unsaved_is_saved_between_measurements(
    model: str, whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step 3 is not measured; stopped there, the run goes on from there."""
    monkeypatch.setattr(clock_module, "_UNSAVED_SECONDS", 0.0)
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run_training(tiny("fst", model), out, stop_at(3))
    assert [row["step"] for row in read_rows(out / "metrics.jsonl")] == [0, 1, 2, 3]
    assert "reward" not in read_rows(out / "metrics.jsonl")[-1]
    seen: list[int] = []
    run_training(tiny("fst", model), out, lambda step, _: seen.append(step))
    assert seen == [4, 5]
    assert_same_run(out, whole("fst"))


@pytest.mark.parametrize(("step", "save"), [(0.1, 0.01), (4.0, 0.4), (1.0, 5.0), (20.0, 5.0), (0.01, 30.0)])
def test_checkpoints_take_a_tenth_of_the_time(step: float, save: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step is measured and wants one. Quick ones are always written; of the others no more than fit, the first aside."""
    now = 0.0
    monkeypatch.setattr(clock_module.time, "perf_counter", lambda: now)
    clock = clock_module.Clock({"seconds": 0.0}, 0.0)
    made, gaps, last = 0, [], 0.0
    for _ in range(5000):
        now += step
        if clock.due(True):
            with clock.checkpoint():
                now += save
            gaps.append(now - last)
            made, last = made + 1, now
    if save <= 0.5:
        assert made == 5000
    else:
        assert made > 0
        assert (made - 1) * save <= 0.1 * now
        assert max(gaps) <= 10.0 * save + step, "no fewer than that"


def test_what_relearning_costs_is_counted(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At both ends, apart from the other probes."""

    def slow_probe(*_: Any) -> int:
        time.sleep(0.4)
        return 3

    monkeypatch.setattr(module, "relearn_steps", slow_probe)
    run_training(tiny("sft", model, steps=1), tmp_path / "run")
    summary = read_json(tmp_path / "run" / "summary.json")
    assert summary["relearn_share"] * summary["seconds"] >= 0.8
    assert 0.0 < summary["probe_share"] < 1.0 - summary["relearn_share"]
    assert summary["rollouts_per_second"] is None, "demonstrations only"


@pytest.mark.slow
@pytest.mark.parametrize("method", RUN_METHODS)
def test_a_process_killed_at_a_random_moment(method: str, model: str, tmp_path: Path) -> None:
    """SIGKILL to the command line; the same command goes on, in another process, to what an uninterrupted one writes."""
    flags = ["--task", "strings:next/share", "--method", method, "--model", model, "--seeds", "1", "--steps", "16"]
    flags += ["--preset", "smoke", "--probe-every", "2"]
    flags += [] if method == "gepa" else ["--problems", "4", "--lr", "0.002"]
    flags += ["--rollout-budget", "80"] if method in ("fst", "gepa") else []

    def start(out: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "fstsim", "train", *flags, "--out", str(out)]
        return subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # another number of threads sums in another order
        )

    killed, undisturbed = tmp_path / "killed", tmp_path / "whole"
    process = start(killed)
    deadline = time.monotonic() + 900.0
    while not (killed / "seed-0" / "checkpoint.safetensors").exists():
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    delay = random.SystemRandom().uniform(0.0, 0.5)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (killed / "seed-0" / "summary.json").exists(), f"finished before it was killed, after {delay} s"
    for out in (killed, undisturbed):
        again = start(out)
        _, err = again.communicate(timeout=900.0)
        assert again.returncode == 0, err.decode()
    assert_same_run(killed / "seed-0", undisturbed / "seed-0")


def test_ctrl_c_says_how_to_go_on(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 130 and the command; given again, it ends with what was not stopped."""
    flags = ["train", "--preset", "smoke", "--model", model, "--steps", "3", "--seeds", "1", "--probe-every", "1"]
    flags += ["--task", "strings:next/share", "--problems", "2", "--out"]
    with monkeypatch.context() as patch:

        def stopping(config: TrainConfig, out: Path, progress: Callable[[int, str], None], **more: Any) -> Any:
            def at(step: int, note: str) -> None:
                progress(step, note)
                stop_at(2)(step, note)

            return run_training(config, out, at, **more)

        patch.setattr(module, "run_training", stopping)
        assert main([*flags, str(tmp_path / "run")]) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert "everything up to the last checkpoint is kept, continue with: fstsim train --preset smoke" in said
    assert str(tmp_path / "run") in said
    assert main([*flags, str(tmp_path / "run")]) == 0
    assert [row["step"] for row in read_rows(tmp_path / "run" / "seed-0" / "metrics.jsonl")] == [0, 1, 2, 3]


# --- a directory is one run ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", RUN_METHODS)
def test_a_finished_run_is_only_loaded(method: str, model: str, whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    out = whole(method)
    before = snapshot(out)
    here = [(module, name) for name in ("fast_slow", "Probe", "relearn_steps", "write_json")]
    for owner, name in (*here, (run_checkpoint, "write_checkpoint"), (records_module, "write_text")):
        monkeypatch.setattr(owner, name, lambda *_, **__: pytest.fail("nothing is left to do"))
    rows = run_training(tiny(method, model), out)
    assert snapshot(out) == before
    assert "".join(map(row_line, rows)) == (out / "metrics.jsonl").read_text()


def test_a_finished_run_needs_no_checkpoint(
    model: str, whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken away to save the room, it is not made again; but where the model is wanted and is not there, it is."""
    out = tmp_path / "run"
    shutil.copytree(whole("rl"), out)
    (out / "checkpoint.safetensors").unlink()
    before = snapshot(out)
    with monkeypatch.context() as patched:
        patched.setattr(module, "fast_slow", lambda *_, **__: pytest.fail("nothing is left to do"))
        rows = run_training(tiny("rl", model), out)
        shutil.rmtree(out / "model")
        assert run_training(tiny("rl", model), out, write_model=False) == rows
    assert "".join(map(row_line, rows)) == (out / "metrics.jsonl").read_text()
    run_training(tiny("rl", model), out)
    after = snapshot(out)
    assert all(after[name][0] == content for name, (content, _) in before.items() if name.startswith("model/"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"lr": 1e-4}, "lr 0.003"),
        ({"seed": 2}, "seed 1"),
        ({"tasks": ("strings:prev/share",)}, "tasks"),
        ({"steps": 8}, "steps 5"),
        ({"learner": PolicyGradient(problems=3, rollouts=5)}, "learner"),
        ({"context": "next"}, "context"),
        ({"probe": ProbeConfig(every=3)}, "probe"),
        ({"method": "fst"}, "method rl"),
    ],
)
def test_another_configuration_is_refused_and_nothing_changes(
    change: dict[str, Any], says: str, model: str, whole: Whole
) -> None:
    out = whole("rl")
    before = snapshot(out)
    with pytest.raises(InputError, match=says) as caught:
        run_training(replace(tiny("rl", model), **change), out)
    assert "\n" not in str(caught.value)
    assert snapshot(out) == before


def test_a_directory_of_something_else_is_refused(model: str, tmp_path: Path) -> None:
    for name, text in [("thesis.tex", "mine"), ("config.json", '{"objective": "forward"}')]:
        out = tmp_path / name
        out.mkdir()
        (out / name).write_text(text)
        before = snapshot(out)
        with pytest.raises(InputError, match="choose"):
            run_training(tiny("rl", model), out)
        assert snapshot(out) == before


def test_a_checkpoint_of_another_model_is_refused(model: str, make_policy: MakePolicy, tmp_path: Path) -> None:
    """Another shape, another vocabulary, a cut-off file: one line each, and the directory stays as it is."""
    folder, out = tmp_path / "model", tmp_path / "run"
    policy = Policy.load(model)

    def put(policy: Policy) -> None:
        policy.model.save_pretrained(folder)
        policy.tokenizer.save_pretrained(folder)

    put(policy)
    config = tiny("rl", str(folder))
    with pytest.raises(KeyboardInterrupt):
        run_training(config, out, stop_at(3))
    before = snapshot(out)
    for change in ({"hidden_size": 64}, {"vocab_size": 70}, {"num_hidden_layers": 2}):
        put(make_policy(**{"num_hidden_layers": 1, "max_position_embeddings": 80, **change}))
        with pytest.raises(InputError, match=r"checkpoint\.safetensors has .* another model\?"):
            run_training(config, out)
        assert snapshot(out) == before
    put(policy)
    data = (out / "checkpoint.safetensors").read_bytes()
    for broken in (data[: len(data) // 2], b"", b"mine"):
        (out / "checkpoint.safetensors").write_bytes(broken)
        before = snapshot(out)
        with pytest.raises(InputError, match="is not a checkpoint of fstsim") as caught:
            run_training(config, out)
        assert "\n" not in str(caught.value)
        assert snapshot(out) == before


def test_a_model_with_fewer_weights_than_the_checkpoint_is_refused(make_policy: MakePolicy, tmp_path: Path) -> None:
    """One layer less: every weight of the model is found in the checkpoint, but the checkpoint is of another model."""
    folder, out = tmp_path / "model", tmp_path / "run"
    config = tiny("sft", str(folder))
    for layers in (2, 1):
        policy = make_policy(max_position_embeddings=80, num_hidden_layers=layers)
        policy.model.save_pretrained(folder)
        policy.tokenizer.save_pretrained(folder)
        if layers == 2:
            with pytest.raises(KeyboardInterrupt):
                run_training(config, out, stop_at(3))
            before = snapshot(out)
    with pytest.raises(InputError, match="another model"):
        run_training(config, out)
    assert snapshot(out) == before


# --- what a row holds ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", RUN_METHODS)
def test_rows_are_complete(method: str, model: str, whole: Whole) -> None:
    """One row a step and one of the start; measured columns at the start, at powers of two below ``every``, at its multiples and at the end."""
    out, config = whole(method), tiny(method, model)
    rows = read_rows(out / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(STEPS + 1))
    assert {row["task"] for row in rows} == {0}
    samples = [row["samples"] for row in rows]
    assert samples == sorted(samples)
    assert samples[0] == 0
    measured = {"reward", "old_mass", "drift", "drift_nll", "kl_to_base", "kl_from_base", "entropy"}
    for row in rows:
        assert (measured <= row.keys()) == (row["step"] in (0, 1, 2, 4, 5))
        assert ("relearn" in row) == (row["step"] in (0, STEPS))
        # means over what may not be there: tokens of groups with signal
        maybe = ("train_entropy", "inverse_temperature", "greedy_share")
        assert all(row[name] is not None for name in row if not name.startswith(maybe))
        if row["step"]:
            assert {"gepa": "step", "sft": "loss", "sdft": "loss", "mixture": "loss"}.get(method, "train_reward") in row
            rounds = {"fst": (1, 3, 5), "gepa": tuple(range(1, STEPS + 1))}.get(method, ())
            assert ("fast_rollouts" in row) == (row["step"] in rounds)
    assert rows[0]["kl_to_base"] == rows[0]["kl_from_base"] == rows[0]["drift"] == 0.0
    assert read_json(out / "config.json") == plain(dataclasses.asdict(config))
    summary = read_json(out / "summary.json")
    assert (summary["first"], summary["last"]) == (rows[0], rows[-1])
    assert (out / "prompts.jsonl").exists() == (method in ("fst", "gepa"))
    assert Policy.load(str(out / "model")).template == "world"


@pytest.mark.parametrize("method", mostly_slow("rl", "fst", "sdft"))
def test_samples_are_the_rollouts_of_both_channels(
    method: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted at the policy itself: everything drawn but for the probes' own samples, the checks of the contexts, and the
    worked examples that the base reads for SDFT, which are demonstrations and no rollouts."""
    drawn, probed, shown = 0, 0, 0
    sample, sampled, read = Policy.sample, probes_module.sample_once, sdft_module.read_examples

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal drawn
        found = sample(*args, **kwargs)
        drawn += len(found)
        return found

    def counted_probe(*args: Any, **kwargs: Any) -> Any:
        nonlocal probed
        found = sampled(*args, **kwargs)
        probed += len(found)
        return found

    def counted_examples(policy: Policy, task: Any, count: int, rng: Any) -> list[str]:
        nonlocal shown
        shown += count
        return read(policy, task, count, rng)

    monkeypatch.setattr(Policy, "sample", counted)
    for where in (probes_module, behaviour_module, old_prompts_module):
        monkeypatch.setattr(where, "sample_once", counted_probe)
    monkeypatch.setattr(sdft_module, "read_examples", counted_examples)
    rows = run_training(tiny(method, model), tmp_path / "run")
    checks = 2 if method == "sdft" else 1
    assert rows[-1]["samples"] == drawn - probed - shown - checks
    fast = [row.get("fast_rollouts", 0) for row in rows]
    slow = {"rl": 12, "fst": 12, "sft": 0, "gepa": 0, "sdft": 4, "ttt": 12, "oapl": 12, "mixture": 4}[method]
    assert [row["samples"] for row in rows] == [slow * k + sum(fast[: k + 1]) for k in range(STEPS + 1)]
    assert (sum(fast) > 0) == (method in ("fst", "gepa"))


@pytest.mark.parametrize("method", ["rl", "fst"])
def test_a_plain_loop_over_the_learners_gives_the_same(method: str, model: str, whole: Whole) -> None:
    """Fast round, slow step, in turn, from one generator: rewards, contexts and final weights of the run."""
    config = tiny(method, model)
    policy = Policy.load(model)
    base = Policy.of(copy.deepcopy(policy.model), policy.tokenizer)
    weights = Weights(policy, base, torch.optim.AdamW(policy.model.parameters(), lr=config.lr, weight_decay=0.0))
    population, task, rng = Population(), parse_rules(config.tasks[0]), np.random.default_rng(config.seed)
    rewards, populations = [], []
    for step in range(STEPS):
        if method == "fst" and step % 2 == 0:
            population, _ = config.fast.step(weights, population, task, rng)
            populations.append([step, list(population.prompts), list(population.scores)])
        weights, info = config.learner.step(weights, population, task, rng)
        rewards.append(info.metrics["train_reward"])
    out = whole(method)
    assert [row["train_reward"] for row in read_rows(out / "metrics.jsonl")[1:]] == rewards
    tensors, _ = read_checkpoint(out / "checkpoint.safetensors")
    assert all(torch.equal(p, tensors[f"model.{name}"]) for name, p in policy.model.named_parameters())
    if method == "fst":
        rounds = read_rows(out / "prompts.jsonl")
        assert [[entry["step"], entry["prompts"], entry["scores"]] for entry in rounds] == populations
        assert any(entry["prompts"] != [""] for entry in rounds)  # or the fast channel would not have been seen


def test_measuring_more_often_changes_nothing_that_is_trained(model: str, whole: Whole, tmp_path: Path) -> None:
    """Probes draw from generators of their own."""
    often = ProbeConfig(every=1, problems=3, exam=1, max_new_tokens=3)
    run_training(tiny("fst", model, probe=often), tmp_path / "run")
    trained = ("step", "samples", "train_reward", "loss", "grad_norm", "fast_best", "fast_rollouts")
    rows = [
        [{name: row.get(name) for name in trained} for row in read_rows(out / "metrics.jsonl")]
        for out in (tmp_path / "run", whole("fst"))
    ]
    assert rows[0] == rows[1]
    assert (tmp_path / "run" / "prompts.jsonl").read_text() == (whole("fst") / "prompts.jsonl").read_text()


def test_prompt_evolution_alone_leaves_the_weights(model: str, whole: Whole) -> None:
    tensors, _ = read_checkpoint(whole("gepa") / "checkpoint.safetensors")
    before = Policy.load(model).model
    assert all(torch.equal(p, tensors[f"model.{name}"]) for name, p in before.named_parameters())
    moved, _ = read_checkpoint(whole("rl") / "checkpoint.safetensors")
    assert not all(torch.equal(p, moved[f"model.{name}"]) for name, p in before.named_parameters())


def test_a_seed_is_a_run(model: str, whole: Whole, tmp_path: Path) -> None:
    """Another seed draws other problems; the same seed, and whatever torch's own generator did before, nothing new."""
    torch.manual_seed(99)
    np.random.seed(3)  # noqa: NPY002 -- somebody else's
    random.seed(3)
    for seed, same in [(1, True), (2, False)]:
        run_training(tiny("rl", model, seed=seed), tmp_path / str(seed))
        metrics = (tmp_path / str(seed) / "metrics.jsonl").read_text()
        assert (metrics == (whole("rl") / "metrics.jsonl").read_text()) == same


def test_a_context_is_the_seed_of_the_population_or_frozen(model: str, tmp_path: Path) -> None:
    frozen = run_training(tiny("rl", model, context="next", steps=1), tmp_path / "rl")
    assert "kl_to_base_no_context" in frozen[-1]
    assert read_json(tmp_path / "rl" / "summary.json")["prompts"] == ["next"]
    run_training(tiny("fst", model, context="rotate prev", steps=1), tmp_path / "fst")
    (entry,) = read_rows(tmp_path / "fst" / "prompts.jsonl")
    assert set(entry["prompts"]) <= {"rotate prev", *dict(entry["lineage"])}


# --- sequences of tasks ----------------------------------------------------------------------------------------------


def test_a_task_switch_carries_the_population_over_and_scores_it_again(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = ("strings:next/share", "strings:mirror/share")
    config = tiny("fst", model, tasks=tasks, steps=4)
    came: list[tuple[str, Population]] = []
    scored: list[set[tuple[str, str]]] = []
    step, scores = PromptEvolution.step, PolicyAdapter.scores

    def recorded_step(self: PromptEvolution, weights: Weights, context: Population, task: Any, rng: Any) -> Any:
        came.append((task.name, context))
        scored.append(set())
        return step(self, weights, context, task, rng)

    def recorded_scores(self: PolicyAdapter, context: str, problems: Any) -> Any:
        before = len(self.seen)
        found = scores(self, context, problems)
        if len(self.seen) > before:  # really rolled out
            scored[-1].add((self.task.name, context))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(PromptEvolution, "step", recorded_step)
        patch.setattr(PolicyAdapter, "scores", recorded_scores)
        rows = run_training(config, tmp_path / "run")
    rounds = read_rows(tmp_path / "run" / "prompts.jsonl")
    assert [(entry["task"], entry["step"]) for entry in rounds] == [(0, 0), (0, 2), (1, 4), (1, 6)]
    assert [name for name, _ in came] == [tasks[0], tasks[0], tasks[1], tasks[1]]
    for k in range(1, 4):  # what came into a round is what the one before ended with, over the switch too
        assert list(came[k][1].prompts) == rounds[k - 1]["prompts"]
        assert {(came[k][0], prompt) for prompt in came[k][1].prompts} <= scored[k]
        assert {name for name, _ in scored[k]} == {came[k][0]}
    assert [row["task"] for row in rows] == [0, 0, 0, 0, 0, 1, 1, 1, 1]
    assert [row["step"] for row in rows] == list(range(9))
    for row in rows:
        assert ("reward" in row) == (row["step"] in (0, 1, 2, 4, 5, 6, 8))
        if "reward" in row:  # the other task is watched as well
            assert f"reward_task{1 - row['task']}" in row
            assert f"reward_task{row['task']}" not in row
    # and stopped on either side of the switch, or in the round right after it, it goes on to the same
    out = tmp_path / "stopped"
    for at in (4, 5):
        with pytest.raises(KeyboardInterrupt):
            run_training(config, out, stop_at(at))
    run_training(config, out)
    assert_same_run(out, tmp_path / "run")


@pytest.mark.slow
def test_a_task_of_another_family_takes_the_population_along(model: str, tmp_path: Path) -> None:
    config = tiny("fst", model, tasks=("strings:next/share", "digits:plus", "star_graph:cross"), steps=2)
    rows = run_training(config, tmp_path / "run")
    assert [row["task"] for row in rows] == [0, 0, 0, 1, 1, 2, 2]
    assert {"reward", "reward_task0", "reward_task1"} <= rows[-1].keys()
    assert all(math.isfinite(rows[-1][name]) for name in ("reward", "old_mass", "drift", "kl_to_base"))


def test_a_run_that_uses_every_rule_of_its_family(model: str, tmp_path: Path) -> None:
    """Six rules are allowed, and star graphs have six: nothing is left to relearn, and that stops nothing."""
    tasks = ("star_graph:cross+forward+up+roll+inner+down",)
    rows = run_training(tiny("rl", model, tasks=tasks, steps=1), tmp_path / "run")
    assert [row["step"] for row in rows] == [0, 1]


# --- divergence ------------------------------------------------------------------------------------------------------


def poison(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """The weights are nan after slow step ``step`` of the run (steps of the relearning probe not counted)."""
    apply, made = Weights.apply, 0

    def poisoned(self: Weights, what: str) -> float:
        nonlocal made
        norm = apply(self, what)
        made += what.startswith("strings:next/share")
        if made == step:
            with torch.no_grad():
                next(self.policy.model.parameters()).fill_(torch.nan)
        return norm

    monkeypatch.setattr(Weights, "apply", poisoned)


@pytest.mark.parametrize("method", mostly_slow("sdft", later=["sft", "rl", "oapl"]))
def test_weights_that_are_not_numbers(
    method: str, model: str, whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After step 3 the weights are nan: the next step says so, and the checkpoint of step 2 is whole and goes on."""
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        poison(patch, 3)
        with pytest.raises(Diverged, match="strings:next/share") as caught:
            run_training(tiny(method, model), out)
    assert "\n" not in str(caught.value)
    tensors, meta = read_checkpoint(out / "checkpoint.safetensors")
    assert meta["counters"]["step"] == 2
    assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())
    assert [row["step"] for row in read_rows(out / "metrics.jsonl")] == [0, 1, 2]
    run_training(tiny(method, model), out)
    assert_same_run(out, whole(method))


# --- weights that move beside the policy -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["sdft", "oapl"])
def test_the_shadow_is_in_the_checkpoint(method: str, model: str, whole: Whole) -> None:
    """Every weight once more, neither the start's nor the policy's, and the number of steps."""
    tensors, meta = read_checkpoint(whole(method) / "checkpoint.safetensors")
    assert meta["age"] == STEPS
    own = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    shadow = {name.removeprefix("shadow.model."): t for name, t in tensors.items() if name.startswith("shadow.")}
    assert own.keys() == shadow.keys()
    assert not any(torch.equal(own[name], shadow[name]) for name in own)
    before = dict(Policy.load(model).model.named_parameters())
    assert not any(torch.equal(before[name], shadow[name]) for name in own)
    others, other_meta = read_checkpoint(whole("rl") / "checkpoint.safetensors")
    assert not any(name.startswith("shadow.") for name in others)
    assert "age" not in other_meta


def test_demonstrations_that_cannot_be_shown_are_found_before_anything_is_written(model: str, tmp_path: Path) -> None:
    for changes, says in [
        ({"tasks": ("strings:next", "strings:unnamed")}, "strings:unnamed has no rule in words"),
        ({"context": " ".join(["next"] * 64)}, "do not fit the model's 80 positions"),
    ]:
        with pytest.raises(InputError, match=says):
            run_training(replace(tiny("sdft", model), **changes), tmp_path / "run")  # type: ignore[arg-type]
        assert not (tmp_path / "run").exists()


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"method": "rlhf"}, f"allowed: {', '.join(METHODS)}"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"precision": "float16"}, "precision must be one of float32, bfloat16; got 'float16'"),
        ({"lr": 0.0}, "lr must be positive"),
        ({"lr": math.nan}, "lr must be a number"),
        ({"lr": math.inf}, "lr must be positive"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"slow_steps_per_round": 0}, "slow_steps_per_round"),
        ({"tasks": ()}, "tasks must not be empty"),
    ],
)
def test_settings_out_of_range(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        TrainConfig(**wrong)


@pytest.mark.parametrize(
    ("tasks", "says"), [(("strings:next", "chess"), "'chess' is unknown"), (("strings:nxt",), "no rule 'nxt'")]
)
def test_a_task_that_does_not_exist(model: str, tmp_path: Path, tasks: tuple[str, ...], says: str) -> None:
    for named in ({"tasks": tasks}, {"old": tasks}):
        with pytest.raises(InputError, match=says):
            run_training(tiny("rl", model, **named), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_context_that_does_not_fit_is_found_before_anything_is_written(model: str, tmp_path: Path) -> None:
    """On any task of the sequence: strings leave it room, star graphs do not."""
    long = " ".join(["next"] * 50)
    run_training(tiny("rl", model, context=long, steps=1), tmp_path / "fits")
    with pytest.raises(InputError, match="do not fit the model's 80 positions"):
        run_training(tiny("rl", model, context=long, tasks=("strings:next", "star_graph:up")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_answers_that_do_not_fit_are_found_before_anything_is_written(
    model: str, make_policy: MakePolicy, tmp_path: Path
) -> None:
    """In every vocabulary: 12 letters and the end token for the world's; with the space before them for a plain model's."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator([], trainers.BpeTrainer(initial_alphabet=alphabet, special_tokens=["<end>"]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>")
    plain = make_policy(vocab_size=len(tokenizer), max_position_embeddings=256).model
    plain.generation_config.eos_token_id = tokenizer.eos_token_id
    plain.save_pretrained(tmp_path / "plain")
    tokenizer.save_pretrained(tmp_path / "plain")
    for name, tokens in [(model, 13), (str(tmp_path / "plain"), 14)]:
        config = replace(tiny("rl", name, steps=1), tasks=("strings@12:reverse",))
        for room in (tokens - 1, tokens):
            limited = replace(config, learner=replace(config.learner, max_new_tokens=room))
            if room == tokens:
                run_training(limited, tmp_path / f"fits-{tokens}")
                continue
            with pytest.raises(InputError, match=f"strings@12:reverse have .*{tokens} tokens.* at least {tokens}, got"):
                run_training(limited, tmp_path / "run")
            assert not (tmp_path / "run").exists()


def test_words_that_the_shipped_vocabulary_lacks_are_found_before_anything_is_written(
    model: str, tmp_path: Path
) -> None:
    """They would all be the one unknown token; the message names them, and only them."""
    with pytest.raises(InputError, match=r"--context has words that .* does not know: 'backwards', 'Next'$") as caught:
        run_training(tiny("rl", model, context="next backwards rotate Next"), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_run_recorded_before_a_setting_existed_is_still_that_run(model: str, tmp_path: Path) -> None:
    """The settings that it lacks count as their defaults, nested ones too; a changed one is still refused."""
    config = tiny("rl", model, steps=1)
    rows = run_training(config, tmp_path)
    place = tmp_path / "config.json"
    held = json.loads(place.read_text())
    del held["clip"], held["learner"]["ratio_cap"], held["precision"]
    place.write_text(json.dumps(held))
    assert run_training(config, tmp_path) == rows
    with pytest.raises(InputError, match=r"clip 1\.0, not 2\.0"):
        run_training(dataclasses.replace(config, clip=2.0), tmp_path)
