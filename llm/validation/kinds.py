"""Kinds of predictions, in the order of the tables of verdicts; every prediction says which one it is of (`Label.kind`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fstsim.errors import InputError


@dataclass(frozen=True)
class Kind:
    """What the predictions of one line of a table have in common; ``log``: their numbers are logarithms, nats."""

    title: str
    log: bool = False
    chat: bool = False
    """of pretrained chat models, on the language suite"""


KINDS: Mapping[str, Kind] = {
    "replay": Kind("old mass after SFT with replay"),
    "replay-batches": Kind("the same in batches of 4; gradient clipped, not clipped"),
    "tilt-new": Kind("new mass under RL with a KL leash"),
    "tilt-old": Kind("old mass under RL with a KL leash"),
    "mixture": Kind("old mass after distillation to a mixture"),
    "sdft": Kind("new mass under SDFT with an anchor; old mass without"),
    "sdft-level": Kind("the same, a teacher that stays at its level (fresh anchors)"),
    "sdft-rate": Kind("log old mass after 40 steps of SDFT without an anchor, at least", log=True),
    "sdft-rate-own": Kind("the same, with what the demonstration does to the old behaviour itself", log=True),
    "ttt": Kind("new mass under TTT-Discover over reward gaps"),
    "ttt-exact": Kind("the same, exact normaliser"),
    "oapl": Kind("new mass under OAPL over periods; last, anchored"),
    "oapl-exact": Kind("the same, exact value"),
    "without-signal": Kind("groups without signal; batches without old samples"),
    "escape-group": Kind("log of escape times of RL, group-normalised clock", log=True),
    "escape-adam": Kind("the same, Adam's clock", log=True),
    "relearn-group": Kind("log of relearning times after drift, group-normalised clock", log=True),
    "relearn-adam": Kind("the same, Adam's clock", log=True),
    "alternate-rl": Kind("reward of RL after stages 2, 4, 3 of two conflicting tasks in turn"),
    "alternate-rl-adam": Kind("the same after stage 2, Adam's clock"),
    "alternate-fst": Kind("the same of FST after stages 2, 4"),
    "stall": Kind("share of steps without a signal in a stage after another task (fresh pairs)"),
    "forgetting": Kind("log old mass under SFT, clocks of theory (logit, Fisher-Rao)", log=True),
    "forgetting-adam": Kind("the same, Adam's clock", log=True),
    "forgetting-response": Kind("the same, the base's response along Adam's direction", log=True),
    "forgetting-rest": Kind("log of all but the new mass under SFT, logit, Fisher-Rao, Adam", log=True),
    "kl-saved": Kind("KL to the base saved by FST at matched reward"),
    "alternate-kl-saved": Kind("the same after stage 3 of conflicting tasks in turn"),
    "speed-up": Kind("log of samples of RL over those of FST", log=True),
    "overlap": Kind("slope of log drift on log overlap, SFT and RL"),
    "forecast-reward": Kind("reward forecast before the run, within .05 (fresh SFT and RL runs)"),
    "forecast-old": Kind("log old mass forecast before the run, within 15 % or .5 nat", log=True),
    "forecast-r2": Kind("R² of the forecast over old prompts, at least .9"),
    "own-replay": Kind("old mass after SFT with replay of own right answers"),
    "own-replay-slow": Kind("the same at a tenth of the learning rate"),
    "own-replay-kl": Kind("its KL to the base over that of ordinary replay"),
    "own-replay-kl-less": Kind("the same, were it less drift"),
    "sft-leash-forward": Kind("new and old mass after SFT with a leash KL(base‖policy)"),
    "sft-leash-reverse": Kind("the same, KL(policy‖base)"),
    "sft-leash-slow": Kind("the same, at a tenth of the learning rate"),
    "rl-leash-loss": Kind("new mass under RL with a KL leash as a loss, centred advantages"),
    "rl-leash-normalised": Kind("the same, group-normalised advantages"),
    "rl-leash-prefix": Kind("the same with the gradient through the prefixes, centred"),
    "rl-leash-reward": Kind("the same, the leash in the reward, centred"),
    "rl-leash-other": Kind("the same, were it the other leash, where the two laws are apart"),
    "kl-estimator-new": Kind("new mass under RL with a leash by k1, k2, k3, k3 times the ratio"),
    "kl-estimator-old": Kind("old mass of the same"),
    "razor": Kind("R² of forgetting against KL(now‖base) and KL(base‖now)"),
    "chain-mass": Kind("mass of writing a chain after SFT (scratch base)"),
    "chain-log-odds": Kind("change of its log-odds under RL on the answer (scratch base)", log=True),
    "chain-followed": Kind("change of how far corrupted steps are followed (scratch base)"),
    "chat-without-signal": Kind("groups without signal before training", chat=True),
    "replay-share": Kind("old among old and new after SFT with replay", chat=True),
    "leash-reward-new": Kind("new mass under RL with a KL leash in the reward", chat=True),
    "leash-reward-old": Kind("old mass under RL with a KL leash in the reward", chat=True),
    "leash-loss-new": Kind("new mass under RL with a KL leash as a loss", chat=True),
    "leash-loss-old": Kind("old mass under RL with a KL leash as a loss", chat=True),
    "leash-loss-tilt": Kind("new mass under RL with a KL leash as a loss, were it the tilt", chat=True),
    "rest": Kind("change over the last quarter of these runs", chat=True),
    "context-kl-saved": Kind("KL to the base saved at matched reward by a rule in the context", chat=True),
    "context-speed-up": Kind(
        "log of steps of RL to a reward over those in the context of the rule", log=True, chat=True
    ),
    "chat-stall": Kind("share of steps without a signal after RL on another behaviour", chat=True),
    "chat-stage-signal": Kind("groups without a signal where a stage of RL on other questions begins", chat=True),
    "chat-stage-kept": Kind("success on an earlier behaviour that stages of RL on other questions take", chat=True),
    "training-reward": Kind("new mass after SFT, forecast", chat=True),
    "training-log-old-mass": Kind("log old mass after SFT, forecast", log=True, chat=True),
    "training-skill": Kind("change of the log-probability of an old skill under SFT, forecast", log=True, chat=True),
    "training-prompts": Kind(
        "R² of forecast changes of log-probabilities, prompt by prompt: old skill, old answers", chat=True
    ),
}


@dataclass(frozen=True)
class Label:
    """What a prediction is about, for tables and figures; InputError if ``kind`` is no key of `KINDS`."""

    kind: str
    run: str = ""
    """the run that is measured; empty where that is none, or all of them"""
    against: str = ""
    """the run that it is compared with"""
    x: float | None = None
    """what differs between predictions of one kind: a share, a strength, a number of steps or stages"""
    law: str = ""
    """which of several laws about one measurement"""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"kind of prediction {self.kind!r} is unknown; allowed: {', '.join(KINDS)}")
