"""Figure 8: the geometry at the target, which is the Fisher information, and the last stage of training that it rules.

Functions that compute what is drawn (the tests compare them with the theory), then the one that draws.
"""

from __future__ import annotations

from typing import Literal

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.special import logit

from fstsim import SGD, GaussianMixture, GradientFlow, ReverseKL, TwoModeProblem, TwoModeState, gradient_flow
from fstsim.divergences import forward_kl_gradient, reverse_kl_gradient
from fstsim.paper.figures.drawing import (
    BLACK,
    BLUE,
    BOUND,
    GREY,
    LAW,
    ORANGE,
    TIME,
    VERMILLION,
    Drawing,
    Points,
    Series,
    draw_exact,
    draw_points,
    key,
    legend_below,
    panel,
    sgd_runs,
    styled,
    summarise,
)
from fstsim.paper.figures.figure import Figure
from fstsim.theory.drift import convergence_certificate
from fstsim.theory.geometry import (
    condition_number_bound,
    extreme_eigenvalues,
    fisher_information,
    missing_information_bound,
    missing_information_fraction,
)
from fstsim.theory.numerics.flows import runge_kutta

Array = NDArray[np.float64]
Objective = Literal["reverse", "replay"]

ALPHA = 0.3  # target mass of the old mode: no two of the limits alpha (1 - alpha), alpha, 1 - alpha agree
MASSES = {0.5: BLACK, 0.2: BLUE, 0.05: ORANGE}
SAMPLES = 100_000
RUNS = 32


# (a) to (c): eigenvalues -----------------------------------------------------------------------------------------------


def eigenpairs(alpha: float, delta: float) -> tuple[Array, Array]:
    """Eigenvalues ``(5,)`` and eigenvectors (columns) of the Fisher information of ``(s, m_o, m_n)`` in two dimensions."""
    values, vectors = np.linalg.eigh(fisher_information(alpha, delta, 2))
    return values, vectors


def local_rates(objective: Objective, alpha: float, delta: float, size: float = 1e-3) -> Array:
    """Rates ``(5,)`` at which the flow undoes a small error along each eigenvector, measured over one time unit.

    Every error is made with both signs: what is of second order in it cancels.
    """
    _, vectors = eigenpairs(alpha, delta)
    error = size * np.concatenate([vectors.T, -vectors.T])
    old, new = np.zeros(2), np.array([delta, 0.0])
    weights, centers = np.array([alpha, 1.0 - alpha]), np.stack([old, new])

    def gradient(s: Array, m_o: Array, m_n: Array) -> tuple[Array, Array, Array]:
        if objective == "reverse":
            return reverse_kl_gradient(s, m_o, m_n, logit(alpha), old, new)
        return forward_kl_gradient(s, m_o, m_n, weights, centers)

    start = (logit(alpha) + error[:, 0], error[:, 1:3], new + error[:, 3:])
    *_, (s, m_o, m_n) = runge_kutta(gradient, start, np.ones(10), 4)
    left = np.concatenate([(s - logit(alpha))[:, None], m_o, m_n - new], axis=-1)
    along = 0.5 * ((left[:5] - left[5:]) * vectors.T).sum(axis=-1)
    return -np.log(along / size)


def sampled_eigenvalues(alpha: float, delta: float) -> tuple[Array, Array]:
    """Mean square ``(5,)`` of the score along each eigenvector over samples of the target, and its standard error."""
    rng = np.random.default_rng(8)
    target = GaussianMixture([alpha, 1.0 - alpha], [[0.0, 0.0], [delta, 0.0]], np.eye(2))
    x = target.sample(SAMPLES, rng)
    r = target.responsibilities(x)
    score = np.concatenate([r[:, :1] - alpha, r[:, :1] * x, r[:, 1:] * (x - [delta, 0.0])], axis=-1)
    square = (score @ eigenpairs(alpha, delta)[1]) ** 2
    return square.mean(axis=0), square.std(axis=0, ddof=1) / np.sqrt(SAMPLES)


# (d): the approach to the target -----------------------------------------------------------------------------------------


