r"""The methods on one axis: each as a map on the log-odds of the old mode, and the table that classifies them (theory 11.2).

Log-odds are of the old mode, ``gap`` is ``r_new - r_old``. `METHOD_TABLE` is data: a row has the formulas that a reader
sees and the builder that :func:`method_map` calls with the hyper-parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from fstsim.errors import InputError
from fstsim.theory.leashes import kl_leash_log_odds
from fstsim.theory.maps import FieldMap, LogOddsMap, Map, ProbabilityMap
from fstsim.theory.numerics.inputs import finite, positive, share
from fstsim.theory.ttt import entropic_shift, entropic_tilt_log_odds

Array = NDArray[np.float64]


def _mobility(s: Array) -> Array:
    return expit(s) * expit(-s)


def _end(drift: float) -> float:
    """Where a constant pull against the old mode ends."""
    return -np.inf if drift > 0.0 else (np.inf if drift < 0.0 else np.nan)


def _forward_kl(rate: float = 0.1) -> Map:
    return ProbabilityMap(rate, 0.0)


def _forward_kl_logit() -> Map:
    return FieldMap(lambda s: -expit(s), -np.inf)


def _replay(replay_fraction: float, rate: float = 0.1) -> Map:
    return ProbabilityMap(rate, float(share(replay_fraction, "replay_fraction")))


def _forward_leash(base_log_odds: float, eta: float, rate: float = 0.1) -> Map:
    return ProbabilityMap(rate, float(expit(kl_leash_log_odds(base_log_odds, eta))))


def _reverse_leash(base_log_odds: float, eta: float) -> Map:
    fixed = float(kl_leash_log_odds(base_log_odds, eta, None, "reverse"))
    return FieldMap(lambda s: -expit(s) - eta * _mobility(s) * (s - base_log_odds), fixed)


def _reverse_kl(target_log_odds: float, step: float = 1.0) -> Map:
    keep = 1.0 / (1.0 + float(positive(step, "step")))
    return LogOddsMap(keep, 1.0 - keep, 0.0, 0.0, target_log_odds=target_log_odds)


def _policy_gradient(gap: float) -> Map:
    finite(gap, "gap")
    return FieldMap(lambda s: -_mobility(s) * gap, _end(gap))


def _regularised(base_log_odds: float, gap: float, kl_weight: float, step: float = 1.0) -> Map:
    weight = float(positive(step, "step")) * float(positive(kl_weight, "kl_weight"))
    return LogOddsMap(
        1.0 / (1.0 + weight), 0.0, weight / (1.0 + weight), step * gap / (1.0 + weight), base_log_odds=base_log_odds
    )


def _sdft(tilt: float) -> Map:
    return LogOddsMap(1.0, 0.0, 0.0, tilt)


def _sdft_anchored(base_log_odds: float, tilt: float, anchor: float) -> Map:
    a = float(share(anchor, "anchor"))
    return LogOddsMap(a, 0.0, 1.0 - a, tilt, base_log_odds=base_log_odds)


def _ttt_discover(base_log_odds: float, scaled_gap: float, kl_weight: float) -> Map:
    fixed = float(entropic_tilt_log_odds(base_log_odds, scaled_gap, kl_weight))
    if kl_weight == 0.0 and scaled_gap == 0.0:
        fixed = np.nan

    def velocity(s: Array) -> Array:
        return _mobility(s) * (kl_weight * (base_log_odds - s) - entropic_shift(s, scaled_gap))

    return FieldMap(velocity, fixed)


def _oapl(gap: float, tau: float) -> Map:
    return LogOddsMap(1.0, 0.0, 0.0, gap / float(positive(tau, "tau")))


def _oapl_anchored(base_log_odds: float, gap: float, tau: float, anchor: float) -> Map:
    a = float(share(anchor, "anchor"))
    return LogOddsMap(a, 0.0, 1.0 - a, gap / float(positive(tau, "tau")), base_log_odds=base_log_odds)


@dataclass(frozen=True)
class MethodRow:
    """One row of the classification: what a reader sees, and the builder that `method_map` calls.

    ``interior`` says when there is an interior fixed point; ``old_mass`` is the law of the old mass where there is none
    (log-odds fixed point where there is); ``retention`` is the condition for ``beta >= alpha`` with ``l_a = logit(alpha)``.
    """

    method: str
    title: str
    map: str
    interior: str
    old_mass: str
    retention: str
    build: Callable[..., Map]


METHOD_TABLE: tuple[MethodRow, ...] = (
    MethodRow(
        "forward-kl",
        "forward KL, new data only, natural gradient",
        r"\beta'=(1-\ell)\beta",
        "no",
        r"e^{-t}",
        r"t\le\log(\beta_0/\alpha)",
        _forward_kl,
    ),
    MethodRow(
        "forward-kl-logit",
        "forward KL, new data only, logit",
        r"\dot s=-\sigma(s)",
        "no",
        r"1/t",
        r"t\le\frac1\alpha-\frac1{\beta_0}+s_0-l_\alpha",
        _forward_kl_logit,
    ),
    MethodRow(
        "replay",
        "forward KL with replay",
        r"\beta'=(1-\ell)\beta+\ell\lambda",
        "yes",
        r"\lambda",
        r"\lambda\ge\alpha",
        _replay,
    ),
    MethodRow(
        "forward-leash",
        "forward KL with a leash KL(base, q)",
        r"\beta'=(1-\ell)\beta+\ell\,\tfrac{\eta\beta_b}{1+\eta}",
        "yes",
        r"\eta\beta_b/(1+\eta)",
        r"\eta\ge\alpha/(\beta_b-\alpha)",
        _forward_leash,
    ),
    MethodRow(
        "reverse-leash",
        "forward KL with a leash KL(q, base)",
        r"\Psi=s_b-(1+e^s)/\eta",
        "yes",
        r"s_b-\tfrac1\eta-W(\tfrac1\eta e^{s_b-1/\eta})",
        r"\eta\ge\frac1{(1-\alpha)(s_b-l_\alpha)}",
        _reverse_leash,
    ),
    MethodRow(
        "reverse-kl",
        "reverse KL to a target",
        r"s'=\tfrac{s+\ell s_\alpha}{1+\ell}",
        "yes",
        r"s_p",
        r"s_p\ge l_\alpha",
        _reverse_kl,
    ),
    MethodRow(
        "policy-gradient",
        "policy gradient without KL",
        r"\dot s=-\sigma'(s)\Delta r",
        "no, unless the gap is 0",
        r"1/(\Delta r\,t)",
        r"t\le(F(s_0)-F(l_\alpha))/\Delta r",
        _policy_gradient,
    ),
    MethodRow(
        "regularised-rl",
        "RL with a leash KL(q, base)",
        r"\Psi=s_0-\Delta r/\lambda",
        "yes",
        r"s_0-\Delta r/\lambda",
        r"\lambda\ge\Delta r/(s_0-l_\alpha)",
        _regularised,
    ),
    MethodRow(
        "sdft",
        "SDFT, teacher follows the student",
        r"\Psi=\bar s-h",
        "no, unless the tilt is 0",
        r"1/(ht)",
        r"t\le(\bar s_0-h-l_\alpha)/(\rho h)\ \text{suffices}",
        _sdft,
    ),
    MethodRow(
        "sdft-anchored",
        "SDFT with an anchored teacher",
        r"\Psi=a\bar s+(1-a)s_b-h",
        "yes",
        r"s_b-h/(1-a)",
        r"h\le(1-a)(s_b-l_\alpha)",
        _sdft_anchored,
    ),
    MethodRow(
        "ttt-discover",
        "TTT-Discover",
        r"\Psi=s_0-\tfrac1\lambda\tfrac{e^g-1}{\beta+(1-\beta)e^g}",
        "yes, if the leash is positive",
        r"s^*\ge s_0-\tfrac1{\lambda(1-\beta_0)}",
        r"\lambda\ge\frac{e^g-1}{(\alpha+(1-\alpha)e^g)(s_0-l_\alpha)}",
        _ttt_discover,
    ),
    MethodRow(
        "oapl",
        "OAPL, per refresh",
        r"s'=s-\Delta r/\tau",
        "no, unless the gap is 0",
        r"e^{-k\Delta r/\tau}",
        r"k\le\tau(s_0-l_\alpha)/\Delta r",
        _oapl,
    ),
    MethodRow(
        "oapl-anchored",
        "OAPL with an anchored reference",
        r"s'=as+(1-a)s_0-\Delta r/\tau",
        "yes",
        r"s_0-\tfrac{\Delta r}{\tau(1-a)}",
        r"\Delta r\le\tau(1-a)(s_0-l_\alpha)",
        _oapl_anchored,
    ),
)


def method_map(name: str, **hyper: float) -> Map:
    """The map of a method of `METHOD_TABLE` at the given hyper-parameters.

    Raises InputError on a name that is not there, and on missing, unknown or out-of-range hyper-parameters.

    >>> method_map("sdft-anchored", base_log_odds=0.0, tilt=0.5, anchor=0.5).fixed_point()
    -1.0
    """
    rows = {row.method: row for row in METHOD_TABLE}
    if name not in rows:
        raise InputError(f"method {name!r} is unknown; allowed: {', '.join(rows)}")
    wanted = signature(rows[name].build).parameters
    missing = [key for key, p in wanted.items() if p.default is p.empty and key not in hyper]
    unknown = [key for key in hyper if key not in wanted]
    if missing or unknown:
        problem = f"lacks {', '.join(missing)}" if missing else f"does not take {', '.join(unknown)}"
        raise InputError(f"method {name!r} {problem}; it takes: {', '.join(wanted) or 'nothing'}")
    return rows[name].build(**hyper)
