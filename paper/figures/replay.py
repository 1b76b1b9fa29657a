"""Figure 9: what holds the old mass under forward KL, replayed data or a leash to the base, and what it leaves open.

Functions that compute what is drawn (the tests compare them with the theory), then the one that draws.
"""

from __future__ import annotations

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from fstsim import SGD, ForwardKL, GradientFlow, TwoModeProblem, gradient_flow
from fstsim.divergences import forward_kl_gradient
from fstsim.paper.figures.drawing import (
    BLACK,
    BLUE,
    BOUND,
    DASH_DOT,
    GREEN,
    GREY,
    LAW,
    ORANGE,
    TIME,
    VERMILLION,
    Drawing,
    Points,
    draw_exact,
    draw_points,
    key,
    legend_below,
    log_rows,
    panel,
    sgd_runs,
    styled,
    summarise,
)
from fstsim.paper.figures.figure import Figure
from fstsim.paper.figures.learner_flows import leashed_flows
from fstsim.replay_objectives import Direction
from fstsim.theory.geometry import extreme_eigenvalues
from fstsim.theory.leashes import kl_leash_bounds, kl_leash_equilibrium, kl_leash_small_strength
from fstsim.theory.numerics.flows import runge_kutta
from fstsim.theory.replay import replay_equilibrium, replay_excursion, replay_old_mean_force, replay_time

Array = NDArray[np.float64]

RUNS = 32

# (a) and (b): the mass under replay -----------------------------------------------------------------------------------

COURSE_DELTA = 3.0
COURSES = {(0.9, 0.05): BLACK, (0.9, 0.2): BLUE, (0.02, 0.5): ORANGE}  # (mass at first, replay share)
REST_DELTAS = {1.5: BLACK, 3.0: BLUE, 5.0: ORANGE}
REST_SHARES = (0.05, 0.2, 0.5, 0.8)


def replay_course(beta0: float, share: float, delta: float | None = COURSE_DELTA) -> tuple[Array, Array]:
    """Time and mass on the way from ``beta0`` to the replay share, components right; ``delta = None``: no overlap."""
    start, end = logit(beta0), logit(share)
    mass = expit(end + (start - end) * np.geomspace(1.0, 1e-3, 120))[1:]
    return replay_time(beta0, mass, share, delta), mass


def replay_sgd(beta0: float, share: float, lr: float = 0.25, batch: int = 32, steps: int = 480) -> Points:
    """Mass of SGD runs on mixed batches, components right."""
    problem = TwoModeProblem.separated(COURSE_DELTA)
    optimizer = SGD(lr, batch, train="weight")
    run = sgd_runs(problem, ForwardKL(problem, share), problem.initial(beta0), optimizer, steps, RUNS, seed=9)
    return summarise(log_rows(3, steps, 8), lr, run.old_mass)


def resting_state(delta: float, share: float) -> tuple[float, float]:
    """Old mass and largest error of a mean at the end of the joint flow with replay, from mass 1/2."""
    problem = TwoModeProblem.separated(delta)
    objective = ForwardKL(problem, share)
    duration = 8.0 / float(extreme_eigenvalues(share, delta)[0])
    state = gradient_flow(problem, objective, problem.initial(0.5), duration, GradientFlow(rtol=1e-5))(duration)
    return float(state.old_mass), float(np.abs([state.mean_old[0], state.mean_new[0] - delta]).max())


