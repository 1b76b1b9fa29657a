"""The commands of the language-model laboratory. Parsed by `fstsim.__main__`; torch is imported when one runs."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

from fstsim.cli import AGAIN, CONTINUE, Directory
from fstsim.console import Progress, complain, prompts_table, show, tasks_table, training_table, verdict_table
from fstsim.errors import InputError
from fstsim.records import prepare_directory, read_json, read_rows

_Names = Annotated[tuple[str, ...], tyro.conf.arg(metavar="TASK [TASK ...]")]


# flags that speak of some methods only, and what each method is spoken of by
_SPEAK_OF = {
    "rl": ("loss", "advantage", "updates", "ratio_cap"),
    "groups": ("rollouts",),
    "leash": ("leash_reward", "leash_loss"),
    "sft": ("replay",),
    "fast": ("contexts", "fast_budget"),
    "both": ("slow_steps_per_round",),
    "slow": ("problems", "lr"),
    "teacher": ("direction",),
    "anchor": ("anchor",),
    "sdft": ("demonstration", "ema_rate", "anchor_sees"),
    "ttt": ("inverse_temperature", "budget", "normaliser"),
    "oapl": ("tau", "period"),
    "mixture": ("alpha", "smoothing"),
}
_CHANNELS = {
    "rl": ("rl", "groups", "leash", "slow"),
    "sft": ("sft", "slow"),
    "gepa": ("fast",),
    "fst": ("rl", "groups", "leash", "slow", "fast", "both"),
    "sdft": ("sdft", "teacher", "anchor", "slow"),
    "ttt": ("ttt", "groups", "leash", "slow"),
    "oapl": ("oapl", "groups", "anchor", "slow"),
    "mixture": ("mixture", "teacher", "slow"),
}
# where TrainConfig holds the settings of each method's slow channel
_LEARNERS = {
    "rl": "slow",
    "fst": "slow",
    "sft": "demonstrations",
    "sdft": "sdft",
    "ttt": "ttt",
    "oapl": "oapl",
    "mixture": "mixture",
}


def _quiet() -> None:
    """No bars and warnings of transformers between ours."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def _given(command: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """The flags among ``names`` that the user gave."""
    return {name: getattr(command, name) for name in names if getattr(command, name) is not None}


@dataclass(frozen=True)
class Pretrain:
    """Train the base model of the laboratory from scratch, or continue a training that was stopped."""

    preset: Literal["smoke", "small", "medium"] = "small"
    """smoke: seconds, to see it run; small: the shipped model, 15 minutes on 2 cores; medium: for a GPU"""
    out: Directory = Path("out/base")
    """directory of the model"""
    steps: int | None = None
    """updates (default: the preset's)"""
    seed: int = 0
    """seed of weights and data"""
    precision: Literal["float32", "bfloat16"] | None = None
    """of activations (default: bfloat16)"""
    device: str = "cpu"
    """torch device, for example cuda"""
    stopped: ClassVar[str] = CONTINUE

    def run(self) -> int:
        """Train it."""
        from fstsim.llm.loading import check_device
        from fstsim.llm.pretrain import PRESETS, pretrain

        _quiet()
        check_device(self.device)
        config = replace(PRESETS[self.preset], seed=self.seed, **_given(self, ("steps", "precision")))
        with contextlib.closing(Progress("pretrain", config.steps, "steps")) as progress:
            pretrain(config, self.out, device=self.device, progress=progress.at)
        show((self.out / "README.md").read_text(encoding="utf-8").split("---\n", 2)[2], f"model: {self.out}")
        return 0


@dataclass(frozen=True)
class Train:
    """Post-train a model on tasks, one run directory a seed, or continue what was stopped; ends with a picture and a table."""

    task: _Names = ("strings:reverse",)
    """family:rule+rule, or family:rule+rule/share; several are trained one after the other"""
    method: Literal["rl", "sft", "fst", "gepa", "sdft", "ttt", "oapl", "mixture"] = "rl"
    """rl: policy gradient (CISPO) on verified rewards; sft: forward KL on demonstrations; gepa: contexts evolved by
    reflection, weights frozen; fst: both; sdft: distillation from its own average that sees a demonstration; ttt: entropic
    policy gradient; oapl: regression on a lagged policy's rollouts; mixture: distillation to old and new behaviour in given
    shares"""
    preset: Literal["smoke", "small", "paper"] = "small"
    """smoke: under a minute a seed on 2 cores; small: minutes; paper: for a GPU"""
    seeds: int = 3
    """independent runs, seeds 0, 1, ..."""
    out: Directory = Path("out/train")
    """directory; seed k goes to seed-k in it"""
    model: str = "base"
    """the shipped base model, or any causal LM of transformers by path or hub name"""
    device: str = "cpu"
    """torch device, for example cuda"""
    precision: Literal["float32", "bfloat16"] = "float32"
    """of activations while learning; bfloat16 is meant for GPUs. Weights, optimizer, probes and the saved model are float32"""
    context: str = ""
    """context that every problem is shown in: the seed of the population with fst and gepa, frozen with all others"""
    steps: int | None = None
    """slow steps on each task (default: the preset's)"""
    lr: float | None = None
    """learning rate of AdamW"""
    problems: int | None = None
    """problems a step"""
    rollouts: int | None = None
    """completions of a problem (rl, ttt, oapl)"""
    loss: Literal["cispo", "reinforce"] | None = None
    """loss of rl"""
    advantage: Literal["normalised", "centred", "leave-one-out"] | None = None
    """baseline and scale of a group's advantages (rl)"""
    updates: int | None = None
    """optimizer steps on each batch (rl)"""
    ratio_cap: float | None = None
    """cap of the importance ratio, above 1 (rl)"""
    leash_reward: float | None = None
    """KL leash in the reward, nats of reward a nat of k1 (rl, ttt)"""
    leash_loss: float | None = None
    """exact KL leash as a loss, a nat a sequence (rl, ttt)"""
    replay: float | None = None
    """share of demonstrations of the old behaviour (sft)"""
    direction: Literal["reverse", "forward"] | None = None
    """reverse: KL(student || teacher); forward: KL(teacher || student) (sdft, mixture)"""
    demonstration: Literal["rule", "examples"] | None = None
    """what the teacher sees: the rules in words, or rules that the base reads off four worked examples (sdft)"""
    ema_rate: float | None = None
    """share of the way to the student that the teacher goes each step, 0 to 1 (sdft)"""
    anchor: float | None = None
    """share in log space of the averaged teacher (sdft) or of the lagged policy (oapl); the rest is the base"""
    anchor_sees: Literal["nothing", "demonstration"] | None = None
    """what the base in the anchor sees (sdft)"""
    inverse_temperature: float | None = None
    """one inverse temperature for every group (default: adapted to the budget; ttt)"""
    budget: float | None = None
    """KL of a group's tilted weights to uniform, nats (ttt)"""
    normaliser: Literal["leave-one-out", "group"] | None = None
    """mean that a rollout's weight is divided by (ttt)"""
    tau: float | None = None
    """temperature, reward a nat (oapl)"""
    period: int | None = None
    """steps between refreshes of the lagged policy (oapl)"""
    alpha: float | None = None
    """share of the old behaviour in the teacher (mixture)"""
    smoothing: float | None = None
    """share of the base in the teacher (mixture)"""
    contexts: int | None = None
    """contexts in the population (fst, gepa)"""
    slow_steps_per_round: int | None = None
    """slow steps between fast rounds (fst)"""
    fast_budget: int | None = None
    """rollouts of a fast round (fst, gepa)"""
    reflector: Literal["self", "openai", "local"] = "self"
    """who writes new contexts: the policy, an OpenAI-compatible endpoint (its key in FSTSIM_API_KEY), a local chat model"""
    base_url: str = ""
    """address of the endpoint, for example http://localhost:8000/v1"""
    reflector_model: str = ""
    """name of the endpoint's model, or path of the local one"""
    max_new_tokens: int | None = None
    """longest completion, tokens"""
    probe_every: int | None = None
    """steps between measurements"""
    stopped: ClassVar[str] = CONTINUE

    def _config(self) -> Any:
        from fstsim.llm.reflection import ReflectorConfig
        from fstsim.llm.train_config import PRESETS

        preset = PRESETS[self.preset]
        said = _given(self, tuple(name for names in _SPEAK_OF.values() for name in names))
        for name in said:
            if not any(name in _SPEAK_OF[channel] for channel in _CHANNELS[self.method]):
                raise InputError(f"--{name.replace('_', '-')} says nothing about method {self.method}")
        if self.reflector != "self" and "fast" not in _CHANNELS[self.method]:
            raise InputError(f"--reflector says nothing about method {self.method}")
        if self.reflector == "self" and (self.base_url or self.reflector_model):
            raise InputError("--base-url and --reflector-model need --reflector openai or local")
        if self.inverse_temperature is not None and self.budget is not None:
            raise InputError("--inverse-temperature is fixed, --budget adapts it: give one of them")
        preset = replace(preset, slow=replace(preset.slow, **_given(self, ("max_new_tokens",))))
        if self.method in _LEARNERS:  # only its own learner hears of a flag
            learner = getattr(preset, _LEARNERS[self.method])
            names = (*said, *_given(self, ("max_new_tokens",)))
            own = {f.name: getattr(self, f.name) for f in fields(learner) if f.name in names}
            preset = replace(preset, **{_LEARNERS[self.method]: replace(learner, **own)})
        fast = replace(
            preset.fast,
            max_new_tokens=preset.slow.max_new_tokens,
            contexts=preset.fast.contexts if self.contexts is None else self.contexts,
            budget=preset.fast.budget if self.fast_budget is None else self.fast_budget,
        )
        probe = replace(
            preset.probe,
            max_new_tokens=preset.slow.max_new_tokens,
            every=preset.probe.every if self.probe_every is None else self.probe_every,
        )
        return replace(
            preset,
            method=self.method,
            tasks=self.task,
            model=self.model,
            device=self.device,
            precision=self.precision,
            context=self.context,
            fast=fast,
            reflector=ReflectorConfig(self.reflector, self.base_url, self.reflector_model),
            probe=probe,
            **_given(self, ("steps", "lr", "slow_steps_per_round")),
        )

    def run(self) -> int:
        """Train them; 1 if a loss was not finite."""
        if self.seeds < 1:
            raise InputError(f"seeds must be at least 1, got {self.seeds}")
        from fstsim.llm.reflection import ReflectorDown
        from fstsim.llm.slow import Diverged
        from fstsim.llm.train_run import check_runs, run_training

        _quiet()
        config = self._config()
        check_runs(config, self.out, self.seeds)
        runs = []
        total = config.steps * len(config.tasks)
        with contextlib.closing(Progress("train", total * self.seeds, "steps")) as progress:
            for seed in range(self.seeds):
                at = lambda step, note, k=seed: progress.at(k * total + step, f"seed {k}: {note}")  # noqa: E731
                try:
                    rows = run_training(replace(config, seed=seed), self.out / f"seed-{seed}", at)
                except (Diverged, ReflectorDown) as error:
                    hint = "lower --lr" if isinstance(error, Diverged) else "the same command continues"
                    complain(f"error: {error}; the last checkpoint is kept in {self.out / f'seed-{seed}'}: {hint}")
                    return 1
                progress.at((seed + 1) * total)
                runs.append(rows)
        from fstsim.paper.train_picture import save_train_picture

        summaries = [read_json(self.out / f"seed-{k}" / "summary.json") for k in range(self.seeds)]
        picture = save_train_picture(config, runs, self.out / "picture.png")
        what = f"{self.method} on {', '.join(config.tasks)} from {config.model} in {config.precision}"
        show(training_table(runs, summaries, f"{self.out}: {what}, {total:,} steps"), f"picture: {picture}")
        return 0


@dataclass(frozen=True)
class Prompts:
    """Show how the contexts of a run evolved: every fast round, the population and where each context came from."""

    run_directory: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
    """run directory of one seed"""
    stopped: ClassVar[str] = AGAIN

    def run(self) -> int:
        """Show them."""
        if not (self.run_directory / "prompts.jsonl").exists():
            seeds = sorted(path.parent.name for path in self.run_directory.glob("seed-*/prompts.jsonl"))
            where = f": name one of {', '.join(seeds)} in it" if seeds else ": fst and gepa runs have them"
            raise InputError(f"{self.run_directory} holds no prompts.jsonl{where}")
        show(prompts_table(read_rows(self.run_directory / "prompts.jsonl"), str(self.run_directory)))
        return 0


@dataclass(frozen=True)
class Experiment:
    """Run an experiment on fast-slow training, or continue it: run directories, figures and tables with intervals."""

    name: tyro.conf.Positional[
        Literal["calibrate", "core", "continual", "zero", "plasticity", "distill", "reuse", "all"]
    ]
    """calibrate: declared sweep of learning rates and leashes; core: data efficiency, asymptote, reward against KL, 2 x 2;
    continual: three families in one run; zero: a star graph from next to no reward, at every learning rate; plasticity: fresh RL from trained weights; distill: context into weights;
    reuse: slow steps that use the fast rounds' rollouts"""
    preset: Literal["smoke", "small", "paper"] = "smoke"
    """smoke: one family, five minutes on 2 cores; small: three families, hours; paper: for a GPU"""
    seeds: int = 3
    """seeds of every run"""
    out: Directory = Path("out/experiments")
    """directory; run NAME with seed k is runs/NAME/seed-k in it"""
    jobs: int = -1
    """runs at a time, one thread each; -1 uses every core"""
    device: str = "cpu"
    """torch device"""
    show: bool = False
    """run nothing: figures and tables of what is there, recorded runs for example"""
    stopped: ClassVar[str] = CONTINUE

    def run(self) -> int:
        """Run what is not finished; then figures and tables."""
        if self.seeds < 1:
            raise InputError(f"seeds must be at least 1, got {self.seeds}")
        prepare_directory(self.out)
        from fstsim.llm import experiments as lab

        _quiet()
        names = tuple(lab.EXPERIMENTS) if self.name == "all" else (self.name,)
        for name in () if self.show else names:
            chosen = lab.best_settings(self.out)
            planned = lab.on_device(lab.EXPERIMENTS[name](self.preset, chosen), self.device)
            with contextlib.closing(Progress(f"experiment {name}", len(planned) * self.seeds, "runs")) as progress:
                progress.add(0, "starting")
                for what, failure in lab.run_all(planned, self.seeds, self.out, self.jobs):
                    if failure:
                        complain(f"error: {what}: {failure}")
                        return 1
                    progress.add(1, what)
        show_experiments(self.out, names)
        return 0


def show_experiments(out: Path, names: tuple[str, ...]) -> None:
    """Figures and tables of experiments whose runs are there."""
    from fstsim.paper import experiment_figures as draw
    from fstsim.paper import experiment_tables as tables

    pictures = {
        "core": ((draw.draw_core, "core.png"), (draw.draw_decomposition, "decomposition.png")),
        "continual": ((draw.draw_continual, "continual.png"),),
        "zero": ((draw.draw_zero, "zero.png"),),
        "plasticity": ((draw.draw_plasticity, "plasticity.png"),),
        "reuse": ((draw.draw_reuse, "reuse.png"),),
    }
    shown = {
        "calibrate": lambda: [tables.calibration_table(out)],
        "core": lambda: tables.core_tables(out),
        "continual": lambda: [tables.continual_table(out)],
        "zero": lambda: [tables.zero_table(out)],
        "plasticity": lambda: [tables.plasticity_table(out)],
        "distill": lambda: [tables.distill_table(out)],
        "reuse": lambda: [tables.reuse_table(out)],
    }
    for name in names:
        show(*shown[name]())
        for function, file in pictures.get(name, ()):
            path = function(out, out / file)
            if path is not None:
                show(f"picture: {path}")


@dataclass(frozen=True)
class Tasks:
    """Show what a model can do on each task before any training: success without context and with the rules in context."""

    model: str = "base"
    """the shipped base model, or any causal LM by path or hub name"""
    task: _Names = ()
    """only these: family:rule+rule, or family@size:rule+rule for problems of another size (default: the whole table, at the
    sizes the model was trained on)"""
    problems: int = 128
    """test problems of each task"""
    device: str = "cpu"
    """torch device"""
    stopped: ClassVar[str] = AGAIN

    def run(self) -> int:
        """Measure and show."""
        if self.problems < 2:
            raise InputError(f"problems must be at least 2, got {self.problems}")
        from fstsim.llm.policy import Policy
        from fstsim.llm.task_table import measure_tasks, table_tasks
        from fstsim.llm.world import parse_task

        _quiet()
        named = [parse_task(name) for name in self.task]
        policy = Policy.load(self.model, self.device)
        tasks = named or table_tasks(policy.sizes)
        rows = []
        with contextlib.closing(Progress("tasks", len(tasks), "tasks")) as progress:
            for task in tasks:
                progress.add(0, task.name)
                rows += measure_tasks(policy, [task], self.problems)
                progress.add(1)
        show(tasks_table(rows, self.model))
        return 0


@dataclass(frozen=True)
class Validate:
    """Predict from the base model, write the predictions down, run, and print a verdict on each."""

    preset: Literal["smoke", "small", "paper"] = "smoke"
    """smoke: minutes on 2 cores; small: an hour; paper: for a GPU"""
    model: str = "base"
    """the shipped base model, or another model of this world by path"""
    seeds: int = 3
    """seeds of every run; a verdict needs at least 3"""
    out: Directory = Path("out/validation")
    """directory for predictions.json, validation.json and runs/"""
    jobs: int = -1
    """runs at a time, one thread each; -1 uses every core"""
    device: str = "cpu"
    """torch device"""
    only: tuple[str, ...] = ()
    """chapters whose runs are made (dead-groups, replay, forgetting, ...); none: all"""
    stopped: ClassVar[str] = CONTINUE

    def run(self) -> int:
        """Run what is not finished, then judge."""
        if self.seeds < 1:
            raise InputError(f"seeds must be at least 1, got {self.seeds}")
        prepare_directory(self.out)
        from fstsim.llm.validate import validate

        _quiet()
        events = validate(self.preset, self.model, self.seeds, self.out, self.jobs, self.only, self.device)
        last = first = next(events)
        failed = False
        with contextlib.closing(Progress("validate", first.runs, "runs")) as progress:
            progress.add(0, first.what)
            for last in events:
                if last.failed:
                    complain(f"error: {last.what}")
                    failed = True
                elif not last.judged:
                    progress.add(1, last.what)
        show(
            verdict_table(last.judged),
            f"{self.out / 'predictions.json'} was written before the runs; {self.out / 'validation.json'}",
        )
        return int(failed)
