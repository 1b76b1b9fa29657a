"""What a run is given, checked before anything is written: its tasks, and whether method, model and tasks fit each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from fstsim.errors import InputError
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.config import TrainConfig
from fstsim.llm.tasks.exactness import check_exact
from fstsim.llm.tasks.parse import own_problems, parse_task, problems_hash
from fstsim.llm.tasks.wrapped import bare
from fstsim.llm.types import Answered, Demonstrated, Problem, Split, Task, rule_words
from fstsim.records import read_json

_SHOWN = 24  # words of a model's vocabulary in a message
_TRIED = 16  # answers that a task's own verifier is asked about


def with_tasks(
    config: TrainConfig, tasks: Sequence[Task] | None = None, old: Sequence[Task] | None = None
) -> tuple[TrainConfig, list[Task], list[Task]]:
    """``config`` with names and hashes of its tasks, the tasks, and the old skills; from their names where not given."""
    if tasks is None:
        tasks = [parse_task(name) for name in config.tasks]
    else:
        config = replace(config, tasks=tuple(task.name for task in tasks))
    if old is None:
        old = [parse_task(name) for name in config.old]
    else:
        config = replace(config, old=tuple(task.name for task in old))
    asked = (*config.tasks, *config.old)
    _check_names(asked, (*tasks, *old))
    own = own_problems(asked, (*tasks, *old))
    return replace(config, problems_sha256=tuple(own.items())), list(tasks), list(old)


def _check_names(asked: Sequence[str], tasks: Sequence[Task]) -> None:
    """InputError for two tasks of one name that are not the same task: columns, contexts and records go by the name."""
    met: dict[str, tuple[str, Task]] = {}
    for name, task in zip(asked, tasks, strict=True):
        first, other = met.setdefault(task.name, (name, task))
        if other is not task and other != task and problems_hash(other) != problems_hash(task):
            which = f" ({first} and {name})" if first != name else ""
            raise InputError(
                f"two tasks are called {task.name!r}{which}, but are not the same: give them different names"
            )


def check_problems(out: Path, config: TrainConfig) -> None:
    """InputError if the run in directory ``out`` began with other problems of the same name."""
    if not (out / "config.json").exists():
        return
    found = read_json(out / "config.json")
    try:
        began = dict(found.get("problems_sha256", ())) if isinstance(found, dict) else {}
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{out / 'config.json'} is not the configuration of a training run: choose another --out"
        ) from error
    for name, value in config.problems_sha256:
        if began.get(name, value) != value:
            raise InputError(
                f"the problems or the verifier of {name} have changed since the run in {out} began: choose another --out"
            )


def check_tasks(config: TrainConfig, policy: Policy, tasks: Sequence[Task], old: Sequence[Task]) -> None:
    """InputError if a task lacks problems or does not fit the model: it has no such words, a prompt or an answer is too long.

    What a learner needs of a task beside that is asked by the learner's own ``check``.
    """
    if strange := policy.unknown(config.context):
        raise InputError(f"--context has words that {config.model} does not know: {', '.join(map(repr, strange))}")
    for task in tasks:
        check_splits(task, ("train", "validation", "test") if config.fast is not None else ("train", "test"))
        _check_fit(policy, task, config.context, config.max_new_tokens, config.model)
    for task in old:
        check_splits(task, ("test",))
        context = rule_words(task, policy.template) or ""
        if strange := policy.unknown(context):
            raise InputError(
                f"the context of {task.name} has words that {config.model} does not know: {', '.join(map(repr, strange))}"
            )
        _check_fit(policy, task, context, config.probe.max_new_tokens, config.model)


def check_splits(task: Task, needed: tuple[Split, ...]) -> None:
    """InputError if ``task`` has too few problems in a split that is ``needed``."""
    for split in needed:
        count, least = len(task.problems(split)), 2 if split == "test" else 1
        if count < least:
            raise InputError(f"{task.name} has {count} problems in split {split}, but needs at least {least}")


def _lines(task: Task) -> list[Problem]:
    """Of families and the like the test problems, as many as probes see; of files every line, in their order."""
    more = [p for p in (*task.problems("train"), *task.problems("validation")) if p.where]
    return sorted([*task.problems("test"), *more], key=lambda p: int(p.where.rpartition(":")[2]) if p.where else 0)


def check_readable(policy: Policy, task: Task, model: str) -> None:
    """InputError if ``policy`` does not know words of the prompts or answers of ``task``, its answers earn no reward, or others do."""
    problems = _lines(task)
    if policy.template == "world":
        unknown = policy.tokenizer.unk_token_id
        for problem, tokens in zip(problems, policy.encode_all([("", p) for p in problems]), strict=True):
            if unknown in tokens:
                strange = ", ".join(map(repr, policy.unknown(problem.stated)[:3]))
                raise InputError(
                    f"{_place(problem, task)}: the prompt has words that {model} does not know: {strange}; {_known(policy)}"
                )
    if isinstance(task, Answered):
        _check_answers(policy, task, problems, model)
    check_exact(bare(task))


def _known(policy: Policy) -> str:
    """Words of the world that a model was trained on, for messages."""
    special = set(policy.tokenizer.all_special_tokens)
    words = [word for word in policy.tokenizer.get_vocab() if word not in special]
    return f"it knows {' '.join(sorted(words, key=policy.tokenizer.convert_tokens_to_ids)[:_SHOWN])} ..."


def _check_fit(policy: Policy, task: Task, context: str, max_new_tokens: int, model: str) -> None:
    check_readable(policy, task, model)
    problems = _lines(task)
    if isinstance(task, Answered):
        _check_room(policy, task, problems, max_new_tokens)
    longest = max(problems, key=lambda p: len(p.question))
    policy.sample([policy.encode(context, longest)], 1, torch.Generator(policy.device), max_new_tokens=max_new_tokens)


def _check_room(policy: Policy, task: Answered, problems: Sequence[Problem], max_new_tokens: int) -> None:
    encoded = policy.encode_answers([task.answer(p) for p in problems])
    # in other vocabularies than the world's, some answers have more tokens than others
    worst = max(range(len(problems)), key=lambda k: len(encoded[k]))
    longest = len(encoded[worst])
    if longest > max_new_tokens:
        where = problems[worst].where
        raise InputError(
            f"{f'{where}: the answer has' if where else f'answers of {task.name} have'} {longest} tokens, the end token included: "
            f"--max-new-tokens must be at least {longest}, got {max_new_tokens}"
        )


def _check_answers(policy: Policy, task: Answered, problems: Sequence[Problem], model: str) -> None:
    kinds = {"answer": task.answer}
    if isinstance(task, Demonstrated):
        kinds["old answer"] = task.old_answer
    given = [answer(problem) for answer in kinds.values() for problem in problems]
    # all words at once is quick; which of them is wrong is asked only where one is
    for problem in problems if not all(given) or policy.unknown(" ".join(given)) else ():
        for what, answer in kinds.items():
            if not answer(problem):
                raise InputError(f"{_place(problem, task)}: the {what} is empty")
            if strange := policy.unknown(answer(problem)):
                raise InputError(
                    f"{_place(problem, task)}: the {what} has words that {model} does not know: {strange[0]!r}; {_known(policy)}"
                )
    encoded = policy.encode_answers([task.answer(p) for p in problems[:_TRIED]])
    written = policy.read(encoded)
    for problem, text in zip(problems, written, strict=False):
        try:
            reward = task.score(problem, text).reward
        except Exception:
            continue
        if reward != 1.0:
            raise InputError(
                f"{_place(problem, task)}: the answer {task.answer(problem)!r} has reward {reward:g}, not 1, as {model} writes it: "
                f"{text!r}; give the answer in that form"
            )


def _place(problem: Problem, task: Task) -> str:
    return problem.where or f"{task.name}, problem {problem.stated[:60]!r}"
