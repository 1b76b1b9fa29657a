"""Where RL on a chat model with a KL leash rests: in the reward at the sequence tilt, as a loss at the prefix law."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from fstsim.llm.experiments.plan import Planned, Scale
from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.policy.policy import Policy
from fstsim.llm.types import Demonstrated
from fstsim.llm.validation.claim import Chapter, Claim, curve, settled
from fstsim.llm.validation.kinds import Label
from fstsim.llm.validation.language.scale import FORM, SIZES, TOKENS, demonstrated, rest_claim, run_config
from fstsim.llm.validation.prediction import Array, Prediction, measure_base, tilted


@torch.no_grad()
def answer_token_masses(policy: Policy, task: Demonstrated, problems: int) -> tuple[Array, Array]:
    """Mass of each token of the right answer, given those before it, its end included: ``(problems, L)``, 1 is padding.

    With it the number of tokens ``(problems,)`` that the old answer shares with it before both part.
    """
    held_out = list(task.problems("test"))[:problems]
    tokens = [policy.encode_answer(task.answer(p)) for p in held_out]
    forced = policy.forced([policy.encode("", p) for p in held_out], tokens)
    masses = policy.logprobs(forced).double().exp().cpu().numpy()
    parted = []
    for row, (problem, new) in enumerate(zip(held_out, tokens, strict=True)):
        masses[row, len(new) :] = 1.0
        old = policy.encode_answer(task.old_answer(problem))
        parted.append(next((k for k, (a, b) in enumerate(zip(new, old, strict=False)) if a != b), len(new) - 1))
    return np.minimum(masses, 1.0), np.array(parted)


def at_loss_rest(masses: Array, parted: Array, old: Array, tau: float) -> tuple[Array, Array]:
    r"""New and old mass per problem where a leash as a loss rests: :math:`q_t = \sigma(\mathrm{logit}\, p_t + V_{t+1} / \tau)`.

    ``masses (n, L)``, ``parted (n,)`` of `answer_token_masses`; ``old (n,)`` is the base's old mass. After the answers have
    parted nothing can be gained on the old one's way, and its tokens keep their masses; at the parting they share what the
    new one's token leaves: statement `leash-loss-prefix`.
    """
    value, gain = np.ones(len(masses)), np.zeros(len(masses))
    for t in range(masses.shape[1] - 1, -1, -1):
        p = masses[:, t]
        with np.errstate(divide="ignore", invalid="ignore"):
            q = 1.0 / (1.0 + (1.0 - p) / p * np.exp(-value / tau))
            left = np.log1p(-q) - np.log1p(-p)
        gain = np.where(t < parted, gain + np.log(q / p), np.where(t == parted, left, gain))
        value = q * value
    return value, old * np.exp(gain)


def leashes(scale: Scale, base: Policy) -> Chapter:
    """Where RL with a KL leash rests: in the reward at the sequence tilt, as a loss at the prefix law, and not at the tilt.

    Advantages are leave-one-out, which changes the strength of neither leash (`leash-loss-baseline`).
    """
    size, task = SIZES[scale], demonstrated(FORM)
    found = measure_base(base, task, size.held)
    masses, parted = answer_token_masses(base, task, size.held)
    claims, runs = [], []
    for tau in size.leashes:
        laws = {"reward": tilted(found, tau), "loss": at_loss_rest(masses, parted, found.old, tau)}
        for place, law in laws.items():
            name = f"language-leash-{place}-{tau:g}"
            learner = PolicyGradient(
                loss="reinforce",
                problems=size.leash_groups,
                rollouts=size.rollouts,
                advantage="leave-one-out",
                max_new_tokens=TOKENS,
                **{f"leash_{place}": tau},  # type: ignore[arg-type]
            )
            runs.append(Planned(name, run_config(size, size.leash_steps, FORM, "leash", learner), write_model=False))
            claims += _rests(name, (place, tau), law)
        other = laws["reward"][0]
        rival = replace(
            _leash_prediction(f"language-leash-loss-{tau:g}", ("loss", tau), "new", other),
            name=f"language-leash-loss-{tau:g}-tilt",
            label=Label("leash-loss-tilt", run=f"language-leash-loss-{tau:g}", x=tau, law="tilt"),
            statement="exp-family-unification",
            quantity=f"new mass under RL with a leash of {tau:g} as a loss, were it the tilt",
        )
        claims.append(Claim(rival, (rival.label.run,), settled(rival.label.run, "reward")))
    return Chapter(tuple(claims), tuple(runs))


_STATEMENTS = {"reward": "exp-family-unification", "loss": "leash-loss-prefix"}


def _leash_prediction(name: str, leash: tuple[str, float], what: str, masses: Array) -> Prediction:
    place, tau = leash
    value = float(masses.mean())
    return Prediction(
        f"{name}-{what}",
        Label(f"leash-{place}-{what}", run=name, x=tau),
        _STATEMENTS[place],
        f"{what} mass under RL with a KL leash of {tau:g} {'in the reward' if place == 'reward' else 'as a loss'}",
        value,
        value - 0.06,
        value + 0.06,
        0.2,
    )


def _rests(name: str, leash: tuple[str, float], law: tuple[Array, Array]) -> list[Claim]:
    found = []
    for what, column, masses in zip(("new", "old"), ("reward", "old_mass"), law, strict=True):
        found.append(Claim(_leash_prediction(name, leash, what, masses), (name,), settled(name, column)))
    quantity = f"new mass under RL with a KL leash of {leash[1]:g}, {leash[0]}"
    return [*found, rest_claim(name, _STATEMENTS[leash[0]], quantity, lambda rows: curve(rows, "reward")[1])]
