"""`fstsim train`: post-training, one run directory a seed. torch is imported when it runs."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

from fstsim.cluster import check_answers
from fstsim.errors import InputError
from fstsim.front.command import CONTINUE, Address, Directory, OfPresetFloat, OfPresetInt, check_seeds, given, quiet
from fstsim.front.console import Progress, complain, show
from fstsim.front.tables import training_table
from fstsim.records import working_in

_Tasks = Annotated[tuple[str, ...], tyro.conf.arg(metavar="TASK [TASK ...]")]
_Old = Annotated[tuple[str, ...], tyro.conf.arg(metavar="TASK [TASK ...]", help_behavior_hint="(default: none)")]
_Trl = Annotated[
    tuple[str, ...], tyro.conf.arg(metavar="KEY=VALUE [KEY=VALUE ...]", help_behavior_hint="(default: none)")
]


@dataclass(frozen=True)
class Train:
    """Post-train a model on tasks, one run directory a seed, or continue what was stopped; ends with a picture and a table."""

    task: _Tasks = ("strings:reverse",)
    """what is trained; several tasks are trained one after the other. family:rule+rule, of family strings, digits or
    star_graph, with rules from the table that fstsim tasks prints (a family alone is its default task; family@size has
    problems of another size; /share at the end rewards every right symbol, not right answers alone; strings:rotate~sort is a
    switch: the first rule where a problem begins in the lower half of the symbols, else the second); stream:TASK,TASK, problems of
    several tasks in turn; file.jsonl, a problem a
    line: an object with prompt (or chat messages) and answer (or answers), optional old_answer, split and context;
    language:plural:bare and the like, the language suite for chat models (fstsim tasks --model shows it);
    module.py:object or package.module:object, a Task of fstsim.llm.types or a function that returns one, run with your rights;
    reasoning_gym:NAME?size=1000&seed=0&key=value, a data set of the package reasoning-gym"""
    old: _Old = ()
    """old skills: tasks, named as for --task, that are not trained but measured in every probe, each in its own context (its
    rule in words, or the context of its file)"""
    method: str = "rl"
    """what moves: weights, contexts or both"""
    preset: Literal["smoke", "small", "paper"] = "small"
    """smoke: under a minute a seed on 2 cores; small: minutes; paper: for a GPU"""
    seeds: int = 3
    """independent runs, seeds 0, 1, ..."""
    out: Directory = Path("out/train")
    """directory; seed k goes to seed-k in it"""
    model: str = "base"
    """the shipped base model, or any causal LM of transformers by path or hub name"""
    adapter: Annotated[str, tyro.conf.arg(metavar="lora:r=INT", help_behavior_hint="(default: none, all weights)")] = ""
    """train an adapter in place of all weights, by the package peft: lora:r=16, lora:r=8,alpha=32,targets=q_proj+v_proj. alpha
    is 2 r and targets are all linear modules unless given. The base is the same model with the adapter off, checkpoints hold the
    adapter alone, and model/ is a folder of peft"""
    gradient_checkpointing: bool = False
    """compute activations a second time in the backward pass in place of holding them: less memory, about a third more time"""
    device: str = "cpu"
    """torch device, for example cuda; auto is cuda where there is one, on a cluster what its workers have"""
    precision: Literal["float32", "bfloat16"] = "float32"
    """of activations while learning; bfloat16 is meant for GPUs. Weights, optimizer, probes and the saved model are float32"""
    context: str = ""
    """context that every problem is shown in: the seed of the population with fst and gepa, the
    teacher's with distill, frozen with all others"""
    steps: OfPresetInt = None
    """slow steps on each task"""
    lr: OfPresetFloat = None
    """learning rate, after --warmup and before --schedule"""
    clip: OfPresetFloat = None
    """largest norm of a gradient; longer ones are cut to it (1e9 never cuts)"""
    slow_steps_per_round: OfPresetInt = None
    """slow steps between fast rounds (fst)"""
    reflector: Literal["self", "openai", "local"] = "self"
    """who writes new contexts (gepa, fst): the policy, an OpenAI-compatible endpoint (its key in FSTSIM_API_KEY), another model here
    that stays as it is"""
    base_url: str = ""
    """address of the endpoint of --reflector openai, for example http://localhost:8000/v1"""
    reflector_model: str = ""
    """name of the model of --reflector openai; path or name (base, smollm2) of that of --reflector local"""
    reflector_timeout: float = 60.0
    """seconds that a call of --reflector openai may take; a model on a busy CPU needs minutes"""
    reflector_tokens: int = 0
    """longest text of another model as reflector, tokens; 0: the server's limit, 256 of a local one"""
    max_new_tokens: OfPresetInt = None
    """longest completion, tokens"""
    probe_every: OfPresetInt = None
    """steps between measurements"""
    probe_problems: OfPresetInt = None
    """held-out problems of each measurement"""
    probe_relearn: Annotated[
        int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: 60 for models of the world, else 0)")
    ] = None
    """most steps in which a copy relearns another task, at both ends of the run (0: not measured); it costs as much as all
    other measurements together, and the memory of another training"""
    no_model: bool = False
    """leave out model/ at the end: the trained weights are in the checkpoint alone, and the same command without this flag
    writes them"""
    engine: Literal["own", "trl"] = "own"
    """who samples and updates: own, the laboratory's loop; trl, TRL's trainer (methods rl and fst; extra trl), which accelerate launch
    starts in as many processes as there are GPUs"""
    trl: _Trl = ()
    """further arguments of TRL's GRPOConfig, for --engine trl: use_vllm=true, per_device_train_batch_size=4 (rollouts of one pass)"""
    backend: Literal["sequential", "dask"] = "sequential"
    """where seeds are trained: one after the other in this process, or one a worker on a dask cluster that shares the directory"""
    address: Address = None
    """address of the dask scheduler"""
    stopped: ClassVar[str] = CONTINUE

    def _config(self) -> Any:
        from fstsim.front.train_flags import check_flags, settings_of
        from fstsim.llm.contexts.reflectors import ReflectorConfig
        from fstsim.llm.runs.config import METHODS, PRESETS
        from fstsim.llm.runs.optimizer import OptimizerConfig

        preset = PRESETS[self.preset].config(self.method)
        check_flags(self)
        if self.reflector == "self" and (self.base_url or self.reflector_model):
            raise InputError("--base-url and --reflector-model are used with --reflector openai or local only")
        if self.reflector == "self" and self.reflector_tokens:
            raise InputError("--reflector-tokens is used with --reflector openai or local only")
        if self.reflector != "openai" and self.reflector_timeout != ReflectorConfig.timeout:
            raise InputError("--reflector-timeout is used with --reflector openai only")
        config = preset
        if preset.learner is not None:
            config = replace(config, learner=replace(preset.learner, **settings_of(self, type(preset.learner))))
        if preset.fast is not None:
            reflector = ReflectorConfig(
                self.reflector,
                self.base_url,
                self.reflector_model,
                self.reflector_timeout,
                max_tokens=self.reflector_tokens,
            )
            fast = replace(preset.fast, **settings_of(self, type(preset.fast)))
            config = replace(config, fast=fast, reflector=reflector)
        elif self.reflector != "self":
            users = ", ".join(name for name, m in METHODS.items() if m.evolves)
            raise InputError(f"--reflector is used by methods {users} only; remove it, or choose one of them")
        probe = replace(preset.probe, **given(self, ("max_new_tokens",)))
        for name in ("every", "problems", "relearn"):
            if (value := getattr(self, f"probe_{name}")) is not None:
                probe = replace(probe, **{name: value})
        return replace(
            config,
            tasks=self.task,
            old=self.old,
            model=self.model,
            adapter=self.adapter,
            gradient_checkpointing=self.gradient_checkpointing,
            device=self.device,
            precision=self.precision,
            context=self.context,
            probe=probe,
            optimizer=OptimizerConfig(**settings_of(self, OptimizerConfig)),
            engine=self.engine,
            trl=self.trl,
            **given(self, ("steps", "lr", "clip", "slow_steps_per_round")),
        )

    def run(self) -> int:
        """Train them; 1 if a loss was not finite."""
        check_answers(self.backend, self.address)
        if self.backend == "dask" and self.engine != "own":
            raise InputError("--backend dask is for --engine own; processes of TRL's are started by accelerate launch")
        if self.engine == "own":
            return self._run()
        from fstsim.front.train_processes import in_processes

        return in_processes(self._run, self.out)

    def _run(self) -> int:
        check_seeds(self.seeds)
        from fstsim.front.train_seeds import seeds_on
        from fstsim.llm.runs.run import check_runs

        quiet()
        config = self._config()
        if config.engine == "own":
            with seeds_on(self.address, self.out, config) as (config, cluster):
                check_runs(config, self.out, self.seeds)
                with working_in(self.out):
                    return self._train(config, cluster)
        from fstsim.front.train_processes import speaks, working_for_all
        from fstsim.llm.trl.arguments import user_arguments

        user_arguments(config)
        if speaks():
            check_runs(config, self.out, self.seeds)
        with working_for_all(self.out):
            return self._train(config) if speaks() else self._help(config)

    def _training(self) -> Any:
        """What makes a run, by engine."""
        if self.engine == "trl":
            from fstsim.llm.trl.run import run_training_on_trl

            return run_training_on_trl
        from fstsim.llm.runs.run import run_training

        return run_training

    def _help(self, config: Any) -> int:
        """What a process beside the main one does: its part of every run. What ends one is said by the main process."""
        from fstsim.llm.learners.weights import Diverged
        from fstsim.llm.trl.callback import MainProcessFailed

        try:
            for seed in range(self.seeds):
                self._training()(replace(config, seed=seed), self.out / f"seed-{seed}", write_model=not self.no_model)
        except (Diverged, MainProcessFailed):
            return 1
        return 0

    def _train(self, config: Any, cluster: Any = None) -> int:
        from fstsim.front.train_seeds import Seeds, train_here, train_on

        seeds = Seeds(config, self.seeds, self.out, not self.no_model)
        with contextlib.closing(Progress("train", seeds.total * self.seeds, "steps")) as progress:
            if cluster is None:
                runs = train_here(seeds, self._training(), progress)
            else:
                runs = train_on(seeds, cluster, progress)
        if len(runs) < self.seeds:
            return 1
        from fstsim.llm.runs.recorded import read_summary
        from fstsim.paper.records.train_picture import save_train_picture

        summaries = [read_summary(self.out / f"seed-{k}") for k in range(self.seeds)]
        for seed, failed in enumerate(summary.get("verifier_errors") for summary in summaries):
            if failed is not None:
                complain(
                    f"seed {seed}: the verifier failed {failed['count']} times, each scored 0; first: {failed['first']}"
                )
        for seed, said in enumerate(summary.get("reflections") for summary in summaries):
            if said is not None and said["rounds_without"]:
                complain(
                    f"seed {seed}: {said['rounds_without']} of {said['rounds']} fast rounds had no usable proposal "
                    f"({said['unusable']} of {said['written']} texts of the reflector were none); first: {said['first']}"
                )
        picture = save_train_picture(config, runs, self.out / "picture.png")
        what = f"{self.method} on {', '.join(config.tasks)} from {config.model} in {config.precision}"
        if config.reflector is not None:
            what += f", reflector {' '.join(filter(None, (config.reflector.kind, config.reflector.model)))}"
        show(training_table(runs, summaries, f"{self.out}: {what}, {seeds.total:,} steps"), f"picture: {picture}")
        return 0
