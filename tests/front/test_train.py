"""The commands of the language-model room from end to end, in this process, on tiny random models; and their mistakes.

A mistake in the input is one line on stderr (what, where, what is allowed), exit code 2, and nothing is written.
"""

from __future__ import annotations

import functools
import json
import math
import shlex
import statistics
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tyro
from matplotlib.axes import Axes
from transformers import PreTrainedModel

import fstsim.llm.runs.run as train_run
from fstsim.__main__ import main
from fstsim.columns import find_column
from fstsim.errors import InputError
from fstsim.front.console import show
from fstsim.front.tables import prompts_table, training_table
from fstsim.front.train import Train
from fstsim.front.train_flags import USERS, field_help, with_settings
from fstsim.llm.learners import LEARNERS
from fstsim.llm.learners.weights import Diverged, Weights
from fstsim.llm.policy.policy import Policy
from fstsim.llm.pretraining.tokenizer import build_tokenizer
from fstsim.llm.runs.config import PRESETS, TrainConfig
from fstsim.llm.runs.optimizer import OptimizerConfig
from fstsim.llm.runs.probes import ProbeConfig
from fstsim.llm.runs.relearning import relearn_steps
from fstsim.llm.tasks.families import FAMILIES
from fstsim.paper.records.train_picture import columns, draw_training, save_train_picture, segments
from fstsim.records import read_json, read_rows, write_rows

