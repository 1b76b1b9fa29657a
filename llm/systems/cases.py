r"""A bank of cases beside a frozen model, which answers as the mixture \(\sum_c \mu(c \mid x)\, p_0(\cdot \mid a_c, x)\) (2508.16153).

A case is the state in which it was played (the embedding of its problem), the plan that was acted on (rule words or an
instruction, put into the context) and the reward. The published system draws a case and lets the planner act; here the
mixture over what it may draw is computed, so that success, old mass and KL carry no noise of the draw
(statement retrieval-mixture).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from fstsim.errors import InputError
from fstsim.llm.policy.blocks import block_size
from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.rollouts import Rollouts
from fstsim.llm.systems.contexts import Mixed, joined, mixture_logits, sample_mixture
from fstsim.llm.systems.embedding import embed, model_mark, width
from fstsim.llm.systems.router import Router
from fstsim.llm.systems.system import Asked, Deployed, bare_prompts, sample_stepwise
from fstsim.llm.systems.tensors import check_tensors, copy_into
from fstsim.llm.types import Answered, Task
from fstsim.settings import check_types

Read = Literal["similarity", "top", "softmax", "none"]


@dataclass(frozen=True)
class Reading:
    """How cases are read, and how many are kept.

    ``similarity``: the ``retrieved`` nearest cases that succeeded, in equal parts. ``top``: the ``retrieved`` highest Q, in equal
    parts. ``softmax``: all cases, mu proportional to e^(Q/alpha). ``none``: no memory. ``capacity`` 0 keeps every case.
    """

    read: Read = "softmax"
    alpha: float = 0.1
    retrieved: int = 4
    capacity: int = 64


@dataclass(frozen=True)
class Case:
    """One case: the plan acted on, and its reward. Its state is a row of `Cases.keys`."""

    plan: str
    reward: float

    def __post_init__(self) -> None:
        check_types(self)
        if not 0.0 <= self.reward <= 1.0:
            raise InputError(f"the reward of a case must lie in [0, 1], got {self.reward}")


@dataclass
class Cases(Deployed):
    """The frozen ``policy`` with its bank; changed in place by `fstsim.llm.learners.cases.CaseMemory`.

    ``keys (C, H)`` are states of the cases, ``plans_at (C, H)`` embeddings of their plans. ``examples`` are problems met, with
    what was shown and what was right, at the states ``examples_at (E, H)``; ``plays`` (state, case, reward) of the last
    episodes, ``(N, H)``, ``(N, 2H + 1)``, ``(N,)``, are what the router learns from.
    """

    policy: Policy
    reading: Reading
    seed: int = 0
    router: Router | None = field(init=False, default=None)
    held: list[Case] = field(init=False, default_factory=list)
    examples: list[tuple[str, str]] = field(init=False, default_factory=list)
    keys: torch.Tensor = field(init=False)
    plans_at: torch.Tensor = field(init=False)
    examples_at: torch.Tensor = field(init=False)
    plays: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = field(init=False)
    _mark: str = field(init=False, default="")

    def __post_init__(self) -> None:
        size, device = width(self.policy), self.policy.device
        if self.reading.read in ("top", "softmax"):
            self.router = Router(size, 2 * size + 1, self.seed).to(device)
        self.keys = torch.zeros(0, size, device=device)
        self.plans_at, self.examples_at = self.keys.clone(), self.keys.clone()
        self.plays = (self.keys.clone(), torch.zeros(0, 2 * size + 1, device=device), torch.zeros(0, device=device))
        self._mark = model_mark(self.policy)

    @property
    def bare(self) -> Policy:
        """The policy without its bank."""
        return self.policy

    # ------------------------------------------------------------------ reading

    def states(self, asked: Sequence[Asked]) -> torch.Tensor:
        """The state of each of ``asked``, ``(B, H)``: the embedding of what the bare model is shown."""
        return embed(self.policy, bare_prompts(self.policy, asked))

    @property
    def features(self) -> torch.Tensor:
        """What the router is told of each case, ``(C, 2H + 1)``: its state, its plan, and its reward.

        The paper's Q reads the case's text, which has all three; of the state alone two cases that were played on one
        problem with different plans would be the same case. Unit vectors are scaled to entries of size 1.
        """
        rewards = torch.tensor([case.reward for case in self.held], device=self.keys.device)
        return torch.cat((self.keys * self.scale, self.plans_at * self.scale, rewards[:, None]), -1)

    @property
    def scale(self) -> float:
        """Square root of the width: what makes entries of a unit vector of size 1."""
        return float(self.keys.shape[1] ** 0.5)

    @torch.no_grad()
    def values(self, states: torch.Tensor) -> torch.Tensor:
        """Q of every case on every state, ``(B, C)``: probabilities, float64."""
        assert self.router is not None
        return torch.sigmoid(self.router.table(states * self.scale, self.features).double())

    def masses(self, states: torch.Tensor) -> torch.Tensor:
        """mu(c | x), ``(B, C)``, float64, rows sum to 1; all 0 where nothing can be read.

        Cases that are equal share the mass of one: a clone changes nothing. Retrieval is exact, by one matrix product:
        a bank has some hundreds of vectors, and indexes of nearest neighbours pay, by their own authors' numbers, from some
        ten thousands on, while their answers are approximate.
        """
        reading, count = self.reading, len(self.held)
        mu = torch.zeros(len(states), count, dtype=torch.float64, device=states.device)
        if reading.read == "none" or not count:
            return mu
        first = self._first()
        distinct = sorted(set(first))
        if reading.read == "similarity":
            distinct = [c for c in distinct if self.held[c].reward > 0.0]
        if not distinct:
            return mu
        if reading.read == "softmax":
            mu[:, distinct] = torch.softmax(self.values(states)[:, distinct] / reading.alpha, -1)
        else:
            score = states @ self.keys.T if reading.read == "similarity" else self.values(states)
            order = score[:, distinct].sort(dim=-1, descending=True, stable=True).indices[:, : reading.retrieved]
            best = torch.tensor(distinct, device=states.device)[order]
            mu.scatter_(1, best, 1.0 / best.shape[1])
        clones = torch.tensor(first, device=states.device)
        shares = torch.bincount(clones, minlength=count)[clones].double()
        return mu[:, clones] / shares

    def _first(self) -> list[int]:
        """The first case equal to each."""
        met: dict[tuple[bytes, str, float], int] = {}
        rows = self.keys.cpu().numpy()
        return [met.setdefault((rows[c].tobytes(), case.plan, case.reward), c) for c, case in enumerate(self.held)]

    def mixed(self, asked: Sequence[Asked]) -> Mixed:
        """The contexts that each of ``asked`` is answered in: each plan once, with the mass of all cases that have it."""
        mu = self.masses(self.states(asked))
        plans = list(dict.fromkeys(case.plan for case in self.held))
        of = torch.tensor([plans.index(case.plan) for case in self.held], dtype=torch.long, device=mu.device)
        table = torch.zeros(len(asked), len(plans), dtype=torch.float64, device=mu.device).index_add_(1, of, mu)
        contexts, masses = [], []
        for (context, _), row in zip(asked, table.tolist(), strict=True):
            read = [(plan, mass) for plan, mass in zip(plans, row, strict=True) if mass > 0.0] or [("", 1.0)]
            contexts.append([joined(self.policy, context, plan) for plan, _ in read])
            masses.append([mass for _, mass in read])
        return Mixed(contexts, masses)

    def logits(self, asked: Sequence[Asked], rollouts: Rollouts) -> torch.Tensor:
        """Those of the mixture; of an empty bank the policy's own, to the bit."""
        return mixture_logits(self.policy, asked, self.mixed(asked), rollouts)

    def sample(
        self, asked: Sequence[Asked], generator: torch.Generator, *, max_new_tokens: int, temperature: float = 1.0
    ) -> Rollouts:
        """A case is drawn, then a completion; at another temperature token by token."""
        if temperature != 1.0:
            return sample_stepwise(self, asked, generator, max_new_tokens, temperature)
        return sample_mixture(self.policy, asked, self.mixed(asked), generator, max_new_tokens)

    @torch.no_grad()
    def measured(self, task: Task, asked: Sequence[Asked]) -> Mapping[str, float]:
        """What the bank holds for ``task`` and how well Q knows it, from the exact success of every plan on every problem."""
        if not (self.held and task.exact and isinstance(task, Answered)):
            return {}
        plans = list(dict.fromkeys(case.plan for case in self.held))
        problems = [p for _, p in asked]
        answers = [self.policy.encode_answer(task.answer(p)) for p in problems]
        told = [(joined(self.policy, c, plan), p) for plan in plans for c, p in asked]
        prompts, wanted = self.policy.encode_all(told), answers * len(plans)
        size = block_size(self.policy, max(map(len, answers)))
        parts = [
            self.policy.answer_logprobs(prompts[first : first + size], wanted[first : first + size])
            for first in range(0, len(prompts), size)
        ]
        success = torch.cat(parts).double().exp().reshape(len(plans), len(asked)).T  # (B, plans)
        of_case = success[:, [plans.index(case.plan) for case in self.held]]
        row = {
            "read_best": float(success.mean(0).max()),
            "read_oracle": float(success.max(1).values.mean()),
            "read_random": float(of_case.mean()),
        }
        if self.router is not None:
            row["router_brier"] = float(((self.values(self.states(asked)) - of_case) ** 2).mean())
            row["router_brier_base"] = float(((of_case.mean() - of_case) ** 2).mean())
        return row

    # ------------------------------------------------------------------ writing

    def add(self, states: torch.Tensor, plans: Sequence[str], rewards: Sequence[float]) -> None:
        """Append cases; beyond ``capacity`` some are evicted."""
        if not plans:
            return
        self.keys = torch.cat((self.keys, states))
        self.plans_at = torch.cat((self.plans_at, self.plan_vectors(plans)))
        self.held += [Case(plan, float(reward)) for plan, reward in zip(plans, rewards, strict=True)]
        self._evict(len(self.held) - self.reading.capacity if self.reading.capacity else 0)

    def _evict(self, count: int) -> None:
        """Take out ``count`` cases, one after the other, each the one whose Q at its own state, over the cases of its plan, is least.

        Q alone would leave one plan: the first that works is played most, known best, and crowds out all others.
        """
        if count <= 0:
            return
        worth = self._worth().tolist()
        plans = Counter(case.plan for case in self.held)
        there = list(range(len(self.held)))
        for _ in range(count):
            least = min(there, key=lambda c: worth[c] / plans[self.held[c].plan])  # of equals the oldest
            there.remove(least)
            plans[self.held[least].plan] -= 1
        self.keys, self.plans_at = self.keys[there], self.plans_at[there]
        self.held = [self.held[c] for c in there]

    @torch.no_grad()
    def _worth(self) -> torch.Tensor:
        """Q of each case at its own state; its reward where there is no router."""
        if self.router is None:
            return torch.tensor([case.reward for case in self.held])
        return torch.sigmoid(self.router.pairs(self.keys * self.scale, self.features))

    def plan_vectors(self, plans: Sequence[str]) -> torch.Tensor:
        """Embeddings of plans, ``(N, H)``: of the text alone."""
        distinct = list(dict.fromkeys(plans))
        rows = [self.policy.tokenizer(plan)["input_ids"] or [self.policy.end_token] for plan in distinct]
        return embed(self.policy, rows)[[distinct.index(plan) for plan in plans]]

    # ------------------------------------------------------------------ state

    def parameters(self) -> list[torch.nn.Parameter]:
        """The router's."""
        return [] if self.router is None else list(self.router.parameters())

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """Keys, plans, examples, plays and the router."""
        of_router = {} if self.router is None else self.router.state_dict()
        state, case, reward = self.plays
        return {
            "keys": self.keys,
            "plans_at": self.plans_at,
            "examples_at": self.examples_at,
            "play_states": state,
            "play_cases": case,
            "play_rewards": reward,
            **{f"router.{name}": value for name, value in of_router.items()},
        }

    def notes(self) -> Mapping[str, Any]:
        """Plans, rewards and examples, and which model's embeddings these are."""
        return {
            "model": self._mark,
            "cases": [[case.plan, case.reward] for case in self.held],
            "examples": [list(pair) for pair in self.examples],
        }

    def restore(self, tensors: Mapping[str, torch.Tensor], notes: Mapping[str, Any]) -> None:
        """Take a bank. Raises ValueError if it is of another model or another kind of reading."""
        if notes["model"] != self._mark:
            raise ValueError("its embeddings are of another model")
        held = [Case(plan, reward) for plan, reward in notes["cases"]]
        examples = [_example(pair) for pair in notes["examples"]]
        for plan in {case.plan for case in held}:
            self._check_plan(plan)
        of_router = {key.removeprefix("router."): value for key, value in tensors.items() if key.startswith("router.")}
        if (self.router is None) != (not of_router):
            raise ValueError(f"it {'has a' if of_router else 'lacks the'} router, reading is {self.reading.read}")
        size, played = width(self.policy), len(tensors["play_rewards"])
        shapes: dict[str, tuple[int, ...]] = {
            "keys": (len(held), size),
            "plans_at": (len(held), size),
            "examples_at": (len(examples), size),
            "play_states": (played, size),
            "play_cases": (played, 2 * size + 1),
            "play_rewards": (played,),
        }
        own = {name: value for name, value in tensors.items() if not name.startswith("router.")}
        check_tensors(shapes, dict.fromkeys(shapes, torch.float32), own)
        plays = (own["play_states"], own["play_cases"], own["play_rewards"])
        if played and not 0.0 <= float(plays[2].min()) <= float(plays[2].max()) <= 1.0:
            raise ValueError("play_rewards lie outside of [0, 1]")
        if self.router is not None:
            copy_into(self.router.state_dict(), of_router)
        device = self.policy.device
        self.held, self.examples = held, examples
        self.keys, self.plans_at = tensors["keys"].to(device), tensors["plans_at"].to(device)
        self.examples_at = tensors["examples_at"].to(device)
        self.plays = (plays[0].to(device), plays[1].to(device), plays[2].to(device))

    def _check_plan(self, plan: str) -> None:
        """ValueError unless the model has words for ``plan`` and room to read it."""
        if self.policy.template == "world" and (unknown := set(plan.split()) - set(self.policy.words)):
            raise ValueError(f"the model has no word {min(unknown)[:20]!r}, which a plan has")
        length, limit = len(self.policy.tokenizer(plan)["input_ids"]), self.policy.positions
        if limit is not None and length >= limit:
            raise ValueError(f"a plan has {length} tokens, the model {limit} positions")


def _example(pair: Sequence[Any]) -> tuple[str, str]:
    shown, right = pair
    if not (isinstance(shown, str) and isinstance(right, str)):
        raise ValueError("an example is no pair of texts")
    return shown, right
