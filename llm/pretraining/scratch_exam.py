"""The exam of a scratch base: chains by number of rules, in both notations, direct answers, and the mass of writing a chain.

All by teacher forcing on fixed problems of the test split. A chain counts as right if greedy decoding, after a first mark,
writes every list of it and the answer; which of the two marks stands before a step is free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from fstsim.llm.pretraining.corpus import some_rules
from fstsim.llm.pretraining.exam import Forced
from fstsim.llm.tasks.chains import BACKWARD, FORWARD, MARKS, Step, right_steps, write
from fstsim.llm.tasks.families import FAMILIES
from fstsim.llm.tasks.rules import draw_problem

DEPTHS = (2, 3, 4, 5, 6)
"""Rules of the chains that are asked; the corpus has up to 4."""
LEARNED = 4
_EACH_NOTATION = 3  # rules of the chains that are asked in each notation alone
_NOTATIONS: Mapping[str, tuple[str, ...]] = {"chain": MARKS, "chain_forward": (FORWARD,), "chain_backward": (BACKWARD,)}
CHAIN_SHARE = 0.95
"""Least accuracy of chains, relative to the product of the accuracies of single rules."""
SLACK = 0.02
"""Most that direct accuracy may lose, and old mass may move, against the model that the training started from."""


@dataclass(frozen=True)
class ScratchExam:
    """Named parts: ``chain`` and ``direct``, each ``_FAMILY_K`` under K rules, ``chain_forward`` and ``chain_backward`` under 3."""

    parts: tuple[tuple[str, Forced], ...]
    marks: tuple[int, ...]

    @classmethod
    def of(
        cls, tokenizer: PreTrainedTokenizerBase, sizes: Mapping[str, int], problems: int = 128, seed: int = 6
    ) -> ScratchExam:
        """Fixed problems of the test split, the same for both ways to answer and all notations."""
        marks = tuple(int(tokenizer.get_vocab()[mark]) for mark in MARKS)
        parts: list[tuple[str, Forced]] = []
        for index, family in enumerate(FAMILIES.values()):
            for depth in DEPTHS:
                rng = np.random.default_rng([seed, index, depth])
                rows: dict[str, list[tuple[list[int], list[int]]]] = {"direct": [], **{name: [] for name in _NOTATIONS}}
                for _ in range(problems):
                    problem, start = draw_problem(family, rng, "test", sizes[family.name])
                    rules = some_rules(family, depth, rng)
                    right = "".join(family.apply(rules, start))
                    prompt = tokenizer(f"{' '.join(rules)} | {problem.text} =")["input_ids"]

                    def written(text: str) -> list[int]:
                        return [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]

                    rows["direct"].append((prompt, written(right)))
                    lists = right_steps(family, rules, start)
                    drawn = rng.integers(2, size=len(lists))
                    for name, allowed in _NOTATIONS.items():
                        steps = [Step.of(x, allowed[k % len(allowed)]) for x, k in zip(lists, drawn, strict=True)]
                        first, *rest = written(write(steps, right))
                        rows[name].append(([*prompt, first], rest))
                for name, pairs in rows.items():
                    if name not in ("chain", "direct") and depth != _EACH_NOTATION:
                        continue
                    forced = Forced.of(pairs, tokenizer.pad_token_id, () if name == "direct" else marks)
                    parts.append((f"{name}_{family.name}_{depth}", forced))
        return cls(tuple(parts), marks)

    @torch.no_grad()
    def sit(self, model: torch.nn.Module) -> dict[str, float]:
        """Accuracy of every part, and ``chain_mass_FAMILY_K``, the mean probability that the first token begins a chain."""
        training = model.training
        model.eval()
        found: dict[str, float] = {}
        for name, forced in self.parts:
            _, greedy, _ = forced.evaluate(model)
            found[name] = float(greedy.mean())
            if name.startswith("direct"):
                found[name.replace("direct", "chain_mass")] = self._mass(model, forced)
        model.train(training)
        return found

    def _mass(self, model: torch.nn.Module, forced: Forced) -> float:
        device = next(model.parameters()).device
        last = (forced.labels >= 0).long().argmax(1).to(device)
        logits = model(forced.tokens.to(device), use_cache=False).logits.double()
        first = logits[torch.arange(len(last), device=device), last].softmax(-1)
        return float(first[:, list(self.marks)].sum(-1).mean())


@dataclass(frozen=True)
class Gate:
    """A demand on a scratch base: ``value`` must not be below ``least``, nor above ``most``."""

    name: str
    value: float
    least: float
    most: float = 1.0

    @property
    def passed(self) -> bool:
        """Whether it is met."""
        return self.least <= self.value <= self.most


def gates(row: Mapping[str, float], base: Mapping[str, float]) -> list[Gate]:
    """What a scratch base has to meet: ``row`` are its own results, ``base`` those of the model that it started from.

    Chains of up to 4 rules have at least .95 of the accuracy of single rules to the power of their number; direct accuracy
    under 1 to 3 rules has lost at most .02, and old mass moved by at most .02.
    """
    found = []
    for family in FAMILIES:
        single = base[f"accuracy_{family}_1"]
        for depth in range(2, LEARNED + 1):
            name = f"chain_{family}_{depth}"
            found.append(Gate(name, row[name], CHAIN_SHARE * single**depth))
        for depth in (1, 2, 3):
            name = f"accuracy_{family}_{depth}"
            found.append(Gate(name, row[name], base[name] - SLACK))
        name = f"old_mass_{family}"
        found.append(Gate(name, row[name], base[name] - SLACK, base[name] + SLACK))
    return found


def chain_table(row: Mapping[str, float]) -> Sequence[str]:
    """Lines of the model card: chains and direct answers under 2 to 6 rules, and the mass of writing a chain."""
    lines = [
        "Greedy accuracy of chains (and of direct answers), and the mass of writing a chain, by number of rules:",
        "",
    ]
    lines += [f"| family | {' | '.join(f'{k} rules' for k in DEPTHS)} |", "|---" * (1 + len(DEPTHS)) + "|"]
    for family in FAMILIES:
        cells = [
            f"{row[f'chain_{family}_{k}']:.2f} ({row[f'direct_{family}_{k}']:.2f}), {row[f'chain_mass_{family}_{k}']:.2f}"
            for k in DEPTHS
        ]
        lines.append(f"| {family} | {' | '.join(cells)} |")
    both = [
        f"{family} {row[f'chain_forward_{family}_3']:.2f} and {row[f'chain_backward_{family}_3']:.2f}"
        for family in FAMILIES
    ]
    return [*lines, "", f"Chains of 3 rules all left to right, and all right to left: {'; '.join(both)}."]