APPROACH_DELTA = 8.0
SCALE = 4.0  # gamma, which weighs the log-odds in W
APPROACHES = {(0.3, 1.0): BLACK, (0.15, 0.5): BLUE}  # (old mass, error of the new mean along the axis)


def _distance(state: TwoModeState) -> Array:
    """``W = max(|e|, |v|, |s - s_alpha| / gamma)`` at the target mass 1/2."""
    e, v = np.abs(state.mean_old[..., 0]), np.abs(state.mean_new[..., 0] - APPROACH_DELTA)
    return np.maximum(np.maximum(e, v), np.abs(state.log_odds) / SCALE)


def approach_flow(beta0: float, error: float, times: Array) -> Array:
    """W along the exact reverse-KL flow."""
    problem = TwoModeProblem.separated(APPROACH_DELTA, 0.5)
    how = GradientFlow(rtol=1e-7)
    flow = gradient_flow(problem, ReverseKL(problem), problem.initial(beta0, error), float(times[-1]), how)
    return _distance(flow(times))


def approach_bound(beta0: float, error: float, times: Array) -> Array:
    """The certificate of theory 5.3 for this start."""
    found = convergence_certificate(APPROACH_DELTA, 0.5, beta0, error, SCALE)
    assert found is not None
    return found["initial_distance"] * np.exp(-found["rate"] * times)


def approach_sgd(beta0: float, error: float, lr: float = 0.05, batch: int = 256, steps: int = 600) -> Points:
    """W of SGD runs: on-policy noise vanishes at the target, so that they approach it like the flow."""
    problem = TwoModeProblem.separated(APPROACH_DELTA, 0.5)
    run = sgd_runs(problem, ReverseKL(problem), problem.initial(beta0, error), SGD(lr, batch), steps, RUNS, seed=8)
    return summarise(np.arange(60, steps + 1, 60), lr, _distance(run.states))


# The figure --------------------------------------------------------------------------------------------------------------


def _draw_eigenvalues(ax: Axes) -> None:
    deltas = np.linspace(0.8, 8.0, 73)
    values = np.array([eigenpairs(ALPHA, delta)[0] for delta in deltas])
    lower = ALPHA * (1.0 - ALPHA) * np.maximum(1.0 - missing_information_bound(ALPHA, deltas), 0.0)
    ax.plot(deltas, values, color="black", lw=1.3)
    for bound in (lower, np.full(deltas.shape, max(ALPHA, 1.0 - ALPHA))):
        ax.plot(deltas, bound, color=GREY, ls=BOUND)
    where: dict[Objective, tuple[Series, tuple[float, ...]]] = {
        "reverse": (BLUE, (1.5, 2.5, 3.5, 4.5, 6.5)),
        "replay": (VERMILLION, (2.0, 3.0, 4.0, 5.5, 7.5)),
    }
    for objective, (series, places) in where.items():
        for delta in places:
            draw_exact(ax, np.full(5, delta), local_rates(objective, ALPHA, delta), series)
    for delta in (1.0, 1.75, 2.75, 5.0, 7.0):
        mean, error = sampled_eigenvalues(ALPHA, delta)
        draw_points(ax, Points(np.full(5, delta), mean, error), BLACK)
    handles = [
        key(marker=BLUE.marker, color=BLUE.color, label="rate, reverse KL"),
        key(marker=VERMILLION.marker, color=VERMILLION.color, label="rate, forward KL + replay"),
        key(marker="o", color="black", filled=True, label="$10^5$ scores"),
    ]
    ax.legend(handles=handles, loc="center right", bbox_to_anchor=(1.0, 0.58))
    ax.set(xlim=(0.6, 8.0), ylim=(-0.02, 0.76))


