"""Every figure of the paper, in paper order: what it is called, what it shows, and how to draw it.

`FIGURES` is the list; `save_figure` writes one as PNG and PDF. Nothing here touches pyplot, so figures can be drawn
in threads (one at a time: matplotlib's style is global).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fstsim.paper.figures import convergence as convergence_figures
from fstsim.paper.figures import fast_slow as fast_slow_figures
from fstsim.paper.figures import forward as forward_figures
from fstsim.paper.figures import joint as joint_figures
from fstsim.paper.figures import methods as method_figures
from fstsim.paper.figures import phase as phase_figures
from fstsim.paper.figures import plasticity as plasticity_figures
from fstsim.paper.figures import replay as replay_figures
from fstsim.paper.figures import retention as retention_figures
from fstsim.paper.figures import reverse as reverse_figures
from fstsim.paper.figures import starvation as starvation_figures
from fstsim.paper.figures.drawing import Drawing, save_pdf, save_png


@dataclass(frozen=True)
class Figure:
    """One figure. ``slugs`` are the statements of `fstsim.theory.ALL_STATEMENTS` that it shows.

    The caption is plain text and says what to see; [T], [A], [N] mark what is proved, asymptotic, numeric only.
    """

    name: str
    title: str
    caption: str
    slugs: tuple[str, ...]
    draw: Callable[[], Drawing]


_ALL = (
    Figure(
        "mass-forgetting",
        "Forgetting by supervised fine-tuning is algebraic",
        "Old mass β under forward KL on new data only, components held right, from β = 1/2. (a) All separations δ share "
        "the early curve of the no-overlap law (Lambert W, a lower bound [T]), decay like 1/t, and bend to the last "
        "law (2(exp(δ²) − 1)t)^(−1/2) [A], the later the larger δ. Lines: exact time integral [T]; open markers: ODE "
        "solver; filled markers: mean of 32 SGD runs with batches of 32, learning rate 1/2 (standard errors are "
        "smaller than the markers). (b) Local exponent of the exact curve: the window in which 1/t is a fair description "
        "widens with δ, but every curve ends at 1/2.",
        (
            "mass-forgetting",
            "mass-forgetting-rate",
            "mass-forgetting-ultimate",
            "mass-forgetting-sgd",
        ),
        forward_figures.mass_forgetting,
    ),
    Figure(
        "geometry",
        "How fast the old mass goes depends on the geometry of the weight",
        "The same objective descended in four geometries, components held right, δ = 2. (a) Fisher-Rao (natural "
        "gradient) gives exp(−t) exactly, one straight line for δ = 1, 2, 4 [T]. (b) Without overlap (dashed, "
        "[T]) the logit decays like 1/t, complete data (EM) like exp(−t), and the probability reaches 0 at t = 3/8; overlap "
        "slows all of them (logit toward t^(−1/2), EM toward 1/t, probability to an exponential) except Fisher-Rao. Lines: ODE "
        "solver; filled markers: mean of 32 SGD runs with batches of 256; open markers: exact descent.",
        ("mass-forgetting-geometry", "k-mode-natural-gradient"),
        forward_figures.geometry,
    ),
    Figure(
        "joint-forward-flow",
        "With free components the old weight survives and the old mode does not",
        "Forward KL on new data, weight and both means moving. (a) The weight β stops at β∞ > 0, unlike with components held "
        "right (dash-dotted). (b) The old mean is dragged onto the new data instead. (c) What is forgotten is the mass of the "
        "old region A (the half-space nearer to the old mode): it falls to the new data's own share P_n(A) "
        "(broad lines), below Pinsker's bound (dashed, [T]). (d) Both −log β∞ and the logarithm of the time at which "
        "the old mean is half way approach δ²/2 from below [N]; the invariant of the late flow [A], evaluated half way, "
        "already gives the end. Lines in a-c: ODE solver; filled markers: mean of 32 SGD runs with batches of 64.",
        ("joint-collapse", "old-region-mass", "late-collapse", "old-mean-half-time"),
        joint_figures.joint_forward_flow,
    ),
    Figure(
        "misassignment-bounds",
        "How often a mixture assigns an old sample to the new mode",
        "Misassignment probability ε of the old component, with every bound [T], for three old masses w. (a-c) ε "
        "(black) between the best lower and upper bound; the Bhattacharyya bound U1 misses a factor that grows like δ. "
        "(d-f) Ratios bound / actual: the clean bound U2 is within a factor 2.3 everywhere shown and tends to 1, U* is "
        "within 1.4. Filled markers: mean responsibility over 100,000 samples, with standard errors. U3 and U4 exist only "
        "where the saddle point lies inside.",
        ("misassignment", "logistic-normal"),
        reverse_figures.misassignment_bounds,
    ),
    Figure(
        "drift-vs-separation",
        "Drift of the old mean is gated by overlap, with exponent δ²/8",
        "Shift of the old mean in standard deviations against δ². (a) Reverse KL to the target with old mass 1/2: the largest "
        "shift at any time, for three initial errors (open markers: exact descent); dashed: certificate [T], drawn where one "
        "exists. An error of the new mean toward the old one shortens the gap, hence the larger shift. (b) Forward KL "
        "on new data: the shift by time T (open markers: ODE solver) grows almost like √T; dashed: certificate [T]; dotted: leading "
        "order [A]. Grey: exp(−δ²/8).",
        (
            "drift-along-flow",
            "drift-under-forward-KL",
            "forward-drift-force",
            "old-mean-force",
            "old-mean-force-general",
        ),
        reverse_figures.drift_vs_separation,
    ),
    Figure(
        "drift-vs-time",
        "Forward KL never gives the old mean back; reverse KL does",
        "Shift of the old mean at δ = 6. Forward KL on new data (black): grows over five decades, a little slower than the "
        "leading order √t [A] (the more so the larger log t / δ [N]), until the old mean nears the new data. Reverse KL to the target (blue: new mean off by 1 toward the old; orange: old mass 0.2 instead "
        "of 1/2): rises, peaks, and returns to 0. Dashed: certificates [T]; that of forward KL ends where its overlap "
        "condition fails, those of reverse KL hold for all time. Lines: ODE solver; filled markers: mean of 32 SGD runs "
        "with batches of 256, with standard errors.",
        (
            "forward-drift-leading-order",
            "forward-drift-saddle",
            "drift-under-forward-KL",
            "reverse-kl-target",
            "drift-along-flow",
        ),
        reverse_figures.drift_vs_time,
    ),
    Figure(
        "phase-portrait",
        "Reverse KL starves a bad new mode first, and parts merged modes late",
        "Reverse KL to a target with old mass 1/2. (a) Paths of the exact flow at δ = 6 in the plane of the old mass and the "
        "error v of the new mean along the axis (positive: away from the old mode), followed for 40 time units from the dots, old "
        "component right at first. Orange: the skeleton, the flow without overlap [A]. While v is large, the weight is drawn "
        "to s = s_α + v²/2 (dash-dotted), away from the new mode. A new component that starts nearer to the old mode "
        "merges with the old component. (b) Old mass against time for three initial errors. (c) Both components merged near the new mode, "
        "β = 1/2, split by 0.001. The split grows e-fold in a time of order exp(δ²/8) [T]. But it stalls while still small, and the weight "
        "creeps along a valley: until the old component is half way back takes a time of order exp(5δ²/16) [A]; the flow takes "
        "0.32 of the leading order at δ = 6 and 0.62 at δ = 8. (d) Meanwhile reverse KL stays near log 1/(1 − α). Filled markers: mean of "
        "32 SGD runs with batches of 256 (standard errors are smaller than the markers).",
        ("skeleton-dynamics", "merged-saddle"),
        phase_figures.phase_portrait,
    ),
    Figure(
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
        convergence_figures.local_geometry,
    ),
    Figure(
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
        replay_figures.replay_and_leashes,
    ),
    Figure(
        "starvation",
        "Starvation delays reverse KL; replay removes the wait, and adds noise where it is not needed",
        "Reverse KL to a target with old mass 1/2 from a rare old mode, components held right, δ = 8 (no overlap), batches of N samples with the "
        "leave-one-out baseline. (a) Steps until the old mass reaches 0.1, learning rate 1: never faster than the flow on average (grey, [T]), and for "
        "N = 2 slower by at most one wait (dashed, [T]); replay (λ = 0.2, importance weights, open markers) leaves the mean at the flow. "
        "(b) In the complete-data (EM) geometry, learning rate 0.1, the flow is fast and the wait for the first batch with both modes "
        "(dashed, [T]) is what recovery costs; replay removes it. (c) Old samples that a learner forgetting under forward KL still draws, for each sample a step: "
        "in the logit their number grows like log k without end (bounds dashed, [T]), with the natural gradient it is finite. "
        "(d) Variance of the weight gradient with replay over that without, N = 16. (e) The same over the plane; replay hurts beyond the "
        "thick line [T], with the oracle mean baseline beyond the dash-dotted one [T], at δ = 2 beyond the dotted one. (f) Variance with different baselines: the mean can be worse than "
        "none, the swapped mean leaves nothing but overlap. Filled markers: 64 SGD runs (16 for N = 256; 32 in c), or 4,000 (f: 20,000) sampled gradients, with standard errors.",
        (
            "replay-reverse-starvation",
            "replay-reverse-old-samples",
            "replay-reverse-recovery",
            "replay-reverse-unbiased",
            "replay-reverse-variance",
            "replay-reverse-variance-overlap",
            "replay-reverse-harm",
            "replay-reverse-leave-one-out",
            "finite-batch-noise-baseline",
            "finite-batch-noise-leave-one-out",
        ),
        starvation_figures.starvation,
    ),
    Figure(
        "methods",
        "Every method on one axis: an anchor retains, its absence loses",
        "Old mass under every method of the classification, from 1/2 at log-odds 0, far-apart modes (δ = 8). (a) Without a fixed "
        "anchor all lose it: exponentially (natural gradient, or a constant step in log-odds per round of SDFT and OAPL) or like "
        "1/t (gradient in the logit). (b) With a contraction to a fixed anchor all retain it, at the closed-form fixed point. "
        "Lines: closed forms [T]; filled markers and bands: mean and middle 80 % of 32 SGD runs with batches of 64. Time is in units "
        "of 1 / learning rate; a round of SDFT (teacher replaced) or OAPL (refresh) counts one. (c) Log-odds of the two "
        "half-spaces after one update without mode labels, less what the map says: exact, between its bounds [T], below the Bhattacharyya "
        "coefficient BC. (d) SDFT without an anchor drags the old mean: whatever the teacher's rate ρ, the drift stays below a function "
        "of the old mass left [A]; open markers: ODE solver. (e) Standard deviation over 400 SGD runs, components held right: "
        "linear-noise theory [A] and measured; replay stays noisy, reverse KL is noiseless at its target.",
        (
            "exp-family-unification",
            "exp-family-unification-fixed-point",
            "exp-family-unification-overlap",
            "reverse-kl-prox",
            "sdft-series-resistance",
            "sdft-ultimate",
            "sdft-drift",
            "sdft-path-drift",
            "ttt-discover",
            "ttt-discover-no-leash",
            "oapl",
            "oapl-within-period",
            "oapl-lagged-pull",
            "finite-batch-noise-band",
        ),
        method_figures.methods,
    ),
    Figure(
        "retention-regions",
        "Which hyper-parameters retain the old mode",
        "Base old mass 1/2, at least 0.1 wanted. (a-c) Closed-form boundary (thick) and the final old mass (thin contours) [T]; markers: "
        "simulated at δ = 6, weight and means free (a, b: overlap included; c: labelled modes). SDFT: the tilt of the demonstration against the weight of the anchor; "
        "the top edge is a frozen teacher, the bottom edge a = 1 loses for every tilt, and mixing new demonstrations into the "
        "teacher's probabilities is such a tilt. TTT-Discover: the leash needed saturates with the reward gap, that of expected reward (dotted) "
        "does not. OAPL: retention ends after so many refreshes, unless the reference is anchored (dash-dotted). "
        "(d) Old mass of SDFT with tilt 1/2 for three rates ρ of the teacher: between the bounds [T] without an anchor, at the plateau [T] with one. "
        "(e) Log-odds lost by TTT-Discover: exact, below its ceiling for every gap [T]; dotted: weak exponent [A]; markers: the optimum with overlap, δ = 3. "
        "(f) Shift of the old mean by the accumulated tilt, exact with bound [T]: gated by overlap, unless the reward has a slope inside the old mode "
        "(0.05 per standard deviation, over temperature).",
        (
            "sdft",
            "sdft-frozen-teacher",
            "sdft-retention-horizon",
            "sdft-anchored-stability",
            "sdft-anchored-rate",
            "sdft-probability-mixing",
            "ttt-discover-retention",
            "ttt-discover-threshold",
            "ttt-discover-overlap",
            "ttt-discover-drift",
            "ttt-discover-small-b",
            "oapl-anchored",
            "oapl-overlap",
            "oapl-drift",
            "reward-slope-drift",
        ),
        retention_figures.retention_regions,
    ),
    Figure(
        "fast-slow",
        "What a fast context buys, and what it does not",
        "Two channels for one decision: slow weights and a task-specific context. (a) Success rate against KL(no context‖base) from base success "
        "rate 0.1, for slow shares ϑ of the gain. (b) KL saved at matched reward with ϑ = 1/2 (grey); contours: the largest slow share that "
        "saves 70 %. (c) Speed-up to success rate 0.8. A context that learns by gradient (η_f = 2 η_s; with unlimited capacity or Φ = 2) gains at most "
        "1 + η_f/η_s; one that searches (10 η_s nats a unit time, capacity Φ) divides the plateau of hard prompts by exp(Φ) [A]. (d) Success rate against time: ahead of "
        "RL at every horizon; RL with advantages divided by the group's standard deviation for comparison. (e) Slow drift at the optimum "
        "of reward less λ KL: a context lowers it, except on very hard prompts (ticks: s_0 + 1/λ = −Φ/2). (f) Skill gained per unit of slow drift, "
        "if exploration comes from the no-context entropy; dashed: exp(Φ). (g) Time to success rate 1/2 with advantages divided by the standard deviation of a "
        "group of G: the 1/p0 plateau shrinks by √(G − 1) [A], within bounds [T]. (h) Weight of a hard context's gradient, and of its companion's, "
        "in groups that share one baseline: never negative, between the bounds [T]. (i) Spread of the time to escape from 0.001 over seeds, one group "
        "a batch, set by the jump of one lone success [A]. Filled markers: simulated, groups of rollouts, with standard errors.",
        (
            "fast-slow-allocation",
            "fast-slow-kl",
            "fast-slow-quadratic-law",
            "fast-slow-reduction",
            "fast-slow-time",
            "fast-slow-time-normalised",
            "fast-slow-speed-up",
            "fast-slow-search-time",
            "fast-slow-search-bound",
            "fast-slow-search-plateau",
            "fast-slow-finite-horizon",
            "fast-slow-leash",
            "fast-slow-leash-optimum",
            "fast-slow-skill",
            "group-normalised",
            "group-normalised-plain",
            "group-normalised-dead",
            "group-normalised-bounds",
            "group-normalised-epsilon",
            "group-normalised-escape",
            "group-normalised-plateau",
            "group-normalised-root-plateau",
            "group-normalised-contexts",
            "group-normalised-contexts-plain",
            "group-normalised-contexts-weight",
            "group-normalised-contexts-random",
            "group-normalised-neutral",
            "group-normalised-cap",
            "group-normalised-wait",
            "group-normalised-wait-escape",
            "group-normalised-wait-bound",
            "group-normalised-wait-spread",
        ),
        fast_slow_figures.fast_slow,
    ),
    Figure(
        "plasticity",
        "Relearning time is a pole in one divergence and an exponential in the other",
        "Time to learn a conflicting task after the first behaviour (base mass p_b) was trained to log-odds S. (a) Against KL(policy‖base): a pole at log 1/p_b (broad "
        "lines), between bounds [T]. (b) The same times against KL(base‖policy): log T ends on a line of slope 1/(1 − p_b) [A], between bounds [T]. (c) Against the drift itself: "
        "RL, RL with group standard deviation (G = 8), a gradient-like context (η_f = 2 η_s), and a search (5 η_s nats a unit time, capacity Φ = 4), which pays a fixed "
        "price for the first Φ nats (dashed: bound [T]). (d) Six alternating conflicting tasks with budget 1.5 F(x*) each, success rate 0.9 wanted: RL "
        "alternates between 0.9 and 0.80, without early stopping every even stage ends at the base; half of the same total rate in a resettable context "
        "succeeds throughout. (e) Least budget with which every stage succeeds, against the slow share of the rate; markers: simulated at 7 % above and below, "
        "for 0.9. (f) K behaviours: time to raise one of the others to 0.9, exact (Runge-Kutta) between its bounds [T]. Filled markers: simulated, groups of rollouts.",
        (
            "plasticity-relearning-time",
            "plasticity-drift",
            "plasticity-pole",
            "plasticity-forward-kl",
            "plasticity-exponent",
            "plasticity-sequence",
            "plasticity-period-two",
            "plasticity-search-stage",
            "plasticity-softmax",
        ),
        plasticity_figures.plasticity,
    ),
)

FIGURES: dict[str, Figure] = {figure.name: figure for figure in _ALL}


def save_figure(figure: Figure, out_dir: Path) -> list[Path]:
    """Draw ``figure`` and write ``NAME.png`` (150 dpi) and ``NAME.pdf`` to ``out_dir``; the same bytes every time."""
    drawing = figure.draw()
    png, pdf = (out_dir / f"{figure.name}.{extension}" for extension in ("png", "pdf"))
    return [save_png(drawing, png, figure.title), save_pdf(drawing, pdf, figure.title)]