MakeModel = Callable[..., PreTrainedModel]
MakePolicy = Callable[..., Policy]

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def models(make_model: MakeModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models: ``tiny`` is fine, the others each lack something."""
    place = tmp_path_factory.mktemp("models")

    def put(name: str, tokenizer: bool = True, **changes: Any) -> Path:
        make_model(**{"num_hidden_layers": 1, "max_position_embeddings": 80, **changes}).save_pretrained(place / name)
        if tokenizer:
            build_tokenizer().save_pretrained(place / name)
        return place / name

    put("tiny")
    put("small-vocabulary", vocab_size=60)
    put("no-tokenizer", tokenizer=False)
    weights = put("pickled") / "model.safetensors"
    torch.save({}, weights.with_name("pytorch_model.bin"))
    weights.unlink()
    cut = put("cut-off") / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:5000])
    return place


@pytest.fixture
def place(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the models, a file and a folder in which a file lies."""
    (tmp_path / "models").symlink_to(models)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine too")
    (tmp_path / "half" / "seed-1").mkdir(parents=True)
    (tmp_path / "half" / "seed-1" / "thesis.tex").write_text("mine as well")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FSTSIM_API_KEY", raising=False)
    return tmp_path


@pytest.fixture(autouse=True)
def _short_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few problems, and a relearning probe of three steps in place of sixty: probes are tested on their own."""
    monkeypatch.setattr(train_run, "relearn_steps", functools.partial(relearn_steps, most=3, batch=4))
    probe = ProbeConfig(every=10, problems=6, exam=2)
    monkeypatch.setitem(PRESETS, "smoke", replace(PRESETS["smoke"], probe=probe))


Contents = dict[str, tuple[bytes, int] | None]


def contents(place: Path) -> Contents:
    """Every file below ``place`` with its bytes and time of change, the models' too."""
    roots = [place, place / "models"]
    return {
        str(p): (p.read_bytes(), p.stat().st_mtime_ns) if p.is_file() else None
        for root in roots
        for p in sorted(root.rglob("*"))
    }


QUICK = "--preset smoke --model models/tiny --steps 2 --seeds 1 --problems 2 --rollouts 2 --probe-every 2"

# command line -> what its one line must say
MISTAKES = {
    "train --task chess": "task 'chess' is unknown",
    "train --task strings:revers": "strings has no rule 'revers'; allowed: reverse, next",
    "train --task strings:": "strings has no rule ''",
    "train --task strings:negate": "strings has no rule 'negate'",
    "train --task strings:reverse/half": "task reward 'half' is unknown; allowed: exact, share",
    "train --task strings:reverse digits:plus chess": "task 'chess' is unknown",
    f"train --task strings:{'+'.join(['next'] * 7)}": "at most 6 rules",
    "train --model nowhere": "nowhere",
    "train --model models": "safetensors",
    "train --model models/pickled": "safetensors",
    "train --model models/cut-off": "models/cut-off",
    "train --model models/no-tokenizer": "models/no-tokenizer",
    "train --model models/small-vocabulary": "the tokenizer has 64 tokens, the model 60",
    "train --model nobody/no-such-model": "nobody/no-such-model",
    "train --model models/tiny --device abacus": "device 'abacus' cannot be used here",
    "train --model models/tiny --device cuda:99": "device 'cuda:99' cannot be used here",
    "train --preset tiny": "smoke",
    "train --precision float16": "bfloat16",
    "train --method dpo": "gepa",
    "train --lr 0": "lr must be positive",
    "train --lr -1": "lr must be positive",
    "train --lr nan": "lr must be a number, got nan",
    "train --lr 1e9": "lr must be positive and below 10",
    "train --lr fast": "--lr",
    "train --steps 0": "steps must be at least 1",
    "train --seeds 0": "seeds must be at least 1",
    "train --seeds -2": "seeds must be at least 1",
    "train --problems 0": "problems",
    "train --rollouts 1": "rollouts must be at least 2",
    "train --updates 0": "updates",
    "train --ratio-cap 1": "ratio_cap must be above 1",
    "train --ratio-cap 0.2": "ratio_cap must be above 1",
    "train --ratio-cap nan": "ratio_cap must be a number, got nan",
    "train --leash-reward -1": "leash_reward and leash_loss must be nonnegative",
    "train --leash-loss nan": "leash_loss must be a number, got nan",
    "train --leash-loss inf": "leash_reward and leash_loss must be nonnegative and finite",
    "train --leash-reward inf": "leash_reward and leash_loss must be nonnegative and finite",
    "train --rollouts 100000000": "problems x rollouts must be at most 1,000,000 a step, got 2,400,000,000",
    "train --problems 1000000 --rollouts 2": "problems x rollouts must be at most 1,000,000 a step, got 2,000,000",
    "train --method ttt --rollouts 100000000": "problems x rollouts must be at most 1,000,000 a step",
    "train --method oapl --rollouts 100000000": "problems x rollouts must be at most 1,000,000 a step",
    "train --method sft --problems 1000001": "problems must be at most 1,000,000 a step, got 1,000,001",
    "train --method sdft --problems 1000001": "problems must be at most 1,000,000 a step",
    "train --method mixture --problems 1000001": "problems must be at most 1,000,000 a step",
    "train --max-new-tokens 0": "max_new_tokens",
    "train --probe-every 0": "every, problems, exam and max_new_tokens of the probe must be at least 1",
    "train --advantage best": "leave-one-out",
    "train --loss dpo": "reinforce",
    "train --method sft --replay-share 1.5": "replay_share must lie in [0, 1]",
    "train --method sft --replay-share nan": "replay_share must be a number, got nan",
    "train --method sft --replay own": "replay own needs a replay_share above 0",
    "train --method sft --replay-share 0.5 --replay mine": "own",
    "train --method sft --replay-share 0.5 --replay own --replay-tries 0": "replay_tries must be at least 1, got 0",
    "train --replay own": "--replay is used by method sft only; remove it, or choose --method sft",
    "train --method fst --contexts 0": "contexts must be at least 1",
    "train --method fst --rollout-budget 3": "budget",
    "train --method fst --slow-steps-per-round 0": "slow_steps_per_round must be at least 1",
    "train --replay-share 0.5": "--replay-share is used by method",
    "train --contexts 2": "--contexts is used by method",
    "train --rollout-budget 100": "--rollout-budget is used by methods gepa, fst only; remove it, or choose one of them",
    "train --slow-steps-per-round 3": "--slow-steps-per-round is used by method",
    "train --method sft --rollouts 4": "--rollouts is used by method",
    "train --method sft --ratio-cap 5": "--ratio-cap is used by method",
    "train --method oapl --leash-loss 1": "--leash-loss is used by method",
    "train --method sft --leash-loss -1": "leash_loss must be nonnegative and finite, got -1.0",
    "train --method sft --leash-direction forward": "leash_direction forward needs a leash_loss above 0",
    "train --leash-direction forward": "--leash-direction is used by method sft only",
    "train --method gepa --lr 0.1": "--lr is used by method",
    "train --method gepa --problems 8": "--problems is used by method",
    "train --method gepa --slow-steps-per-round 2": "--slow-steps-per-round is used by method",
    "train --method fst --replay-share 0.5": "--replay-share is used by method",
    "train --method sdft --teacher-share 2": "teacher_share must lie in [0, 1], got 2.0",
    "train --method sdft --ema-rate nan": "ema_rate must be a number, got nan",
    "train --method sdft --demonstration answer": "examples",
    "train --method sdft --rollouts 4": "--rollouts is used by method",
    "train --method sdft --alpha 0.5": "--alpha is used by method",
    f"train --method sdft {QUICK.replace('--rollouts 2', '')} --task digits:unnamed": "has no rule in words",
    "train --method ttt --rollouts 2": "entropy_budget must be positive and below log(rollouts) = 0.693",
    "train --method ttt --entropy-budget 0": "entropy_budget must be positive",
    "train --method ttt --inverse-temperature -1": "inverse_temperature must be positive and finite",
    "train --method ttt --inverse-temperature 1 --entropy-budget 0.5": "give one of them",
    "train --method ttt --leash-reward -1": "leash_reward and leash_loss must be nonnegative",
    "train --method ttt --updates 2": "--updates is used by method",
    "train --method oapl --tau 0": "tau must be positive and finite",
    "train --method oapl --period 0": "period must be at least 1",
    "train --method oapl --ema-rate 0.1": "--ema-rate is used by method",
    "train --method mixture --alpha -0.1": "alpha must lie in [0, 1]",
    "train --method mixture --smoothing 0": "smoothing must lie above 0 and below 1",
    "train --method mixture --teacher-share 0.5": "--teacher-share is used by method",
    "train --tau 0.5": "--tau is used by method oapl only; remove it, or choose --method oapl",
    "train --method fst --base-url http://localhost:1/v1": "are used with --reflector openai or local only",
    "train --method fst --reflector-model m": "are used with --reflector openai or local only",
    "train --method fst --reflector openai": "base-url must start with http:// or https://",
    "train --method fst --reflector-timeout 5": "--reflector-timeout is used with --reflector openai only",
    "train --method fst --reflector openai --base-url http://localhost:1/v1 --reflector-model m --reflector-timeout nan": "timeout must be a number, got nan",
    "train --method fst --reflector openai --base-url http://localhost:1/v1 --reflector-model m --reflector-timeout inf": "--reflector-timeout must be positive and finite",
    "train --method fst --reflector-tokens 5": "--reflector-tokens is used with --reflector openai or local only",
    "train --method fst --reflector local --reflector-model base --reflector-tokens -1": "--reflector-tokens must be at least 1, or 0",
    "train --method fst --reflector openai --base-url localhost:1": "base-url must start with http:// or https://",
    "train --method fst --reflector openai --base-url http://localhost:1/v1": "--reflector-model",
    "train --method fst --reflector local": "--reflector-model",
    "train --method fst --reflector oracle": "openai",
    f"train --method fst {QUICK} --reflector local --reflector-model nowhere": "nowhere",
    "train --reflector openai --base-url http://localhost:1/v1 --reflector-model m": "--reflector is used by methods gepa, fst only",
    f"train {QUICK} --context {shlex.quote(' '.join(['next'] * 90))}": "do not fit the model's 80 positions",
    f"train {QUICK} --max-new-tokens 100": "do not fit the model's 80 positions",
    f"train {QUICK} --task strings digits star_graph --context {shlex.quote(' '.join(['up'] * 50))}": "do not fit",
    f"train {QUICK} --out file": "file is not a directory",
    f"train {QUICK} --out file/below": "file is not a directory",
    f"train {QUICK} --out full": "full is not empty and holds no training run",
    f"train {QUICK} --out half --seeds 2": "half/seed-1 is not empty and holds no training run",
    f"train {QUICK} --out /proc/here": "cannot write in /proc/here",
    "train --no-such-flag": "--no-such-flag",
    "prompts": "RUN",
    "prompts nowhere": "nowhere holds no prompts.jsonl",
    "prompts full": "full holds no prompts.jsonl",
    "prompts file": "file holds no prompts.jsonl",
    "pretrain --preset large": "medium",
    "pretrain --preset smoke --steps 0": "steps and layers must be at least 1",
    "pretrain --preset smoke --seed -1": "seed must be at least 0",
    "pretrain --preset smoke --precision float16": "bfloat16",
    "pretrain --preset smoke --device abacus": "device 'abacus' cannot be used here",
    "pretrain --preset smoke --out file": "file is not a directory",
    "pretrain --preset smoke --out full": "full is not empty and holds no model",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_line_code_2_nothing_written(mistake: str, place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = contents(place)
    words = shlex.split(mistake)
    if words[0] == "train":  # should a mistake pass for none, its training is short
        short = {"--preset": "smoke", "--model": "models/tiny", "--steps": "1", "--seeds": "1", "--max-new-tokens": "8"}
        words += [part for name, value in short.items() if name not in words for part in (name, value)]
    code = main(words)
    out, err = capfd.readouterr()
    assert code == 2, err
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("fstsim: error: ")
    assert MISTAKES[mistake] in err
    assert contents(place) == before


def run(*flags: str) -> int:
    return main(["train", *shlex.split(QUICK), "--out", "run", *flags])


def test_a_run_directory_of_another_configuration(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    before = contents(place)
    capfd.readouterr()
    for flags, says in [
        (["--lr", "0.2"], "lr"),
        (["--steps", "3"], "steps 2, not 3"),
        (["--task", "digits"], "tasks"),
        (["--method", "fst"], "method rl, not fst"),
        (["--context", "next"], "context"),
        (["--rollouts", "4"], "rollouts"),
    ]:
        assert run(*flags) == 2
        err = capfd.readouterr().err
        assert err.count("\n") == 1
        assert "run/seed-0 holds a training run with" in err
        assert "choose another --out" in err
        assert says in err
        assert contents(place) == before


def test_seeds_are_checked_before_the_first_is_trained(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The directory of a later seed holds another run: said at once, and not after hours of the first."""
    assert run("--seeds", "2") == 0
    (place / "other" / "seed-1").mkdir(parents=True)
    for path in (place / "run" / "seed-1").glob("*.*"):
        (place / "other" / "seed-1" / path.name).write_bytes(path.read_bytes())
    before = contents(place)
    capfd.readouterr()
    assert run("--seeds", "2", "--lr", "0.01", "--out", "other") == 2
    assert "other/seed-1 holds a training run with lr" in capfd.readouterr().err
    assert contents(place) == before


def test_a_local_reflector_is_looked_for_before_the_model_is_loaded(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    loaded: list[Any] = []
    monkeypatch.setattr(Policy, "load", lambda *names: loaded.append(names))
    before = contents(place)
    assert run("--method", "fst", "--reflector", "local", "--reflector-model", "no/such/model") == 2
    assert "there is no model at 'no/such/model'" in capfd.readouterr().err
    assert (loaded, contents(place)) == ([], before)


def test_a_checkpoint_of_another_model(place: Path, make_policy: MakePolicy, capfd: pytest.CaptureFixture[str]) -> None:
    """Weights of another shape or vocabulary under the old path, with a run that is not finished: one line, nothing changed."""
    (place / "mine").mkdir()
    for path in (place / "models" / "tiny").iterdir():
        (place / "mine" / path.name).write_bytes(path.read_bytes())
    assert run("--model", "mine") == 0
    (place / "run" / "seed-0" / "summary.json").unlink()
    for change in ({"hidden_size": 64}, {"vocab_size": 80}):
        policy = make_policy(**{"num_hidden_layers": 1, "max_position_embeddings": 80, **change})
        policy.model.save_pretrained(place / "mine")
        before = contents(place)
        capfd.readouterr()
        assert run("--model", "mine") == 2
        err = capfd.readouterr().err
        assert err.count("\n") == 1
        assert "another model?" in err
        assert contents(place) == before


# --- a whole training ------------------------------------------------------------------------------------------------


def assert_fits(text: str, lines: int = 45) -> None:
    """``text`` fits on a screen of 100 columns."""
    assert 0 < text.count("\n") <= lines
    assert max(map(len, text.splitlines())) <= 100


def test_train_ends_with_a_picture_and_a_table(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two seeds of the smoke preset: each a run directory, together a picture and a table of one screen."""
    command = ["train", "--preset", "smoke", "--steps", "3", "--seeds", "2", "--model", "models/tiny", "--out", "run"]
    assert main(command) == 0
    said = capsys.readouterr()
    assert_fits(said.out)
    assert (place / "run" / "picture.png").read_bytes().startswith(PNG)
    assert "picture: run/picture.png" in said.out
    for word in ("reward", "old_mass", "drift", "kl_to_base", "kl_from_base", "entropy", "relearn", "samples"):
        assert f"\n{word} " in said.out or f" {word} " in said.out, word
    assert "±" in said.out
    assert sorted(path.name for path in (place / "run").iterdir()) == ["picture.png", "seed-0", "seed-1"]
    rewards = []
    for seed in (0, 1):
        out = place / "run" / f"seed-{seed}"
        names = {"config.json", "environment.json", "metrics.jsonl", "checkpoint.safetensors", "summary.json", "model"}
        assert {path.name for path in out.iterdir()} == names
        summary, rows = read_json(out / "summary.json"), read_rows(out / "metrics.jsonl")
        assert [row["step"] for row in rows] == [0, 1, 2, 3]
        assert summary["last"] == rows[-1]  # nan is null in both, or it would not be JSON
        assert summary["seconds"] > 0.0
        assert read_json(out / "config.json")["seed"] == read_json(out / "environment.json")["seed"] == seed
        assert {"torch", "transformers", "gepa"} <= read_json(out / "environment.json")["versions"].keys()
        rewards.append([row.get("length") for row in rows])
    assert rewards[0] != rewards[1]
    # the same command again only shows it
    before = contents(place)
    assert main(command) == 0
    assert said.out.endswith(capsys.readouterr().out)  # but for the rows that were printed as they came
    after = contents(place)
    assert {path for path in after if after[path] != before[path]} <= {str(place / "run" / "picture.png")}


def test_the_trained_model_is_a_model(place: Path) -> None:
    """What a run ends with can be the start of another."""
    assert run() == 0
    policy = Policy.load(str(place / "run" / "seed-0" / "model"))
    assert policy.template == "world"
    assert run("--model", "run/seed-0/model", "--out", "again", "--task", "digits:plus") == 0
    start = read_rows(place / "again" / "seed-0" / "metrics.jsonl")[0]
    assert start["kl_to_base"] == start["drift"] == 0.0


@pytest.mark.parametrize(
    "method",
    [
        "fst",
        "ttt",
        *(pytest.param(method, marks=pytest.mark.slow) for method in ("sft", "gepa", "sdft", "oapl", "mixture")),
    ],
)
def test_every_method_ends_the_same_way(method: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = {
        "sft": "--problems 4 --replay-share 0.5",
        "fst": "--problems 2 --rollouts 2 --contexts 2 --rollout-budget 60 --slow-steps-per-round 2",
        "gepa": "--contexts 2 --rollout-budget 60",
        "sdft": "--problems 4 --teacher-share 0.5 --ema-rate 0.1",
        "ttt": "--problems 2 --rollouts 3 --leash-reward 0.1",
        "oapl": "--problems 2 --rollouts 2 --period 1",
        "mixture": "--problems 4 --alpha 0.5",
    }[method]
    command = f"train --preset smoke --model models/tiny --steps 2 --seeds 1 --method {method} {flags} --out run"
    assert main(shlex.split(command)) == 0
    said = capsys.readouterr().out
    assert_fits(said)
    assert (place / "run" / "picture.png").read_bytes().startswith(PNG)
    assert (place / "run" / "seed-0" / "prompts.jsonl").exists() == (method in ("fst", "gepa"))
    assert ("fast_rollouts" in said) == (method in ("fst", "gepa"))
    assert (", reflector self, " in " ".join(said.split())) == (method in ("fst", "gepa"))
    written = {name for row in read_rows(place / "run" / "seed-0" / "metrics.jsonl") for name in row}
    assert [name for name in written if find_column(name) is None] == [], "declare it in fstsim/columns.py"
    code = main(["prompts", "run/seed-0"])
    shown = capsys.readouterr()
    if method not in ("fst", "gepa"):
        assert code == 2
        assert "only runs of method fst or gepa have one" in shown.err
    else:
        assert code == 0
        assert_fits(shown.out)
        assert "run/seed-0" in shown.out
        assert main(["prompts", "run"]) == 2
        assert capsys.readouterr().err == "fstsim: error: run holds no prompts.jsonl: name one of seed-0 in it\n"


def test_flags_reach_the_configuration(place: Path) -> None:
    command = (
        "train --preset smoke --model models/tiny --seeds 1 --steps 1 --lr 0.002 --problems 3 --rollouts 5 --loss reinforce "
        "--advantage centred --updates 2 --ratio-cap 3 --leash-reward 0.1 --leash-loss 0.2 --method fst --contexts 2 "
        "--rollout-budget 60 --slow-steps-per-round 4 --max-new-tokens 6 --probe-every 7 --context next --task digits:plus/share"
    )
    assert main([*shlex.split(command), "--out", "run"]) == 0
    config = read_json(place / "run" / "seed-0" / "config.json")
    assert (config["method"], config["tasks"], config["steps"], config["lr"]) == (
        "fst",
        ["digits:plus/share"],
        1,
        0.002,
    )
    assert (config["context"], config["slow_steps_per_round"], config["seed"]) == ("next", 4, 0)
    slow = {"loss": "reinforce", "problems": 3, "rollouts": 5, "advantage": "centred", "updates": 2, "ratio_cap": 3.0}
    slow |= {"leash_reward": 0.1, "leash_loss": 0.2, "max_new_tokens": 6}
    assert slow.items() <= config["learner"].items()
    assert {"contexts": 2, "rollout_budget": 60, "max_new_tokens": 6}.items() <= config["fast"].items()
    assert {"every": 7, "problems": 6, "max_new_tokens": 6}.items() <= config["probe"].items()


@pytest.mark.parametrize(
    ("method", "flags", "wanted"),
    [
        (
            "sdft",
            "--demonstration examples --ema-rate 0.2 --teacher-share 0.5 --base-sees demonstration --direction forward",
            {
                "demonstration": "examples",
                "ema_rate": 0.2,
                "teacher_share": 0.5,
                "base_sees": "demonstration",
                "direction": "forward",
            },
        ),
        (
            "ttt",
            "--rollouts 5 --entropy-budget 0.4 --normaliser group --leash-reward 0.1 --leash-loss 0.2",
            {"rollouts": 5, "entropy_budget": 0.4, "normaliser": "group", "leash_reward": 0.1, "leash_loss": 0.2},
        ),
        ("ttt", "--inverse-temperature 2 --rollouts 2", {"inverse_temperature": 2.0, "rollouts": 2}),
        (
            "oapl",
            "--rollouts 5 --tau 0.3 --period 4 --lagged-share 0.9",
            {"rollouts": 5, "tau": 0.3, "period": 4, "lagged_share": 0.9},
        ),
        (
            "mixture",
            "--alpha 0.4 --smoothing 0.1 --direction forward",
            {"alpha": 0.4, "smoothing": 0.1, "direction": "forward"},
        ),
    ],
)
def test_flags_reach_the_learner(method: str, flags: str, wanted: dict[str, Any]) -> None:
    """The method's own settings, and nobody else's."""
    command = tyro.cli(
        with_settings(Train), args=shlex.split(f"--method {method} --problems 3 --max-new-tokens 6 {flags}")
    )
    config = command._config()
    assert {**wanted, "problems": 3, "max_new_tokens": 6}.items() <= asdict(config.learner).items()
    assert type(config.learner) is LEARNERS[method]
    assert (config.method, config.fast, config.reflector) == (method, None, None)


def test_flags_of_the_optimizer_reach_it() -> None:
    flags = "--method sft --optimizer sgd --momentum 0.5 --weight-decay 0.1 --warmup 3 --schedule linear"
    config = tyro.cli(with_settings(Train), args=shlex.split(flags))._config()
    assert config.optimizer == OptimizerConfig("sgd", 0.1, 0.5, 3, "linear")
    assert tyro.cli(with_settings(Train), args=[])._config().optimizer == OptimizerConfig()
    with pytest.raises(InputError, match=r"--optimizer is used by methods .* only"):
        tyro.cli(with_settings(Train), args=shlex.split("--method gepa --optimizer sgd"))._config()


def test_every_setting_of_every_learner_is_a_flag_and_says_who_uses_it() -> None:
    """What stands in the class alone: the flag, its help, its default; nothing is listed a second time."""
    command = with_settings(Train)
    flags = {entry.name: entry for entry in fields(command)}
    for method, learner in LEARNERS.items():
        for setting in fields(learner):
            if setting.name == "teacher_context":  # the run fills it in
                assert setting.name not in flags
                continue
            assert setting.name in flags, f"{method} has no flag for {setting.name}"
            if setting.name != "max_new_tokens":
                assert method in USERS[setting.name]
                assert field_help(learner)[setting.name]


@pytest.mark.usefixtures("place")
def test_what_is_said_of_a_run_that_diverges(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a checkpoint is kept, and what can be done: another learning rate is another run."""
    real, made = Weights.apply, 0

    def fails_third(self: Weights, what: str) -> float:
        nonlocal made
        made += 1
        if made >= 3:
            raise Diverged(f"gradient is not finite on {what}")
        return real(self, what)

    monkeypatch.setattr(train_run, "relearn_steps", lambda *_: 1)
    command = [
        "train",
        "--model",
        "models/tiny",
        "--method",
        "sft",
        "--task",
        "strings:next",
        "--preset",
        "smoke",
        "--steps",
        "4",
    ]
    monkeypatch.setattr(Weights, "apply", fails_third)
    assert main([*command, "--out", "kept"]) == 1
    said = capsys.readouterr().err
    assert "the last checkpoint is kept in kept/seed-0: train anew with a lower --lr in another --out" in said
    made = 10
    assert main([*command, "--out", "none"]) == 1
    assert "none/seed-0 holds no checkpoint yet: train anew" in capsys.readouterr().err


# --- picture and tables ----------------------------------------------------------------------------------------------


def made_up(seeds: int, steps: int = 6) -> list[list[dict[str, Any]]]:
    """Rows as a run makes them: measured columns at the even steps only, groups without signal in which nothing was trained."""
    rng = np.random.default_rng(seeds)
    runs = []
    for _ in range(seeds):
        rows: list[dict[str, Any]] = []
        for step in range(steps + 1):
            row: dict[str, Any] = {"step": step, "samples": 8 * step, "task": 0}
            if step:
                row |= {"train_reward": rng.random(), "dead_share": rng.random(), "train_entropy": math.nan}
            if step % 2 == 0:
                names = ("reward", "old_mass", "drift", "drift_nll", "kl_to_base", "kl_from_base", "entropy")
                row |= {name: float(rng.random()) for name in names}
                row |= {f"accuracy_{f}_{k}": float(rng.random()) for f in ("strings", "digits") for k in (1, 2)}
            rows.append(row)
        rows[0]["relearn"], rows[-1]["relearn"] = 7, 12
        runs.append(rows)
    return runs


def summaries(runs: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [
        {"first": rows[0], "last": rows[-1], "seconds": 10.0 + k, "probe_share": 0.25, "rollouts_per_second": 100.0}
        | {"relearn_share": 0.125}
        for k, rows in enumerate(runs)
    ]


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_a_column_is_a_mean_over_seeds_with_two_standard_errors(seeds: int) -> None:
    runs = made_up(seeds)
    steps, mean, error = columns(runs, "reward")
    assert steps.tolist() == [0, 2, 4, 6]
    for k, step in enumerate((0, 2, 4, 6)):
        values = [rows[step]["reward"] for rows in runs]
        assert mean[k] == pytest.approx(statistics.fmean(values))
        expected = 2.0 * statistics.stdev(values) / math.sqrt(seeds) if seeds > 1 else 0.0
        assert error[k] == pytest.approx(expected)
    nothing = columns(runs, "no_such_column")
    assert [len(part) for part in nothing] == [0, 0, 0]


def test_a_column_holds_only_steps_that_all_seeds_measured() -> None:
    runs = made_up(3)
    del runs[1][4]["reward"]
    runs[2][2]["reward"] = None  # not a number, as JSON says it
    assert columns(runs, "reward")[0].tolist() == [0, 6]


@pytest.mark.parametrize(("kind", "seeds"), [("world", 3), ("chat", 1), ("two tasks", 2), ("one row", 1)])
def test_the_picture_of_any_run(kind: str, seeds: int, tmp_path: Path) -> None:
    """Without old skills (a model that is not of the world), over a switch of tasks, of a run that measured only once."""
    runs = made_up(seeds)
    config = TrainConfig(tasks=("strings", "digits") if kind == "two tasks" else ("strings",), steps=3)
    if kind == "chat":
        for rows in runs:
            for row in rows:
                for name in [name for name in row if name.startswith(("accuracy", "drift", "relearn"))]:
                    del row[name]
    if kind == "one row":
        runs = [rows[:1] for rows in runs]
    path = save_train_picture(config, runs, tmp_path / "picture.png")
    data = path.read_bytes()
    assert data.startswith(PNG)
    if kind == "world":
        assert save_train_picture(config, runs, tmp_path / "again.png").read_bytes() == data


def test_steps_are_parted_after_the_last_one_on_each_task() -> None:
    steps = np.array([0.0, 1.0, 4.0, 6.0, 7.0, 12.0, 13.0])
    assert [steps[part].tolist() for part in segments(steps, (6, 12))] == [[0, 1, 4, 6], [7, 12], [13]]
    assert [steps[part].tolist() for part in segments(steps, ())] == [steps.tolist()]
    assert [steps[part].tolist() for part in segments(steps[:3], (6, 12))] == [[0, 1, 4]]
    assert segments(np.empty(0), (6,)) == []


def curves(ax: Axes, color: str) -> list[list[float]]:
    """Steps of every line of a colour, vertical marks left out."""
    lines = [line for line in ax.lines if line.get_color() == color and line.get_marker() != "None"]
    return [np.asarray(line.get_xdata()).tolist() for line in lines]


def marks(ax: Axes) -> list[float]:
    """Where the vertical marks are."""
    return [float(np.asarray(line.get_xdata())[0]) for line in ax.lines if line.get_marker() == "None"]


def test_no_line_runs_from_one_task_into_the_next() -> None:
    """Problems and contexts change there: a line across would be a recovery that is none. The exam stays the same."""
    runs = made_up(2, steps=8)
    figure = draw_training(TrainConfig(tasks=("strings", "digits"), steps=4), runs)
    for ax in figure.axes[:3]:
        assert curves(ax, "#000000") == [[0, 2, 4], [6, 8]]
    assert curves(figure.axes[3], "#000000")[0] == [0, 2, 4, 6, 8]
    assert [marks(ax) for ax in figure.axes] == [[4.5]] * 4
    (alone,) = {tuple(marks(ax)) for ax in draw_training(TrainConfig(tasks=("strings",), steps=8), runs).axes}
    assert alone == ()


def test_a_task_may_be_called_like_a_formula() -> None:
    figure = draw_training(TrainConfig(tasks=(r"a$\frac$.jsonl",), steps=6), made_up(1))
    figure.canvas.draw()  # a formula that cannot be read raises here
    assert r"a\$\frac\$.jsonl" in figure.get_suptitle()


def test_a_model_of_another_world_has_no_panel_of_old_skills() -> None:
    runs = made_up(1)
    for row in runs[0]:
        for name in [name for name in row if name.startswith("accuracy")]:
            del row[name]
    titles = [ax.get_title() for ax in draw_training(TrainConfig(steps=6), runs).axes]
    assert len(titles) == 3
    assert not any("old skills" in title for title in titles)


@pytest.mark.parametrize("size", [0.0, 1e-12, 3e-5, 0.02, 0.09, 0.5, 5.0, 300.0])
def test_the_distance_has_an_axis_that_can_be_read(size: float) -> None:
    """At least three labelled ticks in sight, whatever the distance is."""
    runs = made_up(1)
    for row in runs[0]:
        row |= {name: size * row[name] for name in ("kl_to_base", "kl_from_base") if name in row}
    runs[0][-1] |= {"kl_to_base": size, "kl_from_base": 0.8 * size}
    figure = draw_training(TrainConfig(steps=6), runs)
    figure.canvas.draw()
    ax = figure.axes[2]
    low, high = ax.get_ylim()
    assert low <= 0.0 <= size < high
    seen = [t.get_text() for t in ax.get_yticklabels() if low <= t.get_position()[1] <= high and t.get_text()]
    assert len(set(seen)) >= 3
    assert ax.yaxis.get_offset_text().get_text() == ""


def cells(text: str, name: str) -> list[str]:
    """The cells of the row of a table that begins with ``name``."""
    (line,) = [line for line in text.splitlines() if line.split()[:1] == [name]]
    return [part.strip() for part in line.split("  ") if part.strip()]


def test_the_table_of_a_training(capsys: pytest.CaptureFixture[str]) -> None:
    """Start and end, means over seeds with their standard errors; cost at the bottom."""
    runs = made_up(4)
    show(training_table(runs, summaries(runs), "title of it"))
    said = capsys.readouterr().out
    assert_fits(said)
    assert said.startswith("title of it")
    for name in ("reward", "old_mass", "kl_to_base"):
        row = cells(said, name)
        for cell, end in zip(row[1:3], (0, -1), strict=True):
            values = [rows[end][name] for rows in runs]
            mean, error = (float(part) for part in cell.split(" ± "))
            assert mean == pytest.approx(statistics.fmean(values), rel=0.01)
            assert error == pytest.approx(statistics.stdev(values) / 2.0, rel=0.5)  # one digit
    assert [float(cell.split(" ± ")[0]) for cell in cells(said, "samples")[1:3]] == [0.0, 48.0]
    assert [float(cell.split(" ± ")[0]) for cell in cells(said, "relearn")[1:3]] == [7.0, 12.0]
    assert cells(said, "train_reward")[1] == "-"
    assert "25" in next(line for line in said.splitlines() if line.split()[:1] == ["seconds"])
    show(training_table(runs[:1], summaries(runs[:1]), "one seed"))
    assert "±" not in capsys.readouterr().out


def test_the_table_of_runs_whose_last_row_is_not_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    runs = made_up(2)
    runs[0][-1]["reward"] = math.nan
    runs[1][-1]["kl_to_base"] = None
    show(training_table(runs, summaries(runs), "title"))
    said = capsys.readouterr().out
    assert cells(said, "reward")[2] == cells(said, "kl_to_base")[2] == "-"


def test_the_table_ends_a_column_where_every_seed_has_it_last(capsys: pytest.CaptureFixture[str]) -> None:
    """Fast rounds are seldom in the last step; a mean over seeds is of one step."""
    runs = made_up(2)
    for k, rows in enumerate(runs):
        for step in (1, 3, 5):
            rows[step] |= {"fast_best": 0.1 * step, "fast_rollouts": 10.0 * step + k}
    del runs[0][5]["fast_best"]
    runs[0][1]["capped_share"] = 0.5
    show(training_table(runs, summaries(runs), "title"))
    said = capsys.readouterr().out
    assert cells(said, "fast_rollouts")[1:3] == ["-", "50.5 ± 0.5"]
    assert cells(said, "fast_best")[1:3] == ["-", "0.300 ± 0"]
    assert cells(said, "capped_share")[2] == "-"


ROUNDS = [
    {"step": 0, "task": 0, "prompts": [""], "scores": [0.0], "lineage": []},
    {"step": 6, "task": 0, "prompts": [""], "scores": [0.1], "lineage": []},
    {"step": 12, "task": 0, "prompts": ["reverse", ""], "scores": [0.75, 0.125], "lineage": [["reverse", ""]]},
    {
        "step": 18,
        "task": 1,
        "prompts": [
            "reverse next",
            "Say [bold]nothing[/bold].\nNothing at all, and this is a rather long context. " * 3,
        ],
        "scores": [1.0, 0.5],
        "lineage": [["reverse next", "reverse"]],
    },
]


def test_prompts_show_how_the_population_evolved(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only rounds that changed it; scores, and what each was written from; marks in a context are shown, not obeyed."""
    write_rows(place / "prompts.jsonl", ROUNDS)
    assert main(["prompts", "."]) == 0
    said = capsys.readouterr().out
    assert_fits(said)
    first = [line.split()[0] for line in said.splitlines() if line.split()[:1] and line.split()[0].isdigit()]
    assert first == ["0", "12", "18"]
    assert "0.75" in said
    assert "(empty)" in said
    assert "[bold]nothing[/bold]" in said
    changed = next(line for line in said.splitlines() if line.split()[:1] == ["12"])
    assert "reverse" in changed
    assert changed.rstrip().endswith("(empty)")
    last = next(line for line in said.splitlines() if line.split()[:1] == ["18"])
    assert last.rstrip().endswith("reverse")
    show(prompts_table([], "nothing yet"))
    assert "nothing yet" in capsys.readouterr().out


def test_prompts_that_cannot_be_read(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "prompts.jsonl").write_text("{" + json.dumps(ROUNDS[0]))
    assert main(["prompts", "."]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("command", ["pretrain", "train", "prompts"])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    said = capsys.readouterr()
    wanted = {
        "pretrain": ["--preset", "--out", "--steps", "--device"],
        "train": ["--task", "--method", "--reflector", "FSTSIM_API_KEY", "--leash-loss", "--rollout-budget"],
        "prompts": ["RUN"],
    }[command]
    assert all(flag in said.out for flag in wanted)
    assert said.err == ""


def test_help_says_how_a_task_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    about = said[said.index("--task TASK") : said.index("--method {")]
    assert all(part in about for part in (*FAMILIES, "family:rule+rule", "family@size", "/share", "fstsim tasks"))