def resting_sgd(delta: float, shares: ArrayLike, lr: float = 0.2, batch: int = 32, steps: int = 300) -> Points:
    """Mass of SGD runs averaged over their last third, for each replay share (in ``time``), components right."""
    x = np.asarray(shares, dtype=np.float64)
    mean, error = np.empty(x.shape), np.empty(x.shape)
    problem = TwoModeProblem.separated(delta)
    for k, share in enumerate(x):
        optimizer = SGD(lr, batch, train="weight")
        run = sgd_runs(problem, ForwardKL(problem, share), problem.initial(0.5), optimizer, steps, RUNS, seed=k)
        late = run.old_mass[2 * steps // 3 :].mean(axis=0)
        mean[k], error[k] = late.mean(), late.std(ddof=1) / np.sqrt(RUNS)
    return Points(x, mean, error)


# (c) and (d): leashes ------------------------------------------------------------------------------------------------

BASE = 0.5  # old mass of the base
LEASH_DELTAS = {2.0: BLACK, 3.0: VERMILLION, 4.0: GREEN}


def leash_rest(strengths: ArrayLike, deltas: ArrayLike, direction: Direction) -> Array:
    """Old mass at the end of the weight flow under leashes ``(n,)``; in the EM geometry, where nothing is slow."""
    eta = np.asarray(strengths, dtype=np.float64)
    duration = 20.0 + 8.0 / float(eta.min())
    return expit(leashed_flows(eta, deltas, BASE, direction, duration, 1e-5)(duration)[0, :, 0])


# (e) and (f): the excursion of the old mean ------------------------------------------------------------------------------

# (delta, mass at first, replay share), and how long each is followed
EXCURSIONS = {(1.5, 0.5, 0.05): (BLACK, 1e3), (3.0, 0.5, 0.05): (BLUE, 500.0), (3.0, 0.05, 0.3): (ORANGE, 150.0)}
PEAK_DELTAS = {5.0: BLACK, 6.0: BLUE, 8.0: ORANGE}


def excursion_flow(delta: float, beta0: float, share: float, times: Array) -> Array:
    """Shift of the old mean over delta along the joint flow with replay (positive: toward the new data)."""
    problem = TwoModeProblem.separated(delta)
    how = GradientFlow(rtol=1e-5)
    flow = gradient_flow(problem, ForwardKL(problem, share), problem.initial(beta0), float(times[-1]), how)
    return flow(times).mean_old[:, 0] / delta


def excursion_sgd(
    delta: float, beta0: float, share: float, lr: float = 0.2, batch: int = 32, steps: int = 750
) -> Points:
    """The same from SGD runs."""
    problem = TwoModeProblem.separated(delta)
    run = sgd_runs(problem, ForwardKL(problem, share), problem.initial(beta0), SGD(lr, batch), steps, RUNS, seed=9)
    return summarise(log_rows(8, steps, 7), lr, run.mean_old[..., 0] / delta)


def excursion_peaks(delta: float, shares: ArrayLike) -> Array:
    """Largest shift of the old mean along the joint flow from mass 1/2, for each replay share."""
    share = np.asarray(shares, dtype=np.float64)
    old, new = np.zeros((share.size, 1)), np.full((share.size, 1), delta)
    weights, centers = np.stack([share, 1.0 - share], axis=-1), np.stack([old, new], axis=-2)
    peak = np.zeros(share.size)
    flow = runge_kutta(
        lambda s, m_o, m_n: forward_kl_gradient(s, m_o, m_n, weights, centers),
        (np.zeros(share.size), old, new),
        2.0 / share,  # the peak lies near 0.5 / share
        120,
    )
    for _, m_o, _ in flow:
        peak = np.maximum(peak, np.abs(m_o[:, 0]))
    return peak


# The figure --------------------------------------------------------------------------------------------------------------


def _draw_mass(course: Axes, rest: Axes) -> None:
    for start, series in COURSES.items():
        course.loglog(*replay_course(*start), color=series.color)
        course.loglog(*replay_course(*start, None), color=series.color, ls=BOUND, lw=1.2)
        draw_points(course, replay_sgd(*start), series)
    course.set(xlim=(0.3, 3e3), ylim=(0.015, 1.0))
    course.set_yticks([0.02, 0.05, 0.1, 0.2, 0.5, 1.0], ["0.02", "0.05", "0.1", "0.2", "0.5", "1"])
    course.minorticks_off()
    for (_, share), series in COURSES.items():
        course.text(190.0, share, rf"$\lambda={share:g}$", color=series.color, va="center", fontsize=7.5)
    shares = np.array([0.0, 1.0])
    rest.plot(shares, replay_equilibrium(shares), color=GREY)
    for k, (delta, series) in enumerate(REST_DELTAS.items()):
        where = np.array(REST_SHARES) + 0.05 * k
        draw_exact(rest, where, [resting_state(delta, share)[0] for share in where], series)
    draw_points(rest, resting_sgd(COURSE_DELTA, (0.35, 0.65, 0.95)), VERMILLION)
    rest.set(xlim=(0.0, 1.0), ylim=(0.0, 1.0), xticks=(0.0, 0.5, 1.0), yticks=(0.0, 0.5, 1.0))
    handles = [key("none", s.marker, s.color, label=rf"$\delta={delta:g}$") for delta, s in REST_DELTAS.items()]
    handles.append(key("none", VERMILLION.marker, VERMILLION.color, True, rf"$\delta={COURSE_DELTA:g}$, SGD"))
    rest.legend(handles=handles, loc="upper left", handlelength=1.0)


def _draw_leashes(linear: Axes, decay: Axes) -> None:
    base = logit(BASE)
    eta, inverse = np.linspace(0.005, 2.0, 150), np.geomspace(0.5, 1e5, 120)
    linear.plot(eta, kl_leash_equilibrium(base, eta), color=BLUE.color)
    decay.loglog(inverse, kl_leash_equilibrium(base, 1.0 / inverse), color=BLUE.color)
    linear.plot(eta, kl_leash_equilibrium(base, eta, None, "reverse"), color=GREY, ls=BOUND, zorder=3)
    short = inverse[inverse < 40.0]
    decay.loglog(short, kl_leash_equilibrium(base, 1.0 / short, None, "reverse"), color=GREY, ls=BOUND, zorder=3)
    strengths, weak = np.array([0.45, 1.45]), np.array([4.0, 30.0])
    either = np.concatenate([strengths, 1.0 / weak])
    rest = leash_rest(either, np.full(either.size, COURSE_DELTA), "forward")
    draw_exact(linear, strengths, rest[:2], BLUE)
    draw_exact(decay, weak, rest[2:], BLUE)
    # apart from each other, to be told apart
    where = np.array([[*(strengths - 0.15 + 0.15 * k), *(1.0 / weak)] for k in range(len(LEASH_DELTAS))])
    rests = leash_rest(where.ravel(), np.repeat(list(LEASH_DELTAS), where.shape[1]), "reverse").reshape(where.shape)
    for k, (delta, series) in enumerate(LEASH_DELTAS.items()):
        linear.plot(eta, kl_leash_equilibrium(base, eta, delta, "reverse"), color=series.color)
        decay.loglog(inverse, kl_leash_equilibrium(base, 1.0 / inverse, delta, "reverse"), color=series.color)
        last = inverse[inverse > 30.0]
        decay.loglog(last, kl_leash_small_strength(base, 1.0 / last, delta), color=series.color, ls=LAW)
        floor = expit(kl_leash_bounds(base, 1.0 / inverse, delta)[0])
        decay.loglog(inverse, floor, color=series.color, ls=BOUND, lw=1.0)
        draw_exact(linear, where[k, :2], rests[k, :2], series)
        draw_exact(decay, weak, rests[k, 2:], series)
    linear.set(xlim=(0.0, 2.0), ylim=(0.0, 0.36))
    decay.set(xlim=(0.5, 1e5), ylim=(1e-11, 1.0))
    handles = [key("-", BLUE.marker, BLUE.color, label=r"KL(b$\,\|\,$q)")]
    handles += [key("-", s.marker, s.color, label=rf"KL(q$\,\|\,$b), $\delta={d:g}$") for d, s in LEASH_DELTAS.items()]
    linear.legend(handles=handles, loc="lower right", handlelength=1.8, labelspacing=0.2)
    decay.text(0.9, 1e-10, r"$e^{-1/\eta}$", color=GREY)


def _draw_old_mean(shift: Axes, peaks: Axes) -> None:
    for what, (series, until) in EXCURSIONS.items():
        delta, beta0, share = what
        times = np.geomspace(0.3, until, 120)
        shift.semilogx(times, excursion_flow(*what, times), color=series.color)
        draw_points(shift, excursion_sgd(*what), series)
        force = float(replay_old_mean_force(logit(beta0), share, delta))
        early = np.geomspace(0.3, 4.0, 30)
        shift.semilogx(early, force * early / delta, color=series.color, ls=DASH_DOT, lw=1.0)
    shift.set(xlim=(0.3, 1e3), ylim=(-0.2, 1.05), yticks=(-0.2, 0.0, 0.2, 0.4, 0.6))
    names = [
        key("-", s.marker, s.color, True, rf"$\delta={d:g}$, $\beta_0={b:g}$, $\lambda={share:g}$")
        for (d, b, share), (s, _) in EXCURSIONS.items()
    ]
    shift.legend(handles=names, loc="upper left", handlelength=1.8)
    shares, some = np.geomspace(0.01, 0.4, 60), np.geomspace(0.01, 0.35, 5)
    for delta, series in PEAK_DELTAS.items():
        bound, leading = replay_excursion(delta, 0.5, shares)
        peaks.loglog(shares, bound, color=series.color, ls=BOUND)
        peaks.loglog(shares, leading, color=series.color, ls=LAW)
        draw_exact(peaks, some, excursion_peaks(delta, some), series)
    peaks.set(xlim=(0.008, 0.5), ylim=(3e-5, 2.0))
    peaks.set_xticks([0.01, 0.1], ["0.01", "0.1"])
    handles = [key("none", s.marker, s.color, label=rf"$\delta={delta:g}$") for delta, s in PEAK_DELTAS.items()]
    peaks.legend(handles=handles, loc="lower left", handlelength=1.0)


@styled
def replay_and_leashes() -> Drawing:
    """Mass at rest under replay and under leashes, and how far the old mean is dragged on the way."""
    figure = matplotlib.figure.Figure(figsize=(7.2, 5.6))
    (course, rest, linear), (decay, shift, peaks) = figure.subplots(2, 3)
    _draw_mass(course, rest)
    _draw_leashes(linear, decay)
    _draw_old_mean(shift, peaks)
    panel(course, "a", rf"on the way, $\delta={COURSE_DELTA:g}$", TIME, r"old mass $\beta$")
    panel(rest, "b", r"at rest: $\beta^*=\lambda$", r"replay share $\lambda$", r"old mass at rest $\beta^*$")
    panel(linear, "c", "a leash to the base b", r"strength $\eta$", r"old mass at rest $\beta^*$")
    panel(decay, "d", "weak leashes", r"$1/\eta$", r"old mass at rest $\beta^*$")
    panel(shift, "e", "old mean on the way", TIME, r"shift of the old mean$\,/\,\delta$")
    panel(peaks, "f", "its largest excursion", r"replay share $\lambda$", "shift (standard deviations)")
    kinds = [
        key("-", label="exact [T]; in e, flow"),
        key(BOUND, label="no overlap, bound or certificate [T]"),
        key(LAW, label="leading order, last law [A]"),
        key(DASH_DOT, label="initial force [T]"),
        key(marker="o", label="end or peak of the flow"),
        key(marker="o", filled=True, label=f"SGD, {RUNS} runs"),
    ]
    legend_below(figure, kinds, 3)
    return figure


REPLAY_AND_LEASHES = Figure(
    "replay-and-leashes",
    "Replay fixes the old mass at its share; a leash keeps less; neither fixes the old mean on the way",
    "Forward KL. (a) Old mass under batches with a share λ of replayed data, components held right; dashed: no overlap, a lower bound "
    "on the time [T]. (b) It rests at λ for every overlap [T]; open markers: end of the flow of weight and means. "
    "(c) Old mass at rest under a leash of strength η to a base b of old mass 1/2, new data only: KL(b‖q) is replay at the share "
    "η/(2 + 2η) [T], KL(q‖b) keeps less; dashed: no overlap. (d) Weak leashes, colours as in (c): KL(q‖b) keeps a mass of order exp(−1/η) "
    "only while overlap does not matter; dashed: lower bound [T], dotted: last law [A], both linear in η. (e) With free components the old mean is dragged "
    "while the mass is above its share and pushed away below it (dash-dotted: initial force [T]): at δ = 1.5, λ = 0.05 "
    "by two thirds of δ. (f) Its largest shift grows as the share falls, like 1/√λ [A]; dashed: certificate for all time [T], where one exists. "
    "Filled markers: mean of 32 SGD runs with batches of 32, with standard errors.",
    (
        "replay-forward",
        "replay-forward-time",
        "replay-forward-force",
        "replay-forward-excursion",
        "replay-forward-excursion-leading-order",
        "replay-forward-leash",
        "replay-forward-reverse-leash",
        "replay-forward-weak-leash",
    ),
    replay_and_leashes,
    manuscript=True,
)
