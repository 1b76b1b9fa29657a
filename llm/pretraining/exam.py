"""Old skills, measured exactly and without sampling: one teacher-forced pass over fixed test problems.

Greedy decoding writes the right answer exactly if every token of it is the argmax given those before, so accuracy needs
no generation; the same pass gives the probability of the answer and its NLL.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from fstsim.llm.policy.policy import Policy
from fstsim.llm.pretraining.corpus import IGNORED, reflection_line, some_rules
from fstsim.llm.tasks.families import FAMILIES, Family
from fstsim.llm.tasks.rules import SIZES, draw_problem
from fstsim.llm.types import Problem

_BLOCK = 128  # rows evaluated together


@dataclass(frozen=True)
class Forced:
    """Teacher-forced answers: ``tokens, labels (B, T)`` padded on the right, labels -100 outside of the answer.

    Where the answer has one of the tokens ``alike``, greedy decoding may write any of them.
    """

    tokens: torch.Tensor
    labels: torch.Tensor
    alike: tuple[int, ...] = ()

    @classmethod
    def of(cls, rows: Sequence[tuple[list[int], list[int]]], pad: int, alike: tuple[int, ...] = ()) -> Forced:
        """From pairs (prompt tokens, answer tokens with the end token)."""
        length = max(len(prompt) + len(answer) for prompt, answer in rows) - 1
        tokens = torch.full((len(rows), length), pad)
        labels = torch.full((len(rows), length), IGNORED)
        for i, (prompt, answer) in enumerate(rows):
            whole = prompt + answer
            tokens[i, : len(whole) - 1] = torch.tensor(whole[:-1])
            labels[i, len(prompt) - 1 : len(whole) - 1] = torch.tensor(answer)
        return cls(tokens, labels, alike)

    @torch.no_grad()
    def evaluate(self, model: torch.nn.Module, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """``(log-probability of the answer, nats; greedy writes it; tokens in it)``, each ``(B,)``."""
        device = next(model.parameters()).device
        logps, greedy = [], []
        for first in range(0, len(self.tokens), _BLOCK):
            tokens = self.tokens[first : first + _BLOCK].to(device)
            labels = self.labels[first : first + _BLOCK].to(device)
            keep = labels >= 0
            # right padding and a causal model: no answer token sees a pad, so no mask is needed
            logits = model(tokens, use_cache=False).logits.float() / temperature
            picked = torch.log_softmax(logits, -1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
            logps.append((picked * keep).sum(-1))
            best, same = logits.argmax(-1), torch.tensor(self.alike, device=device)
            right = (best == labels) | (torch.isin(best, same) & torch.isin(labels, same))
            greedy.append((right | ~keep).all(-1))
        length = (self.labels >= 0).sum(-1)
        return (
            torch.cat(logps).double().cpu().numpy(),
            torch.cat(greedy).cpu().numpy(),
            length.numpy(),
        )


Item = tuple[str, Problem, str]
"""The rules in words, the problem, and the right answer, symbols with spaces between them."""


def _families(
    tokenizer: PreTrainedTokenizerBase, sizes: Mapping[str, int], seed: int
) -> Iterator[tuple[Family, int, np.random.Generator]]:
    """Each family in ``sizes`` that the tokenizer knows, with the rules that it knows, its size and its own generator."""
    known = set(tokenizer.get_vocab())
    for index, family in enumerate(FAMILIES.values()):
        size = sizes.get(family.name)
        if size is None or not set(family.symbols) <= known:
            continue
        rules = {word: rule for word, rule in family.rules.items() if word in known}
        yield replace(family, rules=rules), size, np.random.default_rng([seed, index])


def _items(
    family: Family, size: int, rng: np.random.Generator, problems: int, depth: int
) -> Iterator[tuple[str, list[Item]]]:
    for count in range(depth + 1):
        items = []
        for _ in range(problems):
            problem, start = draw_problem(family, rng, "test", size)
            rules = some_rules(family, count, rng)
            items.append((" ".join(rules), problem, " ".join(family.apply(rules, start))))
        yield f"accuracy_{family.name}_{count}" if count else f"old_mass_{family.name}", items


def world_items(
    tokenizer: PreTrainedTokenizerBase, sizes: Mapping[str, int], problems: int, seed: int = 5, depth: int = 3
) -> Iterator[tuple[str, list[Item]]]:
    """The parts of `Exam.of_world` that ask for answers, by name: the same problems, rules and answers."""
    for family, size, rng in _families(tokenizer, sizes, seed):
        yield from _items(family, size, rng, problems, depth)


@dataclass(frozen=True)
class Exam:
    """Named parts, each a block of teacher-forced answers; ``kind`` accuracy, reflection or old_mass."""

    parts: tuple[tuple[str, Forced], ...]

    @classmethod
    def of_world(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        sizes: Mapping[str, int] | None = None,
        problems: int = 128,
        seed: int = 5,
        reflections: bool = True,
        depth: int = 3,
    ) -> Exam:
        """Fixed problems of the test split with no rules (the identity), one, two, ... ``depth``; reflections on fresh lists.

        ``sizes`` are the symbols of a start list by family, one exam for each size that is to be asked; a family that is
        not in it is not asked, nor is a family or a rule that the tokenizer has no words for.
        """
        parts = []

        def encode(shown: str, written: str) -> tuple[list[int], list[int]]:
            answer = tokenizer(written, add_special_tokens=False)["input_ids"]
            return tokenizer(shown)["input_ids"], [*answer, tokenizer.eos_token_id]

        for family, size, rng in _families(tokenizer, sizes or SIZES, seed):
            for name, items in _items(family, size, rng, problems, depth):
                rows = [encode(f"{words} | {problem.text} =", answer) for words, problem, answer in items]
                parts.append((name, Forced.of(rows, tokenizer.pad_token_id)))
            if not reflections:  # the longest lines: half of the cost
                continue
            lines = [reflection_line(family, size, rng) for _ in range(problems)]
            rows = [encode(" ".join(shown), " ".join(written)) for shown, written in lines]
            parts.append((f"reflection_{family.name}", Forced.of(rows, tokenizer.pad_token_id)))
        return cls(tuple(parts))

    def sit(self, model: torch.nn.Module) -> dict[str, float]:
        """Accuracy of every part; for ``old_mass`` the mean probability of the answer; and ``nll`` a token with rules."""
        training = model.training
        model.eval()
        result: dict[str, float] = {}
        nll = tokens = 0.0
        for name, forced in self.parts:
            logp, greedy, length = forced.evaluate(model)
            if name.startswith("old_mass"):
                result[name] = float(np.exp(logp).mean())
            else:
                result[name] = float(greedy.mean())
            if name.startswith("accuracy"):
                nll -= float(logp.sum())
                tokens += float(length.sum())
        model.train(training)
        return {**result, "nll": nll / tokens}


@dataclass(frozen=True)
class ExamSkills:
    """The exam as old skills of a model of the world: its results, and what was lost of them since ``base`` sat it."""

    exam: Exam
    base: Mapping[str, float]

    @classmethod
    def of(cls, base: Policy, problems: int) -> ExamSkills:
        """An exam of ``problems`` problems a part, which ``base`` sits."""
        exam = Exam.of_world(base.tokenizer, base.sizes, problems=problems, reflections=False)
        with base.running():
            return cls(exam, exam.sit(base.model))

    def measure(self, policy: Policy) -> dict[str, float]:
        """``drift``, the accuracy lost, ``drift_nll``, nats a token gained, and the results of `Exam.sit`."""
        with policy.running():
            skills = self.exam.sit(policy.model)
        accuracies = [name for name in skills if name.startswith("accuracy")]
        drift = float(np.mean([self.base[name] - skills[name] for name in accuracies]))
        return {"drift": drift, "drift_nll": skills["nll"] - self.base["nll"], **skills}
