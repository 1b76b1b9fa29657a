r"""Proxy-tuning (2401.08565): a large model that stays, steered by what training has done to a small one.

At every token the next-token logits are \(s_M + \alpha (s_+ - s_-)\): of the large model M, the small tuned expert, and the
small anti-expert, which is what the expert started as. All three read the same prompt and the same completion so far.
Logits are combined, not log-probabilities: they differ by a constant in the token. Log-odds of two answers are affine in
alpha but for the normalisers of the tokens (statement proxy-affine).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from fstsim.errors import InputError
from fstsim.llm.measure.loading import check_same_tokenizer
from fstsim.llm.policy.next_tokens import NextTokens
from fstsim.llm.policy.policy import Policy
from fstsim.llm.policy.rollouts import Rollouts
from fstsim.llm.policy.sampling import CachedRows, draw_rows
from fstsim.llm.policy.shared_prompts import run_prompts
from fstsim.llm.systems.system import Acting, Bare, Beside
from fstsim.llm.systems.tensors import copy_into


def combined(big: torch.Tensor, expert: torch.Tensor, anti: torch.Tensor, alpha: float) -> torch.Tensor:
    r"""\(s_M + \alpha (s_+ - s_-)\) over the vocabulary of ``big (..., V)``.

    Those of the small models are cut to it where they are padded further; tokens that only ``big`` has stay as they are.
    """
    size = big.shape[-1]
    change = alpha * (expert - anti)[..., :size]
    return big + torch.nn.functional.pad(change, (0, size - change.shape[-1]))


@dataclass(frozen=True)
class Steered(Policy):
    """A policy, the large model's, whose logits another two steer; see the module. Its weights are those of ``model``."""

    expert: Policy | None = None
    anti: Policy | None = None
    alpha: float = 1.0

    @classmethod
    def by(cls, big: Policy, expert: Policy, anti: Policy, alpha: float) -> Steered:
        """``big`` with everything that it has, steered. Raises InputError if the tokenizers are not the same."""
        for name, small in (("the expert", expert), ("the anti-expert", anti)):
            check_same_tokenizer(name, small.tokenizer, big.tokenizer)
        held = {name: getattr(big, name) for name, entry in Policy.__dataclass_fields__.items() if entry.init}
        return cls(**held, expert=expert, anti=anti, alpha=alpha)

    def _parts(self) -> tuple[Policy, Policy]:
        assert self.expert is not None
        assert self.anti is not None
        return self.expert, self.anti

    def next_tokens(self, rollouts: Rollouts) -> NextTokens:
        """Of the combined logits, each model's over temperature; see `Policy.next_tokens`."""
        expert, anti = self._parts()
        own = super().next_tokens(rollouts).whole()
        return NextTokens.apart(combined(own, expert.logits(rollouts), anti.logits(rollouts), self.alpha))

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        repeats: int | Sequence[int],
        generator: torch.Generator,
        *,
        max_new_tokens: int,
        temperature: float = 1.0,
        scored: bool = True,  # noqa: ARG002
    ) -> Rollouts:
        """As `Policy.sample`, with the log-probabilities of sampling: a cache for each of the three models, the prompts run once by each."""
        ask, small = self.request(prompts, repeats, generator, max_new_tokens, temperature), self._parts()
        for each in small:
            each._check_length(max(map(len, prompts)), max_new_tokens)
        seen = None if bool(ask.mask.all()) else ask.mask
        rows = [
            CachedRows(each.model, ask, run_prompts(each.model, ask.prompts, ask.mask, seen)) for each in (self, *small)
        ]

        def together(logits: Sequence[torch.Tensor]) -> torch.Tensor:
            big, expert, anti = (each.float() for each in logits)
            return combined(big, expert, anti, self.alpha)

        first = together([each.logits for each in rows])
        return ask.rollouts(*draw_rows(first, lambda chosen: together([each.read(chosen) for each in rows]), ask))


@dataclass(frozen=True)
class ProxyPolicy(Acting):
    """A frozen ``big`` model and a small pair; the weights of ``expert`` are the state, ``alpha`` is its dial.

    Without the pair (``bare``) it is ``big``. ``name`` is that of the model that ``anti`` is.
    """

    big: Policy
    expert: Policy
    anti: Policy
    alpha: float = 1.0
    name: str = ""
    others: tuple[float, ...] = ()
    """other alphas, which are measured beside"""

    @classmethod
    def start(cls, big: Policy, small: Policy, alpha: float, name: str = "") -> ProxyPolicy:
        """With an expert that is the frozen ``small``: whatever alpha is, ``big`` to the bit.

        Raises InputError if the tokenizers are not the same, or a model cannot read rows of different lengths together.
        """
        for what, policy in (("the model", big), ("the expert", small)):
            if not policy.padded:
                raise InputError(f"{what} of method proxy must read prompts of different lengths in one batch")
        check_same_tokenizer(name or "the expert", small.tokenizer, big.tokenizer)
        small.model.requires_grad_(False)
        expert = replace(small, model=copy.deepcopy(small.model).requires_grad_(True))
        return cls(big, expert, small, alpha, name)

    @property
    def bare(self) -> Policy:
        """The large model."""
        return self.big

    @property
    def acting(self) -> Steered:
        """The three as one policy."""
        return Steered.by(self.big, self.expert, self.anti, self.alpha)

    def parameters(self) -> list[torch.nn.Parameter]:
        """Those of the expert."""
        return list(self.expert.model.parameters())

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """Weights of the expert."""
        return {name: weight.detach() for name, weight in self.expert.model.named_parameters()}

    def notes(self) -> Mapping[str, Any]:
        """The small model that the expert started as, and alpha."""
        return {"expert_base": self.name, "alpha": self.alpha}

    def restore(self, tensors: Mapping[str, torch.Tensor], notes: Mapping[str, Any]) -> None:
        """Weights of the expert, in place; ValueError if they are of another small model, or alpha is another."""
        if dict(notes) != dict(self.notes()):
            raise ValueError(f"it has {dict(notes)!r}, not {dict(self.notes())!r}")
        own = dict(self.expert.model.named_parameters())
        copy_into(own, tensors)

    def beside(self) -> Mapping[str, Beside]:
        """The expert alone, which is what is copied to the large model; and the same expert at other alphas."""
        dial = {f"alpha{alpha:g}": Beside(replace(self, alpha=alpha, others=())) for alpha in self.others}
        return {"expert": Beside(Bare(self.expert), self.anti), **dial}


@torch.no_grad()
def answer_normalisers(
    system: ProxyPolicy, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
) -> torch.Tensor:
    r"""\(\sum_t \log Z_t\), ``(B,)``, nats: what bends the log-odds of whole answers from affine (statement proxy-affine).

    \(Z_t = E_{p_M}[(p_+ / p_-)^\alpha]\) at each token of the ``answers``, one a prompt.
    """
    shown = system.big.forced(prompts, answers)
    size = system.big.vocabulary
    big, expert, anti = (
        torch.log_softmax(each.logits(shown).double(), -1) for each in (system.big, system.expert, system.anti)
    )
    logz = torch.logsumexp(combined(big, expert, anti, system.alpha)[..., :size], -1)
    return torch.where(shown.mask, logz, 0.0).sum(-1)