@styled
def local_geometry() -> Drawing:
    """Eigenvalues of the Fisher information, information lost to overlap, condition number, last stage of training."""
    figure = matplotlib.figure.Figure(figsize=(7.2, 6.3))
    (eigen, lost), (condition, course) = figure.subplots(2, 2)
    _draw_eigenvalues(eigen)
    deltas = np.linspace(0.8, 9.0, 83)
    where = np.array([1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0])
    for alpha, series in MASSES.items():
        lost.semilogy(deltas, missing_information_fraction(alpha, deltas), color=series.color)
        lost.semilogy(deltas, missing_information_bound(alpha, deltas), color=series.color, ls=BOUND)
        low, high = extreme_eigenvalues(alpha, deltas)
        condition.semilogy(deltas, high / low, color=series.color)
        condition.semilogy(deltas, condition_number_bound(alpha, deltas), color=series.color, ls=BOUND)
        rates = np.array([local_rates("reverse", alpha, delta) for delta in where])
        draw_exact(condition, where, rates.max(axis=1) / rates.min(axis=1), series)
    lost.axhline(1.0, color=GREY, lw=0.8)
    lost.set(xlim=(0.6, 9.0), ylim=(1e-4, 8.0))
    condition.set(xlim=(0.6, 9.0), ylim=(1.0, 1e5))
    times = np.linspace(0.0, 30.0, 121)
    for start, series in APPROACHES.items():
        course.semilogy(times, approach_flow(*start, times), color=series.color)
        course.semilogy(times, approach_bound(*start, times), color=series.color, ls=BOUND)
        draw_points(course, approach_sgd(*start), series)
    slowest = float(extreme_eigenvalues(0.5, APPROACH_DELTA)[0])
    course.semilogy(times, 0.05 * np.exp(-slowest * times), color=GREY, ls=LAW)
    course.text(2.0, 3e-3, r"$e^{-\lambda_{\min}t}$", color=GREY)
    course.set(xlim=(0.0, 30.0), ylim=(5e-6, 2.0))
    handles = [key("-", s.marker, s.color, True, rf"$\beta_0={b:g}$, $v_0={v:g}$") for (b, v), s in APPROACHES.items()]
    course.legend(handles=handles, loc="upper right")
    handles = [key("-", color=s.color, label=rf"$\alpha={a:g}$") for a, s in MASSES.items()]
    lost.legend(handles=handles, loc="lower left")
    handles = [key("-", s.marker, s.color, label=rf"$\alpha={a:g}$") for a, s in MASSES.items()]
    condition.legend(handles=handles, loc="upper right")
    panel(
        eigen,
        "a",
        rf"eigenvalues at the target, $\alpha={ALPHA:g}$",
        r"separation $\delta$",
        "eigenvalue (rate per unit time)",
    )
    panel(lost, "b", "information lost to overlap", r"separation $\delta$", r"largest share $\kappa_{op}$")
    panel(condition, "c", "condition number", r"separation $\delta$", r"$\lambda_{\max}/\lambda_{\min}$")
    panel(course, "d", rf"certified approach, $\delta={APPROACH_DELTA:g}$", TIME, "distance $W$ from the target")
    kinds = [
        key("-", label="exact [T]"),
        key(BOUND, label="bound or certificate [T]"),
        key(marker="o", label="rate measured on the flow"),
        key(marker="o", filled=True, label=f"sampled; in d, SGD, {RUNS} runs"),
    ]
    legend_below(figure, kinds, 4)
    return figure


LOCAL_GEOMETRY = Figure(
    "local-geometry",
    "The last stage of training is ruled by the Fisher information, whatever the direction of the KL",
    "(a) Eigenvalues of the Fisher information of (s, m_o, m_n) at the target in two dimensions [T], with bounds (dashed, [T]). They are "
    "the rates at which the flow of reverse KL and that of forward KL with replayed data undo a small error along each eigenvector "
    "(open markers: measured over one time unit), and the mean square of the score (filled: 100,000 samples, with "
    "standard errors). (b) Largest share of information lost to overlap, with its bound. (c) Condition number with its bound, which "
    "exists once that share is surely below 1; open markers: ratio of measured rates. (d) Distance W = max(|e|, |v|, |s − s_α|/4) "
    "from the target along reverse KL from two starts, below its certificate (dashed, [T]); it ends at the rate of the "
    "smallest eigenvalue (dotted). Filled: mean of 32 SGD runs with batches of 256; on-policy noise vanishes at the target.",
    ("local-geometry", "condition-number", "local-convergence", "replay-forward-rate"),
    local_geometry,
)
