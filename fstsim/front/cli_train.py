"""Commands on one training run: `train` and `prompts`. Parsed by `fstsim.__main__`; torch is imported when one runs."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

from fstsim.errors import InputError
from fstsim.front.cli import AGAIN, CONTINUE, Directory
from fstsim.front.cli_models import OfPreset, given, quiet
from fstsim.front.console import Progress, complain, prompts_table, show, training_table
from fstsim.records import read_json, read_rows

_Tasks = Annotated[tuple[str, ...], tyro.conf.arg(metavar="TASK [TASK ...]")]
_Old = Annotated[tuple[str, ...], tyro.conf.arg(metavar="TASK [TASK ...]", help_behavior_hint="(default: none)")]
_Adapted = Annotated[float | None, tyro.conf.arg(help_behavior_hint="(default: adapted to the budget)")]

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


@dataclass(frozen=True)
class Train:
    """Post-train a model on tasks, one run directory a seed, or continue what was stopped; ends with a picture and a table."""

    task: _Tasks = ("strings:reverse",)
    """what is trained; several tasks are trained one after the other. family:rule+rule, of family strings, digits or
    star_graph, with rules from the table that fstsim tasks prints (a family alone is its default task; family@size has
    problems of another size; /share at the end rewards every right symbol, not right answers alone); file.jsonl, a problem a
    line: an object with prompt (or chat messages) and answer (or answers), optional old_answer, split and context;
    module.py:object or package.module:object, a Task of fstsim.llm.types or a function that returns one, run with your rights;
    reasoning_gym:NAME?size=1000&seed=0&key=value, a data set of the package reasoning-gym"""
    old: _Old = ()
    """old skills: tasks, named as for --task, that are not trained but measured in every probe, each in its own context (its
    rule in words, or the context of its file)"""
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
    steps: OfPreset[int] = None
    """slow steps on each task"""
    lr: OfPreset[float] = None
    """learning rate of AdamW"""
    problems: OfPreset[int] = None
    """problems a step"""
    rollouts: OfPreset[int] = None
    """completions of a problem (rl, ttt, oapl)"""
    loss: OfPreset[Literal["cispo", "reinforce"]] = None
    """loss of rl"""
    advantage: OfPreset[Literal["normalised", "centred", "leave-one-out"]] = None
    """baseline and scale of a group's advantages (rl)"""
    updates: OfPreset[int] = None
    """optimizer steps on each batch (rl)"""
    ratio_cap: OfPreset[float] = None
    """cap of the importance ratio, above 1 (rl)"""
    leash_reward: OfPreset[float] = None
    """KL leash in the reward, nats of reward a nat of k1; with normalised advantages a group of equal rewards follows it
    at size one whatever its strength (rl, ttt)"""
    leash_loss: OfPreset[float] = None
    """exact KL leash as a loss, a nat a sequence (rl, ttt)"""
    replay: OfPreset[float] = None
    """share of demonstrations of the old behaviour (sft)"""
    direction: OfPreset[Literal["reverse", "forward"]] = None
    """reverse: KL(student || teacher); forward: KL(teacher || student) (sdft, mixture)"""
    demonstration: OfPreset[Literal["rule", "examples"]] = None
    """what the teacher sees: the rules in words, or rules that the base reads off four worked examples (sdft)"""
    ema_rate: OfPreset[float] = None
    """share of the way to the student that the teacher goes each step, 0 to 1 (sdft)"""
    anchor: OfPreset[float] = None
    """share in log space of the averaged teacher (sdft) or of the lagged policy (oapl); the rest is the base"""
    anchor_sees: OfPreset[Literal["nothing", "demonstration"]] = None
    """what the base in the anchor sees (sdft)"""
    inverse_temperature: _Adapted = None
    """one inverse temperature for every group (ttt)"""
    budget: OfPreset[float] = None
    """KL of a group's tilted weights to uniform, nats (ttt)"""
    normaliser: OfPreset[Literal["leave-one-out", "group"]] = None
    """mean that a rollout's weight is divided by (ttt)"""
    tau: OfPreset[float] = None
    """temperature, reward a nat (oapl)"""
    period: OfPreset[int] = None
    """steps between refreshes of the lagged policy (oapl)"""
    alpha: OfPreset[float] = None
    """share of the old behaviour in the teacher (mixture)"""
    smoothing: OfPreset[float] = None
    """share of the base in the teacher (mixture)"""
    contexts: OfPreset[int] = None
    """contexts in the population (fst, gepa)"""
    slow_steps_per_round: OfPreset[int] = None
    """slow steps between fast rounds (fst)"""
    fast_budget: OfPreset[int] = None
    """rollouts of a fast round (fst, gepa)"""
    reflector: Literal["self", "openai", "local"] = "self"
    """who writes new contexts: the policy, an OpenAI-compatible endpoint (its key in FSTSIM_API_KEY), a local chat model"""
    base_url: str = ""
    """address of the endpoint, for example http://localhost:8000/v1"""
    reflector_model: str = ""
    """name of the endpoint's model, or path of the local one"""
    max_new_tokens: OfPreset[int] = None
    """longest completion, tokens"""
    probe_every: OfPreset[int] = None
    """steps between measurements"""
    stopped: ClassVar[str] = CONTINUE

    def _config(self) -> Any:
        from fstsim.llm.contexts.reflection import ReflectorConfig
        from fstsim.llm.runs.config import PRESETS

        preset = PRESETS[self.preset]
        said = given(self, tuple(name for names in _SPEAK_OF.values() for name in names))
        for name in said:
            if not any(name in _SPEAK_OF[channel] for channel in _CHANNELS[self.method]):
                raise InputError(f"--{name.replace('_', '-')} says nothing about method {self.method}")
        if self.reflector != "self" and "fast" not in _CHANNELS[self.method]:
            raise InputError(f"--reflector says nothing about method {self.method}")
        if self.reflector == "self" and (self.base_url or self.reflector_model):
            raise InputError("--base-url and --reflector-model need --reflector openai or local")
        if self.inverse_temperature is not None and self.budget is not None:
            raise InputError("--inverse-temperature is fixed, --budget adapts it: give one of them")
        preset = replace(preset, slow=replace(preset.slow, **given(self, ("max_new_tokens",))))
        if self.method in _LEARNERS:  # only its own learner hears of a flag
            learner = getattr(preset, _LEARNERS[self.method])
            names = (*said, *given(self, ("max_new_tokens",)))
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
            old=self.old,
            model=self.model,
            device=self.device,
            precision=self.precision,
            context=self.context,
            fast=fast,
            reflector=ReflectorConfig(self.reflector, self.base_url, self.reflector_model),
            probe=probe,
            **given(self, ("steps", "lr", "slow_steps_per_round")),
        )

    def run(self) -> int:
        """Train them; 1 if a loss was not finite."""
        if self.seeds < 1:
            raise InputError(f"seeds must be at least 1, got {self.seeds}")
        from fstsim.llm.contexts.reflection import ReflectorDown, ReflectorTooSmall
        from fstsim.llm.learners.slow import Diverged
        from fstsim.llm.runs.run import check_runs, run_training

        quiet()
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
                    run = self.out / f"seed-{seed}"
                    hint = "the same command continues"
                    if isinstance(error, Diverged):
                        hint = "train anew with a lower --lr in another --out"
                    elif isinstance(error, ReflectorTooSmall):
                        hint = "train anew with another --reflector-model"
                    kept = (run / "checkpoint.safetensors").exists()
                    where = f"the last checkpoint is kept in {run}" if kept else f"{run} holds no checkpoint yet"
                    complain(f"error: {error}; {where}: {hint}")
                    return 1
                progress.at((seed + 1) * total)
                runs.append(rows)
        from fstsim.paper.records.train_picture import save_train_picture

        summaries = [read_json(self.out / f"seed-{k}" / "summary.json") for k in range(self.seeds)]
        for seed, failed in enumerate(summary.get("verifier_errors") for summary in summaries):
            if failed is not None:
                complain(
                    f"seed {seed}: the verifier failed {failed['count']} times, each scored 0; first: {failed['first']}"
                )
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
