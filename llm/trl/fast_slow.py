"""Fast-slow training on TRL's engine: GRPO with CISPO for the weights, our prompt evolution for the contexts.

As in a run of ours: each problem's group is shared out over the contexts of the population and has one baseline, and a fast
round comes before every T-th optimizer step. TRL samples, splits over processes and devices, updates and saves. Source: 2605.12484.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from fstsim.errors import InputError
from fstsim.llm.contexts.prompt_evolution import PromptEvolution
from fstsim.llm.learners.losses import group_advantages
from fstsim.llm.learners.weights import Weights, share_out
from fstsim.llm.policy.policy import Policy
from fstsim.llm.trl.callback import check_whole_weights, on_main
from fstsim.llm.trl.models import lent_policy
from fstsim.llm.trl.undisturbed import undisturbed
from fstsim.llm.types import UNUSABLE, Population, Problem, Task
from fstsim.records import plain, read_json, write_json

_FILE = "population.json"
_PROBLEM = "problem"  # column: number of the problem among the task's


def check_padding(policy: Policy) -> None:
    """InputError for a model whose numbers depend on padding: TRL pads the prompts of a batch on the left."""
    if not policy.padded:
        raise InputError(
            f"{type(policy.model).__name__} counts the places of a row: TRL's engine pads prompts on the left, which moves them"
        )


class FastSlowGRPOTrainer(GRPOTrainer):
    """A `trl.GRPOTrainer` of ``task`` whose prompts are problems in the contexts of ``population``.

    ``fast`` evolves the population on the main process, on the policy as it is, before every ``every``-th optimizer step; all
    processes then have its result; None leaves it as it is. ``args`` must say ``loss_type="cispo"`` and an ``epsilon_high`` (the
    cap of the ratio) above 1; advantages are ours (`group_advantages`, normalised by the group), whatever ``scale_rewards``
    says. ``more`` are arguments of `GRPOTrainer`, such as ``peft_config`` and ``callbacks``. Checkpoints hold
    ``population.json``, and a resumed training goes on with it. Raises InputError if a setting does not fit.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        task: Task,
        args: GRPOConfig,
        *,
        processing_class: PreTrainedTokenizerBase,
        fast: PromptEvolution | None = None,
        every: int = 6,
        population: Population | None = None,
        **more: Any,
    ) -> None:
        if args.loss_type != "cispo" or not (args.epsilon_high or 0.0) > 1.0:
            raise InputError(
                f'fast-slow training is CISPO: give loss_type="cispo" and epsilon_high above 1, got {args.loss_type!r} and {args.epsilon_high}'
            )
        if every < 1:
            raise InputError(f"every must be at least 1, got {every}")
        if fast is not None and fast.reuse:
            raise InputError("rollouts of a fast round cannot be reused by TRL's engine: leave reuse out")
        if fast is not None and fast.dead_only:
            raise InputError("TRL's engine does not note which problems are unsolved: leave dead_only out")
        self._problems: Sequence[Problem] = task.problems("train")
        self._task, self._fast, self._every = task, fast, every
        self.population = population or Population()
        self.rounds: list[dict[str, Any]] = []
        adapted: Any = model
        plain_model = adapted.get_base_model() if hasattr(model, "peft_config") else model
        self._encoder = Policy.of(plain_model, copy.deepcopy(processing_class))
        check_padding(self._encoder)
        self._dead = torch.zeros(0, dtype=torch.bool)  # of each group of the batch, over all processes
        self._pending: list[list[int]] = []
        rows = [{"prompt": problem.question, _PROBLEM: k} for k, problem in enumerate(self._problems)]
        super().__init__(
            model,
            reward_funcs=self._reward,
            args=args,
            train_dataset=Dataset.from_list(rows),
            processing_class=processing_class,
            **more,
        )
        size: Any = args.num_generations  # TRL has checked that it is one
        self._size = int(size)
        self._end_as_ours()
        self.scale_rewards = "none"  # TRL centres, `group_advantages` does the rest
        check_whole_weights(self)

    def _end_as_ours(self) -> None:
        """A completion ends where one of ours does: TRL knows neither the end that the template writes, nor that a model has none of the tokenizer's."""
        ends = list(self._encoder.end_tokens)
        self.eos_token_ids = ends
        if not self.use_vllm:
            self.generation_config.eos_token_id = ends
            self.generation_kwargs["eos_token_id"] = ends

    def _reward(self, completion_ids: list[list[int]], problem: list[int], **_: Any) -> list[float | None]:
        # TRL's own texts keep what an end that is not flagged special is written as
        texts = self._encoder.read(completion_ids)
        return [self._score(k, text) for k, text in zip(problem, texts, strict=True)]

    def _score(self, k: int, text: str) -> float:
        return self._task.score(self._problems[k], text).reward

    def _task_of_round(self, step: int) -> Task | None:
        """What contexts are evolved on before optimizer step number ``step`` (from 0), None if there is no round."""
        return self._task if step % self._every == 0 else None

    def contexts(self, rows: int) -> list[str]:
        """The context of each of this process's next ``rows`` rollouts; groups follow each other over all processes.

        What a group's size leaves over when it is shared out goes to contexts drawn anew for each batch, the same on all processes.
        """
        rng = np.random.default_rng((self.args.seed, 0, self.state.global_step))
        shares = share_out(self._size, len(self.population.prompts), rng)
        group = [c for c, n in zip(self.population.prompts, shares, strict=True) for _ in range(n)]
        first = self.accelerator.process_index * rows
        return [group[(first + k) % len(group)] for k in range(rows)]

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        step = self.state.global_step
        begun = self.rounds and self.rounds[-1]["step"] == step
        model: Any = self.model
        if model.training and self._fast is not None and not begun and (task := self._task_of_round(step)) is not None:
            self._evolve(step, task)
        return super()._prepare_inputs(generation_batch)

    def _evolve(self, step: int, task: Task) -> None:
        """One fast round on ``task``; nothing of the training but the population notices it."""
        fast, optimizer = self._fast, self.optimizer
        assert fast is not None
        assert optimizer is not None
        model: Any = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)

        def work() -> dict[str, Any]:
            with undisturbed(model):
                policy = lent_policy(model, self._encoder.tokenizer)
                rng = np.random.default_rng((self.args.seed, 1, step))
                found, info = fast.step(Weights(policy, policy, optimizer), self.population, task, rng)
            return {"population": plain(asdict(found)), "samples": info.samples, "metrics": plain(info.metrics)}

        held = on_main(self.accelerator, work)
        self.population = Population.from_dict(held["population"])
        self.rounds.append({"step": step, **held["population"], "samples": held["samples"], "metrics": held["metrics"]})
        for name, value in held["metrics"].items():
            if name != UNUSABLE:
                self._metrics["train"][name].append(float(value))

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        model: Any = self.model
        training = model.training
        # an evaluation is in the best context
        contexts = self.contexts(len(inputs)) if training else [self.population.prompts[0]] * len(inputs)
        problems = [self._problems[row[_PROBLEM]] for row in inputs]
        self._pending = self._encoder.encode_all(list(zip(contexts, problems, strict=True)))
        shown = [f"{c}\n\n{row['prompt']}" if c else row["prompt"] for c, row in zip(contexts, inputs, strict=True)]
        output = super()._generate_and_score_completions(
            [{**row, "prompt": prompt} for row, prompt in zip(inputs, shown, strict=True)]
        )
        if training:
            centred = self.accelerator.gather(output["advantages"])
            groups = torch.arange(len(centred), device=centred.device) // self._size
            first = self.accelerator.process_index * len(inputs)
            advantages, self._dead = group_advantages(centred, groups)
            output["advantages"] = advantages[first : first + len(inputs)]
        return output

    def _tokenize_prompts(self, prompts: list[Any]) -> Any:
        """Tokens as in a run of ours, whatever the template; TRL's own are for its own prompts."""
        assert len(prompts) == len(self._pending)
        return self._pending, None, {}

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, multimodal_fields: Any, num_generations: int, has_tool_images: bool = False
    ) -> Any:
        # TRL sends a vLLM server the first prompt of each group alone; the prompts of ours differ
        each = 1 if self.use_vllm else num_generations
        parent: Any = super()
        return parent._generate_single_turn(prompt_ids, images, multimodal_fields, each, has_tool_images)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        parent: Any = super()
        parent._save_checkpoint(model, trial)
        if self.args.should_save:
            folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
            write_json(folder / _FILE, {"population": plain(asdict(self.population)), "rounds": self.rounds})

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        # here, because with DeepSpeed the trainer loads weights in another way, but passes by here
        parent: Any = super()
        parent._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        path = Path(checkpoint) / _FILE
        if not path.is_file():
            raise InputError(f"{checkpoint} has no {_FILE}: it is no checkpoint of fast-slow training")
        held = read_json(path)
        self.population, self.rounds = Population.from_dict(held["population"]), held["rounds"]
